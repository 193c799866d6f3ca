"""Reward models for DM, DR and switch-DR, cross-fitted: no round is predicted by a model that saw its person.

A model is anything with `fit` and `predict` over rows of (action, position, features); three stand here. `cross_fit`
takes a function that makes a fresh one for each fold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from playbill.errors import MeasureError
from playbill.measure.off_policy.estimators import Prediction
from playbill.measure.off_policy.log import Log

_PREDICTED_AT_ONCE = 1_000_000  # rows of actions, so that lists of all eligible items fit in memory


@dataclass(slots=True)
class Rows:
    """What a reward model sees of M rounds, or of M actions that could have been chosen.

    Attributes:
        action: [M] int64 >= 0.
        position: [M] int64 >= 0.
        features: [M, F] float64; F may be 0.
    """

    action: np.ndarray
    position: np.ndarray
    features: np.ndarray


class RewardModel(Protocol):
    """Learns the mean reward of rows."""

    def fit(self, rows: Rows, reward: np.ndarray) -> None:
        """Learn from M rows and their rewards ([M] float64, moved to 0..1 where their range is known)."""

    def predict(self, rows: Rows) -> np.ndarray:
        """Return [M] float64, the mean reward expected of each row."""


@dataclass(slots=True)
class ActionMeans:
    """Mean reward of each action at any position, drawn towards the mean of all by `strength` rounds of it.

    The plainest model that is not a constant; it takes any rewards and costs nothing.
    """

    actions: int
    strength: float = 10.0
    means: np.ndarray | None = None

    def fit(self, rows: Rows, reward: np.ndarray) -> None:
        """Learn each action's mean."""
        total = np.bincount(rows.action, reward, minlength=self.actions)
        seen = np.bincount(rows.action, minlength=self.actions)
        self.means = (total + self.strength * reward.mean()) / (seen + self.strength)

    def predict(self, rows: Rows) -> np.ndarray:
        """Return the action's mean."""
        assert self.means is not None
        found: np.ndarray = self.means[rows.action]
        return found


@dataclass(slots=True)
class Logistic:
    """Logistic regression (scikit-learn) on one column an action, one a position, and the features, standardised.

    Rewards between 0 and 1 count as that share of a success, so that it learns means of any rewards in 0..1.

    Attributes:
        actions: how many actions there are.
        strength: of the L2 penalty; scikit-learn's C is its inverse.
    """

    actions: int
    strength: float = 1.0
    model: Any = None
    centre: np.ndarray | None = None
    scale: np.ndarray | None = None
    positions: int = 1
    constant: float | None = None

    def fit(self, rows: Rows, reward: np.ndarray) -> None:
        """Learn from rewards in 0..1; where all are 0, or all 1, the model is that constant."""
        from sklearn.linear_model import LogisticRegression  # late: the base install has no scikit-learn

        self.centre, self.scale = rows.features.mean(0), rows.features.std(0)
        self.scale = np.where(self.scale > 0, self.scale, 1.0)
        self.positions = int(rows.position.max()) + 1
        self.constant = float(reward.mean()) if np.ptp(reward) == 0 and reward[0] in (0.0, 1.0) else None
        if self.constant is not None:
            return
        design = self._design(rows)
        success, failure = np.flatnonzero(reward > 0), np.flatnonzero(reward < 1)
        order = np.concatenate([success, failure])
        labels = np.repeat([1, 0], [len(success), len(failure)])
        weight = np.concatenate([reward[success], 1 - reward[failure]])
        self.model = LogisticRegression(C=1 / self.strength, solver="lbfgs", max_iter=1000)
        self.model.fit(design[order], labels, sample_weight=weight)

    def predict(self, rows: Rows) -> np.ndarray:
        """Return probabilities of success."""
        if self.constant is not None:
            return np.full(len(rows.action), self.constant)
        probability: np.ndarray = self.model.predict_proba(self._design(rows))[:, 1]
        return probability

    def _design(self, rows: Rows) -> Any:
        from scipy.sparse import csr_array, hstack

        assert self.centre is not None
        m = len(rows.action)
        every, ones = np.arange(m), np.ones(m)
        position = np.minimum(rows.position, self.positions - 1)
        blocks = [
            csr_array((ones, (every, rows.action)), shape=(m, self.actions)),
            csr_array((ones, (every, position)), shape=(m, self.positions)),
        ]
        if rows.features.shape[1]:
            blocks.append(csr_array((rows.features - self.centre) / self.scale))
        return hstack(blocks, format="csr")


