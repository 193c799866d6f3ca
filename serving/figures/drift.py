"""How far the scores that are shown have moved from those that the bundle's evaluation showed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

import msgspec
import numpy as np

from playbill.engine.types import Slate
from playbill.release.scores import PLACES, ScoreReference, Scores

ANSWERS = 2_000  # of one process, the last ones
LEAST = 500  # scores, below which an index is mostly chance
_SURFACE = "slate"  # what an evaluation asks for


class Shown(msgspec.Struct, array_like=True):
    """Scores by cell of the reference, and the shares that the evaluation has there; `version`: of the bundle."""

    version: str
    counts: list[int]
    reference: list[float]


class Drift:
    """The scores that one process showed last, of the bundle that answers."""

    def __init__(self, version: str, reference: ScoreReference | None) -> None:
        self._version = version
        self._rungs: dict[str, Scores] = {} if reference is None else reference.rungs
        self._last: deque[tuple[str, list[float]]] = deque(maxlen=ANSWERS)
        self._lock = threading.Lock()

    def note(self, slate: Slate) -> None:
        """Take in an answer, where the evaluation has something to hold it against."""
        if slate.surface == _SURFACE and slate.rung in self._rungs and slate.bundle == self._version:
            scores = [item.score for item in slate.items[:PLACES]]
            with self._lock:
                self._last.append((slate.rung, scores))

    def shown(self) -> dict[str, Shown]:
        """Return by rung what was shown, in the cells of the reference."""
        with self._lock:
            last = list(self._last)
        found = {}
        for rung, reference in self._rungs.items():
            scores = np.asarray([score for name, mine in last if name == rung for score in mine])
            cell = np.searchsorted(reference.edges, scores, side="right")
            counts = np.bincount(cell, minlength=len(reference.shares))
            found[rung] = Shown(self._version, counts.tolist(), reference.shares)
        return found


def psi(processes: Sequence[Shown]) -> tuple[float | None, int]:
    """Return the population stability index over some processes, None where too little was shown; and of how much.

    Sum of (q - p) ln(q / p) over the cells, p the reference's shares and q those shown, none below 1 in 10,000. Below
    0.1 nothing moved, above 0.25 much did. Processes on another bundle than the first are left out.
    """
    first = processes[0]
    counts = np.sum([mine.counts for mine in processes if mine.version == first.version], axis=0)
    total = int(counts.sum())
    if total < LEAST:
        return None, total
    q, p = np.maximum(counts / total, 1e-4), np.maximum(first.reference, 1e-4)
    return float(((q - p) * np.log(q / p)).sum()), total
