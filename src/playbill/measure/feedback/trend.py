"""An alarm for a series that falls, read again after every round, with one false-alarm rate for the whole horizon.

For every run of rounds s..r the Mann-Kendall statistic counts pairs in which the later round is lower, less those in
which it is higher, in units of its standard deviation for rounds without order. The alarm looks at the largest of these
over all starts s, after each round r: a loop that begins to narrow late is found as well as one that always did.

So many looks would alarm by chance. The threshold is therefore that of the whole search: what its maximum over the
horizon exceeds with probability alpha in a loop that is stable, by simulation. The statistic sees ranks alone, so the
answer holds for noise of any shape. It does not hold for noise that carries over from round to round (rounds are
trained on much the same data, so a wobble lasts): the simulated loop has noise of that kind, with a declared carry.
The interval of the slope is simulated the same way.

What the declared carry costs and buys, one measure, 20 rounds, 5 % (`tests/benchmarks/proof_drift.py`):

    true carry                            0      0.3    0.5    0.7    0.8    0.9
    false alarms, declared carry 0.5      0 %    1 %    5 %    12 %   18 %   26 %
    false alarms, declared carry 0.8      0 %    0 %    0 %    2 %    5 %    10 %

In loops of 20 retrainings that had nothing taken away the measures' wobble had a carry of 0.5 to 0.75 once a straight
line is taken out, which makes it look smaller than it is: hence 0.8. A carry above what is declared breaks the rate.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from playbill.errors import MeasureError

SHORTEST = 5  # rounds: of fewer even a straight fall happens by chance once in 24 readings
CARRY = 0.8
_SIMULATED = 10_000
_LONGEST = 200  # rounds: more would need gigabytes to simulate, and a fall is over long before


def falling(series: np.ndarray) -> np.ndarray:
    """Return, after each round, the strongest evidence of a fall that ends there, whenever it began.

    Args:
        series: [L, R] float, R rounds of each of L loops; equal values count as no order.
    Returns:
        [L, R] float64, standard deviations; minus infinity for the rounds before `SHORTEST`.
    Source:
        Mann 1945; Kendall 1975, ch. 4; the search over starts is a scan statistic (Glaz et al. 2001).
    """
    series = np.asarray(series, np.float64)
    loops, rounds = series.shape
    fallen = np.zeros((loops, rounds))  # pairs of s..r, by s
    z = np.full((loops, rounds), -np.inf)
    for r in range(rounds):
        against_r = np.sign(series[:, :r] - series[:, r : r + 1])
        fallen[:, :r] += np.cumsum(against_r[:, ::-1], axis=1)[:, ::-1]
        starts = r - SHORTEST + 2  # s = 0 .. r - SHORTEST + 1
        if starts < 1:
            continue
        length = r - np.arange(starts) + 1
        spread = np.sqrt(length * (length - 1) * (2 * length + 5) / 18)
        z[:, r] = (fallen[:, :starts] / spread).max(1)
    return z


def threshold(alpha: float, horizon: int, carry: float) -> float:
    """Return what the strongest evidence within the horizon exceeds in a share `alpha` of stable loops.

    Args:
        alpha: 0 < alpha < 1, false alarms per horizon.
        horizon: rounds, all of which are looked at.
        carry: correlation of a round's noise with that of the round before, 0 <= carry < 1.
    """
    return float(np.quantile(_stable(horizon, carry), 1 - alpha))


def p_value(z: float, horizon: int, carry: float) -> float:
    """Return how often a stable loop shows such evidence anywhere within the horizon; never 0."""
    stable = _stable(horizon, carry)
    return float((1 + (stable >= z - 1e-9).sum()) / (1 + len(stable)))


def slope_interval(series: np.ndarray, level: float, carry: float) -> tuple[float, float, float]:
    """Return the least-squares slope a round and its interval, for a straight line with noise that lasts.

    The slope over the spread of what the line leaves depends on nothing but the number of rounds and the carry, so its
    distribution is simulated: a Student's t for noise that lasts. Noise that lasts less makes the interval too wide.

    Args:
        series: [R] float, R >= `SHORTEST`.
        level: of the interval.
        carry: see `threshold`.
    """
    slope, spread = _line(np.asarray(series, np.float64)[None])
    half = _reach(len(series), level, carry) * float(spread[0])
    return float(slope[0]), float(slope[0]) - half, float(slope[0]) + half


def _line(series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the slope [L] of the line through each of [L, R] series, and the root mean square it leaves."""
    since = np.arange(series.shape[1]) - (series.shape[1] - 1) / 2
    apart = series - series.mean(1, keepdims=True)
    slope = apart @ since / (since @ since)
    return slope, np.sqrt(((apart - slope[:, None] * since) ** 2).mean(1))


@lru_cache(maxsize=8)
def _reach(rounds: int, level: float, carry: float) -> float:
    slope, spread = _line(_noise(rounds, carry))
    return float(np.quantile(np.abs(slope) / spread, level))


@lru_cache(maxsize=8)
def _stable(horizon: int, carry: float) -> np.ndarray:
    """Return the largest evidence within the horizon of each of many stable loops."""
    largest: np.ndarray = falling(_noise(horizon, carry)).max(1)
    return largest


def _noise(horizon: int, carry: float) -> np.ndarray:
    """Return [L, horizon] normal noise of many stable loops, each round correlated with the one before by `carry`."""
    if not SHORTEST <= horizon <= _LONGEST:
        raise MeasureError(f"the horizon must lie in {SHORTEST}..{_LONGEST} rounds, got {horizon}")
    if not 0 <= carry < 1:
        raise MeasureError(f"carry must lie in [0, 1), got {carry}")
    noise = np.random.default_rng([horizon, 20]).normal(size=(_SIMULATED, horizon))
    for r in range(1, horizon):
        noise[:, r] = carry * noise[:, r - 1] + np.sqrt(1 - carry**2) * noise[:, r]
    return noise
