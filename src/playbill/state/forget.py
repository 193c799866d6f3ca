"""One event forgotten: gone from the log, and from the profile that was folded from it, as if it had never come.

Its id is kept, so that a second delivery brings nothing back, and a note of the day that it lay on, by which files that
hold the log (`days`) find it. What a creative head learned from it, a share of a sum over many people, stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from playbill.features.fold import Past, Profile, fold
from playbill.state.events import Event, Id
from playbill.state.keys import id_key, sequence_key
from playbill.state.names import every_name, keep_newest
from playbill.state.settings import StoreSettings
from playbill.state.txn import Txn

DAY_US = 86_400_000_000


class Forget(msgspec.Struct, kw_only=True):
    """A wish that one event be forgotten.

    Attributes:
        user_id, session_id: whose it is: an event of another is not touched.
        unknown: set where the person turned out to have no such event.
        older: (sequence, event) of the same person that have left the profile's history, which has room for one of them
            now; oldest first. Empty where nothing ever left it.
    """

    event_id: Id
    user_id: Id | None = None
    session_id: Id | None = None
    older: list[tuple[int, Past]] = []
    unknown: bool = False


class Forgotten(msgspec.Struct, array_like=True):
    """What is known of a forgotten event: its id, its place in the log, the day it lay on (days since 1970, UTC)."""

    event_id: Id
    sequence: int
    day: int


_logged = msgspec.msgpack.Decoder(tuple[int, Event])
_profile = msgspec.msgpack.Decoder(Profile)
_forgotten = msgspec.msgpack.Decoder(Forgotten)
_encode = msgspec.msgpack.Encoder().encode


def decode_forgotten(raw: bytes) -> Forgotten:
    """Return a stored note."""
    return _forgotten.decode(raw)


def left_history(
    events: Iterable[tuple[int, int, Event]], forget: Forget, profile: Profile | None
) -> list[tuple[int, Past]]:
    """Return (sequence, event) of a person's events that have left the history, of which one comes back when another is
    forgotten. They stand nowhere but in the log, which is read for them, and only where any did leave.

    Args:
        events: the log: (sequence, received_at, event).
    """
    if profile is None or profile.num_events <= len(profile.history):
        return []
    kept, found = {past.event_id for past in profile.history}, []
    for sequence, _, event in events:
        past = past_of(event)
        if past is not None and past.event_id not in kept and is_of(event, forget.user_id, forget.session_id):
            found.append((sequence, past))
    return found


def is_of(event: Event, user_id: Id | None, session_id: Id | None) -> bool:
    """Return whether an event is of this person: of the user who is named with it, else of the session."""
    if event.user_id is not None:
        return event.user_id == user_id
    return session_id is not None and event.session_id == session_id


def past_of(event: Event) -> Past | None:
    """Return an event as a history holds it; None for one that enters none."""
    if event.item_id is None or event.at is None:
        return None
    return Past(event.event_id, event.item_id, event.event, event.at, event.value)


def forget_event(txn: Txn, wish: Forget, settings: StoreSettings, version: int) -> tuple[bool, int]:
    """Forget one event; return whether it was there, and the store's version. One that was forgotten before was not.

    It never raises for what was asked, since others are written in the same transaction: it sets `unknown`.
    """
    found = txn.get("event_ids", id_key(wish.event_id))
    wish.unknown = found is None
    if found is None:
        return False, version
    place = bytes(found)
    raw = txn.get("log", place)
    if raw is None:
        return False, version
    received_at, event = _logged.decode(raw)
    wish.unknown = not is_of(event, wish.user_id, wish.session_id)
    if wish.unknown:
        return False, version
    version += 1
    sequence = int.from_bytes(place, "big")
    day = (received_at if event.at is None else event.at) // DAY_US
    txn.delete("log", place)
    txn.append("forgotten", version, _encode(Forgotten(event.event_id, sequence, day)))
    table, person = ("profiles", event.user_id) if event.user_id is not None else ("sessions", event.session_id)
    if person is not None and past_of(event) is not None:
        profile = txn.get(table, id_key(person))
        if profile is not None:
            older = [past for at, past in wish.older if txn.get("log", sequence_key(at)) is not None]
            txn.put(table, id_key(person), _encode(without(_profile.decode(profile), event, older, settings)))
    return True, version


def without(profile: Profile, event: Event, older: Sequence[Past], settings: StoreSettings) -> Profile:
    """Return the profile folded from what is left of its events.

    Args:
        older: those that had left the history.
    """
    left = [past for past in [*older, *profile.history] if past.event_id != event.event_id]
    bare = msgspec.structs.replace(profile, history=[], seen=[], num_events=0)
    folded = fold(bare, left, every_name(bare, left), keep=len(left))
    still = {past.item_id for past in left}
    return msgspec.structs.replace(
        profile,
        history=keep_newest(folded.history, settings.keep),
        seen=[item for item in profile.seen if item != event.item_id or item in still],
        num_events=max(0, profile.num_events - 1),
        version=profile.version + 1,
    )
