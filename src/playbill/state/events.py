"""Events as they arrive from outside, and what is refused before anything is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec

from playbill.errors import RequestError
from playbill.tables.schema import EventKind

_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # json knows larger ones, the store's msgpack does not
# An id is an int64 or a short string, as the user gave it; bool and float are refused by the decoder.
Id = _Int64 | Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Scalar = str | _Int64 | float | bool | None
Moment = Annotated[int, msgspec.Meta(ge=0, le=2**62)]  # UTC microseconds since 1970


class Event(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One thing a person did: a row of the events table, before it is stored.

    Attributes:
        event_id: the sender's own; a second delivery of it changes nothing, in whichever process it arrives.
        event: a declared event name.
        user_id, session_id: one of them at least. With both, the event belongs to the user.
        at: UTC microseconds; None means the moment of arrival. Later than arrival plus the store's skew is cut to that.
        item_id: needed for the event to enter a history; without it the event is only logged.
        value: in the unit and range that the event name declares.
    """

    event_id: Id
    event: str
    user_id: Id | None = None
    session_id: Id | None = None
    at: Moment | None = None
    item_id: Id | None = None
    creative_id: Id | None = None
    decision_id: Id | None = None
    value: float | None = None
    device: str | None = None
    context: dict[str, Scalar] = {}


class Declared(msgspec.Struct, kw_only=True):
    """What a store was told about its data: the declared event names and the type of each kind of id.

    Attributes:
        user_id_type, item_id_type: "int64" or "string".
        purposes: consent purposes for which the users table has a column.
    """

    events: list[EventKind]
    user_id_type: str
    item_id_type: str
    purposes: list[str] = []


def coerce_id(value: int | str, id_type: str, field: str) -> int | str:
    """Return the id in the type its table uses: "196" becomes 196 where ids are int64, 196 becomes "196" for strings.

    Raises:
        RequestError: a text that is no integer where ids are int64.
    """
    if id_type == "string":
        return value if isinstance(value, str) else str(value)
    if isinstance(value, int):
        return value
    try:
        number = int(value)
    except ValueError:
        number = None
    if number is None or str(number) != value or not -(2**63) <= number < 2**63:
        raise RequestError(field, f"expected an int64 id, got {value!r}")
    return number


def check_events(events: Sequence[Event], declared: Declared) -> list[Event]:
    """Return the events with their ids in the declared types.

    Raises:
        RequestError: the first event that is wrong: nobody named, an undeclared name, a value out of range.
    """
    kinds = {kind.name: kind for kind in declared.events}
    return [_checked(event, f"events[{i}]", kinds, declared) for i, event in enumerate(events)]


def _checked(event: Event, path: str, kinds: Mapping[str, EventKind], declared: Declared) -> Event:
    if event.user_id is None and event.session_id is None:
        raise RequestError(f"{path}.user_id", "expected a user_id or a session_id, got neither")
    kind = kinds.get(event.event)
    if kind is None:
        raise RequestError(f"{path}.event", f"expected one of {sorted(kinds)}, got {event.event!r}")
    if event.value is not None:
        low = float("-inf") if kind.low is None else kind.low
        high = float("inf") if kind.high is None else kind.high
        if not (math.isfinite(event.value) and low <= event.value <= high):
            raise RequestError(f"{path}.value", f"expected {low:g} to {high:g} {kind.unit}, got {event.value:g}")
    user, item = event.user_id, event.item_id
    return msgspec.structs.replace(
        event,
        user_id=None if user is None else coerce_id(user, declared.user_id_type, f"{path}.user_id"),
        item_id=None if item is None else coerce_id(item, declared.item_id_type, f"{path}.item_id"),
    )
