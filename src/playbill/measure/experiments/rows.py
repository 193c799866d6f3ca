"""What assigned people did around their assignment: events and decisions as parallel arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from playbill.errors import ConfigError, MeasureError
from playbill.measure.experiments.assignment import Assignment
from playbill.measure.experiments.metrics import ANY, ROW_COLUMNS, Metric, Take
from playbill.measure.scan import ROW, columns_of, refuse, scan
from playbill.tables.folder import read_folder

DAY_US = 86_400_000_000


@dataclass(slots=True)
class Rows:
    """E rows of assigned people, one an event or a decision.

    Attributes:
        person: [E] int64, row of the assignment.
        what: [E] int32, row of `names`.
        names: "event NAME" or "decision KIND".
        since_us: [E] int64, microseconds since the person's assignment; negative before it.
        day: [E] int64, days since 1970, UTC.
        value: [E] float64, NaN where there is none.
        session: [E] int64, one number a session, 0 where there is none.
        has: [E] bool by column of ROW_COLUMNS: not null.
        until_us: end of the log, microseconds since 1970.
    """

    person: np.ndarray
    what: np.ndarray
    names: list[str]
    since_us: np.ndarray
    day: np.ndarray
    value: np.ndarray
    session: np.ndarray
    has: dict[str, np.ndarray]
    until_us: int


def lacking(tables: Path, metrics: dict[str, Metric], unit: str) -> dict[str, str]:
    """Return what a log has not got that a metric needs, by the metric's name; metrics that can be read are left out.

    An event is in the log when a row has it or tables.json declares it: a declared event without rows did not happen.
    """
    events, decisions = columns_of(tables, "events"), columns_of(tables, "decisions")
    names = distinct(tables, "events", "event") | {kind.name for kind in read_folder(tables).events}
    kinds = distinct(tables, "decisions", "kind")
    found = {}
    for name, metric in metrics.items():
        missing = []
        for count in metric.counts:
            table, columns = ("events", events) if count.events else ("decisions", decisions)
            needed = [*count.needs, unit, *{Take.VALUE: ["value"], Take.SESSIONS: ["session_id"]}.get(count.take, [])]
            missing += [f"events of name {event}" for event in count.events if event != ANY and event not in names]
            missing += [f"decisions of kind {kind}" for kind in count.decisions if kind not in kinds]
            missing += [f"column {table}.{column}" for column in needed if column not in columns]
        if missing:
            found[name] = ", ".join(dict.fromkeys(missing))
    return found


def read_rows(
    tables: Path, assignment: Assignment, metrics: Sequence[Metric], *, pre_days: float, until: str, exposure: str
) -> Rows:
    """Return what the assigned people did from `pre_days` before their assignment until the end of the log.

    Args:
        metrics: rows that none of them counts are not read.
        until: end of the log, ISO 8601; empty takes the last row of events and decisions.
        exposure: name of the events that tell exposure: no metric's "*" counts them.
    Raises:
        MeasureError: a value that is missing, NaN or infinite and that a metric adds up; names count and first rows.
        ConfigError: `until` is no time.
    """
    counts = [count for metric in metrics for count in metric.counts]
    events = sorted({name for count in counts for name in count.events})
    kinds = sorted({kind for count in counts for kind in count.decisions})
    valued = sorted({name for count in counts if count.take is Take.VALUE for name in count.events})
    windows = [metric.window_days for metric in metrics]
    last_us = None if None in windows else round(max(days for days in windows if days is not None) * DAY_US)
    first_us = -round(pre_days * DAY_US)
    people = pl.LazyFrame({"id": assignment.ids, "at_us": assignment.at_us}).with_row_index("person")
    end = until_us(tables, until)
    since = pl.col("since_us")
    wanted = (
        (since >= first_us) & (pl.col("happened_us") <= end) & (pl.lit(True) if last_us is None else since <= last_us)
    )
    parts = []
    if events:
        chosen = pl.col("event") != exposure if ANY in events else pl.col("event").is_in(events)
        frame = _of_people(tables, "events", "event", chosen, assignment.unit, people, wanted)
        summed = pl.col("name").is_in(valued) if ANY not in valued else pl.lit(True)
        say = "a metric adds these up, so each must be a finite number; declare it with `take: count`, or mend the log"
        refuse(frame, summed & ~pl.col("value").is_finite().fill_null(False), "events.value", "value", say)
        parts.append(frame.with_columns(name="event " + pl.col("name")))
    if kinds:
        chosen = pl.col("kind").is_in(kinds)
        frame = _of_people(tables, "decisions", "kind", chosen, assignment.unit, people, wanted)
        parts.append(frame.with_columns(name="decision " + pl.col("name")))
    if not parts:
        raise MeasureError("no metric that is asked for can be read from this log")
    whole = pl.concat(parts, how="vertical_relaxed")  # one of the tables may have no sessions
    names = whole["name"].unique().sort().to_list()
    what = (
        whole["name"].replace_strict(names, list(range(len(names))), return_dtype=pl.Int32)
        if names
        else whole["person"]
    )
    return Rows(
        person=whole["person"].cast(pl.Int64).to_numpy(),
        what=what.to_numpy(),
        names=names,
        since_us=whole["since_us"].to_numpy(),
        day=whole["day"].to_numpy(),
        value=whole["value"].fill_null(float("nan")).to_numpy(),
        session=whole["session"].rank("dense").fill_null(0).cast(pl.Int64).to_numpy(),
        has={column: whole[f"has_{column}"].to_numpy() for column in ROW_COLUMNS},
        until_us=end,
    )


def _of_people(
    tables: Path,
    table: str,
    name: str,
    chosen: pl.Expr,
    unit: str,
    people: pl.LazyFrame,
    wanted: pl.Expr,
) -> pl.DataFrame:
    known = columns_of(tables, table)
    rows = scan(tables, table, [name, "at", unit]).filter(chosen)
    session = pl.col("session_id") if "session_id" in known else pl.lit(None)
    value = pl.col("value").cast(pl.Float64) if "value" in known else pl.lit(None, pl.Float64)
    at = pl.col("at").dt.epoch("us")
    return (
        rows.select(
            ROW,
            pl.col(unit).alias("id"),
            pl.col(name).alias("name"),
            at.alias("happened_us"),
            value.alias("value"),
            session.alias("session"),
            *((pl.col(c).is_not_null() if c in known else pl.lit(False)).alias(f"has_{c}") for c in ROW_COLUMNS),
        )
        .join(people, on="id", how="inner")
        .with_columns(since_us=pl.col("happened_us") - pl.col("at_us"), day=pl.col("happened_us") // DAY_US)
        .filter(wanted)
        .drop("id", "happened_us", "at_us")
        .sort(ROW)
        .collect()
    )


def until_us(tables: Path, until: str) -> int:
    """Return the end of the log, microseconds since 1970; empty takes the last row of events and decisions.

    Raises:
        ConfigError: `until` is no time.
    """
    if until:
        try:
            at = datetime.fromisoformat(until)
        except ValueError as error:
            raise ConfigError(f"question.until must be a time such as 2026-03-01T12:00, got {until!r}") from error
        return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1e6)
    last = [
        scan(tables, name, ["at"]).select(pl.col("at").dt.epoch("us").max()).collect().item()
        for name in ("events", "decisions")
        if columns_of(tables, name)
    ]
    return max(int(at) for at in last if at is not None)


def distinct(tables: Path, name: str, column: str) -> set[str]:
    """Return the values that stand in a column, null aside; none where there is no such table or column."""
    if column not in columns_of(tables, name):
        return set()
    return set(scan(tables, name, [column]).select(pl.col(column).unique()).collect().to_series().drop_nulls())
