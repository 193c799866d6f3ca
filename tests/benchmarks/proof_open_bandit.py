"""Policies learned on Open Bandit's random log, valued off-policy beside the Bernoulli-TS that ran in production.

    python tests/benchmarks/proof_open_bandit.py [data=DIR] [learned=0.5]

Ten thousand impressions a campaign, drawn at random, 38 to 46 of them clicked. A policy is learned on the earlier half
and valued on the later one. (Folds would value it on all impressions; but with a click an item, what is held out is
what the others lack, policies look worse than they are, and no interval knows of it.)

    Thompson        the posterior that the engine serves with, over items alone: each as often as it is believed best
    Thompson, content   the same over the items' features, so that items alike share what is learned
    softmax, person over content, and where it meets what is known of the visitor

Beside them Bernoulli-TS by its published probabilities, and uniform, which is the log itself. Values by IPS, SNIPS and
DR with intervals; the difference to Bernoulli-TS is taken on the same impressions.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.special import logit, softmax

sys.path.insert(0, str(Path(__file__).parent))

from open_bandit import CAMPAIGNS, USER_FEATURES, bts_probabilities, impressions, on_policy_value, open_bandit_log
from record import machine, record

from playbill.creative.posterior import Posterior, marginals, updated
from playbill.creative.quadrature import chance_of_best
from playbill.measure.off_policy.estimators import difference, dr, ips, on_policy, snips
from playbill.measure.off_policy.intervals import bootstrap_intervals
from playbill.measure.off_policy.log import Choices, Log
from playbill.measure.off_policy.overlap import overlap
from playbill.measure.off_policy.reward_model import Logistic, cross_fit

POLICIES = ("Thompson", "Thompson, content", "softmax, person", "Bernoulli-TS", "uniform")
ITEM_SD, FEATURE_SD, TEMPERATURE = 0.3, 0.3, 0.25


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    checkout = Path(__file__).resolve().parents[2]
    data = Path(given.get("data", os.environ.get("PLAYBILL_SHARED_DATA", checkout.parent / "shared" / "data")))
    started = machine()
    figures = {name: campaign(data, name, float(given.get("learned", 0.5))) for name in CAMPAIGNS}
    _print(figures)
    print(f"written to {record('open_bandit_policies', figures, started)}")
    return 0


def campaign(data: Path, name: str, learned: float) -> dict[str, Any]:
    """Return the value of every policy on the later part of one campaign's random log."""
    log = open_bandit_log(data, name)
    rows = impressions(data, "random", name)
    items, person = _items(data, name), _people(rows)
    at = np.argsort(rows["timestamp"].to_numpy(), kind="stable")
    known, asked = np.split(at, [round(learned * len(at))])
    asked.sort()
    assert log.position is not None
    targets = {policy: np.zeros((len(log), len(items))) for policy in POLICIES}
    targets["Bernoulli-TS"] = bts_probabilities(data, name)[log.position]
    targets["uniform"][:] = 1 / len(items)
    targets["Thompson"][asked] = _thompson(log, known, np.eye(len(items)) * ITEM_SD)
    targets["Thompson, content"][asked] = _thompson(log, known, np.hstack([items, np.eye(len(items)) * ITEM_SD]))
    targets["softmax, person"][asked] = _contextual(log, known, asked, items, person)
    value, low, high = on_policy_value(data, name)
    clicks = {"learned_clicks": int(log.reward[known].sum()), "clicks": int(log.reward[asked].sum())}
    found: dict[str, Any] = {"learned_impressions": len(known), "impressions": len(asked), **clicks}
    found["production"] = {"Bernoulli-TS, its own log": [value, low, high]}
    logs = {policy: _with_target(log, target, asked) for policy, target in targets.items()}
    doubly = {}
    for policy, one in logs.items():
        doubly[policy] = dr(one, cross_fit(one, lambda: Logistic(len(items)), seed=0))
        several = [ips(one), snips(one), doubly[policy]]
        assert one.unit is not None
        told = bootstrap_intervals(several, one.unit)
        seen = overlap(one)
        found[policy] = {c.name: [i.value, i.low, i.high] for c, i in zip(several, told, strict=True)}
        found[policy]["effective_impressions"] = round(seen.effective_rounds, 1)
        found[policy]["refused"] = seen.refused
    unit = logs["uniform"].unit
    assert unit is not None
    for policy in POLICIES[:3]:
        for rival in ("Bernoulli-TS", "uniform"):
            (apart,) = bootstrap_intervals([difference(doubly[policy], doubly[rival])], unit)
            found[policy][f"DR less {rival}"] = [apart.value, apart.low, apart.high]
    found["logged"] = float(on_policy(logs["uniform"]).estimate())
    return found


