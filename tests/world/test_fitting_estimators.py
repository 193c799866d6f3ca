"""The estimators of `playbill fit` recover what was put in, on logs whose truth is known; distances by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from playbill.world.build import build
from playbill.world.fitting import calibrate, complete_journey, dito, movielens, trivago
from playbill.world.fitting.distances import kolmogorov_smirnov, noise_floor, total_variation, wasserstein_of_logs
from playbill.world.fitting.found import Sample
from playbill.world.fitting.spread import Spread, binomial_normal, log_odds_spread
from playbill.world.parameters import Parameters
from playbill.world.respond import click_probability


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def error_of(spread: Spread) -> float:
    return (spread.high - spread.low) / (2 * 1.96)


# ---- the estimators, on logs whose truth is known


@pytest.mark.parametrize("tests", [40, 400])
@pytest.mark.parametrize("true", [0.15, 0.4])
def test_the_spread_within_tests_is_recovered(tests: int, true: float) -> None:
    rng = np.random.default_rng(tests)
    test = np.repeat(np.arange(tests), 5)
    log_odds = rng.normal(-4.3, 0.5, tests)[test] + true * rng.normal(size=len(test))
    shown = rng.integers(2500, 4500, len(test))
    found = log_odds_spread(rng.binomial(shown, sigmoid(log_odds)), shown, test)
    assert abs(found.sd - true) < 3 * error_of(found)
    assert error_of(found) < 0.05
    assert (found.units, found.groups) == (len(test), tests)


def test_no_spread_is_found_where_only_chance_differs() -> None:
    rng = np.random.default_rng(3)
    test = np.repeat(np.arange(300), 4)
    shown = np.full(len(test), 4000)
    found = log_odds_spread(rng.binomial(shown, 0.02), shown, test)
    assert found.sd < 0.06 and found.excess == pytest.approx(1, abs=0.12)


def few_tests(true: float, clicks: int, seed: int) -> Spread:
    """100 tests of 4 packages, at a click rate of 1.8 %."""
    rng = np.random.default_rng(seed)
    test = np.repeat(np.arange(100), 4)
    shown = np.full(len(test), round(clicks / 0.018))
    return log_odds_spread(rng.binomial(shown, sigmoid(-4 + true * rng.normal(size=len(test)))), shown, test, seed)


def test_the_interval_of_a_small_spread_reaches_as_far_as_the_log_allows() -> None:
    """Where a log's estimate is 0 or nearly so, its interval still holds what may be there: 95 % of them ought to."""
    found = [few_tests(0.05, 80, seed) for seed in range(100)]
    assert np.mean([f.low <= 0.05 <= f.high for f in found]) >= 0.9
    assert all(f.high > 0.02 for f in found)
    nothing = [few_tests(0.0, 80, seed) for seed in range(40)]
    none = [f for f in nothing if f.sd == 0]
    assert len(none) >= 10 and all(f.low == 0 for f in none) and np.median([f.high for f in none]) > 0.02


@pytest.mark.parametrize("true", [0.0, 0.3, 0.8])
def test_the_spread_over_arms_with_few_clicks_is_recovered(true: float) -> None:
    """12 clicks an arm: too few for the log-odds of single arms, enough for their likelihood."""
    rng = np.random.default_rng(5)
    group = np.repeat([0, 1, 2], 60)
    log_odds = np.array([-5.4, -5.0, -4.6])[group] + true * rng.normal(size=len(group))
    shown = np.full(len(group), 2000)
    found = binomial_normal(rng.binomial(shown, sigmoid(log_odds)), shown, group)
    assert found.low <= true + 1e-9 and found.high >= true
    assert abs(found.sd - true) < 0.15


