"""Intervals and p values that stay true however often one looks, and whenever one stops.

A fixed-horizon p value is right at one sample size, chosen before. Whoever reads it every morning and stops at the
first p < .05 finds a "winner" in a third of all tests in which nothing differs. The interval here is a confidence
sequence: with probability `level` it holds the true difference at *all* looks at once, so a test may be stopped at any
look, for any reason. The p value belongs to the same sequence: below `1 - level` once the interval has left the null.

Both come from one mixture. For an estimate d with standard error s,

    evidence(r) = (1 + r)^(-1/2) * exp(z^2 / 2 * r / (1 + r)),    z = (d - null) / s,    r = c * progress

is a likelihood ratio against the null, averaged over effects drawn from a normal curve with variance r * s^2, which
does not change over time. It is a martingale under the null, so it ever reaches 1 / alpha with probability alpha at
most. `c` is chosen so that the interval is narrowest when the planned sample is reached (progress 1): there it is 1.55
times as wide as a fixed-horizon one at 95 %. Data may go on beyond the plan; the plan is made before the first look.

The variance is estimated, so the promise is asymptotic. Differences of two equal arms keep it from some hundred units
an arm on even where money is skewed, since the skewness cancels. Of unequal arms the smaller one would be believed too
early, before it has seen a rare large order; so the standard error is the larger of the two that are in use: each arm
by its own variance (Welch), and both by their pooled one. For equal arms these are the same. `of_difference` does that
for every comparison of two arms, whatever the figure. A single mean has no other arm to borrow from: there the first
look is best taken at 355 * skewness^2 units (Kohavi et al. 2014), or values capped.

Source:
    Robbins 1970, "Statistical methods related to the law of the iterated logarithm" (the mixture);
    Johari, Pekelis, Walsh 2017, "Always valid inference" (mixture sequential probability ratio test, running p values);
    Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas 2021, "Time-uniform central limit theory and asymptotic confidence
    sequences" (estimated variances, eq. 5; the best tuning, appendix B.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.errors import MeasureError

START = 100
"""Independent units that an arm must have before a look says anything: with fewer no variance is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """What is known at each look.

    Attributes:
        estimate: [..., T] float64, the difference (or mean) as it stands.
        low, high: [..., T] float64; the true value lies in all of them at once with probability `level`.
        p_value: [..., T] float64; from `always_valid` that of each look alone, from the sequences the smallest so far,
            which is valid too and never rises again.
        level: of the intervals.
    """

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_value: np.ndarray
    level: float


def always_valid(
    estimate: np.ndarray | float,
    standard_error: np.ndarray | float,
    progress: np.ndarray | float,
    *,
    level: float = 0.95,
    null: float = 0.0,
) -> Sequence:
    """Return the always-valid interval and p value of each look, for an estimate of any kind (adjusted, ratio, ...).

    A look without a standard error (0, or not a number) says nothing: p value 1, interval without ends.

    Args:
        estimate: [...] float, approximately normal, such as a difference of means.
        standard_error: [...] float, of the estimate at that look.
        progress: [...] float > 0, information gathered over information planned; with arms in a constant ratio that is
            people so far / people planned, and may pass 1.
        level: of the intervals.
        null: the value that the p value speaks against.
    Raises:
        MeasureError: level outside 0..1, progress not > 0, or an estimate that is not a number though it has an error.
    """
    d, s, share = np.broadcast_arrays(
        np.asarray(estimate, np.float64), np.asarray(standard_error, np.float64), np.asarray(progress, np.float64)
    )
    factor = half_width_in_errors(share, level)
    known = np.isfinite(s) & (s > 0)
    if not np.isfinite(d[known]).all():
        raise MeasureError("an estimate is not a number though it has a standard error; leave that look out")
    width = np.where(known, factor * np.where(known, s, 1.0), np.inf)
    middle = np.where(np.isfinite(d), d, 0.0)
    z = np.where(known, (middle - null) / np.where(known, s, 1.0), 0.0)
    r = tuning(level) * share
    p_value = np.where(known, np.minimum(1.0, np.sqrt(1 + r) * np.exp(-0.5 * z**2 * r / (1 + r))), 1.0)
    return Sequence(estimate=d.copy(), low=middle - width, high=middle + width, p_value=p_value, level=level)


