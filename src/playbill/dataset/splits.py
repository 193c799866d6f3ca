"""Splits by time: one moment for everybody, or each person's last events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.dataset.arrays import read_blocks
from playbill.dataset.settings import SplitKind, SplitSettings
from playbill.errors import ConfigError
from playbill.features.fold import EventPool

PARTS = {"train": 0, "valid": 1, "test": 2}


@dataclass(slots=True)
class Split:
    """Which part each row of a pool belongs to.

    Attributes:
        kind: the rule.
        part: [E] int8, see PARTS.
        train_until_us: first moment (UTC microseconds) that is not training time; for leave-last-out, which has no such
            moment, one microsecond after the last event.
        valid_until_us: first moment of test time, likewise.
    """

    kind: SplitKind
    part: np.ndarray
    train_until_us: int
    valid_until_us: int


def split_pool(pool: EventPool, settings: SplitSettings) -> Split:
    """Return the split of folded events; for leave-last-out in the order in which the pool stands."""
    if settings.kind is SplitKind.global_time:
        train_until, valid_until = global_time(pool.at, settings.train, settings.valid)
        part = (pool.at >= train_until).astype(np.int8) + (pool.at >= valid_until).astype(np.int8)
        return Split(settings.kind, part, train_until, valid_until)
    after = int(pool.at.max()) + 1 if len(pool) else 0
    return Split(settings.kind, leave_last_out(pool.offsets), after, after)


def global_time(at: np.ndarray, train: float = 0.8, valid: float = 0.1) -> tuple[int, int]:
    """Return the two moments (UTC microseconds) at which training and validation time end; each is exclusive.

    The shares are of events, not of the calendar. Events of one moment always fall on one side, so a boundary is moved
    to whichever end of such a group comes nearer to the share asked for.

    Args:
        at: [E] int64 UTC microseconds, in any order.
        train, valid: shares of the E events.
    """
    return _boundary(at, train), _boundary(at, train + valid)


def _boundary(at: np.ndarray, share: float) -> int:
    if not len(at):
        return 0
    wanted = share * len(at)
    nearest = smallest(at, min(round(wanted), len(at) - 1))
    low = high = 0
    later = []
    for block in read_blocks(at):
        low += int((block < nearest).sum())
        high += int((block <= nearest).sum())
        after = block[block > nearest]
        later += [int(after.min())] if len(after) else []
    return nearest if abs(low - wanted) <= abs(high - wanted) else min(later, default=nearest + 1)


def smallest(values: np.ndarray, rank: int) -> int:
    """Return the value that would stand at a rank (0-based) if the values were sorted; they are only counted.

    Each pass over the values counts them by their next 16 bits, so memory does not grow with them.

    Args:
        values: [n] int64, in memory or mapped.
        rank: 0 <= rank < n.
    """
    low = min(int(block.min()) for block in read_blocks(values))
    high = max(int(block.max()) for block in read_blocks(values))
    while low < high:
        shift = max((high - low).bit_length() - 16, 0)
        counts = np.zeros(((high - low) >> shift) + 1, np.int64)
        for block in read_blocks(values):
            inside = block[(block >= low) & (block <= high)]
            counts += np.bincount((inside - low) >> shift, minlength=len(counts))
        up_to = np.cumsum(counts)
        bucket = int(np.searchsorted(up_to, rank, side="right"))
        rank -= int(up_to[bucket - 1]) if bucket else 0
        low, high = low + (bucket << shift), min(high, low + ((bucket + 1) << shift) - 1)
    return low


def leave_last_out(offsets: np.ndarray) -> np.ndarray:
    """Return [E] int8 parts: a person's last row is test, the one before it valid, all others train.

    Somebody with fewer than three events trains only: there would be nothing left to learn from.

    Args:
        offsets: [P + 1] int64 of a pool whose rows stand in each person's order; who comes last among events of one
            moment must not hang on the item.
    """
    part = np.zeros(int(offsets[-1]), np.int8)
    enough = np.flatnonzero(np.diff(offsets) >= 3)
    part[offsets[enough + 1] - 1] = PARTS["test"]
    part[offsets[enough + 1] - 2] = PARTS["valid"]
    return part


def part_number(part: str) -> int:
    """Return the number of a part.

    Raises:
        ConfigError: no such part.
    """
    if part not in PARTS:
        raise ConfigError(f"no part {part!r}; parts are {', '.join(PARTS)}")
    return PARTS[part]
