"""The power planner: textbook figures, simulation, and what each choice costs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from playbill.cli import compose
from playbill.errors import ConfigError, MeasureError
from playbill.measure.job import run as measure
from playbill.measure.power.plan import (
    Design,
    effect_found,
    people_needed,
    power_with,
    rate_after,
    rate_effect_size,
    sequential_price,
)
from playbill.measure.power.read import design_of, run
from playbill.measure.power.settings import PowerQuestion
from playbill.measure.sequential import difference_sequence
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import to_text

TESTS = 2000
EVEN = Design(shares=(0.5, 0.5), alpha=0.05, power=0.8)


def needed(**fields: object) -> int:
    """The people that `playbill measure question=power` asks for."""
    return run(PowerQuestion(**fields), Path("unused"), MeasureSettings()).statements[0].n


def share_found(z: np.ndarray, alpha: float = 0.05) -> float:
    return float((np.abs(z) > norm.isf(alpha / 2)).mean())


def is_power(found: float, power: float = 0.8) -> bool:
    return abs(found - power) < 3.5 * np.sqrt(power * (1 - power) / TESTS)


def test_textbook_figures() -> None:
    """Cohen 1988: a medium difference of means, d = 0.5, takes 64 a group; of rates, h = 0.5 takes 63."""
    assert people_needed(0.5, EVEN, rate=False) == 128
    assert people_needed(0.5, EVEN, rate=True) == 126
    # by hand: 2 arms of ((1.9600 + 0.8416) / h)^2 * 2 people, h = 2 asin(sqrt(0.055)) - 2 asin(sqrt(0.05))
    h = 2 * np.arcsin(np.sqrt(0.055)) - 2 * np.arcsin(np.sqrt(0.05))
    assert needed(relative_effect=0.1) == int(np.ceil(4 * (1.959964 + 0.841621) ** 2 / h**2)) == 62_435


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.7, 0.1], [0.3, 0.2, 0.1]])
def test_a_rate_is_found_as_often_as_planned(shares: list[float]) -> None:
    question = PowerQuestion(baseline=0.05, relative_effect=0.2, shares=shares)
    whole = needed(baseline=0.05, relative_effect=0.2, shares=shares)
    n = [round(whole * share / sum(shares)) for share in (shares[0], min(shares[1:]))]
    draw = np.random.default_rng(0)
    a, b = draw.binomial(n[0], 0.05, TESTS) / n[0], draw.binomial(n[1], 0.06, TESTS) / n[1]
    pooled = (a * n[0] + b * n[1]) / sum(n)
    z = (b - a) / np.sqrt(pooled * (1 - pooled) * (1 / n[0] + 1 / n[1]))
    # arcsine and pooled z differ a little where the arms do
    assert abs(share_found(z, design_of(question, 0.95).alpha) - 0.8) < 0.05


def test_a_mean_with_cuped_is_found_as_often_as_planned() -> None:
    n = needed(baseline=10, standard_deviation=5, absolute_effect=0.8, cuped_correlation=0.7) // 2
    without = needed(baseline=10, standard_deviation=5, absolute_effect=0.8) // 2
    assert n == pytest.approx(without * (1 - 0.49), rel=0.02)
    draw = np.random.default_rng(1)
    before = draw.normal(size=(TESTS, 2, n))
    value = 10 + 5 * (0.7 * before + np.sqrt(0.51) * draw.normal(size=before.shape))
    value[:, 1] += 0.8
    flat_b, flat_v = before - before.mean((1, 2), keepdims=True), value - value.mean(2, keepdims=True)
    theta = (flat_b * flat_v).sum((1, 2)) / (flat_b**2).sum((1, 2))
    adjusted = value - theta[:, None, None] * flat_b
    z = np.diff(adjusted.mean(2))[:, 0] / np.sqrt(adjusted.var(2, ddof=1).sum(1) / n)
    assert is_power(share_found(z))


def test_clusters_are_found_as_often_as_planned() -> None:
    """Households of 4, correlation 0.3, assigned as a whole: the test of household means."""
    whole = needed(baseline=10, standard_deviation=5, absolute_effect=0.7, cluster_size=4, cluster_correlation=0.3)
    homes = whole // 8
    draw = np.random.default_rng(2)
    shared, own = draw.normal(size=(TESTS, 2, homes, 1)), draw.normal(size=(TESTS, 2, homes, 4))
    mean = (10 + 5 * (np.sqrt(0.3) * shared + np.sqrt(0.7) * own)).mean(3)
    mean[:, 1] += 0.7
    z = np.diff(mean.mean(2))[:, 0] / np.sqrt(mean.var(2, ddof=1).sum(1) / homes)
    assert is_power(share_found(z))


def test_a_sequential_test_is_found_as_often_and_stops_as_early_as_planned() -> None:
    plan = run(PowerQuestion(baseline=0.1, relative_effect=0.2, sequential=True), Path("x"), MeasureSettings())
    whole, looks = plan.statements[0].n, 100
    step = whole // 2 // looks
    draw = np.random.default_rng(3)
    n = np.arange(1, looks + 1) * step
    rates = [draw.binomial(step, p, (TESTS, looks)).cumsum(1) / n for p in (0.1, 0.12)]
    arms = [(n, rate, rate * (1 - rate) * n / (n - 1)) for rate in rates]
    p = difference_sequence(*arms[0], *arms[1], planned_n=whole).p_value
    found = p < 0.05
    assert abs(found[:, -1].mean() - 0.8) < 0.04
    stopped = np.where(found[:, -1], (found.argmax(1) + 1) / looks, 1.0).mean() * whole
    assert stopped == pytest.approx(plan.statements[0].details["people_on_average"], rel=0.05)
    assert 1.4 < sequential_price(0.05, 0.8).at_most < 1.9


@pytest.mark.parametrize("rate", [True, False])
@pytest.mark.parametrize("sequential", [True, False])
def test_effect_people_and_power_are_one_relation(rate: bool, sequential: bool) -> None:
    design = Design(shares=(0.4, 0.2), alpha=0.01, power=0.9, factor=0.7, sequential=sequential)
    people = people_needed(0.1, design, rate=rate)
    assert effect_found(people, design, rate=rate) == pytest.approx(0.1, rel=1e-3)
    assert power_with(people, 0.1, design, rate=rate) == pytest.approx(0.9, abs=0.005)
    assert power_with(people // 2, 0.1, design, rate=rate) < 0.75
    assert people_needed(-0.1, design, rate=rate) == people


def test_what_a_rate_becomes() -> None:
    assert rate_after(0.05, rate_effect_size(0.05, 0.08)) == pytest.approx(0.08)
    assert rate_after(0.9, 3.0) == 1


def test_the_table_of_choices_multiplies_up() -> None:
    reading = run(
        PowerQuestion(relative_effect=0.1, shares=[0.4, 0.2, 0.2], metrics=3, cuped_correlation=0.5, cluster_size=3,
                      cluster_correlation=0.1, sequential=True, daily_people=1000),
        Path("unused"),
        MeasureSettings(),
    )  # fmt: skip
    rows = {
        row["choice"].split()[0] if row["choice"][0] != " " else "average": row
        for row in reading.tables["what each choice costs"]
    }
    assert rows["CUPED"]["times"] == pytest.approx(0.75, abs=1e-3)
    assert rows["clusters"]["times"] == pytest.approx(1.2, abs=1e-3)
    assert rows["arms"]["times"] == pytest.approx(0.5 * (1 / 0.5 + 1 / 0.25) / 2, abs=1e-3)
    assert rows["read"]["people"] == reading.statements[0].n
    assert rows["average"]["people"] < rows["read"]["people"]
    days = next(s for s in reading.statements if s.name == "days")
    assert days.estimate == np.ceil(reading.statements[0].n / 800)
    assert "more than four weeks" in to_text(reading) and "Bonferroni over 6" in to_text(reading)


def test_the_job_needs_no_tables(tmp_path: Path) -> None:
    reading = measure(MeasureSettings(home=str(tmp_path), question=PowerQuestion(people=20_000, relative_effect=0.1)))
    assert [s.name for s in reading.statements] == ["smallest effect found", "power for an effect of 0.005"]
    assert reading.statements[1].estimate == pytest.approx(0.354, abs=0.002)
    assert {f.name for f in (tmp_path / "measure" / "power").iterdir()} == {
        "reading.json",
        "reading.txt",
        "reading.png",
    }


def test_small_and_hasty_plans_are_warned_about() -> None:
    reading = run(
        PowerQuestion(baseline=0.01, absolute_effect=0.4, daily_people=9, cluster_size=2), Path("x"), MeasureSettings()
    )
    said = " ".join(reading.warnings)
    assert "lower bound" in said and "less than a week" in said and "changes nothing" in said


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"baseline": 40, "standard_deviation": 9, "relative_effect": math.nan},
            "relative_effect must be finite, got nan",
        ),
        (
            {"baseline": 40, "standard_deviation": 9, "absolute_effect": math.inf},
            "absolute_effect must be finite, got inf",
        ),
        ({"baseline": 40, "standard_deviation": math.nan}, "standard_deviation must be finite, got nan"),
        ({"daily_people": math.inf}, "daily_people must be finite, got inf"),
        ({"shares": [0.5, math.nan]}, r"shares must be finite, got \[0.5, nan\]"),
        ({"relative_effect": 0.1, "absolute_effect": 0.1}, "not both"),
        ({"baseline": 1.2, "relative_effect": 0.1}, "baseline must lie in .* got 1.2"),
        ({"baseline": 0.5, "relative_effect": 1.1}, "would leave 0..1"),
        ({"relative_effect": 0.1, "shares": [1.0]}, "shares must be two or more"),
        ({"relative_effect": 0.1, "shares": [0.6, 0.6]}, "add up to 1"),
        ({"relative_effect": 0.1, "power": 1.0}, "power must lie"),
        ({"relative_effect": 0.1, "cuped_correlation": 1.0}, "cuped_correlation"),
        ({"people": 3}, "people must lie"),
    ],
)
def test_bad_questions_are_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        PowerQuestion(**fields)


def test_an_absolute_effect_is_given_as_easily_as_a_relative_one() -> None:
    asked = compose("measure", ["question=power", "question.absolute_effect=0.005"]).question
    assert asked.effect == 0.005
    assert compose("measure", ["question=power"]).question.effect == pytest.approx(0.005), "ten percent of 0.05"
    assert compose("measure", ["question=power", "question.people=20000"]).question.effect == 0
    assert needed(absolute_effect=0.005) == needed() == needed(relative_effect=0.1)


def test_too_few_people_find_nothing() -> None:
    """One number of people more than h = 2 asin(1) - 2 asin(sqrt(0.05)) takes, and one less."""
    h = np.pi - 2 * np.arcsin(np.sqrt(0.05))
    least = int(np.ceil(4 * (1.959964 + 0.841621) ** 2 / h**2))
    with pytest.raises(MeasureError, match=f"4 people find no effect on a rate of 0.05: .* would take {least:,} of"):
        run(PowerQuestion(people=4), Path("x"), MeasureSettings())
    reading = run(PowerQuestion(people=least), Path("x"), MeasureSettings())
    assert reading.statements[0].estimate <= 0.95 and "2 people, is too small" in reading.warnings[0]


def test_no_effect_needs_no_test() -> None:
    with pytest.raises(MeasureError, match="finds an effect of 0"):
        people_needed(0.0, EVEN, rate=True)
