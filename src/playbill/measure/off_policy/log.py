"""A log that off-policy estimators may trust: every check stands here, the estimators only compute.

A *round* is one decision and what came of it. The logging policy chose the action, with a known probability (its
propensity); the target policy would have chosen the same action with another one. Rounds of one *unit* (a person) are
not independent of each other, units are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.errors import MeasureError
from playbill.measure.statement import refuse_rows

SUM_TOLERANCE = 1e-4  # distributions stored as float32, or rounded to five digits, still sum to 1 this closely
_AGREE = 1e-6


@dataclass(slots=True, kw_only=True)
class Choices:
    """Everything that could have been chosen, as CSR: the actions of round i are rows first[i] : first[i + 1].

    Attributes:
        first: [N + 1] int64.
        action: [T] int64, which action stands in each row.
        target: [T] float64, its probability under the target policy; sums to 1 within a round.
        logging: [T] float64, the same under the logging policy; None where only propensities were written.
        chosen: [N] int64, the row of the action that was chosen.
    """

    first: np.ndarray
    action: np.ndarray
    target: np.ndarray
    logging: np.ndarray | None = None
    chosen: np.ndarray

    def rounds(self) -> np.ndarray:
        """Return [T] int64, the round that each row belongs to."""
        return np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return [N] float64, the sum of [T] values within each round."""
        return np.bincount(self.rounds(), values, minlength=len(self.first) - 1)


@dataclass(slots=True, kw_only=True)
class Log:
    """One target policy beside one log of N rounds; checked when it is built.

    Attributes:
        reward: [N] float64, what the round brought; higher is better.
        propensity: [N] float64 in (0, 1], probability of the chosen action under the logging policy.
        target: [N] float64 in [0, 1], probability of the chosen action under the target policy.
        action: [N] int64 >= 0, which action was chosen.
        position: [N] int64, 0-based place on the slate; all 0 where there are no slates.
        request: [N] int64, rounds with the same number were one slate; None where each round stands alone.
        unit: [N] int64, rounds with the same number may depend on each other; None where requests do not.
        person: [N] int64, rounds with the same number are of one person: what learns from the log never sees the
            person it is asked of, however small units are; None where units are people.
        features: [N, F] float64, what was known of the person and the moment, for reward models; None without any.
        choices: all actions of each round with their probabilities; None where only the chosen one's are known.
        reward_low, reward_high: range of one round's reward; an end that is not finite is unknown.

    Raises:
        MeasureError: lengths differ, a reward is not finite or out of its range, a propensity is missing, 0 or above 1,
            probabilities do not sum to 1; names the column, how many rows, and the first ones.
    """

    reward: np.ndarray
    propensity: np.ndarray
    target: np.ndarray
    action: np.ndarray
    position: np.ndarray | None = None
    request: np.ndarray | None = None
    unit: np.ndarray | None = None
    person: np.ndarray | None = None
    features: np.ndarray | None = None
    choices: Choices | None = None
    reward_low: float = 0.0
    reward_high: float = 1.0

    def __post_init__(self) -> None:
        self.reward = np.asarray(self.reward, np.float64)
        n = len(self.reward)
        if not n:
            raise MeasureError("the log has no rounds; check the kind, policy and times that were asked for")
        self.propensity = np.asarray(self.propensity, np.float64)
        self.target = np.asarray(self.target, np.float64)
        self.action = np.asarray(self.action, np.int64)
        self.position = np.zeros(n, np.int64) if self.position is None else np.asarray(self.position, np.int64)
        rows = np.arange(n)
        self.request = rows if self.request is None else _numbered(self.request)
        self.unit = self.request if self.unit is None else _numbered(self.unit)
        self.person = self.unit if self.person is None else _numbered(self.person)
        for name in ("propensity", "target", "action", "position", "unit", "person", "request", "features"):
            values = getattr(self, name)
            if values is not None and len(values) != n:
                raise MeasureError(f"log.{name} has {len(values)} rows, reward has {n}; one a round")
        if not self.reward_low < self.reward_high:
            raise MeasureError(f"rewards need a range, got {self.reward_low}..{self.reward_high}")
        refuse_rows("log", "reward", ~np.isfinite(self.reward), self.reward, "a reward must be a finite number")
        outside = (self.reward < self.reward_low) | (self.reward > self.reward_high)
        why = f"rewards are declared to lie in {self.reward_low}..{self.reward_high}"
        refuse_rows("log", "reward", outside, self.reward, why)
        check_propensities("log", self.propensity)
        bad = ~((self.target >= 0) & (self.target <= 1 + SUM_TOLERANCE))
        refuse_rows("log", "target", bad, self.target, "a target probability must lie in 0..1")
        if self.features is not None:
            self.features = np.asarray(self.features, np.float64).reshape(n, -1)
            lost = np.isnan(self.features.sum(1)) | np.isinf(self.features).any(axis=1)
            refuse_rows("log", "features", lost, self.features.tolist(), "features must be finite numbers")
        if self.choices is not None:
            _check_choices(self, self.choices)

    def __len__(self) -> int:
        return len(self.reward)

    def weight(self) -> np.ndarray:
        """Return [N] float64, the importance weight of each round: target probability / propensity."""
        weight: np.ndarray = self.target / self.propensity
        return weight

    def bounded(self) -> bool:
        """Return whether both ends of the reward's range are known."""
        return bool(np.isfinite(self.reward_low) and np.isfinite(self.reward_high))

    def largest_weight(self) -> float | None:
        """Return the largest weight that any action of any round could have had; None where that is not known."""
        choices = self.choices
        if choices is None or choices.logging is None:
            return None
        possible = choices.logging > 0
        return float(np.max(choices.target[possible] / choices.logging[possible], initial=0.0))


