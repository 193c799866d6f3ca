"""iALS: matrix factorisation for implicit feedback by alternating least squares.

    minimise  alpha * sum over (u, i) had of (1 - u'v)^2  +  sum over all (u, i) of (u'v)^2
              + l2 * ( sum_u (alpha * n_u + A)^nu |u|^2  +  sum_i (alpha * n_i + U)^nu |v|^2 )

n_u items had by u, n_i people who had i, A items that anybody had, U people. The ridge that grows with activity, and
the tuning of it, are what makes this model strong.

Source: Y. Hu, Y. Koren, C. Volinsky (2008), Collaborative filtering for implicit feedback datasets; S. Rendle et al.
(2022), Revisiting the performance of iALS on item recommendation benchmarks, equations 1 to 6 (here times 1 / alpha_0).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from playbill.baselines.ease import had_matrix
from playbill.baselines.neighbours import binary
from playbill.errors import ConfigError

_ROWS = 512  # systems solved together; 512 of width 64 take 17 MB


@dataclass(slots=True)
class Ials:
    """A fitted model.

    Attributes:
        item_factors: [N + 1, D] float64; zero for items that nobody had.
        alpha, l2, nu: as fitted, for folding in.
    """

    item_factors: np.ndarray
    alpha: float
    l2: float
    nu: float

    @property
    def num_items(self) -> int:
        return len(self.item_factors) - 1


def fit_ials(
    person: np.ndarray,
    item: np.ndarray,
    num_items: int,
    factors: int = 64,
    alpha: float = 3.0,
    l2: float = 0.01,
    nu: float = 1.0,
    rounds: int = 16,
    seed: int = 0,
) -> Ials:
    """Return the fitted model.

    Args:
        person, item: [E] int64, who had which item_index, in any order; item 0 is ignored, repeats count once.
        num_items: N.
        factors: D, of a person and of an item.
        alpha: weight of a pair that was had, against 1 for every pair; 1 to 40 is usual.
        l2: ridge; 0.001 to 0.03 is usual with nu = 1.
        nu: 0 regularises everybody alike, 1 in proportion to what they did.
        rounds: passes over people and items.
        seed: of the first item factors.
    Raises:
        ConfigError: a setting out of range.
    """
    for name, value in (("factors", factors), ("alpha", alpha), ("l2", l2), ("rounds", rounds)):
        if not value > 0:
            raise ConfigError(f"{name} of iALS must be above 0, got {value}")
    had = binary(person, item, num_items)
    by_item = had.T.tocsr()
    known = np.diff(by_item.indptr) > 0
    start = np.random.default_rng(seed).normal(0, 0.1 / np.sqrt(factors), (num_items + 1, factors))
    model = Ials(start * known[:, None], alpha, l2, nu)
    for _ in range(rounds):
        people = _solve(had, model.item_factors, int(known.sum()), model)
        model.item_factors = _solve(by_item, people, len(people), model)
    return model


def score_ials(model: Ials, indptr: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Return [B, N + 1] float32, higher is better, each person folded in from their history alone; column 0 is -inf.

    Args:
        indptr, item: B histories, CSR, in any order; items that the model never saw are passed over.
    """
    had = had_matrix(indptr, item, model.num_items)
    known = model.item_factors.any(axis=1)
    had = (had @ sp.diags_array(known.astype(np.float32))).tocsr()
    had.eliminate_zeros()
    people = _solve(had, model.item_factors, int(known.sum()), model)
    scores: np.ndarray = (people @ model.item_factors.T).astype(np.float32)
    scores[:, 0] = -np.inf
    return scores


def _solve(had: sp.csr_array, other: np.ndarray, num_other: int, model: Ials) -> np.ndarray:
    """Return the least-squares factors of each row of `had` [R, C], given those of the columns.

    Args:
        other: [C, D] factors of the columns.
        num_other: columns that count as pairs not had.
    """
    width = other.shape[1]
    everything = other.T @ other
    counts = np.diff(had.indptr)
    ridge = model.l2 * (model.alpha * counts + num_other) ** model.nu
    factors = np.zeros((had.shape[0], width))
    some = np.flatnonzero(counts)  # whoever had nothing has the factors 0
    for block in np.split(some, range(_ROWS, len(some), _ROWS)):
        left = np.empty((len(block), width, width))
        right = np.empty((len(block), width, 1))
        for place, row in enumerate(block):
            mine = other[had.indices[had.indptr[row] : had.indptr[row + 1]]]
            left[place] = model.alpha * (mine.T @ mine)
            right[place, :, 0] = model.alpha * mine.sum(axis=0)
        left += everything
        left[:, np.arange(width), np.arange(width)] += ridge[block, None]
        factors[block] = np.linalg.solve(left, right)[:, :, 0]
    return factors
