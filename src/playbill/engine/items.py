"""Items added, changed and withdrawn while requests are answered.

What is told stands in the store over what the bundle says, and over what later bundles say, until it is taken back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from playbill.engine.catalogue import WITHDRAWN
from playbill.engine.columns import checked, shown
from playbill.engine.engine import Engine
from playbill.engine.item_now import standing
from playbill.errors import RequestError
from playbill.index.live import MOST_FRESH
from playbill.state.events import Id, coerce_id
from playbill.state.store import Store
from playbill.state.write import noted

MAX_CREATIVES = 100  # of one item in one delivery

What = Literal["new", "changed", "withdrawn", "unchanged"]
Row = Mapping[str, Any]


class CreativeNote(msgspec.Struct, kw_only=True):
    """What a delivery did to a creative; `change` as of items."""

    creative_id: int | str
    change: What


class ItemNote(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a delivery did to an item, and how the item stands now.

    Attributes:
        change: new: neither the bundle nor an earlier delivery knew it; unchanged: all of this was noted before.
        shown: whether it may be shown.
        reason: why it may not; empty where it may.
        embedded: of an item that came after the bundle, whether the item tower gave it a vector, by which it is found
            near its like; without one it is shown for its popularity and its date alone.
        creatives: those that were delivered with it.
    """

    item_id: int | str
    change: What
    shown: bool
    reason: str
    embedded: bool | msgspec.UnsetType = msgspec.UNSET
    creatives: list[CreativeNote] = []


@dataclass(slots=True)
class _Delivery:
    """What a body asks for, by id, and which creatives came with which item."""

    items: dict[Id, dict[str, Any]] = field(default_factory=dict)
    creatives: dict[Id, dict[str, Any]] = field(default_factory=dict)
    of: dict[Id, list[Id]] = field(default_factory=dict)


def note_items(engine: Engine, store: Store, given: Sequence[Any]) -> tuple[list[ItemNote], int]:
    """Note what is told of items; return how each stands, in order, and the store's version from which on it holds.

    Durable when this returns, and this engine's next slate knows it; all are noted, or none.

    Args:
        given: objects as json decodes them: item_id, columns of the items table, `withdrawn`, `creatives`.
    Raises:
        RequestError: an item is not understood, stands there twice, or a creative belongs to another; names the place.
        StateError: the store cannot be read or written.
    """
    asked = _read(engine, given)
    known = engine.bundle.vocabularies["item"]
    with store.view() as view:
        items, creatives = view.items(list(asked.items)), view.creatives_of(list(asked.creatives))
    built = engine.creative_owners
    _check_owners(asked, creatives, built)
    catalogue = engine.stocking.now.catalogue
    there = len(catalogue.late)
    if there + sum(1 for i in asked.items if not catalogue.index(i)) > MOST_FRESH:
        raise RequestError(
            "items", f"{there:,} items came after the bundle, at most {MOST_FRESH:,} are searched: export a new one"
        )
    store.set_items({i: row for i, row in asked.items.items() if row}, asked.creatives)
    version = store.version
    engine.stocking.take_in(store)
    stock = engine.stocking.now
    answer = []
    for item_id, change in asked.items.items():
        mine = [
            CreativeNote(creative_id=i, change=_what(creatives[i], asked.creatives[i], i in built))
            for i in asked.of[item_id]
        ]
        may, reason, embedded = standing(engine, stock, item_id)
        what = _what(items[item_id], change, bool(known.index(item_id)))
        answer.append(
            ItemNote(item_id=item_id, change=what, shown=may, reason=reason, embedded=embedded, creatives=mine)
        )
    return answer, version


def _read(engine: Engine, given: Sequence[Any]) -> _Delivery:
    spec, (items, creatives) = engine.bundle.spec, engine.known_columns
    first = next(iter(engine.creative_owners), None)
    kind = None if first is None else "int64" if isinstance(first, int) else "string"
    asked = _Delivery()
    where: dict[tuple[str, Id], str] = {}
    for place, row in enumerate(given):
        path = f"items[{place}]"
        item_id = _id_of(row, "item_id", spec.item_id_type, path, where)
        rest = {name: value for name, value in row.items() if name not in ("item_id", "creatives")}
        asked.items[item_id] = checked(rest, items, path)
        mine = asked.of[item_id] = []
        listed = row.get("creatives", [])
        if not isinstance(listed, list) or len(listed) > MAX_CREATIVES:
            raise RequestError(f"{path}.creatives", f"expected a list of at most {MAX_CREATIVES}, got {shown(listed)}")
        if not rest and not listed:
            raise RequestError(path, f"says nothing of the item; columns: {', '.join([*items, 'creatives'])}")
        for number, creative in enumerate(listed):
            inner = f"{path}.creatives[{number}]"
            if kind is None:
                raise RequestError(inner, f"bundle {engine.bundle.version}, which answers, has no creatives")
            mine.append(_id_of(creative, "creative_id", kind, inner, where))
            owner = creative.get("item_id", item_id)
            if owner not in (item_id, str(item_id)):
                raise RequestError(f"{inner}.item_id", f"expected {shown(item_id)}, got {shown(owner)}")
            told = {n: v for n, v in creative.items() if n not in ("creative_id", "item_id")}
            asked.creatives[mine[-1]] = checked(told, creatives, inner)
    return asked


def _id_of(row: Any, name: str, kind: str, path: str, where: dict[tuple[str, Id], str]) -> Id:
    """Return the id of an object, noted in `where` so that none stands in a delivery twice."""
    if not isinstance(row, dict):
        raise RequestError(path, f"expected an object with {name}, got {shown(row)}")
    if name not in row:
        raise RequestError(f"{path}.{name}", "missing")
    try:
        found = coerce_id(msgspec.convert(row[name], Id), kind, f"{path}.{name}")
    except msgspec.ValidationError as error:
        raise RequestError(f"{path}.{name}", str(error)) from error
    before = where.setdefault((name, found), path)
    if before != path:
        raise RequestError(f"{path}.{name}", f"{shown(found)} stands in {before} as well")
    return found


def _check_owners(asked: _Delivery, noted_before: Mapping[Id, Row | None], built: Mapping[Any, Any]) -> None:
    """Put the item's id on each creative that is new.

    Raises:
        RequestError: a creative belongs to another item.
    """
    for place, (item_id, mine) in enumerate(asked.of.items()):
        for number, creative_id in enumerate(mine):
            owner = (noted_before[creative_id] or {}).get("item_id", built.get(creative_id))
            if owner is not None and owner != item_id:
                raise RequestError(
                    f"items[{place}].creatives[{number}].creative_id",
                    f"creative {shown(creative_id)} belongs to item {shown(owner)}",
                )
            if owner is None:
                asked.creatives[creative_id]["item_id"] = item_id


def _what(before: Row | None, change: Row, built: bool) -> What:
    after = noted(dict(before or {}), dict(change))
    if after == (before or {}):
        return "unchanged"
    if after.get(WITHDRAWN) is True and (before or {}).get(WITHDRAWN) is not True:
        return "withdrawn"
    return "changed" if built or before else "new"
