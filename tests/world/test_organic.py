"""What people find by themselves, how popularity feeds back, and what the injected disparity does besides clicks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from playbill.world.build import build
from playbill.world.draws import key_of
from playbill.world.organic import fed_back, find
from playbill.world.parameters import Catalogue, Outcomes, Parameters, Population, Switches, Unfairness
from playbill.world.respond import taste_of
from playbill.world.settings import Size
from playbill.world.unfairness import offer_probabilities, shown, shown_probability

N = 40_000


def test_one_item_listed_is_found_by_attraction() -> None:
    parameters = Parameters(outcomes=Outcomes(organic_candidates=1), catalogue=Catalogue(new_share=0))
    world = build(parameters, Size(items=20), 0)
    found = find(world, np.zeros(N, int), 3, key_of(np.arange(N)))
    assert stats.chisquare(np.bincount(found, minlength=20), N * world.items.attraction).pvalue > 1e-3


@pytest.mark.parametrize("taste_on", [True, False])
def test_of_two_items_listed_the_taste_decides(taste_on: bool) -> None:
    """The probability is summed over all pairs that a search can list."""
    parameters = Parameters(
        outcomes=Outcomes(organic_candidates=2, organic_taste=3.0),
        catalogue=Catalogue(new_share=0),
        switches=Switches(taste=taste_on),
    )
    world = build(parameters, Size(items=6), 0)
    person, day = 11, 90
    weight = np.ones(6)
    if taste_on:
        weight = np.exp(3.0 * world.items.aspects @ taste_of(world, np.array([person]), day)[0]).astype(np.float64)
    expected = np.zeros(6)
    for a, b in itertools.product(range(6), repeat=2):
        listed = world.items.attraction[a] * world.items.attraction[b]
        expected[a] += listed * weight[a] / (weight[a] + weight[b])
        expected[b] += listed * weight[b] / (weight[a] + weight[b])
    found = find(world, np.full(N, person), day, key_of(np.arange(N)))
    assert stats.chisquare(np.bincount(found, minlength=6), N * expected).pvalue > 1e-3


def test_only_published_items_are_found_and_any_cut_gives_the_same() -> None:
    world = build(Parameters(catalogue=Catalogue(new_share=0.9)), Size(items=50, days=30), 0)
    people, keys = np.arange(5000) % 200, key_of(np.arange(5000))
    found = find(world, people, 10, keys)
    assert world.items.published_day[found].max() <= 10
    np.testing.assert_array_equal(find(world, people[700:707], 10, keys[700:707]), found[700:707])


def test_popularity_feeds_back_at_the_stated_rate() -> None:
    world = build(Parameters(feedback_rate=0.2), Size(items=4), 0)
    attraction, clicks = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0, 0, 3, 1])
    np.testing.assert_allclose(fed_back(world, attraction, clicks), [0.32, 0.24, 0.16 + 0.15, 0.08 + 0.05])
    np.testing.assert_array_equal(fed_back(world, attraction, np.zeros(4, int)), attraction)
    off = build(Parameters(switches=Switches(feedback=False)), Size(items=4), 0)
    np.testing.assert_array_equal(fed_back(off, attraction, clicks), attraction)


def test_disparity_in_offers_and_exposure_is_exact() -> None:
    world = build(Parameters(unfairness=Unfairness(relative=0.25)), Size(people=2000), 0)
    people = np.arange(2000)
    b = world.people.group == 1
    given = np.tile([0.1, 0.2, 0.3, 0.4], (2000, 1))
    out = offer_probabilities(world, people, given)
    np.testing.assert_array_equal(out[~b], given[~b])
    np.testing.assert_allclose(out[b], np.tile([0.1 + 0.225, 0.15, 0.225, 0.3], (b.sum(), 1)))
    np.testing.assert_array_equal(shown_probability(world, people), np.where(b, np.float32(0.75), np.float32(1)))
    seen = shown(world, people[:, None], key_of(people[:, None], np.arange(10)))
    assert seen[~b].all() and abs(seen[b].mean() - 0.75) < 4.5 * np.sqrt(0.75 * 0.25 / (10 * b.sum()))


def test_a_fair_world_changes_nothing() -> None:
    world = build(Parameters(population=Population(anonymous_share=0)), Size(people=500), 0)
    people, given = np.arange(500), np.random.default_rng(0).dirichlet(np.ones(4), 500)
    assert (offer_probabilities(world, people, given) == given).all()
    assert shown(world, people, key_of(people)).all()
