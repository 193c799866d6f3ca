"""Rows of the log in the form of the tables: what people did, and what they were shown."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import msgspec
import pyarrow as pa

from playbill.errors import RequestError
from playbill.state.decisions import Decision
from playbill.state.events import Declared, Event, coerce_id
from playbill.state.store import Store
from playbill.state.wishes import Mark, Wishes
from playbill.tables.schema import CONTRACT, Kind, arrow_type


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


def event_row(event: Event, types: dict[str, pa.DataType]) -> dict[str, Any]:
    """Return a row of the events table; `context` is json."""
    row = msgspec.structs.asdict(event)
    row |= {name: _text(row[name]) for name in ("event_id", "session_id", "decision_id")}
    if event.creative_id is not None:
        row["creative_id"] = coerce_id(event.creative_id, str(types["creative_id"]), "creative_id")
    row["context"] = msgspec.json.encode(event.context).decode() if event.context else None
    return row


def wish_rows(wishes: Wishes) -> Iterator[dict[str, Any]]:
    """Yield a row for each thing that a person asks for: of an item (hidden, less), or of categories or a condition."""
    who = {"user_id": wishes.user_id, "session_id": _text(wishes.session_id)}
    for kind in Mark:
        for mark in getattr(wishes, kind.value):
            yield {**who, "kind": f"{kind.value} item", "item_id": mark.item_id, "at": mark.at}
    for preference in wishes.preferences:
        said = {"categories": preference.categories or None, "where": preference.where}
        yield {**who, "kind": preference.kind.value, **said}


def schema_of(table: str, types: dict[str, pa.DataType]) -> pa.Schema:
    """Return the columns of a table, or of `wish_rows`, whose ids are of these types."""
    if table == "wishes":
        ids = [("user_id", types["user_id"]), ("session_id", pa.string()), ("kind", pa.string())]
        about = [("item_id", types["item_id"]), ("categories", pa.list_(pa.string())), ("where", pa.string())]
        return pa.schema([*ids, *about, ("at", arrow_type(Kind.TIME))])
    fields = [(c.name, types.get(c.name) or arrow_type(c.kind)) for c in CONTRACT[table]]
    if table == "events":
        fields.append(("context", pa.string()))  # json: columns of the moment, whatever the senders call them
    return pa.schema(fields)


def types_of(store: Store, declared: Declared, version: int) -> dict[str, pa.DataType]:
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


def _text(value: int | str | None) -> str | None:
    return None if value is None else str(value)
