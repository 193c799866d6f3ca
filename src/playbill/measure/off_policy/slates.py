"""The value of a whole slate, under one of three assumptions of how its positions act on each other.

For slate i with weights w_1 .. w_K (target / logging, at each position) and rewards r_1 .. r_K, the value of a slate is
the expected sum of its rewards:

    independent   mean of sum over k of w_k r_k               a position's reward depends on its own action alone
                                                              (Li et al. 2018: the position-wise assumption)
    cascade       mean of sum over k of w_1 ... w_k r_k       it also depends on the actions above it
                                                              (McInerney et al. 2020: reward interaction)
    standard      mean of w_1 ... w_K * sum over k of r_k     it may depend on every action of the slate

Each assumption contains the one above it and costs weights that are more uneven. Self-normalised forms divide, at each
position, by the mean weight used there.

The weights are not the same in all three. `independent` needs marginal ones: how often either policy puts this action
at this position, whatever stands elsewhere. `cascade` and `standard` multiply, so they need conditional ones: given the
actions above. Where positions are chosen without regard to each other the two are the same; where a policy draws
without replacement they are not. Logged by weights 10, 1, 1 without replacement, two positions, a uniform target,
rewards of .9, .1, .1 by the action alone: the target's slate is worth .733, and `independent` with conditional weights
says .533.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.errors import MeasureError
from playbill.measure.off_policy.estimators import Contributions
from playbill.measure.off_policy.log import Log

ASSUMPTIONS = {
    "independent": "a position's reward depends on the action at that position alone, not on the rest of the slate",
    "cascade": "a position's reward depends on its own action and those above it, not on those below",
    "standard": "no assumption on how positions act on each other",
}

NEEDS = {"independent": "marginal", "cascade": "conditional", "standard": "conditional"}
"""Which probabilities an assumption's weights are made of."""


@dataclass(slots=True)
class Slates:
    """S slates of at most K positions.

    Attributes:
        reward: [S, K] float64, 0 where a slate has no such position.
        weight: [S, K] float64, 1 where a slate has no such position.
        shown: [S, K] bool.
        unit: [S] int64, 0, 1, ...
    """

    reward: np.ndarray
    weight: np.ndarray
    shown: np.ndarray
    unit: np.ndarray


def slates_of(log: Log) -> Slates:
    """Return the log's rounds put together by request.

    Raises:
        MeasureError: a position stands twice in a request, or a request belongs to two units.
    """
    request, position, unit = log.request, log.position, log.unit
    assert request is not None and position is not None and unit is not None
    slates, places = int(request.max()) + 1, int(position.max()) + 1
    if position.min() < 0:
        raise MeasureError(f"log.position must be >= 0, got {position.min()}")
    cell = request * places + position
    _, first, times = np.unique(cell, return_index=True, return_counts=True)
    if (times > 1).any():
        row = int(first[np.argmax(times > 1)])
        raise MeasureError(
            f"log.position: {int((times > 1).sum()):,} positions stand twice in a request, first row {row}: position "
            f"{position[row]}; each decision of a slate needs a position of its own"
        )
    owner = np.zeros(slates, np.int64)
    owner[request] = unit
    torn = owner[request] != unit
    if torn.any():
        raise MeasureError(
            f"log.unit: {int(torn.sum()):,} rounds belong to another unit than their request, first row "
            f"{int(np.argmax(torn))}; resample requests, or larger units"
        )
    reward, weight = np.zeros(slates * places), np.ones(slates * places)
    shown = np.zeros(slates * places, bool)
    reward[cell], weight[cell], shown[cell] = log.reward, log.weight(), True
    shape = slates, places
    return Slates(reward.reshape(shape), weight.reshape(shape), shown.reshape(shape), owner)


def slate_value(slates: Slates, assumption: str, *, normalised: bool = False) -> Contributions:
    """Return the contributions of S slates to the value of a slate.

    Args:
        assumption: a key of ASSUMPTIONS.
        normalised: divide by the mean weight at each position.
    Raises:
        MeasureError: an unknown assumption.
    Source:
        Li et al. 2018 (independent); McInerney et al. 2020 (cascade, self-normalised).
    """
    if assumption not in ASSUMPTIONS:
        raise MeasureError(f"no assumption {assumption!r}; there are: {', '.join(ASSUMPTIONS)}")
    weight = slates.weight
    if assumption == "cascade":
        weight = np.cumprod(weight, axis=1)
    elif assumption == "standard":
        weight = np.broadcast_to(np.prod(weight, axis=1, keepdims=True), weight.shape)
    name = f"{assumption}, self-normalised" if normalised else assumption
    gained = np.where(slates.shown, weight * slates.reward, 0.0)
    if not normalised:
        return Contributions(name, gained.sum(1)[:, None], np.ones((len(gained), 1)), np.ones(1))
    # where slates differ in length, a position counts as often as it is shown
    share = slates.shown.mean(0)
    used = share > 0
    below = np.where(slates.shown, weight, 0.0)
    return Contributions(name, gained[:, used], below[:, used], share[used])


def per_slate(contributions: Contributions, log: Log) -> Contributions:
    """Return contributions of rounds (plain means, such as DR) summed over each slate: its position-wise value.

    Raises:
        MeasureError: contributions that are ratios; use `slate_value(..., normalised=True)` for those.
    """
    request = log.request
    assert request is not None
    if not (contributions.denominator == 1).all():
        raise MeasureError(f"{contributions.name} divides by its weights and cannot be summed over slates")
    totals = np.stack([np.bincount(request, column) for column in contributions.numerator.T], axis=1)
    return Contributions(contributions.name, totals, np.ones_like(totals), contributions.sign)
