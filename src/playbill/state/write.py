"""What one transaction writes: events and decisions into their logs and what follows from them, and what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from playbill.features.fold import Past, Profile, fold
from playbill.state.decisions import Decision, learn_from_events, people_keys, write_decisions
from playbill.state.events import Event
from playbill.state.forget import Forget, forget_event, past_of
from playbill.state.keys import id_key, sequence_key
from playbill.state.names import every_name, keep_newest
from playbill.state.settings import StoreSettings
from playbill.state.txn import VERSION, Txn
from playbill.state.wishes import Wish, write_wish

_profile = msgspec.msgpack.Decoder(Profile)
_encode = msgspec.msgpack.Encoder().encode


@dataclass(slots=True)
class Change:
    """What one caller wants written, and how it went.

    Attributes:
        wishes, forgets: what people ask for.
        new: for each event, whether it was not stored before; then for each of the wishes and of `forgets`, whether it
            changed anything.
        done, error: set by whoever commits.
    """

    events: list[Event] = field(default_factory=list)
    received_at: int = 0
    features: dict[int | str, dict[str, Any]] = field(default_factory=dict)
    items: dict[int | str, dict[str, Any]] = field(default_factory=dict)
    creatives: dict[int | str, dict[str, Any]] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    meta: dict[bytes, bytes] = field(default_factory=dict)
    wishes: list[Wish] = field(default_factory=list)
    forgets: list[Forget] = field(default_factory=list)
    new: list[bool] = field(default_factory=list)
    done: bool = False
    error: Exception | None = None


def wanted(changes: Sequence[Change]) -> dict[str, list[bytes]]:
    """Return the keys, by table, that `write_change` reads whatever it finds there."""
    keys: dict[str, set[bytes]] = {name: set() for name in ("event_ids", "decision_ids", "profiles", "sessions")}
    keys |= {name: set() for name in ("catalogue", "creatives", "shown", "learned", "wishes")}
    for change in changes:
        for event in change.events:
            keys["event_ids"].add(id_key(event.event_id))
            if event.decision_id is not None:
                keys["decision_ids"].add(id_key(event.decision_id))
            if event.user_id is not None:
                keys["profiles"].add(id_key(event.user_id))
            elif event.session_id is not None:
                keys["sessions"].add(id_key(event.session_id))
        for decision in change.decisions:
            keys["decision_ids"].add(id_key(decision.decision_id))
            keys["shown"].update(people_keys(decision.user_id, decision.session_id)[:1])
            if decision.lesson is not None:
                keys["learned"].add(decision.lesson.head.encode())
        for wish in change.wishes:
            keys["wishes"].update(people_keys(wish.user_id, wish.session_id)[:1])
        keys["event_ids"].update(id_key(wish.event_id) for wish in change.forgets)
        keys["profiles"].update(map(id_key, change.features))
        keys["catalogue"].update(map(id_key, change.items))
        keys["creatives"].update(map(id_key, change.creatives))
    return {"meta": [VERSION], **{table: sorted(found) for table, found in keys.items() if found}}


def write_change(txn: Txn, change: Change, settings: StoreSettings) -> None:
    """Write one change inside an open transaction; nothing of it stays unless the caller commits."""
    raw = txn.get("meta", VERSION)
    version = 0 if raw is None else int.from_bytes(raw, "big")
    version = _log(txn, change, version)
    _fold(txn, change, settings)
    version = learn_from_events(txn, [e for e, new in zip(change.events, change.new, strict=True) if new], version)
    version = write_decisions(txn, change.decisions, version)
    for user_id, features in change.features.items():
        key = id_key(user_id)
        profile = _read(txn, "profiles", key) or Profile(user_id=user_id)
        merged = {**profile.features, **features}
        if merged != profile.features or not profile.version:
            version += 1
            profile = msgspec.structs.replace(profile, features=merged, version=profile.version + 1)
            txn.put("profiles", key, _encode(profile))
    for table, rows in (("catalogue", change.items), ("creatives", change.creatives)):
        for row_id, values in rows.items():
            old = txn.get(table, id_key(row_id))
            before = msgspec.msgpack.decode(old)[1] if old is not None else {}
            after = noted(before, values)
            if after == before and old is not None:
                continue  # a feed that comes again must not make every replica look at its catalogue anew
            version += 1
            txn.put(table, id_key(row_id), _encode((row_id, after)))
            txn.put("meta", f"{table}_version".encode(), sequence_key(version))
    for wish in change.wishes:
        changed, version = write_wish(txn, wish, version)
        change.new.append(changed)
    for forget in change.forgets:
        changed, version = forget_event(txn, forget, settings, version)
        change.new.append(changed)
    for name, note in change.meta.items():
        txn.put("meta", name, note)
    txn.put("meta", VERSION, sequence_key(version))


def noted(before: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return what is noted of an item or a creative after a change; None takes back what was noted of a column."""
    return {name: value for name, value in {**before, **values}.items() if value is not None}


def _log(txn: Txn, change: Change, version: int) -> int:
    change.new = []
    for event in change.events:
        new = txn.add("event_ids", id_key(event.event_id), sequence_key(version + 1))
        change.new.append(new)
        if new:
            version += 1
            txn.append("log", version, _encode((change.received_at, event)))
    return version


def _fold(txn: Txn, change: Change, settings: StoreSettings) -> None:
    """Fold new events into the profiles of their people. The store keeps every declared event name, so that a later
    bundle with another feature spec finds its history; which of them a model sees is decided when it is encoded."""
    people: dict[tuple[str, int | str], list[Past]] = {}
    for event, new in zip(change.events, change.new, strict=True):
        past = past_of(event) if new else None
        if past is not None:
            if event.user_id is not None:
                people.setdefault(("profiles", event.user_id), []).append(past)
            elif event.session_id is not None:
                people.setdefault(("sessions", event.session_id), []).append(past)
    for (table, person), events in people.items():
        key = id_key(person)
        profile = _read(txn, table, key) or Profile(user_id=person if table == "profiles" else None)
        names = every_name(profile, events)
        profile = fold(profile, events, names, keep=len(profile.history) + len(events))
        profile.history = keep_newest(profile.history, settings.keep)
        profile.seen = profile.seen[-settings.seen :] if settings.seen else []
        txn.put(table, key, _encode(profile))


def _read(txn: Txn, table: str, key: bytes) -> Profile | None:
    raw = txn.get(table, key)
    return None if raw is None else _profile.decode(raw)
