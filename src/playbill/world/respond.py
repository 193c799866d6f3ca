"""How people respond to what they are shown: the probabilities of parameters.py's formulas, and draws from them.

People, items, creatives, subjects, heroes and offers are given as rows (0-based) of the world's arrays. All arguments
broadcast against each other, such as person [n, 1] with item [n, K]; results are float32 of the common shape. A result
depends on its own row alone, so that any chunk of the work gives the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, expit, logit

from playbill.world.build import Rows, World
from playbill.world.draws import Stream, uniform
from playbill.world.unfairness import click_factor

_HOUR_US = 3_600_000_000
_VISIT_US = 300_000_000  # no click later than five minutes after the slate


@dataclass(slots=True)
class Impressions:
    """Items shown. Arrays broadcast to one common shape, such as [n, 1] for people and [n, K] for their slates.

    Attributes:
        person, item, creative: rows; the creative belongs to the item.
        session: int64 number of the visit; not used by the responses.
        position: 0-based place on the slate.
        hour: the person's local hour, 0..23.
        device: row of clicks.device.
        day: 0-based day of the world.
        at_us: int64 microseconds since 1970 UTC, when shown.
        key: uint64, one an impression: keys its draws.
        offer: row of messages.offers that holds for a purchase; None for no offer.
    """

    person: np.ndarray
    session: np.ndarray
    item: np.ndarray
    creative: np.ndarray
    position: np.ndarray
    hour: np.ndarray
    device: np.ndarray
    day: int | np.ndarray
    at_us: np.ndarray
    key: np.ndarray
    offer: np.ndarray | None = None


@dataclass(slots=True)
class AfterClick:
    """What follows clicks, arrays of one shape; delays are int64 microseconds after the click.

    Attributes:
        completion: float32, 0..1, the true utility.
        play_delay_us: until the play ends.
        stars: float32, 1..5; NaN where none were given.
        stars_delay_us: 0 where none were given.
        bought: bool.
        purchase_delay_us: 0 where nothing was bought.
    """

    completion: np.ndarray
    play_delay_us: np.ndarray
    stars: np.ndarray
    stars_delay_us: np.ndarray
    bought: np.ndarray
    purchase_delay_us: np.ndarray


@dataclass(slots=True)
class Responses:
    """What happened after impressions, arrays of their common shape; delays are int64 microseconds after `at_us`.

    Attributes:
        clicked: bool.
        completion: float32, 0..1; NaN where not clicked.
        stars: float32, 1..5; NaN where none were given.
        bought: bool.
        click_delay_us, play_delay_us, stars_delay_us, purchase_delay_us: 0 where there was no such response.
    """

    clicked: np.ndarray
    completion: np.ndarray
    stars: np.ndarray
    bought: np.ndarray
    click_delay_us: np.ndarray
    play_delay_us: np.ndarray
    stars_delay_us: np.ndarray
    purchase_delay_us: np.ndarray


def taste_of(world: World, person: Rows, day: Rows) -> np.ndarray:
    """Return [..., D] float32 unit vectors: the people's tastes on that day."""
    people, population = world.people, world.parameters.population
    taste: np.ndarray = people.taste[person]
    if not world.parameters.switches.drift or population.drift_per_year == 0:
        return taste
    angle = np.asarray(population.drift_per_year * np.asarray(day) / 365.0)[..., None]
    taste = np.cos(angle).astype(np.float32) * taste
    taste += np.sin(angle).astype(np.float32) * people.turn[person]
    return taste


def examination(world: World, position: Rows) -> np.ndarray:
    """Return the probability that a position is looked at."""
    curve = np.array(world.parameters.clicks.examination, np.float32)
    if not world.parameters.switches.position:
        return np.ones(np.shape(position), np.float32)
    result: np.ndarray = curve[np.minimum(position, len(curve) - 1)]
    return result