def check_propensities(table: str, propensity: np.ndarray, of_interest: np.ndarray | None = None) -> None:
    """Raise MeasureError where a propensity is missing, not positive, or above 1.

    Args:
        table: where the column stands, for the message.
        propensity: [N] float64.
        of_interest: [N] bool, rows that must be right; None means all.
    """
    bad = ~((propensity > 0) & (propensity <= 1 + _AGREE))
    refuse_rows(
        table,
        "propensity",
        bad if of_interest is None else bad & of_interest,
        propensity,
        "the probability with which the chosen action was drawn must lie in (0, 1]; without it no other policy's value "
        "can be read from this log",
    )


def _check_choices(log: Log, choices: Choices) -> None:
    n, t = len(log), len(choices.action)
    shapes = {"first": (choices.first, n + 1), "target": (choices.target, t), "chosen": (choices.chosen, n)}
    if choices.logging is not None:
        shapes["logging"] = (choices.logging, t)
    for name, (values, length) in shapes.items():
        if len(values) != length:
            raise MeasureError(f"choices.{name} has {len(values)} rows, expected {length}")
    if choices.first[0] != 0 or choices.first[-1] != t or (np.diff(choices.first) < 1).any():
        raise MeasureError(f"choices.first must rise from 0 to {t}, and every round needs at least one action")
    lost = (choices.chosen < choices.first[:-1]) | (choices.chosen >= choices.first[1:])
    refuse_rows("choices", "chosen", lost, choices.chosen, "the chosen action must stand among its round's actions")
    other = choices.action[choices.chosen] != log.action
    refuse_rows("choices", "chosen", other, log.action, "the chosen row holds another action than log.action")
    distributions = [("target", choices.target, log.target)]
    if choices.logging is not None:
        distributions.append(("logging", choices.logging, log.propensity))
    for name, values, chosen in distributions:
        bad = ~((values >= 0) & (values <= 1 + SUM_TOLERANCE))
        refuse_rows("choices", name, bad, values, "a probability must lie in 0..1")
        sums = choices.sums(values)
        refuse_rows("choices", name, np.abs(sums - 1) > SUM_TOLERANCE, sums, "a round's probabilities must sum to 1")
        apart = np.abs(values[choices.chosen] - chosen) > SUM_TOLERANCE
        refuse_rows(
            "choices", name, apart, chosen, "the chosen action's probability differs from the one in the distribution"
        )


def _numbered(labels: np.ndarray) -> np.ndarray:
    """Return int64 numbers 0, 1, ... in the order in which labels first appear."""
    _, first, inverse = np.unique(np.asarray(labels), return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
