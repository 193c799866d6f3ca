"""The store: profiles, sessions, catalogue changes and the durable log of events, in an LMDB folder or on Redis.

Processes of one machine share a folder; processes on several machines share a Redis server (`redis://...`). Both keep
the same bytes in the same tables. `append` returns after the commit has reached the disk; threads that append at the
same time share one commit. Open a Store once a process, after any fork.

    meta       format, version, declared, catalogue_version, creatives_version, learned_version, load:<source>
    profiles   user id    -> Profile
    sessions   session id -> Profile of somebody anonymous
    catalogue  item id    -> what changed since the bundle, such as {"available": false}
    creatives  creative id -> likewise, such as {"status": "withdrawn"}
    log        sequence   -> [received_at, Event]
    event_ids  event id   -> sequence, for good: a second delivery is known however late it comes
    decisions  sequence   -> Decision, the creatives that were chosen; decision_ids is to it what event_ids is to log
    shown      person     -> the creative that each item was last shown with
    learned    head id    -> Learned, what a creative head has learned since its bundle was made
    wishes     person     -> Wishes, what somebody asks for: see `wishes`
    forgotten  sequence   -> Forgotten, an event that was taken from the log: see `forget`

Format 1 had no creatives, format 2 no wishes; a store of either gets what is missing when it is next opened to be
written, and is refused from then on by what does not know of it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from playbill.errors import RequestError, StateError
from playbill.features.fold import Profile
from playbill.state.decisions import (
    LEARNED_VERSION,
    Decision,
    Learned,
    Shown,
    decode_decision,
    people_keys,
    read_learned,
    read_shown,
)
from playbill.state.events import Declared, Event, Id, check_events
from playbill.state.forget import Forget, Forgotten, decode_forgotten, left_history
from playbill.state.keys import id_key
from playbill.state.lmdb_tables import LmdbTables
from playbill.state.reads import NotingTxn, Reads
from playbill.state.redis_tables import RedisTables
from playbill.state.settings import SCHEMES, StoreSettings
from playbill.state.txn import VERSION, Tables, Txn
from playbill.state.wishes import Mark, Wish, Wishes, check_room, check_wish, decode_wishes, read_wishes
from playbill.state.write import Change, wanted, write_change

_DECLARED = b"declared"
_VERSIONS = (VERSION, b"catalogue_version", b"creatives_version", LEARNED_VERSION, _DECLARED)


class _Columns(msgspec.Struct):
    """A profile without what the person did: that is skipped, not read."""

    features: dict[str, Any] = {}


_profile = msgspec.msgpack.Decoder(Profile)
_features = msgspec.msgpack.Decoder(_Columns)
_declared = msgspec.msgpack.Decoder(Declared)

_logged = msgspec.msgpack.Decoder(tuple[int, Event])
_encode = msgspec.msgpack.Encoder().encode


@lru_cache(maxsize=8)
def _read_declared(raw: bytes) -> Declared:
    return _declared.decode(raw)


class View:
    """What is known at a moment.

    In a folder all of it is of one moment. On Redis the versions and what is known of the people that were named to
    `Store.view` are; whatever else is asked for is read when it is, and may be newer than those, never older.
    """

    __slots__ = ("_txn",)

    def __init__(self, txn: Txn) -> None:
        self._txn = txn

    @property
    def reads(self) -> Reads | None:
        """What was read so far, where the store notes that."""
        return self._txn.reads if isinstance(self._txn, NotingTxn) else None

    @property
    def version(self) -> int:
        """Sequence of the last event or change."""
        return self.number(VERSION)

    @property
    def catalogue_version(self) -> int:
        """`version` at the last change of the catalogue."""
        return self.number(b"catalogue_version")

    def number(self, name: bytes) -> int:
        raw = self._txn.get("meta", name)
        return 0 if raw is None else int.from_bytes(raw, "big")

    def profile(self, user_id: int | str) -> Profile | None:
        raw = self._txn.get("profiles", id_key(user_id))
        return None if raw is None else _profile.decode(raw)

    def features(self, user_id: int | str) -> dict[str, Any]:
        raw = self._txn.get("profiles", id_key(user_id))
        return {} if raw is None else _features.decode(raw).features

    def session(self, session_id: int | str) -> Profile | None:
        raw = self._txn.get("sessions", id_key(session_id))
        return None if raw is None else _profile.decode(raw)

    def catalogue(self) -> dict[int | str, dict[str, Any]]:
        """Return every item's changes by item id."""
        return self._changes("catalogue")

    def items(self, item_ids: Sequence[Id]) -> dict[Id, dict[str, Any] | None]:
        """Return what is noted of some items; None where nothing ever was."""
        return self._some("catalogue", item_ids)

    @property
    def creatives_version(self) -> int:
        """`version` at the last change of the creatives."""
        return self.number(b"creatives_version")

    def creatives(self) -> dict[int | str, dict[str, Any]]:
        """Return every creative's changes by creative id."""
        return self._changes("creatives")

    def creatives_of(self, creative_ids: Sequence[Id]) -> dict[Id, dict[str, Any] | None]:
        """Return what is noted of some creatives; None where nothing ever was."""
        return self._some("creatives", creative_ids)

    @property
    def learned_version(self) -> int:
        """`version` when a creative head last learned something."""
        return self.number(LEARNED_VERSION)

    @property
    def declared(self) -> Declared | None:
        """What was declared of events and ids; None in a new store."""
        raw = self._txn.get("meta", _DECLARED)
        return None if raw is None else _read_declared(bytes(raw))

    def learned(self, head: str) -> Learned | None:
        """Return what a creative head has learned since its bundle was made."""
        return read_learned(self._txn, head)

    def shown(self, user_id: Id | None, session_id: Id | None) -> dict[Id, Shown]:
        """Return by item id the creative that a person, or the visitor of a session, was shown last."""
        return read_shown(self._txn, user_id, session_id)

    def wishes(self, user_id: Id | None, session_id: Id | None) -> Wishes | None:
        """Return what a person, or the visitor of a session, asks for; None for nothing."""
        return read_wishes(self._txn, user_id, session_id)

    def _changes(self, table: str) -> dict[int | str, dict[str, Any]]:
        return dict(msgspec.msgpack.decode(bytes(value)) for value in self._txn.values(table))

    def _some(self, table: str, row_ids: Sequence[Id]) -> dict[Id, dict[str, Any] | None]:
        keys = [id_key(row_id) for row_id in row_ids]
        self._txn.ahead({table: keys})
        found = [self._txn.get(table, key) for key in keys]
        return {
            i: None if raw is None else msgspec.msgpack.decode(raw)[1] for i, raw in zip(row_ids, found, strict=True)
        }


