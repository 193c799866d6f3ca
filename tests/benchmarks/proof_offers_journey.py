"""Which household redeems which coupon: learned from earlier campaigns, judged on later ones, on real data.

    python tests/benchmarks/proof_offers_journey.py [data=DIR]

Complete Journey: 2,500 households, 27 campaigns. A row is a household that was sent a campaign and one of its coupons,
of each campaign 60 that are drawn evenly, whoever redeemed them. Campaigns that began in the first 65 % of days teach;
the later judge. What is known of a row comes from before the campaign's start. Neither age nor income of a household is
read. Which learner is asked is chosen on the earlier campaigns alone: each third of them in time is told by the others,
and the first by none that came later, and the best mean of average precision is taken. Rivals are single signals: how
popular the coupon was before, how often the household redeemed before, how lately and how often it bought one of the
coupon's products. Intervals resample households.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parent))

from journey_coupons import logistic, rows, together, trees
from record import machine, record
from sklearn.metrics import average_precision_score, roc_auc_score

LEARNERS = {
    "logistic .003": logistic(0.003), "logistic .01": logistic(0.01), "logistic .1": logistic(0.1), "trees": trees(),
    "logistic .003 and trees": together(logistic(0.003), trees()),
    "logistic .01 and trees": together(logistic(0.01), trees()),
}  # fmt: skip
RIVALS = {"household's redemptions before": ("redeemed", 1), "coupon's redemptions before": ("popular", 1),
          "recency of its products": ("own_since", -1), "purchases of its products": ("own", 1)}  # fmt: skip
AT, RESAMPLES = (100, 500, 1000), 200


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    started = machine()
    checkout = Path(__file__).resolve().parents[2]
    shared = given.get("data", os.environ.get("PLAYBILL_SHARED_DATA", checkout.parent / "shared" / "data"))
    figures = measured(Path(shared) / "complete-journey")
    print(*(f"{k}: {v}" for k, v in figures.items()), sep="\n")
    print(f"written to {record('offers_journey', figures, started)}")
    return 0


def measured(source: Path) -> dict[str, Any]:
    """Return AUC and precision at k of the model and its rivals on later campaigns, and their differences."""
    table = rows(source)
    starts = table["start"].unique().sort()
    border = starts[0] + (starts[-1] - starts[0]) * 0.65  # type: ignore[operator]  # moments
    early, late = table.filter(pl.col("start") < border), table.filter(pl.col("start") >= border)
    told = {name: _told(early, learner) for name, learner in LEARNERS.items()}
    chosen = max(told, key=lambda name: told[name])
    y = late["took"].to_numpy()
    scores = {"model": LEARNERS[chosen](early, late)}
    scores |= {name: sign * late[column].to_numpy().astype(float) for name, (column, sign) in RIVALS.items()}
    ties = np.random.default_rng(0).random(len(y))
    found: dict[str, Any] = {name: _measures(y, score, ties) for name, score in scores.items()}
    found["the model's less each rival's"] = _differences(y, scores, late["household_id"].to_numpy(), ties)
    return {"rows that taught": len(early), "redeemed": int(early["took"].sum()), "rows that judged": len(late),
            "redeemed of them": int(y.sum()), "rate": float(y.mean()), "from": str(border), "chosen": chosen,
            "average precision on earlier campaigns": told, **found}  # fmt: skip


def _told(early: pl.DataFrame, learner: Any) -> float:
    """Return the mean average precision on thirds of the earlier campaigns, by redemptions, told by other campaigns."""
    by_start = early.group_by("campaign").agg(pl.col("start").first(), pl.col("took").sum()).sort("start", "campaign")
    third = (by_start["took"].cum_sum() - 1) * 3 // by_start["took"].sum()
    part = early.join(by_start.select("campaign", third=third), on="campaign", maintain_order="left")[
        "third"
    ].to_numpy()
    parts = [(part < k, part == k) for k in range(1, 3)] + [(part != k, part == k) for k in range(3)]
    found = []
    for taught, asked in parts:
        mine = early.filter(asked)
        found.append(average_precision_score(mine["took"].to_numpy(), learner(early.filter(taught), mine)))
    return float(np.mean(found))


def _measures(y: np.ndarray, score: np.ndarray, ties: np.ndarray, times: np.ndarray | None = None) -> dict[str, float]:
    """Return AUC and precision at k; with `times` each row counts so often."""
    order = np.lexsort((ties, -score))
    weight = np.ones(len(y)) if times is None else times.astype(np.float64)
    until = np.cumsum(weight[order])
    hits = np.cumsum(weight[order] * y[order])
    at = {f"precision_at_{k}": float(hits[min(np.searchsorted(until, k), len(y) - 1)]) / k for k in AT}
    return {"auc": float(roc_auc_score(y, score, sample_weight=times)), **at}


def _differences(
    y: np.ndarray, scores: dict[str, np.ndarray], households: np.ndarray, ties: np.ndarray
) -> dict[str, dict[str, list[float]]]:
    """Return by rival and measure the model's less the rival's, with its interval over households."""
    _, who = np.unique(households, return_inverse=True)
    draw, drawn = np.random.default_rng(0), []
    for number in range(RESAMPLES + 1):
        times = np.bincount(draw.integers(who.max() + 1, size=who.max() + 1), minlength=who.max() + 1)[who]
        mine = {n: _measures(y, s, ties, times if number else None) for n, s in scores.items()}
        drawn.append({r: {m: mine["model"][m] - mine[r][m] for m in mine[r]} for r in mine if r != "model"})
    return {
        rival: {
            measure: [of, *(float(v) for v in np.quantile([d[rival][measure] for d in drawn[1:]], [0.025, 0.975]))]
            for measure, of in drawn[0][rival].items()
        }
        for rival in drawn[0]
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
