"""Which variant of a subject (or a hero) for whom: each as often as it is believed to be the best, wave after wave.

What is believed of a variant in a segment is the log-odds of an open: the segment's own level, how much better the
variant is than the others everywhere, and what is special of the two together, which is shrunk as far as the cells
differ by no more than chance. No variant's probability falls below the floor; what is drawn from is what is logged.

Source: W. Thompson (1933); for the shrinkage, C. Morris (1983), Parametric empirical Bayes inference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from playbill.creative.choice import draw
from playbill.creative.quadrature import chance_of_best
from playbill.errors import ConfigError

_WEIGHT = 20.0  # messages that the common rate counts as in every cell, before any is sent


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of messages so far, [S, V] float64 each: of S segments and V variants.

    Attributes:
        opened: messages that were.
        messages: as far as they can have been, see `delays.revealed`; at least `opened`.
    """

    opened: np.ndarray
    messages: np.ndarray


def tally(
    segment: np.ndarray, variant: np.ndarray, opened: np.ndarray, part: np.ndarray, shape: tuple[int, int]
) -> Tally:
    """Return the sums over n messages.

    Args:
        segment, variant: [n] int64; `opened` [n] bool.
        part: [n] of a message that each one is where it is not opened, see `delays.revealed`.
        shape: S, V.
    """
    cell = segment * shape[1] + variant
    size = shape[0] * shape[1]
    weight = np.maximum(part, opened)
    sums = [np.bincount(cell, values, size).reshape(shape) for values in (opened.astype(np.float64), weight)]
    return Tally(*sums)


def believed(seen: Tally) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the standard deviation of each variant's log-odds in each segment, [S, V] each."""
    total_opened, total = seen.opened.sum(), seen.messages.sum()
    rate = (total_opened + 1) / (total + 2)
    level = _log_odds(seen.opened.sum(1), seen.messages.sum(1), rate)[0]
    better, unsure = _log_odds(seen.opened.sum(0), seen.messages.sum(0), rate)
    everybody = np.log(rate / (1 - rate))
    base = level[:, None] + better - everybody
    own, own_unsure = _log_odds(seen.opened, seen.messages, rate)
    # cells differ from what segment and variant alone say by chance, and by `special` besides
    weight = 1 / own_unsure**2
    special = max(0.0, float((weight * ((own - base) ** 2 - own_unsure)).sum() / weight.sum()))
    keep = special / (special + own_unsure)
    mean = base + keep * (own - base)
    spread: np.ndarray = np.sqrt((1 - keep) ** 2 * unsure + keep**2 * own_unsure + (1 - keep) * special)
    return mean, spread


def _log_odds(opened: np.ndarray, messages: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Return log-odds and their variances, the common rate counting as a few messages."""
    yes, no = opened + _WEIGHT * rate, np.maximum(messages - opened, 0) + _WEIGHT * (1 - rate)
    return np.log(yes / no), 1 / yes + 1 / no


def chances(mean: np.ndarray, spread: np.ndarray, floor: float) -> np.ndarray:
    """Return [S, V] float64, the probability of each variant: that it is the best, and at least the floor.

    Raises:
        ConfigError: so many variants cannot all have the floor.
    """
    variants = mean.shape[-1]
    if not 0 <= floor * variants <= 1:
        raise ConfigError(f"subjects: {variants} variants cannot each have a probability of {floor:g}; lower the floor")
    found: np.ndarray = floor + (1 - variants * floor) * chance_of_best(mean, spread)
    return found


def choose(chance: np.ndarray, uniforms: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the variant of each of n people and its propensity, [n] int64 and [n] float64.

    Args:
        chance: [n, V] rows of `chances`.
        uniforms: [n] in [0, 1), see `draws.uniform`.
    """
    picked = draw(chance, np.asarray(uniforms))
    return picked, chance[np.arange(len(chance)), picked]
