"""Do groups get the same? Rates or means of groups of people against a reference group, persons being the units.

A person p has a total Y_p (clicks, offers, money) over a count N_p of opportunities (impressions, mails, purchases; 1
for a measure per person). A group's figure is r = sum Y_p / sum N_p. One person's opportunities are not independent,
so the error is that of a ratio over persons (delta method, clustered by person):

    var(r) = n / (n - 1) * sum_p (Y_p - r N_p)^2 / (sum_p N_p)^2

Differences and ratios (on the log scale) of two groups have no person in common, so their variances add. The p value is
that of the score test: both variances are taken at the common rate r_0 of the two groups, so that a group with no
outcome at all can be judged too.

Source:
    Cochran 1977, "Sampling techniques", section 6.4 (ratio estimator); Deng, Knoblich and Lu 2018, "Applying the delta
    method in metric analytics".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, sqrt

import numpy as np

from playbill.errors import MeasureError
from playbill.measure.disparity.settings import Correction
from playbill.measure.many import benjamini_hochberg, holm

NOBODY = -1  # group code of people who are in no group of this family
LEAST_EXPECTED = 5.0  # fewer expected outcomes, and the normal curve is a poor picture of the count
_POWER = 0.8


@dataclass(slots=True)
class Family:
    """Groups that are compared with one of them, such as the values of a column.

    Attributes:
        name: column, or columns joined by " & ".
        code: [P] int64 group of each person, -1 in none.
        groups: G names.
        reference: code of the group the others are compared with.
    """

    name: str
    code: np.ndarray
    groups: list[str]
    reference: int


@dataclass(slots=True, kw_only=True)
class Comparison:
    """One group against the reference of its family, on one measure.

    Attributes:
        measure, family, group, reference: what is compared.
        people: of the group who had an opportunity.
        opportunities: of the group (sum of N_p).
        rate, rate_low, rate_high: the group's figure; None where it had no opportunity.
        reference_rate: the reference's figure.
        difference, low, high: rate - reference_rate; None where not judged.
        ratio, ratio_low, ratio_high: rate / reference_rate; None where a rate is not above 0.
        p_value, adjusted: of the score test, and after the correction for all comparisons.
        flagged: adjusted < false_alarms.
        detectable: smallest difference from the reference that would be found with probability 0.8, had it been the
            only comparison.
        not_judged: why not; empty where it was.
    """

    measure: str
    family: str
    group: str
    reference: str
    people: int
    opportunities: float
    rate: float | None
    rate_low: float | None
    rate_high: float | None
    reference_rate: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    p_value: float | None = None
    adjusted: float | None = None
    flagged: bool = False
    detectable: float | None = None
    not_judged: str = ""


def compare(
    measure: str,
    family: Family,
    total: np.ndarray,
    count: np.ndarray,
    *,
    min_people: int,
    level: float,
    least_expected: float = LEAST_EXPECTED,
) -> list[Comparison]:
    """Return one comparison for each group of the family but the reference; `correct` then flags.

    Args:
        measure: its name.
        family: over P people.
        total: [P] float, Y_p.
        count: [P] float >= 0, N_p; people with 0 had no opportunity and do not count.
        min_people: fewer people with an opportunity, in the group or the reference, and the group is not judged.
        level: of the intervals.
        least_expected: outcomes that a group must expect at the common rate to be judged; 0 where totals are no counts.
    Raises:
        MeasureError: lengths differ, a total or count is not finite, a count is negative, or a total stands where the
            count is 0; names the first rows.
    """
    total, count = _checked(measure, family, total, count)
    sums = [_sums(family, g, total, count) for g in range(len(family.groups))]
    reference = sums[family.reference]
    found = []
    for g, name in enumerate(family.groups):
        if g != family.reference:
            one = _start(measure, family, name, sums[g], reference, level)
            one.not_judged = _why_not(sums[g], reference, family.groups[family.reference], min_people, least_expected)
            if not one.not_judged:
                _judge(one, sums[g], reference, level)
            found.append(one)
    return found


def correct(comparisons: Sequence[Comparison], correction: Correction, false_alarms: float) -> None:
    """Adjust the p values of all judged comparisons of a reading for their number, and set the flags."""
    judged = [c for c in comparisons if c.p_value is not None]
    if not judged:
        return
    adjust = holm if correction is Correction.HOLM else benjamini_hochberg
    p_values = adjust(np.array([c.p_value for c in judged], np.float64))
    for c, p in zip(judged, p_values, strict=True):
        c.adjusted, c.flagged = float(p), bool(p < false_alarms)


@dataclass(slots=True)
class _Sums:
    """What a comparison needs of a group: sums over its people with an opportunity."""

    people: int
    total: float
    count: float
    total_squared: float
    product: float
    count_squared: float

    @property
    def rate(self) -> float:
        return self.total / self.count

    def variance(self, rate: float) -> float:
        """Return var(r) with residuals taken at `rate`."""
        squares = self.total_squared - 2 * rate * self.product + rate**2 * self.count_squared
        return max(squares, 0.0) / self.count**2 * self.people / max(self.people - 1, 1)


def _sums(family: Family, group: int, total: np.ndarray, count: np.ndarray) -> _Sums:
    rows = (family.code == group) & (count > 0)
    y, n = total[rows], count[rows]
    return _Sums(int(rows.sum()), float(y.sum()), float(n.sum()), float(y @ y), float(y @ n), float(n @ n))


def _start(measure: str, family: Family, name: str, own: _Sums, reference: _Sums, level: float) -> Comparison:
    there = own.count > 0
    reach = _quantile((1 + level) / 2) * sqrt(own.variance(own.rate)) if there and own.people > 1 else None
    return Comparison(
        measure=measure,
        family=family.name,
        group=name,
        reference=family.groups[family.reference],
        people=own.people,
        opportunities=own.count,
        rate=own.rate if there else None,
        rate_low=None if reach is None else own.rate - reach,
        rate_high=None if reach is None else own.rate + reach,
        reference_rate=reference.rate if reference.count > 0 else None,
    )


def _why_not(own: _Sums, reference: _Sums, reference_name: str, min_people: int, least_expected: float) -> str:
    if own.people < min_people:
        return f"{own.people:,} people with an opportunity, fewer than {min_people:,}"
    if reference.people < min_people:
        return f"the reference {reference_name} has {reference.people:,} people with an opportunity"
    common = (own.total + reference.total) / (own.count + reference.count)
    if common * own.count < least_expected:
        return f"{common * own.count:.2g} outcomes expected at the common rate, fewer than {least_expected:g}"
    return ""


def _judge(one: Comparison, own: _Sums, reference: _Sums, level: float) -> None:
    from scipy.stats import norm

    z = _quantile((1 + level) / 2)
    one.difference = own.rate - reference.rate
    error = sqrt(own.variance(own.rate) + reference.variance(reference.rate))
    one.low, one.high = one.difference - z * error, one.difference + z * error
    common = (own.total + reference.total) / (own.count + reference.count)
    null_error = sqrt(own.variance(common) + reference.variance(common))
    # nobody differs from anybody, such as one price for all: then the difference is 0 too
    one.p_value = float(2 * norm.sf(abs(one.difference) / null_error)) if null_error > 0 else 1.0
    one.detectable = (z + _quantile(_POWER)) * null_error
    if own.rate > 0 and reference.rate > 0:
        relative = sqrt(own.variance(own.rate) / own.rate**2 + reference.variance(reference.rate) / reference.rate**2)
        one.ratio = own.rate / reference.rate
        one.ratio_low, one.ratio_high = (one.ratio * exp(s * z * relative) for s in (-1, 1))


def _quantile(share: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(share))


def _checked(measure: str, family: Family, total: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    total, count = np.asarray(total, np.float64), np.asarray(count, np.float64)
    if total.shape != family.code.shape or count.shape != family.code.shape:
        raise MeasureError(
            f"{measure}: total and count are [{len(family.code)}], one a person, got {total.shape} and {count.shape}"
        )
    bad = ~np.isfinite(total) | ~np.isfinite(count) | (count < 0) | ((count == 0) & (total != 0))
    if bad.any():
        rows = np.flatnonzero(bad)
        shown = ", ".join(f"person {r}: {total[r]:g} of {count[r]:g}" for r in rows[:5])
        raise MeasureError(
            f"{measure}: a total must be finite and belong to an opportunity; {len(rows):,} of {len(bad):,} people "
            f"break this, first {shown}"
        )
    return total, count
