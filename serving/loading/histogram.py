"""Latencies counted as HdrHistogram counts them: three significant digits at every size, in a fixed number of buckets.

Values up to 2,047 us have a bucket each; above, every doubling is cut into 1,024 equal buckets, so a value is told from
its neighbours by less than a thousandth of itself. Counts of two runs may be added. The package `hdrhistogram` lays out
its buckets the same way, but records in Python, value by value, and asks for setuptools at run time; here one call
records a whole run.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_HALF = 1024  # 2 * 10**3 values must differ by one unit: 2048 of them, the lower half of which a coarser bucket has
_HIGHEST_US = 3_600_000_000  # an hour; what is longer counts as that
PERCENTILES = (50.0, 90.0, 99.0, 99.9)


class Histogram:
    """Counts of durations.

    Attributes:
        counts: [buckets] int64.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(int(_bucket(np.array([_HIGHEST_US]))[0]) + 1, np.int64)

    def record(self, seconds: np.ndarray) -> None:
        """Count durations, [N] float seconds, 0 or more."""
        us = np.clip(np.rint(np.asarray(seconds) * 1e6), 0, _HIGHEST_US).astype(np.int64)
        self.counts += np.bincount(_bucket(us), minlength=len(self.counts))

    @property
    def total(self) -> int:
        """How many were counted."""
        return int(self.counts.sum())

    def percentile_ms(self, percentile: float) -> float | None:
        """Return the milliseconds that this share of the durations, in percent, did not exceed; None where there are
        none.

        It is the highest value of its bucket, as HdrHistogram has it.
        """
        total = self.total
        if not total:
            return None
        rank = max(int(percentile / 100 * total + 0.5), 1)
        return float(_highest_us(int(np.searchsorted(np.cumsum(self.counts), rank)))) / 1e3

    def summary(self) -> dict[str, float | None]:
        """Return the usual percentiles, the largest and the mean, all in milliseconds."""
        found = {f"p{p:g}_ms": self.percentile_ms(p) for p in PERCENTILES}
        return {**found, "max_ms": self.percentile_ms(100.0), "mean_ms": self._moments()[0] if self.total else None}

    def sparse(self) -> dict[str, Any]:
        """Return the buckets that are not empty: each one's highest value in microseconds, and its count."""
        used = np.flatnonzero(self.counts)
        return {"up_to_us": [_highest_us(int(i)) for i in used], "count": self.counts[used].tolist()}

    def hgrm(self) -> str:
        """Return the text that HdrHistogram's tools plot: percentiles with five steps a halving of what is left.

        Values are milliseconds. Nothing but the head and the foot where nothing was counted.
        """
        lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
        total, reached = self.total, np.cumsum(self.counts)
        level = 0.0
        while total:
            bucket = int(np.searchsorted(reached, max(int(level / 100 * total + 0.5), 1)))
            value, count = _highest_us(bucket) / 1e3, int(reached[bucket])
            if count == total:
                lines.append(f"{value:12.3f} {1:14.12f} {count:10d}")
                break
            lines.append(f"{value:12.3f} {level / 100:14.12f} {count:10d} {100 / (100 - level):14.2f}")
            halvings = int(np.log2(100 / (100 - level))) + 1
            level += 100 / (5 * 2**halvings)
        mean, deviation = self._moments()
        lines += [
            f"#[Mean    = {mean:12.3f}, StdDeviation   = {deviation:12.3f}]",
            f"#[Max     = {self.percentile_ms(100.0) or 0:12.3f}, Total count    = {total:12d}]",
            f"#[Buckets = {len(self.counts) // _HALF:12d}, SubBuckets     = {2 * _HALF:12d}]",
        ]
        return "\n".join(lines) + "\n"

    def _moments(self) -> tuple[float, float]:
        """Return mean and standard deviation in milliseconds, with the middle of each bucket for its values."""
        used = np.flatnonzero(self.counts)
        if not len(used):
            return 0.0, 0.0
        weights = self.counts[used] / self.counts.sum()
        middle = np.array([_middle_us(int(i)) for i in used]) / 1e3
        mean = float(weights @ middle)
        return mean, float(np.sqrt(weights @ (middle - mean) ** 2))


def _bucket(us: np.ndarray) -> np.ndarray:
    """Return the bucket of each value, [N] int64 from [N] int64 microseconds."""
    # frexp's exponent is the number of bits; exact, for an hour has 32 of them and a float 53
    doublings = np.maximum(np.frexp(us.astype(np.float64))[1].astype(np.int64) - 11, 0)
    found: np.ndarray = doublings * _HALF + (us >> doublings)
    return found


def _bounds(bucket: int) -> tuple[int, int]:
    """Return the lowest value of a bucket, in microseconds, and how many values it holds."""
    doublings = max(bucket // _HALF - 1, 0)
    return (bucket - doublings * _HALF) << doublings, 1 << doublings


def _highest_us(bucket: int) -> int:
    low, width = _bounds(bucket)
    return low + width - 1


def _middle_us(bucket: int) -> int:
    low, width = _bounds(bucket)
    return low + width // 2
