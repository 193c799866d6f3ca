"""Histories cut into windows and windows packed into steps, so that every event is learned and none is padding.

A window is a run of one person's events that are read, and the events among them and right behind them that are
learned. Each event is learned once an epoch: from the state before it, from an older state of the window (what comes
later and not next), or from nothing (what to show to a newcomer). Everything follows from (seed, epoch, step).

Shape legend: E pool rows, W windows, T events that a step reads, P events that it learns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.features.fold import EventPool

START = -1  # the state before a person's first event


@dataclass(slots=True)
class Windows:
    """W windows: pool rows low .. high are read, target_low .. target_high are learned; all [W] int64.

    A window begins a person's history where target_low equals low: only then the event at `low` is learned.
    """

    low: np.ndarray
    high: np.ndarray
    target_low: np.ndarray
    target_high: np.ndarray

    def __len__(self) -> int:
        return len(self.low)

    def take(self, chosen: np.ndarray) -> Windows:
        return Windows(self.low[chosen], self.high[chosen], self.target_low[chosen], self.target_high[chosen])


@dataclass(slots=True)
class Packed:
    """What one step reads and learns.

    Attributes:
        rows: [T] int64 pool rows that are read, oldest first in each window.
        offsets: [W + 1] int64 windows within `rows`.
        target_row: [P] int64 pool rows that are learned.
        state: [P] int64 place in `rows` of the newest event that each may know, or START.
        possible: [P] bool, False where the window holds nothing that came before, or the draw leaves it out.
    """

    rows: np.ndarray
    offsets: np.ndarray
    target_row: np.ndarray
    state: np.ndarray
    possible: np.ndarray


def epoch_windows(start: np.ndarray, end: np.ndarray, length: int, rng: np.random.Generator) -> Windows:
    """Return windows that read at most `length` events each and together learn every row of start .. end once.

    A longer history is cut at places that differ from epoch to epoch. Where that leaves less than half a window to
    learn, events before it are read along: a model that sees little learns little.

    Args:
        start, end: [P] int64 pool rows of each person that may be learned from. People without a row have no window.
        length: events of a window at most, at least 2.
        rng: of this epoch.
    """
    there = np.flatnonzero(end > start)
    start, end = start[there], end[there]
    read = np.maximum(end - start - 1, 1)  # the last event of a history is learned and never read
    phase = rng.integers(1, length + 1, len(start))
    pieces = np.where(read <= length, 1, 1 + -(-np.maximum(read - phase, 0) // length))
    person = np.repeat(np.arange(len(start)), pieces)
    place = np.arange(len(person)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    whole = pieces[person] == 1
    high = np.where(whole, read[person], np.minimum(phase[person] + place * length, read[person]))
    low = np.where(whole | (place == 0), 0, phase[person] + (place - 1) * length)
    target_low = start[person] + np.where(low == 0, 0, low + 1)
    low = np.maximum(np.minimum(low, high - length // 2), 0)
    # what begins a history only by reading along does not learn it again
    target_high = np.minimum(start[person] + high + 1, end[person])
    return Windows(start[person] + low, start[person] + high, target_low, target_high)


def step_of(windows: Windows, steps: int, mixed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (`mixed`, [steps + 1] int64 where each step begins in it).

    Steps read about as many events each; a window is never split.

    Args:
        mixed: [W] int64 windows in the epoch's order.
    """
    events = np.cumsum((windows.high - windows.low)[mixed])
    borders = np.arange(1, steps) * (events[-1] / steps)
    return mixed, np.concatenate([[0], np.searchsorted(events, borders), [len(mixed)]])


def pack(
    pool: EventPool,
    windows: Windows,
    strict: bool,
    stale: float,
    empty: float,
    rng: np.random.Generator,
    away_us: int = 0,
    visit_share: float = 1.0,
) -> Packed:
    """Return windows as one array of events, and from which state each event is learned.

    Args:
        strict: a state may only know moments before the event's; else the events before it in the person's order.
        stale: share of the events that are learned from an even draw among the older states of their window.
        empty: share that is learned from nothing.
        away_us: events of which the window holds some that are at least so much older are learned from those alone, as
            if asked while the person was away; 0 = all are learned as they come.
        visit_share: share of the others that is learned, where there is such a difference.
    """
    lengths = windows.high - windows.low
    rows, offsets = ranges(windows.low, lengths), np.concatenate([[0], np.cumsum(lengths)])
    count = windows.target_high - windows.target_low
    target = ranges(windows.target_low, count)
    low = np.repeat(windows.low, count)
    first = np.repeat(windows.target_low == windows.low, count)
    newest = target - 1
    if strict:
        newest = np.maximum(earlier(pool.at, target, low), low - 1)
    kept = np.ones(len(target), bool)
    if away_us:
        left = earlier(pool.at, target, low, away_us)
        newest = np.where(left >= low, left, newest)
        kept = (left >= low) | (rng.random(len(target)) < visit_share)
    oldest = low - first  # one before the window stands for START
    draw = rng.random((3, len(target)))
    back = oldest + np.floor(draw[0] * (newest - oldest + 1)).astype(np.int64)
    back = np.minimum(back, newest)  # where nothing is older, there is nothing to draw
    known = np.where(draw[1] < stale, back, newest)
    state = known - low + np.repeat(offsets[:-1], count)
    nothing = (known < low) & first
    return Packed(
        rows=rows,
        offsets=offsets,
        target_row=target,
        state=np.where(nothing | (draw[2] < empty) | (known < low), START, state),
        possible=kept & ((known >= low) | nothing | (draw[2] < empty)),
    )


def earlier(at: np.ndarray, rows: np.ndarray, least: np.ndarray, ago_us: int = 0) -> np.ndarray:
    """Return for each row the last one before it with an earlier moment, least - 1 where there is none. [n] int64.

    Args:
        ago_us: earlier by more than this, in microseconds.
    """
    low, high = least.copy(), rows.copy()  # the first row that is not earlier is in low .. high
    moment = at[rows] - ago_us
    while np.any(low < high):  # one binary search for all at once: moments do not fall within a person's rows
        middle = (low + high) // 2
        before = (low < high) & (at[middle] < moment)
        low, high = np.where(before, middle + 1, low), np.where(before | (low >= high), high, middle)
    return low - 1


def ranges(low: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return low[0] .. low[0] + lengths[0], then the next run, as one int64 array."""
    begins = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(low - begins, lengths)
