"""What both kinds of store offer: tables of bytes by key, read and written in transactions.

`lmdb_tables` keeps them in a folder of this machine, `redis_tables` on a server that several machines share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

Bytes = bytes | memoryview
Wanted = Mapping[str, Iterable[bytes]]  # keys by table

NAMES = ("meta", "profiles", "sessions", "catalogue", "log", "event_ids")
LATER = ("creatives", "decisions", "decision_ids", "shown", "learned", "wishes", "forgotten")  # since formats 2 and 3
FORMAT = 3
VERSION = b"version"  # key of `meta`: sequence of the last event or change


class Txn(Protocol):
    """One transaction. Tables that a store of an older format lacks are empty."""

    def get(self, table: str, key: bytes) -> Bytes | None:
        """Return the value of a key; what a memoryview shows is gone after the transaction."""

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Set the value of a key."""

    def add(self, table: str, key: bytes, value: bytes) -> bool:
        """Set the value of a key that has none; return whether it had none."""

    def delete(self, table: str, key: bytes) -> None:
        """Take a key and its value away, where it is there."""

    def append(self, table: str, sequence: int, value: bytes) -> None:
        """Set the next entry of a log: of a higher sequence than all that are there."""

    def values(self, table: str) -> Iterable[Bytes]:
        """Return all values of a table, in no order that may be relied on."""

    def since(self, table: str, after: int) -> Iterator[tuple[int, bytes]]:
        """Yield (sequence, value) of a log, behind the sequence `after`, in order."""

    def ahead(self, wanted: Wanted) -> None:
        """Say what will be read, so that a store on another machine fetches it in one round trip."""


class Tables(Protocol):
    """An open store of bytes.

    Attributes:
        place: where it is, for messages: a folder, or a URL without its password.
        far: whether each read is a round trip, so that it pays to say what is wanted.
    """

    place: str
    far: bool

    def read(self, wanted: Wanted, *, quick: bool = False) -> AbstractContextManager[Txn]:
        """Give a transaction that reads; what is `wanted` is of one moment.

        Args:
            quick: an answer waits for it: rather fail than be late.
        """

    def write(self, work: Callable[[Txn], None], wanted: Wanted) -> None:
        """Do work inside a transaction and commit it; durable when this returns, and undone when `work` raises.

        `work` may be called several times, when others wrote meanwhile; only its last call counts.
        """

    def close(self) -> None:
        """Give everything back."""
