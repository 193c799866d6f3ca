"""The store: profiles, sessions, catalogue changes and the durable log of events, in one LMDB folder.

Readers never wait, and see the last committed state of whichever process wrote it. Writers take turns, over processes
too (LMDB's lock, which a killed process gives back). `append` returns after the commit has reached the disk; threads
that append at the same time share one commit. Open a Store once a process, after any fork.

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

Format 1 had no creatives; a store of it gets what is missing when it is next opened to be written.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import msgspec

from playbill.errors import StateError
from playbill.features.fold import Profile
from playbill.state.decisions import (
    LEARNED_VERSION,
    Decision,
    Learned,
    Shown,
    decode_decision,
    read_learned,
    read_shown,
)
from playbill.state.events import Declared, Event, Id, check_events
from playbill.state.keys import id_key, sequence_key
from playbill.state.settings import StoreSettings
from playbill.state.write import Change, write_change

FORMAT = 2
_NAMES = ("meta", "profiles", "sessions", "catalogue", "log", "event_ids")
_LATER = ("creatives", "decisions", "decision_ids", "shown", "learned")  # since format 2

_profile = msgspec.msgpack.Decoder(Profile)
_declared = msgspec.msgpack.Decoder(Declared)
_logged = msgspec.msgpack.Decoder(tuple[int, Event])
_encode = msgspec.msgpack.Encoder().encode


class View:
    """What one read transaction sees: a single moment of the store."""

    __slots__ = ("_dbs", "_txn")

    def __init__(self, txn: Any, dbs: dict[str, Any]) -> None:
        self._txn, self._dbs = txn, dbs

    @property
    def version(self) -> int:
        """Sequence of the last event or change."""
        return self.number(b"version")

    @property
    def catalogue_version(self) -> int:
        """`version` at the last change of the catalogue."""
        return self.number(b"catalogue_version")

    def number(self, name: bytes) -> int:
        raw = self._txn.get(name, db=self._dbs["meta"])
        return 0 if raw is None else int.from_bytes(raw, "big")

    def profile(self, user_id: int | str) -> Profile | None:
        raw = self._txn.get(id_key(user_id), db=self._dbs["profiles"])
        return None if raw is None else _profile.decode(raw)

    def session(self, session_id: int | str) -> Profile | None:
        raw = self._txn.get(id_key(session_id), db=self._dbs["sessions"])
        return None if raw is None else _profile.decode(raw)

    def catalogue(self) -> dict[int | str, dict[str, Any]]:
        """Return every item's changes by item id."""
        return self._changes("catalogue")

    @property
    def creatives_version(self) -> int:
        """`version` at the last change of the creatives."""
        return self.number(b"creatives_version")

    def creatives(self) -> dict[int | str, dict[str, Any]]:
        """Return every creative's changes by creative id."""
        return self._changes("creatives")

    @property
    def learned_version(self) -> int:
        """`version` when a creative head last learned something."""
        return self.number(LEARNED_VERSION)

    def learned(self, head: str) -> Learned | None:
        """Return what a creative head has learned since its bundle was made."""
        return read_learned(self._txn, self._dbs, head)

    def shown(self, user_id: Id | None, session_id: Id | None) -> dict[Id, Shown]:
        """Return by item id the creative that a person, or the visitor of a session, was shown last."""
        return read_shown(self._txn, self._dbs, user_id, session_id)

    def _changes(self, table: str) -> dict[int | str, dict[str, Any]]:
        if table not in self._dbs:
            return {}
        cursor = self._txn.cursor(self._dbs[table])
        return dict(msgspec.msgpack.decode(bytes(value)) for _, value in cursor)


