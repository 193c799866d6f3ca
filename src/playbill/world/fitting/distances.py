"""How far a world's aggregates are from a real log's, each distance by its name, and how far a log is from itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import optimize, stats

from playbill.world.fitting.found import Sample

SPLITS = 20


def wasserstein_of_logs(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean shift of log(value / mean) between two samples: 0.1 is ten per cent on average.

    Whole numbers are counts: the denser sample is thinned at random (each count binomial) until the mean of the units
    that still have any is the other's, so that a longer log is no difference.

    Args:
        a, b: [n] float64 >= 0.
    """
    a, b = a[a > 0], b[b > 0]
    if np.all(a == np.rint(a)) and np.all(b == np.rint(b)):
        least = min(a.mean(), b.mean())
        a, b = _thinned(a, least), _thinned(b, least)
    return float(stats.wasserstein_distance(np.log(a / a.mean()), np.log(b / b.mean())))


def total_variation(a: np.ndarray, b: np.ndarray) -> float:
    """Return half the sum of absolute differences between two histograms' shares: 0.1 is a tenth in other bins.

    Args:
        a, b: [n, bins] counts; bins that only one of them has are left out.
    """
    bins = min(a.shape[1], b.shape[1])
    first, second = (x[:, :bins].sum(0) / x[:, :bins].sum() for x in (a, b))
    return float(np.abs(first - second).sum() / 2)


def kolmogorov_smirnov(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference between two samples' cumulative shares."""
    return float(stats.ks_2samp(a, b).statistic)


DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "wasserstein of logs": wasserstein_of_logs,
    "total variation": total_variation,
    "kolmogorov-smirnov": kolmogorov_smirnov,
}


def noise_floor(sample: Sample, seed: int) -> float:
    """Return the mean distance between two random halves of a real log's units: what no world need get below."""
    measure = DISTANCES[sample.distance]
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(SPLITS):
        first = rng.permutation(len(sample.values)) < len(sample.values) // 2
        found.append(measure(sample.values[first], sample.values[~first]))
    return float(np.mean(found))


def _thinned(counts: np.ndarray, mean: float) -> np.ndarray:
    """Return the counts thinned so that those above 0 have this mean."""
    if mean >= counts.mean() or mean <= 1:
        return counts

    def excess(share: float) -> float:
        # of a count n, n * share are left on average, and none at all with probability (1 - share)^n
        return float(counts.mean() * share / np.mean(-np.expm1(counts * np.log1p(-share)))) - mean

    share = float(optimize.brentq(excess, 1e-9, 1 - 1e-9))
    kept = np.random.default_rng(0).binomial(counts.astype(np.int64), share).astype(np.float64)
    return np.asarray(kept[kept > 0])
