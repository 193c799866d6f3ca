"""Reward models learn what there is to learn, and never from the units they predict."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from playbill.errors import MeasureError
from playbill.measure.off_policy.estimators import dm, dr
from playbill.measure.off_policy.log import Choices, Log
from playbill.measure.off_policy.reward_model import ActionMeans, Boosted, Logistic, RewardModel, Rows, cross_fit

MEANS = np.array([0.1, 0.5, 0.8])


def uniform_log(n: int, seed: int = 0, *, fractional: bool = False, by_feature: bool = False) -> Log:
    """Return n rounds of three actions with mean rewards MEANS; the target takes the last with probability 0.8.

    With `by_feature` the means of the first and the last action are swapped for half of the rounds.
    """
    rng = np.random.default_rng(seed)
    action, group = rng.integers(3, size=n), rng.integers(2, size=n)
    mean = np.where(by_feature & (group == 1), MEANS[::-1][action], MEANS[action])
    reward = rng.beta(2 * mean, 2 * (1 - mean)) if fractional else (rng.random(n) < mean).astype(float)
    share = np.array([0.1, 0.1, 0.8])
    return Log(
        reward=reward,
        propensity=np.full(n, 1 / 3),
        target=share[action],
        action=action,
        features=np.eye(2)[group] if by_feature else None,
        choices=Choices(
            first=np.arange(n + 1) * 3,
            action=np.tile(np.arange(3), n),
            target=np.tile(share, n),
            chosen=np.arange(n) * 3 + action,
        ),
    )


@pytest.mark.parametrize("make", [lambda: ActionMeans(3), lambda: Logistic(3), lambda: Boosted()])
@pytest.mark.parametrize("fractional", [False, True])
def test_learns_mean_rewards(make: Callable[[], RewardModel], fractional: bool) -> None:
    log = uniform_log(4000, fractional=fractional)
    found = cross_fit(log, make)
    for action, mean in enumerate(MEANS):
        # standard error of a mean of 890 rewards: 0.017
        assert found.chosen[log.action == action].mean() == pytest.approx(mean, abs=0.05)
    truth = 0.1 * 0.1 + 0.1 * 0.5 + 0.8 * 0.8
    assert dm(found).estimate() == pytest.approx(truth, abs=0.05)
    assert dr(log, found).estimate() == pytest.approx(truth, abs=0.05)


def test_trees_learn_what_depends_on_the_person_and_take_noise_from_dr() -> None:
    log = uniform_log(6000, by_feature=True)
    trees, means = cross_fit(log, lambda: Boosted()), cross_fit(log, lambda: ActionMeans(3))
    assert log.features is not None
    for group, mean in ((0, MEANS), (1, MEANS[::-1])):
        for action in range(3):
            rows = (log.action == action) & (log.features[:, group] == 1)
            assert trees.chosen[rows].mean() == pytest.approx(mean[action], abs=0.06)
    spread = [dr(log, one).numerator.std() for one in (trees, means)]
    assert spread[0] < 0.95 * spread[1]


def test_no_unit_is_predicted_from_its_own_rewards() -> None:
    """A model that remembers every reward it saw predicts nothing better than chance when it is cross-fitted."""

    class Memory:
        def fit(self, rows: Rows, reward: np.ndarray) -> None:
            self.seen = {int(person): r for person, r in zip(rows.features[:, 0], reward, strict=True)}

        def predict(self, rows: Rows) -> np.ndarray:
            return np.array([self.seen.get(int(person), 0.5) for person in rows.features[:, 0]])

    rng = np.random.default_rng(1)
    n, unit = 300, np.repeat(np.arange(100), 3)
    log = Log(
        reward=np.repeat(rng.integers(2, size=100), 3),
        propensity=np.ones(n),
        target=np.ones(n),
        action=np.zeros(n, int),
        unit=unit,
        features=unit[:, None].astype(float),
        choices=Choices(first=np.arange(n + 1), action=np.zeros(n, np.int64), target=np.ones(n), chosen=np.arange(n)),
    )
    np.testing.assert_array_equal(cross_fit(log, Memory).chosen, 0.5)


@pytest.mark.parametrize("make", [lambda: ActionMeans(3), lambda: Logistic(3), lambda: Boosted()])
def test_a_log_without_any_reward_is_no_obstacle(make: Callable[[], RewardModel]) -> None:
    log = uniform_log(300)
    log.reward[:] = 0
    found = cross_fit(log, make)
    assert np.abs(found.chosen).max() < 1e-3 and np.abs(found.expected).max() < 1e-3


def test_rewards_of_another_range_are_moved_there_and_back() -> None:
    log = uniform_log(600)
    wide = Log(
        reward=log.reward * 10 - 5,
        propensity=log.propensity,
        target=log.target,
        action=log.action,
        choices=log.choices,
        reward_low=-5,
        reward_high=5,
    )
    plain, moved = cross_fit(log, lambda: Logistic(3)), cross_fit(wide, lambda: Logistic(3))
    np.testing.assert_allclose(moved.expected, plain.expected * 10 - 5)


def test_refuses() -> None:
    log = uniform_log(30)
    with pytest.raises(MeasureError, match=r"folds must lie in 2\.\.30, the number of people, got 31"):
        cross_fit(log, lambda: ActionMeans(3), folds=31)
    without = Log(reward=log.reward, propensity=log.propensity, target=log.target, action=log.action)
    with pytest.raises(MeasureError, match="target's probability of every action"):
        cross_fit(without, lambda: ActionMeans(3))

    class Broken:
        def fit(self, rows: Rows, reward: np.ndarray) -> None: ...

        def predict(self, rows: Rows) -> np.ndarray:
            return np.full(len(rows.action), np.nan)

    with pytest.raises(MeasureError, match="predicts 90 values that are not finite"):
        cross_fit(log, Broken)
