"""Choosing one creative an item: probabilities by policy, one draw from them, and so a propensity that is exact.

Whatever the policy, the choice is drawn from the probabilities that are logged. Scores are in logits; `mean` and `sd`
are the belief about each creative, centred within its item.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec
import numpy as np

from playbill.chance import hashed, hashed_id, in_unit, mix64
from playbill.creative.quadrature import chance_of_best
from playbill.errors import CreativeError

SUM_TOLERANCE = 1e-9


class Kind(StrEnum):
    """How a creative is chosen."""

    THOMPSON = "thompson"  # as often as it is believed to be the best
    EPSILON_GREEDY = "epsilon_greedy"  # the best, but any of them with probability epsilon
    SOFTMAX = "softmax"  # in proportion to exp(score / temperature)
    DEFAULT = "default"  # the item's default, without chance


class CreativePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the creatives of a surface are chosen.

    Attributes:
        kind: thompson, epsilon_greedy, softmax or default.
        spread: of thompson, factor on how far scores may be wrong, 0 or more: below 1 it explores less than it is
            unsure, which pays where rewards are few; a half gained more than 1 on real tests of images, and in
            simulated services (O. Chapelle, L. Li 2011, section 3).
        epsilon: share of epsilon_greedy that is even over all eligible creatives, 0..1.
        temperature: of softmax, in logits, more than 0.
        floor: share of every choice that is even over all eligible creatives, 0..1: none is ever less probable than
            floor / n, so that any other policy can be valued on the log.
        switch_cost: logits that a creative must be better by than the one that this person saw of the item in an
            earlier session.
        of_kind: only creatives whose column `kind` says so, such as artwork; empty takes all that belong to an item.
        channel: only creatives of this channel or of none; empty takes all.
        locale: of people and requests that name none; empty takes creatives of any locale for them.
    """

    kind: Kind = Kind.THOMPSON
    spread: float = 0.5
    epsilon: float = 0.1
    temperature: float = 1.0
    floor: float = 0.0
    switch_cost: float = 0.0
    of_kind: str = ""
    channel: str = ""
    locale: str = ""


def check_policy(policy: CreativePolicy, where: str) -> None:
    """Do nothing where the numbers are in range.

    Raises:
        CreativeError: names the field and what it must be.
    """
    for name in ("epsilon", "floor"):
        if not 0 <= getattr(policy, name) <= 1:
            raise CreativeError(f"{where}.{name} must lie in 0..1, got {getattr(policy, name)}")
    if not 0 < policy.temperature < np.inf:
        raise CreativeError(f"{where}.temperature must be more than 0, got {policy.temperature}")
    for name in ("spread", "switch_cost"):
        if not 0 <= getattr(policy, name) < np.inf:
            raise CreativeError(f"{where}.{name} must be 0 or more, got {getattr(policy, name)}")


def centred(phi: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return features less their weighted mean over each item's creatives.

    Args:
        phi: [..., n, d] of the creatives of one item.
        weight: [..., n], 0 for creatives that are not there: even ones for scores, the policy's own probabilities for
            learning.
    """
    share = weight / weight.sum(-1, keepdims=True)
    less: np.ndarray = phi - (share[..., None, :] @ phi)
    return less


def chances(policy: CreativePolicy, mean: np.ndarray, sd: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return the probability with which a policy shows each creative.

    Args:
        policy: kind and its numbers.
        mean, sd: [..., n] float64 belief about each creative's score; the item's default first.
        there: [..., n] bool, creatives that are eligible, one at least in each set.
    Returns:
        [..., n] float64, each set sums to 1. Ties of epsilon_greedy go to the first.
    Raises:
        CreativeError: a set without an eligible creative, or a score that is not finite.
    """
    count = there.sum(-1, keepdims=True)
    if not count.all():
        raise CreativeError("no creative is eligible in one of the sets; leave items without any out")
    if not np.isfinite(np.where(there, mean + sd, 0.0)).all():
        raise CreativeError("a creative's score is not finite; look at the head before choosing by it")
    if policy.kind is Kind.THOMPSON:
        found = chance_of_best(mean, policy.spread * sd, there)
    elif policy.kind is Kind.SOFTMAX:
        mean = np.where(there, mean, -np.inf)
        found = np.exp((mean - mean.max(-1, keepdims=True)) / policy.temperature)
        found /= found.sum(-1, keepdims=True)
    else:
        best = there.argmax(-1) if policy.kind is Kind.DEFAULT else np.where(there, mean, -np.inf).argmax(-1)
        found = np.zeros(mean.shape)
        np.put_along_axis(found, best[..., None], 1.0, -1)
        if policy.kind is Kind.EPSILON_GREEDY:
            found = (1 - policy.epsilon) * found + policy.epsilon * there / count
    if policy.floor and policy.kind is not Kind.DEFAULT:
        found = (1 - policy.floor) * found + policy.floor * there / count
    return found


def draw(chance: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Return the place that each draw picks, [...] int64; one of probability 0 is never picked.

    Args:
        chance: [..., n] float64 of `chances`.
        uniform: [...] float64 in [0, 1).
    Raises:
        CreativeError: probabilities that are negative or do not sum to 1; names the first set.
    """
    edges = np.cumsum(chance, axis=-1)
    sums = edges[..., -1]
    if not (chance.min(initial=0.0) >= 0 and np.abs(sums - 1).max(initial=0.0) <= SUM_TOLERANCE):
        wrong = ~(np.abs(sums - 1) <= SUM_TOLERANCE) | (chance < 0).any(-1)
        first = tuple(np.argwhere(wrong)[0].tolist())
        raise CreativeError(
            f"{int(wrong.sum())} sets of probabilities are none, the first at {first} sums to {sums[first]:.6g}; each "
            "must be 0 or more, and sum to 1"
        )
    # scaled to the last edge, which rounding may leave a hair from 1: a number below 1 times it lies below it, and the
    # first edge above that is one that its own probability has lifted
    found: np.ndarray = (edges <= uniform[..., None] * sums[..., None]).sum(-1)
    return found


def uniforms(seed: int, keys: Sequence[str], item_ids: Sequence[int | str]) -> np.ndarray:
    """Return a number in [0, 1) for each item, [n] float64, from (policy seed, its key, its id) alone.

    A key is the session where there is one: then the same belief picks the same creative throughout it.
    """
    known = {key: hashed(f"{seed}|creative|{key}") for key in dict.fromkeys(keys)}
    both = [known[key] ^ hashed_id(item_id) for key, item_id in zip(keys, item_ids, strict=True)]
    return in_unit(mix64(np.asarray(both, np.uint64)))
