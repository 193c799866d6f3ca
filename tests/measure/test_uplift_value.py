"""The value of a rule on a randomised trial, rules within a budget, and learners on trials whose effects are known."""

from __future__ import annotations

import sys
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.errors import MeasureError
from playbill.measure.uplift.learners import (
    class_transformation,
    cross_fit,
    expected_outcomes,
    folds,
    lightgbm_models,
    linear_models,
    t_learner,
    x_learner,
)
from playbill.measure.uplift.trial import make_trial
from playbill.measure.uplift.value import at_random, contributions, everybody, policy_values, within_budget

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from proof_uplift import known_trial, simulated_run

LEARNERS = [t_learner, x_learner, class_transformation]


def test_value_by_hand() -> None:
    # two arms with shares 1/2; treating costs 0.25; the rule treats persons 0 and 2
    trial = make_trial(["none", "mail"], np.array([0, 1, 1, 0]), np.array([0.5, 0.5]), np.array([1.0, 3, 4, 2]))
    plan = np.array([[0, 1], [1, 0], [0, 1], [1, 0]], float)
    parts = contributions(trial, plan, np.array([0, 0.25]))
    # 0 was in the other arm: only its cost; 1 too, and costs nothing; 2 counts twice; 3 counts twice
    assert parts.tolist() == [-0.25, 0.0, 8 - 0.25, 4.0]
    assert contributions(trial, plan, np.array([0, 0.25]), worth=2).tolist() == [-0.25, 0.0, 16 - 0.25, 8.0]
    # with a model that is right for everybody nothing is left to weight
    expected = np.array([[1, 9], [9, 3], [9, 4], [2, 9]], float)
    doubly = contributions(trial, plan, np.array([0, 0.25]), expected=expected)
    assert doubly.tolist() == [9 - 0.25, 9.0, 4 - 0.25, 2.0]


def test_a_random_rule_is_between_its_parts() -> None:
    _, trial, _ = known_trial(0, 500)
    cost = np.array([0, 0.1, 0.2])
    half = contributions(trial, at_random(500, 3, 2, 0.5), cost)
    whole = [contributions(trial, everybody(500, 3, a), cost) for a in (0, 2)]
    assert half == pytest.approx((whole[0] + whole[1]) / 2)


def test_pairs_are_taken_on_the_same_people() -> None:
    _, trial, _ = known_trial(1, 2000)
    cost = np.zeros(3)
    parts = {f"{a}": contributions(trial, everybody(2000, 3, a), cost) for a in range(3)}
    parts["2 again"] = parts["2"]
    values, pairs = policy_values(parts, resamples=200)
    assert pairs["1", "2"].value == pytest.approx(values["1"].value - values["2"].value)
    same = pairs["2", "2 again"]
    assert (same.value, same.low, same.high) == (0, 0, 0)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-5, 9), st.integers(-5, 9)), min_size=1, max_size=6),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_the_best_rule_under_a_limit_on_people(
    rows: list[tuple[int, int]], cost_1: int, cost_2: int, most: float
) -> None:
    """Against every plan there is."""
    effect = np.array([(0, a, b) for a, b in rows], float)
    cost = np.array([0.0, cost_1, cost_2])
    plan = within_budget(effect, cost, most_share=most)
    assert (plan.sum(1) == 1).all()
    places = int(most * len(rows))
    assert plan[:, 1:].sum() <= places
    best = max(
        sum(effect[i, a] - cost[a] for i, a in enumerate(chosen))
        for chosen in product(range(3), repeat=len(rows))
        if sum(a > 0 for a in chosen) <= places
    )
    assert (plan * (effect - cost)).sum() == pytest.approx(best)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-5, 9), st.floats(-5, 9)), min_size=1, max_size=6), st.floats(0, 4), st.floats(0.5, 3)
)
def test_a_limit_on_money_is_kept_and_nearly_used_up(
    rows: list[tuple[float, float]], money: float, cost_2: float
) -> None:
    effect = np.array([(0, a, b) for a, b in rows])
    cost = np.array([0.0, 1.0, cost_2])
    plan = within_budget(effect, cost, most_money=money)
    spent = (plan @ cost).sum()
    assert spent <= money * len(rows) * (1 + 1e-9)
    best = max(
        sum(effect[i, a] - cost[a] for i, a in enumerate(chosen))
        for chosen in product(range(3), repeat=len(rows))
        if sum(cost[a] for a in chosen) <= money * len(rows)
    )
    # the relaxation loses at most the person at the border, who gains at most the largest net effect there is
    assert (plan * (effect - cost)).sum() >= best - max(0.0, float((effect - cost).max())) - 1e-9


def test_equal_people_are_not_taken_in_the_order_of_rows() -> None:
    plan = within_budget(np.tile([0.0, 1.0], (1000, 1)), np.zeros(2), most_share=0.3)
    taken = np.flatnonzero(plan[:, 1])
    assert len(taken) == 300 and 400 < taken.mean() < 600
    assert np.array_equal(plan, within_budget(np.tile([0.0, 1.0], (1000, 1)), np.zeros(2), most_share=0.3))


