"""What a reading claims: a bound of what is declared, a verdict of enough rewards, and assumptions that hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from playbill.measure.off_policy.eligible import Eligible
from playbill.measure.off_policy.log import Log
from playbill.measure.off_policy.overlap import FEW_REWARDS
from playbill.measure.off_policy.read import evaluate
from playbill.measure.off_policy.reward_model import Rows, cross_fit
from playbill.measure.off_policy.rounds import Rounds
from playbill.measure.off_policy.settings import Model, OffPolicyQuestion, Unit
from playbill.measure.off_policy.targets import log_of
from playbill.measure.statement import Statement


def question(**changed: Any) -> OffPolicyQuestion:
    return OffPolicyQuestion(**{"model": Model.MEANS, "resamples": 200} | changed)


def rounds_of(people: int, each: int, *, rate: float, seed: int = 0, unit: Unit = Unit.PERSON) -> Rounds:
    """Return rounds of two actions drawn evenly; the second brings a reward at `rate`, the first at a tenth of it."""
    rng = np.random.default_rng(seed)
    n = people * each
    action, person = rng.integers(2, size=n), np.repeat(np.arange(people), each)
    return Rounds(
        decision_id=pl.Series(np.arange(n)),
        action=action,
        actions=["a", "b"],
        reward=(rng.random(n) < rate * np.where(action == 1, 1.0, 0.1)).astype(np.float64),
        propensity=np.full(n, 0.5),
        position=np.zeros(n, np.int64),
        request=np.arange(n),
        unit=person if unit is Unit.PERSON else np.arange(n),
        person=person,
        units_are="people" if unit is Unit.PERSON else "decisions",
        features=person[:, None].astype(np.float64),
        eligible=Eligible(np.arange(n + 1) * 2, np.tile([0, 1], n), np.full(2 * n, 0.5)),
        eligible_count=None,
        reward_low=0.0,
        reward_high=1.0,
    )


def statement(log: Log, asked: OffPolicyQuestion, name: str, units_are: str = "people") -> Statement:
    (found,) = [s for s in evaluate(log, asked, units_are=units_are).statements if s.name.endswith(name)]
    return found


def test_the_bound_asks_for_what_no_log_can_tell() -> None:
    log = log_of(rounds_of(400, 2, rate=0.3), question())
    refused = statement(log, question(), "finite-sample bound")
    assert refused.low is None and "set question.most_decisions_per_unit" in refused.refused
    # one decision each in this log is no declaration either
    once = log_of(rounds_of(400, 1, rate=0.3), question())
    assert statement(once, question(), "finite-sample bound").refused
    given = statement(log, question(most_decisions_per_unit=5), "finite-sample bound")
    assert given.low is not None and any(
        "can exceed 1, the largest among the contexts in this log; none of the people can have more than 5" in a
        for a in given.assumptions
    )
    declared = statement(log, question(most_decisions_per_unit=5, largest_weight=3), "finite-sample bound")
    assert any("no weight can exceed 3, as declared" in a for a in declared.assumptions)
    assert declared.high > given.high  # what is allowed for must be paid for
    too_few = statement(log, question(most_decisions_per_unit=1), "finite-sample bound")
    assert "a unit of 2 decisions, above the declared most of 1" in too_few.refused
    # a decision is one decision, whoever comes
    alone = log_of(rounds_of(400, 2, rate=0.3, unit=Unit.DECISION), question())
    assert statement(alone, question(unit=Unit.DECISION), "finite-sample bound", "decisions").low is not None


@pytest.mark.parametrize(("rate", "says"), [(0.1, "is left open"), (0.5, "better, by")])
def test_a_verdict_needs_rewards(rate: float, says: str) -> None:
    """A policy that takes the better of two actions: clearly better in both logs, but in one the rewards are few."""
    asked = question(target="greedy")
    log = log_of(rounds_of(500, 2, rate=rate), asked)
    reading = evaluate(log, asked)
    apart = reading.statements[-1]
    assert apart.low is not None and apart.low > 0
    assert (log.reward.sum() < FEW_REWARDS) == (rate == 0.1)
    assert says in reading.verdict and ("better" in reading.verdict) == (rate == 0.5)


@pytest.mark.parametrize("unit", [Unit.PERSON, Unit.DECISION])
def test_what_is_learned_from_the_log_never_saw_the_person_it_is_asked_of(unit: Unit) -> None:
    rounds = rounds_of(60, 10, rate=0.4, unit=unit)
    log = log_of(rounds, question(target="popularity"))
    assert log.choices is not None
    shares = log.choices.target.reshape(60, 10, 2)
    assert len(np.unique(shares[..., 0])) == 2  # a policy a half
    assert (shares == shares[:, :1]).all()  # and each person has one of them
    asked_of: list[float] = []

    class Seen:
        """A model that remembers who taught it."""

        def fit(self, rows: Rows, reward: np.ndarray) -> None:
            self.mean, self.taught = float(reward.mean()), set(rows.features[:, 0])

        def predict(self, rows: Rows) -> np.ndarray:
            assert not self.taught & set(rows.features[:, 0])
            asked_of.extend(rows.features[:, 0])
            return np.full(len(rows.action), self.mean)

    cross_fit(log, Seen)
    assert len(asked_of) == 2 * len(log)


@pytest.mark.parametrize(("target", "learned"), [("popularity", True), ("greedy", True), ("uniform", False)])
def test_a_target_learned_from_the_log_is_said_to_be(target: str, learned: bool) -> None:
    asked = question(target=target, most_decisions_per_unit=2)
    reading = evaluate(log_of(rounds_of(300, 2, rate=0.4), asked), asked)
    texts = [" ".join(s.assumptions) for s in reading.statements if "value of the logging" not in s.name]
    assert all(("was learned from this log" in text) == learned for text in texts)
    assert all(("was not made from these rewards" in text) != learned for text in texts)


def test_a_threshold_chosen_by_the_rewards_is_said_to_be() -> None:
    log = log_of(rounds_of(300, 2, rate=0.4), question())
    assert any(
        "threshold was chosen by these rewards" in a for a in statement(log, question(), "switch-DR").assumptions
    )
    fixed = statement(log, question(switch=2.0), "switch-DR")
    assert not any("threshold" in a for a in fixed.assumptions)
