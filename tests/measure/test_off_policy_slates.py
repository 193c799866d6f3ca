"""Values of whole slates by hand, and what each assumption costs and saves."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.errors import MeasureError
from playbill.measure.off_policy.estimators import dr, ips, snips
from playbill.measure.off_policy.log import Choices, Log
from playbill.measure.off_policy.read import evaluate
from playbill.measure.off_policy.reward_model import ActionMeans, cross_fit
from playbill.measure.off_policy.settings import Model, OffPolicyQuestion, SlatePropensities
from playbill.measure.off_policy.slates import ASSUMPTIONS, per_slate, slate_value, slates_of

# two slates of two positions, rows out of order:
#   slate a: weights 2, 0.5   rewards 1, 1
#   slate b: weights 1, 3     rewards 0, 1
TWO = Log(
    reward=[1, 0, 1, 1],
    propensity=[0.2, 0.5, 0.25, 0.4],
    target=[0.1, 0.5, 0.75, 0.8],
    action=[0, 1, 2, 3],
    position=[1, 0, 1, 0],
    request=["a", "b", "b", "a"],
    unit=["ann", "ben", "ben", "ann"],
)


@pytest.mark.parametrize(
    ("assumption", "normalised", "by_hand"),
    [
        # (2 x 1 + 0.5 x 1) + (1 x 0 + 3 x 1) = 5.5, over 2 slates
        ("independent", False, 5.5 / 2),
        # a: 2 x 1 + 1 x 1 = 3; b: 1 x 0 + 3 x 1 = 3
        ("cascade", False, 6 / 2),
        # a: 2 x 0.5 = 1, times 2 rewards; b: 1 x 3 = 3, times 1
        ("standard", False, 5 / 2),
        # position 0: 2 / (2 + 1); position 1: 3.5 / 3.5
        ("independent", True, 2 / 3 + 1),
        # position 0: 2 / 3; position 1, products 1 and 3: 4 / 4
        ("cascade", True, 2 / 3 + 1),
        # products 1 and 3: position 0: 1 / 4, position 1: 4 / 4
        ("standard", True, 1.25),
    ],
)
def test_by_hand(assumption: str, normalised: bool, by_hand: float) -> None:
    found = slate_value(slates_of(TWO), assumption, normalised=normalised)
    assert found.estimate() == pytest.approx(by_hand)
    assert found.per_round().mean() == pytest.approx(by_hand)


def test_slates_of_different_length() -> None:
    short = Log(
        reward=[1, 1, 1], propensity=[0.5, 0.5, 0.5], target=[0.25, 0.5, 0.5], action=[0, 0, 0],
        position=[0, 0, 1], request=[7, 8, 8],
    )  # fmt: skip
    slates = slates_of(short)
    # slate 7: 0.5; slate 8: 1 + 1
    assert slate_value(slates, "independent").estimate() == pytest.approx(2.5 / 2)
    # position 0: 1.5 / 1.5; position 1 stands in half of the slates: 1 / 1 x 0.5
    assert slate_value(slates, "independent", normalised=True).estimate() == pytest.approx(1.5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_each_assumption_is_unbiased_where_it_holds(seed: int) -> None:
    """Two positions of two actions: the mean over all four slates, with their probabilities, is the exact value."""
    rng = np.random.default_rng(seed)
    logging, target = rng.dirichlet([2, 2], 2), rng.dirichlet([1, 1], 2)
    own, above = rng.random((2, 2)), rng.random((2, 2))
    whole = rng.random((2, 2))
    pairs = [(a, b) for a in (0, 1) for b in (0, 1)]
    rewards = {
        "independent": [(own[0, a], own[1, b]) for a, b in pairs],
        "cascade": [(own[0, a], above[a, b]) for a, b in pairs],
        "standard": [(whole[a, b], above[a, b]) for a, b in pairs],
    }
    chance = np.array([logging[0, a] * logging[1, b] for a, b in pairs])
    wanted = np.array([target[0, a] * target[1, b] for a, b in pairs])
    contains = {"independent": ["independent"], "cascade": ["independent", "cascade"], "standard": list(rewards)}
    for assumption, worlds in contains.items():
        for world in worlds:
            log = Log(
                reward=np.ravel(rewards[world]),
                propensity=np.ravel([(logging[0, a], logging[1, b]) for a, b in pairs]),
                target=np.ravel([(target[0, a], target[1, b]) for a, b in pairs]),
                action=np.ravel(pairs),
                position=np.tile([0, 1], 4),
                request=np.repeat(np.arange(4), 2),
                unit=np.repeat(np.arange(4), 2),
            )
            found = chance @ slate_value(slates_of(log), assumption).per_round()
            assert found == pytest.approx(wanted @ np.sum(rewards[world], axis=1), abs=1e-9), (assumption, world)


def without_replacement() -> tuple[Log, np.ndarray, np.ndarray, float]:
    """Return all slates of two of three items, drawn by 10 : 1 : 1 and judged for a uniform draw, each given the first.

    Rewards depend on the item alone.

    Returns:
        The log of six slates, their probabilities (as logged), the marginal ratios ([6, 2]), and the target's value.
    """
    weight, brings = np.array([10.0, 1.0, 1.0]), np.array([0.9, 0.1, 0.1])
    pairs = np.array([(a, b) for a in range(3) for b in range(3) if a != b])
    first, second = weight[pairs[:, 0]] / 12, weight[pairs[:, 1]] / (12 - weight[pairs[:, 0]])
    chance = first * second
    log = Log(
        reward=brings[pairs].ravel(),
        propensity=np.stack([first, second], 1).ravel(),
        target=np.tile([1 / 3, 1 / 2], 6),
        action=pairs.ravel(),
        position=np.tile([0, 1], 6),
        request=np.repeat(np.arange(6), 2),
    )
    marginal = np.stack([np.bincount(column, chance) for column in pairs.T], 1)
    ratio = (1 / 3) / np.take_along_axis(marginal, pairs, 0)
    return log, chance, ratio, float(2 * brings.mean())


def test_drawn_without_replacement_only_marginal_weights_are_right_position_by_position() -> None:
    log, chance, ratio, truth = without_replacement()
    slates = slates_of(log)
    values = {name: float(chance @ slate_value(slates, name).per_round()) for name in ASSUMPTIONS}
    assert values["cascade"] == pytest.approx(truth) and values["standard"] == pytest.approx(truth)
    assert truth == pytest.approx(11 / 15) and values["independent"] == pytest.approx(8 / 15)
    slates.weight = ratio
    assert chance @ slate_value(slates, "independent").per_round() == pytest.approx(truth)


@pytest.mark.parametrize(
    ("declared", "given"),
    [
        (SlatePropensities.NOT_DECLARED, set()),
        (SlatePropensities.MARGINAL, {"independent", "independent DR"}),
        (SlatePropensities.CONDITIONAL, {"cascade", "standard"}),
        (SlatePropensities.INDEPENDENT, {"independent", "independent DR", "cascade", "standard"}),
    ],
)
def test_a_slate_is_valued_only_with_the_propensities_it_needs(declared: SlatePropensities, given: set[str]) -> None:
    one, chance, _, truth = without_replacement()
    drawn = np.random.default_rng(0).choice(6, 2000, p=chance)
    rows = (2 * drawn[:, None] + [0, 1]).ravel()
    n = len(rows)
    log = Log(
        reward=one.reward[rows],
        propensity=one.propensity[rows],
        target=one.target[rows],
        action=one.action[rows],
        position=np.tile([0, 1], 2000),
        request=np.arange(n) // 2,
        choices=Choices(  # what is drawn second, and the rest in one
            first=np.arange(n + 1) * 2,
            action=np.stack([one.action[rows], np.full(n, 3)], 1).ravel(),
            target=np.stack([one.target[rows], 1 - one.target[rows]], 1).ravel(),
            chosen=np.arange(n) * 2,
        ),
    )
    asked = OffPolicyQuestion(slate_propensities=declared, model=Model.MEANS, resamples=200, least_effective=1)
    reading = evaluate(log, asked)
    found = {s.name.split("slate, ")[1]: s for s in reading.statements if "slate, " in s.name}
    assert {name for name, s in found.items() if not s.refused and "normalised" not in name} == given
    for name in {"cascade", "standard"} & given:
        assert found[name].low is not None and found[name].low <= truth <= found[name].high
    if declared is SlatePropensities.CONDITIONAL:
        why = "`independent` needs marginal probabilities .* declared conditional .* read cascade and standard instead"
        assert re.search(why, found["independent"].refused) and re.search(why, found["independent DR"].refused)
        assert any("leave what stands above as the logging policy chose it" in w for w in reading.warnings)
    if not given:
        (slate,) = [s for s in reading.statements if "slate" in s.name]
        assert "question.slate_propensities" in slate.refused


def test_contributions_of_rounds_add_up_over_slates() -> None:
    assert per_slate(ips(TWO), TWO).estimate() == pytest.approx(slate_value(slates_of(TWO), "independent").estimate())
    rng = np.random.default_rng(0)
    n, share = 60, np.array([0.25, 0.75])
    action = rng.integers(2, size=n)
    log = Log(
        reward=rng.random(n) < 0.5,
        propensity=np.full(n, 0.5),
        target=share[action],
        action=action,
        position=np.tile([0, 1, 2], 20),
        request=np.repeat(np.arange(20), 3),
        choices=Choices(
            first=np.arange(n + 1) * 2,
            action=np.tile([0, 1], n),
            target=np.tile(share, n),
            chosen=np.arange(n) * 2 + action,
        ),
    )
    doubly = dr(log, cross_fit(log, lambda: ActionMeans(2)))
    assert per_slate(doubly, log).estimate() == pytest.approx(3 * doubly.estimate())
    with pytest.raises(MeasureError, match="SNIPS divides by its weights"):
        per_slate(snips(log), log)


def test_refuses() -> None:
    with pytest.raises(MeasureError, match="1 positions stand twice in a request, first row 0: position 0"):
        slates_of(Log(reward=[1, 0], propensity=[1, 1], target=[1, 1], action=[0, 0], request=[3, 3]))
    with pytest.raises(MeasureError, match="1 rounds belong to another unit than their request, first row 0"):
        slates_of(
            Log(
                reward=[1, 0], propensity=[1, 1], target=[1, 1], action=[0, 0],
                request=[3, 3], position=[0, 1], unit=[1, 2],
            )
        )  # fmt: skip
    with pytest.raises(MeasureError, match="no assumption 'none'; there are: independent, cascade, standard"):
        slate_value(slates_of(TWO), "none")
