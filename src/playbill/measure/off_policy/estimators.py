"""Estimators of a policy's value, each as contributions of rounds, so that whatever is resampled is the same vector.

With w = target probability / propensity, reward r, model q (`reward_model.py`) and q_target = sum over actions of the
target's probability x q:

    IPS          mean of w r                                 unbiased; uneven weights make it noisy
    clipped IPS  mean of min(w, clip) r                      less noise, biased low for rewards >= 0
    SNIPS        sum of w r / sum of w                       stays in the rewards' range; bias of order 1 / n
    DM           mean of q_target                            as good as its model, and blind to the model's errors
    DR           mean of q_target + w (r - q)                unbiased whatever the model; a good one takes noise away
    switch-DR    DR, but q_target alone where w > threshold  trades the noise of large weights for the model's bias

    one round: w = 2, r = 1, q = 0.4, q_target = 0.5: IPS 2, clipped at 1.5: 1.5, DM 0.5, DR 0.5 + 2 x 0.6 = 1.7

Sources: Horvitz and Thompson 1952 (IPS); Ionides 2008 (clipping); Swaminathan and Joachims 2015 (SNIPS); Dudik,
Langford and Li 2011 (DR); Wang, Agarwal and Dudik 2017 (switch-DR, and the choice of its threshold).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.errors import MeasureError
from playbill.measure.off_policy.log import Log


@dataclass(slots=True)
class Contributions:
    """What each round adds to an estimate: sum over terms j of sign[j] * (mean of numerator j / mean of denominator j).

    One term of denominator 1 is a plain mean; SNIPS has its weights below; a difference of two policies has two terms.

    Attributes:
        name: of the estimator.
        numerator, denominator: [N, J] float64.
        sign: [J] float64.
    """

    name: str
    numerator: np.ndarray
    denominator: np.ndarray
    sign: np.ndarray

    def estimate(self) -> float:
        """Return the estimate.

        Raises:
            MeasureError: the weights of a self-normalised estimator are all 0.
        """
        below = self.denominator.sum(0)
        if (below <= 0).any():
            raise MeasureError(f"{self.name}: the target policy never chooses what was logged; all weights are 0")
        return float(self.sign @ (self.numerator.sum(0) / below))

    def per_round(self) -> np.ndarray:
        """Return [N] float64 whose mean is the estimate: the contributions, linearised where they are ratios."""
        mean = self.denominator.mean(0)
        ratio = self.numerator.mean(0) / mean
        # a ratio's own value is put back, so that the mean of the influences (which is 0) becomes the estimate
        terms = ratio + (self.numerator - ratio * self.denominator) / mean
        terms = np.where((self.denominator == 1).all(0), self.numerator, terms)
        added: np.ndarray = terms @ self.sign
        return added


@dataclass(slots=True)
class Prediction:
    """What a reward model expects of each round, from a fit that never saw the round's unit.

    Attributes:
        chosen: [N] float64, reward of the action that was chosen.
        expected: [N] float64, mean reward over what the target policy would choose.
    """

    chosen: np.ndarray
    expected: np.ndarray


def mean_of(name: str, values: np.ndarray) -> Contributions:
    """Return [N] values as contributions to their mean."""
    column = np.asarray(values, np.float64)[:, None]
    return Contributions(name, column, np.ones_like(column), np.ones(1))


def on_policy(log: Log) -> Contributions:
    """Return the logging policy's own value: the mean reward."""
    return mean_of("logged", log.reward)


def ips(log: Log) -> Contributions:
    """Return inverse propensity scoring (Horvitz and Thompson 1952)."""
    return mean_of("IPS", log.weight() * log.reward)


def clipped_ips(log: Log, clip: float = 0.0) -> Contributions:
    """Return IPS with weights cut at `clip` > 0; 0 cuts at the root of the number of rounds (Ionides 2008)."""
    return mean_of("clipped IPS", np.minimum(log.weight(), clip_or_default(log, clip)) * log.reward)


def clip_or_default(log: Log, clip: float) -> float:
    """Return where weights are cut; raises MeasureError for a negative clip."""
    if clip < 0:
        raise MeasureError(f"clip must be > 0, or 0 for the root of the number of rounds, got {clip}")
    return clip or float(np.sqrt(len(log)))


def snips(log: Log) -> Contributions:
    """Return self-normalised IPS (Swaminathan and Joachims 2015)."""
    weight = log.weight()
    return Contributions("SNIPS", (weight * log.reward)[:, None], weight[:, None], np.ones(1))


def dm(prediction: Prediction) -> Contributions:
    """Return the direct method: what the model expects of the target policy."""
    return mean_of("DM", prediction.expected)


def dr(log: Log, prediction: Prediction) -> Contributions:
    """Return the doubly robust estimator (Dudik, Langford and Li 2011)."""
    return mean_of("DR", prediction.expected + log.weight() * (log.reward - prediction.chosen))


def switch_dr(log: Log, prediction: Prediction, threshold: float) -> Contributions:
    """Return switch-DR: the correction is left out where the weight exceeds `threshold` >= 0 (Wang et al. 2017)."""
    if not threshold >= 0:
        raise MeasureError(f"the switch threshold must be >= 0, got {threshold}")
    weight = log.weight()
    kept = np.where(weight <= threshold, weight, 0.0)
    return mean_of("switch-DR", prediction.expected + kept * (log.reward - prediction.chosen))


def switch_threshold(log: Log, prediction: Prediction, candidates: int = 20) -> float:
    """Return the threshold of least estimated squared error: variance + squared bound on the bias, over a grid.

    The bias is at most the reward's range times the target's mass on actions heavier than the threshold; the mass is
    exact where distributions are known, else estimated by the mean of the weights above the threshold. The variance is
    that of sums over units: rounds of one person are not independent.

    Args:
        candidates: thresholds tried, evenly over the quantiles of the weights; the largest keeps every round (DR).
    Source:
        Wang, Agarwal and Dudik 2017, section 3.3.
    """
    weight = log.weight()
    grid = np.unique(np.quantile(weight, np.linspace(0, 1, candidates)))
    range_ = log.reward_high - log.reward_low if log.bounded() else float(np.ptp(log.reward))
    choices, unit = log.choices, log.unit
    assert unit is not None
    errors = []
    for threshold in grid:
        if choices is not None and choices.logging is not None:
            heavy = choices.target > threshold * choices.logging
            mass = float(choices.target[heavy].sum() / len(log))
        else:
            mass = float(weight[weight > threshold].sum() / len(log))
        gained = switch_dr(log, prediction, float(threshold)).numerator[:, 0]
        spread = float((np.bincount(unit, gained - gained.mean()) ** 2).sum()) / len(log) ** 2
        errors.append(spread + (range_ * min(mass, 1.0)) ** 2)
    return float(grid[int(np.argmin(errors))])


def difference(first: Contributions, second: Contributions) -> Contributions:
    """Return first - second on the same rounds, so that what both share cancels within every resample.

    Raises:
        MeasureError: the two are of different numbers of rounds.
    """
    if len(first.numerator) != len(second.numerator):
        raise MeasureError(
            f"a paired difference needs the same rounds: {first.name} has {len(first.numerator)}, {second.name} "
            f"{len(second.numerator)}"
        )
    return Contributions(
        f"{first.name} - {second.name}",
        np.hstack([first.numerator, second.numerator]),
        np.hstack([first.denominator, second.denominator]),
        np.concatenate([first.sign, -second.sign]),
    )
