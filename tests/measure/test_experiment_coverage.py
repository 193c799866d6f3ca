"""Short twins of tests/benchmarks/proof_experiment_reading.py: intervals cover, CUPED saves rho^2, few false finds."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

DRAWS = 250
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def proof() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(
        "proof_experiment_reading", BENCHMARKS / "proof_experiment_reading.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CASES = [
    "proportion 5 %, 2,000 an arm",
    "skewed mean, 5,000 an arm",
    "ratio with CUPED, 2,000 an arm",
    "mean with CUPED, 500 an arm",
    "60 clusters of 1-20 an arm",
    "60 clusters an arm, with CUPED",
    "households of both arms, 400",
    "restricted time, half censored, 500 an arm",
]


@pytest.mark.parametrize("name", CASES)
def test_intervals_of_95_percent_cover_the_truth(proof: ModuleType, name: str) -> None:
    draw, difference, relative = proof.cases()[name]
    told = proof.coverage(draw, difference, relative, DRAWS)
    # coverage of 250 draws has a standard error of 1.4 points: 3 of them either side of 95 %
    reach = 3 * math.sqrt(0.95 * 0.05 / DRAWS)
    assert 0.95 - reach <= told["coverage"] <= 0.95 + reach
    assert 0.95 - reach <= told["relative_coverage"] <= 0.95 + reach
    assert abs(told["bias_in_standard_errors"]) < 3 / math.sqrt(DRAWS)
    # the standard deviation of 250 estimates has a relative error of 1 / sqrt(2 * 250) = 4.5 %
    assert abs(told["standard_error_ratio"] - 1) < 3 / math.sqrt(2 * DRAWS)


def test_ignored_clusters_would_not_cover(proof: ModuleType) -> None:
    """What the clusters are for: the same draws, read as if people were independent, cover far less often."""
    from playbill.measure.experiments.effects import Sample

    draw, difference, relative = proof.cases()["60 clusters of 1-20 an arm"]

    def alone(random: object) -> tuple[Sample, Sample]:
        arm, control = draw(random)
        return Sample(figure=arm.figure), Sample(figure=control.figure)

    assert proof.coverage(alone, difference, relative, DRAWS)["coverage"] < 0.7


@pytest.mark.parametrize("correlation", [0.3, 0.7, 0.9])
def test_cuped_saves_the_squared_correlation(proof: ModuleType, correlation: float) -> None:
    # of 20,000 people a correlation is known to (1 - rho^2) / sqrt(20,000), its square to 2 rho times that
    error = 2 * correlation * (1 - correlation**2) / math.sqrt(20_000)
    assert abs(proof.cuped_reduction(correlation, 10_000) - correlation**2) < 4 * error


@pytest.mark.parametrize(("name", "share"), [("conversion of 2 %", 0.1), ("revenue, 10 % buy", 0.05)])
def test_unequal_arms_may_be_read_at_any_time(proof: ModuleType, name: str, share: float) -> None:
    told = proof.peeking_unequal(60, proof.SKEWED[name], share, looks=40, people=6000)
    assert told["always_valid_false_positives"] <= 0.05
    assert told["by_each_arms_own_error_false_positives"] > 0.15  # what is guarded against


def test_the_reading_of_the_tables_may_be_repeated_too(proof: ModuleType) -> None:
    assert set(proof.peeking_by_command(8, 0.1, looks=5, people=1500).values()) == {0.0}


def test_few_of_those_found_are_false(proof: ModuleType) -> None:
    told = proof.false_discoveries(100)
    assert told["bh_false_share"] <= 0.05 and told["by_false_share"] <= 0.05
    assert told["uncorrected_false_share"] > 0.08  # what the correction is for
    assert told["bh_power"] > 0.7
