"""What an arm changed: absolute and relative effects with intervals, CUPED, errors by cluster.

    effect     = figure(arm) - figure(control)
    relative   = figure(arm) / figure(control) - 1           (delta method)
    CUPED      = figure - beta * (mean earlier value of the arm - mean earlier value of both)

`beta` is the least-squares slope of the influence on the earlier values, so the adjusted effect has the smallest
variance that a straight line can give, about (1 - correlation^2) of the plain one, and the same expectation: what
happened before the assignment cannot depend on it.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from scipy import stats

from playbill.errors import MeasureError
from playbill.measure.experiments.influence import Figure
from playbill.measure.experiments.jackknife import Groups, Spread, groups_of, slope_of, spread_of
from playbill.measure.sequential import START, of_difference

FEW_CLUSTERS = 30
"""Below this many clusters in an arm an error by cluster is rough (Cameron and Miller 2015)."""
_SKEWED = 1 / math.sqrt(355)


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One arm's figure, with what is known of its people.

    Attributes:
        figure: value and influence [n].
        earlier: [n] float64, the same metric before the assignment, for CUPED; None without.
        cluster: [n] int, group of people who are not independent; None where each stands alone.
    """

    figure: Figure
    earlier: np.ndarray | None = None
    cluster: np.ndarray | None = None


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """An arm against the control; standard errors are of the estimate beside them.

    Attributes:
        control, arm: the two figures, CUPED-adjusted where `variance_reduction` is not None.
        difference, standard_error, low, high: arm - control, and its interval of the level asked for; an always-valid
            one takes a larger error where the arms are unequal (`sequential.of_difference`).
        relative, relative_low, relative_high: difference / control; None where the control is within three standard
            errors of 0, since a ratio to it says nothing then.
        p_value: two-sided, of no difference; Welch's t on `degrees` of freedom, or always valid.
        n_arm, n_control: people.
        clusters: independent groups of both arms; None where people are independent.
        variance_reduction: 1 - variance with CUPED / variance without; None without CUPED.
        plain_difference, plain_standard_error: without CUPED.
        warnings: what speaks against the interval.
    """

    control: float
    arm: float
    difference: float
    standard_error: float
    low: float
    high: float
    degrees: float
    p_value: float
    relative: float | None
    relative_low: float | None
    relative_high: float | None
    n_arm: int
    n_control: int
    clusters: int | None
    variance_reduction: float | None
    plain_difference: float
    plain_standard_error: float
    warnings: list[str]


