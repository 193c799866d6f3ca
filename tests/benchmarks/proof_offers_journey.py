"""Which household redeems which coupon: learned from earlier campaigns, judged on later ones, on real data.

    python tests/benchmarks/proof_offers_journey.py [data=DIR]

Complete Journey: 2,500 households, 27 campaigns. A row is a household that was sent a campaign and one of its coupons,
of each campaign 60 that are drawn evenly, whoever redeemed them. Campaigns that began in the first 65 %
of days teach; the later judge. What is known of a row comes from before the campaign's start. Neither age nor income of
a household is read. Rivals: how popular the coupon was before, how often the household redeemed before, how lately and
how often it bought one of the coupon's products.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parent))

from lightgbm import LGBMClassifier
from record import machine, record
from sklearn.metrics import roc_auc_score

MOST_COUPONS, FAR = 60, 1000.0


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


def rows(source: Path) -> pl.DataFrame:
    """Return a row a household, campaign and coupon with what was known at the campaign's start."""
    began = pl.read_parquet(source / "campaign_descriptions.parquet").sort("start_date")
    sent = pl.read_parquet(source / "campaigns.parquet")
    coupons = pl.read_parquet(source / "coupons.parquet")
    redeemed = pl.read_parquet(source / "coupon_redemptions.parquet").rename({"redemption_date": "day"})
    bought = pl.read_parquet(source / "transactions.parquet", columns=[
        "household_id", "product_id", "sales_value", "transaction_timestamp", "coupon_disc"]
    ).rename({"transaction_timestamp": "day"})  # fmt: skip
    bought = bought.with_columns(pl.col("day").cast(pl.Datetime("ns")).dt.replace_time_zone(None))
    parts = []
    for number, kind, start, _ in began.select("campaign_id", "campaign_type", "start_date", "end_date").iter_rows():
        mine = coupons.filter(pl.col("campaign_id") == number)
        some = mine.select("coupon_upc").unique().sort("coupon_upc").sample(fraction=1.0, shuffle=True, seed=0)
        mine = mine.join(some.head(MOST_COUPONS), on="coupon_upc").select("coupon_upc", "product_id").unique()
        people = sent.filter(pl.col("campaign_id") == number).select("household_id")
        moment = pl.lit(start).cast(pl.Datetime("ns"))
        past = bought.filter(pl.col("day") < moment).join(people, on="household_id")
        whole = past.group_by("household_id").agg(
            trips=pl.len(), spent=pl.col("sales_value").sum(), used=(pl.col("coupon_disc") > 0).sum(),
            since=(moment - pl.col("day").max()).dt.total_days(),
        )  # fmt: skip
        of = past.join(mine, on="product_id").group_by("household_id", "coupon_upc").agg(
            own=pl.len(), own_spent=pl.col("sales_value").sum(), own_used=(pl.col("coupon_disc") > 0).sum(),
            own_since=(moment - pl.col("day").max()).dt.total_days(),
        )  # fmt: skip
        before = redeemed.filter(pl.col("day") < start)
        wide = mine.group_by("coupon_upc").agg(products=pl.len())
        took = redeemed.filter(pl.col("campaign_id") == number).select("household_id", "coupon_upc").unique()
        parts.append(
            people.join(wide, how="cross")
            .join(whole, on="household_id", how="left")
            .join(of, on=["household_id", "coupon_upc"], how="left")
            .join(before.group_by("household_id").agg(redeemed=pl.len()), on="household_id", how="left")
            .join(before.group_by("coupon_upc").agg(popular=pl.len()), on="coupon_upc", how="left")
            .join(took.with_columns(took=pl.lit(1)), on=["household_id", "coupon_upc"], how="left")
            .with_columns(
                pl.col("took", "redeemed", "popular", "own", "own_spent", "own_used").fill_null(0),
                pl.col("since", "own_since").fill_null(FAR), start=pl.lit(start), kind=pl.lit(kind), campaign=number,
            )
        )  # fmt: skip
    return pl.concat(parts, how="vertical_relaxed")


def measured(source: Path) -> dict[str, Any]:
    """Return AUC and precision at k of the model and its rivals on later campaigns."""
    table = rows(source)
    starts = table["start"].unique().sort()
    border = starts[0] + (starts[-1] - starts[0]) * 0.65  # type: ignore[operator]  # moments
    early, late = table.filter(pl.col("start") < border), table.filter(pl.col("start") >= border)
    names = ["trips", "spent", "used", "since", "own", "own_spent", "own_used", "own_since", "redeemed", "popular",
             "products"]  # fmt: skip

    def x(frame: pl.DataFrame) -> np.ndarray:
        kinds = [(frame["kind"] == k).to_numpy() for k in ("Type A", "Type B", "Type C")]
        return np.stack([*(frame[n].cast(pl.Float64).to_numpy() for n in names), *kinds], 1)

    model = LGBMClassifier(n_estimators=150, num_leaves=8, learning_rate=0.05, min_child_samples=100, n_jobs=1,
                           random_state=0, verbose=-1).fit(x(early), early["took"].to_numpy())  # fmt: skip
    y = late["took"].to_numpy()
    scores = {
        "model": model.predict_proba(x(late))[:, 1],
        "household's redemptions before": late["redeemed"].to_numpy().astype(float),
        "coupon's redemptions before": late["popular"].to_numpy().astype(float),
        "recency of its products": -late["own_since"].to_numpy().astype(float),
        "purchases of its products": late["own"].to_numpy().astype(float),
    }
    ties = np.random.default_rng(0).random(len(y))
    households = late["household_id"].to_numpy()
    found: dict[str, Any] = {}
    for name, score in scores.items():
        order = np.lexsort((ties, -score))
        found[name] = {"auc": float(roc_auc_score(y, score)),
                       **{f"precision_at_{k}": float(y[order[:k]].mean()) for k in (100, 500, 1000)}}  # fmt: skip
    found["auc of the model less that of its best rival"] = _auc_interval(y, scores, households)
    return {"rows that taught": len(early), "redeemed": int(early["took"].sum()), "rows that judged": len(late),
            "redeemed of them": int(y.sum()), "rate": float(y.mean()), "from": str(border), **found}  # fmt: skip


def _auc_interval(y: np.ndarray, scores: dict[str, np.ndarray], households: np.ndarray) -> dict[str, Any]:
    """Return the difference of AUC, its interval over households (200 resamples)."""
    rivals = {n: roc_auc_score(y, s) for n, s in scores.items() if n != "model"}
    rival = max(rivals, key=lambda n: rivals[n])
    _, who = np.unique(households, return_inverse=True)
    draw, drawn = np.random.default_rng(0), []
    for _ in range(200):
        times = np.bincount(draw.integers(who.max() + 1, size=who.max() + 1), minlength=who.max() + 1)[who]
        drawn.append(roc_auc_score(y, scores["model"], sample_weight=times)
                     - roc_auc_score(y, scores[rival], sample_weight=times))  # fmt: skip
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"rival": rival, "value": float(roc_auc_score(y, scores["model"]) - rivals[rival]), "low": float(low),
            "high": float(high)}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
