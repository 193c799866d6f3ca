"""Which items of a person's past speak for what is like them: what they say was bad is nothing to recommend by."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from playbill.features.fold import Past
from playbill.state.events import Id
from playbill.tables.schema import EventKind


def against(history: Sequence[Past], kinds: Sequence[EventKind]) -> frozenset[Id]:
    """Return the items that no reason and no shelf may be because of.

    An item speaks for its like where some event of it has a utility above 0, as the event is declared; but the newest
    value in a declared range decides where there is one, from the middle of the range on for the item, and an event
    whose utility is below 0 is a verdict against it. An event that nobody declared speaks for its item.

    Args:
        history: oldest first.
        kinds: what is declared of events.
    """
    if not kinds:
        return frozenset()
    said = _said(tuple(kinds))
    verdict: dict[Id, bool] = {}
    chosen: set[Id] = set()
    for event in history:
        utility, middle = said.get(event.event, (1.0, None))
        if utility < 0:
            verdict[event.item_id] = False
        elif utility > 0:
            chosen.add(event.item_id)
            if middle is not None and event.value is not None:
                verdict[event.item_id] = event.value >= middle
    return frozenset(e.item_id for e in history if not verdict.get(e.item_id, e.item_id in chosen))


@lru_cache(maxsize=8)
def _said(kinds: tuple[EventKind, ...]) -> dict[str, tuple[float, float | None]]:
    """Return by name what an event is worth, and the middle of the range of its value where one is declared."""
    return {
        kind.name: (kind.utility, None if kind.low is None or kind.high is None else (kind.low + kind.high) / 2)
        for kind in kinds
    }
