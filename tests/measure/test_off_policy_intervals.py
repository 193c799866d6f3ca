"""Intervals against a loop over the same draws, by hand, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest

from playbill.errors import MeasureError
from playbill.measure.off_policy.estimators import (
    Contributions,
    Prediction,
    difference,
    dr,
    ips,
    mean_of,
    on_policy,
    snips,
)
from playbill.measure.off_policy.intervals import (
    betting_bound,
    bootstrap_interval,
    bootstrap_intervals,
    empirical_bernstein,
    told_loss,
    value_bound,
)
from playbill.measure.off_policy.log import Choices, Log


def skewed_log(seed: int, n: int, *, rate: float = 0.1, distributions: bool = True) -> tuple[Log, float]:
    """Return a log over three contexts and four actions, and the target's exact value."""
    logging = np.array([[0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25], [0.05, 0.15, 0.3, 0.5]])
    target = np.array([[0.1, 0.1, 0.1, 0.7], [0.4, 0.2, 0.2, 0.2], [0.3, 0.3, 0.2, 0.2]])
    click = rate * np.array([[1.0, 2.0, 0.5, 2.0], [0.5, 1.0, 1.5, 2.0], [2.0, 1.0, 1.0, 0.5]])
    rng = np.random.default_rng(seed)
    context = rng.integers(3, size=n)
    action = (rng.random(n)[:, None] > logging.cumsum(1)[context]).sum(1).clip(max=3)
    log = Log(
        reward=rng.random(n) < click[context, action],
        propensity=logging[context, action],
        target=target[context, action],
        action=action,
        unit=np.arange(n) // 2,
        choices=Choices(
            first=np.arange(n + 1) * 4,
            action=np.tile(np.arange(4), n),
            target=target[context].ravel(),
            logging=logging[context].ravel(),
            chosen=np.arange(n) * 4 + action,
        )
        if distributions
        else None,
    )
    return log, float((target * click).sum(1).mean())


def slow_interval(one: Contributions, unit: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """Return the studentised interval of a ratio of sums, unit by unit and resample by resample."""
    units = int(unit.max()) + 1
    above = np.array([one.numerator[unit == u, 0].sum() for u in range(units)])
    below = np.array([one.denominator[unit == u, 0].sum() for u in range(units)])

    def estimate_and_error(rows: np.ndarray) -> tuple[float, float]:
        ratio = above[rows].sum() / below[rows].sum()
        residual = (above[rows] - ratio * below[rows]) / below[rows].mean()
        return float(ratio), float(np.sqrt((residual**2).mean() / units))

    value, error = estimate_and_error(np.arange(units))
    draws = np.random.default_rng(seed).integers(units, size=(resamples, units))
    scaled = []
    for rows in draws:
        drawn, own = estimate_and_error(rows)
        scaled.append((drawn - value) / own)
    scaled.sort()
    # the smallest of R values with at least 2.5 % (97.5 %) of them at or below it
    low, high = scaled[int(np.ceil(0.025 * resamples)) - 1], scaled[int(np.ceil(0.975 * resamples)) - 1]
    return value - high * error, value - low * error


@pytest.mark.parametrize("make", [ips, snips, on_policy])
def test_equals_a_loop_over_the_same_draws(make: object) -> None:
    assert callable(make)
    log, _ = skewed_log(3, 60, rate=0.4)
    assert log.unit is not None
    found = bootstrap_interval(make(log), log.unit, resamples=200, seed=5)
    assert (found.low, found.high) == pytest.approx(slow_interval(make(log), log.unit, 200, 5), rel=1e-9)
    assert found.units == 30


def test_several_at_once_are_the_same_as_one_by_one() -> None:
    log, _ = skewed_log(4, 200)
    assert log.unit is not None
    several = [ips(log), snips(log), difference(snips(log), on_policy(log))]
    together = bootstrap_intervals(several, log.unit, resamples=200, seed=1)
    for one, found in zip(several, together, strict=True):
        alone = bootstrap_interval(one, log.unit, resamples=200, seed=1)
        assert (alone.low, alone.high) == pytest.approx((found.low, found.high), rel=1e-12)


def test_a_large_log_gives_the_normal_interval_and_people_count_not_rounds() -> None:
    values = np.random.default_rng(0).random(1500)
    found = bootstrap_interval(mean_of("x", values), np.arange(1500), resamples=3000)
    half = 1.96 * values.std() / np.sqrt(1500)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)
    # each person four times over is no more than each person once
    again = bootstrap_interval(mean_of("x", np.repeat(values, 4)), np.repeat(np.arange(1500), 4), resamples=3000)
    assert (again.low, again.high) == pytest.approx((found.low, found.high), rel=1e-9)


