"""Every estimator by hand, against a slow reference, and its expectation over the logging policy, exactly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.errors import MeasureError
from playbill.measure.off_policy.estimators import (
    Contributions,
    Prediction,
    clipped_ips,
    difference,
    dm,
    dr,
    ips,
    on_policy,
    snips,
    switch_dr,
    switch_threshold,
)
from playbill.measure.off_policy.log import Choices, Log

# four rounds:     w = target / propensity
#   1   0.25 / 0.5  = 0.5    r 1    q 0.8    q_target 0.5
#   2   0.5  / 0.25 = 2      r 1    q 0.4    q_target 0.7
#   3   0.5  / 0.5  = 1      r 0    q 0.1    q_target 0.3
#   4   0.2  / 0.8  = 0.25   r 1    q 0.6    q_target 0.4
FOUR = Log(reward=[1, 1, 0, 1], propensity=[0.5, 0.25, 0.5, 0.8], target=[0.25, 0.5, 0.5, 0.2], action=[0, 1, 2, 0])
EXPECTED = Prediction(chosen=np.array([0.8, 0.4, 0.1, 0.6]), expected=np.array([0.5, 0.7, 0.3, 0.4]))


@pytest.mark.parametrize(
    ("found", "by_hand"),
    [
        (on_policy(FOUR), 3 / 4),
        # 0.5 + 2 + 0 + 0.25 = 2.75 over 4 rounds
        (ips(FOUR), 2.75 / 4),
        # weights cut at 1: 0.5 + 1 + 0 + 0.25 = 1.75
        (clipped_ips(FOUR, 1.0), 1.75 / 4),
        # cut at the root of 4 rounds, 2: nothing is cut
        (clipped_ips(FOUR), 2.75 / 4),
        # 2.75 over the sum of weights, 0.5 + 2 + 1 + 0.25 = 3.75
        (snips(FOUR), 2.75 / 3.75),
        # 0.5 + 0.7 + 0.3 + 0.4 = 1.9
        (dm(EXPECTED), 1.9 / 4),
        # 0.5 + 0.5 * 0.2 = 0.6; 0.7 + 2 * 0.6 = 1.9; 0.3 + 1 * -0.1 = 0.2; 0.4 + 0.25 * 0.4 = 0.5; sum 3.2
        (dr(FOUR, EXPECTED), 3.2 / 4),
        # above 1 the model alone: 0.6 + 0.7 + 0.2 + 0.5 = 2.0
        (switch_dr(FOUR, EXPECTED, 1.0), 2.0 / 4),
        # never above: DR; always above (threshold 0): DM
        (switch_dr(FOUR, EXPECTED, 2.0), 3.2 / 4),
        (switch_dr(FOUR, EXPECTED, 0.0), 1.9 / 4),
        # DR - logged: 0.8 - 0.75
        (difference(dr(FOUR, EXPECTED), on_policy(FOUR)), 0.05),
        # SNIPS - IPS: 0.7333 - 0.6875
        (difference(snips(FOUR), ips(FOUR)), 2.75 / 3.75 - 2.75 / 4),
    ],
    ids=lambda value: value.name if isinstance(value, Contributions) else None,
)
def test_by_hand(found: Contributions, by_hand: float) -> None:
    assert found.estimate() == pytest.approx(by_hand, abs=1e-12)
    assert found.per_round().shape == (4,)
    assert found.per_round().mean() == pytest.approx(by_hand, abs=1e-12)


def test_rounds_of_plain_means_are_their_own_terms() -> None:
    np.testing.assert_allclose(dr(FOUR, EXPECTED).per_round(), [0.6, 1.9, 0.2, 0.5])
    # SNIPS, linearised: ratio + (w r - ratio w) / mean weight, mean weight 0.9375
    ratio = 2.75 / 3.75
    by_hand = [ratio + (w * r - ratio * w) / 0.9375 for w, r in ((0.5, 1), (2, 1), (1, 0), (0.25, 1))]
    np.testing.assert_allclose(snips(FOUR).per_round(), by_hand)


def drawn_log(seed: int, n: int = 120, actions: int = 5) -> tuple[Log, Prediction, np.ndarray]:
    rng = np.random.default_rng(seed)
    logging = rng.dirichlet(np.ones(actions) * 2, n)
    target = rng.dirichlet(np.ones(actions), n)
    action = np.array([rng.choice(actions, p=p) for p in logging])
    every = np.arange(n)
    q = rng.random((n, actions))
    log = Log(
        reward=rng.random(n),
        propensity=logging[every, action],
        target=target[every, action],
        action=action,
        choices=Choices(
            first=np.arange(n + 1) * actions,
            action=np.tile(np.arange(actions), n),
            target=target.ravel(),
            logging=logging.ravel(),
            chosen=every * actions + action,
        ),
    )
    return log, Prediction(q[every, action], (target * q).sum(1)), q


def slow_reference(log: Log, q: np.ndarray, threshold: float) -> dict[str, float]:
    """Return the estimates from the papers' sums, round by round and action by action."""
    assert log.choices is not None
    sums = dict.fromkeys(("IPS", "weights", "DM", "DR", "switch-DR"), 0.0)
    for i in range(len(log)):
        rows = range(log.choices.first[i], log.choices.first[i + 1])
        model = sum(log.choices.target[row] * q[i, log.choices.action[row]] for row in rows)
        chosen = log.choices.chosen[i]
        assert log.choices.logging is not None
        weight = log.choices.target[chosen] / log.choices.logging[chosen]
        sums["IPS"] += weight * log.reward[i]
        sums["weights"] += weight
        sums["DM"] += model
        sums["DR"] += model + weight * (log.reward[i] - q[i, log.action[i]])
        sums["switch-DR"] += model
        if weight <= threshold:
            sums["switch-DR"] += weight * (log.reward[i] - q[i, log.action[i]])
    means = {name: total / len(log) for name, total in sums.items()}
    return means | {"SNIPS": means["IPS"] / means["weights"]}


