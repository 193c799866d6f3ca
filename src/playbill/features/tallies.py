"""Tallies of items: how often, how well liked, how lately, as of any moment.

A tally is a sum of what each event adds, and what an event adds never changes. So the same sums are had by summing a
log up to a moment (training, batch: `sums_before`) and by adding events as they come (serving: `ItemTallies.add`), in
any order, and one function turns sums into the numbers that models read (`item_numbers`). A moment's tallies hold what
came strictly before it: an event never counts itself, nor what shares its moment.

Sums that fade weigh an event by `2 ** (age / half life)` counted from a fixed origin and are scaled down when they are
read, so fading needs no clock that visits every item.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from playbill.errors import FeatureError
from playbill.features.encoder import DAY_US

_LIKELY = 5.0  # events that a share or a mean starts with, at the level of the whole log
_RECENT = [5, 20, 80]
_FURTHEST = 900.0  # half lives: 2 ** 900 is what float64 holds with room for sums


class TallySpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is counted, and the level of the log that counts start from. Values are those of histories (mapped).

    Attributes:
        like_at: a value of at least this is a like.
        mean, share, spread: mean value, share of likes and mean square around the mean, of the rows that taught.
        half_lives_days: one set of fading sums each.
        origin_us: UTC microseconds that fading counts from: the first event that taught.
        recent: newest events of a person that are tallied apart, one set of sums each.
    """

    like_at: float
    mean: float
    share: float
    spread: float
    half_lives_days: list[float]
    origin_us: int
    recent: list[int]

    @property
    def item_names(self) -> list[str]:
        """Names of the columns of `item_numbers`."""
        fading = [f"{n}_{h:g}d" for h in self.half_lives_days for n in ("log_count", "mean", "likes")]
        return ["log_count", "mean", "likes", "spread", *fading]


