"""How much of the catalogue one round shows: the same measures for rounds of different size.

More exposures reach more items even when nothing narrows, so every round is read at one number of exposures m:

    coverage         expected share of the catalogue among m exposures drawn from the round (rarefaction)
    effective items  1 / the probability that two exposures show one item; its estimate does not depend on m
    evenness         1 - gini of the exposures of all items of the catalogue, of m exposures drawn from the round
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln

from playbill.errors import MeasureError
from playbill.measure.spread import effective_items, gini

MEASURES = ("coverage", "effective_items", "evenness")


def check_exposures(exposures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return every round as [G, N] int64, or raise MeasureError naming round, count and first cells."""
    checked = []
    for number, given in enumerate(exposures):
        counts = np.atleast_2d(np.asarray(given))
        if counts.ndim != 2 or not counts.size or counts.dtype.kind not in "iufb":
            raise MeasureError(
                f"round {number}: exposures are counts by item, [items] or [groups, items], got shape "
                f"{np.shape(given)} of {counts.dtype}"
            )
        bad = np.argwhere(~(counts >= 0) | ~np.isfinite(counts) | (counts != np.floor(counts)))
        if len(bad):
            first = ", ".join(f"item {i} of group {g}: {counts[g, i]}" for g, i in bad[:5].tolist())
            raise MeasureError(
                f"round {number}: an exposure count is a whole number >= 0; {len(bad):,} of {counts.size:,} are not, "
                f"first {first}"
            )
        if counts.sum() < 2:
            raise MeasureError(f"round {number}: nothing was shown ({int(counts.sum())} exposures); leave it out")
        checked.append(counts.astype(np.int64))
    groups = {len(c) for c in checked}
    if len(groups) > 1:
        raise MeasureError(f"all rounds must have one number of groups of people, got {sorted(groups)}")
    return checked


def measure_round(counts: np.ndarray, exposures: int, seed: int) -> np.ndarray:
    """Return the measures of one round, in the order of MEASURES, at a common number of exposures.

    Args:
        counts: [N] int64 exposures by item, the whole catalogue, at least `exposures` of them.
        exposures: m.
        seed: of the draw of m exposures that evenness is read from; none is drawn where the round has m of them.
    """
    drawn = counts
    if counts.sum() > exposures:
        drawn = np.random.default_rng(seed).multivariate_hypergeometric(counts, exposures, method="marginals")
    return np.array([expected_distinct(counts, exposures) / len(counts), effective_items(counts), 1 - gini(drawn)])


def standard_errors(counts: np.ndarray, exposures: int) -> np.ndarray:
    """Return the standard errors of the measures of one round, people resampled in groups.

    Args:
        counts: [G, N] int64, exposures by group of people and item; groups of people drawn at random.
        exposures: m, at which coverage is read.
    Source:
        Delete-a-group jackknife, Kott 2001.
    """
    groups = len(counts)
    whole = counts.sum(0)
    without = whole - counts
    fewest = min(exposures, int(without.sum(1).min()))
    left = np.array(
        [[expected_distinct(w, fewest) / len(w), effective_items(w), 1 - gini(w)] if w.any() else [0, 0, 0]
         for w in without]
    )  # fmt: skip
    variance: np.ndarray = (groups - 1) / groups * ((left - left.mean(0)) ** 2).sum(0)
    errors: np.ndarray = np.sqrt(variance)
    return errors


def expected_distinct(counts: np.ndarray, exposures: int) -> float:
    """Return how many different items stand in so many exposures, drawn from these without replacement, on average.

    Source:
        Hurlbert 1971, eq. 3 (rarefaction).
    """
    shown = counts[counts > 0].astype(np.float64)
    total = shown.sum()
    if exposures >= total:
        return float(len(shown))
    # the chance that none of an item's exposures is drawn: C(total - shown, m) / C(total, m)
    rest = total - shown
    possible = rest >= exposures
    rest = rest[possible]
    none = gammaln(rest + 1) - gammaln(rest - exposures + 1) - gammaln(total + 1) + gammaln(total - exposures + 1)
    return float(len(shown) - np.exp(none).sum())