def click_probability(
    world: World,
    person: Rows,
    item: Rows,
    creative: Rows,
    position: Rows,
    hour: Rows,
    device: Rows,
    day: Rows,
) -> np.ndarray:
    """Return the probability of a click on an impression, examination included.

    Args:
        creative: rows of creatives of the items (`item` must be theirs: it gives the category alone).
        hour: the person's local hour, 0..23.
        device: row of clicks.device.
    """
    clicks, switches = world.parameters.clicks, world.parameters.switches
    log_odds = _dot(taste_of(world, person, day), world.click_vectors[creative])
    log_odds = log_odds + world.click_base[creative]
    if switches.hour and clicks.hour_taste:
        log_odds = log_odds + np.float32(clicks.hour_taste) * world.category_hours[world.items.category[item], hour]
    if switches.device:
        log_odds = log_odds + np.array(list(clicks.device.values()), np.float32)[device]
    result: np.ndarray = expit(log_odds) * examination(world, position) * click_factor(world, person)
    return result


def completion_mean(world: World, person: Rows, item: Rows, day: Rows) -> np.ndarray:
    """Return the mean completion after a click, 0..1."""
    outcomes = world.parameters.outcomes
    log_odds = np.float32(outcomes.completion_base) + world.items.quality[item]
    result: np.ndarray = expit(log_odds + np.float32(outcomes.completion_taste) * _affinity(world, person, item, day))
    return result


def utility(
    world: World,
    person: Rows,
    item: Rows,
    creative: Rows,
    position: Rows,
    hour: Rows,
    device: Rows,
    day: Rows,
) -> np.ndarray:
    """Return the expected true utility of an impression: probability of a click times mean completion."""
    click = click_probability(world, person, item, creative, position, hour, device, day)
    result: np.ndarray = click * completion_mean(world, person, item, day)
    return result


def rating_probability(world: World, completion: np.ndarray) -> np.ndarray:
    """Return the probability of stars after a play of this completion."""
    outcomes = world.parameters.outcomes
    if not world.parameters.switches.rating_bias:
        return np.full(np.shape(completion), outcomes.rating_share, np.float32)
    lean = np.float32(outcomes.rating_selection) * (np.asarray(completion, np.float32) - np.float32(0.5))
    result: np.ndarray = expit(np.float32(logit(outcomes.rating_share)) + lean)
    return result


def stars_of(world: World, person: Rows, item: Rows, completion: np.ndarray) -> np.ndarray:
    """Return the stars, 1..5, that a person who rates gives after a play of this completion."""
    stars = np.float32(5) * np.asarray(completion, np.float32)
    if world.parameters.switches.rating_bias:
        stars = (
            stars + world.people.leniency[person] + np.float32(world.parameters.outcomes.hype) * world.items.hype[item]
        )
    result: np.ndarray = np.clip(np.rint(stars), np.float32(1), np.float32(5))
    return result


def purchase_probability(world: World, person: Rows, item: Rows, offer: Rows | None, day: Rows) -> np.ndarray:
    """Return the probability of a purchase after a click; `offer` is a row of messages.offers, None for no offer."""
    purchases, catalogue = world.parameters.purchases, world.parameters.catalogue
    log_odds = np.float32(purchases.base) + kind_log_odds(
        world, person, None if offer is None else depth_of(world, offer)
    )
    if world.parameters.switches.price:
        dear = np.log(world.items.price[item] / catalogue.price_median).astype(np.float32)
        log_odds = log_odds - world.people.price_sensitivity[person] * dear
    result: np.ndarray = expit(log_odds + np.float32(purchases.taste) * _affinity(world, person, item, day))
    return result


def depth_of(world: World, offer: Rows) -> np.ndarray:
    """Return float32, 0..1: the depth of offers, given as rows of messages.offers."""
    result: np.ndarray = np.array(list(world.parameters.messages.offers.values()), np.float32)[offer]
    return result


