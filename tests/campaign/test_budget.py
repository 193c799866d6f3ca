"""Who gets which offer within a budget: exact for a few, bounded for many, never too dear."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from playbill.campaign import budget
from playbill.campaign.budget import plan
from playbill.errors import ConfigError


def case(seed: int, people: int, levels: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    cost = np.concatenate([np.zeros((people, 1)), draw.uniform(0.1, 3, (people, levels - 1))], 1)
    profit = draw.normal(0.5, 1, (people, levels)) + 0.5 * cost
    short = np.concatenate([-draw.uniform(0, 0.5, (people, 1)), draw.normal(0.2, 0.5, (people, levels - 1))], 1)
    return profit, cost, short


def brute(profit: np.ndarray, cost: np.ndarray, money: float, short: np.ndarray) -> float:
    rows = np.arange(len(profit))
    found = -np.inf
    for levels in product(range(profit.shape[1]), repeat=len(profit)):
        chosen = np.asarray(levels)
        if cost[rows, chosen].sum() <= money and short[rows, chosen].sum() <= 1e-9:
            found = max(found, float(profit[rows, chosen].sum()))
    return found


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("margin", [False, True])
def test_a_few_people_are_solved_exactly(seed: int, margin: bool) -> None:
    profit, cost, short = case(seed, 6)
    for money in (0.0, 1.5, 4.0, 100.0):
        found = plan(profit, cost, money, short if margin else None)
        assert found.profit == pytest.approx(brute(profit, cost, money, short if margin else short * 0), abs=1e-9)
        assert found.cost <= money
        assert found.bound >= found.profit - 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_many_people_are_within_their_bound_and_near_the_exact_optimum(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    profit, cost, short = case(seed, 50)
    exact = plan(profit, cost, 20.0, short)
    monkeypatch.setattr(budget, "_EXACT", 0)
    found = plan(profit, cost, 20.0, short)
    rows = np.arange(50)
    assert found.cost <= 20.0 and short[rows, found.level].sum() <= 1e-9
    assert found.profit <= exact.profit + 1e-9 <= found.bound + 1e-9
    assert exact.profit - found.profit <= profit.max() - profit.min()  # one person's step is what rounding leaves


def test_the_gap_of_many_people_is_small() -> None:
    profit, cost, _ = case(3, 100_000)
    found = plan(profit, cost, 20_000.0)
    assert found.cost <= 20_000 and found.gap < 1e-4
    assert found.price > 0


def test_equal_people_do_not_pass_the_budget() -> None:
    profit = np.tile([0.0, 1.0], (1000, 1))
    cost = np.tile([0.0, 1.0], (1000, 1))
    found = plan(profit, cost, 333.5)
    assert found.cost == 333 and found.profit == 333


def test_levels_that_may_not_be_given_are_not() -> None:
    profit = np.array([[0.0, -np.inf, 1.0]] * 100)
    found = plan(profit, np.array([[0.0, 1.0, 2.0]] * 100), 51.0)
    assert set(found.level) == {0, 2} and found.cost == 50


def test_nobody_and_no_money() -> None:
    assert len(plan(np.zeros((0, 3)), np.zeros((0, 3)), 1.0).level) == 0
    profit, cost, _ = case(1, 500)
    assert not plan(profit, cost, 0.0).level.any()


def test_what_is_no_number_is_refused() -> None:
    profit, cost, _ = case(1, 5)
    with pytest.raises(ConfigError, match="budget"):
        plan(profit, cost, -1.0)
    with pytest.raises(ConfigError, match="level none costs nothing"):
        plan(profit, cost + 1, 1.0)
    with pytest.raises(ConfigError, match="lower it"):
        plan(profit, cost, 1.0, np.ones_like(cost))
