"""iALS: matrix factorisation for implicit feedback by alternating least squares.

    minimise  alpha * sum over (u, i) had of (1 - u'v)^2  +  sum over all (u, i) of (u'v)^2
              + l2 * ( sum_u (alpha * n_u + A)^nu |u|^2  +  sum_i (alpha * n_i + U)^nu |v|^2 )

n_u items had by u, n_i people who had i, A items that anybody had, U people. The ridge that grows with activity, and
the tuning of it, are what makes this model strong.

Source: Y. Hu, Y. Koren, C. Volinsky (2008), Collaborative filtering for implicit feedback datasets; S. Rendle et al.
(2022), Revisiting the performance of iALS on item recommendation benchmarks, equations 1 to 6 (here times 1 / alpha_0).
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from playbill.baselines.history import binary, had_matrix
from playbill.errors import ConfigError, FeatureError
from playbill.tables.files import write_atomic

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


def score_ials(model: Ials, indptr: np.ndarray, item: np.ndarray, length: int | None = None) -> np.ndarray:
    """Return [B, N + 1] float32, higher is better, each person folded in from their history alone; column 0 is -inf.

    Args:
        indptr, item: B histories, CSR, oldest first; items that the model never saw are passed over.
        length: newest distinct items of a history that count; None counts all.
    """
    had = had_matrix(indptr, item, model.num_items, length)
    known = model.item_factors.any(axis=1)
    had = (had @ sp.diags_array(known.astype(np.float32))).tocsr()
    had.eliminate_zeros()
    people = _solve(had, model.item_factors, int(known.sum()), model)
    scores: np.ndarray = (people @ model.item_factors.T).astype(np.float32)
    scores[:, 0] = -np.inf
    return scores


@dataclass(slots=True)
class FoldingIals:
    """A fitted model as it answers requests: each person's factors from one small system of equations.

    Attributes:
        item_factors: [N + 1, D] float32; zero for items that nobody had.
        everything: [D, D] float64, sum over all items of v v'.
        num_known: items that anybody had.
        alpha, l2, nu: as fitted.
        length: newest distinct items of a history that count.
    """

    item_factors: np.ndarray
    everything: np.ndarray
    num_known: int
    alpha: float
    l2: float
    nu: float
    length: int

    def system(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what is solved for a person who had these items: matrix [D, D] and their factors [H, D], float64.

        Args:
            items: [H] int64 known items, each once; at least one that the model saw, or there is nothing to solve.
        """
        mine = self.item_factors[items].astype(np.float64)
        had = int(mine.any(axis=1).sum())
        left = self.everything + self.alpha * (mine.T @ mine)
        left[np.diag_indices_from(left)] += self.l2 * (self.alpha * had + self.num_known) ** self.nu
        return left, mine

    def person(self, items: np.ndarray) -> np.ndarray:
        """Return [D] float32, the factors of a person who had these items; zero where the model saw none of them."""
        left, mine = self.system(items)
        if not mine.any():
            return np.zeros(len(left), np.float32)
        factors: np.ndarray = np.linalg.solve(left, self.alpha * mine.sum(axis=0)).astype(np.float32)
        return factors


def write_ials(path: Path | str, model: Ials, length: int) -> None:
    """Write a model as .npz, with all that folding a person in needs."""
    factors = model.item_factors.astype(np.float32)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        item_factors=factors,
        everything=factors.T.astype(np.float64) @ factors.astype(np.float64),
        numbers=np.asarray([model.alpha, model.l2, model.nu], np.float64),
        length=np.int64(length),
    )
    write_atomic(path, buffer.getvalue())


def read_ials(path: Path | str) -> FoldingIals:
    """Return what `write_ials` wrote.

    Raises:
        FeatureError: not such a file, or its arrays do not fit each other or are not finite.
    """
    try:
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
            factors, everything = file["item_factors"], file["everything"]
            alpha, l2, nu = (float(value) for value in file["numbers"])
            length = int(file["length"])
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise FeatureError(f"{path} holds no factors of iALS: {error}") from error
    if factors.ndim != 2 or len(factors) < 1 or everything.shape != (factors.shape[1],) * 2 or length < 1:
        raise FeatureError(
            f"{path} holds no factors of iALS: factors {factors.shape} and their products {everything.shape} do not "
            f"fit each other, or length {length} is below 1"
        )
    if not (np.isfinite(factors).all() and np.isfinite(everything).all() and np.isfinite([alpha, l2, nu]).all()):
        raise FeatureError(f"{path} holds factors of iALS that are not finite; fit them again")
    return FoldingIals(factors, everything, int(factors.any(axis=1).sum()), alpha, l2, nu, length)


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
