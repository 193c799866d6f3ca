"""What the events that may teach say: gathered while they go by, in any number of pieces, always to the same result."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from playbill.tables.schema import Column, EventKind, Kind

# values whose mean and deviation are taken at once; longer columns are merged from such blocks, wherever their pieces
# were cut
_BLOCK = 1 << 20


class Moments:
    """Mean and deviation of finite numbers, bit for bit the same however they are cut into pieces.

    Blocks of 2^20 numbers are merged pairwise. Source: Chan, Golub, LeVeque (1983), "Algorithms for computing the
    sample variance", equation 1.5.
    """

    def __init__(self) -> None:
        self._waiting: list[np.ndarray] = []
        self._num_waiting = 0
        self._count, self._mean, self._squares, self._std = 0, 0.0, 0.0, 0.0

    def add(self, values: pa.Array | pa.ChunkedArray) -> None:
        """Take in more numbers; nulls, NaN and infinities are passed over."""
        number = np.asarray(values.cast(pa.float64()).drop_null(), np.float64)
        number = number[np.isfinite(number)]
        while self._num_waiting + len(number) >= _BLOCK:
            cut = _BLOCK - self._num_waiting
            self._merge(np.concatenate([*self._waiting, number[:cut]]))
            number, self._waiting, self._num_waiting = number[cut:], [], 0
        if len(number):
            self._waiting.append(number)
            self._num_waiting += len(number)

    def result(self) -> tuple[float, float]:
        """Return mean and deviation; 0 and 1 where there are no numbers, deviation 1 where all are equal."""
        if self._num_waiting:
            self._merge(np.concatenate(self._waiting))
            self._waiting, self._num_waiting = [], 0
        if not self._count:
            return 0.0, 1.0
        std = math.sqrt(self._squares / self._count) if self._count > _BLOCK else self._std
        return self._mean, std if std > 0 else 1.0

    def _merge(self, block: np.ndarray) -> None:
        n, mean, self._std = len(block), float(block.mean()), float(block.std())
        off = mean - self._mean
        total = self._count + n
        self._squares += self._std**2 * n + off**2 * self._count * n / total
        self._mean = mean if not self._count else self._mean + off * n / total
        self._count = total


class ColumnFacts:
    """What the rows that may teach hold in one column.

    Attributes:
        rows, missing: rows, and those of them without a value.
        counts: how often each text or category occurs.
        width: most categories of one row.
        moments: of numbers and flags.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.rows = self.missing = self.width = 0
        self.counts: Counter[str] = Counter()
        self.moments = Moments()

    def add(self, values: pa.Array | pa.ChunkedArray) -> None:
        """Take in more rows."""
        self.rows += len(values)
        self.missing += values.null_count
        if self.kind in (Kind.NUMBER, Kind.FLAG):
            self.moments.add(values.cast(pa.float64()))
            return
        if self.kind not in (Kind.TEXT, Kind.CATEGORIES):
            return
        if self.kind is Kind.CATEGORIES:
            self.width = max(self.width, pc.max(pc.list_value_length(values)).as_py() or 0)
            values = pc.list_flatten(values)
        found = pc.value_counts(values.drop_null())
        for value, count in zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True):
            self.counts[value] += count


class EventFacts:
    """What the features learn from events.

    Attributes:
        users: [rows of the users table] bool, people who did something.
        items: [N + 1] bool by item_index, items that something was done with.
        item_counts: [N + 1] int64 events of each item, row 0 those that name no known item.
        names: event names.
        values: mean and deviation of the values of each event name whose range is not declared.
        columns: of context columns.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        declared: Sequence[EventKind],
        context: Sequence[str],
        num_users: int,
        num_items: int,
    ) -> None:
        self.users = np.zeros(num_users, bool)
        self.item_counts = np.zeros(num_items + 1, np.int64)
        self.names: set[str] = set()
        self.values: dict[str, Moments] = {}
        self.ranged = {e.name for e in declared if has_range(e)}
        self.has_value = any(c.name == "value" for c in columns)
        self.columns = {c.name: ColumnFacts(c.kind) for c in columns if c.name in context}
        # a log whose events all have a range is not read for them
        self.reads_values = not declared or len(self.ranged) < len(declared)

    @property
    def items(self) -> np.ndarray:
        return self.item_counts > 0

    @property
    def reads(self) -> list[str]:
        """Columns of the events table that `add` reads, besides person and item."""
        values = ["event", *(["value"] if self.has_value else [])] if self.reads_values else []
        return list(dict.fromkeys([*values, *self.columns]))

    def add(self, events: pa.Table, users_row: np.ndarray, item: np.ndarray) -> None:
        """Take in events that may teach.

        Args:
            events: [n] rows with the columns of `reads`.
            users_row: [n] int64 row of the users table of each event's person, -1 where there is none.
            item: [n] int64 item_index, 0 where unknown or none.
        """
        self.users[users_row[users_row >= 0]] = True
        self.item_counts += np.bincount(item, minlength=len(self.item_counts))
        for name, facts in self.columns.items():
            facts.add(events[name])
        if not self.reads_values:
            return
        for name in pc.unique(events["event"]).drop_null().to_pylist():
            self.names.add(name)
            if self.has_value and name not in self.ranged:
                of_name = events.filter(pc.equal(events["event"], name))["value"]
                self.values.setdefault(name, Moments()).add(of_name)


def has_range(event: EventKind) -> bool:
    """Return whether an event's value has a declared range to scale by."""
    return event.low is not None and event.high is not None and event.low < event.high


def value_moments(facts: EventFacts | None, name: str) -> tuple[float, float]:
    """Return mean and deviation of an event's values; 0 and 1 where nothing is known of them."""
    known: Mapping[str, Any] = {} if facts is None else facts.values
    return known[name].result() if name in known else (0.0, 1.0)