@dataclass(slots=True)
class Boosted:
    """Gradient-boosted trees (LightGBM) over action, position and features; learns interactions, wants many rounds.

    Attributes:
        rounds: trees.
        seed: of LightGBM.
    """

    rounds: int = 60
    seed: int = 0
    model: Any = None

    def fit(self, rows: Rows, reward: np.ndarray) -> None:
        """Learn from rewards in 0..1."""
        import lightgbm  # late: the base install has none

        settings = {
            "objective": "cross_entropy",  # takes shares of a success, not only 0 and 1
            "learning_rate": 0.1,
            "num_leaves": 15,
            "min_data_in_leaf": 50,
            "verbose": -1,
            "num_threads": 1,
            "deterministic": True,
            "seed": self.seed,
        }
        data = lightgbm.Dataset(self._table(rows), reward, categorical_feature=[0], params={"verbose": -1})
        self.model = lightgbm.train(settings, data, num_boost_round=self.rounds)

    def predict(self, rows: Rows) -> np.ndarray:
        """Return expected rewards."""
        return np.asarray(self.model.predict(self._table(rows), num_threads=1))

    def _table(self, rows: Rows) -> np.ndarray:
        return np.column_stack([rows.action, rows.position, rows.features]).astype(np.float64)


def cross_fit(log: Log, make: Callable[[], RewardModel], *, folds: int = 3, seed: int = 0) -> Prediction:
    """Return what models expect of each round, each fitted on the other folds' people.

    Args:
        log: with `choices`: expectations over the target policy need all of its probabilities.
        make: returns an unfitted model, such as `lambda: Logistic(actions=80)`.
        folds: 2 or more; people are dealt at random.
        seed: of the dealing.
    Raises:
        MeasureError: no distributions, fewer people than folds, or a model whose predictions are not finite.
    Source:
        Chernozhukov et al. 2018, Double/debiased machine learning (cross-fitting).
    """
    choices, person, position = log.choices, log.person, log.position
    assert person is not None and position is not None
    if choices is None:
        raise MeasureError(
            "a reward model's value needs the target's probability of every action, not only of the chosen one; give "
            "actions and probabilities in the target's file, or eligible lists in decisions.context"
        )
    people = int(person.max()) + 1
    if not 2 <= folds <= people:
        raise MeasureError(f"folds must lie in 2..{people}, the number of people, got {folds}")
    dealt = (np.random.default_rng(seed).permutation(people) % folds)[person]
    features = np.zeros((len(log), 0)) if log.features is None else log.features
    low, width = (log.reward_low, log.reward_high - log.reward_low) if log.bounded() else (0.0, 1.0)
    reward = (log.reward - low) / width
    rounds, value = choices.rounds(), np.empty(len(choices.action))
    for fold in range(folds):
        known = dealt != fold
        model = make()
        model.fit(Rows(log.action[known], position[known], features[known]), reward[known])
        asked = np.flatnonzero(dealt[rounds] == fold)
        for start in range(0, len(asked), _PREDICTED_AT_ONCE):
            rows = asked[start : start + _PREDICTED_AT_ONCE]
            of = rounds[rows]
            value[rows] = model.predict(Rows(choices.action[rows], position[of], features[of]))
    if not np.isfinite(value).all():
        raise MeasureError(f"the reward model predicts {int((~np.isfinite(value)).sum())} values that are not finite")
    value = low + width * value
    return Prediction(chosen=value[choices.chosen], expected=choices.sums(choices.target * value))
