"""EASE: a linear item-item model with a closed form; strong on small catalogues, and cubic in their size.

    P = (X'X + l2 I)^-1,   B = -P / diag(P) by column, diag(B) = 0,   scores = X B

Source: H. Steck (2019), Embarrassingly shallow autoencoders for sparse data, equation 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from playbill.baselines.history import binary, had_matrix
from playbill.baselines.neighbours import Neighbours, join_rows, nearest
from playbill.errors import ConfigError

MAX_ITEMS = 20_000  # 8 GB and some minutes on two cores
_ROWS = 1_024


@dataclass(slots=True)
class Ease:
    """A fitted model over the A items that anybody had.

    Attributes:
        num_items: N.
        items: [A] int64 item_index, ascending.
        weights: [A, A] float32, row = item had, column = item scored; diagonal 0.
    """

    num_items: int
    items: np.ndarray
    weights: np.ndarray


@dataclass(slots=True)
class Pairs:
    """How many people had both of two items, of the A items that anybody had; what every l2 starts from.

    Attributes:
        num_items: N.
        items: [A] int64 item_index, ascending.
        both: [A, A] float64 X'X.
    """

    num_items: int
    items: np.ndarray
    both: np.ndarray


def count_pairs(person: np.ndarray, item: np.ndarray, num_items: int, max_items: int = MAX_ITEMS) -> Pairs:
    """Return X'X of a log; see `fit_ease`."""
    items = np.unique(item[item > 0])
    if len(items) > max_items:
        raise ConfigError(
            f"EASE inverts a matrix of items by items: {len(items):,} items would take "
            f"{20 * len(items) ** 2 / 1e9:.0f} GB, at most {max_items:,} are allowed; leave EASE out or raise max_items"
        )
    had = binary(person, item, num_items)[:, items]
    return Pairs(num_items, items, (had.T @ had).toarray(order="F"))


def fit_ease(
    person: np.ndarray, item: np.ndarray, num_items: int, l2: float = 500.0, max_items: int = MAX_ITEMS
) -> Ease:
    """Return the fitted model.

    Args:
        person, item: [E] int64, who had which item_index, in any order; item 0 is ignored, repeats count once.
        num_items: N.
        l2: regularisation, in people; above 0.
        max_items: most items that anybody had. Memory is about 20 bytes for each pair of items.
    Raises:
        ConfigError: more items than that, or l2 not above 0.
    """
    _check_l2(l2)
    return solve_ease(count_pairs(person, item, num_items, max_items), l2, overwrite=True)


def solve_ease(pairs: Pairs, l2: float, overwrite: bool = False) -> Ease:
    """Return the model of counted pairs; see `fit_ease`.

    Args:
        overwrite: take the memory of the pairs, which are of no use afterwards.
    """
    _check_l2(l2)
    if not len(pairs.items):
        return Ease(pairs.num_items, pairs.items, np.zeros((0, 0), np.float32))
    gram = pairs.both if overwrite else pairs.both.copy(order="F")
    gram[np.diag_indices_from(gram)] += l2
    # in place: the triangle of the inverse takes the place of the matrix
    factor, failed = scipy.linalg.lapack.dpotrf(gram, lower=1, overwrite_a=1)
    inverse, singular = scipy.linalg.lapack.dpotri(factor, lower=1, overwrite_c=1)
    assert not failed and not singular  # X'X + l2 I is positive definite
    weights = inverse.astype(np.float32)
    weights = np.tril(weights) + np.tril(weights, -1).T
    weights /= -np.diag(inverse).astype(np.float32)
    weights[np.diag_indices_from(weights)] = 0
    return Ease(pairs.num_items, pairs.items, weights)


def score_ease(ease: Ease, indptr: np.ndarray, item: np.ndarray, length: int | None = None) -> np.ndarray:
    """Return [B, N + 1] float32, higher is better: 0 without evidence, column 0 (unknown) -inf.

    Args:
        indptr, item: B histories, CSR, oldest first; items that the model never saw are passed over.
        length: newest distinct items of a history that count; None counts all.
    """
    scores = np.zeros((len(indptr) - 1, ease.num_items + 1), np.float32)
    if len(ease.items):
        scores[:, ease.items] = had_matrix(indptr, item, ease.num_items, length)[:, ease.items] @ ease.weights
    scores[:, 0] = -np.inf
    return scores


def ease_neighbours(ease: Ease, most: int, length: int, signed: bool = True) -> Neighbours:
    """Return the model as a table of neighbours: of each item had, the `most` weights that are largest in size.

    Its scores are those of `score_ease` less what the small weights would add; a table as long as the catalogue has
    them all.

    Args:
        most: weights kept of each item.
        length: newest distinct items of a history that count.
        signed: whether weights below 0 may be among them.
    """
    parts = []
    for low in range(0, len(ease.items), _ROWS):
        rows = ease.weights[low : low + _ROWS]
        size = np.abs(rows) if signed else rows
        if most < rows.shape[1]:
            cut = np.partition(size, rows.shape[1] - most, axis=1)[:, rows.shape[1] - most, None]
            rows = np.where(size >= cut, rows, 0)
        for row, values in enumerate(rows, low):
            kept = np.flatnonzero(values)
            line = sp.csr_array((values[kept], ease.items[kept], [0, len(kept)]), shape=(1, ease.num_items + 1))
            parts.append(nearest(line, int(ease.items[row]), most, signed))
    if not parts:
        parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    return join_rows(parts, ease.num_items, 0.0, length)


def _check_l2(l2: float) -> None:
    if not l2 > 0:
        raise ConfigError(f"l2 of EASE must be above 0, got {l2}")
