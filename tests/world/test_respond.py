"""Responses follow the formulas at the top of parameters.py, term by term; draws follow the probabilities."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from playbill.world.build import World, build
from playbill.world.parameters import Parameters, Population, Switches
from playbill.world.respond import (
    click_probability,
    completion_mean,
    examination,
    message_click_probability,
    message_purchase_probability,
    open_probability,
    purchase_probability,
    rating_probability,
    stars_of,
    taste_of,
    utility,
)
from playbill.world.settings import Size

DAY = 200  # far enough for drift to show
SIZE = Size(people=300, items=80)
SWITCHES = [f.name for f in dataclasses.fields(Switches)]


def make(**given: Any) -> World:
    return build(Parameters(**given), SIZE, seed=2)


@pytest.fixture(scope="module")
def world() -> World:
    return make()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def dot(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.dot(a.astype(np.float64), b.astype(np.float64)))


class ByHand:
    """The formulas once more, one person and one thing at a time, written from the text at the top of parameters.py."""

    def __init__(self, world: World, person: int) -> None:
        self.world, self.p, self.on, self.person = world, world.parameters, world.parameters.switches, person
        angle = self.p.population.drift_per_year * DAY / 365 if self.on.drift else 0.0
        people = world.people
        self.taste = math.cos(angle) * people.taste[person] + math.sin(angle) * people.turn[person]

    def match(self, item: int) -> float:
        return dot(self.taste, self.world.items.aspects[item]) if self.on.taste else 0.0

    def click(self, item: int, creative: int, position: int, hour: int, device: int) -> float:
        w, c = self.world, self.p.clicks
        x = c.base + w.items.appeal[item] + c.taste * self.match(item) + w.creatives.pull[creative]
        x += c.title_taste * dot(self.taste, w.creatives.title[creative]) if self.on.title else 0.0
        x += c.image_taste * dot(self.taste, w.creatives.image[creative]) if self.on.image else 0.0
        x += c.hour_taste * w.category_hours[w.items.category[item], hour] if self.on.hour else 0.0
        x += list(c.device.values())[device] if self.on.device else 0.0
        looked_at = c.examination[min(position, len(c.examination) - 1)] if self.on.position else 1.0
        unfair = self.p.unfairness
        fair = 1 - unfair.relative if w.people.group[self.person] == 1 and unfair.clicks else 1.0
        return looked_at * sigmoid(x) * fair

    def completion(self, item: int) -> float:
        o = self.p.outcomes
        return sigmoid(o.completion_base + o.completion_taste * self.match(item) + self.world.items.quality[item])

    def rating(self, completion: float) -> float:
        o = self.p.outcomes
        if not self.on.rating_bias:
            return o.rating_share
        return sigmoid(math.log(o.rating_share / (1 - o.rating_share)) + o.rating_selection * (completion - 0.5))

    def stars(self, item: int, completion: float) -> float:
        w = self.world
        x = 5 * completion
        if self.on.rating_bias:
            x += w.people.leniency[self.person] + self.p.outcomes.hype * w.items.hype[item]
        return min(max(round(x), 1), 5)

    def kind(self, depth: float) -> float:
        w, b = self.world, self.p.purchases
        name = list(b.kinds)[w.people.kind[self.person]]
        return (
            b.kind_base[name]
            + (depth * b.kind_offer[name] if self.on.offers else 0.0)
            + w.people.inclination[self.person]
        )

    def purchase(self, item: int, depth: float) -> float:
        w, b = self.world, self.p.purchases
        x = b.base + b.taste * self.match(item) + self.kind(depth)
        if self.on.price:
            dear = math.log(w.items.price[item] / self.p.catalogue.price_median)
            x -= w.people.price_sensitivity[self.person] * dear
        return sigmoid(x)

    def opening(self, subject: int, hour_of_week: int) -> float:
        w, m = self.world, self.p.messages
        x = m.open_base + w.people.openness[self.person] + w.subjects.pull[subject]
        x += m.subject_taste * dot(self.taste, w.subjects.title[subject]) if self.on.title else 0.0
        if self.on.rhythm:
            x += m.rhythm_taste * math.log(w.rhythms[w.people.rhythm[self.person], hour_of_week])
        return sigmoid(x)

    def message_click(self, hero: int) -> float:
        w, m = self.world, self.p.messages
        meets = dot(self.taste, w.heroes.image[hero]) if self.on.image else 0.0
        return sigmoid(m.click_base + w.heroes.pull[hero] + m.hero_taste * meets)

    def message_purchase(self, depth: float, opened: bool) -> float:
        return sigmoid(self.p.messages.purchase_base + self.kind(depth if opened else 0.0))


def check_by_hand(world: World) -> None:
    """Compare every probability of 40 random combinations with the formulas."""
    rng = np.random.default_rng(0)
    n, depths = 40, list(world.parameters.messages.offers.values())
    person, creative = rng.integers(0, 300, n), rng.integers(0, len(world.creatives.item), n)
    item = world.creatives.item[creative]
    position, hour, device = rng.integers(0, 15, n), rng.integers(0, 24, n), rng.integers(0, 3, n)
    subject, week, offer = rng.integers(0, 12, n), rng.integers(0, 168, n), rng.integers(0, 4, n)
    done, opened = rng.random(n).astype(np.float32), rng.random(n) < 0.5
    hands = [ByHand(world, int(p)) for p in person]
    click = [h.click(*a) for h, *a in zip(hands, item, creative, position, hour, device, strict=True)]
    completion = [h.completion(i) for h, i in zip(hands, item, strict=True)]
    cases = {
        "click": (click_probability(world, person, item, creative, position, hour, device, DAY), click),
        "completion": (completion_mean(world, person, item, DAY), completion),
        "utility": (
            utility(world, person, item, creative, position, hour, device, DAY),
            np.multiply(click, completion),
        ),
        "rating": (rating_probability(world, done), [h.rating(c) for h, c in zip(hands, done, strict=True)]),
        "stars": (
            stars_of(world, person, item, done),
            [h.stars(i, float(c)) for h, i, c in zip(hands, item, done, strict=True)],
        ),
        "purchase": (
            purchase_probability(world, person, item, offer, DAY),
            [h.purchase(i, depths[o]) for h, i, o in zip(hands, item, offer, strict=True)],
        ),
        "purchase without an offer": (
            purchase_probability(world, person, item, None, DAY),
            [h.purchase(i, 0.0) for h, i in zip(hands, item, strict=True)],
        ),
        "open": (
            open_probability(world, person, subject, week, DAY),
            [h.opening(s, k) for h, s, k in zip(hands, subject, week, strict=True)],
        ),
        "message click": (
            message_click_probability(world, person, subject, DAY),
            [h.message_click(s) for h, s in zip(hands, subject, strict=True)],
        ),
        "message purchase": (
            message_purchase_probability(world, person, offer, opened),
            [h.message_purchase(depths[o], bool(d)) for h, o, d in zip(hands, offer, opened, strict=True)],
        ),
    }
    for name, (got, expected) in cases.items():
        np.testing.assert_allclose(got, expected, rtol=2e-5, err_msg=name)


def test_every_probability_is_the_formulas() -> None:
    check_by_hand(make())


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_part_that_is_off_contributes_nothing(switch: str) -> None:
    check_by_hand(make(switches=Switches(**{switch: False})))


def test_all_parts_off_leave_bases_and_item_effects() -> None:
    world = make(switches=Switches(**dict.fromkeys(SWITCHES, False)))
    check_by_hand(world)
    p = click_probability(
        world, np.arange(300), np.array(0), np.array(0), np.arange(300) % 9, np.array(3), np.array(1), DAY
    )
    assert np.ptp(p) == 0, "nothing tells two people apart"


def test_a_probability_worked_out_on_paper(world: World) -> None:
    """One person, one creative: log-odds -2.6 + 0.3 + 2 * 0.8 + 0.5 * 0.6 - 0.8 * 0.8 + 0.1 + 0.3 * 1 - 0.1 = -0.74."""
    world = make(population=Population(drift_per_year=0))
    world.people.taste[0] = [0.8, 0.6, 0, 0, 0, 0, 0, 0]
    world.items.aspects[0] = [1, 0, 0, 0, 0, 0, 0, 0]
    world.items.appeal[0], world.items.quality[0], world.items.category[0] = 0.3, -0.2, 4
    world.category_hours[4, 20] = 1.0
    world.creatives.title[0] = [0, 1, 0, 0, 0, 0, 0, 0]
    world.creatives.image[0] = [-1, 0, 0, 0, 0, 0, 0, 0]
    world.creatives.pull[0] = 0.1
    world.__post_init__()
    one = np.array(0)
    click = click_probability(world, one, one, one, np.array(1), np.array(20), np.array(1), 0)
    assert click == pytest.approx(0.85 / (1 + math.exp(0.74)), rel=1e-5)
    assert completion_mean(world, one, one, 0) == pytest.approx(1 / (1 + math.exp(-1.0)), rel=1e-5)  # 1.5 * 0.8 - 0.2


def test_title_and_image_add_up_and_can_be_told_apart(world: World) -> None:
    """On the log-odds, the effect of a title is the same beside either image: no part of one hides in the other."""
    world = make(switches=Switches(position=False, hour=False, device=False))
    d = world.people.taste.shape[1]
    world.items.aspects[0] = np.eye(d)[7]
    for k, (title, image) in enumerate([(0, 1), (2, 1), (0, 3)]):
        world.creatives.title[k], world.creatives.image[k], world.creatives.pull[k] = (
            np.eye(d)[title],
            np.eye(d)[image],
            0,
        )
    world.creatives.item[:3] = 0
    world.__post_init__()
    people, zero = np.arange(300), np.array(0)
    odds = [
        np.log(p / (1 - p))
        for p in (
            click_probability(world, people, zero, np.array(k), zero, zero, zero, DAY).astype(np.float64)
            for k in range(3)
        )
    ]
    taste, clicks = taste_of(world, people, DAY), world.parameters.clicks
    np.testing.assert_allclose(odds[1] - odds[0], clicks.title_taste * (taste[:, 2] - taste[:, 0]), atol=2e-5)
    np.testing.assert_allclose(odds[2] - odds[0], clicks.image_taste * (taste[:, 3] - taste[:, 1]), atol=2e-5)


def test_examination_goes_on_with_its_last_value(world: World) -> None:
    np.testing.assert_allclose(examination(world, np.array([0, 1, 11, 12, 500])), [1, 0.85, 0.25, 0.25, 0.25])


def test_tastes_turn_by_the_stated_angle(world: World) -> None:
    people = np.arange(300)
    np.testing.assert_array_equal(taste_of(world, people, 0), world.people.taste)
    for day in (73, 365):
        cosine = np.einsum("pd,pd->p", taste_of(world, people, day), world.people.taste)
        np.testing.assert_allclose(cosine, math.cos(0.5 * day / 365), atol=1e-5)
    mixed = taste_of(world, people[:2], np.array([0, 365]))
    np.testing.assert_array_equal(mixed[1], taste_of(world, people[:2], 365)[1])
    np.testing.assert_allclose(np.linalg.norm(taste_of(world, people, 1000), axis=1), 1, atol=1e-5)


def test_popular_items_get_more_stars_for_the_same_completion(world: World) -> None:
    order = np.argsort(world.items.hype)
    half = np.full(300, 0.5)
    low, high = (stars_of(world, np.arange(300), np.full(300, order[k]), half).mean() for k in (0, -1))
    assert high > low + 0.5


def test_kinds_of_buyers_answer_an_offer_as_they_are_called(world: World) -> None:
    kinds = list(world.parameters.purchases.kinds)
    gain = {}
    for k, name in enumerate(kinds):
        people = np.flatnonzero(world.people.kind == k)
        without, full = (message_purchase_probability(world, people, np.array(o)) for o in (0, 3))
        gain[name] = np.mean(full - without), np.mean(without)
    assert gain["persuadable"][0] > 0.03 > gain["sure"][0] > 0 == gain["lost"][0] > gain["put_off"][0]
    assert gain["sure"][1] > 2 * gain["persuadable"][1] > 4 * gain["lost"][1]
    unseen = message_purchase_probability(world, np.arange(300), np.array(3), opened=False)
    np.testing.assert_array_equal(unseen, message_purchase_probability(world, np.arange(300), np.array(0)))


def test_dearer_is_bought_less(world: World) -> None:
    dear, cheap = np.argmax(world.items.price), np.argmin(world.items.price)
    world = make(switches=Switches(taste=False))
    sensitive = np.flatnonzero(world.people.price_sensitivity > 0.1)
    p = [purchase_probability(world, sensitive, np.array(i), None, DAY) for i in (dear, cheap)]
    assert (p[0] < p[1]).all()
