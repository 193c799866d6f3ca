"""What goes over the wire about what people ask for in so many words."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from playbill.engine.types import decode
from playbill.errors import RequestError
from playbill.state.events import Id
from playbill.state.wishes import MAX_PREFERENCES, Preference


class Said(StrEnum):
    """What a person says."""

    LESS_LIKE_THIS = "less_like_this"  # of an item: what is like it stands lower, and it too
    NOT_THIS_ITEM = "not_this_item"  # it is not shown
    FORGET_EVENT = "forget_event"  # of an event of theirs: it is as if it had never come


class Feedback(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a person says of one item or one event.

    Attributes:
        user_id, session_id: one of them at least; with both it is the user's.
        item_id: of less_like_this and not_this_item; `event_id` of forget_event.
        take_back: true: it was said before and holds no longer. A forgotten event stays forgotten.
    """

    kind: Said
    user_id: Id | None = None
    session_id: Id | None = None
    item_id: Id | None = None
    event_id: Id | None = None
    take_back: bool = False


class FeedbackNoted(msgspec.Struct, kw_only=True):
    """The answer: it is on the disk, and the next slate of every replica knows it.

    Attributes:
        new: false where it was said before.
        state_version: of the store; a slate that names this version or a later one knows it.
    """

    request_id: str
    kind: Said
    new: bool
    state_version: int


class Preferences(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a person declares, in place of all that they declared before.

    Attributes:
        user_id, session_id: one of them at least; with both it is the user's.
    """

    user_id: Id | None = None
    session_id: Id | None = None
    preferences: Annotated[list[Preference], msgspec.Meta(max_length=MAX_PREFERENCES)]


def decode_feedback(body: bytes) -> Feedback:
    """Return what a body says.

    Raises:
        RequestError: no json, or what its kind needs is not there, or something else is; names the field.
    """
    said = decode(body, Feedback)
    forgets = said.kind is Said.FORGET_EVENT
    for name, wanted in (("item_id", not forgets), ("event_id", forgets)):
        if (getattr(said, name) is not None) != wanted:
            how = "expected an id, got none" if wanted else "takes none"
            raise RequestError(name, f"{said.kind.value}: {how}")
    if forgets and said.take_back:
        raise RequestError("take_back", "a forgotten event cannot be brought back; send it again under another id")
    return said