@pytest.mark.parametrize("seed", range(4))
def test_equals_a_slow_reference(seed: int) -> None:
    log, prediction, q = drawn_log(seed)
    reference = slow_reference(log, q, threshold=1.3)
    for found in (ips(log), snips(log), dm(prediction), dr(log, prediction), switch_dr(log, prediction, 1.3)):
        assert found.estimate() == pytest.approx(reference[found.name], rel=1e-12), found.name


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(0, 10_000))
def test_ips_and_dr_are_unbiased_whatever_the_model_says(actions: int, seed: int) -> None:
    """The mean over every action the logging policy could draw, with its probability, is the target's exact value."""
    rng = np.random.default_rng(seed)
    logging, target = rng.dirichlet(np.ones(actions)) * 0.9 + 0.1 / actions, rng.dirichlet(np.ones(actions))
    reward, q = rng.random(actions), rng.random(actions)
    every = np.arange(actions)
    log = Log(reward=reward, propensity=logging, target=target, action=every)
    prediction = Prediction(q, np.full(actions, target @ q))
    truth = target @ reward
    for found in (ips(log), dr(log, prediction), switch_dr(log, prediction, np.inf)):
        assert logging @ found.per_round() == pytest.approx(truth, abs=1e-9), found.name
    # switch-DR is off by the model's error on what it leaves to the model, and by nothing else
    threshold = float(np.median(log.weight()))
    heavy = log.weight() > threshold
    biased = logging @ switch_dr(log, prediction, threshold).per_round()
    assert biased - truth == pytest.approx((target * (q - reward))[heavy].sum(), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(-5, 5))
def test_snips_moves_with_rewards_and_stays_among_them(seed: int, shift: float) -> None:
    log, _, _ = drawn_log(seed, n=30)
    found = snips(log).estimate()
    assert log.reward.min() <= found <= log.reward.max()
    moved = Log(
        reward=log.reward + shift,
        propensity=log.propensity,
        target=log.target,
        action=log.action,
        reward_low=-np.inf,
        reward_high=np.inf,
    )
    assert snips(moved).estimate() == pytest.approx(found + shift, abs=1e-9)


def test_the_logging_policy_as_target_is_the_mean_reward() -> None:
    log, prediction, _ = drawn_log(1)
    own = Log(reward=log.reward, propensity=log.propensity, target=log.propensity, action=log.action)
    for found in (ips(own), clipped_ips(own), snips(own), on_policy(own)):
        assert found.estimate() == pytest.approx(log.reward.mean())
    assert not np.isclose(dm(prediction).estimate(), log.reward.mean())


def test_few_rounds_are_switched_where_a_weight_is_huge_and_many_rounds_keep_it() -> None:
    """One action in a thousand carries 5 % of the target: weight 50. Leaving it to the model risks a bias of 0.05."""

    def log_of(n: int) -> Log:
        rare = np.arange(n) % 1000 == 0
        return Log(
            reward=np.arange(n) % 2 == 0,
            propensity=np.where(rare, 0.001, 0.999),
            target=np.where(rare, 0.05, 0.95),
            action=rare.astype(int),
            choices=Choices(
                first=np.arange(n + 1) * 2,
                action=np.tile([0, 1], n),
                target=np.tile([0.95, 0.05], n),
                logging=np.tile([0.999, 0.001], n),
                chosen=np.arange(n) * 2 + rare,
            ),
        )

    half = {n: Prediction(np.full(n, 0.5), np.full(n, 0.5)) for n in (50, 50_000)}
    assert switch_threshold(log_of(50), half[50]) < 50
    assert switch_threshold(log_of(50_000), half[50_000]) == pytest.approx(50)


def test_rounds_of_one_person_tell_the_threshold_no_more_than_one_of_them() -> None:
    """One person in fifty got what carries 5 % of the target, weight 50; everybody's round stands there 400 times."""
    person = np.repeat(np.arange(50), 400)
    rare, n = person == 0, len(person)
    half = Prediction(np.full(n, 0.5), np.full(n, 0.5))
    found = {}
    for name, unit in (("people", person), ("rounds", None)):
        log = Log(
            reward=person % 2 == 0,
            propensity=np.where(rare, 0.001, 0.999),
            target=np.where(rare, 0.05, 0.95),
            action=rare.astype(int),
            unit=unit,
            choices=Choices(
                first=np.arange(n + 1) * 2,
                action=np.tile([0, 1], n),
                target=np.tile([0.95, 0.05], n),
                logging=np.tile([0.999, 0.001], n),
                chosen=np.arange(n) * 2 + rare,
            ),
        )
        found[name] = switch_threshold(log, half)
    assert found["rounds"] == pytest.approx(50) and found["people"] < 50, found


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: clipped_ips(FOUR, -1), "clip must be > 0, or 0 for the root .*, got -1"),
        (lambda: switch_dr(FOUR, EXPECTED, -0.5), "threshold must be >= 0, got -0.5"),
        (lambda: difference(ips(FOUR), dm(Prediction(np.ones(3), np.ones(3)))), "the same rounds: IPS has 4, DM 3"),
        (
            lambda: snips(Log(reward=[1.0], propensity=[0.5], target=[0.0], action=[0])).estimate(),
            "SNIPS: the target policy never chooses what was logged",
        ),
    ],
)
def test_refuses(call: Callable[[], object], says: str) -> None:
    with pytest.raises(MeasureError, match=says):
        call()
