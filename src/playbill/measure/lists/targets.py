"""What people did: targets after each list, and what was known before any."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from playbill.errors import MeasureError
from playbill.measure.lists.catalogue import Catalogue, needs
from playbill.measure.people import WHO, with_who
from playbill.measure.ranking import Targets, targets_from_pairs
from playbill.measure.statement import refuse_rows
from playbill.tables.folder import read_table


@dataclass(slots=True)
class Deeds:
    """Events with an item of the catalogue, in order of person and time.

    Attributes:
        person: [M] int64 code of the person, 0..P-1, rising.
        at: [M] int64 microseconds since 1970, rising within a person.
        item: [M] int64 item_index 1..N.
        num_people: P, people with a list included.
        dropped: events whose item is not in the catalogue.
    """

    person: np.ndarray
    at: np.ndarray
    item: np.ndarray
    num_people: int
    dropped: int = 0


def read_events(tables: Path, names: list[str]) -> pl.DataFrame:
    """Return who, at (int64 us) and item_id of every event that counts and has an item.

    Raises:
        MeasureError: no events table, no item in it, an event name that never occurs (those that do are named), or
            times that are missing.
    """
    needs(tables, "events", "targets are what people did")
    there = list(pq.read_schema(tables / "events.parquet").names)
    if "item_id" not in there:
        raise MeasureError(f"events in {tables} has no column item_id, so no item can be a target")
    wanted = ("user_id", "session_id", "event", "at", "item_id")
    rows = pl.DataFrame(pl.from_arrow(read_table(tables, "events", [c for c in there if c in wanted])))
    if names:
        found = rows["event"].unique().to_list()
        unknown = [name for name in names if name not in found]
        if unknown:
            raise MeasureError(f"events.event is never {', '.join(unknown)}; it is: {', '.join(sorted(found))}")
        rows = rows.filter(pl.col("event").is_in(names))
    rows = rows.filter(pl.col("item_id").is_not_null())
    late = rows["at"].is_null().to_numpy()
    refuse_rows("events", "at", late, rows["at"].to_list() if late.any() else (), "an event has a time")
    return with_who(rows, "events").select(WHO, "item_id", pl.col("at").cast(pl.Int64))


def coded(events: pl.DataFrame, people: pl.DataFrame, catalogue: Catalogue) -> Deeds:
    """Return the events as codes; `people` has a row a person: who, code."""
    item = catalogue.rows_of(events["item_id"]) + 1
    person = events.join(people, on=WHO, how="left", maintain_order="left")["code"].to_numpy()
    at = events["at"].to_numpy()
    known = np.flatnonzero(item > 0)
    order = known[np.lexsort((at[known], person[known]))]
    return Deeds(person[order], at[order], item[order], len(people), len(item) - len(known))


def targets_after(person: np.ndarray, at: np.ndarray, deeds: Deeds, window_us: int, unseen: bool) -> Targets:
    """Return the targets of each list: what its person did after it, within the window.

    Args:
        person, at: [L] int64, whose each list is and when.
        deeds: the events.
        window_us: length of the window, 0 for no end. An event at the list's very time is not a target.
        unseen: leave out items that the person dealt with up to the list's time.
    """
    # person and time as one sorted key; times become ranks, since person x microseconds would overflow
    moments = np.unique(deeds.at)
    width = len(moments) + 1
    key = deeds.person * width + np.searchsorted(moments, deeds.at)
    low = np.searchsorted(key, person * width + np.searchsorted(moments, at, side="right"))
    end = np.searchsorted(moments, at + window_us, side="right") if window_us else np.full(len(at), len(moments))
    high = np.searchsorted(key, person * width + end)
    counts = np.maximum(high - low, 0)
    of = np.repeat(np.arange(len(person)), counts)
    row = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts) + low[of]
    item = deeds.item[row]
    if unseen:
        kept = _first_times(deeds)[row] > at[of]
        of, item = of[kept], item[kept]
    return targets_from_pairs(of, item, len(person))


def _first_times(deeds: Deeds) -> np.ndarray:
    """Return [M] int64: when the person of each event dealt with its item for the first time."""
    order = np.lexsort((deeds.at, deeds.item, deeds.person))
    person, item = deeds.person[order], deeds.item[order]
    new = np.ones(len(order), bool)
    new[1:] = (person[1:] != person[:-1]) | (item[1:] != item[:-1])
    first = np.empty(len(order), np.int64)
    first[order] = deeds.at[order][np.flatnonzero(new)[np.cumsum(new) - 1]]
    return first
