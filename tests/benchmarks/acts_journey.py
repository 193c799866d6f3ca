"""Complete Journey's baskets as tables: every household's, for what its people will do next."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from playbill.tables.folder import write_folder
from playbill.tables.schema import Column, EventKind, Kind


def write_baskets(source: Path, folder: Path, households: int | None = None) -> Path:
    """Write users and purchase events (a basket each, its money as value), and return the folder.

    Args:
        source: folder of the data set.
        households: only the first so many; None takes all.
    """
    lines = pl.read_parquet(source / "transactions.parquet").rename({"household_id": "user_id"})
    users = lines.select(pl.col("user_id").unique().sort())[:households]
    baskets = (
        lines.join(users, on="user_id", how="semi")
        .group_by("user_id", "basket_id")
        .agg(
            at=pl.col("transaction_timestamp").min().cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            value=pl.col("sales_value").sum(),
        )
        .sort("at", "user_id", "basket_id")
        .with_row_index("event_id", 1)
        .select(pl.col("event_id").cast(pl.Int64), "user_id", pl.lit("purchase").alias("event"), "at", "value")
    )
    kinds = {"event_id": Kind.ID, "user_id": Kind.ID, "event": Kind.TEXT, "at": Kind.TIME, "value": Kind.NUMBER}
    write_folder(
        folder,
        {"users": users.to_arrow(), "events": baskets.to_arrow()},
        source="complete-journey",
        columns={
            "users": [Column(name="user_id", kind=Kind.ID)],
            "events": [Column(name=name, kind=kind) for name, kind in kinds.items()],
        },
        events=[EventKind(name="purchase", meaning="paid for a basket", unit="USD", low=0)],
        licence="84.51 for research and educational purposes; R package CC0",
    )
    return folder
