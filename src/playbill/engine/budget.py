"""The time that an answer may take: what is left of it, and whether a step still fits in.

A step that runs is not broken off; it is not begun where it would come too late. What it took lately says how long it
will take, so that one that became slow is passed over from the next request on, and tried again after a while.
"""

from __future__ import annotations

import time

now = time.perf_counter

# In the order in which they run. Of a step that is left out, a cheaper rung answers: no towers, no retriever that reads
# a history, no ranker; creatives stand at their defaults.
SHARES = {
    "profile": 0.1,
    "tower and index": 0.25,
    "retrieve": 0.2,
    "rank": 0.3,
    "reasons": 0.02,
    "compose and explain": 0.08,
    "creative": 0.05,
}
_WEIGHT = 0.3  # of the last time, in what is expected
_FORGET = 0.8  # of what is expected of a step that was passed over, per request: so it comes to be tried again


class Pace:
    """What each step took lately, milliseconds."""

    def __init__(self) -> None:
        self._ms: dict[str, float] = {}

    def expected(self, step: str) -> float | None:
        """Return what a step is expected to take, None for one that never ran."""
        return self._ms.get(step)

    def took(self, step: str, ms: float) -> None:
        before = self._ms.get(step)
        self._ms[step] = ms if before is None else before + _WEIGHT * (ms - before)

    def gave_up(self, step: str, ms: float) -> None:
        """Note that a step was not waited for to its end, which is expected to take so long."""
        self._ms[step] = max(self._ms.get(step, 0.0), ms)

    def passed_over(self, step: str) -> None:
        if step in self._ms:
            self._ms[step] *= _FORGET


class Budget:
    """The time of one batch of requests."""

    def __init__(self, limit_ms: float, pace: Pace, spent_ms: float = 0.0) -> None:
        """Begin.

        Args:
            limit_ms: for everything.
            pace: of the engine that answers.
            spent_ms: of the limit, before now: in a queue, say.
        """
        self.late: list[str] = []  # steps that were passed over
        self.limit_ms, self._pace = limit_ms, pace
        self._ends = now() + (limit_ms - spent_ms) / 1e3

    @property
    def left_ms(self) -> float:
        return (self._ends - now()) * 1e3

    def allows(self, step: str) -> bool:
        """Return whether a step should begin: what it takes is left, and for each step behind it what that one takes,
        up to its share. A step that never ran is taken to need its share.

        A step that should not begin is noted as passed over.
        """
        need = self._pace.expected(step)
        need = self._share(step) if need is None else need
        if self.left_ms >= need + self._behind_ms(step):
            return True
        self._pace.passed_over(step)
        self.late.append(step)
        return False

    def time_for_ms(self, step: str) -> float:
        """Return how long a step may take, so that what those behind it need is left."""
        return self.left_ms - self._behind_ms(step)

    def took(self, step: str, ms: float) -> None:
        """Note what a step took."""
        self._pace.took(step, ms)

    def gave_up(self, step: str) -> None:
        """Note that a step was given up: as if it took twice the limit, so that a few requests pass it over."""
        self._pace.gave_up(step, 2 * self.limit_ms)

    def _behind_ms(self, step: str) -> float:
        """Return what the steps behind one take, each up to its share."""
        names, need = list(SHARES), 0.0
        for later in names[names.index(step) + 1 :]:
            expected = self._pace.expected(later)
            need += self._share(later) if expected is None else min(expected, self._share(later))
        return need

    def _share(self, step: str) -> float:
        return SHARES[step] * self.limit_ms


def time_for(budget: Budget | None, step: str) -> float | None:
    """Return the seconds that a step may wait for another process, at least a millisecond; None without a budget."""
    return None if budget is None else max(budget.time_for_ms(step), 1.0) / 1e3


def enough(budget: Budget | None, step: str) -> bool:
    """Return whether a step should begin; without a budget always."""
    return budget is None or budget.allows(step)
