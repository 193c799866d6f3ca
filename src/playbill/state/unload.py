"""The job `playbill unload`: writes the store's log, events and decisions, as parquet files in the tables' form.

What people did and what they were shown come back into the tables this way, for the next training and for `measure`.
One row a decision and one an event, in the order in which they were stored; a log that has not grown is left as it is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from playbill.errors import StateError
from playbill.state.decisions import Decision
from playbill.state.events import Declared, Event
from playbill.state.settings import UnloadSettings
from playbill.state.store import Store
from playbill.tables.files import atomic_folder
from playbill.tables.schema import CONTRACT, arrow_type

_MARK = b"playbill.state_version"


def run(settings: UnloadSettings) -> None:
    """Write the log of a store; see `UnloadSettings`."""
    console, started = Console(stderr=True, soft_wrap=True), time.monotonic()
    folder = Path(settings.home) / "log"
    with Store.open(Path(settings.state or Path(settings.home) / "state"), readonly=True) as store:
        version = store.version
        if not settings.force and _written(folder) == version:
            console.print(f"unload: {folder} is up to date with state version {version}")
            return
        events, decisions = unload(store, folder, settings.batch_rows)
    console.print(
        f"unload: {events:,} events and {decisions:,} decisions of state version {version} in {folder} "
        f"({time.monotonic() - started:.1f} s)"
    )


def unload(store: Store, folder: Path, batch_rows: int) -> tuple[int, int]:
    """Write events.parquet and decisions.parquet into a folder, whole or not at all; return how many rows each has.

    Raises:
        StateError: nothing was declared in the store yet.
    """
    declared = store.declared
    if declared is None:
        raise StateError(f"{store.path} knows no event names yet: run `playbill load`, or call Store.declare")
    version = store.version
    with atomic_folder(folder) as out:
        events = (event for sequence, _, event in store.events() if sequence <= version)
        choices = (made for sequence, made in store.decisions() if sequence <= version)
        rows = (
            _write(out, "events", map(_event_row, events), _types(declared), version, batch_rows),
            _write(out, "decisions", map(decision_row, choices), _types(declared), version, batch_rows),
        )
    return rows


def decision_row(made: Decision) -> dict[str, Any]:
    """Return a row of the decisions table; `context` is json with all creatives that could be chosen."""
    told = {"item_id": made.item_id, "eligible": made.eligible, "propensities": made.propensities}
    return {
        "decision_id": made.decision_id,
        "request_id": made.request_id,
        "kind": "creative",
        "chosen": str(made.chosen),
        "at": made.at,
        "user_id": made.user_id,
        "session_id": _text(made.session_id),
        "position": made.position,
        "propensity": made.propensity,
        "policy": made.policy,
        "bundle": made.bundle,
        "eligible_count": len(made.eligible),
        "context": msgspec.json.encode(told).decode(),
    }


def _event_row(event: Event) -> dict[str, Any]:
    row = msgspec.structs.asdict(event)
    texts = ("event_id", "session_id", "creative_id", "decision_id")
    context = msgspec.json.encode(event.context).decode() if event.context else None
    return {**row, **{name: _text(row[name]) for name in texts}, "context": context}


def _write(
    folder: Path, table: str, rows: Iterable[dict[str, Any]], types: dict[str, pa.DataType], version: int, batch: int
) -> int:
    fields = [(c.name, types.get(c.name) or arrow_type(c.kind)) for c in CONTRACT[table]]
    if table == "events":
        fields.append(("context", pa.string()))  # json: columns of the moment, whatever the senders call them
    schema = pa.schema(fields, metadata={_MARK: str(version).encode()})
    count = 0
    with pq.ParquetWriter(folder / f"{table}.parquet", schema, compression="zstd") as writer:
        for part in _batches(rows, batch):
            writer.write_table(pa.Table.from_pylist(part, schema))
            count += len(part)
    return count


def _types(declared: Declared) -> dict[str, pa.DataType]:
    """Ids of people and items as they were declared; those that anybody may make up are text."""
    names = {"user_id": declared.user_id_type, "item_id": declared.item_id_type}
    return {name: pa.int64() if kind == "int64" else pa.string() for name, kind in names.items()}


def _batches(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    rows = iter(rows)
    while part := list(islice(rows, size)):
        yield part


def _text(value: int | str | None) -> str | None:
    return None if value is None else str(value)


def _written(folder: Path) -> int | None:
    try:
        found = [(pq.read_schema(folder / f"{t}.parquet").metadata or {}).get(_MARK) for t in ("events", "decisions")]
    except (OSError, pa.ArrowInvalid):
        return None
    return int(found[0]) if found[0] is not None and found[0] == found[1] else None
