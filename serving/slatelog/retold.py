"""A store as a slate log tells of it: what the next answer of the file read, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from playbill.engine.budget import Budget, Pace
from playbill.errors import StateError
from playbill.serving.slatelog.lines import Catalogue, Creatives, Row
from playbill.state.store import View

_encode = msgspec.msgpack.Encoder().encode


class RetoldStore:
    """What an engine reads while it answers again; told line by line.

    Attributes:
        away: the store could not be read.
        unknown: tables that were asked for rows of which the file says nothing.
    """

    readonly, declared = True, None

    def __init__(self) -> None:
        self.away = False
        self.unknown: set[str] = set()
        self._rows: dict[tuple[str, bytes], bytes | None] = {}
        self._tables: dict[str, dict[Any, dict[str, Any]]] = {"catalogue": {}, "creatives": {}}

    def tell(self, line: Row | Catalogue) -> None:
        """Take in a line."""
        if isinstance(line, Row):
            self._rows[line.table, line.key] = line.value
            return
        name = "creatives" if isinstance(line, Creatives) else "catalogue"
        # a new mapping: engines keep the one before
        table = {} if line.whole else dict(self._tables[name])
        table.update(line.rows)
        for row_id in line.gone:
            table.pop(row_id, None)
        self._tables[name] = table

    def version_of(self, name: bytes) -> int:
        """Return a version that the next answer stood on, by its key among the store's notes."""
        return int.from_bytes(self._rows.get(("meta", name)) or b"", "big")

    @contextmanager
    def view(self, people: Sequence[object] = ()) -> Iterator[View]:
        """Give the view that the answer had."""
        if self.away:
            raise StateError("the store could not be read when this was answered")
        yield View(self)

    def get(self, table: str, key: bytes) -> bytes | None:
        if (table, key) not in self._rows:
            self.unknown.add(table)
        return self._rows.get((table, key))

    def values(self, table: str) -> Iterable[bytes]:
        return [_encode(row) for row in self._tables.get(table, {}).items()]

    def ahead(self, wanted: object) -> None:
        """All of it is at hand."""

    def put(self, table: str, key: bytes, value: bytes) -> None:
        raise StateError("a log is only read")

    def add(self, table: str, key: bytes, value: bytes) -> bool:
        raise StateError("a log is only read")

    def delete(self, table: str, key: bytes) -> None:
        raise StateError("a log is only read")

    def append(self, table: str, sequence: int, value: bytes) -> None:
        raise StateError("a log is only read")

    def since(self, table: str, after: int) -> Iterator[tuple[int, bytes]]:
        raise StateError("a log of slates holds no log of events")


class RetoldBudget(Budget):
    """The time that an answer had, told: the steps that were passed over are passed over again, and no others."""

    def __init__(self, late: Sequence[str]) -> None:
        super().__init__(math.inf, Pace())
        self._steps = frozenset(late)

    def allows(self, step: str) -> bool:
        return step not in self._steps
