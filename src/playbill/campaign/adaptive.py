"""What a campaign that chose its subjects while it ran says of each of them, with intervals that hold all the same.

A variant that did badly by chance is sent less often afterwards and cannot make up for it: the plain mean of what was
sent is too low, and its interval is no interval. Weighing each message by one over its propensity mends the mean; the
weight sqrt(propensity) besides keeps the variance from growing while a variant is sent seldom, so that the estimate is
normal as messages grow many. Weights may follow the past but not the person, so each segment is estimated by itself,
and segments are mixed by their messages.

Source: V. Hadad, D. Hirshberg, R. Zhan, S. Wager, S. Athey (2021), Confidence intervals for policy evaluation in
adaptive experiments (variance-stabilised weights, constant allocation).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.creative.quadrature import chance_of_best


@dataclass(frozen=True, slots=True)
class Estimates:
    """Of V variants, [V] float64 each.

    Attributes:
        rate: of opens, had everybody been sent the variant.
        error: standard error of it.
        best: probability that it is the best of them.
    """

    rate: np.ndarray
    error: np.ndarray
    best: np.ndarray


def estimates(
    wave: np.ndarray,
    variant: np.ndarray,
    opened: np.ndarray,
    propensity: np.ndarray,
    num_variants: int,
    segment: np.ndarray | None = None,
) -> Estimates:
    """Return what n messages say, in whatever order.

    Args:
        wave: [n] int64, ascending in time: what is believed of a variant when a wave is scored comes of waves before.
        variant: [n] int64; `opened` [n] bool, all had the time to be.
        propensity: [n, V] of every variant when the message was decided on, the same throughout a wave and segment.
        segment: [n] int64; None: everybody is of one.
    """
    of_whom = np.zeros(len(wave), np.int64) if segment is None else segment
    rate, variance = np.zeros(num_variants), np.zeros(num_variants)
    for one in np.unique(of_whom):
        mine = of_whom == one
        found, error = _of_segment(wave[mine], variant[mine], opened[mine], propensity[mine])
        rate += mine.mean() * found
        variance += (mine.mean() * error) ** 2
    return Estimates(rate, np.sqrt(variance), chance_of_best(rate, np.sqrt(variance)))


def _of_segment(
    wave: np.ndarray, variant: np.ndarray, opened: np.ndarray, propensity: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return rates and their standard errors, [V] each. Args: `estimates`."""
    num_variants = propensity.shape[1]
    rate, error = np.zeros(num_variants), np.zeros(num_variants)
    waves = np.unique(wave)
    for v in range(num_variants):
        mine = variant == v
        guess = np.zeros(len(wave))
        for later in waves[1:]:
            past = (wave < later) & mine
            guess[wave == later] = opened[past].mean() if past.any() else 0.0
        score = guess + mine * (opened - guess) / propensity[:, v]
        weight = np.sqrt(propensity[:, v])
        rate[v] = (weight * score).sum() / weight.sum()
        error[v] = np.sqrt((weight**2 * (score - rate[v]) ** 2).sum()) / weight.sum()
    return rate, error
