"""The job `playbill unload`: writes the store's log, events and decisions, as parquet files in the tables' form.

What people did and what they were shown come back into the tables this way, for the next training and for `measure`.
One row a decision and one an event, in the order in which they were stored; a log that has not grown is left as it is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from playbill.errors import RequestError, StateError
from playbill.state.decisions import Decision
from playbill.state.events import Declared, Event, coerce_id
from playbill.state.settings import UnloadSettings, state_place
from playbill.state.store import Store
from playbill.tables.files import atomic_folder
from playbill.tables.schema import CONTRACT, arrow_type

_MARK = b"playbill.state_version"


def run(settings: UnloadSettings) -> None:
    """Write the log of a store; see `UnloadSettings`."""
    console, started = Console(stderr=True, soft_wrap=True), time.monotonic()
    folder = Path(settings.home) / "log"
    with Store.open(state_place(settings.home, settings.state), readonly=True, settings=settings.store) as store:
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
        raise StateError(f"{store.place} knows no event names yet: run `playbill ingest`, or call Store.declare")
    version = store.version
    types = _types(store, declared, version)
    with atomic_folder(folder) as out:
        events = (_event_row(event, types) for sequence, _, event in store.events() if sequence <= version)
        choices = (decision_row(made) for sequence, made in store.decisions() if sequence <= version)
        return (
            _write(out, "events", events, types, version, batch_rows),
            _write(out, "decisions", choices, types, version, batch_rows),
        )


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


def _event_row(event: Event, types: dict[str, pa.DataType]) -> dict[str, Any]:
    row = msgspec.structs.asdict(event)
    row |= {name: _text(row[name]) for name in ("event_id", "session_id", "decision_id")}
    if event.creative_id is not None:
        row["creative_id"] = coerce_id(event.creative_id, str(types["creative_id"]), "creative_id")
    row["context"] = msgspec.json.encode(event.context).decode() if event.context else None
    return row


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


def _types(store: Store, declared: Declared, version: int) -> dict[str, pa.DataType]:
    """Return the types of ids: people's and items' as declared, creatives' numbers where all are; the rest is text.

    The creatives table that a bundle was made from may hold either, and ids of another type would not be found in it.
    """
    names = {"user_id": declared.user_id_type, "item_id": declared.item_id_type}
    chosen = chain(
        (made.chosen for sequence, made in store.decisions() if sequence <= version),
        (event.creative_id for sequence, _, event in store.events() if sequence <= version),
    )
    names["creative_id"] = "int64" if all(i is None or _is_number(i) for i in chosen) else "string"
    return {name: pa.int64() if kind == "int64" else pa.string() for name, kind in names.items()}


def _is_number(value: int | str) -> bool:
    try:
        coerce_id(value, "int64", "creative_id")
    except RequestError:
        return False
    return True


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
