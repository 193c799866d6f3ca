"""How lists use the catalogue, whatever people did then: concentration, novelty, diversity. (Coverage: `ranking.py`.)

    gini       of how often each item stands in a list, over the whole catalogue: 0 where all stand there equally often,
               1 - 1/N where one item stands in every place. Lower is fairer.
    novelty    mean self-information of a list's items, -log2(share of people who know the item), in bits
    diversity  mean over a list's pairs of 1 - cosine of their vectors; of category sets, 1 - |A and B| / sqrt(|A| |B|)

    list [7, 3], item 7 known to 1 of 2 people, item 3 to 1 of 8: novelty (1 + 3) / 2 = 2 bits

A person without a list has no novelty and a list of one item no diversity: NaN, to be left out and counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from playbill.errors import MeasureError
from playbill.measure.ranking import NO_ITEM, check_lists


def exposures(recommended: np.ndarray, k: int, num_items: int) -> np.ndarray:
    """Return [N] int64: how often each item 1..N stands in the first k places of a list.

    Args:
        recommended: [U, K] integer item_index, best first, padded at the end with -1.
        k: 1 <= k <= K.
        num_items: N.
    Raises:
        MeasureError: see `ranking.user_metrics`.
    """
    top = _top(recommended, k, num_items)
    return np.bincount(top[top != NO_ITEM], minlength=num_items + 1)[1:]


def gini(counts: np.ndarray) -> float:
    """Return the Gini coefficient of exposures over the catalogue; 0 of an empty one.

    Args:
        counts: [N] >= 0, exposures of every item, those never shown included.
    Raises:
        MeasureError: not [N], or a count that is negative or not a number.
    Source:
        Gini 1912; over exposures of items, Castells, Hurley and Vargas 2022, sec. 4.
    """
    ordered = np.sort(_counts(counts))
    total, items = ordered.sum(), len(ordered)
    if total <= 0:
        return 0.0
    rank = 2 * np.arange(1, items + 1) - items - 1
    return float((rank * ordered).sum() / (items * total))


def effective_items(counts: np.ndarray) -> float:
    """Return how many equally shown items would repeat as often as these do; the catalogue's size where none repeats.

    The inverse of the chance that two exposures show one item, estimated without bias from few exposures too.

    Args:
        counts: [N] whole numbers >= 0, exposures of every item.
    Raises:
        MeasureError: not [N], or a count that is negative or not a number.
    Source:
        Simpson 1949; as an effective number, Hill 1973.
    """
    shown = _counts(counts)
    total = shown.sum()
    repeats = (shown * (shown - 1)).sum()
    return float(min(total * (total - 1) / repeats, len(shown))) if repeats > 0 else float(len(shown))


def self_information(known_by: np.ndarray, num_people: int) -> np.ndarray:
    """Return [N] float64 bits: how surprising each item is, -log2 of the share of people who know it.

    One person more than there are is supposed to know each item, so an item that nobody knows has log2(people + 1).

    Args:
        known_by: [N] number of different people who dealt with each item before.
        num_people: all people who could have.
    Raises:
        MeasureError: a count that is negative, not a number, or larger than `num_people`.
    Source:
        Zhou et al. 2010; Vargas and Castells 2011.
    """
    known = _counts(known_by)
    if len(known) and known.max() > num_people:
        item = int(known.argmax())
        raise MeasureError(f"item row {item} is known by {known[item]:.0f} people, and there are {num_people}")
    return -np.log2((known + 1) / (num_people + 1))


def shared(recommended: np.ndarray, k: int) -> float:
    """Return how much of their lists two people share: the mean, over pairs of people, of the items that both lists
    have among their first k, over the mean length of a list; 0 (all different) .. 1 (all alike), NaN below two lists.

    How deep personalisation goes is what is left to 1.

    Args:
        recommended: [U, K] integer item_index in 1..N, padded with -1.
        k: 1 <= k <= K.
    """
    top = recommended[:, :k]
    lists = int((top != NO_ITEM).any(1).sum())
    holders = np.bincount(top[top != NO_ITEM])
    length = (top != NO_ITEM).sum() / max(lists, 1)
    return float((holders * (holders - 1)).sum() / (lists * (lists - 1)) / length) if lists > 1 else float("nan")


def novelty(recommended: np.ndarray, k: int, information: np.ndarray) -> np.ndarray:
    """Return [U] float64: mean self-information in bits of each list's first k items; NaN for an empty list.

    Args:
        recommended: [U, K] integer item_index in 1..N, padded with -1.
        k: 1 <= k <= K.
        information: [N] bits, see `self_information`.
    Raises:
        MeasureError: see `ranking.user_metrics`.
    """
    top = _top(recommended, k, len(information))
    number = (top != NO_ITEM).sum(1)
    # place 0 and, from the end, place -1 take the padding
    bits = np.concatenate([[0.0], np.asarray(information, np.float64), [0.0]])
    return np.where(number > 0, bits[top].sum(1) / np.maximum(number, 1), np.nan)


def diversity(recommended: np.ndarray, k: int, vectors: Any) -> np.ndarray:
    """Return [U] float64: mean distance 1 - cosine over the pairs of each list's first k items; NaN below two items.

    Args:
        recommended: [U, K] integer item_index in 1..N, padded with -1.
        k: 1 <= k <= K.
        vectors: [N, D] float, row i - 1 is item i, an array or a scipy.sparse matrix: embeddings, or one column a
            category holding 1 where the item has it. An item whose vector is zero is far (1) from every other.
    Raises:
        MeasureError: see `ranking.user_metrics`; vectors that are not [N, D] or not finite.
    Source:
        Ziegler et al. 2005; over cosine distance, Castells, Hurley and Vargas 2022, sec. 3.
    """
    top = _top(recommended, k, vectors.shape[0] if vectors.ndim else 0)
    there = top != NO_ITEM
    return pair_diversity(np.nonzero(there)[0], top[there] - 1, len(top), vectors)


def pair_diversity(of: np.ndarray, item: np.ndarray, num_lists: int, vectors: Any) -> np.ndarray:
    """Return `diversity` of lists given as pairs: item row `item[n]` (0-based) stands in list `of[n]`, once.

    Args:
        of, item: [M] int64.
        num_lists: L.
        vectors: [N, D], see `diversity`.
    Returns:
        [L] float64, NaN below two items.
    Raises:
        MeasureError: vectors that are not [N, D] or not finite.
    """
    unit = sparse.csr_array(vectors, dtype=np.float64) if sparse.issparse(vectors) else np.asarray(vectors, np.float64)
    if unit.ndim != 2 or not np.isfinite(unit.data if sparse.issparse(unit) else unit).all():
        raise MeasureError(f"vectors must be [items, width] finite numbers, got shape {unit.shape}")
    norm = np.sqrt(np.asarray((unit * unit).sum(1)).ravel())
    there = norm > 0
    unit = sparse.diags_array(np.divide(1.0, norm, out=np.zeros_like(norm), where=there)) @ unit
    lists = sparse.csr_array((np.ones(len(of)), (of, item)), shape=(num_lists, len(norm)))
    # all pairs at once: |sum of v|^2 holds every pair twice and every item with itself
    summed = lists @ unit
    similar = np.asarray((summed * summed).sum(1)).ravel() - lists @ there.astype(np.float64)
    number = np.diff(lists.indptr)
    pairs = number * (number - 1.0)
    distance = np.clip(1 - similar / np.maximum(pairs, 1), 0, 2)  # equal vectors give 1 - 1 but for the last bit
    return np.where(pairs > 0, distance, np.nan)


def catalogue_influence(
    person: np.ndarray, item: np.ndarray, num_people: int, num_items: int
) -> dict[str, tuple[float, np.ndarray]]:
    """Return coverage and gini with what each person's lists contribute, from which their standard errors follow.

    Both are figures of all lists together and have no mean over people; the square root of the sum of squares of the
    (centred) contributions is the jackknife's standard error, and of a difference of two sources on the same people
    that of the differences. It is what lists of as many other people would vary by, and errs on the wide side.

    Args:
        person, item: [M] int64, row of the person and 0-based row of the item of every list place.
        num_people, num_items: P and N.
    Returns:
        (value, [P] float64) under `coverage` and `gini`.
    Source:
        Delete-one jackknife; its variance is never too small on average, Efron and Stein 1981.
    """
    cells = (np.ones(len(person)), (person, item))
    shown = sparse.csr_array(cells, shape=(num_people, num_items))
    shown.sum_duplicates()
    counts = np.asarray(shown.sum(0)).ravel()
    value = gini(counts)
    one_person = np.bincount(shown.indices, minlength=num_items) == 1
    whom = sparse.csr_array((np.ones(shown.nnz), shown.indices, shown.indptr), shape=shown.shape)
    return {
        "coverage": (float((counts > 0).mean()), whom @ (one_person / num_items)),
        "gini": (value, value - _gini_without(shown, counts, value)),
    }


def _gini_without(shown: Any, counts: np.ndarray, value: float) -> np.ndarray:
    """Return [P] float64: the Gini coefficient without each person's lists.

    With A the sum of |a - b| over pairs of items, gini is A / (N * exposures). One exposure less of an item brings it
    one nearer to every item below it and one away from all others, those of equal count included: except from one that
    falls with it, in the same person's lists.

    Args:
        shown: [P, N] csr, exposures by person and item; exact where a person is shown an item once.
        counts: [N], its column sums.
        value: their Gini coefficient.
    """
    num_people, num_items = shown.shape
    _, level, number = np.unique(counts, return_inverse=True, return_counts=True)
    below = (np.cumsum(number) - number)[level]
    apart = (num_items - 1 - below) - below
    by_level = (np.ones(shown.nnz), level[shown.indices], shown.indptr.copy())  # summing moves the pointers
    together = sparse.csr_array(by_level, shape=(num_people, len(number)))
    together.sum_duplicates()
    together.data *= together.data - 1
    equal_pairs = np.asarray(together.sum(1)).ravel()
    change = shown @ apart.astype(np.float64) - equal_pairs
    total, left = counts.sum(), counts.sum() - np.asarray(shown.sum(1)).ravel()
    without: np.ndarray = (value * num_items * total + change) / (num_items * np.maximum(left, 1))
    return np.where(left > 0, without, 0.0)


def _top(recommended: np.ndarray, k: int, num_items: int) -> np.ndarray:
    lists = check_lists(recommended, num_items)
    if not 1 <= k <= lists.shape[1]:
        raise MeasureError(f"cut-offs must lie in 1..{lists.shape[1]}, the length of the lists, got {k}")
    return lists[:, :k]


def _counts(counts: np.ndarray) -> np.ndarray:
    values = np.asarray(counts, np.float64)
    bad = np.flatnonzero(~(values >= 0) | ~np.isfinite(values)) if values.ndim == 1 else np.zeros(1, int)
    if values.ndim != 1 or len(bad):
        first = "" if values.ndim != 1 else f"; row {bad[0]}: {values[bad[0]]}"
        raise MeasureError(f"counts must be [items] numbers >= 0, got shape {values.shape}{first}")
    return values
