"""Step 4, compose: which k candidates, in which order, with which propensity."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np


def order_by_score(score: np.ndarray, item: np.ndarray, k: int, diversity: float, vectors: Any) -> np.ndarray:
    """Return all candidates, best first; the first k of them spread out where the surface asks for diversity.

    Maximal marginal relevance: the next item is the one with the largest (1 - diversity) * score - diversity *
    likeness, score scaled to 0..1 over the best 4 k + 50 candidates, likeness the largest cosine to an item above it.

    Args:
        score: [M], higher is better; equal scores keep their order.
        item: [M] int64 item_index.
        k: length of the slate.
        diversity: 0 orders by score alone.
        vectors: [N + 1, d] float32 of unit length; None orders by score alone.
    Source:
        J. Carbonell and J. Goldstein (1998), The use of MMR, diversity-based reranking.
    """
    order = np.argsort(-score, kind="stable")
    if not diversity or vectors is None or len(order) < 2:
        return order
    pool = order[: 4 * k + 50]
    value = score[pool].astype(np.float64)
    spread = value[0] - value[-1]
    value = (1 - diversity) * ((value - value[-1]) / spread if spread > 0 else np.ones(len(value)))
    mine = vectors[item[pool]]
    likeness = np.full(len(pool), -1.0)
    free = np.ones(len(pool), bool)
    picked = []
    for place in range(min(k, len(pool))):
        marginal = value - diversity * likeness if place else value
        best = int(np.argmax(np.where(free, marginal, -np.inf)))
        picked.append(best)
        free[best] = False
        likeness = np.maximum(likeness, mine @ mine[best])
    return np.concatenate([pool[picked], order[~np.isin(order, pool[picked])]])


def explore(
    order: np.ndarray,
    k: int,
    epsilon: float,
    slots: int,
    seed: int,
    request_id: str,
    weight: np.ndarray | None = None,
    held: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the slate after exploration: ([n] candidates, [n] float64 propensities, [n] bool drawn by chance).

    Each of the last `slots` positions that are not held is given, with probability epsilon and on its own, to a
    partner: the positions' partners are drawn, without repeats, among the m candidates that the slate leaves out. So
    the propensity of what stands at such a position is 1 - epsilon for the policy's own choice, epsilon times its
    chance to be that position's partner for a drawn one (1 / m where all weigh the same, see `drawn_partners`);
    elsewhere it is 1. It is the probability of that item at that position, over all that chance could have done.

    Args:
        order: [M] candidates, best first.
        seed, request_id: key of the counter-based generator; the same key draws the same slate.
        weight: [M] > 0, by candidate: how likely each is to be drawn, relative to others; None: all alike.
        held: [min(k, M)] bool, positions that are left as they are; None: none.
    """
    slate = order[:k].copy()
    rest = order[k:]
    drawn = np.zeros(len(slate), bool)
    propensity = np.ones(len(slate))
    free = np.arange(len(slate)) if held is None else np.flatnonzero(~held)
    slots = min(slots, len(free), len(rest))
    if epsilon <= 0 or slots <= 0:
        return slate, propensity, drawn
    dice = generator(seed, request_id, "explore")
    if weight is None or (weight[rest] == weight[rest[0]]).all():
        partners = dice.permutation(len(rest))[:slots]
        chance = np.full(slots, 1 / len(rest))
    else:
        partners, chance = drawn_partners(weight[rest], slots, dice)
        slots = len(partners)
    places = free[len(free) - slots :]
    won = dice.random(slots) < epsilon
    slate[places[won]] = rest[partners[won]]
    drawn[places[won]] = True
    propensity[places] = np.where(won, epsilon * chance, 1 - epsilon)
    return slate, propensity, drawn


def drawn_partners(weight: np.ndarray, slots: int, dice: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return partners by weight, without repeats: ([s] places in `weight`, [s] float64 chance of each at its slot).

    Systematic sampling in random order: every candidate is a stretch as long as its chance to be among the partners
    (slots * weight / sum, 1 at most), the stretches are shuffled and laid end to end, and a comb with teeth one apart
    falls on them. So chances are exact however uneven weights are. Which partner is for which slot is shuffled too.

    Args:
        weight: [m] > 0, m >= slots.
    Source:
        W. Madow (1949), On the theory of systematic sampling, II.
    """
    chance = inclusion(weight, slots)
    shuffled = dice.permutation(len(weight))
    ends = np.cumsum(chance[shuffled])
    teeth = np.searchsorted(ends, dice.random() + np.arange(slots), side="right")
    # rounding at the very end of the comb could name the last one twice: then a slot keeps the policy's choice
    partners = shuffled[np.unique(np.minimum(teeth, len(weight) - 1))]
    partners = partners[dice.permutation(len(partners))]
    return partners, chance[partners] / slots


def inclusion(weight: np.ndarray, slots: int) -> np.ndarray:
    """Return [m] float64 chances to be among `slots` drawn, in proportion to the weights, none above 1.

    Args:
        weight: [m] > 0, m >= slots.
    """
    chance = slots * weight / weight.sum()
    while (chance > 1 + 1e-12).any():
        sure = chance >= 1
        chance = np.where(sure, 1.0, (slots - int(sure.sum())) * weight / weight[~sure].sum())
    found: np.ndarray = np.minimum(chance, 1.0)
    return found


def generator(seed: int, request_id: str, step: str) -> np.random.Generator:
    """Return the generator of one step of one request: Philox keyed by (policy seed, request id, step)."""
    digest = hashlib.sha256(f"{seed}|{step}|{request_id}".encode("utf-8", "surrogatepass")).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest[:16], np.uint64)))
