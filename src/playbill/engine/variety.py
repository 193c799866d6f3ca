"""Step 4, compose: orders that look beyond each item's own score: to its likeness with those above it, to the mix of
categories that the person is used to, to how well known and how new it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from playbill.bundle.policy import Damping
from playbill.engine.catalogue import DAY_US, UNDATED, Catalogue

_SMOOTH = 0.01  # of the wanted mix in the list's own, so that a category that is not on the list yet costs no infinity


@dataclass(frozen=True, slots=True)
class Wanted:
    """The mix of values, such as categories, that a list should have.

    Attributes:
        share: [G] float64, positive, sums to 1: of each value in the person's history.
        of: [P, G] float64, of each candidate of the pool: 1 / n for each of its n values, 0 elsewhere; values that are
            not wanted at all count in n alone.
        strength: 0 (none) .. 1.
    """

    share: np.ndarray
    of: np.ndarray
    strength: float


def order_by_score(
    score: np.ndarray, item: np.ndarray, k: int, diversity: float, vectors: Any, wanted: Wanted | None = None
) -> np.ndarray:
    """Return all candidates, best first; the first k of them spread out, and mixed, as the surface asks.

    Place by place, the one of the best 4 k + 50 candidates (see `pool`) with the largest

        (1 - diversity - strength) * score - diversity * likeness - strength * divergence

    score scaled to 0..1 over the pool, likeness the largest cosine to an item above it, divergence the Kullback-Leibler
    divergence of the list's mix, this item included, from the wanted one.

    Args:
        score: [M], higher is better; equal scores keep their order.
        item: [M] int64 item_index.
        k: length of the slate.
        diversity: 0 looks at no likeness.
        vectors: [N + 1, d] float32 of unit length; None looks at no likeness.
        wanted: the mix; None: any.
    Source:
        J. Carbonell and J. Goldstein (1998), The use of MMR, diversity-based reranking; H. Steck (2018), Calibrated
        recommendations.
    """
    order = np.argsort(-score, kind="stable")
    diversity = 0.0 if vectors is None else diversity
    strength = 0.0 if wanted is None else wanted.strength
    if not (diversity or strength) or len(order) < 2:
        return order
    best = pool(order, k)
    value = score[best].astype(np.float64)
    spread = value[0] - value[-1]
    value = (1 - diversity - strength) * ((value - value[-1]) / spread if spread > 0 else np.ones(len(value)))
    mine = vectors[item[best]] if diversity else None
    likeness = np.full(len(best), -1.0)
    mixed = np.zeros(0 if wanted is None else len(wanted.share))
    free = np.ones(len(best), bool)
    picked: list[int] = []
    for place in range(min(k, len(best))):
        marginal = value - diversity * likeness if place and diversity else value
        if wanted is not None and strength:
            marginal = marginal - strength * divergence(wanted.share, (mixed + wanted.of) / (place + 1))
        chosen = int(np.argmax(np.where(free, marginal, -np.inf)))
        picked.append(chosen)
        free[chosen] = False
        if mine is not None:
            likeness = np.maximum(likeness, mine @ mine[chosen])
        if wanted is not None:
            mixed = mixed + wanted.of[chosen]
    return np.concatenate([best[picked], order[~np.isin(order, best[picked])]])


def pool(order: np.ndarray, k: int) -> np.ndarray:
    """Return the candidates that the first k places are chosen from."""
    return order[: 4 * k + 50]


def divergence(share: np.ndarray, mix: np.ndarray) -> np.ndarray:
    """Return [P] float64, the Kullback-Leibler divergence in nats of mixes [P, G] from the wanted one, 0 or more.

    Source:
        H. Steck (2018), Calibrated recommendations, equation 5.
    """
    smooth = (1 - _SMOOTH) * mix + _SMOOTH * share
    found: np.ndarray = (share * np.log(share / smooth)).sum(-1)
    return found


def wanted_mix(
    history: Sequence[Sequence[object]], candidates: Sequence[Sequence[object]], strength: float
) -> Wanted | None:
    """Return the mix that a history asks for; None where it says nothing.

    Args:
        history: values of each item of the history.
        candidates: values of each candidate of the pool.
    """
    count: dict[object, float] = {}
    for values in history:
        for value in values:
            count[value] = count.get(value, 0.0) + 1 / len(values)
    if not count:
        return None
    column = {value: place for place, value in enumerate(count)}
    share = np.fromiter(count.values(), np.float64, len(count))
    of = np.zeros((len(candidates), len(count)))
    for row, values in enumerate(candidates):
        for value in values:
            if value in column:
                of[row, column[value]] = 1 / len(values)
    return Wanted(share / share.sum(), of, strength)


def damped(score: np.ndarray, item: np.ndarray, damping: Damping, catalogue: Catalogue, at: int) -> np.ndarray:
    """Return [M] scores, lower for what is well known and higher for what is new.

    Both are shares of the distance from the worst candidate's score to the best's: of popularity, by an item's place in
    the catalogue; of freshness, by its age, half of it after each half-life.

    Args:
        score: [M]; `item` [M] int64 item_index.
        at: UTC microseconds.
    """
    if not len(score):
        return score
    distance = float(score.max() - score.min()) or 1.0
    known = 1 - (catalogue.place[item] - 1) / max(catalogue.num_items, 1)
    change = -damping.popularity * known
    if damping.freshness:
        published = catalogue.published[item]
        out = (published > UNDATED) & (published <= at)
        age = np.where(out, at - published, 0) / DAY_US
        change = change + damping.freshness * np.where(out, 0.5 ** (age / damping.half_life_days), 0.0)
    found: np.ndarray = score + distance * change
    return found
