"""Responses follow the formulas at the top of parameters.py, term by term; draws follow the probabilities."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from playbill.world.build import World, build
from playbill.world.draws import Stream, key_of
from playbill.world.messages import Mails, respond_to_mails
from playbill.world.parameters import Delays, Outcomes, Parameters, Population, Switches, Unfairness
from playbill.world.respond import (
    Impressions,
    after_click,
    click_probability,
    completion_mean,
    examination,
    late_us,
    message_click_probability,
    message_purchase_probability,
    open_probability,
    purchase_probability,
    rating_probability,
    respond,
    stars_of,
    taste_of,
    utility,
)
from playbill.world.settings import Size

DAY = 200  # far enough for drift to show
SIZE = Size(people=300, items=80)
SWITCHES = [f.name for f in dataclasses.fields(Switches)]
HOUR_US = 3_600_000_000


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


def slates(world: World, n: int, k: int = 6) -> Impressions:
    """Return n random slates of random creatives to random people."""
    rng = np.random.default_rng(4)
    person, creative = (
        rng.integers(0, len(world.people.kind), (n, 1)),
        rng.integers(0, len(world.creatives.item), (n, k)),
    )
    session = np.arange(n)[:, None]
    return Impressions(
        person=person,
        session=session,
        item=world.creatives.item[creative],
        creative=creative,
        position=np.arange(k),
        hour=rng.integers(0, 24, (n, 1)),
        device=rng.integers(0, 3, (n, 1)),
        day=DAY,
        at_us=session * 1_000_000,
        key=key_of(DAY, session, np.arange(k)),
    )


def rows_of(shown: Impressions, low: int, high: int) -> Impressions:
    cut = {
        f.name: getattr(shown, f.name)[low:high]
        for f in dataclasses.fields(shown)
        if f.name not in ("position", "day", "offer")
    }
    return dataclasses.replace(shown, **cut)


def fits(hit: np.ndarray, chance: np.ndarray, bins: int = 10) -> bool:
    """Return whether hits come with their probabilities: in each tenth of the predictions, within 4.5 deviations."""
    for part in np.array_split(np.argsort(chance, axis=None), bins):
        p = chance.ravel()[part].astype(np.float64)
        if abs(hit.ravel()[part].sum() - p.sum()) > 4.5 * np.sqrt(np.sum(p * (1 - p))):
            return False
    return True


@pytest.fixture(scope="module")
def shown(world: World) -> Impressions:
    return slates(world, 25_000)


def test_draws_come_with_their_probabilities(world: World, shown: Impressions) -> None:
    answers = respond(world, shown)
    s = shown
    assert fits(
        answers.clicked, click_probability(world, s.person, s.item, s.creative, s.position, s.hour, s.device, DAY)
    )
    at = np.nonzero(answers.clicked)
    person, item = np.broadcast_to(s.person, s.item.shape)[at], s.item[at]
    completion = answers.completion[at]
    mean = completion_mean(world, person, item, DAY).astype(np.float64)
    # a Beta's variance is mean * (1 - mean) / (precision + 1)
    z = (completion - mean) / np.sqrt(mean * (1 - mean) / (world.parameters.outcomes.completion_precision + 1))
    assert abs(z.mean()) < 4.5 / np.sqrt(len(z)) and z.std() == pytest.approx(1, abs=0.03)
    where = stats.beta.cdf(completion, 4 * mean, 4 * (1 - mean))
    assert stats.kstest(where, "uniform").pvalue > 1e-3
    assert fits(~np.isnan(answers.stars[at]), rating_probability(world, completion))
    assert fits(answers.bought[at], purchase_probability(world, person, item, None, DAY))
    # one draw a purpose: what is left after the probabilities is unrelated
    rating, purchase = rating_probability(world, completion), purchase_probability(world, person, item, None, DAY)
    left = [~np.isnan(answers.stars[at]) - rating, answers.bought[at] - purchase, completion - mean]
    assert np.abs(np.corrcoef(left) - np.eye(3)).max() < 4.5 / np.sqrt(len(mean))
    draws = np.stack([answers.clicked[:, 0], answers.clicked[:, 1]])
    assert abs(np.corrcoef(draws)[0, 1]) < 0.1, "neighbours on a slate are drawn apart"
    assert np.isnan(answers.completion[~answers.clicked]).all() and not answers.bought[~answers.clicked].any()


def test_any_cut_of_the_work_gives_the_same_bits(world: World, shown: Impressions) -> None:
    whole = respond(world, rows_of(shown, 0, 3000))
    for step in (1000, 7, 1):
        high = 3000 if step > 1 else 300
        parts = [respond(world, rows_of(shown, low, min(low + step, high))) for low in range(0, high, step)]
        for f in dataclasses.fields(whole):
            joined = np.concatenate([getattr(part, f.name) for part in parts])
            assert joined.tobytes() == getattr(whole, f.name)[:high].tobytes(), (step, f.name)


def test_stars_overstate_completion_and_the_switch_stops_it(shown: Impressions) -> None:
    """Leniency and hype add stars, and the content speak more: both make the mean of stars larger than the utility."""
    gaps, rated = [], []
    for bias in (True, False):
        world = make(switches=Switches(rating_bias=bias))
        answers = respond(world, shown)
        given = ~np.isnan(answers.stars)
        # the floor of one star lifts low completions in either case
        honest = np.clip(np.rint(5 * answers.completion[given]), 1, 5)
        gaps.append(np.mean(answers.stars[given] - honest))
        rated.append(np.mean(answers.completion[given]) - np.nanmean(answers.completion))
    assert gaps[0] > 0.2 and gaps[1] == 0
    assert rated[0] > 0.05 > abs(rated[1])


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


def test_nothing_comes_later_than_three_days(world: World) -> None:
    keys = key_of(np.arange(50_000))
    for mean_h in (5.0, 14.0, 500.0):
        late = late_us(world, Stream.OPEN_DELAY, keys, mean_h) / HOUR_US
        assert late.min() >= 0 and late.max() <= 72
        cut = stats.truncexpon(72 / mean_h, scale=mean_h)
        assert stats.kstest(late, cut.cdf).pvalue > 1e-3
    assert (late_us(world, Stream.OPEN_DELAY, keys, 0.0) == 0).all()
    assert (late_us(make(delays=Delays(most_h=0)), Stream.OPEN_DELAY, keys, 5.0) == 0).all()


def test_answers_come_in_order_and_at_once_without_delays(world: World, shown: Impressions) -> None:
    answers = respond(world, shown)
    c = answers.clicked
    assert (answers.click_delay_us[c] <= answers.play_delay_us[c]).all() and answers.click_delay_us.max() <= 300e6
    stars = ~np.isnan(answers.stars)
    assert (answers.stars_delay_us[stars] >= answers.play_delay_us[stars]).all()
    assert (answers.purchase_delay_us[answers.bought] >= answers.click_delay_us[answers.bought]).all()
    names = [f.name for f in dataclasses.fields(answers) if f.name.endswith("_us")]
    assert len(names) == 4 and all(getattr(answers, n).max() <= 72 * HOUR_US for n in names)
    assert all((getattr(answers, n)[~c] == 0).all() for n in names)
    at_once = respond(make(switches=Switches(delays=False)), shown)
    assert all(getattr(at_once, n).max() == 0 for n in names)
    np.testing.assert_array_equal(at_once.clicked, c)


def test_what_people_find_is_answered_like_a_click(world: World) -> None:
    keys = key_of(np.arange(2000))
    people, items = np.arange(2000) % 300, np.arange(2000) % 80
    after = after_click(world, people, items, DAY, keys)
    again = after_click(world, people[500:600], items[500:600], DAY, keys[500:600])
    np.testing.assert_array_equal(after.completion[500:600], again.completion)
    assert (after.play_delay_us == (after.completion.astype(np.float64) * 40 * 60e6).astype(np.int64)).all()


def test_extreme_means_stay_numbers() -> None:
    for base in (-50.0, 50.0):
        world = make(outcomes=Outcomes(completion_base=base, completion_precision=0.01))
        after = after_click(world, np.arange(300), np.arange(300) % 80, DAY, key_of(np.arange(300)))
        assert np.isfinite(after.completion).all() and abs(after.completion.mean() - (base > 0)) < 0.01


def mails(world: World, n: int) -> Mails:
    rng = np.random.default_rng(6)
    return Mails(
        person=rng.integers(0, 300, n),
        subject=rng.integers(0, 12, n),
        hero=rng.integers(0, 12, n),
        offer=rng.integers(0, 4, n),
        hour_of_week=rng.integers(0, 168, n),
        day=DAY,
        at_us=np.arange(n),
        key=key_of(DAY, np.arange(n)),
    )


def test_mails_are_answered_with_their_probabilities(world: World) -> None:
    m = mails(world, 50_000)
    answers = respond_to_mails(world, m)
    assert fits(answers.opened, open_probability(world, m.person, m.subject, m.hour_of_week, DAY))
    o = answers.opened
    assert fits(answers.clicked[o], message_click_probability(world, m.person[o], m.hero[o], DAY))
    assert not answers.clicked[~o].any()
    assert fits(answers.bought, message_purchase_probability(world, m.person, m.offer, o))
    np.testing.assert_array_equal(answers.machine_opened, world.people.machine[m.person])
    assert (answers.click_delay_us >= answers.open_delay_us)[answers.clicked].all()
    assert np.median(answers.machine_delay_us[answers.machine_opened]) < 60e6
    delays = (answers.open_delay_us, answers.machine_delay_us, answers.click_delay_us, answers.purchase_delay_us)
    assert max(d.max() for d in delays) <= 72 * HOUR_US
    part = Mails(
        **{f.name: v[70:75] if isinstance(v := getattr(m, f.name), np.ndarray) else v for f in dataclasses.fields(m)}
    )
    for f in dataclasses.fields(answers):
        np.testing.assert_array_equal(getattr(respond_to_mails(world, part), f.name), getattr(answers, f.name)[70:75])


def test_machines_open_only_where_they_are_switched_on() -> None:
    off = make(switches=Switches(machine_opens=False))
    m = mails(off, 5000)
    answers = respond_to_mails(off, m)
    assert not answers.machine_opened.any() and answers.machine_delay_us.max() == 0
    np.testing.assert_array_equal(answers.opened, respond_to_mails(make(), m).opened)


def test_unfairness_takes_its_share_of_group_b_and_nothing_else(shown: Impressions) -> None:
    fair, unfair = make(), make(unfairness=Unfairness(relative=0.1))
    s = shown
    p, q = (
        click_probability(w, s.person, s.item, s.creative, s.position, s.hour, s.device, DAY) for w in (fair, unfair)
    )
    b = np.broadcast_to(fair.people.group[s.person] == 1, p.shape)
    np.testing.assert_array_equal(p[~b], q[~b])
    np.testing.assert_allclose(q[b], 0.9 * p[b], rtol=1e-6)
    only_offers = make(unfairness=Unfairness(relative=0.1, clicks=False))
    r = click_probability(only_offers, s.person, s.item, s.creative, s.position, s.hour, s.device, DAY)
    np.testing.assert_array_equal(r, p)
