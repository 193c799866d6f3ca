"""What a person asks for in so many words, beside what they do: not this item, less like it, more of Drama.

Kept apart from profiles, in a table of its own and under the person's id, or the session's of somebody anonymous. No
fold touches it and no model is trained on it; what it does to an answer is in `engine.wishes`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from playbill.errors import RequestError
from playbill.state.decisions import people_keys
from playbill.state.events import Declared, Id, Moment, coerce_id
from playbill.state.txn import Bytes, Txn

MAX_HIDDEN = 10_000
MAX_LESS = 100  # the oldest make room: they have lost the most of their weight
MAX_PREFERENCES = 20
MAX_CATEGORIES = 20
MAX_WHERE = 1_000  # characters


class Lean(StrEnum):
    """What a person wants of some items."""

    MORE = "more"
    LESS = "less"
    NEVER = "never"


class Preference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a person declares about items: by their categories, or by a condition.

    Attributes:
        categories: of the items table; an item of any of them is meant.
        where: condition over columns of the items table, such as `release_year < 1960`, in place of categories.
    """

    kind: Lean
    categories: Annotated[
        list[Annotated[str, msgspec.Meta(min_length=1, max_length=100)]], msgspec.Meta(max_length=MAX_CATEGORIES)
    ] = []
    where: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_WHERE)] | None = None


class Marked(msgspec.Struct, array_like=True, frozen=True):
    """An item that a person said something of; `at` is UTC microseconds."""

    item_id: Id
    at: int


class Wishes(msgspec.Struct, kw_only=True, omit_defaults=True):
    """All that one person asks for; each list oldest first.

    Attributes:
        user_id, session_id: who asks; of somebody known the user alone.
        hidden: items that are not shown.
        less: items the like of which stands lower.
    """

    user_id: Id | None = None
    session_id: Id | None = None
    hidden: list[Marked] = []
    less: list[Marked] = []
    preferences: list[Preference] = []

    def __bool__(self) -> bool:
        return bool(self.hidden or self.less or self.preferences)


class Mark(StrEnum):
    """What is said of an item, by the name of its list."""

    HIDDEN = "hidden"
    LESS = "less"


class Wish(msgspec.Struct, kw_only=True):
    """One change of what somebody asks for: of the user where there is one, else of the session.

    Attributes:
        mark: with `item_id` and `at`: note it, or where it is `taken_back` note it no more.
        preferences: takes the place of all that were declared; None leaves them.
        nothing: forget all of it.
    """

    user_id: Id | None = None
    session_id: Id | None = None
    mark: Mark | None = None
    item_id: Id | None = None
    at: Moment = 0
    taken_back: bool = False
    preferences: list[Preference] | None = None
    nothing: bool = False


_wishes = msgspec.msgpack.Decoder(Wishes)
_encode = msgspec.msgpack.Encoder().encode


def read_wishes(txn: Txn, user_id: Id | None, session_id: Id | None) -> Wishes | None:
    """Return what somebody asks for, None for nothing: what was said in the session counts beside what was under their
    own id, whose preferences stand in place of the session's."""
    found: Wishes | None = None
    for key in people_keys(user_id, session_id):
        raw = txn.get("wishes", key)
        if raw is not None:
            mine = _wishes.decode(raw)
            found = mine if found is None else _both(found, mine)
    return found


def write_wish(txn: Txn, wish: Wish, version: int) -> tuple[bool, int]:
    """Write one change; return whether anything is other than before, and the store's version."""
    key = people_keys(wish.user_id, wish.session_id)[0]
    raw = txn.get("wishes", key)
    before = Wishes(user_id=wish.user_id, session_id=wish.session_id) if raw is None else _wishes.decode(raw)
    after = _after(before, wish)
    if after == before:
        return False, version
    version += 1
    if after:
        txn.put("wishes", key, _encode(after))
    else:
        txn.delete("wishes", key)
    return True, version


def decode_wishes(raw: Bytes) -> Wishes:
    """Return what is stored of one person."""
    return _wishes.decode(raw)


def check_wish(wish: Wish, declared: Declared) -> Wish:
    """Return the wish with ids in the declared types, of the user alone where one is named.

    Raises:
        RequestError: nobody is named, or an id is of another type.
    """
    user, item = wish.user_id, wish.item_id
    if user is None and wish.session_id is None:
        raise RequestError("user_id", "expected a user_id or a session_id, got neither")
    return msgspec.structs.replace(
        wish,
        user_id=None if user is None else coerce_id(user, declared.user_id_type, "user_id"),
        session_id=wish.session_id if user is None else None,
        item_id=None if item is None else coerce_id(item, declared.item_id_type, "item_id"),
    )


def check_room(wishes: Wishes | None, item_id: Id) -> None:
    """Do nothing where one more item can be hidden for somebody.

    Raises:
        RequestError: there is no room for another.
    """
    hidden = [] if wishes is None else wishes.hidden
    if len(hidden) >= MAX_HIDDEN and all(mark.item_id != item_id for mark in hidden):
        raise RequestError("item_id", f"this person hides {MAX_HIDDEN:,} items already; take some back")


def _after(before: Wishes, wish: Wish) -> Wishes:
    if wish.nothing:
        return Wishes(user_id=before.user_id, session_id=before.session_id)
    after = msgspec.structs.replace(before)
    if wish.preferences is not None:
        after.preferences = wish.preferences
    if wish.mark is not None and wish.item_id is not None:
        marks: list[Marked] = getattr(before, wish.mark.value)
        there = any(mark.item_id == wish.item_id for mark in marks)
        if wish.mark is Mark.HIDDEN and there and not wish.taken_back:
            return after  # a second time says nothing new; a wish for less is as fresh as its last time
        kept = [mark for mark in marks if mark.item_id != wish.item_id]
        if not wish.taken_back:
            kept.append(Marked(wish.item_id, wish.at))
        most = MAX_HIDDEN if wish.mark is Mark.HIDDEN else MAX_LESS
        setattr(after, wish.mark.value, kept[-most:])
    return after


def _both(user: Wishes, session: Wishes) -> Wishes:
    def joined(mine: list[Marked], visit: list[Marked]) -> list[Marked]:
        known = {mark.item_id for mark in mine}
        return [*mine, *(mark for mark in visit if mark.item_id not in known)]

    return Wishes(
        user_id=user.user_id,
        hidden=joined(user.hidden, session.hidden),
        less=joined(user.less, session.less),
        preferences=user.preferences or session.preferences,
    )
