"""A log is held against the probabilities that stand in it: sums, the chosen one's own, its name, and what came out."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from playbill.errors import MeasureError
from playbill.measure.off_policy.agreement import check_agreement, check_policy_name
from playbill.measure.off_policy.eligible import Eligible

N, M = 4_000, 5


def logged(rng: np.random.Generator, followed: bool = True) -> tuple[Eligible, np.ndarray, np.ndarray]:
    """Return N decisions among M actions by a softmax of scores that differ from one to the next."""
    p = np.exp(rng.normal(0, 1.5, (N, M)))
    p /= p.sum(1, keepdims=True)
    drawn = p if followed else p**2 / (p**2).sum(1, keepdims=True)
    chosen = (rng.random((N, 1)) > drawn.cumsum(1)).sum(1)
    eligible = Eligible(np.arange(N + 1) * M, np.tile(np.arange(M), N), p.ravel())
    return eligible, chosen, p[np.arange(N), chosen]


def test_honest_logs_pass_and_sharpened_ones_do_not() -> None:
    names = list("abcde")
    for seed in range(40):
        eligible, action, propensity = logged(np.random.default_rng(seed))
        check_agreement(eligible, action, propensity, names)
    # a policy that draws more greedily than it says: each action comes as often, each probability does not
    eligible, action, propensity = logged(np.random.default_rng(0), followed=False)
    with pytest.raises(MeasureError, match=r"propensity of 0 to 0\.1: \d+ choices where .*did not follow them"):
        check_agreement(eligible, action, propensity, names)


def test_an_action_that_comes_more_often_than_its_probability_is_named() -> None:
    rng = np.random.default_rng(1)
    eligible, action, propensity = logged(rng)
    assert eligible.logging is not None
    swayed = rng.random(N) < 0.2
    action = np.where(swayed, 2, action)
    propensity = eligible.logging.reshape(N, M)[np.arange(N), action]
    with pytest.raises(MeasureError, match=r"the action c: 1,\d+ choices where .* add up to 8\d\d\."):
        check_agreement(eligible, action, propensity, list("abcde"))


def test_lists_must_sum_to_one_and_hold_the_decisions_own() -> None:
    eligible, action, propensity = logged(np.random.default_rng(2))
    assert eligible.logging is not None
    off = eligible.logging.copy()
    off[7 * M] += 0.1
    with pytest.raises(MeasureError, match=r"decisions\.context: the propensities of a decision must sum to 1; 1 of"):
        check_agreement(Eligible(eligible.first, eligible.action, off), action, propensity, list("abcde"))
    with pytest.raises(MeasureError, match=r"decisions\.propensity: the chosen action's propensity .* first row 3"):
        check_agreement(eligible, action, np.where(np.arange(N) == 3, 0.5, propensity), list("abcde"))
    check_agreement(Eligible(eligible.first, eligible.action, None), action, propensity, list("abcde"))


def test_a_uniform_policy_has_uniform_propensities() -> None:
    policy = pl.Series(["uniform", "Uniform", "softmax", None])
    check_policy_name(policy, np.asarray([0.5, 0.25, 0.9, 0.1]), np.asarray([2.0, 4.0, 2.0, 3.0]))
    check_policy_name(policy, np.asarray([0.5, 0.3, 0.9, 0.1]), np.asarray([2.0, np.nan, 2.0, 3.0]))
    check_policy_name(None, np.asarray([0.5]), np.asarray([3.0]))
    with pytest.raises(MeasureError, match=r"called uniform, .* 1 / eligible_count; .* 1 of 4 .* row 1: 0\.3"):
        check_policy_name(policy, np.asarray([0.5, 0.3, 0.9, 0.1]), np.asarray([2.0, 4.0, 2.0, 3.0]))
