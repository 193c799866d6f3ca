"""Weights of a blend by conditional logit: each person chose what they did out of all that the members proposed.

For query q with candidates C_q, targets T_q among them and features x:

    minimise  mean over q of  [ log sum over C_q of exp(w x_i)  -  mean over T_q of w x_i ]  +  l2 / 2 * |w|^2

with x scaled to unit deviation within a query, so that one l2 holds for all features. Convex, so there is one answer.
Queries none of whose targets any member proposed say nothing about the weights and are left out. Of the candidates that
were not chosen an even sample is enough: the weights found are consistent, and time and memory do not grow with depth.

Source: D. McFadden (1974), Conditional logit analysis of qualitative choice behavior; on sampling the alternatives,
D. McFadden (1978), Modelling the choice of residential location.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.optimize

from playbill.blend.formula import Candidates
from playbill.measure.ranking import Targets

_TOLERANCE = 1e-6


@dataclass(slots=True)
class Choices:
    """What is fitted: candidates of the queries that can be learned from.

    Attributes:
        query: [V] int64 rows of the queries that it was made of, ascending.
        indptr: [V + 1] int64 of their candidates.
        columns: [M, F] float32.
        weight: [M] float32, 1 / number of targets for each target among the candidates, 0 for all others.
    """

    query: np.ndarray
    indptr: np.ndarray
    columns: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.query)

    def take(self, kept: np.ndarray) -> Choices:
        """Return the choices of some queries; `kept` is [V] bool."""
        lengths = np.diff(self.indptr)
        rows = np.repeat(kept, lengths)
        return Choices(
            query=self.query[kept],
            indptr=np.concatenate([[0], np.cumsum(lengths[kept])]).astype(np.int64),
            columns=self.columns[rows],
            weight=self.weight[rows],
        )


def choices(found: Candidates, targets: Targets, num_items: int, most: int = 200) -> Choices:
    """Return what people chose out of their candidates.

    Args:
        targets: of the same queries.
        num_items: N.
        most: candidates kept of a query, the chosen ones first and then an even sample.
    """
    width = num_items + 1
    wanted = np.repeat(np.arange(len(targets)), targets.counts()) * width + targets.item
    query = found.query
    hit = np.isin(query * width + found.item, wanted)
    chosen = np.bincount(query[hit], minlength=len(targets))
    weight = np.where(hit, 1.0 / np.maximum(chosen[query], 1), 0.0).astype(np.float32)
    draw = np.random.default_rng(0).random(len(query))
    draw[hit] = -1
    rows = np.lexsort((draw, query))
    rows = rows[(np.arange(len(rows)) - found.indptr[:-1][query] < most) & (chosen[query] > 0)]
    lengths = np.bincount(query[rows], minlength=len(targets))
    kept = np.flatnonzero(lengths)
    indptr = np.concatenate([[0], np.cumsum(lengths[kept])]).astype(np.int64)
    return Choices(kept, indptr, found.columns[rows], weight[rows])


def fit(data: Choices, l2: float, start: np.ndarray | None = None, rounds: int = 200) -> np.ndarray:
    """Return [F] float64 weights.

    Args:
        data: at least one query.
        l2: ridge on weights of features of unit deviation, >= 0.
        start: weights to begin with, from a fit on nearly the same data.
        rounds: most iterations of L-BFGS.
    """
    lengths = np.diff(data.indptr)
    query = np.repeat(np.arange(len(data)), lengths)
    starts = data.indptr[:-1]
    columns = data.columns
    scale = _deviation(columns, starts, lengths, query)
    target = (data.weight @ columns) / scale / len(data)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        score = columns @ (weights / scale).astype(np.float32)
        score -= np.maximum.reduceat(score, starts)[query]
        mass = np.exp(score)
        total = np.add.reduceat(mass, starts, dtype=np.float64)
        mean = ((mass / total[query]).astype(np.float32) @ columns) / scale / len(data)
        # log-likelihood of the choices: scores were shifted by their largest, so only differences are left
        fitted = float(np.dot(data.weight.astype(np.float64), score)) - float(np.log(total).sum())
        return -fitted / len(data) + 0.5 * l2 * float(weights @ weights), mean - target + l2 * weights

    begin = np.zeros(len(scale)) if start is None else start * scale
    options = {"maxiter": rounds, "gtol": _TOLERANCE * 10, "ftol": _TOLERANCE}
    found = scipy.optimize.minimize(loss, begin, jac=True, method="L-BFGS-B", options=options)
    weights: np.ndarray = found.x / scale
    return weights


def _deviation(columns: np.ndarray, starts: np.ndarray, lengths: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return [F] float64 typical deviation of each column within a query; 1 where a column never varies."""
    found = np.empty(columns.shape[1])
    for place in range(columns.shape[1]):  # column by column: a centred copy of all would double the memory
        column = columns[:, place]
        mean = np.add.reduceat(column, starts, dtype=np.float64) / lengths
        found[place] = np.sqrt(np.mean((column - mean[query]) ** 2))
    return np.where(found > 1e-9, found, 1.0)
