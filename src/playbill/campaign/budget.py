"""Who gets which offer: the levels that are worth most together within a budget and a margin.

Each person gets one level. Profit is maximised; what the gifts cost together may not pass the budget, and what the
margin falls short by together may not pass 0:

    max  sum_i profit[i, x_i]    with  sum_i cost[i, x_i] <= budget,   sum_i short[i, x_i] <= 0

For prices a, b >= 0 of the two limits everybody takes the level that is best for them after paying the prices, and

    bound(a, b) = sum_i max_l (profit - a cost - b short)[i, l] + a budget

is no less than the optimum of the linear relaxation, hence than that of any plan. The prices are found by bisection,
one within the other; what is left of the budget then goes to the steps up that earn most for what they cost. A few
people
are solved exactly.

Source:
    Sinha and Zoltners 1979, "The multiple-choice knapsack problem": the relaxation, and that its rounding leaves one
    person's step unspent. Fisher 1981, "The Lagrangian relaxation method for solving integer programming problems".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.errors import ConfigError

_EXACT = 60  # people for whom a mixed-integer program is quicker than anybody can ask
_PASSES = 60  # of bisection: prices to 1 part in 10^18
_OUTER = 30


@dataclass(frozen=True, slots=True)
class Plan:
    """Levels for n people.

    Attributes:
        level: [n] int64, 0 is none.
        profit, cost: of the plan, money.
        bound: no plan within the limits earns more.
        gap: bound - profit, as a share of what the bound is above giving nobody anything; 0 where that is nothing.
        price: what one more unit of money would earn.
        margin_price: the same of the margin.
    """

    level: np.ndarray
    profit: float
    cost: float
    bound: float
    gap: float
    price: float
    margin_price: float


def plan(profit: np.ndarray, cost: np.ndarray, budget: float, short: np.ndarray | None = None) -> Plan:
    """Return the best levels found and the bound; level 0 costs nothing and is always allowed.

    Args:
        profit: [n, L] float, money that each level is expected to earn; -inf where a level may not be given.
        cost: [n, L] float >= 0, what is counted against the budget; column 0 is 0.
        budget: money, >= 0; inf: no limit.
        short: [n, L] float, what each level falls short of the margin, negative where it is above; None: no limit.
            Giving nobody anything must be within it.
    Raises:
        ConfigError: shapes or numbers that are none of these, or a margin that even giving nothing falls short of.
    """
    profit, cost = np.asarray(profit, np.float64), np.asarray(cost, np.float64)
    _check(profit, cost, budget, short)
    lacks = np.zeros_like(cost) if short is None else np.asarray(short, np.float64)
    if not len(profit):
        return Plan(np.zeros(0, np.int64), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    if short is None:
        price, dear = _price(profit, cost, budget), 0.0
    else:
        price, dear = _prices(profit, cost, budget, lacks)
    net = profit - price * cost - dear * lacks
    bound = float(net.max(1).sum()) + (price * budget if price else 0.0)
    level = _repaired(profit, cost, budget, lacks, net, price)
    if len(profit) <= _EXACT:
        level = _exact(profit, cost, budget, lacks, level)
    rows = np.arange(len(profit))
    earned, nothing = float(profit[rows, level].sum()), float(profit[:, 0].sum())
    gap = (bound - earned) / (bound - nothing) if bound - nothing > 1e-12 * max(1.0, abs(bound)) else 0.0
    return Plan(level, earned, float(cost[rows, level].sum()), bound, max(gap, 0.0), price, dear)


def _check(profit: np.ndarray, cost: np.ndarray, budget: float, short: np.ndarray | None) -> None:
    if profit.ndim != 2 or profit.shape != cost.shape or (short is not None and np.shape(short) != profit.shape):
        raise ConfigError(f"offers: profit, cost and short are [n, L], got {profit.shape}, {cost.shape}")
    if np.isnan(profit).any() or not np.isfinite(profit[:, 0]).all() or np.isposinf(profit).any():
        raise ConfigError("offers: a profit is no number; level none must have one for everybody")
    if not np.isfinite(cost).all() or (cost < 0).any() or cost[:, 0].any():
        raise ConfigError("offers: a cost must be a number of 0 or more, and level none costs nothing")
    if not budget >= 0:
        raise ConfigError(f"offers.budget: expected 0 or more, got {budget}")
    if short is not None and (not np.isfinite(short).all() or float(np.sum(np.asarray(short)[:, 0])) > 1e-9):
        raise ConfigError("offers.margin: giving nobody anything already falls short of it; lower it")


def _best(profit: np.ndarray, cost: np.ndarray, lacks: np.ndarray, a: float, b: float) -> np.ndarray:
    best: np.ndarray = (profit - a * cost - b * lacks).argmax(1)  # of equals the first, which is the cheaper
    return best


def _price(profit: np.ndarray, cost: np.ndarray, budget: float) -> float:
    """Return the smallest price of money at which the plan is affordable."""
    rows = np.arange(len(profit))

    def spent(price: float) -> float:
        return float(cost[rows, (profit - price * cost).argmax(1)].sum())

    if spent(0.0) <= budget:
        return 0.0
    paid = cost[(cost > 0) & np.isfinite(profit)]
    gain = np.where(np.isfinite(profit), profit - profit[:, [0]], 0.0).max()
    low, high = 0.0, float(max(gain, 0.0) / paid.min()) + 1.0
    for _ in range(_PASSES):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if spent(middle) > budget else (low, middle)
    return high


def _prices(profit: np.ndarray, cost: np.ndarray, budget: float, lacks: np.ndarray) -> tuple[float, float]:
    """Return the prices of money and of margin: the smallest of these at which the affordable plan keeps the margin."""
    rows = np.arange(len(profit))

    def missing(b: float) -> tuple[float, float]:
        a = _price(profit - b * lacks, cost, budget)
        return a, float(lacks[rows, _best(profit, cost, lacks, a, b)].sum())

    price, lack = missing(0.0)
    if lack <= 0:
        return price, 0.0
    low, high = 0.0, 1.0
    while missing(high)[1] > 0 and high < 1e9:
        low, high = high, high * 4
    for _ in range(_OUTER):
        middle = (low + high) / 2
        low, high = (middle, high) if missing(middle)[1] > 0 else (low, middle)
    return missing(high)[0], high


def _repaired(
    profit: np.ndarray, cost: np.ndarray, budget: float, lacks: np.ndarray, net: np.ndarray, price: float
) -> np.ndarray:
    """Return the plan at the prices, made to keep both limits, with what is left given to the best steps."""
    rows = np.arange(len(profit))
    level: np.ndarray = net.argmax(1)
    while (cost[rows, level].sum() > budget or lacks[rows, level].sum() > 1e-9) and level.any():
        # a bisection that ended between two plans, or rounding: the worst givings go back
        given = np.flatnonzero(level)
        worth = (profit[given, level[given]] - profit[given, 0]) / np.maximum(cost[given, level[given]], 1e-12)
        level[given[np.argsort(worth)[: max(1, len(given) // 100)]]] = 0
    for _ in range(4):
        money, room = budget - cost[rows, level].sum(), -lacks[rows, level].sum()
        step = profit - profit[rows, level][:, None]
        more = cost - cost[rows, level][:, None]
        less = lacks - lacks[rows, level][:, None]
        fits = (step > 0) & (more <= money) & (less <= max(room, 0.0))
        if not fits.any():
            break
        who, what = np.nonzero(fits)
        order = np.argsort(-step[who, what] / np.maximum(more[who, what], 1e-12), kind="stable")
        who, what = who[order], what[order]
        _, first = np.unique(who, return_index=True)
        first.sort()
        who, what = who[first], what[first]
        # steps that fit one after the other; what does not fit is passed over in the next rounds
        taken = (np.cumsum(np.maximum(more[who, what], 0)) <= money) & (
            np.cumsum(np.maximum(less[who, what], 0)) <= max(room, 0.0)
        )
        taken[0] = True
        level[who[taken]] = what[taken]
    return level


def _exact(profit: np.ndarray, cost: np.ndarray, budget: float, lacks: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Return the optimum of a few people, or `level` where the program is not solved."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    people, levels = profit.shape
    open_ = np.isfinite(profit)
    one = np.kron(np.eye(people), np.ones(levels))
    limits = [LinearConstraint(one, 1, 1), LinearConstraint(lacks.reshape(1, -1), -np.inf, 1e-9)]
    if np.isfinite(budget):
        limits.append(LinearConstraint(cost.reshape(1, -1), -np.inf, budget))
    gain = np.where(open_, profit - profit[:, [0]], 0.0).reshape(-1)
    found = milp(
        -gain,
        integrality=np.ones(people * levels),
        bounds=Bounds(0, open_.reshape(-1).astype(np.float64)),
        constraints=limits,
        options={"time_limit": 5.0, "mip_rel_gap": 0.0},
    )
    if not found.success:
        return level
    exact = found.x.reshape(people, levels).argmax(1)
    rows = np.arange(people)
    kept = cost[rows, exact].sum() <= budget and lacks[rows, exact].sum() <= 1e-9
    # a program within its tolerance may pass the budget by a rounding: then what is surely within it stays
    better = profit[rows, exact].sum() > profit[rows, level].sum()
    return exact if kept and better else level
