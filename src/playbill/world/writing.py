"""From arrays of one day to parquet files, in bounded memory: rows wait until nothing earlier can come, then go out.

Rows of a day come in any order and from any number of chunks; what a person did late lies days ahead. `EventLog` holds
rows back until the day they belong to is over, sorts them by time and by a number of their own, and numbers them: the
files are the same whatever was computed first. A thread of its own compresses and writes, row group by row group.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from playbill.tables.schema import Column, arrow_type
from playbill.world.identifiers import HOLD, SLOTS

if TYPE_CHECKING:
    from playbill.world.people import People

Array = np.ndarray[Any, Any]

ROW_GROUP = 1_000_000
_WAITING = 4  # tables that may wait for the writing thread

EVENT_NAMES = ("visit", "click", "play", "rate", "purchase", "search_play", "open", "message_click")
VISIT, CLICK, PLAY, RATE, PURCHASE, SEARCH_PLAY, OPEN, MESSAGE_CLICK = range(len(EVENT_NAMES))


@dataclass(slots=True)
class Events:
    """Events in no order; all [n].

    Attributes:
        kind: int8 index into EVENT_NAMES.
        person: int64 row of people.
        request: int64 request id of the visit or mail it belongs to; visits' ids are session ids.
        slot: int64 slot of the decision that it answers within the request; -1: none.
        at_us: int64 UTC microseconds.
        item, creative: int64 rows (creative: as creative_id - 1), -1: none.
        value: float64, NaN: none.
        device: int8 index of the device, -1: none.
    """

    kind: Array
    person: Array
    request: Array
    slot: Array
    at_us: Array
    item: Array
    creative: Array
    value: Array
    device: Array

    def __len__(self) -> int:
        return len(self.kind)


def make_events(
    kind: int,
    person: Array,
    request: Array,
    at_us: Array,
    *,
    slot: Array | int = -1,
    item: Array | int = -1,
    creative: Array | int = -1,
    value: Array | float = np.nan,
    device: Array | int = -1,
) -> Events:
    """Return n events of one kind; single numbers stand for all of them."""
    n = len(person)

    def full(given: Array | float, dtype: type) -> Array:
        return np.broadcast_to(np.asarray(given, dtype), (n,))

    return Events(
        kind=full(kind, np.int8),
        person=full(person, np.int64),
        request=full(request, np.int64),
        slot=full(slot, np.int64),
        at_us=full(at_us, np.int64),
        item=full(item, np.int64),
        creative=full(creative, np.int64),
        value=full(value, np.float64),
        device=full(device, np.int8),
    )


def joined(parts: Sequence[Events]) -> Events:
    """Return the events of all parts, in their order."""
    return Events(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Events)))


class Writer:
    """One parquet file, written by a thread of its own in row groups of about ROW_GROUP rows.

    Args:
        path: the file.
        columns: as they are declared, in order; ids are int64 save those of `text_ids`.
        words: columns of few different texts, given as dictionary arrays.
        text_ids: id columns that hold text.
        ascending: whole-number columns that grow from row to row, stored as differences.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[Column],
        *,
        words: Sequence[str] = (),
        text_ids: Sequence[str] = (),
        ascending: Sequence[str] = (),
    ) -> None:
        kinds = {c.name: arrow_type(c.kind, pa.string() if c.name in text_ids else pa.int64()) for c in columns}
        words_type = pa.dictionary(pa.int32(), pa.string())
        self.schema = pa.schema([(name, words_type if name in words else kind) for name, kind in kinds.items()])
        self.rows = 0
        # without the Arrow schema in the file dictionaries come back as plain text, as the contract has it
        self._file = pq.ParquetWriter(
            path,
            self.schema,
            compression="zstd",
            compression_level=1,
            store_schema=False,
            use_dictionary=[name for name in (*words, "item_id", "creative_id", "chosen", "context") if name in kinds],
            column_encoding={name: "DELTA_BINARY_PACKED" for name in ascending},
            write_statistics=list(ascending),
        )
        self._queue: queue.Queue[pa.Table | None] = queue.Queue(_WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"write {path.name}", daemon=True)
        self._thread.start()

    def write(self, table: pa.Table) -> None:
        """Hand rows over; waits while the thread is behind.

        Raises:
            Whatever stopped the thread, such as OSError for a full disk.
        """
        if self._error is not None:
            raise self._error
        if table.num_rows:
            self.rows += table.num_rows
            self._queue.put(table)

    def close(self) -> None:
        """Write what is left and close the file.

        Raises:
            Whatever stopped the thread.
        """
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        waiting: list[pa.Table] = []
        try:
            while (table := self._queue.get()) is not None:
                waiting.append(table)
                if sum(t.num_rows for t in waiting) >= ROW_GROUP:
                    self._group(waiting)
                    waiting = []
            if waiting:
                self._group(waiting)
            self._file.close()
        except BaseException as error:  # handed to the caller, who would wait for ever otherwise
            self._error = error
            while self._queue.get() is not None:
                pass

    def _group(self, tables: Sequence[pa.Table]) -> None:
        whole = pa.concat_tables(tables).unify_dictionaries()
        self._file.write_table(whole, row_group_size=2 * ROW_GROUP)


