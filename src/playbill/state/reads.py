"""What an answer read in the store: every row of it, as bytes, so that the answer can be made again later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from playbill.state.txn import Bytes, Txn, Wanted


class Reads:
    """What one view was asked.

    Attributes:
        rows: by table and key, None where there was nothing.
        held: what the answer knew beside it, which whoever answers keeps between requests; None where it never came
            that far, as while the store is away.
    """

    __slots__ = ("held", "rows")

    def __init__(self) -> None:
        self.rows: dict[tuple[str, bytes], bytes | None] = {}
        self.held: Any = None


class NotingTxn:
    """A transaction that notes which rows it gave. Whole tables are not noted: they are asked for between answers."""

    __slots__ = ("_txn", "reads")

    def __init__(self, txn: Txn, reads: Reads) -> None:
        self._txn, self.reads = txn, reads

    def get(self, table: str, key: bytes) -> bytes | None:
        raw = self._txn.get(table, key)
        found = self.reads.rows[table, key] = None if raw is None else bytes(raw)
        return found

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._txn.put(table, key, value)

    def add(self, table: str, key: bytes, value: bytes) -> bool:
        return self._txn.add(table, key, value)

    def delete(self, table: str, key: bytes) -> None:
        self._txn.delete(table, key)

    def append(self, table: str, sequence: int, value: bytes) -> None:
        self._txn.append(table, sequence, value)

    def values(self, table: str) -> Iterable[Bytes]:
        return self._txn.values(table)

    def since(self, table: str, after: int) -> Iterator[tuple[int, bytes]]:
        return self._txn.since(table, after)

    def ahead(self, wanted: Wanted) -> None:
        self._txn.ahead(wanted)
