"""Item-kNN in two forms, by what people had in common and by what they did next, each a table of neighbours.

`fit_cooccurrence`  weight[i, j] = (c_ij / (sqrt(n_i n_j) + shrink)) ** weight_power
                    c_ij people who had both, n_i people who had i
`fit_transitions`   weight[i, j] = (t_ij / (m_i ** source_power * m_j ** target_power)) ** weight_power
                    t_ij = sum over pairs in which j came d = 1..window places after i of d ** -distance_power, and
                    `backward` times that for j before i; m_i events of i and `smooth` more

A weight_power below 1 is what lifts the second most where histories are long: an item that many of the history point
to a little then beats one that a single item points to strongly, as a product of probabilities would have it.

Source: B. Sarwar et al. (2001), Item-based collaborative filtering, for the first; for the second the idea of S-kNN and
sequential rules in M. Ludewig and D. Jannach (2018), Evaluation of session-based recommendation algorithms, here with a
power on either popularity and on the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from playbill.baselines.history import binary
from playbill.baselines.neighbours import LENGTH, Neighbours, join_rows, nearest

_BLOCK = 1_000_000  # pairs held at once while fitting; about 50 MB, and what processor caches still help with


@dataclass(slots=True)
class Counted:
    """Sums over pairs of items, of some items: rows low, low + 1, ... of a matrix [N + 1, N + 1]."""

    low: int
    sums: sp.csr_array


def fit_cooccurrence(
    person: np.ndarray,
    item: np.ndarray,
    num_items: int,
    shrink: float = 20.0,
    weight_power: float = 1.0,
    most: int = 200,
    decay: float = 0.0,
    length: int = LENGTH,
) -> Neighbours:
    """Return the neighbours by people in common: cosine with shrinkage.

    Args:
        person, item: [E] int64, who had which item_index, in any order; item 0 is ignored.
        num_items: N.
        shrink: added to the denominator, in people; pulls pairs with little evidence towards 0.
        weight_power: above 0; 1 leaves weights as they are, more trusts the nearest most.
        most: neighbours kept of each item.
        decay, length: see `Neighbours`.
    """
    had = binary(person, item, num_items)
    count = np.asarray(had.sum(axis=0)).ravel()
    return weigh_cooccurrence(count_cooccurrence(had), count, shrink, weight_power, most, decay, length)


def count_cooccurrence(had: sp.csr_array) -> Iterator[Counted]:
    """Yield people who had both of two items, one block of items after the other.

    Args:
        had: [P, N + 1] what `binary` gives.
    """
    by_item = had.T.tocsr()
    for low, high in _blocks(by_item @ np.asarray(had.sum(axis=1)).ravel()):  # pairs that each item meets
        yield Counted(low, (by_item[low:high] @ had).tocsr())


def weigh_cooccurrence(
    counted: Iterable[Counted],
    count: np.ndarray,
    shrink: float,
    weight_power: float,
    most: int,
    decay: float,
    length: int,
) -> Neighbours:
    """Return the neighbours that counted pairs make; see `fit_cooccurrence`.

    Args:
        counted: what `count_cooccurrence` yields; left as it is.
        count: [N + 1] people who had each item.
    """
    parts = []
    for block in counted:
        source, target = _source(block), block.sums.indices
        weight = (block.sums.data / (np.sqrt(count[source] * count[target]) + shrink)) ** weight_power
        parts.append(nearest(_with(block, weight), block.low, most))
    return join_rows(parts, len(count) - 1, decay, length)


def fit_transitions(
    person: np.ndarray,
    item: np.ndarray,
    num_items: int,
    window: int = 20,
    distance_power: float = 1.0,
    source_power: float = 0.7,
    target_power: float = 0.3,
    weight_power: float = 1.0,
    smooth: float = 0.0,
    backward: float = 0.0,
    most: int = 200,
    decay: float = 1.0,
    length: int = LENGTH,
) -> Neighbours:
    """Return the neighbours by what came next: distance-decayed transitions, normalised by popularity.

    Args:
        person, item: [E] int64, in each person's order, one person after the other; item 0 is ignored.
        num_items: N.
        window: places that are looked ahead.
        distance_power: decay with the distance, see the top of this file.
        source_power, target_power: 0 leaves counts as they are, 0.5 and 0.5 is a cosine, 1 and 0 a probability.
        weight_power: above 0; 1 leaves weights as they are, less makes them more alike.
        smooth: events added to the count of every item; pulls items with little evidence down.
        backward: how much a transition counts the other way round, 0..1.
        most: neighbours kept of each item.
        decay, length: see `Neighbours`.
    """
    counted = count_transitions(person, item, num_items, window, distance_power, backward)
    count = np.bincount(item[item > 0], minlength=num_items + 1)
    return weigh_transitions(
        counted, count, source_power, target_power, weight_power, smooth, most=most, decay=decay, length=length
    )


def count_transitions(
    person: np.ndarray,
    item: np.ndarray,
    num_items: int,
    window: int,
    distance_power: float,
    backward: float = 0.0,
) -> Iterator[Counted]:
    """Yield the sums of `fit_transitions` for one block of items after the other."""
    kept = item > 0
    person, item = person[kept], item[kept]
    by_item = np.argsort(item, kind="stable")
    starts = np.searchsorted(item[by_item], np.arange(num_items + 2))
    steps = np.arange(1, window + 1)
    worth = steps.astype(np.float64) ** -distance_power
    if backward:
        steps, worth = np.concatenate([steps, -steps]), np.concatenate([worth, backward * worth])
    for low, high in _blocks(np.diff(starts) * float(len(steps))):
        rows = by_item[starts[low] : starts[high]]
        source = item[rows] - low
        parts = []
        for step, value in zip(steps.tolist(), worth.tolist(), strict=True):
            there = rows + step
            inside = (there >= 0) & (there < len(item))
            inside &= person[np.where(inside, there, 0)] == person[rows]
            parts.append((source[inside], item[there[inside]], np.full(int(inside.sum()), value)))
        sources, targets, values = (np.concatenate(p) for p in zip(*parts, strict=True))
        sums = sp.coo_array((values, (sources, targets)), shape=(high - low, num_items + 1)).tocsr()
        yield Counted(low, sums)


def weigh_transitions(
    counted: Iterable[Counted],
    count: np.ndarray,
    source_power: float,
    target_power: float,
    weight_power: float = 1.0,
    smooth: float = 0.0,
    *,
    most: int,
    decay: float,
    length: int = LENGTH,
) -> Neighbours:
    """Return the neighbours that counted transitions make; see `fit_transitions`.

    Args:
        counted: what `count_transitions` yields; left as it is.
        count: [N + 1] int64 events of each item.
    """
    smoothed = np.maximum(count + smooth, 1).astype(np.float64)
    by_source, by_target = smoothed**-source_power, smoothed**-target_power
    parts = []
    for block in counted:
        weight = (block.sums.data * by_source[_source(block)] * by_target[block.sums.indices]) ** weight_power
        parts.append(nearest(_with(block, weight), block.low, most))
    return join_rows(parts, len(count) - 1, decay, length)


def _blocks(work: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield ranges of items with about _BLOCK pairs each."""
    total = np.cumsum(work)
    low = 0
    while low < len(work):
        done = total[low - 1] if low else 0
        high = max(int(np.searchsorted(total, done + _BLOCK, "right")), low + 1)
        yield low, high
        low = high


def _source(block: Counted) -> np.ndarray:
    """Return the row, as item_index, of each entry of a block."""
    return np.repeat(np.arange(block.low, block.low + block.sums.shape[0]), np.diff(block.sums.indptr))


def _with(block: Counted, weight: np.ndarray) -> sp.csr_array:
    """Return a block's matrix with other values."""
    return sp.csr_array((weight, block.sums.indices, block.sums.indptr), shape=block.sums.shape)
