"""Real logs give what was measured on them, the shipped world has their numbers, and the job names what is missing."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
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
from playbill.world.fitting.distances import total_variation, wasserstein_of_logs
from playbill.world.fitting.estimate import DATA_SETS, estimate
from playbill.world.fitting.fit import run
from playbill.world.fitting.found import Found
from playbill.world.fitting.settings import FitSettings
from playbill.world.fitting.worlds import presets, samples
from playbill.world.overlay import overlay
from playbill.world.parameters import Parameters
from playbill.world.settings import Size

SHIPPED = Path(__file__).parents[2] / "conf" / "world" / "fitted.yaml"


@pytest.fixture(scope="module")
def shipped() -> Parameters:
    return overlay(Parameters(), SHIPPED)


@pytest.fixture(scope="module")
def opens(shared_data: Path) -> Found:
    return dito.fit(shared_data / dito.DATA, seed=0)


@pytest.fixture(scope="module")
def trips(shared_data: Path) -> Found:
    return complete_journey.fit(shared_data / complete_journey.DATA, Parameters(), seed=0)


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


def test_trivago(shared_data: Path, shipped: Parameters) -> None:
    found = trivago.fit(shared_data / trivago.DATA, seed=0, draws=4)  # of the interval, which is not looked at
    expected = {1: 0.4487, 2: 0.3645, 5: 0.1908, 11: 0.1090}
    for place, value in expected.items():
        assert number(found, f"examination of position {place}") == pytest.approx(value, rel=5e-3)
    assert agrees(found, shipped) == {"clicks.examination"}
    # the site's own order, which stands for relevance too, falls faster at every place
    curves = found.curves["examination"]
    assert (curves["confounded"][1:16] < curves["curve"][1:16]).all()


def test_dito(shared_data: Path, shipped: Parameters, opens: Found) -> None:
    found = opens
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


def test_complete_journey(shipped: Parameters, trips: Found) -> None:
    found = trips
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
    shipped: Parameters, opens: Found, trips: Found, tmp_path: Path
) -> None:
    """The fast twin of tests/benchmarks/proof_fit.py: fewer people, a month, the aggregates that need few events."""
    found = {dito.DATA: opens, complete_journey.DATA: trips}
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


@dataclass(slots=True)
class Ran:
    """One run of the job, on one log alone: what it read, what it left and what it said."""

    settings: FitSettings
    out: Path
    said: str


@pytest.fixture(scope="module")
def ran(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    home = tmp_path_factory.mktemp("fit")
    (home / "data").mkdir()
    (home / "data" / upworthy.DATA).symlink_to(shared_data / upworthy.DATA)
    settings = FitSettings(home=str(home), data=str(home / "data"), compare=False)
    with contextlib.redirect_stderr(io.StringIO()) as said:
        out = run(settings)
    return Ran(settings, out, said.getvalue())


def test_a_missing_log_is_named_and_the_rest_is_fitted(ran: Ran) -> None:
    named = ran.said.partition("nothing is fitted to it:")[2].partition("\n")[0]
    for name in DATA_SETS:
        assert (name in named) == (name != upworthy.DATA)
    assert {p.name for p in ran.out.iterdir()} == {"parameters.yaml", "fit.json", "fit.txt", "fit.png", "index.html"}
    parameters = overlay(Parameters(), ran.out / "parameters.yaml")
    assert parameters.fitted_from == [upworthy.DATA]
    assert parameters.catalogue.pull_sd == pytest.approx(0.2896, rel=2e-3)
    assert parameters.clicks.title_taste == pytest.approx(0.7768, rel=1e-3)
    assert parameters.population == Parameters().population  # no log said anything about it
    report = msgspec.json.decode((ran.out / "fit.json").read_bytes())
    assert "population.hours" in report["assumed"] and "catalogue.pull_sd" not in report["assumed"]
    assert report["missing"] == [n for n in DATA_SETS if n != upworthy.DATA]
    assert (ran.out / "fit.png").read_bytes()[:4] == b"\x89PNG"
    text = (ran.out / "fit.txt").read_text()
    assert "Assumed, not fitted" in text and "purchases.base = -3.0" in text and "clicks.title_taste  " in text


def test_a_fit_of_the_same_logs_is_not_made_again(ran: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    before = (ran.out / "fit.json").stat().st_mtime_ns
    assert run(ran.settings) == ran.out
    assert (ran.out / "fit.json").stat().st_mtime_ns == before and "up to date" in capsys.readouterr().err


def test_no_row_of_a_log_is_written(ran: Ran, shared_data: Path) -> None:
    packages = upworthy.read(shared_data / upworthy.DATA)
    written = (ran.out / "fit.json").read_text() + (ran.out / "index.html").read_text()
    assert not any(headline in written for headline in packages["headline"].unique().head(300))

    def longest(value: Any) -> int:
        if isinstance(value, dict):
            return max(map(longest, value.values()), default=0)
        if isinstance(value, list) and all(isinstance(v, int | float) for v in value):
            return len(value)
        return max(map(longest, value), default=0) if isinstance(value, list) else 0

    assert longest(msgspec.json.decode((ran.out / "fit.json").read_bytes())) <= 25


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