def compare(arm: Sample, control: Sample, *, level: float = 0.95, progress: float | None = None) -> Effect:
    """Return the effect of an arm against the control.

    Args:
        level: nominal coverage of the intervals, 0 < level < 1.
        progress: information gathered / planned (`sequential.progress_of`) makes intervals and p value always valid:
            true at all looks at once. With fewer than `sequential.START` people (or clusters) in an arm they say
            nothing: p value 1, intervals without ends. None for one look at the end.
    Raises:
        MeasureError: fewer than two people (or clusters) in an arm, or nobody differs from anybody.
    Source:
        Deng et al. 2013, "Improving the Sensitivity of Online Controlled Experiments by Utilizing Pre-Experiment Data"
        (CUPED); Deng et al. 2018 (ratios, relative effects); Cameron and Miller 2015 (clusters).
    """
    n, m = len(arm.figure.influence), len(control.figure.influence)
    if min(n, m) < 2:
        raise MeasureError(f"an interval needs two people or more in both arms, got {n} and {m}")
    ids = None
    if arm.cluster is not None and control.cluster is not None:
        ids = groups_of(arm.cluster, control.cluster)
    # each person's share of the two figures' errors
    arm_moves, control_moves = arm.figure.influence / n, control.figure.influence / m
    plain = spread_of(arm_moves, control_moves, ids)
    value, against = arm.figure.value, control.figure.value
    if plain.variance <= 0:
        raise MeasureError("nobody differs from anybody within the arms, so chance cannot be told from effect")
    reduction, both = None, np.zeros(n + m)
    if arm.earlier is not None and control.earlier is not None:
        arm_before, control_before = (x - x.mean() for x in (arm.earlier, control.earlier))
        slope = slope_of(arm_moves, control_moves, arm_before / n, control_before / m, ids)
        if slope is not None:
            beta, arm_alone, control_alone = slope
            mean = float(arm.earlier.sum() + control.earlier.sum()) / (n + m)
            value -= beta * (float(arm.earlier.mean()) - mean)
            against -= beta * (float(control.earlier.mean()) - mean)
            arm_moves = (arm_moves - beta * arm_before / n) * arm_alone
            control_moves = (control_moves - beta * control_before / m) * control_alone
            # the common mean moves both figures alike: it leaves the difference, and shifts the ratio a little
            both = beta * np.concatenate([arm_before, control_before]) / (n + m)
    spread = spread_of(arm_moves, control_moves, ids)
    if bool(both.any()):
        reduction = 1 - spread.variance / plain.variance
    difference, error = value - against, math.sqrt(spread.variance)
    low, high, p_value = _interval(difference, spread, spread.degrees, level, progress)
    relative = relative_low = relative_high = None
    if against != 0 and abs(against) > 3 * math.sqrt(spread.control_variance):
        relative = difference / against
        ratio_moves = -both * relative / against
        ratio = spread_of(
            arm_moves / against + ratio_moves[:n], control_moves * value / against**2 - ratio_moves[n:], ids
        )
        relative_low, relative_high, _ = _interval(relative, ratio, spread.degrees, level, progress)
    return Effect(
        control=against,
        arm=value,
        difference=difference,
        standard_error=error,
        low=low,
        high=high,
        degrees=spread.degrees,
        p_value=p_value,
        relative=relative,
        relative_low=relative_low,
        relative_high=relative_high,
        n_arm=n,
        n_control=m,
        clusters=None if ids is None else ids.count,
        variance_reduction=reduction,
        plain_difference=arm.figure.value - control.figure.value,
        plain_standard_error=math.sqrt(plain.variance),
        warnings=_warnings(spread, ids, progress is not None),
    )


def _interval(
    estimate: float, spread: Spread, degrees: float, level: float, progress: float | None
) -> tuple[float, float, float]:
    """Return both ends and the p value: of one look at the end by Welch's t, of any look where there is a progress."""
    if progress is None:
        error = math.sqrt(spread.variance)
        reach = float(stats.t.ppf(0.5 + level / 2, degrees)) * error
        return estimate - reach, estimate + reach, float(2 * stats.t.sf(abs(estimate) / error, degrees))
    found = of_difference(
        estimate,
        spread.control_variance,
        spread.control_units,
        spread.arm_variance,
        spread.arm_units,
        progress,
        covariance=spread.covariance,
        level=level,
    )
    return float(found.low), float(found.high), float(found.p_value)


def _warnings(spread: Spread, ids: Groups | None, sequential: bool) -> list[str]:
    units, fewest = spread.arm_units + spread.control_units, min(spread.arm_units, spread.control_units)
    warnings = []
    if sequential and fewest < START:
        warnings.append(
            f"{fewest} {'people' if ids is None else 'clusters'} in an arm: a reading that may be repeated says "
            f"nothing before there are {START}"
        )
    # a mean of n values of skewness s has s / sqrt(n); Kohavi et al. 2014, rule 7: n >= 355 s^2. Few people show some
    # skewness by chance, with a standard error of sqrt(6) / n
    if abs(spread.skewness) > max(_SKEWED, 2 * math.sqrt(6) / units):
        warnings.append(
            f"too few people (or clusters) for so skewed a metric: the error's skewness is {abs(spread.skewness):.2f}, "
            f"a normal curve serves below {_SKEWED:.3f}; a cap would help"
        )
    if ids is not None and fewest < FEW_CLUSTERS:
        warnings.append(f"{fewest} clusters in an arm: an error from fewer than {FEW_CLUSTERS} is rough")
    if spread.shared:
        warnings.append(f"{spread.shared:,} clusters have people in both arms: they were not assigned as a whole")
    return warnings
