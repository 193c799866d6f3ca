"""What is known of one item, for whoever wonders why it is shown, or is not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from playbill.engine.catalogue import WITHDRAWN
from playbill.engine.columns import Column
from playbill.engine.engine import Engine
from playbill.engine.fresh import Stock
from playbill.filters.check import Kind
from playbill.state.events import Id, coerce_id
from playbill.state.store import Store


class ItemNow(msgspec.Struct, kw_only=True):
    """What is known of one item.

    Attributes:
        source: bundle, or store for one that came after it.
        shown: whether it may be shown; `reason` says why not.
        embedded: of an item that came after the bundle, whether the item tower gave it a vector.
        item: its columns as they count now; times in ISO 8601.
        noted: the part of it that was told since, as the store keeps it: times are UTC microseconds.
        creatives: likewise, a row each.
        state_version: of the store, that all of it was read from.
    """

    item_id: int | str
    source: Literal["bundle", "store"]
    shown: bool
    reason: str
    embedded: bool | msgspec.UnsetType = msgspec.UNSET
    item: dict[str, Any]
    noted: dict[str, Any]
    creatives: list[dict[str, Any]]
    state_version: int


def item_now(engine: Engine, store: Store, given: str) -> ItemNow | None:
    """Return what is known of one item; None where neither the bundle nor the store knows it.

    Args:
        given: its id, as a path has it.
    Raises:
        RequestError: it is no id of this catalogue's type.
        StateError: the store cannot be read.
    """
    item_id = coerce_id(given, engine.bundle.spec.item_id_type, "item_id")
    engine.stocking.take_in(store)
    with store.view() as view:
        row, version = view.items([item_id])[item_id], view.version
        late = view.creatives() if engine.bundle.creatives is not None else {}
    index = engine.bundle.vocabularies["item"].index(item_id)
    if not index and not row:
        return None
    built = engine.bundle.items.row(index - 1, named=True) if index else {}
    may, reason, embedded = standing(engine, engine.stocking.now, item_id)
    told = {**built, **(row or {}), "item_id": item_id}
    told.pop("item_index", None)
    return ItemNow(
        item_id=item_id,
        source="bundle" if index else "store",
        shown=may,
        reason=reason,
        embedded=embedded,
        item=_for_people(told, engine.known_columns[0]),
        noted=row or {},
        creatives=_creatives_of(engine, item_id, late),
        state_version=version,
    )


def standing(engine: Engine, stock: Stock, item_id: Id) -> tuple[bool, str, bool | msgspec.UnsetType]:
    """Return whether an item may be shown, why not, and of one that came after the bundle whether it has a vector."""
    index, row = stock.catalogue.index(item_id), stock.changes.get(item_id, {})
    late = item_id in stock.catalogue.late
    embedded = engine.parts.embeddings is not None and item_id not in stock.refused if late else msgspec.UNSET
    if index and stock.offer.available[index]:
        return True, "", embedded
    if row.get(WITHDRAWN) is True:
        reason = "it is withdrawn"
    elif item_id in stock.refused:
        reason = stock.refused[item_id]
    elif row.get("available") is False:
        reason = "available is false"
    elif index:
        reason = f"bundle {engine.bundle.version} says that it is not available"
    else:
        told = ", ".join(sorted(engine.stocking.fresh.told))
        reason = f"bundle {engine.bundle.version} does not know it, and it says none of {told}"
    return False, reason, embedded


def _creatives_of(engine: Engine, item_id: Id, late: Mapping[Any, Mapping[str, Any]]) -> list[dict[str, Any]]:
    parts, columns = engine.bundle.creatives, engine.known_columns[1]
    if parts is None:
        return []
    ids, owners = parts.columns["creative_id"], parts.columns["item_id"]
    rows = {i: row for row, i in enumerate(ids) if owners[row] == item_id}
    found = {i: {name: values[row] for name, values in parts.columns.items()} for i, row in rows.items()}
    for i, change in late.items():
        if i in found or change.get("item_id") == item_id:
            found[i] = {**found.get(i, {}), **change, "creative_id": i, "item_id": item_id}
    return [_for_people(row, columns) for row in found.values()]


def _for_people(row: Mapping[str, Any], columns: Mapping[str, Column]) -> dict[str, Any]:
    """Return a row with its times in ISO 8601, and without the columns that say nothing."""
    found = {}
    for name, value in row.items():
        timed = name in columns and columns[name].kind is Kind.TIME
        if value is not None:
            found[name] = _iso(value) if timed and type(value) is int else value
    return found


def _iso(moment: int) -> Any:
    try:
        return datetime.fromtimestamp(moment / 1e6, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):  # beyond the years that have a name
        return moment
