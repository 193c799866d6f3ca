"""What one process has counted. A request costs it a few microseconds: dictionaries and lists, and no library.

The clients of Prometheus and of Ray take 40 and 85 us for the ten stages of a request, a tenth and more of what an
answer takes; this takes 5 (tests/benchmarks/bench_watching.py).
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping

import msgspec

from playbill.serving.figures.names import FIGURES

Labels = tuple[str, ...]
Values = dict[tuple[str, Labels], float]


class Buckets(msgspec.Struct, array_like=True):
    """A histogram: observations by bucket, the last of which takes the rest, and their sum."""

    counts: list[int]
    total: float = 0.0


class Counts:
    """Counters and histograms of one process, from any of its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: Values = {}
        self._histograms: dict[tuple[str, Labels], Buckets] = {}

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Add to a counter."""
        key = (name, labels)
        with self._lock:
            self._counters[key] = self._counters.get(key, 0) + by

    def observe(self, name: str, values: Iterable[float], *labels: str) -> None:
        """Add observations to a histogram."""
        bounds = FIGURES[name].bounds
        with self._lock:
            found = self._buckets(name, labels)
            for value in values:
                found.counts[bisect_left(bounds, value)] += 1
                found.total += value

    def request(self, route: str, status: int, rung: str, times_ms: Mapping[str, float]) -> None:
        """Note one request and what its stages took."""
        requests = ("requests", (route, str(status)))
        bounds = FIGURES["latency_seconds"].bounds
        with self._lock:
            self._counters[requests] = self._counters.get(requests, 0) + 1
            for stage, ms in times_ms.items():
                found = self._histograms.get(("latency_seconds", (route, stage, rung)))
                if found is None:
                    found = self._buckets("latency_seconds", (route, stage, rung))
                seconds = ms * 1e-3
                found.counts[bisect_left(bounds, seconds)] += 1
                found.total += seconds

    def so_far(self) -> tuple[Values, dict[tuple[str, Labels], Buckets]]:
        """Return counters and histograms at this moment."""
        with self._lock:
            kept = {key: Buckets(list(found.counts), found.total) for key, found in self._histograms.items()}
            return dict(self._counters), kept

    def _buckets(self, name: str, labels: Labels) -> Buckets:
        empty = Buckets([0] * (len(FIGURES[name].bounds) + 1))
        return self._histograms.setdefault((name, labels), empty)
