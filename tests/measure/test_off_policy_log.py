"""A log that cannot be trusted is refused with the column, how many rows, and the first of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from playbill.errors import MeasureError
from playbill.measure.off_policy.log import Choices, Log


def log_with(**changed: Any) -> Log:
    given: dict[str, Any] = {
        "reward": [1.0, 0.0, 1.0],
        "propensity": [0.5, 0.25, 0.25],
        "target": [0.2, 0.8, 0.3],
        "action": [0, 1, 0],
    }
    return Log(**given | changed)


def choices(**changed: Any) -> Choices:
    """Two actions a round; round 0 chose action 0, round 1 action 1, round 2 action 0."""
    given: dict[str, Any] = {
        "first": np.array([0, 2, 4, 6]),
        "action": np.array([0, 1, 0, 1, 0, 1]),
        "target": np.array([0.2, 0.8, 0.2, 0.8, 0.3, 0.7]),
        "logging": np.array([0.5, 0.5, 0.75, 0.25, 0.25, 0.75]),
        "chosen": np.array([0, 3, 4]),
    }
    return Choices(**given | changed)


def test_a_good_log_is_taken() -> None:
    log = log_with(choices=choices(), unit=["b", "a", "b"])
    np.testing.assert_allclose(log.weight(), [0.4, 3.2, 1.2])
    assert log.unit is not None and log.unit.tolist() == [0, 1, 0]
    assert log.largest_weight() == pytest.approx(3.2)
    assert log_with().largest_weight() is None


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"propensity": [0.5, 0.0, 0.0]}, r"log\.propensity: .*\(0, 1\].*2 of 3 rows.*row 1: .*0\.0.*row 2"),
        ({"propensity": [0.5, np.nan, 0.5]}, r"log\.propensity: .*1 of 3 rows.*row 1: .*nan"),
        ({"propensity": [0.5, 0.2, 1.5]}, r"log\.propensity: .*1 of 3 rows.*row 2: .*1\.5"),
        ({"propensity": [0.5, -0.2, 0.5]}, r"log\.propensity: .*1 of 3 rows.*row 1"),
        ({"reward": [1.0, np.nan, 0.0]}, r"log\.reward: .*finite number.*1 of 3 rows.*row 1: .*nan"),
        ({"reward": [1.0, np.inf, 0.0]}, r"log\.reward: .*finite number.*1 of 3 rows"),
        ({"reward": [1.0, 2.5, 0.0]}, r"log\.reward: .*0\.0\.\.1\.0.*1 of 3 rows.*row 1: .*2\.5"),
        ({"target": [0.2, 1.2, 0.3]}, r"log\.target: .*0\.\.1.*1 of 3 rows.*row 1: .*1\.2"),
        ({"target": [0.2, np.nan, 0.3]}, r"log\.target: .*1 of 3 rows"),
        ({"action": [0, 1]}, r"log\.action has 2 rows, reward has 3"),
        ({"features": [[0.0], [np.nan], [1.0]]}, r"log\.features: .*1 of 3 rows.*row 1"),
        ({"reward_low": 1.0}, r"rewards need a range, got 1\.0\.\.1\.0"),
        ({"reward": [], "propensity": [], "target": [], "action": []}, "no rounds"),
    ],
)
def test_bad_columns(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(MeasureError, match=says):
        log_with(**changed)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"target": np.array([0.2, 0.8, 0.2, 0.8, 0.3, 0.5])},
            r"choices\.target: a round's probabilities must sum to 1; 1 of 3 rows.*row 2: .*0\.8",
        ),
        (
            {"logging": np.array([0.5, 0.4, 0.75, 0.25, 0.25, 0.75])},
            r"choices\.logging: a round's probabilities must sum to 1; 1 of 3 rows.*row 0: .*0\.9",
        ),
        ({"target": np.array([0.2, 0.8, -0.2, 1.2, 0.3, 0.7])}, r"choices\.target: a probability must lie in 0\.\.1"),
        (
            {"logging": np.array([0.6, 0.4, 0.75, 0.25, 0.25, 0.75])},
            r"choices\.logging: the chosen action's probability differs.*1 of 3 rows.*row 0: .*0\.5",
        ),
        (
            {"target": np.array([0.8, 0.2, 0.2, 0.8, 0.3, 0.7])},
            r"choices\.target: the chosen action's probability differs.*1 of 3 rows",
        ),
        ({"chosen": np.array([0, 3, 3])}, r"choices\.chosen: .*among its round's actions; 1 of 3 rows.*row 2"),
        ({"chosen": np.array([0, 2, 4])}, r"choices\.chosen: .*another action.*1 of 3 rows.*row 1"),
        ({"first": np.array([0, 2, 2, 6])}, r"every round needs at least one action"),
        ({"target": np.array([0.2, 0.8])}, r"choices\.target has 2 rows, expected 6"),
    ],
)
def test_bad_distributions(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(MeasureError, match=says):
        log_with(choices=choices(**changed))
