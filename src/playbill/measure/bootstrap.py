"""What chance could have done: bootstrap intervals over users, and paired comparisons of two models on the same users.

Users are drawn, not events: one person's events are not independent of each other. All columns are resampled together,
so a difference is taken within each draw and two models that fail on the same hard users are compared fairly.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from playbill.errors import MeasureError

_USERS_AT_ONCE = 16_384  # drawn and summed together, so that they stay in the processor's cache
_DRAWN_AT_ONCE = 4_000_000  # users of all resamples held in memory, 32 MB


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over users with a bootstrap interval. `value` is the sample's own mean, not the resamples' mean."""

    value: float
    low: float
    high: float


def resampled_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return the means of resamples of users, drawn with replacement; every column sees the same draws.

    Args:
        values: [U, M] float, one row a user.
        resamples: R >= 1.
        seed: of the draws; equal seeds and U give equal draws.
    Returns:
        [R, M] float64.
    Raises:
        MeasureError: no users, not [U, M], or a value that is not finite; names the row.
    Source:
        Efron 1979; the percentile interval of Efron and Tibshirani 1993, ch. 13.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not len(values):
        raise MeasureError(f"values must be [users, columns] with at least one user, got shape {values.shape}")
    if resamples < 1:
        raise MeasureError(f"resamples must be >= 1, got {resamples}")
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise MeasureError(f"row {bad[0][0]}, column {bad[0][1]}: {values[tuple(bad[0])]} is not a number")
    users = len(values)
    draw = np.random.default_rng(seed)
    blocks = [values[low : low + _USERS_AT_ONCE] for low in range(0, users, _USERS_AT_ONCE)]
    # first how many of a resample come from each block of users, then whom
    from_block = draw.multinomial(users, [len(block) / users for block in blocks], size=resamples).T
    at_once = max(1, _DRAWN_AT_ONCE // len(blocks[0]))
    times = np.empty((min(at_once, resamples), len(blocks[0])))
    sums = np.zeros((resamples, values.shape[1]))
    for block, drawn in zip(blocks, from_block, strict=True):
        size = len(block)
        for start in range(0, resamples, at_once):
            some = drawn[start : start + at_once]
            for row, n in enumerate(some):
                times[row, :size] = np.bincount(draw.integers(size, size=n), minlength=size)
            sums[start : start + at_once] += times[: len(some), :size] @ block
    return sums / users


def intervals(
    values: Mapping[str, np.ndarray], *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> dict[str, Interval]:
    """Return the mean and interval of each column.

    Args:
        values: [U] float by name, all of the same users in the same order.
        resamples, seed: see `resampled_means`.
        level: share of resamples inside the interval, 0 < level < 1.
    Raises:
        MeasureError: columns of different length, no users, or a value that is not finite.
    """
    if not 0 < level < 1:
        raise MeasureError(f"level must lie between 0 and 1, got {level}")
    if not values:
        return {}
    lengths = {name: np.shape(v) for name, v in values.items()}
    if len(set(lengths.values())) != 1:
        raise MeasureError(f"columns must have one length, that of the users, got {lengths}")
    table = np.stack([np.asarray(v, np.float64) for v in values.values()], axis=1)
    means = resampled_means(table, resamples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {
        name: Interval(value=float(table[:, i].mean()), low=float(low[i]), high=float(high[i]))
        for i, name in enumerate(values)
    }


def compare(
    ours: Mapping[str, np.ndarray],
    theirs: Mapping[str, np.ndarray],
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Return `ours - theirs` with its interval, for each metric that both have; the users must be the same ones.

    Args:
        ours, theirs: [U] float by metric name, row u of both is user u.
        resamples, seed, level: see `intervals`.
    Raises:
        MeasureError: the two have no metric in common, or different users.
    """
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise MeasureError(f"nothing to compare: {sorted(ours)} and {sorted(theirs)} share no metric")
    for name in shared:
        shapes = np.shape(ours[name]), np.shape(theirs[name])
        if shapes[0] != shapes[1]:
            raise MeasureError(f"{name}: a paired comparison needs the same users, got {shapes[0]} and {shapes[1]}")
    differences = {name: np.asarray(ours[name]) - np.asarray(theirs[name]) for name in shared}
    return intervals(differences, resamples=resamples, seed=seed, level=level)
