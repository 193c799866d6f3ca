"""What a folder of tables looks like: gaps, density, time span, the long tail, and people and items nobody has met."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec
import polars as pl

from playbill.tables.folder import has_table
from playbill.tables.schema import TABLES

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


class TableQuality(msgspec.Struct, kw_only=True):
    """One table: its rows, and the nulls of every column."""

    rows: int
    nulls: dict[str, int]


class EventQuality(msgspec.Struct, kw_only=True):
    """The events seen as a matrix of people and items.

    Attributes:
        people: distinct user_id; sessions: distinct session_id among events without a user_id.
        items: distinct item_id in the events.
        density: distinct (person, item) pairs over people times items, 0..1; sessions are left out.
        first_at, last_at: time span; None without events.
        per_user, per_item: quantiles of the number of events, by name (`p50`); of those that have any.
        anonymous_share: events without a user_id, 0..1.
        same_moment: events that equal an earlier one in all of person, event, item and time: a log written twice.
        repeats: events of a person with an item that the person had met by the same event before, at another time.
        cold_items: items of the catalogue without any event.
        by_event: rows by event name.
    """

    people: int
    sessions: int
    items: int
    density: float
    first_at: datetime | None
    last_at: datetime | None
    per_user: dict[str, float]
    per_item: dict[str, float]
    anonymous_share: float
    same_moment: int
    repeats: int
    cold_items: int
    by_event: dict[str, int]


class Quality(msgspec.Struct, kw_only=True):
    """`report/quality.json`."""

    tables: dict[str, TableQuality]
    events: EventQuality | None = None


def measure_quality(path: Path | str) -> Quality:
    """Return the quality report of a folder of tables; streams, keeping a number for each distinct row."""
    path = Path(path)
    tables = {}
    for name in TABLES:
        if has_table(path, name):
            frame = scan(path, name)
            counts = collect(frame.select(pl.len().alias("playbill_rows"), pl.all().null_count())).row(0, named=True)
            tables[name] = TableQuality(rows=counts.pop("playbill_rows"), nulls=counts)
    quality = Quality(tables=tables)
    if "events" in tables:
        quality.events = _events(path, tables)
    return quality


def scan(path: Path, name: str) -> pl.LazyFrame:
    """Return a table as a lazy frame, whatever characters its folder's name holds."""
    return pl.scan_parquet(path / f"{name}.parquet", glob=False, hive_partitioning=False)


def collect(frame: pl.LazyFrame) -> pl.DataFrame:
    """Run a query in pieces rather than in one."""
    return frame.collect(engine="streaming")


def _events(path: Path, tables: dict[str, TableQuality]) -> EventQuality:
    events = scan(path, "events")
    names = events.collect_schema().names()
    # columns that a source lacks are columns of nulls
    for name in ("user_id", "session_id", "item_id"):
        if name not in names:
            events = events.with_columns(pl.lit(None, dtype=pl.Int64).alias(name))
    total = tables["events"].rows
    known = events.filter(pl.col("user_id").is_not_null())
    pairs = known.filter(pl.col("item_id").is_not_null())
    head = collect(
        events.select(
            pl.col("user_id").drop_nulls().n_unique().alias("people"),
            pl.col("session_id").filter(pl.col("user_id").is_null()).drop_nulls().n_unique().alias("sessions"),
            pl.col("item_id").drop_nulls().n_unique().alias("items"),
            pl.col("at").min().alias("first_at"),
            pl.col("at").max().alias("last_at"),
            pl.col("user_id").null_count().alias("anonymous"),
        )
    ).row(0, named=True)
    # who it was: the user where known, else the session
    person = ("user_id", "session_id")
    met = events.filter(pl.col("item_id").is_not_null())
    distinct_pairs = _distinct(pairs, ("user_id", "item_id"))
    moments = _distinct(events, (*person, "event", "item_id", "at"))
    moments_met = _distinct(met, (*person, "event", "item_id", "at"))
    meetings = _distinct(met, (*person, "event", "item_id"))
    cells = head["people"] * head["items"]
    cold = 0
    if "items" in tables:
        items = scan(path, "items").select("item_id")
        if "item_id" in names:
            items = items.join(met.select("item_id").unique(), on="item_id", how="anti")
        cold = int(collect(items.select(pl.len())).item())
    return EventQuality(
        people=head["people"],
        sessions=head["sessions"],
        items=head["items"],
        density=distinct_pairs / cells if cells else 0.0,
        first_at=head["first_at"],
        last_at=head["last_at"],
        per_user=_quantiles(known, "user_id"),
        per_item=_quantiles(met, "item_id"),
        anonymous_share=head["anonymous"] / total if total else 0.0,
        same_moment=total - moments,
        repeats=moments_met - meetings,
        cold_items=cold,
        by_event={name: n for name, n in collect(events.group_by("event").len()).sort("event").iter_rows()},
    )


def _distinct(frame: pl.LazyFrame, columns: Sequence[str]) -> int:
    """Count distinct rows by a hash of 64 bits; with a hundred million the chance of a miscount is 3 in 10,000."""
    return int(collect(frame.select(pl.struct(columns).hash(seed=1).n_unique())).item())


def _quantiles(frame: pl.LazyFrame, column: str) -> dict[str, float]:
    counts = collect(frame.group_by(column).len())["len"]
    return {
        f"p{int(q * 100)}": float(value)
        for q in QUANTILES
        if (value := counts.quantile(q, interpolation="nearest")) is not None
    }