def test_nobody_is_treated_at_a_predicted_loss() -> None:
    effect = np.array([[0, 0.2], [0, 0.05], [0, -1.0]])
    assert within_budget(effect, np.array([0, 0.1]))[:, 1].tolist() == [1, 0, 0]


@pytest.mark.parametrize("learner", LEARNERS)
def test_learners_find_whom_the_treatment_moves(learner: object) -> None:
    features, trial, expected = known_trial(3, 6000)
    effect = cross_fit(
        partial(learner, models=linear_models(binary=True)),  # type: ignore[arg-type]  # one of three functions
        features,
        trial,
        folds(6000, 3, 0),
    )
    truth = expected - expected[:, [0]]
    assert np.corrcoef(effect[:, 1], truth[:, 1])[0, 1] > 0.7
    assert (effect[:, 0] == 0).all()
    # mean effects are right within four standard errors of a difference of such rates
    assert effect[:, 1:].mean(0) == pytest.approx(truth[:, 1:].mean(0), abs=4 * np.sqrt(0.25 / 1200 + 0.25 / 3000))


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_estimated_value_covers_the_truth(learner: object) -> None:
    """A fast twin of proof_uplift.py, which runs 200 trials a learner."""
    models = linear_models(binary=True)
    runs = [simulated_run(partial(learner, models=models), seed, 2000) for seed in range(12)]  # type: ignore[arg-type]  # see above
    held = sum(one["low"] <= one["truth"] <= one["high"] for one in runs)
    assert held >= 9, held  # fewer than 9 of 12 have probability 0.002 at 95 % coverage
    assert np.mean([one["truth"] - one["random"] for one in runs]) > 0.01


def test_lightgbm_is_deterministic_and_sees_the_effect() -> None:
    features, trial, expected = known_trial(4, 3000)
    learner = partial(x_learner, models=lightgbm_models(7, binary=True, trees=20, least=50))
    first, again = (learner(features, trial, features[:500]) for _ in range(2))
    assert np.array_equal(first, again)
    assert np.corrcoef(first[:, 1], (expected[:500, 1] - expected[:500, 0]))[0, 1] > 0.6


def test_folds_before_teach_alone() -> None:
    features, trial, _ = known_trial(8, 600)
    fold = folds(600, 3, 0)
    learner = partial(t_learner, models=linear_models(binary=True))
    said = cross_fit(learner, features, trial, fold, forward=True)
    assert np.isnan(said[fold == 0]).all() and np.isfinite(said[fold > 0]).all()
    # what happened in the last fold, and in the fold itself, changes nothing of what is said of the second
    trial.outcome[fold > 0] = 1 - trial.outcome[fold > 0]
    again = cross_fit(learner, features, trial, fold, forward=True)
    assert np.array_equal(said[fold == 1], again[fold == 1]) and not np.array_equal(said[fold == 2], again[fold == 2])


def test_class_transformation_needs_a_flag() -> None:
    features, trial, _ = known_trial(5, 300)
    trial.outcome[:2] = 7.5
    with pytest.raises(MeasureError, match=r"needs an outcome of 0 and 1; 2 of 300 are others, the first \[7.5, 7.5\]"):
        class_transformation(features, trial, features, models=linear_models(binary=True))


def test_an_arm_of_one_outcome_is_predicted_as_such() -> None:
    features, trial, _ = known_trial(6, 300)
    trial.outcome[trial.arm == 2] = 1.0
    assert (expected_outcomes(features, trial, features, models=linear_models(binary=True))[:, 2] == 1).all()


def test_bad_trials_are_named() -> None:
    arm, share, outcome = np.array([0, 1, 0, 1]), np.array([0.5, 0.5]), np.zeros(4)
    with pytest.raises(MeasureError, match="sum to 1"):
        make_trial(["a", "b"], arm, np.array([0.5, 0.6]), outcome)
    with pytest.raises(MeasureError, match="each lie in"):
        make_trial(["a", "b"], arm, np.array([0.0, 1.0]), outcome)
    with pytest.raises(MeasureError, match=r"trial.outcome: .* 1 of 4 rows break this, first row 2: nan"):
        make_trial(["a", "b"], arm, share, np.array([0, 0, np.nan, 0]))
    with pytest.raises(MeasureError, match="nobody is in arm b"):
        make_trial(["a", "b"], np.zeros(4, int), share, outcome)
    with pytest.raises(MeasureError, match=r"trial.user_id: .* 1 of 4 rows break this, first row 2: 7"):
        make_trial(["a", "b"], arm, share, outcome, np.array([7, 8, 7, 9]))
    trial = make_trial(["a", "b"], arm, share, outcome)
    with pytest.raises(MeasureError, match=r"plan: 1 of 4 rows are no probabilities"):
        contributions(trial, np.array([[1, 0], [1, 0], [0.5, 0.6], [0, 1]]), np.zeros(2))
    with pytest.raises(MeasureError, match="two folds"):
        cross_fit(t_learner, np.zeros((4, 1)), trial, np.zeros(4, int))  # type: ignore[arg-type]  # never called
