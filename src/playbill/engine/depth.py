"""How personal the answers are: how much of their lists two people share.

Where most people get the same list, something is wrong that no error shows: a tower that collapsed, features that do
not arrive, a rule that fills the page.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any

from playbill.bundle.pages import Form
from playbill.bundle.policy import Policy
from playbill.engine.types import Page, Slate

log = logging.getLogger("playbill.engine")

PEOPLE, LEAST, PLACES = 500, 50, 10
ALARM = 0.8  # of two people's first places, on average


class Depth:
    """The last lists of the last people, whom something is known of, on one surface."""

    def __init__(self) -> None:
        self._lists: OrderedDict[Any, tuple[Any, ...]] = OrderedDict()
        self._holders: Counter[Any] = Counter()
        self._lock = threading.Lock()

    def note(self, person: Any, items: Sequence[Any]) -> None:
        """Take in what one person was shown; it replaces what was shown before.

        Args:
            items: item ids, each once, in order; the first PLACES count.
        """
        with self._lock:
            self._drop(self._lists.pop(person, ()))
            if len(self._lists) == PEOPLE:
                self._drop(self._lists.popitem(last=False)[1])
            mine = self._lists[person] = tuple(items[:PLACES])
            self._holders.update(mine)

    def shared(self) -> float | None:
        """Return the share of their first places that two people have in common on average; None below LEAST people."""
        with self._lock:
            people = len(self._lists)
            if people < LEAST:
                return None
            both = sum(holders * (holders - 1) for holders in self._holders.values())
            places = sum(map(len, self._lists.values())) / people
        return both / (people * (people - 1)) / places if places else None

    def _drop(self, items: tuple[Any, ...]) -> None:
        for item in items:
            self._holders[item] -= 1
            if not self._holders[item]:
                del self._holders[item]


class Depths:
    """How personal the slates of one engine are, by surface."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._by_surface: dict[str, Depth] = {}
        self._alarmed: set[str] = set()

    def note(self, answer: Slate | Page) -> None:
        """Take in an answer, if it is a slate for somebody of whom something is known."""
        if not isinstance(answer, Slate) or not answer.profile_version or answer.rung == "popularity":
            return
        if self._policy.surface(answer.surface).answers is not Form.SLATE:
            return
        depth = self._by_surface.setdefault(answer.surface, Depth())
        person = answer.session_id if answer.user_id is None else answer.user_id
        depth.note(person, [item.item_id for item in answer.items])

    def shared(self) -> dict[str, float]:
        """Return by surface how much of their lists two people share, 0..1, where enough were asked.

        The first time that most is the same, the log says so.
        """
        found = {name: shared for name, depth in self._by_surface.items() if (shared := depth.shared()) is not None}
        for name in {name for name, shared in found.items() if shared >= ALARM} - self._alarmed:
            self._alarmed.add(name)
            log.warning("surface %s: two people share %.0f %% of their lists on average", name, 100 * found[name])
        return found
