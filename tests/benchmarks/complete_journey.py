"""Complete Journey as tables: households, each campaign's choice for each of them, what was redeemed and bought."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path

import polars as pl
import pyarrow as pa

from playbill.tables.folder import write_folder
from playbill.tables.schema import Column, EventKind, Kind, Provenance


def write_complete_journey(source: Path, folder: Path) -> Path:
    """Write households with demographics, each campaign's choice for each of them, and what they redeemed and bought.

    A campaign that did not reach a household is an offer decision that chose "none".
    """
    demographics = pl.read_parquet(source / "demographics.parquet")
    users = demographics.select(pl.col("household_id").alias("user_id"), "age", "income")
    campaigns = pl.read_parquet(source / "campaign_descriptions.parquet")
    sent = pl.read_parquet(source / "campaigns.parquet").with_columns(sent=pl.lit(True))
    start = pl.col("start_date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    decisions = (
        users.select("user_id")
        .join(campaigns, how="cross")
        .join(sent, left_on=["user_id", "campaign_id"], right_on=["household_id", "campaign_id"], how="left")
        .with_row_index("decision_id", offset=1)
        .select(
            pl.col("decision_id").cast(pl.Int64),
            pl.col("campaign_id").cast(pl.String).alias("request_id"),
            pl.lit("offer").alias("kind"),
            pl.when(pl.col("sent")).then(pl.col("campaign_type")).otherwise(pl.lit("none")).alias("chosen"),
            start.alias("at"),
            "user_id",
        )
    )
    by_campaign = decisions.select("decision_id", "user_id", pl.col("request_id").cast(pl.Int64).alias("campaign_id"))
    redeemed = (
        pl.read_parquet(source / "coupon_redemptions.parquet")
        .rename({"household_id": "user_id"})
        .join(by_campaign, on=["user_id", "campaign_id"], how="inner")
        .select(
            "user_id",
            pl.lit("redeem").alias("event"),
            pl.col("redemption_date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("at"),
            "decision_id",
            pl.lit(None, pl.Float64).alias("value"),
        )
    )
    baskets = (
        pl.read_parquet(source / "transactions.parquet")
        .rename({"household_id": "user_id"})
        .join(users.select("user_id"), on="user_id", how="semi")
        .group_by("user_id", "basket_id")
        .agg(pl.col("sales_value").sum().alias("value"), pl.col("transaction_timestamp").min().alias("at"))
        .sort("user_id", "basket_id")
        .select(
            "user_id",
            pl.lit("purchase").alias("event"),
            pl.col("at").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            pl.lit(None, pl.Int64).alias("decision_id"),
            "value",
        )
    )
    events = pl.concat([redeemed, baskets]).with_row_index("event_id", offset=1).cast({"event_id": pl.Int64})
    tables = {n: f.to_arrow() for n, f in (("users", users), ("events", events), ("decisions", decisions))}
    tables = {n: t.cast(pa.schema([(f.name, _plain(f.type)) for f in t.schema])) for n, t in tables.items()}
    write_folder(
        folder,
        tables,
        source="complete-journey",
        columns={name: [_column(f) for f in table.schema] for name, table in tables.items()},
        events=[
            EventKind(name="redeem", meaning="redeemed a coupon of the campaign"),
            EventKind(name="purchase", meaning="paid for a basket", unit="USD", low=0),
        ],
        licence="84.51 for research and educational purposes; R package CC0",
    )
    return folder


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", tz=str(UTC))
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


def _column(field: pa.Field) -> Column:
    kind = Kind.ID if field.name.endswith("_id") else Kind.TEXT
    if pa.types.is_timestamp(field.type):
        kind = Kind.TIME
    elif pa.types.is_floating(field.type):
        kind = Kind.NUMBER
    protected = field.name in ("age", "income")
    return Column(name=field.name, kind=kind, protected=protected, provenance=Provenance.OBSERVED)
