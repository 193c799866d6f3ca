"""What somebody who knows the truth would show: the slate with the highest expected true utility."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from playbill.world.build import World, items_there
from playbill.world.respond import examination, taste_of

_CELLS = 8_000_000  # people times creatives worked on at once: 32 MB an array


def best_creative(world: World, person: np.ndarray, item: np.ndarray, day: int) -> np.ndarray:
    """Return the row of the item's creative that this person clicks most; arguments broadcast.

    The best creative is the same at every position, hour and device, since these add to all creatives alike. Of equal
    ones the first is taken.

    Args:
        person: [...] rows of people.
        item: [...] rows of items.
    Returns:
        [...] int64 rows of creatives.
    """
    person, item = np.broadcast_arrays(person, item)
    taste = taste_of(world, person, day)
    first: np.ndarray = world.creatives.first[item]
    count = np.diff(world.creatives.first)[item]
    best = first
    most = np.full(first.shape, -np.inf, np.float32)
    for place in range(int(count.max(initial=0))):
        # beyond an item's last creative the last is looked at again, which changes nothing
        creative = first + np.minimum(place, count - 1)
        score = np.einsum("...d,...d->...", taste, world.click_vectors[creative]) + world.click_base[creative]
        better = score > most
        best, most = np.where(better, creative, best), np.where(better, score, most)
    return best


def oracle_slate(
    world: World,
    person: np.ndarray,
    hour: np.ndarray | int,
    device: np.ndarray | int,
    day: int,
    k: int,
    available: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return each person's slate with the highest expected true utility, every item in its best creative.

    An impression's utility is the position's examination times the rest, so the k best items belong on the slate, the
    best at the position that is looked at most.

    Args:
        person: [n] rows of people.
        hour: [n] or one number, the local hour 0..23.
        device: [n] or one number, row of clicks.device.
        day: 0-based day of the world.
        k: positions, at most the number of available items.
        available: [I] bool, or [n, I] where each person may be shown other items; None takes what is published on
            that day.
    Returns:
        item [n, k] int64 rows, creative [n, k] int64 rows, position 0 first; -1 at the end of the slate of a person who
        may be shown fewer than k items.
    Raises:
        ValueError: fewer than k items are available to anybody.
    """
    if available is None:
        available = np.arange(len(world.items.category)) < items_there(world, day)
    own = available if available.ndim == 2 else None
    rows = np.flatnonzero(available if own is None else available.any(0))
    if not 1 <= k <= len(rows):
        raise ValueError(f"k must lie in 1..{len(rows)}, the number of available items, got {k}")
    hours, devices = np.broadcast_to(hour, person.shape), np.broadcast_to(device, person.shape)
    # best place first: where everything is looked at alike, the order of the slate
    places = np.argsort(-examination(world, np.arange(k)), kind="stable")
    item = np.empty((len(person), k), np.int64)
    step = max(1, _CELLS // len(world.creatives.item))
    for low in range(0, len(person), step):
        part = slice(low, low + step)
        value = _values(world, person[part], hours[part], devices[part], day)[:, rows]
        if own is not None:
            value = np.where(own[part][:, rows], value, np.float32(-1))  # a utility is never negative
        top = np.argpartition(-value, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(value, top, axis=1), axis=1, kind="stable")
        chosen = np.take_along_axis(top, order, axis=1)
        item[part, places] = np.where(np.take_along_axis(value, chosen, axis=1) < 0, -1, rows[chosen])
    creative = best_creative(world, person[:, None], np.maximum(item, 0), day)
    return item, np.where(item < 0, -1, creative)


def _values(world: World, person: np.ndarray, hour: np.ndarray, device: np.ndarray, day: int) -> np.ndarray:
    """Return [n, I] float32: expected true utility of each item in its best creative, where it is looked at."""
    clicks, outcomes, switches = world.parameters.clicks, world.parameters.outcomes, world.parameters.switches
    taste = taste_of(world, person, day)
    log_odds = taste @ world.click_vectors.T
    log_odds += world.click_base
    best = np.maximum.reduceat(log_odds, world.creatives.first[:-1], axis=1)
    if switches.hour:
        curve = np.float32(clicks.hour_taste) * world.category_hours.T[hour]  # [n, categories]
        best += curve[:, world.items.category]
    if switches.device:
        best += np.array(list(clicks.device.values()), np.float32)[device][:, None]
    completion = np.float32(outcomes.completion_base) + world.items.quality
    if switches.taste:
        completion = completion + np.float32(outcomes.completion_taste) * (taste @ world.items.aspects.T)
    # the disparity against a group is left out: it makes a person's utilities smaller, and never changes their order
    result: np.ndarray = expit(best) * expit(completion)
    return result