def test_a_paired_difference_is_sharper_than_two_intervals() -> None:
    log, _ = skewed_log(8, 3000)
    assert log.unit is not None
    near = Log(
        reward=log.reward,
        propensity=log.propensity,
        target=log.target * np.where(log.action == 0, 1.02, 0.99),  # a policy that is nearly the same
        action=log.action,
        unit=log.unit,
    )
    first, second = bootstrap_intervals([ips(log), ips(near)], log.unit)
    apart = bootstrap_interval(difference(ips(near), ips(log)), log.unit)
    assert apart.value == pytest.approx(second.value - first.value)
    assert apart.high - apart.low < 0.1 * (first.high - first.low)


def test_without_spread_there_is_no_interval() -> None:
    log, _ = skewed_log(1, 40)
    assert log.unit is not None
    nothing = bootstrap_interval(mean_of("x", np.zeros(40)), log.unit)
    assert (nothing.value, nothing.low, nothing.high) == (0.0, -np.inf, np.inf)
    # one reward among twenty people: 36 % of resamples have none, so nothing is known above
    once = np.zeros(40)
    once[7] = 1.0
    assert bootstrap_interval(mean_of("x", once), log.unit).high == np.inf


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Binomial tolerance: of 200 logs of true coverage 0.95, 0.90 to 0.99 hold with probability 0.998."""
    held = {"IPS": 0, "SNIPS": 0, "DR": 0}
    above = {"IPS": 0, "SNIPS": 0, "DR": 0}
    for seed in range(200):
        log, truth = skewed_log(seed, 600)
        choices, unit = log.choices, log.unit
        assert choices is not None and unit is not None
        q = np.array([0.1, 0.1, 0.12, 0.15])  # a model that is wrong
        prediction = Prediction(q[log.action], choices.sums(choices.target * q[choices.action]))
        several = [ips(log), snips(log), dr(log, prediction)]
        for one, found in zip(several, bootstrap_intervals(several, unit, resamples=250, seed=seed), strict=True):
            held[one.name] += found.low <= truth <= found.high
            above[one.name] += truth > found.high
    for name in held:
        assert 0.90 <= held[name] / 200 <= 0.99, held
        assert above[name] / 200 <= 0.06, above  # 0.025 and three standard errors


def test_one_bet_by_hand() -> None:
    """One unit that brought all it could, level 0.5: the goal is 2 / 0.5 = 4, and at most 3/4 of the capital is staked.

    Against m the capital becomes 1 + 0.75 / m x (1 - m) = 0.25 + 0.75 / m, which is 4 at m = 0.2. Betting on less than
    m loses the stake, so there is no limit above.
    """
    found = betting_bound(np.array([1.0]), np.array([1.0]), largest=1, most=1, level=0.5)
    assert (found.low, found.high) == pytest.approx((0.2, 1.0))
    mirrored = betting_bound(np.array([0.0]), np.array([1.0]), largest=1, most=1, level=0.5)
    assert (mirrored.low, mirrored.high) == pytest.approx((0.0, 0.8))
    # the same unit with rewards up to 10, and where nothing is known of their size
    tenfold = betting_bound(np.array([10.0]), np.array([1.0]), largest=10, most=1, level=0.5)
    assert (tenfold.low, tenfold.high) == pytest.approx((2.0, 10.0))
    unknown = betting_bound(np.array([1.0]), np.array([1.0]), largest=np.inf, most=1, level=0.5)
    assert unknown.low == pytest.approx(0.2) and unknown.high == np.inf


def test_empirical_bernstein_by_hand() -> None:
    # 500 zeros and 500 ones: variance 0.25 x 1000 / 999 = 0.2502503, ln(4 / 0.05) = 4.3820266
    # sqrt(2 x 0.2502503 x 4.3820266 / 1000) = 0.0468321, 7 x 4.3820266 / (3 x 999) = 0.0102349
    found = empirical_bernstein(np.tile([0.0, 1.0], 500), low=0, high=1)
    assert (found.low, found.high) == pytest.approx((0.5 - 0.0570670, 0.5 + 0.0570670), abs=1e-6)


@pytest.mark.parametrize("n", [6, 40, 300])
@pytest.mark.parametrize("distributions", [True, False])
def test_the_bound_holds_at_any_size(n: int, distributions: bool) -> None:
    """At n = 6 no normal approximation holds; of 100 logs at level 0.8, more than 30 misses have probability 0.006."""
    missed = 0
    for seed in range(100):
        log, truth = skewed_log(seed, n, distributions=distributions)
        found = value_bound(log, most=2, level=0.8)
        assert 0 <= found.low <= found.high <= 1
        missed += not found.low <= truth <= found.high
    assert missed <= 30


def test_few_who_come_often_are_held_by_what_is_declared_and_not_by_what_was_seen() -> None:
    """One in a hundred comes 60 times and clicks half of the time, the others once and hardly ever.

    In a third of the logs nobody of these few came: every unit has one round, and a bound that believes it misses.
    """
    truth = (0.01 * 60 * 0.5 + 0.99 * 0.02) / (0.01 * 60 + 0.99)
    missed = {"declared": 0, "seen": 0}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        often = rng.random(100) < 0.01
        unit = np.repeat(np.arange(100), np.where(often, 60, 1))
        action = rng.integers(2, size=len(unit))
        clicked = rng.random(len(unit)) < np.where(often, 0.5, 0.02)[unit]
        target = np.where(action == 1, 0.8, 0.2)
        log = Log(reward=clicked, propensity=np.full(len(unit), 0.5), target=target, action=action, unit=unit)
        for name, most in (("declared", 60), ("seen", np.bincount(unit).max())):
            found = value_bound(log, most=most, largest_weight=1.6)
            missed[name] += not found.low <= truth <= found.high
    assert missed["declared"] <= 5 and missed["seen"] >= 25, missed


def test_betting_is_sharper_than_empirical_bernstein_and_narrows_with_the_log() -> None:
    log, truth = skewed_log(0, 4000)
    alone = Log(reward=log.reward, propensity=log.propensity, target=log.target, action=log.action, choices=log.choices)
    bet = value_bound(alone, most=1)
    largest = alone.largest_weight()
    assert largest == pytest.approx(7.0)
    bernstein = empirical_bernstein(ips(alone).numerator[:, 0], low=0, high=largest)
    assert bet.high - bet.low < 0.85 * (bernstein.high - bernstein.low)
    small, _ = skewed_log(0, 400)
    few = value_bound(small, most=2)
    assert few.low < bet.low <= truth <= bet.high < few.high


def test_rewards_of_another_range_move_the_bound() -> None:
    log, _ = skewed_log(2, 300)
    moved = Log(
        reward=log.reward * 4 - 3,
        propensity=log.propensity,
        target=log.target,
        action=log.action,
        unit=log.unit,
        choices=log.choices,
        reward_low=-3,
        reward_high=1,
    )
    plain, wide = value_bound(log, most=2), value_bound(moved, most=2)
    assert (wide.low, wide.high) == pytest.approx((plain.low * 4 - 3, plain.high * 4 - 3))


def test_refuses() -> None:
    log, _ = skewed_log(2, 300)
    with pytest.raises(MeasureError, match="a weight of 7, above the largest possible 2"):
        value_bound(log, most=2, largest_weight=2.0)
    with pytest.raises(MeasureError, match="needs the range of rewards"):
        value_bound(Log(reward=[1.0], propensity=[1.0], target=[1.0], action=[0], reward_high=np.inf), most=1)
    with pytest.raises(MeasureError, match="a unit of 2 decisions, above the declared most of 1"):
        value_bound(log, most=1)
    with pytest.raises(MeasureError, match="at least two independent units, the log has 1"):
        bootstrap_interval(mean_of("x", np.ones(3)), np.zeros(3, np.int64))
    with pytest.raises(MeasureError, match=r"level must lie between 0 and 1, got 1\.5"):
        bootstrap_interval(mean_of("x", np.arange(3.0)), np.arange(3), level=1.5)
    with pytest.raises(MeasureError, match="total must lie in"):
        betting_bound(np.array([3.0]), np.array([1.0]), largest=2, most=1)
    with pytest.raises(MeasureError, match="size must lie in"):
        betting_bound(np.array([1.0]), np.array([2.0]), largest=2, most=1)
    with pytest.raises(MeasureError, match="two or more values"):
        empirical_bernstein(np.array([0.5]), low=0, high=1)


def test_told_loss_is_told_nine_times_in_ten() -> None:
    unit = np.arange(400)

    def gained(seed: int, loss: float) -> Contributions:
        # skewed a little to the left: few decisions of the other policy bring much
        return mean_of("difference", 2.0 - loss - np.random.default_rng(seed).gamma(4.0, 0.5, len(unit)))

    losses = [told_loss(bootstrap_interval(gained(seed, 0.0), unit, resamples=400)) for seed in range(20)]
    assert None not in losses
    loss = float(np.mean(np.asarray(losses, np.float64)))
    # 3.24 standard errors, were nothing skewed
    assert 3.0 < loss / (1 / np.sqrt(len(unit))) < 3.6
    found = [bootstrap_interval(gained(seed, loss), unit, resamples=400).high < 0 for seed in range(100, 400)]
    assert 0.86 < np.mean(found) < 0.96  # here 0.897
    assert told_loss(bootstrap_interval(mean_of("all alike", np.ones(9)), np.arange(9), resamples=200)) is None
