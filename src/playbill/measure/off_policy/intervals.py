"""How far an off-policy estimate can be trusted: studentised bootstrap intervals, and bounds that hold at any size.

Contributions of importance weighting are skewed to the right: many small ones and a few large. Percentile intervals
then end too early on the right: with 24 clicks in a log the truth lies above them in 6 % of logs instead of 2.5 %.
Studentised ones carry that skew and miss about evenly on both sides, which is why they are the only ones here.
tests/benchmarks/proof_off_policy.py holds the two side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from scipy.special import ndtri

from playbill.errors import MeasureError
from playbill.measure.bootstrap import resampled_means
from playbill.measure.off_policy.estimators import Contributions
from playbill.measure.off_policy.log import Log

_BET_MOST = 0.75  # share of the capital that one unit may take: 1/2 or 3/4 in Waudby-Smith and Ramdas, section 4.4
# variance that the bets expect before the first unit, of a range of 1. Any value is valid; the paper's 1/4 fits rewards
# that fill their range, and weighted rewards do not
_VARIANCE_BEFORE = 0.0025


class ValueInterval(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate with its studentised bootstrap interval.

    Attributes:
        value: the estimate.
        low, high: the interval; -inf or inf where too many resamples hold no spread at all to say more.
        standard_error: of the estimate, over units.
        units: independent units behind it.
    """

    value: float
    low: float
    high: float
    standard_error: float
    units: int


@dataclass(slots=True)
class Bound:
    """Limits of a mean that hold with probability >= level at any number of units, without a normal approximation."""

    low: float
    high: float


