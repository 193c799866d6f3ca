"""Diagnostics by hand, and the verdict that refuses a value where the log holds nothing about the target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from playbill.measure.off_policy.log import Choices, Log
from playbill.measure.off_policy.overlap import overlap
from playbill.measure.off_policy.read import evaluate
from playbill.measure.off_policy.settings import OffPolicyQuestion
from playbill.measure.statement import to_text


def log_between(logging: list[float], target: list[float], n: int = 2000, seed: int = 0) -> Log:
    """Return n rounds without context under one distribution, for another."""
    rng = np.random.default_rng(seed)
    chances, wanted = np.array(logging), np.array(target)
    action = rng.choice(len(chances), n, p=chances)
    every = np.arange(n)
    return Log(
        reward=rng.random(n) < 0.2 + 0.1 * action,
        propensity=chances[action],
        target=wanted[action],
        action=action,
        choices=Choices(
            first=np.arange(n + 1) * len(chances),
            action=np.tile(np.arange(len(chances)), n),
            target=np.tile(wanted, n),
            logging=np.tile(chances, n),
            chosen=every * len(chances) + action,
        ),
    )


def test_figures_by_hand() -> None:
    # weights 0.5, 2, 1, 0: sum 3.5, squares 0.25 + 4 + 1 = 5.25; weighted rewards 0.5, 2, 0, 0
    log = Log(
        reward=[1, 1, 0, 1],
        propensity=[0.5, 0.25, 0.5, 0.5],
        target=[0.25, 0.5, 0.5, 0],
        action=[0, 1, 2, 0],
        unit=[0, 0, 1, 1],
    )
    found = overlap(log, least_effective=1)
    assert found.effective_rounds == pytest.approx(3.5**2 / 5.25)
    # units: 2.5 and 1: 3.5 ^ 2 / 7.25
    assert found.effective_units == pytest.approx(3.5**2 / 7.25)
    assert (found.mean_weight, found.largest_weight, found.unused_share) == (0.875, 2.0, 0.25)
    assert found.largest_share == pytest.approx(2 / 2.5)
    assert (found.rewarded_rounds, found.units) == (2, 2)
    assert found.unsupported_mass is None and found.largest_possible_weight is None
    assert any("a single round carries 80%" in w for w in found.warnings)
    assert any("only 2 rounds brought anything" in w for w in found.warnings)


def test_full_overlap_gives_a_value() -> None:
    found = overlap(log_between([0.5, 0.3, 0.2], [0.2, 0.3, 0.5]))
    assert not found.refused and not found.warnings
    assert found.unsupported_mass == 0.0
    assert found.largest_possible_weight == pytest.approx(2.5)
    assert found.mean_weight_low <= 1 <= found.mean_weight_high


def test_missing_support_is_refused_and_so_is_every_value() -> None:
    log = log_between([0.5, 0.5, 0.0], [0.4, 0.35, 0.25])
    found = overlap(log)
    assert found.unsupported_mass == pytest.approx(0.25)
    assert "25.0% of the target policy's probability lies on actions that the logging policy could not choose" in (
        found.refused
    )
    reading = evaluate(log, OffPolicyQuestion(target="new.parquet", resamples=200))
    assert reading.verdict.startswith("No value of new can be read from this log: 25.0%")
    # what the logging policy brought is still known
    assert reading.statements[0].name == "value of the logging policy" and reading.statements[0].estimate is not None
    assert len(reading.statements) == 9
    assert all(s.estimate is None and "25.0%" in s.refused for s in reading.statements[1:])
    assert "value of new, DR" in to_text(reading)


def test_a_little_missing_support_is_a_warning() -> None:
    found = overlap(log_between([0.5, 0.5, 0.0], [0.5, 0.495, 0.005]))
    assert not found.refused
    assert any("0.50% of the target's probability has no support" in w for w in found.warnings)


def test_without_distributions_missing_support_shows_in_the_mean_weight() -> None:
    log = replace(log_between([0.5, 0.5, 0.0], [0.4, 0.35, 0.25]), choices=None)
    found = overlap(log)
    assert found.mean_weight == pytest.approx(0.75, abs=0.02)
    assert "weights average 0.7" in found.refused and "leaves out actions that the target policy takes" in found.refused
    assert any("whole distributions are not in the log" in w for w in found.warnings)


def test_wrong_propensities_are_refused() -> None:
    log = log_between([0.5, 0.3, 0.2], [0.2, 0.3, 0.5])
    halved = replace(log, propensity=log.propensity / 2, choices=None)
    assert "weights average 2" in overlap(halved).refused and "propensities are too small" in overlap(halved).refused


def test_too_few_effective_rounds_are_refused() -> None:
    rare = log_between([0.996, 0.004], [0.05, 0.95], n=1500)
    found = overlap(rare)
    assert found.effective_rounds < 20
    assert "rounds and" in found.refused and "at least 50 are needed" in found.refused
    assert not overlap(rare, least_effective=1).refused


def test_people_count_not_rounds() -> None:
    log = log_between([0.5, 0.3, 0.2], [0.2, 0.3, 0.5])
    by_ten = replace(log, unit=np.arange(2000) % 10)
    assert overlap(by_ten).effective_units <= 10
    assert "units of equal weight" in overlap(by_ten).refused


def test_never_the_target() -> None:
    log = Log(reward=[1, 0], propensity=[0.5, 0.5], target=[0, 0], action=[0, 0])
    assert "would never have chosen what was logged" in overlap(log).refused
    assert evaluate(log, OffPolicyQuestion(target="new.parquet", resamples=200)).statements[1].refused
