"""Models of one act: a rule by recency, a line over what is known, BG/NBD, and trees where LightGBM is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, gammaln

from playbill.campaign.act_features import FEATURES
from playbill.campaign.act_models import BgNbd, Linear, Model, Trees, histories, standard
from playbill.campaign.acts import NEXT, Act
from playbill.errors import TrainingError
from playbill.training.campaign.acts_moments import Rows

RECENCY, LINE, LAW, TREES, MEAN = "recency", "line", "bg_nbd", "trees", "mean"
_RFM = ("recency", "active_days", "bought_recency", "bought", "revenue", "tenure")
_PENALTY = 1.0  # on squared weights of standardised columns, in rows
_LEAVES, _RATE, _ROUNDS, _PATIENCE, _LEAST = 15, 0.05, 400, 30, 60


def has_trees() -> bool:
    """Return whether LightGBM is installed."""
    try:
        import lightgbm  # noqa: F401  # late: only the extra `measure` has it
    except ImportError:
        return False
    return True


def candidates(act: Act) -> list[str]:
    """Return the names of the models that an act is fitted with, the plainest first."""
    trees = [TREES] if has_trees() else []
    if act.name.startswith("value"):
        return [MEAN, "rfm", LINE, *trees]
    if act.name == NEXT:
        return [MEAN, RECENCY, LINE, *trees]
    return [RECENCY, "rfm", LINE, LAW, *trees]


def fit(name: str, act: Act, rows: Rows, seed: int) -> Model:
    """Return one model of an act, fitted on rows.

    Raises:
        TrainingError: trees as arrays answer otherwise than the library did.
    """
    amount = act.name.startswith("value")
    if name == LAW:
        return _bg_nbd(rows.x, "bought_" if act.name.startswith("purchase") else "")
    if name == TREES:
        return _trees(rows, amount, seed)
    beyond = list(range(len(FEATURES), rows.x.shape[1]))[1:]  # one column a stretch; the first is its middle
    kept = {
        MEAN: (),
        RECENCY: ("bought_recency",) if act.name.startswith(("purchase", "next")) else ("recency",),
        "rfm": _RFM,
        LINE: FEATURES,
    }[name]
    columns = np.asarray([*(FEATURES.index(one) for one in kept), *beyond], np.int64)
    return _line(rows, columns, "log" if amount else "logit")


def _line(rows: Rows, columns: np.ndarray, link: str) -> Linear:
    """Return a logistic, or for amounts a Poisson quasi-likelihood, regression with a small ridge."""
    logs = np.log1p(rows.x[:, columns])
    centre, scale = logs.mean(0), logs.std(0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    z = standard(rows.x, columns, centre, scale)
    unit = max(float(rows.y.mean()), 1e-9) if link == "log" else 1.0
    y, n = rows.y / unit, len(rows.y)

    def loss(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        f = numbers[0] + z @ numbers[1:]
        if link == "logit":
            each, mean = np.logaddexp(0, f) - y * f, expit(f)
        else:
            mean = np.exp(np.minimum(f, 50))
            each = mean - y * f
        pull = mean - y
        ridge = _PENALTY / 2 * float(numbers[1:] @ numbers[1:])
        slope = np.concatenate([[pull.sum()], pull @ z + _PENALTY * numbers[1:]]) / n
        return (float(each.sum()) + ridge) / n, slope

    found = minimize(loss, np.zeros(1 + len(columns)), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    bias = float(found.x[0] + (np.log(unit) if link == "log" else 0))
    return Linear(columns, centre, scale, found.x[1:], bias, link)


def _bg_nbd(x: np.ndarray, prefix: str) -> BgNbd:
    """Return the law that is likeliest to have made people's days. Source: Fader, Hardie and Lee 2005, eq. 6."""
    n, last, known = histories(x, prefix)

    def loss(numbers: np.ndarray) -> float:
        r, alpha, a, b = np.exp(numbers)
        first = gammaln(r + n) - gammaln(r) + r * np.log(alpha)
        second = gammaln(a + b) + gammaln(b + n) - gammaln(b) - gammaln(a + b + n)
        stayed = -(r + n) * np.log(alpha + known)
        left = np.log(a) - np.log(b + np.maximum(n, 1) - 1) - (r + n) * np.log(alpha + last)
        return -float(np.mean(first + second + np.logaddexp(stayed, np.where(n > 0, left, -np.inf))))

    start = np.log([1.0, max(float(known.mean()), 1.0), 1.0, 5.0])
    found = minimize(loss, start, method="L-BFGS-B", bounds=[(-8, 8)] * 4)
    r, alpha, a, b = np.exp(found.x).tolist()
    return BgNbd(r, alpha, a, b, prefix)


