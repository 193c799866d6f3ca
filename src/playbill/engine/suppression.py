"""What a person is not shown again, and for how long: by what they did with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from playbill.engine.catalogue import DAY_US
from playbill.features.fold import Past


def suppressed(
    days: Mapping[str, float | None], past: Sequence[Past], seen: list[int | str], num_events: int, at: int
) -> list[int | str]:
    """Return item ids that are hidden by an event whose time has not passed.

    The store keeps the newest events of each name, and the ids of all items. Where what it dropped of a name may hide
    something still, nobody knows which items those were, and all that was ever seen stays hidden: rather one item too
    few than one that was to be hidden.

    Args:
        days: by event name; None is for ever.
        past: stored events, oldest first.
        seen: ids of every event ever, `num_events` of them in all.
        at: UTC microseconds of the answer.
    """
    since = {
        name: None if length is None else at - round(length * DAY_US) for name, length in days.items() if length != 0
    }
    hidden: dict[int | str, None] = {}
    oldest: dict[str, int] = {}
    for event in past:
        if event.event in since:
            start = since[event.event]
            oldest.setdefault(event.event, event.at)
            if start is None or event.at > start:
                hidden[event.item_id] = None
    if num_events > len(past):  # a name of which something was dropped has as many events as any
        counts = Counter(event.event for event in past)
        most = max(counts.values(), default=0)
        for name, first in oldest.items():
            start = since[name]
            if counts[name] == most and (start is None or first > start):
                return seen
    return list(hidden)
