"""What a way of targeting is worth: its value on a randomised trial, net of cost, and rules that keep to a budget.

A rule is a plan [N, A]: the probability with which it gives person i arm a; rows sum to 1, most hold a single 1. Since
the arms were drawn with known shares, the value of any rule is measured without having run it:

    value = mean over people of   sum_a plan[i, a] * (m[i, a] * worth - cost[a])
                                  + plan[i, arm_i] / share[arm_i] * (outcome_i - m[i, arm_i]) * worth

With m = 0 this is inverse-propensity scoring; with m a model of the outcome fitted on other people it is doubly robust,
which changes the spread and, with known shares, never what is estimated. Costs are known and enter exactly.

Source:
    Horvitz and Thompson 1952; Dudik, Langford and Li 2011, "Doubly robust policy evaluation and learning", eq. 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from playbill.errors import MeasureError
from playbill.measure.bootstrap import Interval, resampled_means
from playbill.measure.uplift.trial import CONTROL, Trial


def contributions(
    trial: Trial, plan: np.ndarray, cost: np.ndarray, *, worth: float = 1.0, expected: np.ndarray | None = None
) -> np.ndarray:
    """Return each person's part of the rule's value; the mean is the value per person.

    Args:
        trial: N people in A arms.
        plan: [N, A] float, rows sum to 1; chosen without the outcomes of the people it is applied to.
        cost: [A] float, of giving the arm to one person.
        worth: money for one unit of outcome.
        expected: [N, A] float, a model's expected outcome by arm, fitted on other people; None is plain
            inverse-propensity scoring.
    Returns:
        [N] float64, in money where `worth` is.
    Raises:
        MeasureError: shapes that do not fit, rows that are no distribution, numbers that are not finite.
    """
    plan, cost = np.asarray(plan, np.float64), np.asarray(cost, np.float64)
    shape = (len(trial), len(trial.arms))
    if plan.shape != shape or cost.shape != shape[1:]:
        raise MeasureError(f"plan must be {list(shape)} and cost [{shape[1]}], got {plan.shape} and {cost.shape}")
    bad = np.flatnonzero(~(np.isfinite(plan).all(1) & (plan >= 0).all(1) & (np.abs(plan.sum(1) - 1) < 1e-6)))
    if len(bad):
        raise MeasureError(
            f"plan: {len(bad):,} of {len(plan):,} rows are no probabilities that sum to 1, first row {bad[0]}: "
            f"{plan[bad[0]].tolist()}"
        )
    if not np.isfinite(cost).all() or not np.isfinite(worth):
        raise MeasureError(f"costs and worth must be finite numbers, got {cost.tolist()} and {worth}")
    rows = np.arange(len(trial))
    weight = plan[rows, trial.arm] / trial.share[trial.arm]
    if expected is None:
        by_weight: np.ndarray = weight * trial.outcome * worth - plan @ cost
        return by_weight
    expected = np.asarray(expected, np.float64)
    if expected.shape != shape or not np.isfinite(expected).all():
        raise MeasureError(f"expected must be finite and {list(shape)}, got {expected.shape}")
    modelled = (plan * expected).sum(1) * worth - plan @ cost
    doubly: np.ndarray = modelled + weight * (trial.outcome - expected[rows, trial.arm]) * worth
    return doubly


def policy_values(
    parts: Mapping[str, np.ndarray], *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[dict[str, Interval], dict[tuple[str, str], Interval]]:
    """Return each rule's value per person, and for each pair the difference on the same people, with intervals.

    Args:
        parts: [N] float by rule, from `contributions`; the same people in the same order.
        resamples, seed, level: of the bootstrap over people; all rules see the same draws.
    Returns:
        value by rule; difference by (rule, other).
    """
    names = list(parts)
    table = np.stack([np.asarray(parts[name], np.float64) for name in names], axis=1)
    means = resampled_means(table, resamples, seed)
    tails = [(1 - level) / 2, (1 + level) / 2]

    def interval(value: float, drawn: np.ndarray) -> Interval:
        low, high = np.quantile(drawn, tails)
        return Interval(value=value, low=float(low), high=float(high))

    point = table.mean(0)
    values = {name: interval(float(point[i]), means[:, i]) for i, name in enumerate(names)}
    pairs = {
        (name, other): interval(float(point[i] - point[j]), means[:, i] - means[:, j])
        for i, name in enumerate(names)
        for j, other in enumerate(names)
        if i < j
    }
    return values, pairs


def everybody(people: int, arms: int, arm: int) -> np.ndarray:
    """Return the plan [N, A] that gives one arm to all; `arm=0` treats nobody."""
    plan = np.zeros((people, arms))
    plan[:, arm] = 1.0
    return plan


def at_random(people: int, arms: int, arm: int, share: float) -> np.ndarray:
    """Return the plan [N, A] that gives an arm to a random share of people, as probabilities: no draw adds noise."""
    plan = np.zeros((people, arms))
    plan[:, CONTROL] = 1 - share
    plan[:, arm] += share
    return plan


def within_budget(
    effect: np.ndarray,
    cost: np.ndarray,
    *,
    worth: float = 1.0,
    most_share: float = 1.0,
    most_money: float = np.inf,
    seed: int = 0,
) -> np.ndarray:
    """Return the plan [N, A] that earns most by the predicted effects and keeps to the budget.

    Each person is offered the arm with the highest net effect. Under a limit on people those with the highest net
    effect come first; under a limit on money a person's arm and turn follow from one price of money, the smallest at
    which the plan is affordable (the linear relaxation of the multiple-choice knapsack; what is left unspent is less
    than the dearest arm costs). Nobody is treated at a predicted loss. Equal people are taken in an order drawn from
    `seed`, never in that of the rows.

    Args:
        effect: [N, A] float, predicted effect of each arm on the outcome; column 0 is the control and is 0.
        cost: [A] float, cost[0] is usually 0.
        worth: money for one unit of outcome.
        most_share: largest share of people treated.
        most_money: largest spending, in money per person of the N.
        seed: of the order among equals.
    Source:
        Sinha and Zoltners 1979, "The multiple-choice knapsack problem": the linear relaxation.
    """
    effect, cost = np.asarray(effect, np.float64), np.asarray(cost, np.float64)
    if effect.ndim != 2 or cost.shape != effect.shape[1:]:
        raise MeasureError(f"effect must be [N, A] and cost [A], got {effect.shape} and {cost.shape}")
    bad = np.flatnonzero(~np.isfinite(effect).all(1))
    if len(bad):
        raise MeasureError(
            f"effect: {len(bad):,} of {len(effect):,} rows are not finite, first rows {bad[:5].tolist()}"
        )
    if not 0 <= most_share <= 1 or not most_money >= 0:
        raise MeasureError(f"most_share must lie in 0..1 and most_money be >= 0, got {most_share} and {most_money}")
    people = len(effect)
    gain = effect * worth - cost
    gain = gain - gain[:, [CONTROL]]
    extra = np.maximum(cost - cost[CONTROL], 0.0)
    turn = np.random.default_rng(seed).permutation(people)
    money = most_money * people
    price = _price(gain, extra, turn, int(most_share * people + 1e-9), money)
    return _plan(gain, extra, price, turn, int(most_share * people + 1e-9), money)


def _plan(gain: np.ndarray, extra: np.ndarray, price: float, turn: np.ndarray, places: int, money: float) -> np.ndarray:
    """Return the plan at a price of money: best arm of each, the best people first, until places or money run out."""
    net = gain - price * extra
    arm = net.argmax(1)
    best = net[np.arange(len(net)), arm]
    order = np.lexsort((turn, -best))
    order = order[(best[order] > 0) & (arm[order] != CONTROL)][:places]
    if np.isfinite(money):
        order = order[np.cumsum(extra[arm[order]]) <= money * (1 + 1e-12)]
    chosen = np.zeros(len(net), np.int64)
    chosen[order] = arm[order]
    plan = np.zeros(gain.shape)
    plan[np.arange(len(net)), chosen] = 1.0
    return plan


def _price(gain: np.ndarray, extra: np.ndarray, turn: np.ndarray, places: int, money: float) -> float:
    """Return the smallest price of money at which the plan, had it no limit on money, is affordable; by bisection."""

    def spent(price: float) -> float:
        return float((_plan(gain, extra, price, turn, places, np.inf) @ extra).sum())

    if not np.isfinite(money) or spent(0.0) <= money:
        return 0.0
    paid = extra[extra > 0]
    low, high = 0.0, float(max(gain.max(), 0.0) / paid.min()) + 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > money else (low, middle)
    return low  # just too dear: `_plan` stops where the money ends, so that equals at the border share what is left
