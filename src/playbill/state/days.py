"""The log as parquet files by day, added to while writers go on: `<folder>/<table>/day=2024-05-01/<sequence>.parquet`.

A run writes what was stored since the last one, a stretch of the log at a time: one file for each day (UTC, of `at`)
that the stretch has rows of, called by the sequence behind which the stretch begins, and `_unloaded.json` last. Files
that go beyond what it says are of a run that was killed, and removed by the next; so each row comes to stand in one
file, once, whatever happens in between. Events that were forgotten since are taken out of the files that hold them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Generator
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from playbill.errors import RequestError, StateError
from playbill.state.events import Id
from playbill.state.rows import decision_row, event_row, schema_of, types_of
from playbill.state.store import Store
from playbill.tables.files import alone, atomic_folder, write_atomic

MARK = "_unloaded.json"
_TABLES = {"events": "event_id", "decisions": "decision_id"}

_Logged = tuple[int, int, Any]  # sequence, UTC microseconds, Event or Decision


class Mark(msgspec.Struct, kw_only=True):
    """How far a folder has come.

    Attributes:
        ids: types of the id columns, "int64" or "string", in all files.
        after: by table, sequence of the last row that is there; `last` is its id, which tells this store from others.
        forgotten: sequence up to which what was forgotten is taken out.
    """

    ids: dict[str, str]
    after: dict[str, int] = {}
    last: dict[str, Id] = {}
    forgotten: int = 0


def unload_days(store: Store, folder: Path, batch_rows: int, *, force: bool = False) -> dict[str, tuple[int, int]]:
    """Add what is new in a store's log to a folder; return by table how many rows and how many files.

    Args:
        batch_rows: of a stretch.
        force: write all of it again; the old folder stays until the new one is whole.
    Raises:
        StateError: nothing was declared in the store yet; the folder is of another store; an id of a
            creative does not fit those before it.
    """
    with alone(folder):
        if not force:
            return _add(store, folder, batch_rows)
        with atomic_folder(folder) as fresh:
            return _add(store, fresh, batch_rows)


def _add(store: Store, folder: Path, batch_rows: int) -> dict[str, tuple[int, int]]:
    declared, version = store.declared, store.version
    if declared is None:
        raise StateError(f"{store.place} knows no event names yet: run `playbill ingest`, or call Store.declare")
    mark = _read(folder)
    if mark is None:
        types = types_of(store, declared, version)
        mark = Mark(ids={name: "int64" if pa.types.is_integer(kind) else "string" for name, kind in types.items()})
    types = {name: pa.int64() if kind == "int64" else pa.string() for name, kind in mark.ids.items()}
    counts = {}
    for table, name in _TABLES.items():
        _check_store(store, folder, table, mark)
        _remove_unfinished(folder / table, mark.after.get(table, 0))
        row_of: Callable[[Any], dict[str, Any]] = decision_row
        if table == "events":
            row_of = lambda event: event_row(event, types)  # noqa: E731
        rows = files = 0
        while stretch := _stretch(store, table, mark.after.get(table, 0), version, batch_rows):
            try:
                days = _by_day(stretch, row_of)
            except RequestError as error:
                raise StateError(
                    f"{folder} has numbers as {error.field}, and now {error.reason}; write all of it again: force=true"
                ) from error
            for day, found in days.items():
                part = pa.Table.from_pylist(found, schema_of(table, types))
                _write(folder / table / f"day={day}" / f"{mark.after.get(table, 0):016}.parquet", part)
            mark.after[table], mark.last[table] = stretch[-1][0], getattr(stretch[-1][2], name)
            write_atomic(folder / MARK, msgspec.json.format(msgspec.json.encode(mark)))
            rows, files = rows + len(stretch), files + len(days)
        counts[table] = (rows, files)
    _take_out(store, folder, mark, version)
    return counts


def _take_out(store: Store, folder: Path, mark: Mark, version: int) -> None:
    """Write anew, without their rows, the files that hold events which were forgotten since the last run."""
    days: dict[str, set[str]] = {}
    for sequence, gone in takewhile(lambda row: row[0] <= version, store.forgotten(mark.forgotten)):
        if gone.sequence <= mark.after.get("events", 0):
            days.setdefault(_day(gone.day * 86_400_000_000), set()).add(str(gone.event_id))
        mark.forgotten = sequence
    for day, ids in days.items():
        for path in (folder / "events" / f"day={day}").glob("*.parquet"):
            rows = pq.read_table(path, partitioning=None)
            left = rows.filter(pc.invert(pc.is_in(rows["event_id"].cast(pa.string()), pa.array(sorted(ids)))))
            if not len(left):
                path.unlink()
            elif len(left) < len(rows):
                _write(path, left)
    if days:
        write_atomic(folder / MARK, msgspec.json.format(msgspec.json.encode(mark)))


def _logged(store: Store, table: str, after: int) -> Generator[_Logged, None, None]:
    if table == "events":
        for sequence, received_at, event in store.events(after):
            yield sequence, received_at if event.at is None else event.at, event
    else:
        for sequence, made in store.decisions(after):
            yield sequence, made.at, made


def _stretch(store: Store, table: str, after: int, version: int, most: int) -> list[_Logged]:
    """Return the next rows up to a version; the store is not held open meanwhile."""
    with closing(_logged(store, table, after)) as logged:
        return list(islice(takewhile(lambda row: row[0] <= version, logged), most))


def _by_day(stretch: list[_Logged], row_of: Callable[[Any], dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    days: dict[str, list[dict[str, Any]]] = {}
    for _, at, what in stretch:
        days.setdefault(_day(at), []).append(row_of(what))
    return days


def _day(at: int) -> str:
    """Return the day, UTC, of a moment in UTC microseconds."""
    return datetime.fromtimestamp(at // 1_000_000, UTC).date().isoformat()


def _check_store(store: Store, folder: Path, table: str, mark: Mark) -> None:
    after = mark.after.get(table, 0)
    if after:
        if store.sequence_of(table, mark.last[table]) != after:  # which an event that was forgotten has for good
            raise StateError(
                f"{folder} was written from another store than {store.place}: write all of it again, with force=true, "
                "or give another home"
            )


def _remove_unfinished(folder: Path, after: int) -> None:
    for path in folder.glob("day=*/*.parquet"):
        if int(path.stem) >= after:
            path.unlink()


def _write(path: Path, part: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(part, buffer, compression="zstd")
    write_atomic(path, buffer.getvalue())


def _read(folder: Path) -> Mark | None:
    try:
        return msgspec.json.decode((folder / MARK).read_bytes(), type=Mark)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise StateError(f"{folder / MARK} cannot be read ({error}); write all of it again: force=true") from error
