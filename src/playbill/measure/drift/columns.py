"""From two windows to the columns that can be compared in both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from playbill.errors import MeasureError
from playbill.measure.drift.compare import Pair
from playbill.measure.drift.distance import Kind, Sample
from playbill.measure.drift.settings import DriftQuestion
from playbill.measure.drift.windows import NEVER, Log, with_outcomes
from playbill.measure.people import WHO
from playbill.measure.slices import long_form
from playbill.measure.times import DAY_US
from playbill.tables.folder import has_table, read_table

_MOST_TEXTS = 0.5  # a text column with more different values than this share of its rows is a name or free text
_FEW_NUMBERS = 10  # numbers with no more different values are categories


@dataclass(slots=True)
class Windows:
    """Both windows with the logs that they are cut from.

    Attributes:
        logs: whole logs, before and after (the same one twice where the windows are of one log).
        cut: their windows.
        lengths_us: of the windows.
        left_out: what was not compared and why.
    """

    logs: tuple[Log, Log]
    cut: tuple[Log, Log]
    lengths_us: tuple[int, int]
    left_out: list[str] = field(default_factory=list)


def columns_of(windows: Windows, question: DriftQuestion) -> list[Pair]:
    """Return every column that both windows have and the question asks for.

    Raises:
        MeasureError: a column is asked for that is in none; names those that are.
    """
    there = [f.select(WHO) for log in windows.cut for f in (log.events, log.decisions) if f is not None]
    people = pl.concat(there).unique().sort(WHO).with_row_index("code")
    found: dict[str, Pair | None] = {}
    for name, role, kind, frames in _candidates(windows, question):
        if question.columns and name not in question.columns:
            found.setdefault(name, None)  # there, and not asked for
            continue
        pair = _pair(name, role, kind, frames, people)
        if isinstance(pair, str):
            windows.left_out.append(f"{name} is not compared: {pair}")
        else:
            found[name] = pair
    unknown = [c for c in question.columns if found.get(c) is None and not any(c in w for w in windows.left_out)]
    if unknown:
        there_are = sorted(found.keys() | set.intersection(*(log.columns for log in windows.logs)))
        raise MeasureError(f"no column {', '.join(unknown)} in both windows; there are: {', '.join(there_are)}")
    return [pair for pair in found.values() if pair is not None]


def _candidates(
    windows: Windows, question: DriftQuestion
) -> Iterator[tuple[str, str, Kind | None, list[pl.DataFrame]]]:
    """Yield name, role, kind (None: by its values) and, for each window, the rows (who, value)."""
    for table, key in (("users", WHO), ("items", "item_id")):
        joined = [_joined(log, table, key) for log in windows.cut]
        for column in _shared(joined, NEVER[table] | {WHO, "item_id"}):
            yield f"{table}.{column}", "feature", None, [f.select(WHO, value=column) for f in joined]
    events = [log.events for log in windows.cut]
    if all(e is not None and len(e) for e in events):
        yield from _of_events([e for e in events if e is not None], windows)
    decisions = [log.decisions for log in windows.cut]
    if all(d is not None and len(d) for d in decisions):
        rows = [d for d in decisions if d is not None]
        for column in _shared(rows, NEVER["decisions"] | {WHO}):
            role = "score" if column in question.scores else "feature"
            yield f"decisions.{column}", role, None, [d.select(WHO, value=column) for d in rows]
    yield from _outcomes(windows, question)


def _of_events(
    events: list[pl.DataFrame], windows: Windows
) -> Iterator[tuple[str, str, Kind | None, list[pl.DataFrame]]]:
    for column in _shared(events, NEVER["events"] | {WHO}):
        yield f"events.{column}", "feature", None, [e.select(WHO, value=column) for e in events]
    if all("value" in e.columns for e in events):
        for name in _names(events):
            rows = [e.filter((pl.col("event") == name) & pl.col("value").is_not_null()) for e in events]
            if all(len(r) for r in rows):
                yield f"events.value[{name}]", "outcome", Kind.NUMBER, [r.select(WHO, "value") for r in rows]
    low, high = sorted(windows.lengths_us)
    if high <= 1.01 * low:
        counts = [e.group_by(WHO).len().sort(WHO).select(WHO, value=pl.col("len").cast(pl.Float64)) for e in events]
        yield "people.events", "outcome", Kind.NUMBER, counts
    else:
        days = f"{low / DAY_US:.3g} and {high / DAY_US:.3g} days"
        windows.left_out.append(f"people.events is not compared: the windows are of {days}")


def _outcomes(windows: Windows, question: DriftQuestion) -> Iterator[tuple[str, str, Kind | None, list[pl.DataFrame]]]:
    """Yield rates: of decisions that an event followed, or of people where no event names its decision."""
    events = [log.events for log in windows.cut]
    if not all(e is not None and len(e) for e in events):
        return
    whole = [log.events for log in windows.logs if log.events is not None]
    names = question.outcomes or _names(whole)
    linked = all("decision_id" in e.columns and e["decision_id"].is_not_null().any() for e in whole)
    if linked and all(log.decisions is not None and len(log.decisions) for log in windows.cut):
        rows = []
        for log, cut, when in zip(windows.logs, windows.cut, ("before", "after"), strict=True):
            assert cut.decisions is not None
            answered, young = with_outcomes(log, cut.decisions, names, question.outcome_hours)
            rows.append(answered)
            if young:
                windows.left_out.append(
                    f"{young:,} decisions of the window {when} have no outcome yet: the log ends within "
                    f"{question.outcome_hours:g} hours of them"
                )
        if not all(len(r) for r in rows):
            windows.left_out.append("outcomes are not compared: all decisions of a window are too young to have any")
            return
        for name in names:
            yield f"outcome.{name}", "outcome", Kind.RATE, [r.select(WHO, value=name) for r in rows]
        return
    for name in names:
        did = pl.col("event").eq(name).any().cast(pl.Float64).alias("value")
        yield (
            f"outcome.{name}",
            "outcome",
            Kind.RATE,
            [e.group_by(WHO).agg(did).sort(WHO) for e in events if e is not None],
        )


def _joined(log: Log, table: str, key: str) -> pl.DataFrame:
    """Return the rows of users who were there in the window, once each, or of the items of its events."""
    nothing = pl.DataFrame({WHO: []}, schema={WHO: pl.String})
    if not has_table(log.folder, table):
        return nothing
    there = [f for f in (log.events, log.decisions) if f is not None and len(f)]
    names = [
        c for c in pq.read_schema(log.folder / f"{table}.parquet").names if c == "item_id" or c not in NEVER[table]
    ]
    if table == "users":
        rows = pl.DataFrame(pl.from_arrow(read_table(log.folder, table, ["user_id", *names])))
        rows = rows.with_columns((pl.lit("u:") + pl.col("user_id").cast(pl.String)).alias(WHO)).drop("user_id")
        return pl.concat([f.select(WHO) for f in there]).unique().join(rows, on=key, how="inner").sort(WHO)
    if log.events is None or not len(log.events) or "item_id" not in log.events.columns:
        return nothing
    rows = pl.DataFrame(pl.from_arrow(read_table(log.folder, table, names)))
    asked = log.events.select(WHO, "item_id").drop_nulls()
    return asked.join(rows.with_columns(pl.col("item_id").cast(asked["item_id"].dtype)), on=key, how="inner")


def _pair(name: str, role: str, kind: Kind | None, frames: list[pl.DataFrame], people: pl.DataFrame) -> Pair | str:
    """Return the column as a pair, or why it cannot be compared."""
    values = [f["value"] for f in frames]
    if any(v.dtype.is_temporal() for v in values):
        return "it holds times"
    if isinstance(values[0].dtype, pl.List):
        long = [long_form(v) for v in values]
        frames = [
            f[row["row"].to_numpy()].select(WHO).with_columns(row["value"]) for f, row in zip(frames, long, strict=True)
        ]
        values = [f["value"] for f in frames]
    if kind is Kind.RATE and not any((v != 0).any() for v in values):
        return "it never happens"
    if kind is None:
        pooled = pl.concat([v.cast(pl.String) for v in values]).drop_nulls()
        different = pooled.n_unique()
        numbers = all(v.dtype.is_numeric() for v in values)
        if different <= 1 and not any(v.null_count() for v in values):
            return "it is constant"
        kind = Kind.NUMBER if numbers and different > _FEW_NUMBERS else Kind.CATEGORY
        if kind is Kind.CATEGORY and different > 100 and different > _MOST_TEXTS * len(pooled):
            return f"its {different:,} different texts are names or free text"
    samples = []
    for frame, value in zip(frames, values, strict=True):
        person = frame.select(WHO).join(people, on=WHO, how="left", maintain_order="left")["code"]
        samples.append(Sample(_array(value, kind), person.to_numpy().astype(np.int64)))
    return Pair(name, role, kind, *samples)


def _array(value: pl.Series, kind: Kind) -> np.ndarray | pl.Series:
    if kind is Kind.CATEGORY:
        return value.cast(pl.String)
    return value.cast(pl.Float64).fill_null(np.nan).to_numpy()


def _shared(frames: list[pl.DataFrame], never: set[str]) -> list[str]:
    return [c for c in frames[0].columns if c in frames[1].columns and c not in never]


def _names(events: list[Any]) -> list[str]:
    return sorted({name for e in events for name in e["event"].unique().to_list()})
