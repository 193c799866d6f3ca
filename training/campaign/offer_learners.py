"""Learners of what offers do: kinds of people by their past offers, boosted trees, and the average alone.

Each returns arrays that `campaign/offers.py` evaluates with numpy.

Source:
    Kennedy 2023, "Towards optimal doubly robust estimation of heterogeneous causal effects": the doubly robust
    pseudo-outcomes. Laird 1978, "Nonparametric maximum likelihood estimation of a mixing distribution": kinds of people
    fitted by EM are that estimate of how people's answers are spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def kinds_of_people(made: np.ndarray, taken: np.ndarray, classes: int, seed: int, rounds: int = 300) -> Arrays:
    """Return `rate` [K, C], `share` [K] and `opening` [2]; see `campaign.offers.of_classes`.

    Args:
        made, taken: [P, C] int, offers by level seen, last those that were not opened; and purchases after them.
    """
    there = made.sum(1) > 0
    made, taken = made[there], taken[there]
    both, times = np.unique(np.concatenate([made, taken], 1), axis=0, return_counts=True)
    n, b = both[:, : made.shape[1]].astype(np.float64), both[:, made.shape[1] :].astype(np.float64)
    weight = times.astype(np.float64)
    overall = (weight @ b + 0.5) / (weight @ n + 1.0)
    draw = np.random.default_rng(seed)
    # kinds begin apart, from those who hardly buy to those who do each time, answering levels in all ways
    spread = np.linspace(-2.5, 3.5, classes)[:, None] + draw.normal(0, 1.0, (classes, n.shape[1]))
    odds = np.log(overall / (1 - overall)) + spread
    rate, share = 1 / (1 + np.exp(-odds)), np.full(classes, 1 / classes)
    prior = 2.0  # purchases' worth of belief in a kind's own level, so that a cell that few saw is not 0 or 1
    before = -np.inf
    for _ in range(rounds):
        log = b @ np.log(rate).T + (n - b) @ np.log1p(-rate).T + np.log(share)
        top = log.max(1, keepdims=True)
        of = np.exp(log - top)
        total = of.sum(1, keepdims=True)
        now = float(weight @ (np.log(total) + top)[:, 0])
        of = of / total * weight[:, None]
        share = np.maximum(of.sum(0) / weight.sum(), 1e-9)
        share = share / share.sum()
        seen, bought = of.T @ n, of.T @ b
        level = ((bought.sum(1) + 0.5) / (seen.sum(1) + 1.0))[:, None]
        rate = np.clip((bought + prior * level) / (seen + prior), 1e-6, 1 - 1e-6)
        if now - before < 1e-7 * abs(now):
            break
        before = now
    return {"rate": rate, "share": share, "opening": opening(made)}


def opening(made: np.ndarray) -> np.ndarray:
    """Return a, b of the beta distribution of opening, by its moments; all opened: certainty."""
    sent, seen = made.sum(1).astype(np.float64), made[:, :-1].sum(1)
    if (seen == sent).all():
        return np.array([1e6, 1e-6])
    mean = float(seen.sum() / sent.sum())
    some = sent > 1
    share = seen[some] / sent[some]
    noise = float((mean * (1 - mean) / sent[some]).mean())
    variance = min(max(float(((share - mean) ** 2).mean()) - noise, 1e-4), 0.95 * mean * (1 - mean))
    strength = mean * (1 - mean) / variance - 1
    return np.array([mean * strength, (1 - mean) * strength])


def averages(level: np.ndarray, outcome: np.ndarray, weight: np.ndarray, levels: int) -> Arrays:
    """Return an ensemble without trees: each level's rate, the same for everybody."""
    found: Arrays = {"effects": np.array([False])}
    for k in range(levels):
        mine = level == k
        found |= _ensemble(None, str(k), float(np.average(outcome[mine], weights=weight[mine])))
    return found


def by_level(
    x: np.ndarray, level: np.ndarray, outcome: np.ndarray, weight: np.ndarray, levels: int, *, trees: int, seed: int
) -> Arrays:
    """Return an ensemble a level (a T-learner)."""
    found: Arrays = {"effects": np.array([False])}
    for k in range(levels):
        mine = level == k
        found |= _fit(x[mine], outcome[mine], weight[mine], str(k), trees, seed)
    return found


