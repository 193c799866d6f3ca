"""EASE: a linear item-item model with a closed form; strong on small catalogues, and cubic in their size.

    P = (X'X + l2 I)^-1,   B = -P / diag(P) by column, diag(B) = 0,   scores = X B

Source: H. Steck (2019), Embarrassingly shallow autoencoders for sparse data, equation 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from playbill.baselines.neighbours import binary
from playbill.errors import ConfigError

MAX_ITEMS = 20_000  # 8 GB and some minutes on two cores


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
    if not l2 > 0:
        raise ConfigError(f"l2 of EASE must be above 0, got {l2}")
    items = np.unique(item[item > 0])
    if len(items) > max_items:
        raise ConfigError(
            f"EASE inverts a matrix of items by items: {len(items):,} items would take "
            f"{20 * len(items) ** 2 / 1e9:.0f} GB, at most {max_items:,} are allowed; leave EASE out or raise max_items"
        )
    if not len(items):
        return Ease(num_items, items, np.zeros((0, 0), np.float32))
    had = binary(person, item, num_items)[:, items]
    gram = (had.T @ had).toarray(order="F")
    gram[np.diag_indices_from(gram)] += l2
    # in place: the triangle of the inverse takes the place of the matrix
    factor, failed = scipy.linalg.lapack.dpotrf(gram, lower=1, overwrite_a=1)
    inverse, singular = scipy.linalg.lapack.dpotri(factor, lower=1, overwrite_c=1)
    assert not failed and not singular  # X'X + l2 I is positive definite
    weights = inverse.astype(np.float32)
    weights = np.tril(weights) + np.tril(weights, -1).T
    weights /= -np.diag(inverse).astype(np.float32)
    weights[np.diag_indices_from(weights)] = 0
    return Ease(num_items, items, weights)


def score_ease(ease: Ease, indptr: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Return [B, N + 1] float32, higher is better: 0 without evidence, column 0 (unknown) -inf.

    Args:
        indptr, item: B histories, CSR, in any order; items that the model never saw are passed over.
    """
    scores = np.zeros((len(indptr) - 1, ease.num_items + 1), np.float32)
    if len(ease.items):
        scores[:, ease.items] = had_matrix(indptr, item, ease.num_items)[:, ease.items] @ ease.weights
    scores[:, 0] = -np.inf
    return scores


def had_matrix(indptr: np.ndarray, item: np.ndarray, num_items: int) -> sp.csr_array:
    """Return [B, N + 1] float32 of 1 where a history holds an item, however often; column 0 is empty."""
    item = item[indptr[0] : indptr[-1]]  # a slice of a longer indptr is a valid one
    person = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    kept = item > 0
    shape = (len(indptr) - 1, num_items + 1)
    matrix = sp.coo_array((np.ones(kept.sum(), np.float32), (person[kept], item[kept])), shape=shape).tocsr()
    matrix.data[:] = 1
    return matrix
