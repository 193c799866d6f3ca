"""One arm's figure and what every person does to it: the form in which all metrics are compared.

A figure's *influence* has one value a person, mean 0; to first order the figure's error is their average. So the
variance of any metric is the variance of a mean, and CUPED, ratios, relative effects and clusters need no formula of
their own (the delta method; Deng et al. 2018, "Applying the Delta Method in Metric Analytics", KDD).
"""

from __future__ import annotations

import msgspec
import numpy as np

from playbill.errors import MeasureError


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One arm's figure.

    Attributes:
        value: the mean, ratio or restricted mean time.
        influence: [n] float64, sums to 0; n * (change of `value` if this person's weight grew by 1/n).
    """

    value: float
    influence: np.ndarray


def of_mean(values: np.ndarray) -> Figure:
    """Return the mean over people; a proportion is the mean of zeros and ones.

    Args:
        values: [n] float, one a person, all finite, n >= 1.
    Raises:
        MeasureError: a value is NaN or infinite; names count and first rows.
    """
    values = _finite("values", values)
    mean = float(values.mean())
    return Figure(value=mean, influence=values - mean)


def of_ratio(numerators: np.ndarray, denominators: np.ndarray) -> Figure:
    """Return sum(numerators) / sum(denominators), people as units: clicks per impression, milliseconds per request.

    Args:
        numerators, denominators: [n] float, a person's totals; a person with 0 of both adds nothing.
    Raises:
        MeasureError: a value is not finite, or the denominators sum to 0.
    Source:
        Deng et al. 2018, section 3: the ratio X/Y moves like (x_i - (X/Y) y_i) / mean(y).
    """
    x, y = _finite("numerators", numerators), _finite("denominators", denominators)
    if x.shape != y.shape:
        raise MeasureError(f"a ratio needs one numerator and one denominator a person, got {x.shape} and {y.shape}")
    total = float(y.sum())
    if total == 0:
        raise MeasureError("the denominators sum to 0: there is nothing to divide by")
    ratio = float(x.sum()) / total
    return Figure(value=ratio, influence=(x - ratio * y) / (total / len(y)))


def of_restricted_time(days: np.ndarray, happened: np.ndarray, horizon_days: float) -> Figure:
    """Return the mean number of days until the event, people who need longer than the horizon counted as the horizon.

    It is the area under the Kaplan-Meier curve up to the horizon. Somebody who is watched for less than the horizon and
    has not done it (assigned late in the log) is censored, neither dropped nor called a refusal.

    Args:
        days: [n] float > = 0, days until the event, or until the person is no longer watched.
        happened: [n] bool, whether the event ended the days.
        horizon_days: > 0.
    Raises:
        MeasureError: days that are not finite or negative, or nobody watched until the horizon although some have not
            done it: the area has no end then.
    Source:
        Royston and Parmar 2013, "Restricted mean survival time"; influence: the infinitesimal jackknife of the
        Kaplan-Meier curve, whose squares sum to Greenwood's variance.
    """
    days, happened = _finite("days", days), np.asarray(happened, bool)
    if (days < 0).any():
        raise MeasureError(f"days until an event must be >= 0, got {days.min():g} in {(days < 0).sum():,} rows")
    late = days >= horizon_days
    times = np.where(late, horizon_days, days)
    ended = happened & ~late
    if not late.any() and not ended[times == times.max()].all():
        raise MeasureError(
            f"nobody was watched for {horizon_days:g} days (longest {days.max():.3g}); wait, or shorten the window"
        )
    moments, place = np.unique(times, return_inverse=True)
    deaths = np.bincount(place, weights=ended, minlength=len(moments))
    # at risk at a moment: everybody whose own days are not shorter
    risk = np.bincount(place, minlength=len(moments))[::-1].cumsum()[::-1].astype(np.float64)
    survival = np.cumprod(1 - deaths / risk)
    width = np.diff(np.append(moments, horizon_days))
    # area to the right of each moment, up to the horizon
    right = (survival * width)[::-1].cumsum()[::-1]
    area = float(moments[0] + right[0])
    # d log S at a moment, of one person: -(own event - at risk * hazard) / (risk - deaths); no area is left where S = 0
    left = risk - deaths
    pull = np.divide(right, left, out=np.zeros_like(right), where=left > 0)
    spent = np.cumsum(pull * deaths / risk)
    influence = len(days) * (spent[place] - np.where(ended, pull[place], 0.0))
    return Figure(value=area, influence=influence)


def _finite(what: str, values: np.ndarray) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not len(array):
        raise MeasureError(f"{what} must hold one number a person and at least one person, got shape {array.shape}")
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        first = ", ".join(f"row {row}: {array[row]}" for row in bad[:5])
        raise MeasureError(f"{what}: {len(bad):,} of {len(array):,} are no numbers, first {first}")
    return array