def of_difference(
    estimate: np.ndarray | float,
    variance_c: np.ndarray | float,
    count_c: np.ndarray | float,
    variance_t: np.ndarray | float,
    count_t: np.ndarray | float,
    progress: np.ndarray | float,
    *,
    covariance: np.ndarray | float = 0.0,
    level: float = 0.95,
    null: float = 0.0,
    start: int = START,
) -> Sequence:
    """Return the always-valid interval and p value of each look at the difference of two arms' figures.

    The error is the larger of Welch's and the pooled one (see the top of the file). A look with fewer than `start`
    units in one of the arms says nothing: p value 1, interval without ends.

    Args:
        estimate: [...] float, treatment minus control: of means, ratios, or whatever has an influence a person.
        variance_c, variance_t: [...] float, of the arm's figure; of a mean that is the variance of a unit / units.
        count_c, count_t: [...] independent units so far: people, or clusters of them.
        progress: [...] float > 0, from `progress_of`.
        covariance: [...] float, of the two figures, where units stand in both arms.
        level, null: see `always_valid`.
        start: >= 2.
    Raises:
        MeasureError: as `always_valid`.
    """
    v_c, n_c, v_t, n_t = (np.asarray(x, np.float64) for x in (variance_c, count_c, variance_t, count_t))
    with np.errstate(divide="ignore", invalid="ignore"):
        # a unit's variance is n * v of its arm; pooled over both, it counts once for each arm
        pooled = v_c * n_c / n_t + v_t * n_t / n_c
        larger = np.maximum(v_c + v_t, pooled) - 2 * np.asarray(covariance, np.float64)
        error = np.where((n_c >= start) & (n_t >= start), np.sqrt(np.maximum(larger, 0.0)), 0.0)
    return always_valid(estimate, error, progress, level=level, null=null)


def progress_of(
    count_c: np.ndarray | float, count_t: np.ndarray | float, planned_n: float, shares: tuple[float, float]
) -> np.ndarray:
    """Return [...] float64, information on a difference gathered over that planned; the smaller arm limits both.

    Args:
        count_c, count_t: [...] units so far.
        planned_n: units of both arms together at the planned end.
        shares: planned weights of control and treatment; only their ratio counts.
    Raises:
        MeasureError: a plan or a share that is not > 0.
    """
    if not min(shares) > 0:
        raise MeasureError(f"planned shares must be > 0, got {shares}")
    with np.errstate(divide="ignore", invalid="ignore"):
        gathered = 1.0 / (1.0 / np.asarray(count_c, np.float64) + 1.0 / np.asarray(count_t, np.float64))
    return _progress(gathered, planned_n * shares[0] * shares[1] / (shares[0] + shares[1]) ** 2)


def difference_sequence(
    count_c: np.ndarray,
    mean_c: np.ndarray,
    variance_c: np.ndarray,
    count_t: np.ndarray,
    mean_t: np.ndarray,
    variance_t: np.ndarray,
    planned_n: float,
    *,
    shares: tuple[float, float] = (0.5, 0.5),
    level: float = 0.95,
    null: float = 0.0,
    start: int = START,
) -> Sequence:
    """Return treatment minus control at every look, from the running figures of both arms.

    Args:
        count_c, count_t: [..., T] units so far (people, not events), looks in order of time on the last axis.
        mean_c, mean_t: [..., T] means so far.
        variance_c, variance_t: [..., T] sample variances so far, of one unit.
        planned_n: units of both arms together, at which the interval is narrowest; chosen before the first look.
        shares: planned weights of control and treatment; only their ratio counts. Wrong ones cost width, not validity.
        level, null: see `always_valid`.
        start: looks with fewer units in one of the arms say nothing (p value 1, no ends): no variance is known yet.
    Raises:
        MeasureError: a plan or a share that is not > 0, a negative variance or count, a mean that is not a number.
    """
    n_c, m_c, v_c = (np.asarray(x, np.float64) for x in (count_c, mean_c, variance_c))
    n_t, m_t, v_t = (np.asarray(x, np.float64) for x in (count_t, mean_t, variance_t))
    for n, m, v, arm in ((n_c, m_c, v_c, "control"), (n_t, m_t, v_t, "treatment")):
        _refuse_broken(n, m, v, arm, start)
    progress = progress_of(n_c, n_t, planned_n, shares)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_c, of_t = v_c / n_c, v_t / n_t
    return _running(of_difference(m_t - m_c, of_c, n_c, of_t, n_t, progress, level=level, null=null, start=start))


