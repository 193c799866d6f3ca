"""The store's tables on a Redis server, for processes on several machines. A table is a hash, `<prefix>:<table>`.

Reading: what is `wanted` comes in one round trip and is of one moment: the version, which every change of what is known
raises, is the same before and behind it. What is asked for later is read then, and may be newer, never older.

Writing is optimistic: everything is read under a WATCH of `<prefix>:meta`, which every commit changes, and goes back in
one MULTI/EXEC. Where somebody else committed in between, EXEC does nothing and the work is done again; who loses
several times takes a turn that the others wait for, so that long work comes through beside short.

The reply to EXEC comes after the server has synced its log (`appendfsync always`, checked by `Server`).
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from playbill.errors import StateError
from playbill.state.keys import sequence_key
from playbill.state.redis_server import Command, Server
from playbill.state.settings import StoreSettings
from playbill.state.txn import FORMAT, LATER, NAMES, VERSION, Bytes, Txn, Wanted

_FIELDS = 1_000  # in one command: the server answers nobody else meanwhile
_LOSSES = 3  # commits that others came before, until a turn is taken
_PATIENCE_S = 30.0
_GLANCES = 100  # a server answers a packet without pause unless it is long: even then a commit rarely falls into it

_Ask = Callable[[list[Command]], list[Any]]


class RedisTxn:
    """What was read so far and what is to be written, see `Txn`."""

    def __init__(self, prefix: str, ask: _Ask) -> None:
        self._prefix, self._ask = prefix, ask
        self._known: dict[str, dict[bytes, bytes | None]] = {}
        self._new: dict[str, dict[bytes, bytes]] = {}
        self._gone: dict[str, set[bytes]] = {}

    def get(self, table: str, key: bytes) -> Bytes | None:
        known = self._known.get(table)
        if known is None or key not in known:
            self.ahead({table: [key]})
        return self._known[table][key]

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._known.setdefault(table, {})[key] = value
        self._new.setdefault(table, {})[key] = value
        self._gone.get(table, set()).discard(key)

    def delete(self, table: str, key: bytes) -> None:
        self._known.setdefault(table, {})[key] = None
        self._new.get(table, {}).pop(key, None)
        self._gone.setdefault(table, set()).add(key)

    def add(self, table: str, key: bytes, value: bytes) -> bool:
        if self.get(table, key) is not None:
            return False
        self.put(table, key, value)
        return True

    def append(self, table: str, sequence: int, value: bytes) -> None:
        self._new.setdefault(table, {})[sequence_key(sequence)] = value

    def values(self, table: str) -> list[Bytes]:
        [found] = self._ask([("HGETALL", f"{self._prefix}:{table}")])
        rows = dict(zip(found[::2], found[1::2], strict=True))
        rows |= self._new.get(table, {})
        gone = self._gone.get(table, set())
        return [value for key, value in rows.items() if key not in gone]

    def since(self, table: str, after: int) -> Iterator[tuple[int, bytes]]:
        raw = self.get("meta", VERSION)  # what is committed later is not ours to see
        last = 0 if raw is None else int.from_bytes(raw, "big")
        for low in range(after + 1, last + 1, _FIELDS):
            places = range(low, min(low + _FIELDS, last + 1))
            [found] = self._ask([("HMGET", f"{self._prefix}:{table}", *map(sequence_key, places))])
            yield from ((n, value) for n, value in zip(places, found, strict=True) if value is not None)

    def ahead(self, wanted: Wanted) -> None:
        commands, filed = self.reads(wanted)
        if commands:
            self.learn(filed, self._ask(commands))

    def reads(self, wanted: Wanted) -> tuple[list[Command], list[tuple[str, list[bytes]]]]:
        """Return commands that read what is not known yet, and to which table and keys their replies belong."""
        filed = []
        for table, keys in wanted.items():
            known = self._known.setdefault(table, {})
            todo = [key for key in dict.fromkeys(keys) if key not in known]
            filed += [(table, todo[low : low + _FIELDS]) for low in range(0, len(todo), _FIELDS)]
        return [("HMGET", f"{self._prefix}:{table}", *keys) for table, keys in filed], filed

    def learn(self, filed: Sequence[tuple[str, list[bytes]]], replies: Sequence[list[bytes | None]]) -> None:
        """Take the replies to `reads`."""
        for (table, keys), values in zip(filed, replies, strict=True):
            self._known[table].update(zip(keys, values, strict=True))

    def writes(self) -> list[Command]:
        """Return the commands that write what was put, and take away what was deleted."""
        commands: list[Command] = [
            ("HDEL", f"{self._prefix}:{table}", *sorted(keys)) for table, keys in self._gone.items() if keys
        ]
        for table, rows in self._new.items():
            flat = [part for row in rows.items() for part in row]
            for low in range(0, len(flat), 2 * _FIELDS):
                commands.append(("HSET", f"{self._prefix}:{table}", *flat[low : low + 2 * _FIELDS]))
        return commands


class RedisTables:
    """The tables of one prefix on an open server, see `Tables`."""

    far = True

    def __init__(self, url: str, readonly: bool, settings: StoreSettings) -> None:
        """Open a store; made where there is none, unless `readonly`.

        Raises:
            StateError: the server is away, would lose acknowledged events, or holds something else or a newer format.
        """
        self._server = server = Server(url, readonly, settings)
        self.place, self._prefix = server.place, server.prefix
        self._meta, self._turn = f"{self._prefix}:meta", f"{self._prefix}:turn"
        self._lease_ms = int(settings.redis_timeout_s * 1000)
        kinds = [("TYPE", f"{self._prefix}:{table}") for table in (*NAMES, *LATER)]
        raw, *found = server.ask([("HGET", self._meta, "format"), *kinds])
        strangers = [kind[1] for kind, reply in zip(kinds, found, strict=True) if reply not in (b"none", b"hash")]
        if strangers or (raw is None and b"hash" in found):
            raise StateError(
                f"{self.place} holds something else under {strangers or self._prefix}; give another prefix"
            )
        if raw is None and readonly:
            raise StateError(f"no store at {self.place}; make one with `playbill ingest`")
        written = FORMAT if raw is None else int.from_bytes(raw, "big")
        if written > FORMAT:
            raise StateError(
                f"the store at {self.place} has format {written}, this Playbill reads up to {FORMAT}; upgrade"
            )
        if written < FORMAT and not readonly or raw is None:
            self.write(lambda txn: txn.put("meta", b"format", FORMAT.to_bytes(8, "big")), {})

    def close(self) -> None:
        self._server.close()

    @contextmanager
    def read(self, wanted: Wanted, *, quick: bool = False) -> Iterator[Txn]:
        txn = RedisTxn(self._prefix, self._server.ask)
        commands, filed = txn.reads(wanted)
        if len(commands) < 2:
            txn.learn(filed, self._server.ask(commands, quick=quick) if commands else [])
            yield txn
            return
        # not MULTI, in which a server that is full refuses to read as well
        version: Command = ("HGET", self._meta, VERSION)
        for _ in range(_GLANCES):
            before, *found, after = self._server.ask([version, *commands, version], quick=quick)
            if before == after:
                break
        else:
            raise StateError(f"{self.place} is written too fast to be read at one moment")
        txn.learn(filed, found)
        yield txn

    def write(self, work: Callable[[Txn], None], wanted: Wanted) -> None:
        token, losses, until = secrets.token_hex(8).encode(), 0, time.monotonic() + _PATIENCE_S
        while True:
            free = self._commit(work, wanted, token if losses >= _LOSSES else None)
            if free is None:
                return
            losses += free
            if time.monotonic() > until:
                raise StateError(f"others commit to {self.place} all the time; gave up, nothing of this was stored")
            time.sleep(random.uniform(0, 0.001 * 2 ** min(losses, 4)))

    def _commit(self, work: Callable[[Txn], None], wanted: Wanted, token: bytes | None) -> bool | None:
        """Do the work and commit it; return None, or whether somebody committed before us (else they have the turn).

        Args:
            token: take the turn with it; None: take none.
        """
        server = self._server
        txn = RedisTxn(self._prefix, lambda commands: server.more(line, commands))  # more, under the same WATCH
        reads, filed = txn.reads(wanted)
        take: list[Command] = [("SET", self._turn, token, "NX", "PX", self._lease_ms)] if token else []
        line, replies = server.begin([*take, ("UNWATCH",), ("WATCH", self._meta), ("GET", self._turn), *reads])
        try:
            server.check(replies)
            holder = replies[len(take) + 2]
            if holder not in (None, token):
                server.keep(line)
                return False
            txn.learn(filed, replies[len(take) + 3 :])
            work(txn)
        except BaseException:
            line.disconnect()  # the server forgets what it watched; a turn runs out by itself
            raise
        give: list[Command] = [("DEL", self._turn)] if token else []
        replies = server.commit(line, [("MULTI",), *txn.writes(), *give, ("EXEC",)])
        return True if replies[-1] is None else None
