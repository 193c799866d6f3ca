"""The store's tables in one LMDB folder, for the processes of one machine.

Readers never wait, and see the last committed state of whichever process wrote it. Writers take turns, over processes
too (LMDB's lock, which a killed process gives back). A commit returns when it has reached the disk. Open a folder once
a process, after any fork.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

from playbill.errors import StateError
from playbill.state.keys import sequence_key
from playbill.state.settings import StoreSettings
from playbill.state.txn import FORMAT, LATER, NAMES, Bytes, Txn, Wanted


class LmdbTxn:
    """A transaction of LMDB, see `Txn`."""

    __slots__ = ("_dbs", "_txn")

    def __init__(self, txn: Any, dbs: dict[str, Any]) -> None:
        self._txn, self._dbs = txn, dbs

    def get(self, table: str, key: bytes) -> Bytes | None:
        db = self._dbs.get(table)
        found: Bytes | None = None if db is None else self._txn.get(key, db=db)
        return found

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._txn.put(key, value, db=self._dbs[table])

    def add(self, table: str, key: bytes, value: bytes) -> bool:
        return bool(self._txn.put(key, value, db=self._dbs[table], overwrite=False))

    def delete(self, table: str, key: bytes) -> None:
        self._txn.delete(key, db=self._dbs[table])

    def append(self, table: str, sequence: int, value: bytes) -> None:
        self._txn.put(sequence_key(sequence), value, db=self._dbs[table], append=True)

    def values(self, table: str) -> Iterator[Bytes]:
        if table in self._dbs:
            yield from self._txn.cursor(self._dbs[table]).iternext(keys=False)

    def since(self, table: str, after: int) -> Iterator[tuple[int, bytes]]:
        if table not in self._dbs:
            return
        cursor = self._txn.cursor(self._dbs[table])
        there = cursor.set_range(sequence_key(after + 1))
        while there:
            yield int.from_bytes(cursor.key(), "big"), bytes(cursor.value())
            there = cursor.next()

    def ahead(self, wanted: Wanted) -> None:
        """It is all at hand."""


class LmdbTables:
    """An open folder, see `Tables`."""

    far = False

    def __init__(self, path: Path, readonly: bool, settings: StoreSettings) -> None:
        """Open a folder; made where there is none, unless `readonly`.

        Raises:
            StateError: the folder holds something else, a newer format, or is open in this process already.
        """
        self.path, self.place = path, str(path)
        _check_folder(path, readonly)
        try:
            self._env = lmdb.open(
                str(path),
                map_size=int(settings.map_size_gb * 1e9) // 4096 * 4096,
                max_dbs=len(NAMES) + len(LATER),
                max_readers=settings.max_readers,
                readonly=readonly,
                create=not readonly,
            )
        except lmdb.Error as error:
            raise _open_error(path, error) from error
        try:
            self._env.reader_check()  # frees the slots of readers that were killed
            self._dbs = _databases(path, self._env, readonly)
        except BaseException:
            self._env.close()
            raise

    def close(self) -> None:
        self._env.close()

    @contextmanager
    def read(self, wanted: Wanted, *, quick: bool = False) -> Iterator[Txn]:
        try:
            txn = self._env.begin(buffers=True)
        except lmdb.Error as error:
            raise _read_error(self.path, error) from error
        try:
            yield LmdbTxn(txn, self._dbs)
        finally:
            txn.abort()

    def write(self, work: Callable[[Txn], None], wanted: Wanted) -> None:
        try:
            with self._env.begin(write=True) as txn:
                work(LmdbTxn(txn, self._dbs))
        except lmdb.Error as error:
            raise _write_error(self.path, error, self._env) from error


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
    there = (*NAMES, *LATER) if not readonly else (*NAMES, *(n for n in LATER if n.encode() in names))
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
