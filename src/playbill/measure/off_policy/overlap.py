"""Does the log say anything about the target policy? Diagnostics of the weights, and the verdict that refuses a value.

An estimate made of importance weights is worth as much as its weights: where the logging policy never did what the
target policy would do, no formula brings the missing rewards back, and every estimator returns a number all the same.
"""

from __future__ import annotations

import msgspec
import numpy as np

from playbill.measure.off_policy.estimators import mean_of
from playbill.measure.off_policy.intervals import bootstrap_interval
from playbill.measure.off_policy.log import Log

_CERTAIN = 0.99  # level at which a mean weight that is not 1 is held to be no accident
_NEAR_ONE = 0.1  # and by how much it must differ to refuse a value
# below it, rounds with a reward are too few for what nearly cancels: intervals of nominal 95 % of a difference hold the
# truth in 90 to 92 % of logs of 24, 93 % of 54, 94.5 % of 102
FEW_REWARDS = 100


class Overlap(msgspec.Struct, frozen=True, kw_only=True):
    """How well the log covers the target policy.

    Attributes:
        rounds, units: of the log.
        effective_rounds: (sum of weights)^2 / sum of squared weights (Kish): rounds of equal weight worth as much.
        effective_units: the same over units.
        largest_weight: seen in the log.
        largest_possible_weight: over all actions of all rounds; None where distributions are not known.
        mean_weight, mean_weight_low, mean_weight_high: 1 if propensities are right and support is complete; 99 %
            interval.
        unsupported_mass: target probability on actions that the logging policy could not choose; None where unknown.
        unused_share: rounds of weight 0: the target policy would not have chosen what was logged.
        largest_share: of the sum of |weight x reward| that comes from a single round.
        rewarded_rounds: rounds with weight > 0 and a reward above the lowest.
        refused: why no value can be given; empty where one can.
        warnings: what speaks against the value.
    """

    rounds: int
    units: int
    effective_rounds: float
    effective_units: float
    largest_weight: float
    largest_possible_weight: float | None
    mean_weight: float
    mean_weight_low: float
    mean_weight_high: float
    unsupported_mass: float | None
    unused_share: float
    largest_share: float
    rewarded_rounds: int
    refused: str
    warnings: list[str]


def overlap(
    log: Log,
    *,
    most_unsupported: float = 0.01,
    least_effective: float = 50.0,
    resamples: int = 2000,
    seed: int = 0,
) -> Overlap:
    """Return the diagnostics and the verdict.

    A value is refused where: more than `most_unsupported` of the target's probability lies on actions that could not be
    logged; no logged action could be the target's; fewer than `least_effective` rounds or units carry the estimate; or
    weights average something else than 1 (99 % interval, and by more than 0.1): then propensities are wrong, or support
    is missing that the log does not name.

    Args:
        most_unsupported: 0..1.
        least_effective: rounds and units of equal weight.
        resamples, seed: for the mean weight's interval.
    """
    weight, unit = log.weight(), log.unit
    assert unit is not None
    per_unit = np.bincount(unit, weight)
    effective, effective_units = _effective(weight), _effective(per_unit)
    unsupported = _unsupported(log)
    mean = float(weight.mean())
    low = high = mean
    if len(per_unit) > 1:
        found = bootstrap_interval(mean_of("weight", weight), unit, resamples=resamples, seed=seed, level=_CERTAIN)
        if found.standard_error > 0:
            low, high = found.low, found.high
    gained = np.abs(weight * log.reward)
    share = float(gained.max() / gained.sum()) if gained.sum() > 0 else 0.0
    lowest = log.reward_low if np.isfinite(log.reward_low) else log.reward.min()
    rewarded = int(((weight > 0) & (log.reward > lowest)).sum())
    warnings = _warnings(len(log), mean, low, high, unsupported, effective, share)
    if rewarded < FEW_REWARDS:
        warnings.append(
            f"only {rewarded} rounds brought anything: the intervals of differences then hold the truth less often "
            "than they say (90 % where 24 rounds did, 93 % where 54 did)"
        )
    return Overlap(
        rounds=len(log),
        units=len(per_unit),
        effective_rounds=effective,
        effective_units=effective_units,
        largest_weight=float(weight.max()),
        largest_possible_weight=log.largest_weight(),
        mean_weight=mean,
        mean_weight_low=low,
        mean_weight_high=high,
        unsupported_mass=unsupported,
        unused_share=float((weight == 0).mean()),
        largest_share=share,
        rewarded_rounds=rewarded,
        refused=_refusal(mean, low, high, unsupported, effective, effective_units, most_unsupported, least_effective),
        warnings=warnings,
    )


def _effective(weight: np.ndarray) -> float:
    squares = float((weight**2).sum())
    return float(weight.sum()) ** 2 / squares if squares > 0 else 0.0


def _unsupported(log: Log) -> float | None:
    choices = log.choices
    if choices is None or choices.logging is None:
        return None
    return float(choices.target[choices.logging <= 0].sum() / len(log))


def _refusal(
    mean: float,
    low: float,
    high: float,
    unsupported: float | None,
    effective: float,
    effective_units: float,
    most_unsupported: float,
    least_effective: float,
) -> str:
    if unsupported is not None and unsupported > most_unsupported:
        return (
            f"{unsupported:.1%} of the target policy's probability lies on actions that the logging policy could not "
            f"choose (at most {most_unsupported:.1%} is allowed); log with exploration over those actions first"
        )
    if mean == 0:
        return "the target policy would never have chosen what was logged; log with exploration over its actions first"
    if not low <= 1 <= high and abs(mean - 1) > _NEAR_ONE:
        why = (
            "the logging policy leaves out actions that the target policy takes, or propensities are too large"
            if mean < 1
            else "propensities are too small, or the target's probabilities are not those of these rounds"
        )
        return f"weights average {mean:.3g} [{low:.3g}, {high:.3g}], where support and propensities make them 1: {why}"
    if min(effective, effective_units) < least_effective:
        return (
            f"the weights are worth {effective:.1f} rounds and {effective_units:.1f} units of equal weight, and at "
            f"least {least_effective:g} are needed; log more, or a policy nearer to the target"
        )
    return ""


def _warnings(
    rounds: int, mean: float, low: float, high: float, unsupported: float | None, effective: float, share: float
) -> list[str]:
    found = []
    if not low <= 1 <= high:
        found.append(f"weights average {mean:.3g} [{low:.3g}, {high:.3g}] at 99 %, not 1: check the propensities")
    if unsupported is None:
        found.append(
            "the logging policy's whole distributions are not in the log: missing support shows only as a mean weight "
            "below 1"
        )
    elif unsupported > 0:
        found.append(f"{unsupported:.2%} of the target's probability has no support; rewards there count as 0 in IPS")
    if effective < 0.1 * rounds:
        found.append(f"only {effective:.0f} of {rounds} rounds' worth of information: the policies differ a lot")
    if share > 0.2:
        found.append(f"a single round carries {share:.0%} of the weighted reward; one more log may say something else")
    return found
