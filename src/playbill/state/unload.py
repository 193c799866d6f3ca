"""The job `playbill unload`: writes the store's log, events and decisions, as parquet files in the tables' form.

What people did and what they were shown come back into the tables this way, for the next training and for `measure`.
One row a decision and one an event, in the order in which they were stored; a log that has not grown is left as it is.
Beside them stands what people ask for at that moment (`wishes.parquet`), which no training reads.
`by_day` goes another way, see `days`. Writers go on meanwhile: what is written is the log up to a version.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from playbill.errors import StateError
from playbill.state.days import unload_days
from playbill.state.rows import decision_row, event_row, schema_of, types_of, wish_rows
from playbill.state.settings import UnloadSettings, state_place
from playbill.state.store import Store
from playbill.tables.files import atomic_folder

_MARK = b"playbill.state_version"


def run(settings: UnloadSettings) -> None:
    """Write the log of a store; see `UnloadSettings`."""
    console, started = Console(stderr=True, soft_wrap=True), time.monotonic()
    folder, days = Path(settings.home) / "log", Path(settings.home) / "days"
    with Store.open(state_place(settings.home, settings.state), readonly=True, settings=settings.store) as store:
        version = store.version
        if settings.by_day:
            counts = unload_days(store, days, settings.batch_rows, force=settings.force)
            took_s = time.monotonic() - started
            told = ", ".join(f"{rows:,} new {table} in {files} files" for table, (rows, files) in counts.items())
            console.print(f"unload: {told}, up to state version {version}, in {days} ({took_s:.1f} s)")
            return
        if not settings.force and _written(folder) == version:
            console.print(f"unload: {folder} is up to date with state version {version}")
            return
        events, decisions = unload(store, folder, settings.batch_rows)
    console.print(
        f"unload: {events:,} events and {decisions:,} decisions of state version {version} in {folder} "
        f"({time.monotonic() - started:.1f} s)"
    )


def unload(store: Store, folder: Path, batch_rows: int) -> tuple[int, int]:
    """Write events.parquet, decisions.parquet and wishes.parquet into a folder, whole or not at all.

    Returns:
        rows of the first and of the second.

    Raises:
        StateError: nothing was declared in the store yet.
    """
    declared = store.declared
    if declared is None:
        raise StateError(f"{store.place} knows no event names yet: run `playbill ingest`, or call Store.declare")
    version = store.version
    types = types_of(store, declared, version)
    with atomic_folder(folder) as out:
        events = (event_row(event, types) for sequence, _, event in store.events() if sequence <= version)
        wishes = (row for asked in store.every_wish() for row in wish_rows(asked))
        _write(out, "wishes", wishes, types, version, batch_rows)
        choices = (decision_row(made) for sequence, made in store.decisions() if sequence <= version)
        return (
            _write(out, "events", events, types, version, batch_rows),
            _write(out, "decisions", choices, types, version, batch_rows),
        )


def _write(
    folder: Path, table: str, rows: Iterable[dict[str, Any]], types: dict[str, pa.DataType], version: int, batch: int
) -> int:
    schema = schema_of(table, types).with_metadata({_MARK: str(version).encode()})
    count = 0
    with pq.ParquetWriter(folder / f"{table}.parquet", schema, compression="zstd") as writer:
        for part in _batches(rows, batch):
            writer.write_table(pa.Table.from_pylist(part, schema))
            count += len(part)
    return count


def _batches(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    rows = iter(rows)
    while part := list(islice(rows, size)):
        yield part


def _written(folder: Path) -> int | None:
    try:
        found = [(pq.read_schema(folder / f"{t}.parquet").metadata or {}).get(_MARK) for t in ("events", "decisions")]
    except (OSError, pa.ArrowInvalid):
        return None
    return int(found[0]) if found[0] is not None and found[0] == found[1] else None
