"""How much of the catalogue one round shows: the same measures for rounds of different size.

More exposures reach more items even when nothing narrows, so every round is read at one number of exposures m:

    reached items    expected number of different items among m exposures drawn from the round (rarefaction)
    effective items  1 / the probability that two exposures show one item; its estimate does not depend on m
    evenness         1 - gini, over the largest catalogue of all rounds, of m exposures drawn from the round

None of them falls because new items were published: shares of a growing catalogue would, with nothing taken away.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln

from playbill.errors import MeasureError
from playbill.measure.spread import effective_items, gini

MEASURES = ("reached_items", "effective_items", "evenness")


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


def measure_round(counts: np.ndarray, exposures: int, catalogue: int, seed: int) -> np.ndarray:
    """Return the measures of one round, in the order of MEASURES, at a common number of exposures.

    Args:
        counts: [N] int64 exposures by item, the whole catalogue of the round, at least `exposures` of them.
        exposures: m.
        catalogue: items of the largest catalogue of all rounds; those that this round lacks were not shown.
        seed: of the draw of m exposures that evenness is read from; none is drawn where the round has m of them.
    """
    drawn = counts
    if counts.sum() > exposures:
        drawn = np.random.default_rng(seed).multivariate_hypergeometric(counts, exposures, method="marginals")
    return _measures(counts, drawn, exposures, catalogue)


def standard_errors(counts: np.ndarray, exposures: int, catalogue: int) -> np.ndarray:
    """Return the standard errors of the measures of one round, people resampled in groups.

    Args:
        counts: [G, N] int64, exposures by group of people and item; groups of people drawn at random.
        exposures: m, at which reached items are read.
        catalogue: see `measure_round`.
    Source:
        Delete-a-group jackknife, Kott 2001.
    """
    groups = len(counts)
    without = counts.sum(0) - counts
    fewest = min(exposures, int(without.sum(1).min()))
    left = np.array([_measures(w, w, fewest, catalogue) for w in without])
    variance = (groups - 1) / groups * ((left - left.mean(0)) ** 2).sum(0)
    errors: np.ndarray = np.sqrt(variance)
    return errors


def _measures(counts: np.ndarray, drawn: np.ndarray, exposures: int, catalogue: int) -> np.ndarray:
    if not counts.any():  # all that a round showed was shown to the group that is left out
        return np.zeros(len(MEASURES))
    # items that are not there yet are zeros more, and each shrinks 1 - gini by the same factor
    evenness = (1 - gini(drawn)) * len(drawn) / catalogue
    return np.array([expected_distinct(counts, exposures), effective_items(counts), evenness])


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
