"""What each person got: totals and counts by person, for every measure that the tables can answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from playbill.errors import MeasureError
from playbill.measure.disparity.settings import DisparityQuestion, Measure
from playbill.measure.scan import ROW, columns_of, refuse, scan
from playbill.tables.folder import read_folder


@dataclass(slots=True)
class Got:
    """One measure over P people.

    Attributes:
        measure: which.
        name: in words, such as "click rate of item decisions".
        unit: of the figure.
        total, count: [P] float64; a group's figure is sum(total) / sum(count).
        least_expected: outcomes a group must expect to be judged; 0 where the total is no count.
        missing: what the tables lack for it; then total and count are empty.
    """

    measure: Measure
    name: str
    unit: str
    total: np.ndarray
    count: np.ndarray
    least_expected: float = 5.0
    missing: str = ""


def read_got(question: DisparityQuestion, tables: Path, user_id: np.ndarray, measure: Measure) -> tuple[Got, list[str]]:
    """Return one measure of the people, and warnings; `missing` says what the tables lack.

    Args:
        user_id: [P] ids of users.
    Raises:
        MeasureError: a value or price that is not a finite number; names column, count and first rows.
    """
    read = {
        Measure.EXPOSURE: _exposure,
        Measure.OUTCOME: _outcome,
        Measure.OFFER: _offer,
        Measure.PRICE_SHOWN: _price_shown,
        Measure.PRICE_PAID: _price_paid,
        Measure.EVENTS: _events,
    }[measure]
    return read(question, tables, user_id)


def rows_of(
    tables: Path, table: str, columns: Sequence[str], column: str, value: str, optional: Sequence[str] = ()
) -> pl.DataFrame | str:
    """Return the rows of a table where `column` is `value`, with their numbers in the file, or what is missing."""
    there = columns_of(tables, table)
    if not there:
        return f"no table {table}"
    missing = [c for c in columns if c not in there]
    if missing:
        return f"{table} has no column {', '.join(missing)}"
    kept = [*columns, *(c for c in optional if c in there)]
    found = scan(tables, table, kept).filter(pl.col(column) == value).select(ROW, *kept).collect()
    return found if len(found) else f"{table}.{column} is never {value!r}"


def weight_of(rows: pl.DataFrame, position_weighted: bool) -> pl.Series:
    """Return the exposure of each impression: 1, or 1 / log2(position + 2)."""
    if not position_weighted:
        return pl.Series("weight", np.ones(len(rows)))
    if "position" not in rows.columns:
        raise MeasureError("decisions has no column position, so exposure cannot be weighted by it")
    position = pl.col("position").cast(pl.Float64)
    good = (position.is_finite() & (position >= 0)).fill_null(False)
    refuse(rows, ~good, "decisions.position", "position", "exposure by position needs a position >= 0")
    return pl.Series("weight", 1 / np.log2(rows["position"].cast(pl.Float64).to_numpy() + 2))


def _exposure(question: DisparityQuestion, tables: Path, user_id: np.ndarray) -> tuple[Got, list[str]]:
    words = "position-weighted impressions" if question.position_weighted else "impressions"
    got = _empty(Measure.EXPOSURE, f"{words} a person", "impressions a person")
    rows = rows_of(tables, "decisions", ["kind", "user_id"], "kind", "item", ["position"])
    if isinstance(rows, str):
        return _lacking(got, rows)
    rows = rows.with_columns(weight_of(rows, question.position_weighted))
    got.total, warnings = _by_person(rows, "weight", user_id, "impressions")
    # whoever was shown nothing counts: that is the disparity looked for
    got.count = np.ones(len(user_id))
    return got, warnings


def _outcome(question: DisparityQuestion, tables: Path, user_id: np.ndarray) -> tuple[Got, list[str]]:
    got = _empty(Measure.OUTCOME, f"{question.event} rate of {question.kind} decisions", "rate")
    wanted = ["kind", "user_id", "decision_id", "at", *(["chosen"] if question.kind == "offer" else [])]
    rows = rows_of(tables, "decisions", wanted, "kind", question.kind)
    if isinstance(rows, str):
        return _lacking(got, rows)
    if question.kind == "offer":
        rows = rows.filter(pl.col("chosen").cast(pl.String) != question.no_offer)
    events = rows_of(tables, "events", ["event", "decision_id", "at"], "event", question.event)
    if isinstance(events, str):
        return _lacking(got, events)
    window = pl.duration(microseconds=int(question.window_h * 3_600_000_000))
    answered = (
        rows.select("decision_id", pl.col("at").alias("from"))
        .join(events.select("decision_id", "at").drop_nulls("decision_id"), on="decision_id", how="inner")
        .filter((pl.col("at") >= pl.col("from")) & (pl.col("at") < pl.col("from") + window))
        .select("decision_id")
        .unique()
        .with_columns(pl.lit(1.0).alias("answered"))
    )
    rows = rows.join(answered, on="decision_id", how="left").with_columns(
        pl.col("answered").fill_null(0.0), pl.lit(1.0).alias("one")
    )
    got.total, _ = _by_person(rows, "answered", user_id, "decisions")
    got.count, warnings = _by_person(rows, "one", user_id, f"{question.kind} decisions")
    if not len(answered):
        warnings.append(f"no {question.event} names a decision of kind {question.kind} (events.decision_id)")
    return got, warnings


def _offer(question: DisparityQuestion, tables: Path, user_id: np.ndarray) -> tuple[Got, list[str]]:
    got = _empty(Measure.OFFER, "share of offer decisions that made one", "rate")
    rows = rows_of(tables, "decisions", ["kind", "user_id", "chosen"], "kind", "offer")
    if isinstance(rows, str):
        return _lacking(got, rows)
    made = (pl.col("chosen").cast(pl.String) != question.no_offer).cast(pl.Float64)
    rows = rows.with_columns(made.alias("made"), pl.lit(1.0).alias("one"))
    got.total, _ = _by_person(rows, "made", user_id, "offer decisions")
    got.count, warnings = _by_person(rows, "one", user_id, "offer decisions")
    if rows["made"].min() == 1.0:
        warnings.append(f"every offer decision made an offer: none of them chose {question.no_offer!r}")
    return got, warnings


def _price_shown(question: DisparityQuestion, tables: Path, user_id: np.ndarray) -> tuple[Got, list[str]]:
    got = _empty(Measure.PRICE_SHOWN, "mean price of items shown", "money", least_expected=0.0)
    rows = rows_of(tables, "decisions", ["kind", "user_id", "chosen"], "kind", "item")
    if isinstance(rows, str):
        return _lacking(got, rows)
    items = item_column(tables, "price")
    if isinstance(items, str):
        return _lacking(got, items)
    bad = ~pl.col("price").is_finite().fill_null(True)
    refuse(items, bad, "items.price", "price", "a price is a finite number or nothing")
    priced = rows.select("user_id", pl.col("chosen").cast(pl.String).alias("item_id")).join(
        items.select("item_id", "price"), on="item_id", how="left"
    )
    known = priced.drop_nulls("price").with_columns(pl.lit(1.0).alias("one"))
    if not len(known):
        return _lacking(got, "no item shown has a price in items")
    got.total, _ = _by_person(known, "price", user_id, "impressions")
    got.count, warnings = _by_person(known, "one", user_id, "impressions with a price")
    if len(known) < len(priced):
        warnings.append(
            f"{len(priced) - len(known):,} of {len(priced):,} items shown have no price in items; they were left out"
        )
    return got, warnings


def _price_paid(question: DisparityQuestion, tables: Path, user_id: np.ndarray) -> tuple[Got, list[str]]:
    declared = {kind.name: kind.unit for kind in read_folder(tables).events}
    unit = declared.get(question.purchase) or "money"
    got = _empty(Measure.PRICE_PAID, f"mean value of a {question.purchase}", unit, least_expected=0.0)
    rows = rows_of(tables, "events", ["event", "user_id", "value"], "event", question.purchase)
    if isinstance(rows, str):
        return _lacking(got, rows)
    value = pl.col("value").cast(pl.Float64)
    why = f"every {question.purchase} needs the price that was paid"
    refuse(rows, ~value.is_finite().fill_null(False), "events.value", "value", why)
    rows = rows.with_columns(value, pl.lit(1.0).alias("one"))
    got.total, _ = _by_person(rows, "value", user_id, "purchases")
    got.count, warnings = _by_person(rows, "one", user_id, question.purchase + "s")
    return got, warnings


def _events(question: DisparityQuestion, tables: Path, user_id: np.ndarray) -> tuple[Got, list[str]]:
    got = _empty(Measure.EVENTS, f"{question.event}s a person", "events a person")
    rows = rows_of(tables, "events", ["event", "user_id"], "event", question.event)
    if isinstance(rows, str):
        return _lacking(got, rows)
    got.total, warnings = _by_person(rows.with_columns(pl.lit(1.0).alias("one")), "one", user_id, question.event + "s")
    got.count = np.ones(len(user_id))
    return got, warnings


def item_column(tables: Path, name: str) -> pl.DataFrame | str:
    """Return item_id (as text) and one column of items, with their numbers in the file, or what is missing."""
    there = columns_of(tables, "items")
    if name not in there:
        return f"items has no column {name}" if there else "no table items"
    items = scan(tables, "items", ["item_id", name]).select(ROW, "item_id", name).collect()
    return items.with_columns(pl.col("item_id").cast(pl.String))


def _empty(measure: Measure, name: str, unit: str, least_expected: float = 5.0) -> Got:
    return Got(measure, name, unit, np.zeros(0), np.zeros(0), least_expected)


def _lacking(got: Got, missing: str) -> tuple[Got, list[str]]:
    got.missing = missing
    return got, []


def _by_person(rows: pl.DataFrame, column: str, user_id: np.ndarray, what: str) -> tuple[np.ndarray, list[str]]:
    """Return [P] sums of a column by person, and a warning where rows belong to nobody in users."""
    sums = rows.group_by("user_id").agg(pl.col(column).sum(), pl.len().alias("rows"))
    people = pl.DataFrame({"user_id": user_id})
    joined = people.join(sums, on="user_id", how="left", maintain_order="left")
    lost = len(rows) - int(joined["rows"].sum() or 0)
    warnings = []
    if lost:
        warnings.append(f"{lost:,} of {len(rows):,} {what} are of people without an account, who belong to no group")
    return joined[column].cast(pl.Float64).fill_null(0.0).to_numpy(), warnings