class Store:
    """An open store. Use `Store.open`."""

    def __init__(self, path: Path, env: Any, dbs: dict[str, Any], settings: StoreSettings, readonly: bool) -> None:
        self.path, self.readonly, self.settings = path, readonly, settings
        self._env, self._dbs, self._pid = env, dbs, os.getpid()
        self._waiting: list[Change] = []
        self._waiting_lock, self._commit_lock = threading.Lock(), threading.Lock()

    @classmethod
    def open(cls, path: Path | str, *, readonly: bool = False, settings: StoreSettings | None = None) -> Store:
        """Return the store in a folder; made where there is none, unless `readonly`.

        Raises:
            StateError: the folder holds something else, a newer format, or is open in this process already.
        """
        path, settings = Path(path), settings or StoreSettings()
        _check_folder(path, readonly)
        try:
            env = lmdb.open(
                str(path),
                map_size=int(settings.map_size_gb * 1e9) // 4096 * 4096,
                max_dbs=len(_NAMES) + len(_LATER),
                max_readers=settings.max_readers,
                readonly=readonly,
                create=not readonly,
            )
        except lmdb.Error as error:
            raise _open_error(path, error) from error
        try:
            env.reader_check()  # frees the slots of readers that were killed
            dbs = _databases(path, env, readonly)
        except BaseException:
            env.close()
            raise
        return cls(path, env, dbs, settings, readonly)

    def close(self) -> None:
        self._env.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def view(self) -> Iterator[View]:
        """Give a view of one moment; keep it short, since an open view keeps old pages from being used again."""
        self._check_process()
        try:
            txn = self._env.begin(buffers=True)
        except lmdb.Error as error:
            raise _read_error(self.path, error) from error
        try:
            yield View(txn, self._dbs)
        finally:
            txn.abort()

    @property
    def version(self) -> int:
        """Sequence of the last event or change, 0 for an empty store."""
        with self.view() as view:
            return view.version

    @property
    def declared(self) -> Declared | None:
        """What was declared of events and ids; None in a new store."""
        raw = self.meta(b"declared")
        return None if raw is None else _declared.decode(raw)

    def profile(self, user_id: int | str) -> Profile | None:
        with self.view() as view:
            return view.profile(user_id)

    def session(self, session_id: int | str) -> Profile | None:
        with self.view() as view:
            return view.session(session_id)

    def profiles(self, user_ids: Sequence[int | str]) -> list[Profile | None]:
        """Return many profiles of one moment, None for whom the store does not know."""
        with self.view() as view:
            return [view.profile(u) for u in user_ids]

    def events(self, after: int = 0) -> Iterator[tuple[int, int, Event]]:
        """Yield (sequence, received_at UTC microseconds, event) of the log, in the order in which they were stored."""
        with self._reading() as txn:
            cursor = txn.cursor(self._dbs["log"])
            there = cursor.set_range(sequence_key(after + 1))
            while there:
                received_at, event = _logged.decode(bytes(cursor.value()))
                yield int.from_bytes(cursor.key(), "big"), received_at, event
                there = cursor.next()

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
                        f"{self.path} was declared with {kind} {getattr(before, kind)}, got "
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
        declared = self.declared
        if declared is None:
            raise StateError(f"{self.path} knows no event names yet: run `playbill ingest`, or call Store.declare")
        if not events:
            return []
        now = time.time_ns() // 1000
        latest = now + int(self.settings.max_skew_s * 1e6)
        checked = [
            msgspec.structs.replace(e, at=now if e.at is None else min(e.at, latest))
            for e in check_events(events, declared)
        ]
        return self._commit_with_others(Change(events=checked, received_at=now))

    def import_events(self, events: Sequence[Event], marks: dict[bytes, bytes]) -> list[bool]:
        """Store a batch of checked history as it is, times included, and notes about it (`meta` keys) with it."""
        return self._commit_with_others(Change(events=list(events), received_at=time.time_ns() // 1000, meta=marks))

    def set_features(self, features: dict[int | str, dict[str, Any]]) -> None:
        """Put users-table columns, consent flags included, into profiles; columns not named stay as they are."""
        self._commit_with_others(Change(features=features))

    def set_items(self, changes: dict[int | str, dict[str, Any]]) -> None:
        """Note what changed about items since the bundle, such as `{12: {"available": False}}`."""
        self._commit_with_others(Change(items=changes))

    def set_creatives(self, changes: dict[int | str, dict[str, Any]]) -> None:
        """Note what changed about creatives since the bundle, such as `{7: {"status": "withdrawn"}}`.

        Names are those of the creatives table; times are UTC microseconds. A creative that the bundle does not know is
        a new one, and names its `item_id`.
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
        with self._reading() as txn:
            if "decisions" not in self._dbs:
                return
            cursor = txn.cursor(self._dbs["decisions"])
            there = cursor.set_range(sequence_key(after + 1))
            while there:
                yield int.from_bytes(cursor.key(), "big"), decode_decision(bytes(cursor.value()))
                there = cursor.next()

    def meta(self, name: bytes) -> bytes | None:
        """Return a note of the store, as it was given to `import_events`."""
        with self._reading() as txn:
            raw = txn.get(name, db=self._dbs["meta"])
            return None if raw is None else bytes(raw)

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        with self.view() as view:
            yield view._txn

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
            raise StateError(f"{self.path} was opened read-only; open it with readonly=False to write")
        try:
            with self._env.begin(write=True) as txn:
                for change in changes:
                    write_change(txn, self._dbs, change, self.settings)
        except lmdb.Error as error:
            raise _write_error(self.path, error, self._env) from error
        for change in changes:
            change.done = True

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise StateError(f"{self.path} was opened in process {self._pid}; open it anew in each process, after fork")


def _check_folder(path: Path, readonly: bool) -> None:
    if path.exists() and not path.is_dir():
        raise StateError(f"{path} is a file, expected the folder of a store")
    there = path.is_dir() and (path / "data.mdb").is_file()
    if there:
        return
    if readonly:
        raise StateError(f"no store in {path}; make one with `playbill ingest`")
    if path.is_dir() and any(path.iterdir()):
        raise StateError(f"{path} holds other files and no store; give an empty or new folder")
    path.mkdir(parents=True, exist_ok=True)


def _databases(path: Path, env: Any, readonly: bool) -> dict[str, Any]:
    """Open the named databases and check the format, before anything is written into a folder that is not ours."""
    with env.begin() as txn:
        names = [bytes(key) for key, _ in txn.cursor()]
    if names and b"meta" not in names:
        raise StateError(f"{path} is an LMDB folder of something else: it holds {names[:5]}")
    if readonly and not names:
        raise StateError(f"the store in {path} is empty; fill it with `playbill ingest`")
    meta = env.open_db(b"meta", create=not readonly)
    with env.begin(db=meta) as txn:
        raw = txn.get(b"format")
    written = FORMAT if raw is None else int.from_bytes(raw, "big")
    if written > FORMAT:
        raise StateError(f"the store in {path} has format {written}, this Playbill reads up to {FORMAT}; upgrade")
    there = (*_NAMES, *_LATER) if not readonly else (*_NAMES, *(n for n in _LATER if n.encode() in names))
    dbs = {name: env.open_db(name.encode(), create=not readonly) for name in there}
    if (raw is None or written < FORMAT) and not readonly:
        with env.begin(db=meta, write=True) as txn:
            txn.put(b"format", FORMAT.to_bytes(8, "big"))
    return dbs


def _open_error(path: Path, error: Exception) -> StateError:
    if "already open" in str(error):
        return StateError(f"{path} is open in this process already: pass that Store on, or close it first")
    if isinstance(error, lmdb.InvalidError | lmdb.VersionMismatchError | lmdb.CorruptedError):
        return StateError(f"{path} is not a store, or was damaged ({error}); restore it or give another folder")
    return StateError(f"cannot open the store in {path}: {error}")


def _read_error(path: Path, error: Exception) -> StateError:
    if isinstance(error, lmdb.ReadersFullError):
        return StateError(f"too many readers of {path} at once; raise store.max_readers, in all processes")
    if isinstance(error, lmdb.MapResizedError):
        return StateError(f"another process let {path} grow beyond our map_size_gb; give all processes the larger one")
    return StateError(f"cannot read {path}: {error}")


def _write_error(path: Path, error: Exception, env: Any) -> StateError:
    if isinstance(error, lmdb.MapFullError):
        size = env.info()["map_size"] / 1e9
        return StateError(f"{path} is full at {size:g} GB; raise store.map_size_gb and start again: nothing was lost")
    if isinstance(error, lmdb.MapResizedError):
        return _read_error(path, error)
    return StateError(f"cannot write {path}: {error}; nothing of this delivery was stored (is the disk full?)")
