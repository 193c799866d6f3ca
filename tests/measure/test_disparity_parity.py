"""Parity of groups: by hand, against statsmodels, and on worlds that are fair and that are not."""

from __future__ import annotations

import sys
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from playbill.cli import compose
from playbill.errors import MeasureError
from playbill.measure.disparity.parity import Family, compare, correct
from playbill.measure.disparity.settings import Correction

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from proof_disparity import logs, power_of_one, set_up, with_disparity


def two(code: list[int]) -> Family:
    return Family("g", np.array(code), ["g=a", "g=b"], 0)


def test_by_hand() -> None:
    # group a: persons with 1 of 2, 0 of 1, 2 of 3 -> 3/6; group b: 1 of 4, 0 of 1 -> 1/5; the last is in no group
    family = two([0, 0, 0, 1, 1, -1])
    total, count = np.array([1.0, 0, 2, 1, 0, 9]), np.array([2.0, 1, 3, 4, 1, 9])
    [one] = compare("clicks", family, total, count, min_people=2, level=0.95, least_expected=0)
    # residuals Y - r N: a 0, -1/2, 1/2 -> 1/2 * 3/2 / 36; b 0.2, -0.2 -> 0.08 * 2 / 25
    error = sqrt(0.5 * 1.5 / 36 + 0.08 * 2 / 25)
    z = norm.ppf(0.975)
    assert (one.rate, one.reference_rate, one.people, one.opportunities) == (0.2, 0.5, 2, 5)
    assert one.difference == pytest.approx(-0.3)
    assert one.low == pytest.approx(-0.3 - z * error) and one.high == pytest.approx(-0.3 + z * error)
    assert one.ratio == pytest.approx(0.4)
    relative = sqrt(0.5 * 1.5 / 36 / 0.25 + 0.08 * 2 / 25 / 0.04)
    assert one.ratio_low == pytest.approx(0.4 * np.exp(-z * relative))
    # under equality the rate is 4/11: a 3/11, -4/11, 10/11; b -5/11, -4/11
    null = sqrt((9 + 16 + 100) / 121 * 1.5 / 36 + (25 + 16) / 121 * 2 / 25)
    assert one.p_value == pytest.approx(2 * norm.sf(0.3 / null))
    assert one.detectable == pytest.approx((z + norm.ppf(0.8)) * null)


def test_errors_are_those_of_a_regression_clustered_by_person() -> None:
    """Against statsmodels: rows of impressions regressed on the group, errors clustered by person."""
    import statsmodels.api as sm

    draw = np.random.default_rng(0)
    person = np.repeat(np.arange(400), draw.integers(1, 9, 400))
    group = (np.arange(400) % 2)[person]
    clicked = (draw.random(len(person)) < draw.beta(1, 6, 400)[person]).astype(float)
    fit = sm.OLS(clicked, np.stack([np.ones(len(group)), group], 1)).fit(
        cov_type="cluster", cov_kwds={"groups": person, "use_correction": False}
    )
    [one] = compare(
        "clicks",
        two((np.arange(400) % 2).tolist()),
        np.bincount(person, clicked),
        np.bincount(person).astype(float),
        min_people=2,
        level=0.95,
    )
    assert one.difference == pytest.approx(fit.params[1])
    assert one.high is not None and one.low is not None
    # ours corrects each group by n / (n - 1), 200 people each
    error = (one.high - one.low) / 2 / norm.ppf(0.975)
    assert error == pytest.approx(fit.bse[1] * sqrt(200 / 199), rel=1e-9)


def test_a_group_that_gets_nothing_is_judged() -> None:
    total = np.concatenate([np.ones(50), np.zeros(450), np.zeros(500)])
    [one] = compare("clicks", two([0] * 500 + [1] * 500), total, np.ones(1000), min_people=100, level=0.95)
    assert one.rate == 0 and one.p_value is not None and one.p_value < 1e-9 and one.ratio is None


@pytest.mark.parametrize(
    ("people", "total", "why"),
    [
        (99, 50.0, "99 people with an opportunity, fewer than 100"),
        (0, 0.0, "0 people with an opportunity, fewer than 100"),
        (200, 0.0, "2.7 outcomes expected at the common rate, fewer than 5"),
    ],
)
def test_small_groups_are_named_and_not_judged(people: int, total: float, why: str) -> None:
    code = [0] * 1000 + [1] * people
    totals = np.zeros(len(code))
    totals[:16] = 1
    totals[1000 : 1000 + min(people, 1)] = total
    [one] = compare("clicks", two(code), totals, np.ones(len(code)), min_people=100, level=0.95)
    assert (one.not_judged, one.p_value, one.difference) == (why, None, None)
    correct([one], Correction.HOLM, 0.04)
    assert not one.flagged


def test_power_by_arithmetic() -> None:
    # 0.0025 / 0.00213 = 2.35 standard errors: what one outcome a person can do
    assert power_of_one() == pytest.approx(0.652, abs=5e-4)


def test_a_fair_world_is_left_alone_and_an_unfair_one_is_found() -> None:
    """A fast twin of proof_disparity.py: 20,000 people a group, 10 % fewer clicks at 5 %, a slate of six a person."""
    stage = set_up(compose("generate", ["world=fitted"]).world, "slate", 0)
    fair = list(logs(stage, range(40)))
    unfair = list(logs(with_disparity(stage, 0.10), range(40, 55)))
    assert np.mean([row["rate a"] for row in fair]) == pytest.approx(0.05, abs=0.001)
    assert np.mean([row["rate b"] / row["rate a"] for row in unfair]) == pytest.approx(0.9, abs=0.01)
    for audit in ("alone", "anything"):
        flags = sum(row[audit] for row in fair)
        assert flags <= 7, flags  # 1.6 of 40 expected; more than 7 have probability 0.001 even at 5 %
    for audit in ("alone", "among all"):
        assert sum(row[audit] for row in unfair) >= 12  # the power is above 0.99; 12 of 15 is 0.8


def test_bad_numbers_are_named() -> None:
    family = two([0, 1, 1])
    with pytest.raises(MeasureError, match=r"clicks: .* 1 of 3 people break this, first person 1: nan of 1"):
        compare("clicks", family, np.array([0, np.nan, 0]), np.ones(3), min_people=2, level=0.95)
    with pytest.raises(MeasureError, match="first person 2: 3 of 0"):
        compare("clicks", family, np.array([0, 0, 3.0]), np.array([1, 1, 0]), min_people=2, level=0.95)
    with pytest.raises(MeasureError, match=r"are \[3\], one a person, got \(2,\)"):
        compare("clicks", family, np.zeros(2), np.ones(3), min_people=2, level=0.95)
