"""The conditional logit finds weights that are known, and nothing is better than what it finds."""

from __future__ import annotations

import numpy as np
import pytest

from playbill.blend.fit import Choices, choices, fit
from playbill.blend.formula import candidates
from playbill.blend.lists import from_arrays
from playbill.measure.ranking import targets_from_pairs

TRUE = np.array([1.0, -0.5, 0.0])


@pytest.fixture(scope="module")
def simulated() -> Choices:
    """4,000 choices out of 5 to 30 candidates each, by a logit with TRUE weights."""
    draw = np.random.default_rng(3)
    lengths = draw.integers(5, 31, 4000)
    columns = draw.normal(size=(int(lengths.sum()), 3)).astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    gumbel = draw.gumbel(size=len(columns))
    value = columns @ TRUE + gumbel
    weight = np.zeros(len(columns), np.float32)
    for low, high in zip(indptr[:-1], indptr[1:], strict=True):
        weight[low + value[low:high].argmax()] = 1
    return Choices(np.arange(4000), indptr, columns, weight)


def test_known_weights_are_found(simulated: Choices) -> None:
    found = fit(simulated, l2=0.0)
    # standard error of one weight about 1 / sqrt(4000) = 0.016
    assert found == pytest.approx(TRUE, abs=0.05)
    assert fit(simulated, l2=0.0, start=found) == pytest.approx(found, abs=2e-3)


def test_nothing_near_is_better(simulated: Choices) -> None:
    def loss(weights: np.ndarray) -> float:
        score = simulated.columns.astype(np.float64) @ weights
        total = np.logaddexp.reduceat(score, simulated.indptr[:-1])
        return float((total.sum() - simulated.weight @ score) / len(simulated))

    found = fit(simulated, l2=0.0)
    for place in range(3):
        for step in (0.02, -0.02):
            moved = found.copy()
            moved[place] += step
            assert loss(moved) > loss(found)


def test_a_ridge_shrinks(simulated: Choices) -> None:
    free, held, tight = (np.abs(fit(simulated, l2=l2)).sum() for l2 in (0.0, 0.1, 10.0))
    assert free > held > tight


def test_several_targets_share_one_persons_weight_and_candidates_are_sampled_around_them() -> None:
    items = [np.arange(1, 41), np.arange(1, 41), np.arange(1, 41)]
    lists = from_arrays(items, [np.linspace(1, 0, 40)] * 3)
    found = candidates([lists], ["rank"], 50)
    # the second person went on to do what nobody proposed, and teaches nothing
    targets = targets_from_pairs(np.array([0, 0, 1, 2]), np.array([3, 40, 50, 7]), 3)
    data = choices(found, targets, 50, most=10)
    assert data.query.tolist() == [0, 2] and np.diff(data.indptr).tolist() == [10, 10]
    assert sorted(data.weight[:10].tolist())[-2:] == [0.5, 0.5]
    assert sorted(data.weight[10:].tolist())[-2:] == [0.0, 1.0]
    half = data.take(np.array([False, True]))
    assert half.query.tolist() == [2] and half.weight.sum() == 1
