"""Impressions: slates of the decisions table as they were shown, with what came of every item on them.

An event answers the impression that its `decision_id` names; where that is a decision of another kind (the creative of
an item), the impression at the same request and position. Where events name no decisions, an event answers the newest
impression of its item to its person within a day, or within a task's own window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from playbill.dataset.dataset import Dataset
from playbill.dataset.folded import context_columns
from playbill.dataset.labels import check_events, counting, followed, happened
from playbill.dataset.tasks import Task, parents
from playbill.errors import TableError
from playbill.features.encoder import DAY_US, Arrays, encode_fields
from playbill.features.spec import Encoding, Side
from playbill.tables.folder import has_table, read_folder

LONGEST = 64  # positions of a slate that are looked at
_NEEDED = ("decision_id", "request_id", "kind", "chosen", "at")


@dataclass(slots=True)
class Impressions:
    """R slates of at most C items, in order of time.

    Attributes:
        person: [R] int64, -1 for somebody who has no event and no row of the users table.
        now: [R] int64 UTC microseconds.
        item: [R, C] int64 item_index; there: [R, C] bool, whether an item stands there.
        position: [R, C] int64, 0-based as shown, 0 where unknown.
        context: encoded context columns, [R, ...] each.
        label, known: [R, C, T] float32 of 0 and 1.
    """

    person: np.ndarray
    now: np.ndarray
    item: np.ndarray
    there: np.ndarray
    position: np.ndarray
    context: Arrays
    label: np.ndarray
    known: np.ndarray

    def __len__(self) -> int:
        return len(self.person)


def has_impressions(tables: Path) -> bool:
    """Return whether the tables hold decisions about items."""
    if not has_table(tables, "decisions"):
        return False
    kinds = pl.scan_parquet(tables / "decisions.parquet").filter(pl.col("kind").cast(pl.String) == "item")
    return bool(len(kinds.select("kind").head(1).collect()))


def read_impressions(
    tables: Path, dataset: Dataset, tasks: Sequence[Task], from_us: int, until_us: int, most: int
) -> Impressions:
    """Return the slates decided in from_us .. until_us, the newest `most` of them.

    A label looks at events before `until_us` alone. People without consent are not among them.

    Args:
        tables: folder that the dataset was opened from, with decisions.
        tasks: what is asked of each item.
    Raises:
        TableError: the decisions lack a column, or their ids are of another type than those of the events.
        ConfigError: a task names an event that the tables do not have.
    """
    check_events(tables, tasks)
    shown = _shown(tables, dataset, from_us, until_us, most)
    slates = shown.group_by("row", maintain_order=True).first()
    num, width = len(slates), int(shown["column"].max() or 0) + 1 if len(shown) else 1  # type: ignore[arg-type,call-overload]  # whole numbers
    flat = (shown["row"] * width + shown["column"]).to_numpy()
    item, position = np.zeros((2, num * width), np.int64)
    item[flat], position[flat] = shown["item"].to_numpy(), shown["position"].to_numpy()
    there = np.zeros(num * width, bool)
    there[flat] = True
    person, now = slates["person"].to_numpy(), slates["at"].to_numpy()
    shape = (num, width)
    events = happened(tables, dataset, until_us)
    answers, named = _answers(tables, events, shown.with_columns(pl.Series("place", flat)))
    label, known = np.zeros((2, num * width, len(tasks)), np.float32)
    above = parents(tasks)
    for t, task in enumerate(tasks):
        if task.returns:
            came = followed(events, task, person, None, now) & (person >= 0)
            label[:, t] = np.repeat(came, width)
            known[:, t] = np.repeat(_over(task, now, until_us) & (person >= 0), width)
            continue
        window = round((task.within_days or 1) * DAY_US)
        due = answers if named and task.within_days is None else answers.filter(pl.col("late") <= window)
        label[counting(due, task)["place"].to_numpy(), t] = 1
        known[:, t] = np.repeat(_over(task, now, until_us), width)
        if task.threshold is not None and above[t] >= 0:
            # who came so far and gave no value says nothing of it
            valued = counting(due, Task(name=task.name, events=task.events)).filter(pl.col("value").is_not_null())
            spoken = np.zeros(num * width, bool)
            spoken[valued["place"].to_numpy()] = True
            known[:, t] *= spoken
    known *= there[:, None]
    return Impressions(
        person=person,
        now=now,
        item=item.reshape(shape),
        there=there.reshape(shape),
        position=position.reshape(shape),
        context=encode_fields(_context(slates, dataset), num, dataset.spec.side(Side.CONTEXT), dataset.vocabularies),
        label=label.reshape(*shape, len(tasks)),
        known=known.reshape(*shape, len(tasks)),
    )


def _shown(tables: Path, dataset: Dataset, from_us: int, until_us: int, most: int) -> pl.DataFrame:
    """Return one row an impression: row, column, person, item, position, at, request_id, decision_id, and context."""
    there = [c.name for c in read_folder(tables).columns["decisions"]]
    missing = [name for name in _NEEDED if name not in there]
    if missing:
        raise TableError(f"decisions in {tables} have no column {', '.join(missing)}; prepare them with these columns")
    asked = {f.name for f in context_columns(dataset.spec)}
    kept = {*_NEEDED, "user_id", "session_id", "position", "context", *asked} - {"kind"}
    log = pl.scan_parquet(tables / "decisions.parquet").filter(pl.col("kind").cast(pl.String) == "item")
    log = log.select([n for n in there if n in kept])
    log = log.with_columns(pl.col("at").dt.cast_time_unit("us").dt.replace_time_zone(None).cast(pl.Int64))
    log = log.filter((pl.col("at") >= from_us) & (pl.col("at") < until_us))
    frame = log.collect().sort("at", "decision_id", maintain_order=True)
    item_type = pl.Int64 if dataset.spec.item_id_type == "int64" else pl.String
    item = dataset.vocabularies["item"].indices(frame["chosen"].cast(item_type, strict=False).to_arrow())
    place = pl.col("position") if "position" in frame.columns else pl.lit(None, pl.Float64)
    frame = frame.with_columns(
        pl.Series("item", item),
        pl.Series("person", _people(frame, dataset)),
        pl.coalesce(place, pl.int_range(pl.len()).over("request_id")).cast(pl.Int64).alias("position"),
    ).drop("chosen")
    if "training" in dataset.spec.purposes:
        frame = frame.filter(pl.col("person") >= 0)
    frame = frame.sort("position", maintain_order=True)
    frame = frame.with_columns(pl.int_range(pl.len()).over("request_id").alias("column"))
    frame = frame.filter(pl.col("column") < LONGEST)
    slates = frame.group_by("request_id").agg(pl.col("at").min()).sort("at", "request_id").tail(most)
    slates = slates.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    return frame.join(slates.select("request_id", "row"), on="request_id").sort("row", "column")


def _people(frame: pl.DataFrame, dataset: Dataset) -> np.ndarray:
    """Return [n] int64 people of decisions, -1 for somebody unknown; the user counts before the session."""
    person = np.full(len(frame), -1, np.int64)
    for name, ids in (("user_id", dataset.people.user_ids), ("session_id", dataset.people.session_ids)):
        if name not in frame.columns:
            continue
        known = pl.DataFrame({name: pl.from_arrow(ids.array), "number": np.arange(len(ids))}).drop_nulls(name)
        asked = frame.select(name).cast(known.schema[name], strict=False)
        found = asked.join(known, on=name, how="left", maintain_order="left")["number"].fill_null(-1).to_numpy()
        person = np.where(person < 0, found, person)
    return person


def _answers(tables: Path, events: pl.DataFrame, shown: pl.DataFrame) -> tuple[pl.DataFrame, bool]:
    """Return the events that answer an impression (place, event, value, and how late in microseconds), and whether
    they name it themselves."""
    asked = shown.select("place", "decision_id", "request_id", "position", pl.col("at").alias("decided"))
    named = events.filter(pl.col("decision_id").is_not_null()) if "decision_id" in events.columns else events.clear()
    if len(named):
        log = pl.scan_parquet(tables / "decisions.parquet")
        schema = log.collect_schema()
        if schema["decision_id"] != named.schema["decision_id"]:
            raise TableError(
                f"events.decision_id is {named.schema['decision_id']} and decisions.decision_id is "
                f"{schema['decision_id']}; write both alike"
            )
        found = named.join(asked, on="decision_id")
        if "position" in schema:
            others = named.join(asked, on="decision_id", how="anti")
            where = log.select("decision_id", "request_id", pl.col("position").cast(pl.Int64)).collect()
            others = others.join(where, on="decision_id").join(asked.drop("decision_id"), on=["request_id", "position"])
            found = pl.concat([found.select(others.columns), others])
    else:
        pairs = shown.filter((pl.col("person") >= 0) & (pl.col("item") > 0)).sort("at")
        pairs = pairs.select("person", "item", "place", pl.col("at").alias("decided"))
        found = events.filter(pl.col("item") > 0).join_asof(
            pairs, left_on="at", right_on="decided", by=["person", "item"], strategy="backward", check_sortedness=False
        )
        found = found.drop_nulls("place")
    found = found.select("place", "event", "value", (pl.col("at") - pl.col("decided")).alias("late"))
    return found.filter(pl.col("late") >= 0), bool(len(named))


def _over(task: Task, now: np.ndarray, until_us: int) -> np.ndarray:
    """Return [R] bool, whether a task's window is over before `until_us`."""
    over: np.ndarray = now + round((task.within_days or 0) * DAY_US) <= until_us
    return over


def _context(slates: pl.DataFrame, dataset: Dataset) -> dict[str, Any]:
    """Return the raw context columns of the slates by name: a column of the decisions, else a field of their json."""
    columns: dict[str, Any] = {}
    for field in context_columns(dataset.spec):
        if field.name in slates.columns:
            columns[field.name] = slates[field.name].to_arrow()
        elif "context" in slates.columns:
            text = slates["context"].str.json_path_match(f"$.{field.name}")
            columns[field.name] = (
                text.cast(pl.Float64, strict=False) if field.encoding is Encoding.NUMBER else text
            ).to_arrow()
    return columns
