"""What is kept of what a person asks for: noted, and told to whoever wants to see it."""

from __future__ import annotations

import difflib

import msgspec
import numpy as np

from playbill.engine.engine import Engine
from playbill.engine.wishes import CATEGORIES, check_preferences, condition_of, left_of
from playbill.errors import FilterError, RequestError
from playbill.state.events import Id, coerce_id
from playbill.state.store import Store
from playbill.state.wishes import Lean, Marked, Preference, Wish, Wishes


class KeptItem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An item that a person said something of.

    Attributes:
        title: null where the item has none, or is not known any more.
        at: UTC microseconds.
        left: of a wish for less like it, what is left of its weight, 0..1.
    """

    item_id: int | str
    title: str | None
    at: int
    left: float | msgspec.UnsetType = msgspec.UNSET


class KeptPreference(msgspec.Struct, kw_only=True):
    """What a person declared.

    Attributes:
        items: of the catalogue as it is now, that it is about; null where the bundle does not know what it asks for.
        reason: why it does not; or which of the categories no item is of, with the nearest that some are; else empty.
    """

    kind: Lean
    categories: list[str]
    where: str | None
    items: int | None
    reason: str


class Kept(msgspec.Struct, kw_only=True):
    """All that is kept of what one person, or the visitor of a session, asks for; it acts on every answer.

    Attributes:
        hidden: items that are not shown; `less` those the like of which stands lower. Oldest first.
        state_version: of the store; a slate that names this version or a later one knows all of it.
    """

    user_id: int | str | None
    session_id: int | str | None
    preferences: list[KeptPreference]
    hidden: list[KeptItem]
    less: list[KeptItem]
    state_version: int


def kept_of(engine: Engine, store: Store, user_id: Id | None, session_id: Id | None, at: int) -> Kept:
    """Return what is kept of somebody.

    Args:
        at: UTC microseconds, now.
    Raises:
        RequestError: nobody is named, or the id is of another type.
        StateError: the store cannot be read.
    """
    if user_id is None and session_id is None:
        raise RequestError("user_id", "expected a user_id or a session_id, got neither")
    if user_id is not None:
        user_id = coerce_id(user_id, engine.bundle.spec.user_id_type, "user_id")
    with store.view([(user_id, session_id)]) as view:
        wishes, version = view.wishes(user_id, session_id) or Wishes(), view.version
    policy = engine.bundle.policy.every_wish

    def item(mark: Marked) -> KeptItem:
        index = engine.stock.catalogue.index(mark.item_id)
        return KeptItem(item_id=mark.item_id, title=engine.stock.catalogue.titles[index], at=mark.at)

    less = [item(mark) for mark in wishes.less]
    for told, mark in zip(less, wishes.less, strict=True):
        told.left = round(left_of(mark, policy, at), 4)
    return Kept(
        user_id=user_id,
        session_id=session_id,
        preferences=[_kept(engine, preference) for preference in wishes.preferences],
        hidden=[item(mark) for mark in wishes.hidden],
        less=less,
        state_version=version,
    )


def note_item(engine: Engine, store: Store, wish: Wish) -> bool:
    """Note what somebody says of an item; durable when this returns. Return whether anything is other than before.

    Raises:
        RequestError: nobody is named, an id is of another type, or there is no such item.
        StateError: the store cannot be written.
    """
    if wish.item_id is not None:
        wish = msgspec.structs.replace(
            wish, item_id=coerce_id(wish.item_id, engine.bundle.spec.item_id_type, "item_id")
        )
        if not wish.taken_back and not engine.stock.catalogue.index(wish.item_id):
            raise RequestError("item_id", f"neither the bundle nor the store has an item {str(wish.item_id)[:80]!r}")
    return store.tell(wish)


def note_preferences(
    engine: Engine, store: Store, user_id: Id | None, session_id: Id | None, preferences: list[Preference]
) -> bool:
    """Put what somebody declares in place of what they declared before; durable when this returns.

    Raises:
        RequestError: nobody is named, an id is of another type, or a preference cannot be understood.
        StateError: the store cannot be written.
    """
    check_preferences(preferences, engine.conditions)
    return store.tell(Wish(user_id=user_id, session_id=session_id, preferences=preferences))


def _of_no_item(engine: Engine, preference: Preference) -> str:
    """Return which of a preference's categories no item is of: a misspelt one is kept, and does nothing."""
    conditions, stock = engine.conditions, engine.stock
    alone = {name: msgspec.structs.replace(preference, categories=[name]) for name in preference.categories}
    strange = [n for n, one in alone.items() if not conditions.mask(condition_of(one, conditions), stock).any()]
    if not strange:
        return ""
    every = np.arange(1, stock.catalogue.num_items + 1)
    known = sorted({str(value) for mine in conditions.values(CATEGORIES, every, stock) for value in mine})
    near = [difflib.get_close_matches(name, known, n=1, cutoff=0.0) for name in strange]
    return "; ".join(
        f"no item is of {name!r}" + (f", nearest is {found[0]!r}" if found else "")
        for name, found in zip(strange, near, strict=True)
    )


def _kept(engine: Engine, preference: Preference) -> KeptPreference:
    items, reason = None, ""
    try:
        text = condition_of(preference, engine.conditions)
        items = int(engine.conditions.mask(text, engine.stock).sum())
        reason = _of_no_item(engine, preference)
    except FilterError as error:
        reason = str(error)
    return KeptPreference(
        kind=preference.kind, categories=preference.categories, where=preference.where, items=items, reason=reason
    )
