"""Numbers that no formula gives from a log: those at which the world itself shows the log's figure.

The method of simulated moments: the world answers, the same statistic is read from its answers as from the real log,
and the number is moved until they agree (McFadden 1989, Econometrica 57). Draws are the same in every round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from scipy import optimize, special

from playbill.world.build import World, build, items_there
from playbill.world.fitting.movielens import bias_terms
from playbill.world.parameters import Parameters
from playbill.world.respond import click_probability, completion_mean, rating_probability, stars_of
from playbill.world.settings import Size

SIZE = Size(name="fit", people=2000, items=1000, days=90)
PAIRS = 60_000
PLAYS = 20_000
ROUNDS = 14


@dataclass(slots=True)
class Reached:
    """A target statistic and what the world shows with the calibrated number."""

    parameter: str
    statistic: str
    target: float
    reached: float
    value: float


def changed(parameters: Parameters, numbers: dict[str, Any]) -> Parameters:
    """Return the parameters with some dotted fields replaced."""
    nested = msgspec.to_builtins(parameters)
    for name, value in numbers.items():
        *path, last = name.split(".")
        place = nested
        for part in path:
            place = place[part]
        assert last in place, name
        place[last] = float(value) if isinstance(value, np.floating) else value
    return msgspec.convert(nested, Parameters)


def click_base(parameters: Parameters, rate: float, places: int, seed: int) -> Reached:
    """Return `clicks.base` at which uniformly chosen items and creatives are clicked at `rate` on the first places.

    Args:
        rate: mean click rate over positions 0 .. places - 1.
    """
    world = build(parameters, SIZE, seed)
    rng = np.random.default_rng(seed)
    person = rng.integers(0, SIZE.people, PAIRS)
    creative = rng.integers(0, len(world.creatives.item), PAIRS)
    hour = rng.choice(24, PAIRS, p=np.asarray(parameters.population.hours) / np.sum(parameters.population.hours))
    device = (world.people.device_share[person].cumsum(1) < rng.random(PAIRS)[:, None]).sum(1)
    chance = click_probability(
        world,
        person,
        world.creatives.item[creative],
        creative,
        np.zeros(PAIRS, np.int64),
        hour,
        np.minimum(device, world.people.device_share.shape[1] - 1),
        0,
    ).astype(np.float64)
    examined = np.array(parameters.clicks.examination)
    first = examined[0] if parameters.switches.position else 1.0
    seen = examined[np.minimum(np.arange(places), len(examined) - 1)].mean() if parameters.switches.position else 1.0
    log_odds = special.logit(chance / first)

    def mean_rate(shift: float) -> float:
        return float(special.expit(log_odds + shift).mean() * seen)

    shift = float(optimize.brentq(lambda s: mean_rate(s) - rate, -15, 15))
    return Reached(
        "clicks.base",
        f"click rate over the first {places} positions",
        rate,
        mean_rate(shift),
        parameters.clicks.base + shift,
    )


def open_base(parameters: Parameters, log_odds: float, seed: int) -> Reached:
    """Return `messages.open_base` that gives the middling person these log-odds of opening, over hours and subjects."""
    world = build(parameters, SIZE, seed)
    messages = parameters.messages
    hours = np.add.outer(24 * np.arange(7), np.asarray(messages.send_hours)).ravel()
    at_arrival = np.log(world.rhythms[:, hours].astype(np.float64)).mean() if parameters.switches.rhythm else 0.0
    own = messages.rhythm_taste * float(at_arrival) + float(world.subjects.pull.mean())
    value = log_odds - own
    return Reached("messages.open_base", "log-odds of opening, middling person", log_odds, value + own, value)


def stars(
    parameters: Parameters, terms: dict[str, float], seed: int, rounds: int = ROUNDS, plays: int = PLAYS
) -> tuple[Parameters, list[Reached]]:
    """Return parameters whose stars have the mean, skewness, persons', items' and remaining spread, and hype given.

    Args:
        terms: of `movielens.bias_terms` of a real log.
        seed: of the world and of all draws.
        rounds: corrections before the last look.
        plays: clicked items on each of five days, of which the rated ones are read.
    Returns:
        the parameters, and for each number the statistic it was set by.
    """
    shown: dict[str, float] = {}
    for _ in range(rounds):
        shown = bias_terms(*ratings(build(parameters, SIZE, seed), seed, plays))
        outcomes, catalogue = parameters.outcomes, parameters.catalogue
        middle = np.clip((terms["mean"] - outcomes.leniency_mean) / 5, 0.1, 0.9)
        beyond = terms["item_sd_beyond_popularity"] / max(shown["item_sd_beyond_popularity"], 1e-3)
        # a kinder scale piles up at five stars and empties the low end: about 0.2 of skewness a star, at the same mean
        kinder = float(np.clip(1.5 * (terms["skewness"] - shown["skewness"]), -0.3, 0.3))
        parameters = changed(
            parameters,
            {
                "outcomes.leniency_mean": outcomes.leniency_mean + kinder,
                # stars move by 5 m (1 - m) for one log-odds of completion at mean m
                "outcomes.completion_base": outcomes.completion_base
                + (terms["mean"] - shown["mean"] - kinder) / (5 * middle * (1 - middle)),
                "outcomes.completion_precision": float(
                    np.clip(outcomes.completion_precision * (shown["rest_sd"] / terms["rest_sd"]) ** 2.5, 0.05, 500)
                ),
                "outcomes.leniency_sd": outcomes.leniency_sd * terms["person_sd"] / max(shown["person_sd"], 1e-3),
                "outcomes.hype": outcomes.hype + terms["popularity_slope"] - shown["popularity_slope"],
                "catalogue.quality_sd": catalogue.quality_sd * float(np.clip(beyond, 0.5, 2)),
            },
        )
    shown = bias_terms(*ratings(build(parameters, SIZE, seed), seed, plays))
    set_by = {
        "outcomes.completion_base": "mean",
        "outcomes.leniency_mean": "skewness",
        "outcomes.completion_precision": "rest_sd",
        "outcomes.leniency_sd": "person_sd",
        "outcomes.hype": "popularity_slope",
        "catalogue.quality_sd": "item_sd_beyond_popularity",
    }
    reached = []
    for name, term in set_by.items():
        room, field = name.split(".")
        reached.append(Reached(name, term, terms[term], shown[term], float(getattr(getattr(parameters, room), field))))
    return parameters, reached


def ratings(world: World, seed: int, plays: int = PLAYS) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return person, item and stars of items shown alike, clicked and rated, and the items' log popularity."""
    rng = np.random.default_rng(seed)
    persons, items, given = [], [], []
    for day in np.linspace(world.size.days // 10, world.size.days - 1, 5).astype(int):
        person = rng.integers(0, world.size.people, 8 * plays)
        creative = rng.integers(0, world.creatives.first[items_there(world, int(day))], 8 * plays)
        item = world.creatives.item[creative]
        clicked = click_probability(world, person, item, creative, np.int64(0), np.int64(12), np.int64(0), int(day))
        # clicks are rare: as many as are wanted, each in proportion to its probability
        kept = np.searchsorted(np.cumsum(clicked, dtype=np.float64), rng.random(plays) * clicked.sum(dtype=np.float64))
        person, item = person[kept], item[kept]
        completion = _completion(world, person, item, int(day), rng)
        # everybody who would rate at all does: who rates more does not depend on rating_share
        chance = rating_probability(world, completion)
        rated = rng.random(plays) * float(chance.max()) < chance
        persons.append(person[rated])
        items.append(item[rated])
        given.append(stars_of(world, person, item, completion)[rated])
    _, person = np.unique(np.concatenate(persons), return_inverse=True)
    row, item = np.unique(np.concatenate(items), return_inverse=True)
    return person, item, np.concatenate(given).astype(np.float64), world.items.hype[row].astype(np.float64)


def _completion(world: World, person: np.ndarray, item: np.ndarray, day: int, rng: np.random.Generator) -> np.ndarray:
    mean = np.clip(completion_mean(world, person, item, day).astype(np.float64), 1e-6, 1 - 1e-6)
    precision = world.parameters.outcomes.completion_precision
    return np.asarray(special.betaincinv(mean * precision, (1 - mean) * precision, rng.random(len(mean))))
