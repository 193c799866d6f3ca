"""How far true rates differ, with the noise of counting taken out.

A package with 40 clicks in 3,000 impressions has a log-odds that is wrong by 0.16 although nothing differs; the spread
of observed log-odds is therefore far larger than that of the true ones. Two estimators of the true spread:

- `log_odds_spread` compares units within groups (packages of a test) by moments. It needs clicks: of a true spread of
  0.3 it finds 0.297 where units have 100 of them, 0.293 at 40 and 0.277 at 15, for the noise taken off is itself
  estimated from the clicks. At 15 clicks a spread of 0.1 is read as 0.06, and with 200 groups three intervals in ten
  miss it.
- `binomial_normal` maximises the likelihood of binomial counts whose log-odds are normal, group means free. It holds
  for few clicks a unit, and takes few groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats

from playbill.world.fitting.found import Estimate


@dataclass(slots=True, kw_only=True)
class Spread:
    """Standard deviation of true log-odds, with a 95 % interval.

    Attributes:
        sd, low, high: log-odds.
        mean: mean log-odds over all groups.
        units, groups: how many.
        excess: Q over its degrees of freedom; 1 says that nothing but chance differs.
    """

    sd: float
    low: float
    high: float
    mean: float
    units: int
    groups: int
    excess: float


def spread_estimate(spread: Spread, **said: Any) -> Estimate:
    """Return a spread as an estimate; `said` are the estimate's fields save value, low and high."""
    return Estimate(value=spread.sd, low=spread.low, high=spread.high, **said)


def log_odds_spread(clicks: np.ndarray, shown: np.ndarray, group: np.ndarray, seed: int = 0) -> Spread:
    """Return the spread of log-odds between units of the same group.

    The Paule-Mandel estimator: the variance t at which the weighted sum of squares about each group's mean,
    Q(t) = sum over groups, units of (y - mean_g)^2 / (v + t), equals its degrees of freedom, with y the log-odds
    (half a click added on both sides) and v = 1/clicks + 1/(shown - clicks). Interval: from 100 groups on by
    bootstrap over groups (400 draws, no normality needed), else the Q-profile; also where the estimate is 0, for
    draws from such groups say little about spreads above it.

    Args:
        clicks: [n] int64.
        shown: [n] int64, impressions, at least `clicks`.
        group: [n] int64 >= 0; a group of one unit says nothing and is left out.
    Source:
        Paule and Mandel (1982), J. Res. NBS 87; Viechtbauer (2007), Statistics in Medicine 26 (Q-profile).
    """
    _, group = np.unique(group, return_inverse=True)
    kept = np.bincount(group)[group] > 1
    _, group = np.unique(group[kept], return_inverse=True)
    won, lost = clicks[kept] + 0.5, shown[kept] - clicks[kept] + 0.5
    y, noise = np.log(won / lost), 1 / won + 1 / lost
    groups = int(group.max()) + 1
    df = np.bincount(group) - 1

    def per_group(variance: float) -> np.ndarray:
        weight = 1 / (noise + variance)
        total = np.bincount(group, weight)
        mean = np.bincount(group, weight * y) / total
        return np.bincount(group, weight * (y - mean[group]) ** 2)

    def solve(times: np.ndarray, target: float) -> float:
        def excess(variance: float) -> float:
            return float(per_group(variance) @ times - target)

        return 0.0 if excess(0.0) <= 0 else float(optimize.brentq(excess, 0.0, 100.0, xtol=1e-9))

    once = np.ones(groups)
    variance = solve(once, float(df.sum()))
    if groups >= 100 and variance > 0:
        rng = np.random.default_rng(seed)
        draws = rng.multinomial(groups, np.full(groups, 1 / groups), 400).astype(float)

        def excesses(variance: float) -> np.ndarray:
            return np.asarray(per_group(variance) @ draws.T - draws @ df)

        top = 0.25
        while (excesses(top**2) > 0).any():
            top *= 2
        # Q(t) of every draw at once: linear between a few variances from 0 on, one of which is next to the root
        grid = np.linspace(0, top, 33) ** 2
        table = np.stack([excesses(t) for t in grid])
        low, high = np.quantile([np.interp(0.0, -table[:, k], grid) for k in range(400)], [0.025, 0.975])
    else:
        low, high = (solve(once, float(stats.chi2.ppf(p, df.sum()))) for p in (0.975, 0.025))
    weight = 1 / (noise + variance)
    return Spread(
        sd=float(np.sqrt(variance)),
        low=float(np.sqrt(low)),
        high=float(np.sqrt(high)),
        mean=float(weight @ y / weight.sum()),
        units=len(y),
        groups=groups,
        excess=float(per_group(0.0).sum() / df.sum()),
    )