def _thompson(log: Log, known: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return [K] probability that each item is believed to be the best; features [K, d]."""
    belief = _learned(features[log.action[known]], log, known)
    phi = features - features.mean(0)
    return chance_of_best(*marginals(belief.mean, belief.covariance(), phi))


def _contextual(log: Log, known: np.ndarray, asked: np.ndarray, items: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Return [n, K] softmax over what the items' content says for each visitor."""
    meets = (person[:, :, None] * items[log.action][:, None, :]).reshape(len(person), -1) * 0.3
    belief = _learned(np.hstack([items[log.action], meets])[known], log, known)
    width = items.shape[1]
    of_person = belief.mean[width:].reshape(person.shape[1], width) * 0.3
    score = (belief.mean[:width] + person[asked] @ of_person) @ items.T
    found: np.ndarray = softmax(score / TEMPERATURE, axis=1)
    return found


def _learned(phi: np.ndarray, log: Log, known: np.ndarray) -> Posterior:
    """Return the belief about weights after the known impressions, the level of each position held fixed."""
    assert log.position is not None
    position, reward = log.position[known], log.reward[known]
    level = (np.bincount(position, reward) + 1) / (np.bincount(position) + 200)
    width = phi.shape[1]
    prior = Posterior(np.zeros(width), np.eye(width))
    return updated(prior, phi - phi.mean(0), reward, 1.0, logit(level)[position])


def _items(data: Path, name: str) -> np.ndarray:
    """Return [K, F] content of the items: one number, standardised, and one column a value that several items have."""
    frame = pl.read_parquet(data / "open-bandit-small" / f"item_context_{name}.parquet")
    frame = frame.sort(pl.col("item_id").cast(pl.Int64))
    number = frame["item_feature_0"].to_numpy()
    columns = [((number - number.mean()) / number.std())[:, None]]
    for feature in ("item_feature_1", "item_feature_2", "item_feature_3"):
        dummies = frame[feature].cast(pl.String).to_dummies().to_numpy()
        columns.append(dummies[:, dummies.sum(0) > 1].astype(np.float64))
    return FEATURE_SD * np.hstack(columns)


def _people(rows: pl.DataFrame) -> np.ndarray:
    """Return [N, F] what is known of visitors: the frequent values of their features, less their means."""
    hashed = [rows[name].to_dummies().to_numpy().astype(np.float64) for name in USER_FEATURES]
    columns = np.hstack([d[:, d.mean(0) > 0.05] for d in hashed])
    return columns - columns.mean(0)


def _with_target(log: Log, every: np.ndarray, asked: np.ndarray) -> Log:
    """Return the asked rows of the log for a policy of [N, K] probabilities."""
    target = every[asked]
    n, items = target.shape
    action = log.action[asked]
    assert log.position is not None and log.features is not None
    choices = Choices(
        first=np.arange(n + 1) * items,
        action=np.tile(np.arange(items), n),
        target=target.ravel(),
        logging=np.full(n * items, 1 / items),
        chosen=np.arange(n) * items + action,
    )
    return Log(
        reward=log.reward[asked],
        propensity=log.propensity[asked],
        target=target[np.arange(n), action],
        action=action,
        position=log.position[asked],
        features=log.features[asked],
        choices=choices,
    )


def _print(figures: dict[str, Any]) -> None:
    for name, found in figures.items():
        value, low, high = found["production"]["Bernoulli-TS, its own log"]
        print(
            f"\n{name}: learned from {found['learned_clicks']} clicks, valued on {found['impressions']:,} impressions "
            f"with {found['clicks']} clicks, logged {found['logged']:.4f}"
        )
        print(f"  Bernoulli-TS in its own log: {value:.4f} [{low:.4f}, {high:.4f}]")
        for policy in POLICIES:
            told = found[policy]
            for estimator in (n for n, v in told.items() if isinstance(v, list)):
                value, low, high = told[estimator]
                print(f"  {policy:18}{estimator:24}{value:+.5f} [{low:+.5f}, {high:+.5f}]")
            refused = f"; refused: {told['refused']}" if told["refused"] else ""
            print(f"  {policy:18}effective impressions {told['effective_impressions']:,.0f}{refused}")


if __name__ == "__main__":
    began = time.perf_counter()
    code = main(sys.argv[1:])
    print(f"{time.perf_counter() - began:.0f} s")
    sys.exit(code)
