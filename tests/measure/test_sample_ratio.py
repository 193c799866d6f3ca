"""The sample-ratio check: by hand, against scipy, and on real tests with broken randomisation."""

from __future__ import annotations

from itertools import product
from math import factorial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.integrate import quad
from scipy.stats import beta, binomtest, chisquare

from playbill.errors import MeasureError
from playbill.measure.sample_ratio import sample_ratio
from playbill.measure.sequential import tuning


def test_by_hand() -> None:
    """480 : 520 against 500 : 500 is 400/500 + 400/500 = 1.6; P(chi2_1 > 1.6) = 0.2059."""
    found = sample_ratio([480, 520], [0.5, 0.5])
    assert found.statistic == pytest.approx(1.6)
    assert found.p_value == pytest.approx(0.20590, abs=1e-5)
    assert found.expected == [500, 500] and not found.flagged and found.method == "chi-square"


def test_the_shift_that_people_overlook_is_flagged() -> None:
    """821,588 : 815,482 looks like half and half, and is not (Kohavi et al. 2020, ch. 21)."""
    found = sample_ratio([821_588, 815_482], [0.5, 0.5])
    assert found.p_value == pytest.approx(1.8e-6, rel=0.05) and found.flagged


def test_only_the_ratio_of_the_shares_counts() -> None:
    assert sample_ratio([90, 210], [0.01, 0.02]).p_value == pytest.approx(sample_ratio([90, 210], [1, 2]).p_value)
    assert sample_ratio([900, 2100], [1, 2]).p_value == pytest.approx(chisquare([900, 2100], [1000, 2000]).pvalue)


@pytest.mark.parametrize(("count", "share"), [((0, 7), 0.5), ((3, 1), 0.2), ((5, 5), 0.4), ((2, 200), 0.02)])
def test_two_small_arms_equal_the_exact_binomial_test(count: tuple[int, int], share: float) -> None:
    found = sample_ratio(count, [share, 1 - share])
    assert found.method == "exact multinomial"
    assert found.p_value == pytest.approx(binomtest(count[0], sum(count), share).pvalue, rel=1e-9)


def test_three_small_arms_equal_the_sum_over_all_outcomes() -> None:
    users, shares, seen = 8, (0.5, 0.3, 0.2), (1, 2, 5)

    def chance(a: int, b: int, c: int) -> float:
        ways = factorial(users) / (factorial(a) * factorial(b) * factorial(c))
        return ways * shares[0] ** a * shares[1] ** b * shares[2] ** c

    every = [chance(a, b, users - a - b) for a, b in product(range(users + 1), repeat=2) if a + b <= users]
    assert sum(every) == pytest.approx(1)
    as_far = sum(p for p in every if p <= chance(*seen) * (1 + 1e-12))
    assert sample_ratio(seen, shares).p_value == pytest.approx(as_far, rel=1e-9)


def test_too_many_outcomes_are_drawn() -> None:
    found = sample_ratio([500, 495, 5, 0], [0.5, 0.495, 0.004, 0.001])
    assert found.method == "simulated multinomial" and 0.1 < found.p_value < 1
    assert sample_ratio([500, 460, 20, 20], [0.5, 0.495, 0.004, 0.001]).flagged


def test_a_fair_split_is_flagged_as_often_as_promised() -> None:
    """Small and large experiments alike: at 5 % no more than 5 %, give or take chance."""
    draw = np.random.default_rng(0)
    for users, shares in ((12, [0.5, 0.5]), (15, [0.6, 0.3, 0.1]), (5000, [0.8, 0.1, 0.1])):
        p = np.array([sample_ratio(row, shares).p_value for row in draw.multinomial(users, shares, 500)])
        assert (p < 0.05).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 500)


@pytest.mark.parametrize(
    ("counts", "shares", "says"),
    [
        ([5], [1.0], "two or more arms"),
        ([5, 5], [1.0], "two or more arms"),
        ([0, 0], [0.5, 0.5], "somebody in them"),
        ([-1, 5], [0.5, 0.5], ">= 0"),
        ([1.5, 5], [0.5, 0.5], "whole numbers"),
        ([float("nan"), 5], [0.5, 0.5], "whole numbers"),
        ([5, 5], [0.0, 1.0], "shares must be > 0"),
        ([5, 5], [float("nan"), 1.0], "shares must be > 0"),
    ],
)
def test_bad_counts_and_shares_are_refused(counts: list[int], shares: list[float], says: str) -> None:
    with pytest.raises(MeasureError, match=says):
        sample_ratio(counts, shares)


def test_a_check_at_every_look_flags_few_sound_experiments() -> None:
    """A look after every 200 of 20,000 users: the check for one look flags a tenth of them, the other one keeps 1 %."""
    draw = np.random.default_rng(0)
    once = ever = 0
    for _ in range(100):
        looks = draw.multinomial(200, [0.5, 0.3, 0.2], 100).cumsum(0)
        once += any(sample_ratio(seen, [0.5, 0.3, 0.2], 0.01).flagged for seen in looks)
        ever += any(sample_ratio(seen, [0.5, 0.3, 0.2], 0.01, planned=10_000).flagged for seen in looks)
    assert once >= 5 and ever <= 1
    # a difference is found: 47.5 % instead of half at the planned end, 46 % at half of it; 48.5 % is not found yet
    assert sample_ratio([5150, 4850], [0.5, 0.5], planned=10_000).p_value > 0.001
    assert sample_ratio([5250, 4750], [0.5, 0.5], planned=10_000).flagged
    assert sample_ratio([2700, 2300], [0.5, 0.5], planned=10_000).flagged


def test_the_check_at_any_look_is_a_ratio_of_likelihoods() -> None:
    """Two arms by integration: shares drawn from a beta curve around the plan, against the plan."""
    k = 50 / tuning(0.999)
    drawn, _ = quad(lambda p: beta.pdf(p, 0.3 * k, 0.7 * k) * p**16 * (1 - p) ** 4, 0, 1)
    found = sample_ratio([16, 4], [0.3, 0.7], planned=50)
    assert found.method == "always valid"
    assert found.p_value == pytest.approx(0.3**16 * 0.7**4 / drawn, rel=1e-6)


def test_upworthy_shows_the_weeks_in_which_randomisation_was_broken(shared_data: Path) -> None:
    """The archive's authors withdrew the tests of 2013-06-25 to 2014-01-10: the check finds them by itself."""
    packages = pl.read_parquet(shared_data / "upworthy-exploratory" / "packages.parquet")
    tests = packages.group_by("clickability_test_id").agg("impressions", pl.col("test_week").min())
    broken = tests["test_week"].is_between(201325, 201402).to_numpy()
    flagged = np.array([sample_ratio(c, np.ones(len(c))).flagged for c in tests["impressions"].to_list()])
    assert (broken.sum(), (~broken).sum()) == (1102, 3771)
    assert flagged[broken].sum() == 736  # 0.668
    assert flagged[~broken].sum() == 17  # 0.0045
