"""Complete Journey's campaigns as rows of a household and a coupon, and learners of who redeems which."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from lightgbm import LGBMClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MOST_COUPONS, FAR, RECENT_DAYS, HALF_LIFE_DAYS = 60, 1000.0, 60, 45
COUNTS = [
    "trips", "baskets", "recent", "spent", "used", "own", "own_baskets", "own_recent", "own_fade", "own_products",
    "own_spent", "own_used", "type_lines", "type_used", "maker_lines", "maker_used", "redeemed", "got", "popular",
    "buyers", "products", "coupons",
]  # fmt: skip
RISING = {"used", "own", "own_baskets", "own_recent", "own_fade", "own_products", "own_spent", "own_used", "type_lines",
          "type_used", "redeemed", "popular"}  # fmt: skip
KINDS = ("Type A", "Type B", "Type C")
Learner = Callable[[pl.DataFrame, pl.DataFrame], np.ndarray]


def rows(source: Path) -> pl.DataFrame:
    """Return a row a household, campaign and coupon with what was known at the campaign's start.

    Columns: of the household `trips` (lines bought), baskets, recent, spent, used (lines with a coupon), since (days),
    redeemed, got (campaigns); `own_*` the same of the coupon's products, own_fade with a half-life; type_*, maker_* of
    products of the same type or maker; of the coupon popular, buyers, products; of the campaign coupons; `took`.
    """
    began = pl.read_parquet(source / "campaign_descriptions.parquet").sort("start_date")
    sent = pl.read_parquet(source / "campaigns.parquet").join(
        began.select("campaign_id", "start_date"), on="campaign_id"
    )
    coupons = pl.read_parquet(source / "coupons.parquet")
    redeemed = pl.read_parquet(source / "coupon_redemptions.parquet").rename({"redemption_date": "day"})
    kinds = pl.read_parquet(source / "products.parquet").select(
        "product_id", type=pl.concat_str("product_category", "product_type"), maker="manufacturer_id"
    )
    columns = ["household_id", "basket_id", "product_id", "sales_value", "transaction_timestamp", "coupon_disc"]
    bought = pl.read_parquet(source / "transactions.parquet", columns=columns).rename({"transaction_timestamp": "day"})
    bought = bought.with_columns(
        pl.col("day").cast(pl.Datetime("ns")).dt.replace_time_zone(None), cut=pl.col("coupon_disc") > 0
    ).join(kinds, on="product_id", how="left")
    parts = []
    for number, kind, start in began.select("campaign_id", "campaign_type", "start_date").iter_rows():
        mine = coupons.filter(pl.col("campaign_id") == number)
        some = mine.select("coupon_upc").unique().sort("coupon_upc").sample(fraction=1.0, shuffle=True, seed=0)
        mine = mine.join(some.head(MOST_COUPONS), on="coupon_upc").select("coupon_upc", "product_id").unique()
        people = sent.filter(pl.col("campaign_id") == number).select("household_id")
        moment = pl.lit(start).cast(pl.Datetime("ns"))
        past = bought.filter(pl.col("day") < moment).join(people, on="household_id").with_columns(
            ago=(moment - pl.col("day")).dt.total_days()
        )  # fmt: skip
        before = redeemed.filter(pl.col("day") < moment)
        took = redeemed.filter(pl.col("campaign_id") == number).select("household_id", "coupon_upc").unique()
        of = past.join(mine, on="product_id")
        both = ["household_id", "coupon_upc"]
        found = people.join(mine.group_by("coupon_upc").agg(products=pl.len()), how="cross")
        for table, on in (
            (_bought(past.group_by("household_id")), "household_id"),
            (_of_coupon(of.group_by(both)), both),
            (_near(past, mine, kinds, "type"), both),
            (_near(past, mine, kinds, "maker"), both),
            (before.group_by("household_id").agg(redeemed=pl.len()), "household_id"),
            (before.group_by("coupon_upc").agg(popular=pl.len()), "coupon_upc"),
            (sent.filter(pl.col("start_date") < start).group_by("household_id").agg(got=pl.len()), "household_id"),
            (of.group_by("coupon_upc").agg(buyers=pl.col("household_id").n_unique()), "coupon_upc"),
            (took.with_columns(took=pl.lit(1)), both),
        ):
            found = found.join(table, on=on, how="left", maintain_order="left")
        parts.append(
            found.with_columns(
                pl.exclude("since", "own_since").fill_null(0), pl.col("since", "own_since").fill_null(FAR),
                start=pl.lit(start), kind=pl.lit(kind), campaign=number, coupons=found["coupon_upc"].n_unique(),
            )
        )  # fmt: skip
    return pl.concat(parts, how="vertical_relaxed")


def _bought(past: pl.dataframe.group_by.GroupBy) -> pl.DataFrame:
    return past.agg(
        trips=pl.len(), baskets=pl.col("basket_id").n_unique(), recent=(pl.col("ago") < RECENT_DAYS).sum(),
        spent=pl.col("sales_value").sum(), used=pl.col("cut").sum(), since=pl.col("ago").min(),
    )  # fmt: skip


def _of_coupon(past: pl.dataframe.group_by.GroupBy) -> pl.DataFrame:
    return past.agg(
        own=pl.len(), own_baskets=pl.col("basket_id").n_unique(), own_recent=(pl.col("ago") < RECENT_DAYS).sum(),
        own_spent=pl.col("sales_value").sum(), own_used=pl.col("cut").sum(), own_since=pl.col("ago").min(),
        own_fade=(2.0 ** (-pl.col("ago") / HALF_LIFE_DAYS)).sum(), own_products=pl.col("product_id").n_unique(),
    )  # fmt: skip


def _near(past: pl.DataFrame, mine: pl.DataFrame, kinds: pl.DataFrame, by: str) -> pl.DataFrame:
    """Return purchases of products that share their type or maker with one of the coupon's."""
    which = mine.join(kinds, on="product_id").select("coupon_upc", by).drop_nulls().unique()
    lines = past.join(which, on=by).group_by("household_id", "coupon_upc")
    return lines.agg(pl.len().alias(f"{by}_lines"), pl.col("cut").sum().alias(f"{by}_used"))


