"""Estimators recover what was put in, find in real logs what was measured there, and the job names what is missing."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from rich.console import Console

from playbill.errors import WorldError
from playbill.world.build import build
from playbill.world.fitting import calibrate, complete_journey, dito, movielens, open_bandit, trivago, upworthy
from playbill.world.fitting.distances import kolmogorov_smirnov, noise_floor, total_variation, wasserstein_of_logs
from playbill.world.fitting.estimate import DATA_SETS, estimate
from playbill.world.fitting.fit import run
from playbill.world.fitting.found import Found, Sample
from playbill.world.fitting.settings import FitSettings
from playbill.world.fitting.spread import Spread, binomial_normal, log_odds_spread
from playbill.world.fitting.worlds import presets, samples
from playbill.world.overlay import overlay
from playbill.world.parameters import Parameters
from playbill.world.respond import click_probability
from playbill.world.settings import Size

SHIPPED = Path(__file__).parents[2] / "conf" / "world" / "fitted.yaml"


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


# ---- real logs: the figures measured on them, and the shipped world's numbers


@pytest.fixture(scope="module")
def shipped() -> Parameters:
    return overlay(Parameters(), SHIPPED)


def number(found: Found, name: str) -> float:
    return found.number(name)


def agrees(found: Found, shipped: Parameters) -> set[str]:
    """Check that the shipped world has this log's numbers; return their names."""
    names = set()
    for e in found.estimates:
        if e.parameter:
            room, _, field = e.parameter.partition(".")
            np.testing.assert_allclose(getattr(getattr(shipped, room), field), e.value, rtol=2e-3, atol=1e-4)
            names.add(e.parameter)
    return names


def test_upworthy(shared_data: Path, shipped: Parameters) -> None:
    found = upworthy.fit(shared_data / upworthy.DATA, 8, seed=0)
    expected = {
        "spread between packages, image differs": 0.2035,
        "spread between packages, headline differs": 0.2746,
        "spread between packages, both differs": 0.2896,
        "spread between packages, neither differs": 0.1208,
        "spread over items": 0.5783,
        "click rate": 0.01311,
    }
    assert {name: number(found, name) for name in expected} == pytest.approx(expected, rel=2e-3)
    assert agrees(found, shipped) == {"catalogue.pull_sd", "clicks.title_taste", "clicks.image_taste"}
    assert all(e.low < e.value < e.high for e in found.estimates if isinstance(e.value, float) and e.low is not None)
    weeks = upworthy.read(shared_data / upworthy.DATA)["test_week"]
    assert not weeks.is_between(*upworthy.BROKEN_WEEKS).any()


def test_open_bandit(shared_data: Path) -> None:
    found = open_bandit.fit(shared_data / open_bandit.DATA)
    expected = {
        "click rate": 130 / 30_000,
        "click rate at position 1 over position 0": 1.3106,
        "click rate at position 2 over position 0": 1.0837,
        "spread over items": 0.1792,
    }
    assert {name: number(found, name) for name in expected} == pytest.approx(expected, rel=2e-3)
    assert number(found, "spread over arms, random files alone") == 0


def test_trivago(shared_data: Path, shipped: Parameters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trivago, "DRAWS", 10)  # of the interval, which is not looked at
    found = trivago.fit(shared_data / trivago.DATA, seed=0)
    expected = {1: 0.4487, 2: 0.3645, 5: 0.1908, 11: 0.1090}
    for place, value in expected.items():
        assert number(found, f"examination of position {place}") == pytest.approx(value, rel=5e-3)
    assert agrees(found, shipped) == {"clicks.examination"}
    # the site's own order, which stands for relevance too, falls faster at every place
    curves = found.curves["examination"]
    assert (curves["confounded"][1:16] < curves["curve"][1:16]).all()


