"""What one transaction writes: events and decisions into their logs and what follows from them, and what changed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec

from playbill.features.fold import Past, Profile, fold
from playbill.features.spec import EventCode, FeatureSpec
from playbill.state.decisions import Decision, learn_from_events, write_decisions
from playbill.state.events import Event
from playbill.state.keys import id_key, sequence_key
from playbill.state.settings import StoreSettings

_profile = msgspec.msgpack.Decoder(Profile)
_encode = msgspec.msgpack.Encoder().encode


@dataclass(slots=True)
class Change:
    """What one caller wants written, and how it went.

    Attributes:
        new: for each event, whether it was not stored before.
        done, error: set by whoever commits.
    """

    events: list[Event] = field(default_factory=list)
    received_at: int = 0
    features: dict[int | str, dict[str, Any]] = field(default_factory=dict)
    items: dict[int | str, dict[str, Any]] = field(default_factory=dict)
    creatives: dict[int | str, dict[str, Any]] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    meta: dict[bytes, bytes] = field(default_factory=dict)
    new: list[bool] = field(default_factory=list)
    done: bool = False
    error: Exception | None = None


def write_change(txn: Any, dbs: dict[str, Any], change: Change, settings: StoreSettings) -> None:
    """Write one change inside an open transaction; nothing of it stays unless the caller commits."""
    raw = txn.get(b"version", db=dbs["meta"])
    version = 0 if raw is None else int.from_bytes(raw, "big")
    version = _log(txn, dbs, change, version)
    _fold(txn, dbs, change, settings)
    version = learn_from_events(txn, dbs, [e for e, new in zip(change.events, change.new, strict=True) if new], version)
    version = write_decisions(txn, dbs, change.decisions, version)
    for user_id, features in change.features.items():
        key = id_key(user_id)
        profile = _read(txn, dbs["profiles"], key) or Profile(user_id=user_id)
        merged = {**profile.features, **features}
        if merged != profile.features or not profile.version:
            version += 1
            profile = msgspec.structs.replace(profile, features=merged, version=profile.version + 1)
            txn.put(key, _encode(profile), db=dbs["profiles"])
    for table, rows in (("catalogue", change.items), ("creatives", change.creatives)):
        for row_id, values in rows.items():
            version += 1
            old = txn.get(id_key(row_id), db=dbs[table])
            merged = {**(msgspec.msgpack.decode(old)[1] if old is not None else {}), **values}
            txn.put(id_key(row_id), _encode((row_id, merged)), db=dbs[table])
            txn.put(f"{table}_version".encode(), sequence_key(version), db=dbs["meta"])
    for name, note in change.meta.items():
        txn.put(name, note, db=dbs["meta"])
    txn.put(b"version", sequence_key(version), db=dbs["meta"])


def _log(txn: Any, dbs: dict[str, Any], change: Change, version: int) -> int:
    change.new = []
    for event in change.events:
        new = txn.put(id_key(event.event_id), sequence_key(version + 1), db=dbs["event_ids"], overwrite=False)
        change.new.append(new)
        if new:
            version += 1
            txn.put(sequence_key(version), _encode((change.received_at, event)), db=dbs["log"], append=True)
    return version


def _fold(txn: Any, dbs: dict[str, Any], change: Change, settings: StoreSettings) -> None:
    """Fold new events into the profiles of their people. The store keeps every declared event name, so that a later
    bundle with another feature spec finds its history; which of them a model sees is decided when it is encoded."""
    people: dict[tuple[str, int | str], list[Past]] = {}
    for event, new in zip(change.events, change.new, strict=True):
        if new and event.item_id is not None and event.at is not None:
            past = Past(event.event_id, event.item_id, event.event, event.at, event.value)
            if event.user_id is not None:
                people.setdefault(("profiles", event.user_id), []).append(past)
            elif event.session_id is not None:
                people.setdefault(("sessions", event.session_id), []).append(past)
    for (table, person), events in people.items():
        key = id_key(person)
        profile = _read(txn, dbs[table], key) or Profile(user_id=person if table == "profiles" else None)
        names = _every_name(profile, events)
        profile = fold(profile, events, names, keep=len(profile.history) + len(events))
        profile.history = keep_newest(profile.history, settings.keep)
        profile.seen = profile.seen[-settings.seen :] if settings.seen else []
        txn.put(key, _encode(profile), db=dbs[table])


def keep_newest(history: list[Past], keep: int) -> list[Past]:
    """Return the newest `keep` events of each event name, oldest first.

    Per name and not over all: a bundle that reads purchases alone must find as many of them as the tables hold, however
    many views came after. The newest `keep` events of any choice of names are among these.
    """
    if len(history) <= keep:
        return history
    left = Counter({event.event: keep for event in history})
    kept = []
    for event in reversed(history):
        if left[event.event] > 0:
            left[event.event] -= 1
            kept.append(event)
    kept.reverse()
    return kept


def _every_name(profile: Profile, events: list[Past]) -> FeatureSpec:
    names = {e.event for e in profile.history} | {e.event for e in events}
    return FeatureSpec(
        user_id_type="string",
        item_id_type="string",
        history_length=0,
        events=[EventCode(name=name, code=i + 1) for i, name in enumerate(sorted(names))],
        fields=[],
        num_items=0,
        vocabularies={},
    )


def _read(txn: Any, db: Any, key: bytes) -> Profile | None:
    raw = txn.get(key, db=db)
    return None if raw is None else _profile.decode(raw)
