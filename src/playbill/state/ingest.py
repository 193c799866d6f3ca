"""The job `playbill ingest`: folds the users and events of a folder of tables into the store, in table order.

One transaction a batch of rows, and how far it has come is written in the same transaction: a killed run goes on
where it was, and a row is never folded twice (its event id is known).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from playbill.errors import StateError
from playbill.state.events import Declared, Event
from playbill.state.settings import IngestSettings, parse_moment, state_place
from playbill.state.store import Store
from playbill.tables.folder import read_folder
from playbill.tables.schema import CONSENT_PREFIX, TableFolder

_EVENT_COLUMNS = ("event_id", "user_id", "session_id", "event", "at", "item_id", "creative_id", "decision_id", "value")


class Mark(msgspec.Struct, kw_only=True):
    """How far the ingestion of one source has come.

    Attributes:
        fingerprint: of the tables.
        until: the setting, UTC microseconds.
        rows: events-table rows that were walked over.
        complete: all of them.
    """

    fingerprint: str
    until: int | None
    rows: int = 0
    complete: bool = False


def run(settings: IngestSettings) -> None:
    """Ingest a source's users and events; see `IngestSettings`."""
    console = Console(stderr=True)
    started = time.monotonic()
    with Store.open(state_place(settings.home, settings.state), settings=settings.store) as store:
        added = ingest(Path(settings.home) / "tables" / settings.tables, store, settings, console)
        console.print(
            f"ingest {settings.tables}: {added} new events, state version {store.version} in {store.place} "
            f"({time.monotonic() - started:.1f} s)"
            if added is not None
            else f"ingest {settings.tables}: nothing changed, {store.place} is at version {store.version}"
        )


def ingest(tables: Path, store: Store, settings: IngestSettings, console: Console) -> int | None:
    """Fold one folder of tables into an open store.

    Returns:
        number of events that were new; None where the same was ingested before and nothing had to be read.
    Raises:
        StateError: the store already holds later events of this source than `until` allows, or ids of another type.
    """
    folder = read_folder(tables)
    until = parse_moment(settings.until)
    name = f"load:{folder.source}".encode()  # as stores on disk have it
    raw = store.meta(name)
    mark = None if raw is None else msgspec.msgpack.decode(raw, type=Mark)
    if mark is not None:
        _check_later(mark, until, store)
        same = mark.fingerprint == folder.fingerprint and mark.until == until
        if same and mark.complete and not settings.force:
            return None
        if not same or settings.force:
            mark = None
    mark = mark or Mark(fingerprint=folder.fingerprint, until=until)
    store.declare(_declared(folder, tables))
    added = 0
    with _progress(console) as progress:
        bar = progress.add_task("users", total=folder.rows.get("users", 0))
        for users in _users(tables, settings.batch_rows):
            store.set_features(users)
            progress.advance(bar, len(users))
        bar = progress.add_task("events", total=folder.rows["events"], completed=mark.rows)
        for rows, events in _events(tables, settings.batch_rows, mark.rows, until):
            mark.rows += rows
            added += sum(store.import_events(events, {name: msgspec.msgpack.encode(mark)}))
            progress.advance(bar, rows)
    mark.complete = True
    store.import_events([], {name: msgspec.msgpack.encode(mark)})
    return added


def _check_later(mark: Mark, until: int | None, store: Store) -> None:
    """A fold cannot be undone: a store that knows later events would tell an evaluation its own future."""
    later = until is not None and (mark.until is None or mark.until > until)
    if later and (mark.rows or mark.complete):
        held = "all events" if mark.until is None else f"events up to {mark.until}"
        raise StateError(f"{store.place} was filled with {held}, until={until} is earlier; give state= another folder")


def _declared(folder: TableFolder, tables: Path) -> Declared:
    types = {"user_id": "string", "item_id": "string"}
    schema = pq.read_schema(tables / "events.parquet")
    for column in types:
        if column in schema.names and pa.types.is_integer(schema.field(column).type):
            types[column] = "int64"
    purposes = [
        c.name.removeprefix(CONSENT_PREFIX)
        for c in folder.columns.get("users", [])
        if c.name.startswith(CONSENT_PREFIX)
    ]
    return Declared(
        events=folder.events, user_id_type=types["user_id"], item_id_type=types["item_id"], purposes=purposes
    )


def _users(tables: Path, batch_rows: int) -> Iterator[dict[int | str, dict[str, Any]]]:
    if not (tables / "users.parquet").is_file():
        return
    for batch in pq.ParquetFile(tables / "users.parquet").iter_batches(batch_rows):
        rows = _plain(pa.table(batch)).to_pylist()
        yield {row.pop("user_id"): row for row in rows}


def _events(tables: Path, batch_rows: int, skip: int, until: int | None) -> Iterator[tuple[int, list[Event]]]:
    """Yield (rows walked over, events among them that are before `until`), leaving out the first `skip` rows."""
    file = pq.ParquetFile(tables / "events.parquet")
    there = [c for c in _EVENT_COLUMNS if c in file.schema_arrow.names]
    for batch in file.iter_batches(batch_rows, columns=there):
        if skip >= len(batch):
            skip -= len(batch)
            continue
        table = _plain(pa.table(batch.slice(skip)))
        walked, skip = len(table), 0
        if until is not None:
            table = table.filter(pc.less(table["at"], until))
        columns = [table[c].to_pylist() for c in table.column_names]
        names = table.column_names
        yield walked, [Event(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def _plain(table: pa.Table) -> pa.Table:
    """Return the table with times as UTC microseconds, as the store keeps them."""
    for i, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            micros = table[i].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
            table = table.set_column(i, field.name, micros)
    return table


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty())