def mean_sequence(
    count: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    planned_n: float,
    *,
    level: float = 0.95,
    null: float = 0.0,
    start: int = START,
) -> Sequence:
    """Return one mean at every look, from its running figures; arguments as in `difference_sequence`.

    Nothing cancels the skewness here: raise `start` to the module's rule of thumb for rare or skewed values.
    """
    n, m, v = (np.asarray(x, np.float64) for x in (count, mean, variance))
    _refuse_broken(n, m, v, "the arm", start)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(n >= start, np.sqrt(v / n), 0.0)
    return _running(always_valid(m, error, _progress(n, planned_n), level=level, null=null))


def half_width_in_errors(progress: np.ndarray | float, level: float = 0.95) -> np.ndarray:
    """Return half the width of the interval in standard errors; a fixed-horizon one has 1.96 at 95 %.

    Args:
        progress: [...] float > 0, information gathered over information planned.
        level: of the interval.
    """
    share = np.asarray(progress, np.float64)
    if not (share > 0).all():
        raise MeasureError(f"progress must be > 0 (people so far / people planned), got {share.min()}")
    r = tuning(level) * share
    width: np.ndarray = np.sqrt((1 + r) / r * (np.log1p(r) - 2 * np.log(1 - level)))
    return width


def tuning(level: float) -> float:
    """Return c, the ratio r at which the interval is narrowest: the root of 1 + r = log(1 + r) + 1 - 2 log(alpha)."""
    from scipy.special import lambertw

    if not 0 < level < 1:
        raise MeasureError(f"level must lie between 0 and 1, got {level}")
    return float(-lambertw(-((1 - level) ** 2) / np.e, -1).real - 1)


def _progress(n: np.ndarray, planned_n: float) -> np.ndarray:
    if not planned_n > 0:
        raise MeasureError(f"planned_n must be > 0: the units at which the test was planned to end, got {planned_n}")
    # a look at nobody has no progress; it says nothing in any case
    progress: np.ndarray = np.maximum(n, 1e-9) / planned_n
    return progress


def _refuse_broken(n: np.ndarray, m: np.ndarray, v: np.ndarray, arm: str, start: int) -> None:
    if start < 2:
        raise MeasureError(f"start must be >= 2: one unit has no variance, got {start}")
    if not (n >= 0).all():
        raise MeasureError(f"{arm}: {(~(n >= 0)).sum()} counts are negative or not a number")
    used = np.broadcast_to(n >= start, np.broadcast_shapes(n.shape, m.shape, v.shape))
    broken = used & ~(np.isfinite(m) & (v >= 0))
    if broken.any():
        raise MeasureError(
            f"{arm}: {broken.sum()} looks have a mean that is not a number or a variance that is not >= 0, "
            f"first at {tuple(int(i) for i in np.argwhere(broken)[0])}"
        )


def _running(each: Sequence) -> Sequence:
    return Sequence(
        estimate=each.estimate,
        low=each.low,
        high=each.high,
        p_value=np.minimum.accumulate(each.p_value, axis=-1),
        level=each.level,
    )
