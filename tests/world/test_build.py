"""A built world is what its parameters say: unit vectors, shares, spreads, orders, and nothing that depends on luck."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pytest
from scipy import stats

from playbill.cli import compose
from playbill.errors import ConfigError, WorldError
from playbill.world import words
from playbill.world.build import World, build, items_there
from playbill.world.fitting.calibrate import ratings
from playbill.world.parameters import Catalogue, Messages, Parameters, Population, Switches
from playbill.world.people import AGE_BANDS, ZONES
from playbill.world.respond import completion_mean
from playbill.world.settings import Size, first_weekday, start_us

PEOPLE = 40_000


@pytest.fixture(scope="module")
def world() -> World:
    return build(Parameters(), Size(people=PEOPLE, items=5000, days=100), seed=5)


def arrays(world: Any, name: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yield every array below a world with its name."""
    for f in dataclasses.fields(world):
        value = getattr(world, f.name)
        if isinstance(value, np.ndarray):
            yield name + f.name, value
        elif isinstance(value, dict):
            yield from ((f"{name}{f.name}.{k}", v) for k, v in value.items() if isinstance(v, np.ndarray))
        elif dataclasses.is_dataclass(value):
            yield from arrays(value, f"{name}{f.name}.")


def lengths(vectors: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.linalg.norm(vectors.astype(np.float64), axis=-1)
    return result


def test_the_same_seed_builds_the_same_bits_and_another_seed_others() -> None:
    size = Size(people=500, items=200)
    first, again, other = (dict(arrays(build(Parameters(), size, seed))) for seed in (1, 1, 2))
    for name, array in first.items():
        assert array.dtype == again[name].dtype and array.tobytes() == again[name].tobytes(), name
    assert not np.array_equal(first["people.taste"], other["people.taste"])
    assert not np.array_equal(first["items.price"], other["items.price"])


def test_more_people_leave_the_others_as_they_are() -> None:
    small, large = (build(Parameters(), Size(people=n, items=100), 1).people for n in (200, 300))
    np.testing.assert_array_equal(small.taste, large.taste[:200])
    np.testing.assert_array_equal(small.kind, large.kind[:200])


def test_vectors_have_length_one_and_turns_stand_at_right_angles(world: World) -> None:
    for vectors in (
        *(world.people.taste, world.people.turn, world.items.aspects, world.creatives.title, world.creatives.image),
        *(world.subjects.title, world.heroes.image),
    ):
        np.testing.assert_allclose(lengths(vectors), 1, atol=1e-6)
        assert vectors.dtype == np.float32
    assert np.abs(np.einsum("pd,pd->p", world.people.taste, world.people.turn)).max() < 1e-6


def test_people_are_as_the_parameters_say(world: World) -> None:
    people, p = world.people, world.parameters
    shares = {
        "anonymous": (people.anonymous.mean(), p.population.anonymous_share),
        "machine": (people.machine.mean(), p.messages.machine_share),
        "declared": (np.mean(people.declared_segment != people.segment), p.population.segment_error),
        "group": (people.group.mean(), 0.5),
    }
    shares |= {name: (np.mean(people.kind == k), p.purchases.kinds[name]) for k, name in enumerate(p.purchases.kinds)}
    shares |= {
        name: (given[~people.anonymous].mean(), p.population.consent_share[name])
        for name, given in people.consent.items()
    }
    zones = p.population.timezones
    shares |= {z: (np.mean(people.timezone == k), zones[z] / sum(zones.values())) for k, z in enumerate(zones)}
    for name, (got, expected) in shares.items():
        assert abs(got - expected) < 4.5 * np.sqrt(expected * (1 - expected) / 25_000), name
    log_visits = np.log(people.visits_per_day)
    assert log_visits.std() == pytest.approx(p.population.activity_sd, rel=0.02)
    assert people.visits_per_day.mean() == pytest.approx(p.population.activity_mean, rel=0.05)
    assert people.price_sensitivity.min() >= 0
    assert people.leniency.mean() == pytest.approx(p.outcomes.leniency_mean, abs=0.01)
    np.testing.assert_allclose(people.device_share.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.median(people.device_share, axis=0), [0.6, 0.3, 0.1], atol=0.08)


def test_anonymous_people_cannot_be_reached_and_agreed_to_nothing(world: World) -> None:
    nobody = world.people.anonymous
    assert not world.people.contactable[nobody].any()
    assert not any(given[nobody].any() for given in world.people.consent.values())


def test_protected_columns_are_independent_of_everything(world: World) -> None:
    people = world.people
    for column, count in ((people.group, 2), (people.age_band, len(AGE_BANDS))):
        for other in (people.segment, people.kind, people.anonymous.astype(int), people.timezone):
            table = np.zeros((count, int(other.max()) + 1))
            np.add.at(table, (column, other), 1)
            assert stats.chi2_contingency(table).pvalue > 1e-4
        means = [[vectors[column == k].mean(axis=0) for vectors in (people.taste,)] for k in range(count)]
        assert np.ptp(means, axis=0).max() < 0.04


def test_tastes_scatter_around_segments() -> None:
    equal = build(Parameters(population=Population(taste_spread=0)), Size(people=300), 1).people
    for segment in np.unique(equal.segment):
        assert np.ptp(equal.taste[equal.segment == segment], axis=0).max() == 0
    wide = build(Parameters(population=Population(taste_spread=3)), Size(people=300), 1).people
    within = [np.linalg.norm(wide.taste[wide.segment == s].mean(axis=0)) for s in np.unique(wide.segment)]
    assert np.mean(within) < 0.6


def test_the_declared_favourite_is_the_nearest_category_mostly(world: World) -> None:
    """Items of a person's favourite category lie nearer to the person's taste than others do."""
    people, items = world.people, world.items
    centres = np.stack([items.aspects[items.category == c].mean(axis=0) for c in range(20)])
    nearest = np.argmax(people.taste @ centres.T, axis=1)
    right = np.mean(nearest == people.favourite_category)
    assert 0.6 < right < 1 - 0.9 * world.parameters.population.segment_error


def test_rhythms_are_weeks_around_the_populations(world: World) -> None:
    p = world.parameters.population
    np.testing.assert_allclose(world.rhythms.mean(axis=1), 1, rtol=1e-5)
    assert world.rhythms.min() > 0
    plain = build(Parameters(population=Population(rhythm_concentration=0)), Size(), 1).rhythms
    expected = np.outer(p.weekdays, p.hours).ravel()
    np.testing.assert_allclose(plain, np.tile(expected / expected.mean(), (p.rhythms, 1)), rtol=1e-5)
    assert np.std(np.log(world.rhythms) - np.log(plain[0])) == pytest.approx(np.sqrt(0.5 + 0.09 * 2 / 7), rel=0.1)
    off = build(Parameters(switches=Switches(rhythm=False)), Size(), 1).rhythms
    assert (off == 1).all()


def test_category_curves_have_mean_zero_and_deviation_one(world: World) -> None:
    np.testing.assert_allclose(world.category_hours.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(world.category_hours.std(axis=1), 1, atol=1e-6)


def test_zones_keep_one_offset_all_year() -> None:
    for name, minutes in ZONES.items():
        try:
            zone = ZoneInfo(name)
        except ZoneInfoNotFoundError:
            pytest.skip("this machine has no timezone database")
        for month in (1, 4, 7, 10):
            offset = datetime(2025, month, 1, tzinfo=UTC).astimezone(zone).utcoffset()
            assert offset is not None and offset.total_seconds() == 60 * minutes, name


def test_an_unknown_timezone_is_refused_with_the_known_ones() -> None:
    parameters = Parameters(population=Population(timezones={"Europe/Paris": 1.0}))
    with pytest.raises(WorldError, match="no zone Europe/Paris; known: UTC, Africa/Lagos"):
        build(parameters, Size(), 0)


def test_items_are_as_the_parameters_say(world: World) -> None:
    items, c = world.items, world.parameters.catalogue
    assert items.attraction.sum() == pytest.approx(1)
    ranked = np.sort(items.attraction)[::-1]
    assert ranked[0] / ranked[99] == pytest.approx(100**c.popularity_exponent)
    assert np.corrcoef(items.appeal, stats.rankdata(items.attraction))[0, 1] == pytest.approx(0.3, abs=0.05)
    assert abs(np.corrcoef(items.appeal, items.quality)[0, 1]) < 0.06
    assert items.appeal.std() == pytest.approx(c.appeal_sd, rel=0.05)
    assert np.median(items.price) == pytest.approx(c.price_median, rel=0.05)
    assert np.log(items.price).std() == pytest.approx(c.price_sd, rel=0.05)
    np.testing.assert_array_equal(items.price, np.round(items.price, 2))
    providers = np.bincount(items.provider, minlength=c.providers)
    assert len(providers) == c.providers and providers[0] / providers[9] == pytest.approx(10, rel=0.4)
    assert np.mean(items.second_category >= 0) == pytest.approx(c.second_category_share, abs=0.03)
    assert not (items.second_category == items.category).any()


def test_new_items_keep_arriving_and_come_last(world: World) -> None:
    published = world.items.published_day
    assert (np.diff(published) >= 0).all() and published.max() < world.size.days
    assert np.mean(published > 0) == pytest.approx(world.parameters.catalogue.new_share, abs=0.03)
    new = np.bincount(published[published > 0], minlength=100)[1:]
    assert stats.chisquare(new).pvalue > 1e-3
    assert [items_there(world, d) for d in (-1, 0, 99)] == [0, int(np.sum(published == 0)), 5000]


def test_items_lie_around_their_categories(world: World) -> None:
    items = world.items
    plain = items.second_category < 0
    centres = np.stack([items.aspects[plain & (items.category == c)].mean(axis=0) for c in range(20)])
    own = np.einsum("id,id->i", items.aspects, centres[items.category])
    other = np.einsum("id,id->i", items.aspects, centres[(items.category + 7) % 20])
    assert own[plain].mean() > 0.7 > 0.3 > other[plain].mean()


def test_creatives_stress_one_pole_on_which_their_item_stands(world: World) -> None:
    creatives, items = world.creatives, world.items
    counts = np.diff(creatives.first)
    assert counts.min() == 3 and counts.max() == 8 and stats.chisquare(np.bincount(counts)[3:]).pvalue > 1e-3
    np.testing.assert_array_equal(creatives.item, np.repeat(np.arange(5000), counts))
    for vectors in (creatives.title, creatives.image):
        assert (np.count_nonzero(vectors, axis=1) == 1).all()
        assert (np.einsum("cd,cd->c", vectors, items.aspects[creatives.item]) >= 0).all()
    title, image = (np.argmax(np.abs(v), axis=1) for v in (creatives.title, creatives.image))
    # given the item, title and image are drawn apart: items that stand evenly on all aspects show it
    even = np.abs(items.aspects[creatives.item]).max(axis=1) < 0.6
    both = np.zeros((8, 8))
    np.add.at(both, (title[even], image[even]), 1)
    assert abs(np.trace(both) / both.sum() - 1 / 8) < 0.06


def test_subjects_and_heroes_go_round_the_poles() -> None:
    catalogue = Catalogue(subjects=32, heroes=16)
    world = build(Parameters(catalogue=catalogue), Size(), 0)
    assert np.abs(world.subjects.title).sum(axis=0).tolist() == [4] * 8
    assert world.subjects.title.sum(axis=0).tolist() == [0] * 8
    assert len(world.heroes.pull) == 16


def test_words_tell_the_aspects(world: World) -> None:
    """A reader who only counts words finds the strongest pole again."""
    assert words.poles_of(np.array([[0.1, -0.9, 0.4], [0.8, 0.0, -0.6]]), 2).tolist() == [[3, 4], [0, 5]]
    assert (words.pole_name(0), words.pole_name(3), words.pole_name(5)) == ("warm", "grave", "slow")
    titles, texts = words.item_titles(world), words.item_texts(world)
    assert len(set(titles)) == len(titles) == len(texts) == 5000
    for row in range(0, 5000, 501):
        first, second, third = words.poles_of(world.items.aspects[row : row + 1], 3)[0]
        assert titles[row].split()[0].lower() in words.POLES[first]
        found = set(texts[row].lower().replace(";", "").split())
        assert all(found & set(words.POLES[pole]) for pole in (first, second, third))
        assert words.category_name(world.items.category[row]) in texts[row]
    lines, uris = words.creative_texts(world), words.creative_uris(world)
    for row in range(0, len(lines), 1001):
        title = words.poles_of(world.creatives.title[row : row + 1], 1)[0, 0]
        image = words.poles_of(world.creatives.image[row : row + 1], 1)[0, 0]
        assert lines[row].split()[1] in words.POLES[title]
        assert uris[row].removesuffix(".jpg").split("-")[1] in words.POLES[image]
    assert len(set(uris)) == len(uris)
    assert len(words.subject_texts(world)) == len(words.hero_uris(world)) == 12
    said = [word for pole in words.POLES for word in pole]
    assert len(said) == len(set(said)), "a word that two poles share tells nothing"
    assert words.category_name(20) == "category 21"


@pytest.fixture(scope="module")
def presets() -> dict[str, Any]:
    """The shipped presets by name, each with a shipped size."""
    pairs = {"easy": "tiny", "fitted": "small", "hard": "shop"}
    return {name: compose("generate", [f"world={name}", f"size={size}"]) for name, size in pairs.items()}


@pytest.mark.parametrize("name", ["easy", "fitted", "hard"])
def test_every_preset_builds(name: str, presets: dict[str, Any]) -> None:
    settings = presets[name]
    assert settings.world.name == name
    world = build(settings.world, Size(people=50, items=30, days=settings.size.days), 0)
    assert all(np.isfinite(a).all() for _, a in arrays(world) if a.dtype.kind == "f")


def test_presets_differ_in_what_they_say(presets: dict[str, Any]) -> None:
    easy, fitted, hard = (presets[name].world for name in ("easy", "fitted", "hard"))
    assert easy.clicks.taste > fitted.clicks.taste > hard.clicks.taste
    assert hard.population.anonymous_share == 0.6
    assert not easy.switches.drift and hard.switches.drift
    # a size means as many visits in every world
    assert easy.population.activity_mean == hard.population.activity_mean == fitted.population.activity_mean


def test_stars_of_the_hard_world_mislead_as_a_log_could(presets: dict[str, Any]) -> None:
    """Half are five, none of the five is rare, and an item's mean stars tell its fame better than its worth."""
    world = build(presets["hard"].world, Size(people=1000, items=400, days=30), seed=3)
    person, item, stars, hype = ratings(world, seed=3, plays=10_000)
    shares = np.bincount(stars.astype(int), minlength=6)[1:] / len(stars)
    assert 0.45 < shares[4] < 0.55 and shares.min() > 0.03
    often = np.bincount(item) >= 10
    mean = (np.bincount(item, stars) / np.bincount(item))[often]
    people = np.arange(300)
    worth = completion_mean(world, people[:, None], np.arange(400), 15).mean(0)
    rows = np.searchsorted(np.sort(world.items.hype), hype)
    worth = worth[np.argsort(world.items.hype)][rows][often]
    by_fame, by_worth = (np.corrcoef(mean, other)[0, 1] for other in (hype[often], worth))
    assert often.sum() > 100 and by_fame > by_worth + 0.02 > 0.4


def test_the_shop_fits_into_memory(presets: dict[str, Any]) -> None:
    """1.2 GiB is what the long run may spend on the world itself."""
    settings = presets["hard"]
    world = build(settings.world, settings.size, 0)
    assert (len(world.people.taste), len(world.items.price), world.size.days) == (400_000, 20_000, 548)
    assert sum(a.nbytes for _, a in arrays(world)) < 0.2 * 2**30


def test_sizes_say_what_is_wrong() -> None:
    for wrong, message in {
        "people": "size.people must be at least 2, got 0",
        "days": "size.days must be at least 1, got 0",
    }.items():
        with pytest.raises(ConfigError, match=message):
            Size(**{wrong: 0})
    with pytest.raises(ConfigError, match=r"size.decisions_share must lie in 0..1, got 1.5"):
        Size(decisions_share=1.5)
    with pytest.raises(ConfigError, match="size.start must be a day such as 2025-01-06, got 'monday'"):
        Size(start="monday")
    size = Size(start="2025-01-07")
    assert first_weekday(size) == 1
    assert start_us(size) == datetime(2025, 1, 7, tzinfo=UTC).timestamp() * 1e6


@pytest.mark.parametrize(
    ("group", "field", "value", "message"),
    [
        (Population, "drift_per_year", float("nan"), r"population.drift_per_year=nan \(allowed 0..1000\)"),
        (Population, "consent_share", {"training": 1.1}, r"population.consent_share.training=1.1 \(allowed 0..1\)"),
        (Population, "consent_share", {"to train": 0.5}, "cannot be part of a column name"),
        (Population, "hours", [1.0] * 23, "population.hours must have 24 numbers"),
        (Population, "device_share", {"watch": 1.0}, "must name the devices of clicks.device"),
        (Population, "timezones", {"UTC": 0.0}, "at least one zone with a share above 0"),
        (Catalogue, "creatives_min", 9, r"must be a range, got 9..8"),
        (Catalogue, "popularity_appeal", -1.5, r"catalogue.popularity_appeal=-1.5 \(allowed -1..1\)"),
        (Messages, "send_hours", [24], r"messages.send_hours\[0\]=24 \(allowed 0..23\)"),
        (Messages, "send_hours", [], "messages.send_hours must have at least one entry"),
        (Messages, "offers", {"half": 0.5}, "must have one of depth 0"),
        (Messages, "open_base", float("inf"), "messages.open_base=inf"),
    ],
)
def test_a_number_that_cannot_be_is_refused(group: type, field: str, value: object, message: str) -> None:
    owner = {Population: "population", Catalogue: "catalogue", Messages: "messages"}[group]
    with pytest.raises(ConfigError, match=message):
        Parameters(**{owner: group(**{field: value})})
