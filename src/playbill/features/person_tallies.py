"""Tallies of people: how much, how well, and which categories somebody likes, out of the history that models see.

They are sums over the newest events of a folded pool, so training, online and batch call the same function on the pools
that their histories come from. An event counts by its value and by how far that lies above what its item usually gets
(`base`): a four for a film that everybody gives a five says less of a person than one for a film that gets twos.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.features.fold import EventPool
from playbill.features.spec import PAD
from playbill.features.tallies import TallySpec

_FEW, _SOME = 3.0, 5.0  # events that a mean and a share start with
_OWN = 6  # columns of sums that do not know categories

PAIR_NAMES = ["taste", "best_taste", "worst_taste", "liking", "log_events", "share"]


@dataclass(slots=True)
class Tastes:
    """What people's tallies need to know of items.

    Attributes:
        base: [N + 1] float32, see `ItemTallies.base`; fixed with the model, so that a history means the same later on.
        categories: [N + 1, C] float32 of 0 and 1, the categories of each item; C may be 0.
    """

    base: np.ndarray
    categories: np.ndarray


def flags_of(categories: np.ndarray, size: int) -> np.ndarray:
    """Return [N + 1, size - 1] float32 of 0 and 1 for a CATEGORIES field [N + 1, width]; unknown has no column."""
    flags = np.zeros((len(categories), size), np.float32)
    row, place = np.nonzero(categories != PAD)
    flags[row, categories[row, place]] = 1
    return flags[:, 1:]


def person_sums(
    spec: TallySpec, tastes: Tastes, pool: EventPool, start: np.ndarray, end: np.ndarray, length: int
) -> np.ndarray:
    """Return [1 + R, B, S] float64 sums over the newest events of B histories; R = len(spec.recent).

    Place 0 holds the newest `length` events, then come the newest `recent[r]` of them. Columns: count, value, like,
    above base, square of that, base; then for each category count, above base, like.

    Args:
        pool, start, end: as in `encoder.encode_history`.
        length: history length L.
    """
    windows = [length, *spec.recent]
    begin = [np.maximum(start, end - min(window, length)) for window in windows]
    # rows that any of them needs, each person's in one piece
    owner, group = np.unique(start, return_inverse=True)
    low = np.full(len(owner), np.iinfo(np.int64).max)
    high = np.zeros(len(owner), np.int64)
    np.minimum.at(low, group, begin[0])
    np.maximum.at(high, group, end)
    sizes = np.maximum(high - low, 0)
    offset = np.cumsum(sizes) - sizes
    rows = np.arange(int(sizes.sum())) + np.repeat(low - offset, sizes)
    total = np.zeros((len(rows) + 1, _OWN + 3 * tastes.categories.shape[1]))
    np.cumsum(_added(spec, tastes, pool.item[rows], pool.value[rows]), axis=0, out=total[1:])
    shift = (offset - low)[group]
    return np.stack([total[end + shift] - total[first + shift] for first in begin])


def person_names(spec: TallySpec) -> list[str]:
    """Return the names of the columns of `person_numbers`."""
    newest = [f"{name}_{count}_newest" for count in spec.recent for name in ("above", "likes")]
    return ["log_count", "mean", "likes", "above", "spread", "base", *newest]


def person_numbers(spec: TallySpec, sums: np.ndarray) -> np.ndarray:
    """Return [B, K] float32 of `person_sums`; columns `person_names`."""
    whole = sums[0]
    count = whole[:, 0]
    columns = [
        np.log1p(count),
        whole[:, 1] / (count + _FEW),
        whole[:, 2] / (count + _SOME),
        whole[:, 3] / (count + _FEW),
        np.sqrt(np.maximum(whole[:, 4] + _SOME * spec.spread, 0) / (count + _SOME)),
        whole[:, 5] / (count + _SOME),
    ]
    for newest in sums[1:]:
        columns += [newest[:, 3] / (newest[:, 0] + _FEW), newest[:, 2] / (newest[:, 0] + _FEW)]
    return np.stack(columns, 1).astype(np.float32)


def pair_numbers(sums: np.ndarray, cand_user: np.ndarray, item: np.ndarray, tastes: Tastes) -> np.ndarray:
    """Return [N, 6] float32: what a person thinks of a candidate's categories, beside what they think of all.

    Columns `PAIR_NAMES`: mean above base over the candidate's categories, of the best, and of the worst; share of
    likes; events on them, and their share of all.

    Args:
        sums: of `person_sums`.
        cand_user: [N] int64 row of the person. item: [N] int64 item_index.
    """
    whole = sums[0]
    if not tastes.categories.shape[1]:
        return np.zeros((len(item), 6), np.float32)
    count = whole[:, :1]
    events, above, likes = np.split(whole[:, _OWN:], 3, axis=1)
    usual = [whole[:, 3:4] / (count + _FEW), whole[:, 2:3] / (count + _SOME)]
    taste = ((above - events * usual[0]) / (events + _SOME))[cand_user]
    liking = ((likes - events * usual[1]) / (events + _SOME))[cand_user]
    flags = tastes.categories[item]
    there = flags > 0
    many = np.maximum(flags.sum(1), 1)
    none = ~there.any(1)
    columns = [
        (taste * flags).sum(1) / many,
        np.where(none, 0, np.where(there, taste, -np.inf).max(1)),
        np.where(none, 0, np.where(there, taste, np.inf).min(1)),
        (liking * flags).sum(1) / many,
        (np.log1p(events)[cand_user] * flags).sum(1) / many,
        ((events / np.maximum(count, 1))[cand_user] * flags).sum(1) / many,
    ]
    return np.stack(columns, 1).astype(np.float32)


def _added(spec: TallySpec, tastes: Tastes, item: np.ndarray, value: np.ndarray) -> np.ndarray:
    value = value.astype(np.float64)
    base = tastes.base[item].astype(np.float64)
    like = (value >= spec.like_at) - spec.share
    above = value - spec.mean - base
    own = np.stack([np.ones(len(item)), value - spec.mean, like, above, np.square(above), base], 1)
    flags = tastes.categories[item]
    return np.concatenate([own, flags, flags * above[:, None], flags * like[:, None]], 1)
