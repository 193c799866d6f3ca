"""What goes over the wire about items that change while requests are answered."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from playbill.engine.items import MAX_CREATIVES, ItemNote
from playbill.engine.types import MAX_EVENTS, decode
from playbill.state.events import Id


class ToldCreative(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is told of a creative of an item: any column of the creatives table, of which these are some.

    Attributes:
        withdrawn: true: it is shown to nobody, whatever its status says; null or false takes that back.
        status: where the bundle's creatives have one, only `approved` is shown.
        approved_until: ISO 8601, or UTC microseconds.
    """

    creative_id: Id
    withdrawn: bool | None = None
    kind: str | None = None
    uri: str | None = None
    status: str | None = None
    approved_until: str | int | None = None
    locale: str | None = None
    is_default: bool | None = None


class ToldItem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is told of an item: any column of the bundle's items table or that its models read, of which these are some.

    Columns that are not named stay as they are, and null takes back what was told of one.

    Attributes:
        withdrawn: true: it is shown to nobody, whatever `available` says; null or false takes that back.
        published_at: ISO 8601, or UTC microseconds.
        creatives: ways to show it, new ones or known ones.
    """

    item_id: Id
    withdrawn: bool | None = None
    available: bool | None = None
    title: str | None = None
    text: str | None = None
    categories: list[str] | None = None
    price: float | None = None
    published_at: str | int | None = None
    creatives: Annotated[list[ToldCreative], msgspec.Meta(max_length=MAX_CREATIVES)] = []


class ToldItems(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Several of these in one delivery, none twice: all are noted, or none."""

    items: Annotated[list[ToldItem], msgspec.Meta(min_length=1, max_length=MAX_EVENTS)]


class ItemsNoted(msgspec.Struct, kw_only=True):
    """The answer: the notes are on the disk. This replica's next slate knows them, the others' within a second.

    Attributes:
        items: in the order of the delivery, with ids as the items table has them.
        state_version: of the store; a slate that names this version or a later one knows the notes.
    """

    request_id: str
    items: list[ItemNote]
    state_version: int


class _AnyItems(msgspec.Struct, forbid_unknown_fields=True):
    items: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1, max_length=MAX_EVENTS)]


def decode_items(body: bytes) -> tuple[list[dict[str, Any]], bool]:
    """Return what a body tells of items, and whether it was a single one and not `{"items": [...]}`.

    Which columns there are the bundle knows: they are checked where that is known (`engine.items`).

    Raises:
        RequestError: no json, or no object; names the field.
    """
    told = decode(body, dict[str, Any])
    return ([told], True) if "items" not in told else (decode(body, _AnyItems).items, False)
