"""Were the arms filled in the ratio that was planned? If not, something broke the randomisation, and no result counts.

A page that loads slower in one arm loses visitors before they are logged; a redirect, a bot filter or a cache does the
same. The arms that remain are then no longer alike, and their difference is not what the treatment did.

Whoever checks at every look flags a sound experiment in the end, just as with effects. `planned` makes the check
always valid: the counts' likelihood under shares drawn around the plan (a Dirichlet curve), over that under the plan
itself, is a martingale, and ever reaches 1 / threshold with probability `threshold` at most.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from playbill.errors import MeasureError
from playbill.measure.sequential import tuning

SMALL_EXPECTED = 5.0  # below this the chi-square curve is a poor picture of the statistic (Cochran 1954)
_MOST_OUTCOMES = 1_000_000  # outcomes that are enumerated, some 50 MB
_DRAWS = 200_000


class SampleRatio(msgspec.Struct, frozen=True, kw_only=True):
    """How well the counts of an experiment's arms fit the planned shares.

    Attributes:
        p_value: chance of counts at least this far from the plan when the plan was carried out.
            Of the always-valid check 1 / the likelihood ratio: over all looks together it is below any alpha with
            probability alpha at most.
        statistic: Pearson's chi-square, sum of (count - expected)^2 / expected.
        expected: users by arm under the plan, in the order of the counts.
        flagged: p_value < threshold.
        threshold: below it the experiment's results must not be read.
        method: "chi-square", "exact multinomial", "simulated multinomial", or "always valid".
    """

    p_value: float
    statistic: float
    expected: list[float]
    flagged: bool
    threshold: float
    method: str


def sample_ratio(
    counts: Sequence[int] | np.ndarray, shares: Sequence[float], threshold: float = 0.001, *, planned: int = 0
) -> SampleRatio:
    """Return whether the arms were filled as planned.

    Chi-square where every arm expects at least 5 users; below that the exact multinomial test, which adds up the
    probability of every outcome that is no likelier than the observed one (outcomes are drawn, from a fixed seed, where
    there are more than a million).

    Args:
        counts: [A] int, users by arm, A >= 2.
        shares: [A] planned weights of the arms, each > 0; only their ratio counts, so 0.1 and 0.1 are 1 to 1.
        threshold: the check is made on every experiment, so it asks for strong evidence; 0.001 is usual.
        planned: 0 for one check at the end; users at the planned end makes the check one that may be repeated at every
            look. It is keenest there, and valid whatever the plan, which must be made before the first look.
    Raises:
        MeasureError: fewer than two arms, nobody at all, a negative or broken count, or a share that is not > 0.
    Source:
        Fabijan et al. 2019, "Diagnosing Sample Ratio Mismatch in Online Controlled Experiments" (KDD);
        Lindon and Malek 2022, "Anytime-Valid Inference for Multinomial Count Data" (NeurIPS): the check at any look.
    """
    count, share = np.asarray(counts, np.float64), np.asarray(shares, np.float64)
    if count.ndim != 1 or count.shape != share.shape or len(count) < 2:
        raise MeasureError(
            f"a sample ratio needs one count and one share for each of two or more arms, got {counts}, {shares}"
        )
    if not np.isfinite(count).all() or (count < 0).any() or (count % 1).any() or not count.sum():
        raise MeasureError(f"counts of users must be whole numbers >= 0 with somebody in them, got {list(count)}")
    if not np.isfinite(share).all() or (share <= 0).any():
        raise MeasureError(f"planned shares must be > 0, got {list(share)}; leave out an arm that was planned empty")
    if planned < 0:
        raise MeasureError(f"planned must be >= 0: users at the planned end, or 0 for a single check, got {planned}")
    if not 0 < threshold < 1:
        raise MeasureError(f"threshold must lie between 0 and 1, got {threshold}")
    share = share / share.sum()
    expected = count.sum() * share
    statistic = float(((count - expected) ** 2 / expected).sum())
    if planned:
        p_value, method = _always_valid(count, share, planned / tuning(1 - threshold)), "always valid"
    elif expected.min() >= SMALL_EXPECTED:
        p_value, method = _chi_square(statistic, len(count)), "chi-square"
    elif _outcomes(int(count.sum()), len(count)) <= _MOST_OUTCOMES:
        p_value, method = _exact(count.astype(np.int64), share), "exact multinomial"
    else:
        p_value, method = _simulated(count.astype(np.int64), share), "simulated multinomial"
    return SampleRatio(
        p_value=p_value,
        statistic=statistic,
        expected=expected.tolist(),
        flagged=p_value < threshold,
        threshold=threshold,
        method=method,
    )


def _chi_square(statistic: float, arms: int) -> float:
    # as scipy.stats.chisquare, without what that does around it: a service checks thousands of experiments
    from scipy.special import chdtrc

    return float(chdtrc(arms - 1, statistic))


def _always_valid(count: np.ndarray, share: np.ndarray, concentration: float) -> float:
    """Return P(counts | plan) / P(counts | shares drawn from a Dirichlet curve around the plan), 1 at most."""
    from scipy.special import gammaln

    prior = concentration * share
    drawn = (
        gammaln(concentration) - gammaln(concentration + count.sum()) + (gammaln(prior + count) - gammaln(prior)).sum()
    )
    return float(np.exp(min(0.0, (count * np.log(share)).sum() - drawn)))


def _outcomes(users: int, arms: int) -> float:
    """Return in how many ways the users can fall into the arms."""
    from scipy.special import comb

    return float(comb(users + arms - 1, arms - 1))


def _exact(count: np.ndarray, share: np.ndarray) -> float:
    # every outcome is built arm by arm: `left` users not placed yet, `log_p` of the placement so far
    left, log_p = np.array([count.sum()]), np.zeros(1)
    for arm in range(len(count) - 1):
        ways = left + 1
        start = np.repeat(np.cumsum(ways) - ways, ways)
        placed = np.arange(ways.sum()) - start
        log_p = np.repeat(log_p, ways) + _log_term(placed, share[arm])
        left = np.repeat(left, ways) - placed
    log_p = log_p + _log_term(left, share[-1])
    observed = _log_term(count, share).sum()
    # outcomes as likely as the observed one count too; rounding must not split them
    as_far = np.exp(log_p[log_p <= observed + 1e-9] - log_p.max()).sum()
    return float(min(1.0, as_far / np.exp(log_p - log_p.max()).sum()))


def _log_term(count: np.ndarray, share: np.ndarray | float) -> np.ndarray:
    from scipy.special import gammaln

    term: np.ndarray = count * np.log(share) - gammaln(count + 1.0)
    return term


def _simulated(count: np.ndarray, share: np.ndarray) -> float:
    drawn = np.random.default_rng(0).multinomial(int(count.sum()), share, size=_DRAWS)
    as_far = (_log_term(drawn, share).sum(1) <= _log_term(count, share).sum() + 1e-9).sum()
    return float((as_far + 1) / (_DRAWS + 1))  # the observed outcome is one of those possible: never 0
