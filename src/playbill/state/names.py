"""Histories as the store keeps them: of every event name, so that any later bundle finds those that it reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from playbill.features.fold import Past, Profile
from playbill.features.spec import EventCode, FeatureSpec


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


def every_name(profile: Profile, events: Sequence[Past]) -> FeatureSpec:
    """Return a spec by which a profile and more events are folded, whatever their names."""
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