class Store:
    """An open store. Use `Store.open`.

    Attributes:
        path: what it was opened with; `place` is that for messages, without a password.
        commits: transactions that this Store has committed; threads that write together share them.
        noting: whether views note what is read in them, see `noted`.
    """

    def __init__(self, path: Path | str, tables: Tables, settings: StoreSettings, readonly: bool) -> None:
        self.path, self.place, self.readonly, self.settings = path, tables.place, readonly, settings
        self.commits, self.noting = 0, False
        self._noted = threading.local()
        self._tables, self._pid = tables, os.getpid()
        self._waiting: list[Change] = []
        self._waiting_lock, self._commit_lock = threading.Lock(), threading.Lock()

    @classmethod
    def open(cls, path: Path | str, *, readonly: bool = False, settings: StoreSettings | None = None) -> Store:
        """Return a store; made where there is none, unless `readonly`.

        Args:
            path: a folder, or a Redis server: `redis://host:6379/0?prefix=shop`, `rediss://`, `unix:///socket?db=0`.
        Raises:
            StateError: there is something else, or a newer format; the folder is open in this process already; the
                server is away, or would lose what it acknowledges.
        """
        settings = settings or StoreSettings()
        if isinstance(path, str) and path.startswith(SCHEMES):
            return cls(path, RedisTables(path, readonly, settings), settings, readonly)
        return cls(Path(path), LmdbTables(Path(path), readonly, settings), settings, readonly)

    def close(self) -> None:
        self._tables.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def view(self, people: Sequence[tuple[Id | None, Id | None]] = ()) -> Iterator[View]:
        """Give a view of one moment; keep it short, since an open view keeps old pages from being used again.

        Args:
            people: (user_id, session_id) of those who will be asked about: one round trip brings all of them.
        """
        self._check_process()
        ahead: dict[str, list[bytes]] = {}
        if self._tables.far:
            ahead["meta"] = list(_VERSIONS)
        if self._tables.far and people:
            ahead["profiles"] = [id_key(user) for user, _ in people if user is not None]
            ahead["sessions"] = [id_key(session) for _, session in people if session is not None]
            ahead["shown"] = [key for who in people for key in people_keys(*who)]
            ahead["wishes"] = ahead["shown"]
        with self._tables.read(ahead, quick=True) as txn:
            if self.noting:
                self._noted.reads = reads = Reads()
                txn = NotingTxn(txn, reads)
            yield View(txn)

    def noted(self) -> Reads | None:
        """Return what was read in this thread's last view, once; None where nothing is noted, or none was opened."""
        reads: Reads | None = getattr(self._noted, "reads", None)
        self._noted.reads = None
        return reads

    @property
    def version(self) -> int:
        """Sequence of the last event or change, 0 for an empty store."""
        with self.view() as view:
            return view.version

    @property
    def declared(self) -> Declared | None:
        """What was declared of events and ids; None in a new store."""
        raw = self.meta(_DECLARED)
        return None if raw is None else _read_declared(raw)

    def profile(self, user_id: int | str) -> Profile | None:
        with self.view([(user_id, None)]) as view:
            return view.profile(user_id)

    def session(self, session_id: int | str) -> Profile | None:
        with self.view([(None, session_id)]) as view:
            return view.session(session_id)

    def profiles(self, user_ids: Sequence[int | str]) -> list[Profile | None]:
        """Return many profiles of one moment, None for whom the store does not know."""
        with self.view([(u, None) for u in user_ids]) as view:
            return [view.profile(u) for u in user_ids]

    def features(self, user_ids: Sequence[int | str]) -> list[dict[str, Any]]:
        """Return many people's users-table columns, consent flags included; none of whom the store does not know. What
        they did is not read, which is most of a profile."""
        with self.view([(u, None) for u in user_ids]) as view:
            return [view.features(u) for u in user_ids]

    def events(self, after: int = 0) -> Iterator[tuple[int, int, Event]]:
        """Yield (sequence, received_at UTC microseconds, event) of the log, in the order in which they were stored."""
        with self._reading([VERSION]) as txn:
            for sequence, raw in txn.since("log", after):
                received_at, event = _logged.decode(raw)
                yield sequence, received_at, event

    def declare(self, declared: Declared) -> None:
        """Say which events and types of id the store takes; names declared earlier stay.

        Raises:
            StateError: the store holds ids of another type.
        """
        before = self.declared
        if before is not None:
            for kind in ("user_id_type", "item_id_type"):
                if getattr(before, kind) != getattr(declared, kind):
                    raise StateError(
                        f"{self.place} was declared with {kind} {getattr(before, kind)}, got "
                        f"{getattr(declared, kind)}: other data, give it a folder of its own"
                    )
            names = {k.name for k in declared.events}
            kept = [k for k in before.events if k.name not in names]
            declared = msgspec.structs.replace(declared, events=[*kept, *declared.events])
        if declared != before:
            self._commit_with_others(Change(meta={b"declared": _encode(declared)}))

    def append(self, events: Sequence[Event]) -> list[bool]:
        """Store events and fold them into their people's profiles; durable when this returns.

        Args:
            events: see `Event`. One that lies more than `max_skew_s` in the future is stored as of then.
        Returns:
            for each event, True when it is new and False when its event_id was stored before, here or elsewhere.
        Raises:
            RequestError: an event is invalid; none of them is written.
            StateError: nothing was declared yet, the store is read-only or full, or the disk is; none is written.
        """
        declared = self._told()
        if not events:
            return []
        now = time.time_ns() // 1000
        latest = now + int(self.settings.max_skew_s * 1e6)
        checked = [
            msgspec.structs.replace(e, at=now if e.at is None else min(e.at, latest))
            for e in check_events(events, declared)
        ]
        return self._commit_with_others(Change(events=checked, received_at=now))

    def tell(self, wish: Wish) -> bool:
        """Note what somebody asks for; durable when this returns. Return whether anything is other than before.

        Raises:
            RequestError: nobody is named, an id is of another type, or somebody hides more items than can be noted.
            StateError: as `append`.
        """
        wish = check_wish(wish, self._told())
        if wish.mark is Mark.HIDDEN and wish.item_id is not None and not wish.taken_back:
            with self.view([(wish.user_id, wish.session_id)]) as view:
                check_room(view.wishes(wish.user_id, wish.session_id), wish.item_id)
        return self._commit_with_others(Change(wishes=[wish]))[0]

    def forget(self, user_id: Id | None, session_id: Id | None, event_id: Id) -> bool:
        """Take an event out of the log and out of the profile of its person; durable when this returns.

        Its id stays known: a second delivery brings nothing back.

        Returns:
            True; False where it was forgotten before.
        Raises:
            RequestError: nobody is named, or this person has no such event.
            StateError: as `append`.
        """
        who = check_wish(Wish(user_id=user_id, session_id=session_id), self._told())
        forget = Forget(user_id=who.user_id, session_id=who.session_id, event_id=event_id)
        forget.older = left_history(self.events(), forget, self._profile_of(who))
        changed = self._commit_with_others(Change(forgets=[forget]))[0]
        if forget.unknown:  # the same words for an event of somebody else: who asks learns nothing of others
            raise RequestError("event_id", f"this person has no event {event_id!r}")
        return changed

    def forgotten(self, after: int = 0) -> Iterator[tuple[int, Forgotten]]:
        """Yield (sequence, what was forgotten), in the order in which it was."""
        with self._reading([VERSION]) as txn:
            for sequence, raw in txn.since("forgotten", after):
                yield sequence, decode_forgotten(raw)

    def every_wish(self) -> Iterator[Wishes]:
        """Yield what everybody asks for who asks for anything, in no order."""
        with self._reading([VERSION]) as txn:
            for raw in txn.values("wishes"):
                yield decode_wishes(raw)

    def sequence_of(self, table: str, row_id: Id) -> int | None:
        """Return where in a log, `events` or `decisions`, an id stands or stood; None for one that never did."""
        table = {"events": "event_ids", "decisions": "decision_ids"}[table]
        with self._tables.read({table: [id_key(row_id)]}) as txn:
            raw = txn.get(table, id_key(row_id))
            return None if raw is None else int.from_bytes(raw, "big")

    def import_events(self, events: Sequence[Event], marks: dict[bytes, bytes]) -> list[bool]:
        """Store a batch of checked history as it is, times included, and notes about it (`meta` keys) with it."""
        return self._commit_with_others(Change(events=list(events), received_at=time.time_ns() // 1000, meta=marks))

    def set_features(self, features: dict[int | str, dict[str, Any]]) -> None:
        """Put users-table columns, consent flags included, into profiles; columns not named stay as they are."""
        self._commit_with_others(Change(features=features))

    def set_items(
        self, changes: dict[int | str, dict[str, Any]], creatives: dict[int | str, dict[str, Any]] | None = None
    ) -> None:
        """Note what changed about items since the bundle, such as `{12: {"available": False}}`.

        Durable when this returns. Columns that are not named stay as they are noted; None takes back what was noted.

        Args:
            creatives: what changed with them, see `set_creatives`: all of it is noted, or nothing.
        """
        self._commit_with_others(Change(items=changes, creatives=creatives or {}))

    def set_creatives(self, changes: dict[int | str, dict[str, Any]]) -> None:
        """Note what changed about creatives since the bundle, such as `{7: {"status": "withdrawn"}}`.

        Names are those of the creatives table; times are UTC microseconds; None takes back what was noted of a column.
        A creative that the bundle does not know is a new one, and names its `item_id`.
        """
        self._commit_with_others(Change(creatives=changes))

    def record(self, decisions: Sequence[Decision]) -> None:
        """Store the choices behind a slate, remember and learn from them; durable when this returns.

        One whose decision_id was stored before changes nothing.
        """
        if decisions:
            self._commit_with_others(Change(decisions=list(decisions)))

    def decisions(self, after: int = 0) -> Iterator[tuple[int, Decision]]:
        """Yield (sequence, decision), in the order in which they were stored."""
        with self._reading([VERSION]) as txn:
            for sequence, raw in txn.since("decisions", after):
                yield sequence, decode_decision(raw)

    def meta(self, name: bytes) -> bytes | None:
        """Return a note of the store, as it was given to `import_events`."""
        with self._reading([name]) as txn:
            raw = txn.get("meta", name)
            return None if raw is None else bytes(raw)

    def _told(self) -> Declared:
        declared = self.declared
        if declared is None:
            raise StateError(f"{self.place} knows no event names yet: run `playbill ingest`, or call Store.declare")
        return declared

    def _profile_of(self, who: Wish) -> Profile | None:
        if who.user_id is not None:
            return self.profile(who.user_id)
        return None if who.session_id is None else self.session(who.session_id)

    @contextmanager
    def _reading(self, names: list[bytes]) -> Iterator[Txn]:
        self._check_process()
        with self._tables.read({"meta": names}) as txn:
            yield txn

    def _commit_with_others(self, change: Change) -> list[bool]:
        """Group commit: whoever holds the lock writes for all that wait, so N threads cost one sync, not N."""
        with self._waiting_lock:
            self._waiting.append(change)
        with self._commit_lock:
            if not change.done:
                with self._waiting_lock:
                    changes, self._waiting = self._waiting, []
                try:
                    self._commit(changes)
                except BaseException as error:
                    reason = error if isinstance(error, StateError) else StateError(f"the commit broke off: {error!r}")
                    for waiting in changes:
                        waiting.done, waiting.error = True, reason
                    if reason is not error:
                        raise
        if change.error is not None:
            raise change.error
        return change.new

    def _commit(self, changes: list[Change]) -> None:
        self._check_process()
        if self.readonly:
            raise StateError(f"{self.place} was opened read-only; open it with readonly=False to write")

        def write(txn: Txn) -> None:
            for change in changes:
                write_change(txn, change, self.settings)

        self._tables.write(write, wanted(changes) if self._tables.far else {})
        self.commits += 1
        for change in changes:
            change.done = True

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise StateError(
                f"{self.place} was opened in process {self._pid}; open it anew in each process, after fork"
            )
