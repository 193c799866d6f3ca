"""One retriever's best items for many people: ragged, best first, with the scores that ordered them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(slots=True)
class Lists:
    """The lists of Q queries, CSR: that of query q is rows indptr[q] .. indptr[q + 1], best first.

    Attributes:
        indptr: [Q + 1] int64.
        item: [R] int64 item_index 1..N, each once in a list.
        score: [R] float64, finite, not rising within a list. Only their order and their relative distances count, so
            any scale will do.
    """

    indptr: np.ndarray
    item: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def lengths(self) -> np.ndarray:
        """Return [Q] int64, the number of items of each list."""
        return np.diff(self.indptr)

    def take(self, queries: np.ndarray) -> Lists:
        """Return the lists of some queries, in the order given ([V] int64)."""
        lengths = self.lengths()[queries]
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = np.arange(indptr[-1]) - np.repeat(indptr[:-1] - self.indptr[:-1][queries], lengths)
        return Lists(indptr, self.item[rows], self.score[rows])

    def first(self, depth: int) -> Lists:
        """Return the lists cut to their first `depth` items."""
        lengths = np.minimum(self.lengths(), depth)
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = np.arange(indptr[-1]) - np.repeat(indptr[:-1] - self.indptr[:-1], lengths)
        return Lists(indptr, self.item[rows], self.score[rows])


def from_arrays(item: Sequence[np.ndarray], score: Sequence[np.ndarray]) -> Lists:
    """Return Q lists from Q arrays of items and of scores, each best first."""
    indptr = np.concatenate([[0], np.cumsum([len(i) for i in item])]).astype(np.int64)
    return Lists(
        indptr,
        np.concatenate([np.zeros(0, np.int64), *item]).astype(np.int64),
        np.concatenate([np.zeros(0), *score]).astype(np.float64),
    )


def join(parts: Sequence[Lists]) -> Lists:
    """Return the lists of all parts, one after the other."""
    lengths = np.concatenate([np.zeros(0, np.int64), *(p.lengths() for p in parts)])
    return Lists(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([np.zeros(0, np.int64), *(p.item for p in parts)]),
        np.concatenate([np.zeros(0), *(p.score for p in parts)]),
    )


def best_items(scores: np.ndarray, allowed: np.ndarray, depth: int) -> np.ndarray:
    """Return the best allowed items, best first; equal scores keep the lower index first, also at the cut.

    Args:
        scores: [N + 1] float; -inf cannot be listed.
        allowed: [N + 1] bool.
        depth: most items.
    """
    rows = np.flatnonzero(allowed & (scores > -np.inf))
    if len(rows) > depth:
        mine = scores[rows]
        cut = np.partition(mine, len(rows) - depth)[len(rows) - depth]
        rows = rows[mine >= cut]
    best: np.ndarray = rows[np.argsort(-scores[rows], kind="stable")][:depth]
    return best
