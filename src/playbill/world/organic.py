"""What people find by themselves, and how popularity feeds back."""

from __future__ import annotations

import numpy as np

from playbill.errors import WorldError
from playbill.world.build import World, items_there
from playbill.world.draws import Stream, uniform
from playbill.world.respond import taste_of


def find(
    world: World, person: np.ndarray, day: int, key: np.ndarray, attraction: np.ndarray | None = None
) -> np.ndarray:
    """Draw the item that each person takes from a search.

    A search lists `organic_candidates` items that are published, drawn by attraction (an item may be listed twice); the
    person takes one with probability in proportion to exp(organic_taste * taste(p, i)).

    Args:
        person: [n] rows.
        key: [n] uint64, one a search.
        attraction: [I] float64 of that day, not negative; None takes the items' own.
    Returns:
        [n] int64 rows of items.
    Raises:
        WorldError: no item is published on that day.
    """
    if not items_there(world, day):
        raise WorldError(f"no item is there on day {day}; raise size.items or lower catalogue.new_share")
    outcomes = world.parameters.outcomes
    edges = np.cumsum((world.items.attraction if attraction is None else attraction)[: items_there(world, day)])
    listed = np.arange(outcomes.organic_candidates)
    drawn = uniform(world.seed, Stream.ORGANIC_CANDIDATE, key[:, None], listed)
    candidates = np.minimum(np.searchsorted(edges, drawn * edges[-1], side="right"), len(edges) - 1)
    # the largest of log weight plus a Gumbel draw is a draw in proportion to the weights
    score = -np.log(-np.log(uniform(world.seed, Stream.ORGANIC_CHOICE, key[:, None], listed)))
    if world.parameters.switches.taste:
        taste = taste_of(world, person, day)[:, None, :]
        meets = np.einsum("...d,...d->...", taste, world.items.aspects[candidates])
        score += outcomes.organic_taste * meets
    result: np.ndarray = candidates[np.arange(len(person)), np.argmax(score, axis=1)]
    return result


def fed_back(world: World, attraction: np.ndarray, clicks: np.ndarray) -> np.ndarray:
    """Return the next day's attraction.

    Args:
        attraction: [I] float64 of the day that ends.
        clicks: [I] counts of that day.
    Returns:
        [I] float64 with the same sum; unchanged without clicks, or where feedback is switched off.
    """
    rate, total = world.parameters.feedback_rate, clicks.sum()
    if not world.parameters.switches.feedback or rate == 0 or total == 0:
        return attraction
    result: np.ndarray = (1 - rate) * attraction + rate * attraction.sum() * (clicks / total)
    return result
