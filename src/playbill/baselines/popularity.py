"""Popularity and trending: the same list for everybody, from counts of events."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from playbill.errors import FeatureError
from playbill.tables.files import write_atomic

DAY_US = 86_400_000_000


def popularity(item: np.ndarray, num_items: int) -> np.ndarray:
    """Return [N + 1] float32, the number of events of each item, higher is better; row 0 (unknown) is -inf.

    Args:
        item: [E] int64 item_index of events; 0 is ignored.
        num_items: N.
    """
    return _scores(item, None, num_items)


def trending(
    item: np.ndarray,
    at: np.ndarray,
    num_items: int,
    now_us: int,
    half_life_days: float = 7.0,
    window_days: float | None = None,
) -> np.ndarray:
    """Return [N + 1] float32, each item's events weighted by 0.5 ** (age / half-life); row 0 (unknown) is -inf.

    All weights are divided by that of the newest event used, so that a log which ended long ago still ranks its items
    instead of vanishing in rounding.

    Args:
        item: [E] int64 item_index of events; 0 is ignored.
        at: [E] int64 UTC microseconds, in any order; events at or after `now_us` are ignored.
        num_items: N.
        now_us: the moment of asking.
        half_life_days: real time after which an event counts half.
        window_days: events older than this are ignored; None keeps all.
    Raises:
        ValueError: half-life or window not above 0.
    """
    if not half_life_days > 0 or (window_days is not None and not window_days > 0):
        raise ValueError(f"half_life_days and window_days must be above 0, got {half_life_days} and {window_days}")
    used = at < now_us
    if window_days is not None:
        used &= at >= now_us - window_days * DAY_US
    item, at = item[used], at[used]
    newest = at.max() if len(at) else now_us
    return _scores(item, 0.5 ** ((newest - at) / (half_life_days * DAY_US)), num_items)


def repeat_scores(scores: np.ndarray, num_queries: int) -> np.ndarray:
    """Return [B, N + 1] float32: the same scores for each of B queries, as a view that must not be written to."""
    return np.broadcast_to(scores, (num_queries, len(scores)))


def write_scores(path: Path | str, scores: np.ndarray) -> None:
    """Write [N + 1] float32 scores as .npy."""
    buffer = io.BytesIO()
    np.save(buffer, scores.astype(np.float32), allow_pickle=False)
    write_atomic(path, buffer.getvalue())


def read_scores(path: Path | str) -> np.ndarray:
    """Return what `write_scores` wrote.

    Raises:
        FeatureError: not a file of scores.
    """
    try:
        scores = np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FeatureError(f"{path} holds no scores: {error}") from error
    if not isinstance(scores, np.ndarray) or scores.ndim != 1 or scores.dtype != np.float32:
        raise FeatureError(f"{path} holds no scores: expected one row of float32")
    return scores


def _scores(item: np.ndarray, weights: np.ndarray | None, num_items: int) -> np.ndarray:
    scores = np.bincount(item, weights, minlength=num_items + 1).astype(np.float32)
    if len(scores) != num_items + 1:
        raise ValueError(f"item_index {len(scores) - 1} is beyond the {num_items} known items")
    scores[0] = -np.inf
    return scores