def logistic(strength: float) -> Learner:
    """Return a logistic regression on logs of counts and rates: scores of other rows, log-odds."""

    def learn(taught: pl.DataFrame, asked: pl.DataFrame) -> np.ndarray:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        found: np.ndarray = model.fit(_logs(taught), taught["took"].to_numpy()).decision_function(_logs(asked))
        return found

    return learn


def trees(bags: int = 5) -> Learner:
    """Return small boosted trees that rise with past purchases and redemptions, an average of `bags`: log-odds."""

    def learn(taught: pl.DataFrame, asked: pl.DataFrame) -> np.ndarray:
        names = [*COUNTS, "since", "own_since"]
        rising = [1 if n in RISING else -1 if n == "own_since" else 0 for n in names] + [0] * len(KINDS)
        total = np.zeros(len(asked))
        for seed in range(bags):
            model = LGBMClassifier(
                n_estimators=200, num_leaves=4, learning_rate=0.03, min_child_samples=100, reg_lambda=20.0,
                subsample=0.7, subsample_freq=1, colsample_bytree=0.6, monotone_constraints=rising, n_jobs=1,
                random_state=seed, verbose=-1,
            ).fit(_columns(taught, names), taught["took"].to_numpy())  # fmt: skip
            total += model.predict(_columns(asked, names), raw_score=True) / bags
        return total

    return learn


def together(one: Learner, other: Learner) -> Learner:
    """Return the sum of two learners' scores, each of spread 1 over the rows that are asked."""

    def learn(taught: pl.DataFrame, asked: pl.DataFrame) -> np.ndarray:
        a, b = one(taught, asked), other(taught, asked)
        found: np.ndarray = a / a.std() + b / b.std()
        return found

    return learn


def _columns(frame: pl.DataFrame, names: list[str]) -> np.ndarray:
    kinds = [(frame["kind"] == kind).to_numpy() for kind in KINDS]
    return np.stack([*(frame[name].cast(pl.Float64).to_numpy() for name in names), *kinds], 1)


def _logs(frame: pl.DataFrame) -> np.ndarray:
    of = {name: frame[name].cast(pl.Float64).to_numpy() for name in [*COUNTS, "own_since"]}
    redeems = np.log((of["redeemed"] + 0.2) / (of["got"] + 1))
    uses = np.log((of["used"] + 1) / (of["trips"] + 100))
    often = np.log((of["own"] + 0.05) / (of["baskets"] + 5))
    ever = (of["own"] > 0).astype(np.float64)
    logs = [np.log1p(np.maximum(of[name], 0)) for name in [*COUNTS, "own_since"]]
    kinds = [(frame["kind"] == kind).to_numpy() for kind in KINDS]
    return np.stack([*logs, redeems, uses, often, ever, ever * redeems, ever * uses, *kinds], 1)
