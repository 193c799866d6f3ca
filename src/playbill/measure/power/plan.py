"""The arithmetic of a plan: people for an effect, an effect for people, and what each choice multiplies.

People needed grow with the variance and with 1 / effect^2. Each choice is a factor on them:

    CUPED                 1 - correlation^2
    clusters              1 + (people of one - 1) * correlation within (the design effect, Kish 1965)
    further comparisons   the level of each is (1 - level) / comparisons (Bonferroni)
    reading on the way    see `sequential_price`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec
import numpy as np

from playbill.errors import MeasureError
from playbill.measure.sequential import half_width_in_errors

_SMALL_ARM = 1_000  # below this the t curve matters; far above it scipy's noncentral t does not converge
_PATHS, _LOOKS = 10_000, 200


class Design(msgspec.Struct, frozen=True, kw_only=True):
    """How a test is built.

    Attributes:
        shares: weights of the arms, control first.
        alpha: of one comparison, two-sided.
        power: of one comparison.
        factor: on the variance of one person: CUPED times clusters.
        sequential: read on the way.
    """

    shares: tuple[float, ...]
    alpha: float
    power: float
    factor: float = 1.0
    sequential: bool = False


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What it costs to read a test on the way, in people, as a multiple of reading it once at its end.

    Attributes:
        at_most: where the test runs to its plan, as it does where nothing is to be found.
        on_average: where the effect is the one planned for, and the test stops as soon as it is found.
    """

    at_most: float
    on_average: float


def people_needed(effect_size: float, design: Design, *, rate: bool) -> int:
    """Return the people needed in all arms together.

    Args:
        effect_size: in standard deviations of one person's value; of rates, the difference of 2 arcsin(sqrt(rate)).
        design: of the test; each treatment arm is compared with control, and the smallest of them decides.
        rate: the metric is a rate (normal curve), else a mean (Student's t for small arms).
    Raises:
        MeasureError: no effect.
    """
    if not effect_size:
        raise MeasureError("no number of people finds an effect of 0; name the smallest one that is worth finding")
    control, smallest = _pair(design.shares)
    least = 2 / min(control, smallest)  # a variance needs two people
    once = _root(lambda n: _power(n, effect_size, design, rate) - design.power, least)
    return int(np.ceil(max(least, once * design.factor * price_of(design).at_most) - 1e-6))


def effect_found(people: int, design: Design, *, rate: bool) -> float:
    """Return the effect size (see `people_needed`) that these people find with the design's power."""
    once = people / design.factor / price_of(design).at_most
    return _root(lambda size: _power(once, size, design, rate) - design.power, 1e-9)


def power_with(people: int, effect_size: float, design: Design, *, rate: bool) -> float:
    """Return the probability of finding an effect of this size with these people by the end of the plan."""
    if not design.sequential:
        return _power(people / design.factor, effect_size, design, rate)
    control, smallest = _pair(design.shares)
    drift = abs(effect_size) * np.sqrt(people / design.factor / (1 / control + 1 / smallest))
    return float(_crossed(float(drift), design.alpha).any(1).mean())


def price_of(design: Design) -> Price:
    """Return what the design pays for being read on the way; 1 where it is read once."""
    return sequential_price(design.alpha, design.power) if design.sequential else Price(at_most=1.0, on_average=1.0)


@lru_cache(maxsize=64)
def sequential_price(alpha: float, power: float) -> Price:
    """Return the price of reading on the way, from 10,000 seeded paths with 200 looks each (about 1 % exact).

    A path is a Brownian motion with drift, which is what z * sqrt(progress) of any mean becomes; it stops where the
    always-valid interval of `measure.sequential` leaves 0.

    Args:
        alpha: of the test, two-sided.
        power: of finding the effect before the plan is used up.
    """
    from scipy.stats import norm

    once = norm.isf(alpha / 2) + norm.ppf(power)
    drift = _root(lambda d: float(_crossed(d, alpha).any(1).mean()) - power, 0.5 * once)
    beyond = _crossed(drift, alpha)
    stop = np.where(beyond.any(1), (beyond.argmax(1) + 1) / _LOOKS, 1.0)
    at_most = (drift / once) ** 2
    return Price(at_most=float(at_most), on_average=float(at_most * stop.mean()))


def rate_effect_size(before: float, after: float) -> float:
    """Return Cohen's h, the difference of 2 arcsin(sqrt(rate)): rates so transformed all have the same spread."""
    return float(2 * np.arcsin(np.sqrt(after)) - 2 * np.arcsin(np.sqrt(before)))


def rate_after(before: float, effect_size: float) -> float:
    """Return the rate at this distance above `before`; at most 1."""
    return float(np.sin(min(np.arcsin(np.sqrt(before)) + effect_size / 2, np.pi / 2)) ** 2)


def _pair(shares: Sequence[float]) -> tuple[float, float]:
    """Return the parts of control and of the smallest treatment arm among all people in the arms."""
    return shares[0] / sum(shares), min(shares[1:]) / sum(shares)


def _power(people: float, effect_size: float, design: Design, rate: bool) -> float:
    """Return the power of one look at `people` independent people."""
    from statsmodels.stats.power import NormalIndPower, TTestIndPower

    control, smallest = _pair(design.shares)
    small = people * min(control, smallest) < _SMALL_ARM
    kind = NormalIndPower() if rate or not small else TTestIndPower()
    return float(kind.power(abs(effect_size), people * control, design.alpha, ratio=smallest / control))


def _root(rises: Callable[[float], float], low: float) -> float:
    """Return where a rising function passes 0; `low` where it is above 0 already."""
    from scipy.optimize import brentq

    if rises(low) >= 0:
        return low
    high = 2 * low
    while rises(high) < 0:
        low, high = high, 2 * high
    return float(brentq(rises, low, high, rtol=1e-6))


def _crossed(drift: float, alpha: float) -> np.ndarray:
    """Return [paths, looks] bool: the interval has left 0 there, of an effect of `drift` standard errors at the end."""
    progress = np.arange(1, _LOOKS + 1, dtype=np.float32) / _LOOKS
    bound = half_width_in_errors(progress, 1 - alpha) * np.sqrt(progress)
    path = _noise() + np.float32(drift) * progress
    crossed: np.ndarray = np.abs(path) > bound.astype(np.float32)
    return crossed


@lru_cache(maxsize=1)
def _noise() -> np.ndarray:
    steps = np.random.default_rng(0).standard_normal((_PATHS, _LOOKS), np.float32)
    noise: np.ndarray = steps.cumsum(1) / np.sqrt(np.float32(_LOOKS))
    return noise
