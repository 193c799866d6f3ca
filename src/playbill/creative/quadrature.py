"""The probability that each of a few independent normal scores is the largest: what Thompson sampling would draw."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

NODES = 24

_AT, _WEIGHT = np.polynomial.hermite_e.hermegauss(NODES)
_WEIGHT = _WEIGHT / np.sqrt(2 * np.pi)
_LEAST_SD = 1e-9  # a score without spread still wins or loses, and ties with its equals


def chance_of_best(mean: np.ndarray, sd: np.ndarray, there: np.ndarray | None = None) -> np.ndarray:
    """Return the probability that each score is the largest of its set.

    P(i) = E[prod_{j != i} F_j(x_i)], x_i from its own normal, by Gauss-Hermite quadrature with 24 nodes; two scores
    have a closed form, which is used. Each set is scaled to sum to 1: what is returned is a distribution to draw from,
    and so exact as a propensity. As the integral it is off by 1e-4 where the spreads of a set differ by a factor of two
    at most, by 0.006 at five and by 0.05 at a hundred (largest of hundreds of sets of 3 to 8, measured).

    Args:
        mean, sd: [..., n] float64, of independent normal scores.
        there: [..., n] bool, scores that exist; None means all. A set needs one at least; the others get 0.
    Returns:
        [..., n] float64.
    """
    mean, sd = np.asarray(mean, np.float64), np.maximum(np.asarray(sd, np.float64), _LEAST_SD)
    allowed = np.ones(mean.shape, bool) if there is None else np.broadcast_to(there, mean.shape)
    n = mean.shape[-1]
    # [..., i, j, node]: how often score j lies below the drawn score i
    drawn = mean[..., :, None, None] + sd[..., :, None, None] * _AT
    below = ndtr((drawn - mean[..., None, :, None]) / sd[..., None, :, None])
    counts = allowed[..., None, :] & ~np.eye(n, dtype=bool)
    chance: np.ndarray = np.where(counts[..., None], below, 1.0).prod(-2) @ _WEIGHT
    chance = np.where(allowed, np.maximum(chance, 0.0), 0.0)
    pairs = allowed.sum(-1) == 2
    if pairs.any():
        chance[pairs] = _of_two(mean[pairs], sd[pairs], allowed[pairs])
    chance /= chance.sum(-1, keepdims=True)
    return chance


def _of_two(mean: np.ndarray, sd: np.ndarray, there: np.ndarray) -> np.ndarray:
    apart = np.where(there, mean, 0.0)
    other = apart.sum(-1, keepdims=True) - apart
    spread = np.sqrt(np.where(there, sd**2, 0.0).sum(-1, keepdims=True))
    found: np.ndarray = np.where(there, ndtr((apart - other) / spread), 0.0)
    return found
