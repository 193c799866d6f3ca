"""Step 4, compose: what chance puts on a slate, and with which propensity."""

from __future__ import annotations

import hashlib

import numpy as np

from playbill.chance import few_numbers, hashed


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
    if weight is None or (weight[rest] == weight[rest[0]]).all():
        uniform = few_numbers(draw_key(seed, request_id, "explore"), 2 * slots)
        partners = even_partners(len(rest), uniform[slots:])
        chance: np.ndarray | float = 1 / len(rest)
        won = np.asarray(uniform[:slots]) < epsilon
    else:
        dice = generator(seed, request_id, "explore")
        partners, chance = drawn_partners(weight[rest], slots, dice)
        slots = len(partners)
        won = dice.random(slots) < epsilon
    places = free[len(free) - slots :]
    propensity[places] = np.where(won, epsilon * chance, 1 - epsilon)
    if won.any():
        slate[places[won]] = rest[partners[won]]
        drawn[places[won]] = True
    return slate, propensity, drawn


def even_partners(m: int, numbers: list[float]) -> np.ndarray:
    """Return places in 0..m, one for each number in [0, 1), all alike likely and without repeats; m at least as many.

    Source: R. Fisher and F. Yates (1938); the first steps of the shuffle of all m.
    """
    moved: dict[int, int] = {}
    found = []
    for n, number in enumerate(numbers):
        place = n + int(number * (m - n))
        found.append(moved.get(place, place))
        moved[place] = moved.get(n, n)
    return np.asarray(found, np.int64)


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


def draw_key(seed: int, request_id: str, step: str) -> int:
    """Return 64 bits that name the draws of one step of one request."""
    return hashed(f"{seed}|{step}|{request_id}")


def generator(seed: int, request_id: str, step: str) -> np.random.Generator:
    """Return the generator of one step of one request: Philox keyed by (policy seed, request id, step)."""
    digest = hashlib.sha256(f"{seed}|{step}|{request_id}".encode("utf-8", "surrogatepass")).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest[:16], np.uint64)))