def lists(curve: np.ndarray, price: float, count: int) -> trivago.Lists:
    rng = np.random.default_rng(2)
    length = rng.integers(22, 26, count)
    rows = int(length.sum())
    of_list = np.repeat(np.arange(count), length)
    place = np.arange(rows) - (np.cumsum(length) - length)[of_list]
    hotel = rng.integers(0, rows // 3, rows)
    log_price = rng.normal(0, 0.5, rows)
    log_price -= (np.bincount(of_list, log_price) / length)[of_list]
    own = rng.normal(0, trivago.HOTEL_SD, rows)
    score = np.log(curve[place]) + price * log_price + own[hotel] + rng.gumbel(size=rows)
    start = np.cumsum(length) - length
    clicked = np.array([int(np.argmax(score[a : a + n])) for a, n in zip(start, length, strict=True)])
    return trivago.Lists(length, clicked, hotel, log_price)


def test_the_examination_curve_is_recovered() -> None:
    true = np.exp(-0.12 * np.arange(trivago.PLACES))
    data = lists(true, -0.8, 4000)
    raw, price = trivago.examination(data)
    curve = trivago.monotone(raw, np.bincount(data.clicked, minlength=trivago.PLACES))
    assert price == pytest.approx(-0.8, abs=0.15)
    # a place that was clicked n times has a log curve with an error of about 1 / sqrt(n), the first place's besides
    clicks = np.bincount(data.clicked, minlength=trivago.PLACES)
    assert clicks.min() >= 5
    error = np.sqrt(1 / clicks + 1 / clicks[0])
    assert (np.abs(np.log(raw) - np.log(true))[1:] < 3.5 * error[1:]).all()
    assert (np.diff(curve) <= 0).all() and curve[0] == 1


def test_lists_can_be_drawn_again() -> None:
    data = lists(np.ones(trivago.PLACES), 0.0, 6)
    again = data.take(np.array([4, 0, 4]))
    start = np.cumsum(data.length) - data.length
    wanted = np.concatenate([data.hotel[start[k] : start[k] + data.length[k]] for k in (4, 0, 4)])
    np.testing.assert_array_equal(again.hotel, wanted)
    np.testing.assert_array_equal(again.length, data.length[[4, 0, 4]])


def test_a_rising_place_is_pooled_with_its_neighbour() -> None:
    """Logs 0, -1, -0.5 with alike weights: the last two become their mean, -0.75."""
    found = trivago.monotone(np.exp([0.0, -1.0, -0.5]), np.array([9, 9, 9]))
    np.testing.assert_allclose(np.log(found), [0, -0.75, -0.75])


def weeks(concentration: float, people: int, opens: int) -> np.ndarray:
    rng = np.random.default_rng(4)
    hours = np.array([0.2] * 7 + [1.3] * 17)
    clock = 2 * np.pi * np.arange(24) / 24
    shares = hours * np.exp(concentration * np.cos(clock - rng.uniform(0, 2 * np.pi, people)[:, None]))
    shares = np.repeat(shares[:, None], 7, 1).reshape(people, 168)
    return rng.multinomial(opens, shares / shares.sum(1, keepdims=True)).reshape(people, 7, 24)


@pytest.mark.parametrize("true", [0.0, 0.8])
def test_the_concentration_of_personal_hours_is_recovered(true: float) -> None:
    week = weeks(true, 4000, 8)
    excess, draws = dito.coincidence(week, 0, draws=60)
    hours = week.sum((0, 1)) / week.sum() * 24
    # one favourite hour for the whole week here: what pairs of any two days share
    wanted = (dito._bent(true, hours) ** 2).sum(1).mean() / (dito._bent(true, hours).mean(0) ** 2).sum() - 1
    assert abs(excess - wanted) < 3 * draws.std() + 0.01


def test_an_excess_is_that_of_its_concentration() -> None:
    hours, weekdays = np.array([0.2] * 7 + [1.3] * 17), np.ones(7)
    assert dito.rhythm_excess(0.0, hours, weekdays) == pytest.approx(0, abs=1e-12)
    excess = dito.rhythm_excess(0.9, hours, weekdays)
    assert excess > 0.05
    assert dito._concentration(excess, hours, weekdays) == pytest.approx(0.9, abs=1e-6)


def test_openness_is_recovered_from_who_opened_nothing() -> None:
    rng = np.random.default_rng(6)
    received = rng.integers(1, 25, 20_000)
    opens = rng.binomial(received, sigmoid(-1.5 + 1.8 * rng.normal(size=len(received))))
    mean, sd, mean_margin, sd_margin = dito.opening(opens, received)
    assert abs(mean + 1.5) < 1.5 * mean_margin and abs(sd - 1.8) < 1.5 * sd_margin  # three standard errors
    assert sd_margin < 0.25
    again = dito.opening(opens * 3, received)  # mails opened again and again say nothing new
    assert again == pytest.approx((mean, sd, mean_margin, sd_margin))


def test_the_spread_of_activity_is_recovered() -> None:
    rng = np.random.default_rng(7)
    counts = rng.poisson(np.exp(1.2 + 0.9 * rng.normal(size=4000)))
    sd, margin = complete_journey.poisson_lognormal(counts[counts > 0])
    assert abs(sd - 0.9) < 1.5 * margin and margin < 0.1
    counts = np.floor(np.exp(4 + 1.1 * rng.normal(size=5000))).astype(int)
    sd, margin = movielens.truncated_spread(counts[counts >= 20], 20)
    assert abs(sd - 1.1) < 1.5 * margin and margin < 0.1


def test_redemption_is_recovered_beyond_the_kinds() -> None:
    rng = np.random.default_rng(8)
    shares, bases = np.array([0.4, 0.6]), np.array([1.0, -1.0])
    campaigns = rng.integers(2, 10, 6000)
    kind = rng.choice(2, 6000, p=shares)
    redeemed = rng.binomial(campaigns, sigmoid(-1.5 + bases[kind] + 0.8 * rng.normal(size=6000)))
    base, sd, margin = complete_journey.redemption(campaigns, redeemed, shares, bases)
    assert base == pytest.approx(-1.5, abs=0.1)
    assert abs(sd - 0.8) < 1.5 * margin and margin < 0.2
    rate = (sigmoid(-1.5 + bases[:, None] + 0.8 * rng.normal(size=200_000)).mean(1) * shares).sum()
    assert complete_journey.mean_log_odds(rate, shares, bases, 0.8) == pytest.approx(-1.5, abs=0.01)


def test_popularity_curves_are_recovered() -> None:
    rng = np.random.default_rng(9)
    rank = np.arange(1, 1001)
    share = (rank + 0.3 * 1000) ** -2.5
    counts = rng.multinomial(200_000, share / share.sum())
    (exponent, offset), (exponent_margin, offset_margin) = movielens.zipf_mandelbrot(counts)
    assert abs(exponent - 2.5) < 1.5 * exponent_margin + 0.2 and abs(offset - 0.3) < 1.5 * offset_margin + 0.05
    zipf = rng.multinomial(500_000, rank**-0.8 / (rank**-0.8).sum())
    head, margin = movielens.zipf_head(zipf, 100)
    assert abs(head - 0.8) < 1.5 * margin


@pytest.mark.parametrize("true", [0.1, 0.5])
def test_the_share_of_new_items_is_recovered(true: float) -> None:
    rng = np.random.default_rng(10)
    counts = rng.integers(20, 400, 3000)
    start = np.where(rng.random(3000) < true, rng.random(3000), 0.0)
    first = start + (1 - start) * (1 - rng.random(3000) ** (1 / counts))  # the least of `counts` even draws
    found, margin = movielens.new_share(first, counts)
    assert abs(found - true) < 1.5 * margin and margin < 0.03


def test_the_parts_of_stars_are_recovered() -> None:
    rng = np.random.default_rng(11)
    person, item = rng.integers(0, 800, 60_000), rng.choice(500, 60_000, p=np.arange(1, 501) / 125_250)
    stars = 3.5 + 0.4 * rng.normal(size=800)[person] + 0.6 * rng.normal(size=500)[item] + 0.9 * rng.normal(size=60_000)
    _, item = np.unique(item, return_inverse=True)
    found = movielens.bias_terms(person, item, stars)
    assert found["person_sd"] == pytest.approx(0.4, abs=3 * 0.4 / np.sqrt(2 * 800))
    assert found["item_sd"] == pytest.approx(0.6, abs=3 * 0.6 / np.sqrt(2 * 500))
    assert found["rest_sd"] == pytest.approx(0.9, abs=0.01)
    popularity = np.linspace(-1, 1, int(item.max()) + 1)
    raised = movielens.bias_terms(person, item, stars + 0.5 * popularity[item], popularity)
    level = movielens.bias_terms(person, item, stars, popularity)
    assert raised["popularity_slope"] - level["popularity_slope"] == pytest.approx(0.5 * popularity.std(), abs=0.005)


# ---- distances


def test_distances_by_hand() -> None:
    assert total_variation(np.array([[2, 0], [0, 2]]), np.array([[4, 0], [0, 0]])) == 0.5
    assert total_variation(np.array([[1, 1, 9]]), np.array([[1, 3]])) == 0.25  # the third bin is the first's alone
    assert kolmogorov_smirnov(np.array([1.0, 2, 3, 4]), np.array([3.0, 4, 5, 6])) == 0.5
    some = np.array([0.5, 1.5, 4.25])
    assert wasserstein_of_logs(some, 7 * some) == pytest.approx(0, abs=1e-12)
    # means 1.5 and 2.5; logs less them: -0.405, 0.288 beside -0.916, 0.470
    expected = (abs(np.log(2 / 3) - np.log(0.4)) + abs(np.log(4 / 3) - np.log(1.6))) / 2
    assert wasserstein_of_logs(np.array([1.01, 2.02]), np.array([1.01, 4.04])) == pytest.approx(expected)


def test_a_longer_log_is_no_distance() -> None:
    rng = np.random.default_rng(12)
    mean = np.exp(rng.normal(size=6000))
    long, short = rng.poisson(20 * mean).astype(float), rng.poisson(2 * mean).astype(float)
    assert wasserstein_of_logs(long, short) < 0.04
    plain = np.abs(np.log(np.quantile(long / long.mean(), 0.1)) - np.log(np.quantile(short[short > 0] / 2, 0.1)))
    assert plain > 0.4
    assert noise_floor(Sample(values=long, distance="wasserstein of logs", about=""), 0) < 0.05


# ---- numbers that only the world gives


def test_the_world_is_clicked_as_often_as_asked() -> None:
    found = calibrate.click_base(Parameters(), 0.0075, 3, seed=1)
    world = build(calibrate.changed(Parameters(), {"clicks.base": found.value}), calibrate.SIZE, seed=1)
    rng = np.random.default_rng(99)
    person, creative = rng.integers(0, 2000, 90_000), rng.integers(0, len(world.creatives.item), 90_000)
    hour = rng.choice(24, 90_000, p=np.array(Parameters().population.hours) / np.sum(Parameters().population.hours))
    device = rng.choice(3, 90_000, p=[0.6, 0.3, 0.1])
    place = np.arange(90_000) % 3
    rate = click_probability(world, person, world.creatives.item[creative], creative, place, hour, device, 0).mean()
    assert rate == pytest.approx(0.0075, rel=0.03)


def test_changed_refuses_a_name_that_is_not_there() -> None:
    before = Parameters()
    after = calibrate.changed(before, {"clicks.base": -5.0, "messages.openness_sd": np.float64(2)})
    assert (after.clicks.base, after.messages.openness_sd, before.clicks.base) == (-5.0, 2.0, Parameters().clicks.base)
    with pytest.raises(AssertionError, match="clicks.bse"):
        calibrate.changed(before, {"clicks.bse": 1.0})
