"""The ladder of rungs: where an answer can stand on this machine, and how it comes down when a part fails."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from playbill.engine.row import Row
from playbill.errors import trace

log = logging.getLogger("playbill.engine")

RUNGS = ("full", "retrieval", "item_knn", "popularity")


class Ladder:
    """Rungs of one engine, best first.

    Attributes:
        fallbacks: of the policy.
        reach: by rung, why it cannot be reached here; empty where it can.
        faults: how often a part failed while answering, by part.
    """

    def __init__(self, fallbacks: Sequence[str], reach: dict[str, str]) -> None:
        self.fallbacks, self.reach = fallbacks, reach
        self.faults: Counter[str] = Counter()

    @property
    def rungs(self) -> list[str]:
        """Rungs that can be reached here, best first."""
        return [name for name in self.fallbacks if not self.reach[name]]

    def start(
        self, note: str, unable: Mapping[str, str], among: Collection[str], impersonal: Collection[str]
    ) -> tuple[str, list[str]]:
        """Return the best rung for one request, and why it is not a better one.

        Args:
            note: why nothing personal may be used; empty where something may.
            unable: by rung, what else stands in its way for this request.
            among: rungs that this answer can stand on.
            impersonal: rungs that need nobody known.
        """
        why: list[str] = []
        for name in self.fallbacks:
            if name not in among:
                continue
            obstacle = self.reach[name] or unable.get(name, "") or (note if name not in impersonal else "")
            if not obstacle:
                return name, why
            if obstacle not in why:
                why.append(obstacle)
        return "popularity", why

    def lower(self, rows: Sequence[Row], failed: str, why: str) -> None:
        """Move rows to the best rung that stands below the failed one."""
        below = next(name for name in RUNGS[RUNGS.index(failed) + 1 :] if name in self.rungs)
        for row in rows:
            row.rung, row.probabilities = below, {}
            row.why.append(why)

    def fault(self, part: str, error: Exception) -> None:
        """Count a failure of a part; the first of each stands in the log."""
        if not self.faults[part]:
            log.error("%s failed; answering from a lower rung\n%s", part, trace(error))
        self.faults[part] += 1


def first_line(error: Exception) -> str:
    """Return what an error says of itself, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