def test_dito(shared_data: Path, shipped: Parameters) -> None:
    found = dito.fit(shared_data / dito.DATA, seed=0)
    assert number(found, "log-odds of opening, middling person") == pytest.approx(-1.785, rel=2e-3)
    assert number(found, "spread of log-odds of opening over people") == pytest.approx(2.192, rel=2e-3)
    assert number(found, "how far a person's hours are from everybody's") == pytest.approx(0.763, rel=5e-3)
    assert agrees(found, shipped) == {
        "population.hours",
        "population.rhythm_concentration",
        "messages.openness_sd",
    }
    week, received = dito.read(shared_data / dito.DATA)
    assert week.sum() == 85_505
    # the repository's own total of mails received is 213,183
    assert received.sum() == pytest.approx(213_183, rel=0.04)
    assert np.argmin(week.sum((0, 1))) in (3, 4)


def test_complete_journey(shared_data: Path, shipped: Parameters) -> None:
    found = complete_journey.fit(shared_data / complete_journey.DATA, Parameters(), seed=0)
    expected = {
        "shopping trips a day": 0.17294,
        "spread of the log of trips": 1.0544,
        "spread of the log price": 0.7826,
        "redemption rate, campaigns of type A": 604 / 3647,
        "redemption rate, campaigns of type B": 154 / 2368,
        "redemption rate, campaigns of type C": 34 / 574,
    }
    assert {name: number(found, name) for name in expected} == pytest.approx(expected, rel=2e-3)
    assert len(agrees(found, shipped)) == 6


@pytest.mark.parametrize(("data", "exponent", "head", "activity"), [("ml-100k", 15.64, 0.2754, 1.217)])
def test_movielens(shared_data: Path, data: str, exponent: float, head: float, activity: float) -> None:
    found = movielens.fit(shared_data / data, data, seed=0, sets_parameters=True)
    assert number(found, "popularity exponent") == pytest.approx(exponent, rel=5e-3)
    assert number(found, "Zipf exponent of the 168 most popular") == pytest.approx(head, rel=5e-3)
    assert number(found, "spread of the log of activity") == pytest.approx(activity, rel=5e-3)
    assert number(found, "share of items that are new") == pytest.approx(0.0803, rel=1e-2)
    assert number(found, "mean stars") == pytest.approx(3.52986)


def test_the_shipped_world_gives_stars_as_movielens_does(shared_data: Path, shipped: Parameters) -> None:
    person, item, stars, _ = movielens.read(shared_data / "ml-1m", "ml-1m")
    wanted = movielens.bias_terms(person, item, stars)
    shown = calibrate.ratings(build(shipped, calibrate.SIZE, 0), 0)
    terms = movielens.bias_terms(*shown)
    for name in ("mean", "skewness", "person_sd", "rest_sd", "popularity_slope", "item_sd_beyond_popularity"):
        assert terms[name] == pytest.approx(wanted[name], abs=0.02), name
    histogram = [np.bincount(x.astype(int), minlength=6)[1:][None] for x in (stars, shown[2])]
    assert total_variation(*histogram) < 0.06
    counts = np.bincount(item)
    (exponent, offset), _ = movielens.zipf_mandelbrot(counts)
    assert shipped.catalogue.popularity_exponent == pytest.approx(exponent, rel=2e-3)
    assert shipped.catalogue.popularity_offset == pytest.approx(offset, rel=2e-3)


def test_a_fitted_world_is_nearer_to_the_logs_than_an_easy_one(
    shared_data: Path, shipped: Parameters, tmp_path: Path
) -> None:
    """The fast twin of tests/benchmarks/proof_fit.py: fewer people, a month, the aggregates that need few events."""
    found = {
        dito.DATA: dito.fit(shared_data / dito.DATA, seed=0),
        complete_journey.DATA: complete_journey.fit(shared_data / complete_journey.DATA, Parameters(), seed=0),
    }
    size = Size(people=500, items=300, days=28, activity=4.0, slate_length=4, pool=4, contexts=False)
    fitted, easy = (samples(p, found, tmp_path, 0, size) for p in (shipped, presets()["easy"]))
    for data, name, most in (
        (dito.DATA, "visits by hour", 0.07),
        (dito.DATA, "opens by hour, sent at any", 0.10),
        (dito.DATA, "opens per person", 0.05),
        (complete_journey.DATA, "visits by weekday", 0.03),
        (complete_journey.DATA, "prices", 0.10),
    ):
        sample = found[data].samples[name]
        measure = total_variation if sample.distance == "total variation" else wasserstein_of_logs
        near, far = measure(sample.values, fitted[name]), measure(sample.values, easy[name])
        assert near < most, (name, near)
        if name != "visits by weekday":  # the easy preset's weekdays are near by themselves
            assert near < far, (name, near, far)