def bootstrap_interval(
    contributions: Contributions, unit: np.ndarray, *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> ValueInterval:
    """Return one estimate with its interval; see `bootstrap_intervals`."""
    return bootstrap_intervals([contributions], unit, resamples=resamples, seed=seed, level=level)[0]


def bootstrap_intervals(
    several: Sequence[Contributions], unit: np.ndarray, *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> list[ValueInterval]:
    """Return estimates with their intervals; whole units are drawn with replacement, the same ones for all estimates.

    Args:
        several: contributions of the same N rounds.
        unit: [N] int64, 0, 1, ...: the unit of each round.
        resamples, seed: of the bootstrap.
        level: nominal coverage, 0 < level < 1.
    Raises:
        MeasureError: fewer than two units, or contributions that are not finite.
    Source:
        Efron and Tibshirani 1993, section 12.5 (bootstrap-t), with the delta-method error of a sum of ratios.
    """
    if not 0 < level < 1:
        raise MeasureError(f"level must lie between 0 and 1, got {level}")
    moments = [_moments(one, unit) for one in several]
    units = len(moments[0])
    if units < 2:
        raise MeasureError(f"an interval needs at least two independent units, the log has {units}")
    means = resampled_means(np.hstack(moments), resamples, seed)
    found, start = [], 0
    for one, own in zip(several, moments, strict=True):
        found.append(_interval(one, own, means[:, start : start + own.shape[1]], level))
        start += own.shape[1]
    return found


def _moments(one: Contributions, unit: np.ndarray) -> np.ndarray:
    """Return [C, 2 J + J (2 J + 1)] float64: each unit's totals, and the products of all pairs of them."""
    # each term less its own ratio: nothing cancels, and resamples deviate from 0
    below = one.denominator.sum(0)
    ratio = np.divide(one.numerator.sum(0), below, out=np.zeros(len(below)), where=below > 0)
    columns = np.hstack([one.numerator - ratio * one.denominator, one.denominator])
    totals = np.stack([np.bincount(unit, column) for column in columns.T], axis=1)
    left, right = np.triu_indices(totals.shape[1])
    return np.hstack([totals, totals[:, left] * totals[:, right]])


def _interval(one: Contributions, moments: np.ndarray, means: np.ndarray, level: float) -> ValueInterval:
    value, units = one.estimate(), len(moments)
    away, errors = _value_and_error(means, one.sign, units)
    error = float(_value_and_error(moments.mean(0)[None], one.sign, units)[1][0])
    if error <= 1e-12 * abs(value):  # every unit says the same: nothing can be resampled
        return ValueInterval(value=value, low=-np.inf, high=np.inf, standard_error=0.0, units=units)
    # a resample without spread is infinitely many of its standard errors away
    none = errors <= 1e-9 * error
    scaled = np.where(none, np.where(away > 0, np.inf, -np.inf), away / np.where(none, 1.0, errors))
    scaled = np.where(np.abs(away) <= 1e-9 * error, 0.0, scaled)
    # rounded: (1 - 0.95) / 2 is a hair above 0.025, and would take the next resample
    tail = round((1 - level) / 2, 12)
    low, high = np.quantile(scaled, [tail, round(1 - tail, 12)], method="inverted_cdf")
    return ValueInterval(
        value=value,
        low=float(value - high * error),
        high=float(value - low * error),
        standard_error=error,
        units=units,
    )


def told_loss(found: ValueInterval, power: float = 0.9) -> float | None:
    """Return the smallest loss that the interval of a difference lies wholly below 0 for, in `power` of such logs.

    As far above the estimate as the interval reaches, and as far again as estimates are too high in 1 - power of logs.
    None where the log holds too little spread to say.

    Source:
        the minimal detectable effect of H. S. Bloom (1995), Minimum Detectable Effects, at the interval's own level.
    """
    if not np.isfinite(found.high) or found.standard_error <= 0:
        return None
    return float(found.high - found.value + ndtri(power) * found.standard_error)


def betting_bound(total: np.ndarray, size: np.ndarray, *, largest: float, most: float, level: float = 0.95) -> Bound:
    """Return limits of E[total] / E[size] over independent units, from bets against every value outside them.

    A gambler who bets on each unit in turn against the claim "the value is m" multiplies a capital that, if the claim
    is true, reaches 2 / (1 - level) with probability at most (1 - level) / 2, at any number of units. Limits are the
    values at which it does. The stakes are set from earlier units alone.

    Args:
        total: [C] float64 >= 0, what each unit brought, over all of its rounds.
        size: [C] float64 in [0, most], rounds of each unit.
        largest: largest contribution that a round can have; inf where unknown, and then there is no upper limit.
        most: most rounds that a unit can have.
        level: coverage, at least.
    Raises:
        MeasureError: a total below 0 or above size x largest, or a size outside [0, most].
    Source:
        Waudby-Smith and Ramdas 2023, Estimating means of bounded random variables by betting, section 4.3 (predictable
        plug-in for a fixed number); that the lower side needs no upper bound: Waudby-Smith et al. 2024.
    """
    total, size = np.asarray(total, np.float64), np.asarray(size, np.float64)
    if (total < 0).any() or (total > size * largest * (1 + 1e-9)).any():
        raise MeasureError(f"a unit's total must lie in 0..size x {largest}, got {total.min()}..{total.max()}")
    if (size < 0).any() or (size > most).any():
        raise MeasureError(f"a unit's size must lie in 0..{most}, got {size.min()}..{size.max()}")
    goal = np.log(2 / (1 - level))
    scale = most * (largest if np.isfinite(largest) else 1.0)
    if not np.isfinite(largest):
        above = float((total / np.maximum(size, 1)).max(initial=0.0))  # no limit below can be higher than all units
        return Bound(_limit(_bets_on_more(total, size, most, scale, goal), 0.0, above, goal), np.inf)
    low = _limit(_bets_on_more(total, size, most, scale, goal), 0.0, largest, goal)
    return Bound(low, _limit(_bets_on_less(total, size, largest, most, goal), largest, 0.0, goal))


def value_bound(log: Log, *, most: float, largest_weight: float | None = None, level: float = 0.95) -> Bound:
    """Return finite-sample limits of the target policy's value per round, around IPS.

    Rewards are moved to 0..1. Below, weighted rewards only need to be >= 0. Above there are two gamblers who share one
    capital: one bets on small weighted rewards and needs a largest weight; the other bets on what was missed,
    w (1 - r), whose mean is 1 - value when weights average 1, and needs none.

    Args:
        most: most rounds that a unit can have, by how the log was made. The most that a log holds will not do: the few
            units that have far more, and may bring far more, are missing from many logs.
        largest_weight: that any round can have; None takes the largest among the log's contexts, where distributions
            are known.
        level: coverage, at least.
    Raises:
        MeasureError: the rewards have no known range, a weight in the log exceeds `largest_weight`, or a unit `most`.
    """
    if not log.bounded():
        raise MeasureError("a finite-sample bound needs the range of rewards; set question.reward_high")
    unit = log.unit
    assert unit is not None
    weight, width = log.weight(), log.reward_high - log.reward_low
    largest = log.largest_weight() if largest_weight is None else largest_weight
    if largest is not None and weight.max() > largest * (1 + 1e-9):
        raise MeasureError(f"the log holds a weight of {weight.max():.6g}, above the largest possible {largest:.6g}")
    reward = (log.reward - log.reward_low) / width
    size = np.bincount(unit).astype(np.float64)
    if size.max() > most:
        raise MeasureError(f"the log holds a unit of {size.max():.0f} decisions, above the declared most of {most:g}")
    goal = float(np.log(2 / (1 - level)))
    gained, missed = np.bincount(unit, weight * reward), np.bincount(unit, weight * (1 - reward))
    on_missed = _bets_on_more(missed, size, most, most, goal)
    if largest is not None and largest > 1:
        on_less = _bets_on_less(gained, size, largest, most, goal)

        def above(m: float) -> float:
            return float(np.logaddexp(on_less(m), on_missed(1 - m)) - np.log(2))
    else:

        def above(m: float) -> float:
            return on_missed(1 - m)

    scale = most * (largest or 1.0)
    low = _limit(_bets_on_more(gained, size, most, scale, goal), 0.0, 1.0, goal)
    high = _limit(above, 1.0, 0.0, goal)
    return Bound(log.reward_low + width * low, log.reward_low + width * high)


def empirical_bernstein(values: np.ndarray, *, low: float, high: float, level: float = 0.95) -> Bound:
    """Return mean -+ (sd sqrt(2 ln(4 / (1 - level)) / n) + 7 (high - low) ln(4 / (1 - level)) / (3 (n - 1))).

    Args:
        values: [n] float64 in low..high, independent.
    Raises:
        MeasureError: fewer than two values, or one outside low..high.
    Source:
        Maurer and Pontil 2009, theorem 4, on both sides.
    """
    values = np.asarray(values, np.float64)
    n = len(values)
    if n < 2 or values.min() < low or values.max() > high:
        raise MeasureError(f"the bound needs two or more values within {low}..{high}, got {n}")
    log = np.log(4 / (1 - level))
    half = np.sqrt(2 * values.var(ddof=1) * log / n) + 7 * (high - low) * log / (3 * (n - 1))
    return Bound(max(low, float(values.mean() - half)), min(high, float(values.mean() + half)))


def _value_and_error(moments: np.ndarray, sign: np.ndarray, units: int) -> tuple[np.ndarray, np.ndarray]:
    """Return [R] estimates and their delta-method standard errors, from R rows of means of `_moments`."""
    terms = len(sign)
    above, below, seconds = moments[:, :terms], moments[:, terms : 2 * terms], moments[:, 2 * terms :]
    # a resample may hold no weight at all; its ratio is then 0, and so is its error
    safe = np.where(below > 0, below, 1.0)
    ratio = np.where(below > 0, above / safe, 0.0)
    slope = np.hstack([sign / safe, -sign * ratio / safe])  # of the estimate, by each first moment
    left, right = np.triu_indices(2 * terms)
    twice = np.where(left == right, 1.0, 2.0)
    # the mean of the slopes' sum is 0 by construction, so the second moment is the variance
    variance = ((slope[:, left] * slope[:, right]) * seconds * twice).sum(1)
    return ratio @ sign, np.sqrt(np.maximum(variance, 0.0) / units)


def _bets_on_more(
    total: np.ndarray, size: np.ndarray, most: float, scale: float, goal: float
) -> Callable[[float], float]:
    """Return the log capital, by m, of a gambler who bets that more than m comes of each round; it falls with m."""
    stake = _stakes(total, size, scale, goal)

    def capital(m: float) -> float:
        # a unit can lose m * most of its stake
        return float(np.log1p(np.minimum(stake, _BET_MOST / max(m * most, 1e-300)) * (total - m * size)).sum())

    return capital


def _bets_on_less(
    total: np.ndarray, size: np.ndarray, largest: float, most: float, goal: float
) -> Callable[[float], float]:
    """Return the log capital, by m, of a gambler who bets that less than m comes of each round; it rises with m."""
    stake = _stakes(total, size, largest * most, goal)

    def capital(m: float) -> float:
        room = max((largest - m) * most, 1e-300)
        return float(np.log1p(-np.minimum(stake, _BET_MOST / room) * (total - m * size)).sum())

    return capital


def _stakes(total: np.ndarray, size: np.ndarray, scale: float, goal: float) -> np.ndarray:
    """Return [C] float64: the stake on each unit, best for the variance of the units before it."""
    mean = np.cumsum(total) / np.maximum(np.cumsum(size), 1)
    before = np.concatenate([[0.0], mean[:-1]])
    squares = np.cumsum(((total - before * size) / scale) ** 2)
    variance = (_VARIANCE_BEFORE + np.concatenate([[0.0], squares[:-1]])) / np.arange(1, len(total) + 1)
    stakes: np.ndarray = np.sqrt(2 * goal / (variance * len(total))) / scale
    return stakes


def _limit(capital: Callable[[float], float], outer: float, inner: float, goal: float) -> float:
    """Return where the capital falls below the goal on the way from `outer` to `inner`; too far out, never in."""
    for _ in range(45):
        middle = (outer + inner) / 2
        if capital(middle) < goal:
            inner = middle
        else:
            outer = middle
    return outer