def kind_log_odds(world: World, person: Rows, depth: np.ndarray | None) -> np.ndarray:
    """Return what kind and own inclination add to a purchase, with an offer of this depth (None: without)."""
    purchases, kind = world.parameters.purchases, world.people.kind[person]
    base = np.array([purchases.kind_base[name] for name in purchases.kinds], np.float32)
    log_odds: np.ndarray = base[kind] + world.people.inclination[person]
    if depth is not None and world.parameters.switches.offers:
        helped = np.array([purchases.kind_offer[name] for name in purchases.kinds], np.float32)
        log_odds = log_odds + depth * helped[kind]
    return log_odds


def open_probability(world: World, person: Rows, subject: Rows, hour_of_week: Rows, day: Rows) -> np.ndarray:
    """Return the probability that the person opens a mail.

    Args:
        subject: row of the subjects.
        hour_of_week: local hour of the week at arrival, 0..167, 0 is Monday 00:00.
    """
    messages, people = world.parameters.messages, world.people
    log_odds = np.float32(messages.open_base) + people.openness[person] + world.subjects.pull[subject]
    if world.parameters.switches.rhythm:
        log_odds = (
            log_odds + np.float32(messages.rhythm_taste) * np.log(world.rhythms)[people.rhythm[person], hour_of_week]
        )
    if world.parameters.switches.title:
        meets = _dot(taste_of(world, person, day), world.subjects.title[subject])
        log_odds = log_odds + np.float32(messages.subject_taste) * meets
    result: np.ndarray = expit(log_odds)
    return result


def message_click_probability(world: World, person: Rows, hero: Rows, day: Rows) -> np.ndarray:
    """Return the probability of a click in a mail that the person has opened."""
    messages = world.parameters.messages
    log_odds = np.float32(messages.click_base) + world.heroes.pull[hero]
    if world.parameters.switches.image:
        meets = _dot(taste_of(world, person, day), world.heroes.image[hero])
        log_odds = log_odds + np.float32(messages.hero_taste) * meets
    result: np.ndarray = expit(log_odds) * np.ones(np.shape(person), np.float32)
    return result


def message_purchase_probability(
    world: World, person: Rows, offer: Rows, opened: np.ndarray | bool = True
) -> np.ndarray:
    """Return the probability of a purchase within three days of a mail.

    Args:
        offer: row of messages.offers.
        opened: whether the person opened it: an offer that was not seen does nothing.
    """
    depth = depth_of(world, offer) * np.asarray(opened, np.float32)
    result: np.ndarray = expit(
        np.float32(world.parameters.messages.purchase_base) + kind_log_odds(world, person, depth)
    )
    return result


def respond(world: World, impressions: Impressions) -> Responses:
    """Draw what people do after impressions; each impression's draws depend on its key alone."""
    i = impressions
    shape = np.broadcast_shapes(*(np.shape(a) for a in (i.person, i.item, i.creative, i.position, i.key)))
    chance = click_probability(world, i.person, i.item, i.creative, i.position, i.hour, i.device, i.day)
    clicked = np.broadcast_to(uniform(world.seed, Stream.CLICK, i.key) < chance, shape)
    at = np.nonzero(clicked)
    key = np.broadcast_to(i.key, shape)[at]
    click_delay = late_us(world, Stream.CLICK_DELAY, key, world.parameters.clicks.delay_mean_s / 3600, _VISIT_US)
    after = after_click(
        world,
        np.broadcast_to(i.person, shape)[at],
        np.broadcast_to(i.item, shape)[at],
        np.broadcast_to(np.asarray(i.day), shape)[at],
        key,
        None if i.offer is None else np.broadcast_to(i.offer, shape)[at],
    )
    most = int(world.parameters.delays.most_h * _HOUR_US)

    def later(delay: np.ndarray, there: np.ndarray | bool = True) -> np.ndarray:
        return _scatter(shape, at, np.where(there, np.minimum(click_delay + delay, most), 0), 0, np.int64)

    return Responses(
        clicked=clicked,
        completion=_scatter(shape, at, after.completion, np.nan, np.float32),
        stars=_scatter(shape, at, after.stars, np.nan, np.float32),
        bought=_scatter(shape, at, after.bought, False, np.bool_),
        click_delay_us=later(np.zeros(len(key), np.int64)),
        play_delay_us=later(after.play_delay_us),
        stars_delay_us=later(after.stars_delay_us, ~np.isnan(after.stars)),
        purchase_delay_us=later(after.purchase_delay_us, after.bought),
    )