# ---- the job


@pytest.fixture
def one_log(shared_data: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / upworthy.DATA).symlink_to(shared_data / upworthy.DATA)
    return folder


def test_a_missing_log_is_named_and_the_rest_is_fitted(
    one_log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = FitSettings(home=str(tmp_path), data=str(one_log), compare=False)
    out = run(settings)
    said = capsys.readouterr().err
    for name in DATA_SETS:
        assert (name in said.partition("nothing is fitted to it:")[2].partition("\n")[0]) == (name != upworthy.DATA)
    assert {p.name for p in out.iterdir()} == {"parameters.yaml", "fit.json", "fit.txt", "fit.png", "index.html"}
    parameters = overlay(Parameters(), out / "parameters.yaml")
    assert parameters.fitted_from == [upworthy.DATA]
    assert parameters.catalogue.pull_sd == pytest.approx(0.2896, rel=2e-3)
    assert parameters.population == Parameters().population  # no log said anything about it
    report = msgspec.json.decode((out / "fit.json").read_bytes())
    assert "population.hours" in report["assumed"] and "catalogue.pull_sd" not in report["assumed"]
    assert report["missing"] == [n for n in DATA_SETS if n != upworthy.DATA]
    assert (out / "fit.png").read_bytes()[:4] == b"\x89PNG"
    before = (out / "fit.json").stat().st_mtime_ns
    assert run(settings) == out
    assert (out / "fit.json").stat().st_mtime_ns == before and "up to date" in capsys.readouterr().err


def test_no_row_of_a_log_is_written(one_log: Path, tmp_path: Path) -> None:
    out = run(FitSettings(home=str(tmp_path), data=str(one_log), compare=False))
    packages = upworthy.read(one_log / upworthy.DATA)
    written = (out / "fit.json").read_text() + (out / "index.html").read_text()
    assert not any(headline in written for headline in packages["headline"].unique().head(300))

    def longest(value: Any) -> int:
        if isinstance(value, dict):
            return max(map(longest, value.values()), default=0)
        if isinstance(value, list) and all(isinstance(v, int | float) for v in value):
            return len(value)
        return max(map(longest, value), default=0) if isinstance(value, list) else 0

    assert longest(msgspec.json.decode((out / "fit.json").read_bytes())) <= 25


def test_no_log_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match=r"none of upworthy-exploratory, .* is in .*data=DIR"):
        estimate(tmp_path, 0, Console(file=io.StringIO()))


def test_a_folder_that_holds_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / trivago.DATA).mkdir()
    with pytest.raises(WorldError, match=r"trivago-100k does not hold the log of that name: .*sessions\.parquet"):
        estimate(tmp_path, 0)
    pl.DataFrame({"user": [1], "count": [3]}).write_parquet(tmp_path / trivago.DATA / "sessions.parquet")
    with pytest.raises(WorldError, match="trivago-100k does not hold the log of that name: .*session_id"):
        estimate(tmp_path, 0)


def test_the_report_of_a_fit_reads_back_as_parameters(one_log: Path, write_temp: Callable[[str], Path]) -> None:
    from playbill.world.fitting.report import fit_text, parameters_yaml

    found = estimate(one_log, 0)
    assert overlay(Parameters(), write_temp(parameters_yaml(found))).clicks.title_taste == pytest.approx(
        0.7768, rel=1e-3
    )
    text = fit_text(found)
    assert "Assumed, not fitted" in text and "purchases.base = -3.0" in text and "clicks.title_taste  " in text


@pytest.fixture
def write_temp(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "parameters.yaml"
        path.write_text(text)
        return path

    return write
