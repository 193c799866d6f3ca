"""The disparity that `Unfairness` injects against group "b"; with relative = 0 nothing here changes anything."""

from __future__ import annotations

import numpy as np

from playbill.world.build import Rows, World
from playbill.world.draws import Stream, uniform
from playbill.world.people import GROUPS


def click_factor(world: World, person: Rows) -> np.ndarray:
    """Return float32, what the probability of a click is multiplied by."""
    return _factor(world, person, world.parameters.unfairness.clicks)


def shown_probability(world: World, person: Rows) -> np.ndarray:
    """Return float32, the probability that a chosen item is in fact shown."""
    return _factor(world, person, world.parameters.unfairness.exposure)


def shown(world: World, person: Rows, key: np.ndarray) -> np.ndarray:
    """Draw which chosen items are in fact shown; what is not shown is no impression and draws no response.

    Args:
        person: rows, broadcasting with key.
        key: uint64, one for each chosen item.
    """
    result: np.ndarray = uniform(world.seed, Stream.SHOWN, key) < shown_probability(world, person)
    return result


def offer_probabilities(world: World, person: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return a policy's probabilities of the offers as they come out: the propensities to write down.

    Args:
        person: [n] rows.
        probabilities: [n, offers] float64, in the order of messages.offers; rows sum to 1.
    Returns:
        [n, offers] float64: offers with a depth are rarer for group "b", and the first offer of depth 0 takes the rest.
    """
    factor = _factor(world, person, world.parameters.unfairness.offers).astype(np.float64)
    depth = np.array(list(world.parameters.messages.offers.values()))
    nothing = int(np.flatnonzero(depth == 0)[0])
    result = np.where(depth > 0, probabilities * factor[:, None], probabilities)
    result[:, nothing] += probabilities.sum(axis=1) - result.sum(axis=1)
    return result


def _factor(world: World, person: Rows, on: bool) -> np.ndarray:
    relative = world.parameters.unfairness.relative
    if not on or relative == 0:
        return np.ones(np.shape(person), np.float32)
    result: np.ndarray = np.where(world.people.group[person] == GROUPS.index("b"), 1 - relative, 1.0).astype(np.float32)
    return result