class EventLog:
    """Events held back until nothing earlier can come.

    Args:
        writer: of the events table.
        people: tells who is anonymous.
        written: [P] bool, people whose decisions are written; the others' events name no decision.
        devices: names by index.
    """

    def __init__(self, writer: Writer, people: People, written: Array, devices: Sequence[str]) -> None:
        self._writer = writer
        self._anonymous = people.anonymous
        self._written = written
        self._devices = pa.array(list(devices), pa.string())
        self._names = pa.array(EVENT_NAMES, pa.string())
        self._held: list[Events] = []

    def add(self, events: Events) -> None:
        """Take events, in any order, none before the last `release`."""
        self._held.append(events)

    def release(self, before_us: int | None) -> None:
        """Write the events before a moment, ordered; None: all."""
        if not self._held:
            return
        held = joined(self._held)
        due = np.ones(len(held), bool) if before_us is None else held.at_us < before_us
        out = _rows(held, np.flatnonzero(due))
        self._held = [_rows(held, np.flatnonzero(~due))]
        # request, slot and kind name an event; the order among equal times must not depend on who came first
        tie = (out.request * (SLOTS + 1) + (out.slot + 1)) * len(EVENT_NAMES) + out.kind
        self._write(_rows(out, np.lexsort((tie, out.at_us))))

    def _write(self, events: Events) -> None:
        anonymous = self._anonymous[events.person]
        mail = events.slot >= HOLD  # answers to mails belong to no visit
        answered = (events.slot >= 0) & self._written[events.person]
        first = self._writer.rows + 1
        arrays = {
            "event_id": pa.array(np.arange(first, first + len(events))),
            "user_id": pa.array(events.person + 1, mask=anonymous),
            "session_id": pa.array(events.request, mask=mail),
            "event": pa.DictionaryArray.from_arrays(pa.array(events.kind.astype(np.int32)), self._names),
            "at": pa.array(events.at_us).cast(pa.timestamp("us", tz="UTC")),
            "item_id": pa.array(events.item + 1, mask=events.item < 0),
            "creative_id": pa.array(events.creative + 1, mask=events.creative < 0),
            "decision_id": pa.array(events.request * SLOTS + events.slot, mask=~answered),
            "value": pa.array(events.value, mask=np.isnan(events.value)),
            "device": pa.DictionaryArray.from_arrays(
                pa.array(events.device.astype(np.int32), mask=events.device < 0), self._devices
            ),
        }
        self._writer.write(pa.table([arrays[name] for name in self._writer.schema.names], schema=self._writer.schema))


def _rows(events: Events, rows: Array) -> Events:
    return Events(*(getattr(events, f.name)[rows] for f in fields(Events)))