def binomial_normal(clicks: np.ndarray, shown: np.ndarray, group: np.ndarray) -> Spread:
    """Return the spread of log-odds between units of the same group, by maximum likelihood.

    clicks ~ Binomial(shown, sigmoid(mean_g + sd * z)), z ~ N(0, 1) integrated by Gauss-Hermite quadrature (40 nodes),
    each group's mean free. Interval: where twice the log-likelihood, the means maximised again, falls by 3.84 (profile
    likelihood); the low end is 0 where 0 is not excluded.

    Args:
        clicks, shown, group: as in `log_odds_spread`; few groups (a numerical search over their means).
    """
    _, group = np.unique(group, return_inverse=True)
    groups = int(group.max()) + 1
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    log_weights = np.log(weights / weights.sum())
    start = np.log(np.bincount(group, clicks + 0.5) / np.bincount(group, shown - clicks + 0.5))

    def minus(means: np.ndarray, sd: float) -> float:
        # about the mode of each unit, not of the prior: with many clicks the likelihood is far narrower than sd
        return -float(np.sum(_log_marginal(clicks, shown, means[group], sd, nodes, log_weights)))

    def profile(sd: float) -> tuple[float, np.ndarray]:
        best = optimize.minimize(minus, start, args=(sd,), method="L-BFGS-B")
        return float(best.fun), np.asarray(best.x)

    found = optimize.minimize_scalar(lambda sd: profile(sd)[0], bounds=(1e-4, 5.0), method="bounded")
    sd, least = float(found.x), float(found.fun)

    def rise(value: float) -> float:
        return 2 * (profile(value)[0] - least) - float(stats.chi2.ppf(0.95, 1))

    low = 0.0 if rise(1e-4) < 0 else float(optimize.brentq(rise, 1e-4, sd, xtol=1e-4))
    high = float(optimize.brentq(rise, sd, 8.0, xtol=1e-4))
    means = profile(sd)[1]
    rates = (np.bincount(group, clicks) / np.bincount(group, shown))[group]
    df = len(clicks) - groups
    chance = np.sum((clicks - shown * rates) ** 2 / np.maximum(shown * rates * (1 - rates), 1e-12)) / max(df, 1)
    return Spread(
        sd=0.0 if sd < 2e-4 else sd,
        low=low,
        high=high,
        mean=float(np.mean(means)),
        units=len(clicks),
        groups=groups,
        excess=float(chance),
    )


def _log_marginal(
    clicks: np.ndarray, shown: np.ndarray, mean: np.ndarray, sd: float, nodes: np.ndarray, log_weights: np.ndarray
) -> np.ndarray:
    """Return each unit's log-likelihood by adaptive quadrature: nodes laid around the unit's own mode."""
    z = np.zeros(len(clicks))
    for _ in range(30):  # Newton for the mode of z given the unit's clicks
        p = 1 / (1 + np.exp(-(mean + sd * z)))
        slope = sd * (clicks - shown * p) - z
        bend = sd * sd * shown * p * (1 - p) + 1
        step = np.clip(slope / bend, -1, 1)
        z += step
        if np.max(np.abs(step)) < 1e-9:
            break
    p = 1 / (1 + np.exp(-(mean + sd * z)))
    width = 1 / np.sqrt(sd * sd * shown * p * (1 - p) + 1)
    at = z[:, None] + width[:, None] * nodes
    log_odds = mean[:, None] + sd * at
    log_likelihood = clicks[:, None] * log_odds - shown[:, None] * np.logaddexp(0, log_odds)
    # the normal density at `at` over the one that the nodes integrate
    terms = log_likelihood - at**2 / 2 + nodes**2 / 2 + log_weights + np.log(width)[:, None]
    top = terms.max(1)
    return np.asarray(top + np.log(np.exp(terms - top[:, None]).sum(1)))
