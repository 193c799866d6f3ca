"""What the ranker tells apart: each training row's item from items that its person never touches in training time.

Two kinds of these negatives. Uniform ones come evenly from the catalogue. Hard ones come evenly from the top of the
list that a tower, which has not seen the row, made for it: candidates like those the ranker will get. Items that the
person touches later in training time are left out as well, so the label means "interacts with it in training time".

Hard negatives make items of the list look worse than they are, next to positives from outside it. What they add is
known, so it is taken out: a candidate in the list is a negative `1 + hard * N / (pool * uniform)` times as often as
others, and the logarithm of that is added to its odds of being a negative while training (`list_offset`). What remains,
and what `p_interact` means when serving: the probability that an item is the one interacted with and not one of
`uniform_negatives` items drawn evenly from the catalogue. It orders items and people; it is not the share of shown
items that will be clicked, which only a decisions log could teach.

Source of the correction: the logQ argument of J. Yi et al. (2019), applied to binary odds.
"""

from __future__ import annotations

import math

import numpy as np

from playbill.training.validation import seen_mask

_TRIES = 8


class Touched:
    """Which items each person touches in training time.

    Args:
        person, item: [E] int64 of the events, item_index >= 1.
        num_people, num_items: sizes.
    """

    def __init__(self, person: np.ndarray, item: np.ndarray, num_people: int, num_items: int) -> None:
        self.stride = num_items + 1
        self.keys = np.unique(person * self.stride + item)  # ascending
        self.indptr = np.searchsorted(self.keys, np.arange(num_people + 1) * self.stride)
        self.item = self.keys % self.stride

    def holds(self, person: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Return whether each person has touched each item; the two broadcast."""
        wanted = person * self.stride + item
        held: np.ndarray = self.keys[np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)] == wanted
        return held

    def mask(self, person: np.ndarray) -> np.ndarray:
        """Return [B, N] bool, True where person [B] has touched item_index column + 1."""
        return seen_mask(self.indptr, self.item, person, self.stride - 1)


def candidates_of(
    target: np.ndarray,
    person: np.ndarray,
    top: np.ndarray,
    touched: Touched,
    uniform: int,
    hard: int,
    draw: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the candidates of B rows and which of them count.

    Args:
        target: [B] int64 item_index of the positives.
        person: [B] int64.
        top: [B, pool] item_index, the tower's list for each row without touched items; 0 where it ends.
        uniform, hard: negatives of each kind.
    Returns:
        candidates [B, 1 + uniform + hard] int64, positive first; counts [B, ...] float32, 0 where no negative was
        found.
    """
    rows = len(target)
    drawn = draw.integers(1, touched.stride, (rows, uniform))
    for _ in range(_TRIES):
        bad = touched.holds(person[:, None], drawn)
        if not bad.any():
            break
        drawn = np.where(bad, draw.integers(1, touched.stride, drawn.shape), drawn)
    fine = ~touched.holds(person[:, None], drawn)
    taken = np.take_along_axis(top, draw.integers(0, top.shape[1], (rows, hard)), 1).astype(np.int64)
    chosen = np.concatenate([target[:, None], drawn, taken], 1)
    counts = np.concatenate([np.ones((rows, 1), bool), fine, taken > 0], 1)
    return chosen, counts.astype(np.float32)


def list_offset(num_items: int, pool: int, uniform: int, hard: int) -> float:
    """Return the logarithm of how many times more often a candidate of the list is drawn as a negative than another.

    1682 items, lists of 100, 4 uniform and 4 hard: log(1 + 4 * 1682 / (100 * 4)) = log(17.82) = 2.88
    """
    return math.log1p(hard * num_items / (min(pool, num_items) * uniform))