def after_click(
    world: World,
    person: np.ndarray,
    item: np.ndarray,
    day: int | np.ndarray,
    key: np.ndarray,
    offer: np.ndarray | None = None,
) -> AfterClick:
    """Draw what follows clicks, or items that people found by themselves; all arguments have one shape."""
    seed, outcomes, delays = world.seed, world.parameters.outcomes, world.parameters.delays
    # a mean that rounds to 0 or 1 would leave a Beta distribution without one of its parameters
    mean = np.clip(completion_mean(world, person, item, day).astype(np.float64), 1e-6, 1 - 1e-6)
    precision = outcomes.completion_precision
    drawn = betaincinv(mean * precision, (1 - mean) * precision, uniform(seed, Stream.COMPLETION, key))
    completion = np.clip(drawn, 0, 1).astype(np.float32)
    rated = uniform(seed, Stream.RATED, key) < rating_probability(world, completion)
    bought = uniform(seed, Stream.PURCHASE, key) < purchase_probability(world, person, item, offer, day)
    minutes = completion.astype(np.float64) * outcomes.play_minutes if world.parameters.switches.delays else 0 * drawn
    play = (minutes * 60_000_000).astype(np.int64)
    return AfterClick(
        completion=completion,
        play_delay_us=play,
        stars=np.where(rated, stars_of(world, person, item, completion), np.float32(np.nan)),
        stars_delay_us=np.where(rated, play + late_us(world, Stream.STARS_DELAY, key, delays.rating_mean_h), 0),
        bought=bought,
        purchase_delay_us=np.where(bought, late_us(world, Stream.PURCHASE_DELAY, key, delays.purchase_mean_h), 0),
    )


def late_us(
    world: World, stream: Stream, key: np.ndarray, mean_h: float, most_us: int | np.ndarray | None = None
) -> np.ndarray:
    """Return int64 delays in microseconds: exponential, cut off at delays.most_h (or `most_us` where that is less).

    Args:
        key: [n] uint64.
        most_us: one number for all, or [n] int64, 0 or more.
    """
    most: int | np.ndarray = int(world.parameters.delays.most_h * _HOUR_US)
    most = most if most_us is None else np.minimum(most, most_us)
    if not world.parameters.switches.delays or mean_h <= 0:
        return np.zeros(np.shape(key), np.int64)
    # cut off by drawing again, in one step: below the bound the distribution keeps its shape
    within = -np.expm1(-most / (mean_h * _HOUR_US))
    late = -np.log1p(-within * uniform(world.seed, stream, key)) * (mean_h * _HOUR_US)
    result: np.ndarray = np.minimum(late, most).astype(np.int64)
    return result


def _affinity(world: World, person: Rows, item: Rows, day: Rows) -> np.ndarray:
    """Return taste(p, i), or 0 where taste is switched off."""
    if not world.parameters.switches.taste:
        return np.zeros(np.broadcast_shapes(np.shape(person), np.shape(item), np.shape(day)), np.float32)
    return _dot(taste_of(world, person, day), world.items.aspects[item])


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.einsum("...d,...d->...", a, b)
    return result


def _scatter(
    shape: tuple[int, ...], at: tuple[np.ndarray, ...], values: np.ndarray, rest: float, dtype: type
) -> np.ndarray:
    full: np.ndarray = np.full(shape, rest, dtype)
    full[at] = values
    return full