def _trees(rows: Rows, amount: bool, seed: int) -> Trees:
    import lightgbm  # late: only the extra `measure` has it

    settings = {
        "objective": "tweedie" if amount else "binary",
        "num_leaves": _LEAVES,
        "learning_rate": _RATE,
        "min_data_in_leaf": _LEAST,
        "feature_fraction": 0.8,
        "lambda_l2": 5.0,
        "use_missing": False,
        "num_threads": 1,
        "deterministic": True,
        "force_row_wise": True,
        "seed": seed,
        "verbose": -1,
    }
    stops = rows.person % 5 == 0  # other people say when to stop
    data = lightgbm.Dataset(rows.x[~stops], rows.y[~stops])
    beside = lightgbm.Dataset(rows.x[stops], rows.y[stops], reference=data)
    stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
    rounds = lightgbm.train(settings, data, _ROUNDS, valid_sets=[beside], callbacks=[stop]).best_iteration
    model = lightgbm.train(settings, lightgbm.Dataset(rows.x, rows.y), max(rounds, 1))
    found = as_arrays(model.dump_model()["tree_info"], "log" if amount else "logit")
    some = rows.x[:5000]
    ours, theirs = found(some, 0), np.asarray(model.predict(some))
    if not np.allclose(ours, theirs, rtol=1e-6, atol=1e-9):
        raise TrainingError(f"trees as arrays differ from LightGBM's by {np.abs(ours - theirs).max():.3g}")
    return found


def as_arrays(trees: list[dict[str, Any]], link: str) -> Trees:
    """Return LightGBM's dumped trees as arrays. Args: trees: `tree_info` of `dump_model`."""
    walked = [_walk(tree["tree_structure"]) for tree in trees]
    most = max(len(nodes) for nodes, _ in walked)
    shape = (len(walked), most)
    feature, left, right = (np.zeros(shape, np.int32) for _ in range(3))
    threshold, value = np.zeros(shape), np.zeros(shape)
    for t, (nodes, _) in enumerate(walked):
        for m, (f, at, low, high, leaf) in enumerate(nodes):
            feature[t, m], threshold[t, m], left[t, m], right[t, m], value[t, m] = f, at, low, high, leaf
    return Trees(feature, threshold, left, right, value, max(depth for _, depth in walked), link)


def _walk(root: dict[str, Any]) -> tuple[list[tuple[int, float, int, int, float]], int]:
    """Return a tree's nodes (feature, threshold, left, right, value), the root first, and its depth."""
    nodes: list[tuple[int, float, int, int, float]] = [(0, 0.0, 0, 0, 0.0)]
    waiting, deepest = [(root, 0, 0)], 0
    while waiting:
        node, at, depth = waiting.pop()
        deepest = max(deepest, depth)
        if "leaf_value" in node and "split_feature" not in node:
            nodes[at] = (0, 0.0, at, at, float(node["leaf_value"]))
            continue
        low = len(nodes)
        nodes += [(0, 0.0, 0, 0, 0.0)] * 2
        nodes[at] = (int(node["split_feature"]), float(node["threshold"]), low, low + 1, 0.0)
        waiting += [(node["left_child"], low, depth + 1), (node["right_child"], low + 1, depth + 1)]
    return nodes, deepest
