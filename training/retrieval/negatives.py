"""Which items the sampled losses put beside the targets, and how probable each was to be there. Numpy alone."""

from __future__ import annotations

from enum import Enum

import numpy as np

from playbill.errors import ConfigError


class Negatives(Enum):
    """Where the negatives of a group come from. Always distinct, never item 0."""

    uniform = "uniform"  # the whole catalogue, evenly: also items that nobody touched are pushed down
    in_batch = "in_batch"  # targets of the step, hence by popularity: no vectors are computed beyond the targets'
    mixed = "mixed"  # tries of both kinds: popular items often, and every item sometimes


def draw(
    kind: Negatives,
    target: np.ndarray,
    groups: int,
    count: int,
    num_items: int,
    mixed_share: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the negatives of each group, [groups, K] int64 item_index, distinct inside a row.

    K is `count`, or fewer where there are not so many: the catalogue at most, and in_batch the distinct targets.
    Tries are made one after the other until K distinct items are found. In-batch tries are positions of the step, each
    once, in random order, and those of the group itself come last: a packed sequence lies in one group, so its own
    positions would put a person's later items among the negatives far more often than `log_inclusion` says.

    Args:
        kind: uniform, in_batch or mixed.
        target: [T] int64 item_index >= 1 of the positions with a loss, cut in runs of ceil(T / groups).
        groups: rows of the result.
        count: negatives wanted for each group.
        num_items: items of the catalogue, 1..num_items.
        mixed_share: mixed: share of the tries taken evenly from the catalogue, 0 < x < 1.
        rng: of this step and no other purpose (`batches.order.generator(..., NEGATIVES)`).

    Raises:
        ConfigError: no positions, or counts or share out of range.

    Source:
        J. Yang et al., Mixed Negative Sampling for Learning Two-tower Neural Networks in Recommendations (2020).
    """
    _check(count, mixed_share)
    if not len(target) or groups < 1:
        raise ConfigError(f"negatives need positions and groups, got {len(target)} position(s) and {groups} group(s)")
    if kind is Negatives.uniform:
        wanted = min(count, num_items)
        return np.stack([1 + rng.choice(num_items, wanted, replace=False) for _ in range(groups)])
    rows = [_first_distinct(kind, target, group, groups, count, num_items, mixed_share, rng) for group in range(groups)]
    least = min(len(row) for row in rows)
    return np.stack([row[:least] for row in rows])


def log_inclusion(
    kind: Negatives, events: np.ndarray, count: int, positions: int, mixed_share: float = 0.5
) -> np.ndarray:
    """Return the log of each item's probability to be among the negatives of a group, [N + 1] float32.

    An item that a try meets with probability p is among the items of n tries with probability 1 - (1 - p)^n; n is
    where these sum to `count`, and in_batch at most the positions of a step. To be computed once: it is the same for
    every step. Entry 0 is 0 and never read.

    Args:
        kind: as in `draw`.
        events: [N + 1] training positions whose target is the item; entry 0 is not read. Items without any count as
            one: should one turn up as a target after all, its logit stays finite.
        count: negatives of each group.
        positions: positions with a loss in a step.
        mixed_share: as in `draw`.

    Raises:
        ConfigError: no items or positions, or count or share out of range.
    """
    _check(count, mixed_share)
    num_items = len(events) - 1
    if num_items < 1 or positions < 1:
        raise ConfigError(f"negatives need items and positions, got {num_items} item(s) and {positions} position(s)")
    found = np.zeros(num_items + 1, dtype=np.float32)
    if kind is Negatives.uniform or count >= num_items and kind is Negatives.mixed:
        found[1:] = np.log(min(count, num_items) / num_items)
        return found
    share = np.maximum(events[1:], 1).astype(np.float64)
    share /= share.sum()
    if kind is Negatives.mixed:
        share = mixed_share / num_items + (1 - mixed_share) * share
    missed = np.log1p(-np.minimum(share, 1 - 1e-12))  # log of the probability that one try is another item
    most = float(positions) if kind is Negatives.in_batch else np.inf
    found[1:] = np.log(-np.expm1(_tries(missed, count, most) * missed))
    return found


def _tries(missed: np.ndarray, count: int, most: float) -> float:
    """Return how many tries find `count` distinct items on average, `most` at most."""
    low, high = 0.0, float(count)
    while -np.expm1(high * missed).sum() < count and high < most:
        low, high = high, high * 2
    high = min(high, most)
    for _ in range(30):  # to a billionth
        middle = (low + high) / 2
        low, high = (middle, high) if -np.expm1(middle * missed).sum() < count else (low, middle)
    return high


def _first_distinct(
    kind: Negatives,
    target: np.ndarray,
    group: int,
    groups: int,
    count: int,
    num_items: int,
    mixed_share: float,
    rng: np.random.Generator,
) -> np.ndarray:
    run = -(-len(target) // groups)
    begin, end = min(group * run, len(target)), min((group + 1) * run, len(target))
    others = np.concatenate([target[:begin], target[end:]])
    found = np.zeros(0, dtype=np.int64)
    for enough in (8 * count, len(target)):  # few tries suffice as a rule, and then the cost is no multiple of T
        if len(found) < count:
            tries = rng.choice(others, min(enough, len(others)), replace=False)
            if enough > len(others):
                tries = np.concatenate([tries, rng.permutation(target[begin:end])])
            if kind is Negatives.mixed:
                evenly = rng.random(len(tries)) < mixed_share
                tries[evenly] = rng.integers(1, num_items + 1, evenly.sum())
            found = tries[np.sort(np.unique(tries, return_index=True)[1])[:count]]
    if kind is Negatives.mixed and len(found) < min(count, num_items):
        # more negatives than the step can try for: the rest evenly, from what was not drawn
        left = np.setdiff1d(np.arange(1, num_items + 1), found, assume_unique=True)
        found = np.concatenate([found, rng.choice(left, min(count, num_items) - len(found), replace=False)])
    return found


def _check(count: int, mixed_share: float) -> None:
    if count < 1:
        raise ConfigError(f"the number of negatives must be >= 1, got {count}")
    if not 0 < mixed_share < 1:
        raise ConfigError(f"mixed_share must be above 0 and below 1, got {mixed_share}")