def doubly_robust(
    x: np.ndarray,
    level: np.ndarray,
    propensity: np.ndarray,
    outcome: np.ndarray,
    fold: np.ndarray,
    levels: int,
    *,
    trees: int,
    seed: int,
) -> Arrays:
    """Return an ensemble of what happens without an offer, and one of each level's effect on pseudo-outcomes.

    Args:
        fold: [n] int, of people: nobody's pseudo-outcome comes from a model that saw their own outcome.
    """
    from playbill.campaign.offers import grown

    weight = 1 / propensity
    expected = np.zeros((len(x), levels))
    for number in np.unique(fold):
        out = fold == number
        rest = by_level(x[~out], level[~out], outcome[~out], weight[~out], levels, trees=trees, seed=seed)
        for k in range(levels):
            expected[out, k] = grown(rest, str(k), x[out])
    expected = np.clip(expected, 0, 1)
    told = (
        expected
        + (level[:, None] == np.arange(levels))
        * weight[:, None]
        * (outcome - expected[np.arange(len(x)), level])[:, None]
    )
    mine = level == 0
    found: Arrays = {"effects": np.array([True])}
    found |= _fit(x[mine], outcome[mine], weight[mine], "0", trees, seed)
    for k in range(1, levels):
        found |= _fit(x, told[:, k] - told[:, 0], np.ones(len(x)), str(k), trees, seed)
    return found


def _fit(x: np.ndarray, target: np.ndarray, weight: np.ndarray, name: str, trees: int, seed: int) -> Arrays:
    if len(np.unique(target)) < 2:
        return _ensemble(None, name, float(target.mean()) if len(target) else 0.0)
    from lightgbm import LGBMRegressor  # of the extra measure: training alone is installed without it

    model = LGBMRegressor(
        n_estimators=trees, num_leaves=8, learning_rate=0.05, min_child_samples=max(20, len(x) // 100), reg_lambda=10.0,
        subsample=0.8, subsample_freq=1, n_jobs=1, random_state=seed, deterministic=True, force_row_wise=True,
        verbose=-1,
    )  # fmt: skip
    centre = float(np.average(target, weights=weight))
    model.fit(x, target - centre, sample_weight=weight / weight.mean())
    return _ensemble(model.booster_.dump_model()["tree_info"], name, centre)


def _ensemble(trees: list[Mapping[str, Any]] | None, name: str, start: float) -> Arrays:
    """Return trees as [T, M] arrays, M the most nodes of one."""
    grown = [_nodes(tree["tree_structure"]) for tree in trees or []]
    most = max((len(nodes) for nodes in grown), default=1)
    shape = (len(grown), most)
    arrays: Arrays = {
        "feature": np.full(shape, -1, np.int32), "threshold": np.zeros(shape), "left": np.zeros(shape, np.int32),
        "right": np.zeros(shape, np.int32), "value": np.zeros(shape), "missing": np.zeros(shape, bool),
    }  # fmt: skip
    for t, nodes in enumerate(grown):
        for m, node in enumerate(nodes):
            for key, value in node.items():
                arrays[key][t, m] = value
    return {f"{key}{name}": value for key, value in arrays.items()} | {f"start{name}": np.array([start])}


def _nodes(root: Mapping[str, Any]) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = []

    def add(node: Mapping[str, Any]) -> int:
        place = len(nodes)
        nodes.append({})
        if "leaf_value" in node:
            nodes[place] = {"value": node["leaf_value"]}
            return place
        # a column that never was missing while it taught has missing_type None: LightGBM then takes NaN for 0
        missing = node["default_left"] if node["missing_type"] == "NaN" else 0.0 <= node["threshold"]
        nodes[place] = {
            "feature": node["split_feature"], "threshold": node["threshold"], "missing": missing,
            "left": add(node["left_child"]), "right": add(node["right_child"]),
        }  # fmt: skip
        return place

    add(root)
    return nodes
