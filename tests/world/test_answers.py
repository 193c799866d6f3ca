"""What people do after slates and mails comes with the stated probabilities, in time, and the same in any cut."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy import stats

from playbill.world.build import World, build
from playbill.world.draws import Stream, key_of
from playbill.world.messages import Mails, respond_to_mails
from playbill.world.parameters import Delays, Outcomes, Parameters, Switches, Unfairness
from playbill.world.respond import (
    Impressions,
    after_click,
    click_probability,
    completion_mean,
    late_us,
    message_click_probability,
    message_purchase_probability,
    open_probability,
    purchase_probability,
    rating_probability,
    respond,
)
from playbill.world.settings import Size

DAY = 200  # far enough for drift to show
HOUR_US = 3_600_000_000


def make(**given: Any) -> World:
    return build(Parameters(**given), Size(people=300, items=80), seed=2)


@pytest.fixture(scope="module")
def world() -> World:
    return make()


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
