"""Labels: which tasks came true after an event, read from the log, never from what lies beyond a moment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from playbill.dataset.dataset import Dataset, Examples
from playbill.dataset.tasks import Task
from playbill.errors import ConfigError
from playbill.features.encoder import DAY_US
from playbill.features.people import number_people
from playbill.tables.folder import has_table, read_folder, read_table


def row_labels(
    tables: Path, dataset: Dataset, rows: Examples, tasks: Sequence[Task], until_us: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (label, known), [R, T] float32 of 0 and 1: what came true of each row's own item, and what can be said.

    A task with a window looks at the person's events on the item from the row's own on; one without at the row's own
    event alone. A task without parent is not known of events that are not its own.

    Args:
        tables: folder that the dataset was opened from.
        rows: events; `now` is their moment.
        tasks: declared ones.
        until_us: UTC microseconds; nothing that comes at that moment or later is looked at.
    Raises:
        ConfigError: a task names an event that the tables do not have.
    """
    check_events(tables, tasks)
    code = np.asarray(dataset.pool.code[rows.target_row])
    codes = dataset.spec.code_of()
    value = _own_values(tables, dataset, rows, tasks)
    label, known = np.zeros((2, len(rows), len(tasks)), np.float32)
    windowed = any(task.within_days is not None for task in tasks)
    later = happened(tables, dataset, until_us) if windowed else pl.DataFrame()
    for t, task in enumerate(tasks):
        counts = [codes[name].code for name in task.events if name in codes]
        own = np.isin(code, counts) if task.events else np.ones(len(rows), bool)
        if task.within_days is not None:
            item = None if task.returns else dataset.pool.item[rows.target_row]
            label[:, t] = followed(later, task, rows.person, item, rows.now)
            known[:, t] = rows.now + _us(task.within_days) <= until_us
        elif task.threshold is not None:
            label[:, t] = own & (value >= task.threshold)
            known[:, t] = own & ~np.isnan(value)
        else:
            label[:, t] = own
            known[:, t] = own if task.parent is None else True
    return label, known


def happened(tables: Path, dataset: Dataset, until_us: int) -> pl.DataFrame:
    """Return the events of the dataset's people before a moment, in order of time.

    Columns: person, item (item_index, 0 for none), event, at (UTC microseconds), value, and decision_id where the
    events table has it.
    """
    columns = read_folder(tables).columns["events"]
    there = [c.name for c in columns]
    names = [n for n in ("user_id", "session_id", "event", "at", "item_id", "value", "decision_id") if n in there]
    events = read_table(tables, "events", names)
    users = read_table(tables, "users") if has_table(tables, "users") else None
    _, person = number_people(users, events)
    item = dataset.vocabularies["item"].indices(events["item_id"])
    frame = pl.DataFrame(events.drop_columns([n for n in ("user_id", "session_id", "item_id") if n in names]))
    frame = frame.with_columns(
        pl.col("at").dt.cast_time_unit("us").dt.replace_time_zone(None).cast(pl.Int64),
        pl.col("event").cast(pl.String),
        pl.Series("person", person),
        pl.Series("item", item),
        *([] if "value" in names else [pl.lit(None, pl.Float64).alias("value")]),
    )
    return frame.filter((pl.col("person") >= 0) & (pl.col("at") < until_us)).sort("at", maintain_order=True)


def counting(events: pl.DataFrame, task: Task) -> pl.DataFrame:
    """Return the events that make a task come true."""
    kept = events.filter(pl.col("event").is_in(task.events)) if task.events else events
    return kept if task.threshold is None else kept.filter(pl.col("value") >= task.threshold)


def followed(
    events: pl.DataFrame, task: Task, person: np.ndarray, item: np.ndarray | None, at: np.ndarray
) -> np.ndarray:
    """Return [R] bool, whether an event that counts comes within the task's window after each moment.

    Args:
        events: of `happened`.
        task: with `within_days`; for a return the window begins `after_days` after the moment, else at the moment.
        person, at: [R] int64.
        item: [R] int64 whose events count, None for events on anything.
    """
    assert task.within_days is not None
    begin = at + (_us(task.after_days) if task.returns else 0)
    by = ["person"] if item is None else ["person", "item"]
    asked = pl.DataFrame({"row": np.arange(len(at)), "person": person, "at": begin})
    asked = asked if item is None else asked.with_columns(pl.Series("item", item))
    found = asked.sort("at").join_asof(
        counting(events, task).select(*by, "at", pl.lit(True).alias("found")),
        on="at",
        by=by,
        strategy="forward",
        tolerance=_us(task.within_days) - (_us(task.after_days) if task.returns else 0),
        check_sortedness=False,  # both are sorted, which polars cannot see within groups
    )
    return found.sort("row")["found"].fill_null(False).to_numpy()


def check_events(tables: Path, tasks: Sequence[Task]) -> None:
    """Raise ConfigError where a task names an event that the tables declare nothing of."""
    declared = [e.name for e in read_folder(tables).events]
    for task in tasks:
        unknown = [name for name in task.events if declared and name not in declared]
        if unknown:
            raise ConfigError(
                f"model.tasks: task {task.name!r} names the events {unknown}; the tables have: {', '.join(declared)}"
            )


def _own_values(tables: Path, dataset: Dataset, rows: Examples, tasks: Sequence[Task]) -> np.ndarray:
    """Return [R] float64 raw values of the rows' own events, NaN where there is none or no task asks for them."""
    asked = any(task.threshold is not None for task in tasks)
    if not asked or "value" not in [c.name for c in read_folder(tables).columns["events"]]:
        return np.full(len(rows), np.nan)
    whole = np.asarray(read_table(tables, "events", ["value"])["value"].cast("float64").fill_null(float("nan")))
    values: np.ndarray = whole[dataset.pool.source_row[rows.target_row]]
    return values


def _us(days: float) -> int:
    return round(days * DAY_US)