@dataclass(slots=True)
class ItemTallies:
    """Sums of every item; row 0 is the unknown item's and stays empty.

    Attributes:
        spec: what is summed.
        sums: [N + 1, W] float64, see `contributions`.
    """

    spec: TallySpec
    sums: np.ndarray

    def add(self, item: np.ndarray, value: np.ndarray, at: np.ndarray) -> None:
        """Count events, in any order; each once, which is for the caller to see to. Args: [n] each."""
        known = item > 0
        np.add.at(self.sums, item[known], contributions(self.spec, value[known], at[known]))

    def numbers(self, item: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Return [n, K] float32 for items at moments, `at` no earlier than any event counted. Args: [n] int64 each."""
        return item_numbers(self.spec, self.sums[item], at)

    def base(self) -> np.ndarray:
        """Return [N + 1] float32: by how much each item's values lie above the log's, drawn in where it has few."""
        return base_of(self.sums)


def learn_tallies(
    item: np.ndarray, value: np.ndarray, at: np.ndarray, num_items: int, like_at: float, half_lives_days: list[float]
) -> ItemTallies:
    """Return what a log says of each item.

    Args:
        item: [n] int64 item_index. value: [n] float32 mapped values. at: [n] int64 UTC microseconds.
        num_items: N.
        like_at: mapped value from which an event is a like.
        half_lives_days: each > 0.
    Raises:
        FeatureError: no events, or a half life too short for the span of the log.
    """
    if not len(item):
        raise FeatureError("there are no events to tally; check the split and the consent of the people")
    value = value.astype(np.float64)
    days = (int(at.max()) - int(at.min())) / DAY_US
    for half_life in half_lives_days:
        if not half_life > 0 or days / half_life > _FURTHEST / 2:  # the other half is for the future
            raise FeatureError(
                f"half life of {half_life:g} days: expected more than {2 * days / _FURTHEST:g}, since the log spans "
                f"{days:g} days"
            )
    mean = float(value.mean())
    spec = TallySpec(
        like_at=float(like_at),
        mean=mean,
        share=float((value >= like_at).mean()),
        spread=float(np.square(value - mean).mean()),
        half_lives_days=list(half_lives_days),
        origin_us=int(at.min()),
        recent=_RECENT,
    )
    found = ItemTallies(spec, np.zeros((num_items + 1, 4 + 3 * len(half_lives_days))))
    found.add(item, value, at)
    return found


def contributions(spec: TallySpec, value: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return [n, W] float64, what each event adds: count, value, like and square above the log's level; the first three
    again for each half life, grown by its age."""
    value = value.astype(np.float64)
    above, like = value - spec.mean, (value >= spec.like_at) - spec.share
    columns = [np.ones(len(value)), above, like, np.square(above) - spec.spread]
    days = (at - spec.origin_us) / DAY_US
    for half_life in spec.half_lives_days:
        grown = np.exp2(np.clip(days / half_life, -_FURTHEST, _FURTHEST))
        columns += [grown, grown * above, grown * like]
    return np.stack(columns, 1)


def item_numbers(spec: TallySpec, sums: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return [n, K] float32 for sums [n, W] read at moments [n]; columns `spec.item_names`."""
    count = sums[:, 0]
    drawn = sums[:, 1:4] / (count + _LIKELY)[:, None]
    columns = [np.log1p(count), drawn[:, 0], drawn[:, 1], np.sqrt(np.maximum(drawn[:, 2] + spec.spread, 0))]
    days = (at - spec.origin_us) / DAY_US
    for number, half_life in enumerate(spec.half_lives_days):
        faded = sums[:, 4 + 3 * number : 7 + 3 * number]
        faded = faded * np.exp2(-np.clip(days / half_life, -_FURTHEST, _FURTHEST))[:, None]
        columns += [np.log1p(faded[:, 0]), *(faded[:, 1:] / (faded[:, :1] + _LIKELY)).T]
    return np.stack(columns, 1).astype(np.float32)


def base_of(sums: np.ndarray) -> np.ndarray:
    """Return [n] float32 means above the log's level, of sums [n, W]."""
    return (sums[:, 1] / (sums[:, 0] + _LIKELY)).astype(np.float32)


def sums_before(
    key: np.ndarray, at: np.ndarray, added: np.ndarray, asked_key: np.ndarray, asked_at: np.ndarray
) -> np.ndarray:
    """Return [Q, W] float64: for each question the sum of what events of its key add strictly before its moment.

    Args:
        key, asked_key: [E], [Q] int64 >= 0.
        at, asked_at: [E], [Q] int64.
        added: [E, W] float64.
    """
    order = np.lexsort((at, key))
    sorted_key, added = key[order], added[order]
    starts = np.flatnonzero(np.diff(sorted_key, prepend=-1))
    # each key by itself: sums that fade grow by many powers of two, and the difference of two totals would lose digits
    for low, high in zip(starts, np.append(starts, len(key))[1:], strict=True):
        np.cumsum(added[low:high], axis=0, out=added[low:high])
    first, last = _span(sorted_key, at[order], asked_key, asked_at)
    found = np.zeros((len(asked_key), added.shape[1]))
    some = last > first
    found[some] = added[last[some] - 1]
    return found


def last_before(key: np.ndarray, at: np.ndarray, asked_key: np.ndarray, asked_at: np.ndarray) -> np.ndarray:
    """Return [Q] int64: the moment of the newest event of each key strictly before the moment asked for, -1 for none.

    Args:
        key, asked_key: [E], [Q] int64 >= 0. at, asked_at: [E], [Q] int64, `at` >= 0.
    """
    order = np.lexsort((at, key))
    sorted_at = at[order]
    first, last = _span(key[order], sorted_at, asked_key, asked_at)
    found = np.full(len(asked_key), -1, np.int64)
    some = last > first
    found[some] = sorted_at[last[some] - 1]
    return found


def _span(
    key: np.ndarray, at: np.ndarray, asked_key: np.ndarray, asked_at: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (first, last): rows first .. last of a log sorted by key and moment are those before what is asked."""
    # moments as ranks, so that key and moment make one number that is searched once
    moments = np.unique(at)
    width = len(moments) + 1
    known = key * width + np.searchsorted(moments, at)
    first = np.searchsorted(known, asked_key * width)
    return first, np.searchsorted(known, asked_key * width + np.searchsorted(moments, asked_at))
