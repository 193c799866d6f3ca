"""Exact search of many queries at once: one product of matrices, and of each row its best few."""

from __future__ import annotations

import numpy as np

_SAMPLED = 16  # one score in so many is looked at for a bound


def best_of(scores: np.ndarray, most: int) -> np.ndarray:
    """Return [B, most] int64, the columns of each row's largest scores, largest first; equal ones the lower first.

    A bound below which nothing can be among them is read off a sample of the columns, so that a row is not put in
    order but for the few above it; a row whose sample misled is put in order in full.

    Args:
        scores: [B, N] float32, finite or -inf; N at least `most`.
    """
    rows, columns = scores.shape
    sample = scores[:, ::_SAMPLED]
    wanted = -(-3 * most // (2 * _SAMPLED)) + 4
    if wanted >= sample.shape[1]:
        return _ordered(scores, np.broadcast_to(np.arange(columns), scores.shape), most)
    place = sample.shape[1] - wanted
    bound = np.partition(sample, place, axis=1)[:, place]
    flat = np.flatnonzero(scores >= bound[:, None])
    owner = flat // columns
    counts = np.bincount(owner, minlength=rows)
    ends = np.cumsum(counts)
    slot = np.arange(len(flat)) - np.repeat(ends - counts, counts)
    above = np.full((rows, max(most, int(counts.max(initial=0)))), -1, np.int64)
    above[owner, slot] = flat - owner * columns
    value = np.where(above >= 0, np.take_along_axis(scores, np.maximum(above, 0), 1), np.float32(-np.inf))
    found = _ordered(value, above, most)
    # a bound of -inf lets everything through; too few above it means that the sample was luckier than the row
    short = np.flatnonzero(counts < most)
    if len(short):
        found[short] = _ordered(scores[short], np.broadcast_to(np.arange(columns), (len(short), columns)), most)
    return found


def _ordered(value: np.ndarray, named: np.ndarray, most: int) -> np.ndarray:
    """Return of each row the names of its largest values, largest first; equal ones in the order of their names.

    Args:
        value: [B, n] float32; `named` [B, n] int64 below 2^32, -1 of what is none, whose value is -inf.
    """
    # numbers that sort as the values do, upside down, with the name behind: whole numbers are sorted many at a time
    bits = (value + np.float32(0)).view(np.uint32)
    upside_down = np.where(bits >> 31, bits, ~bits & np.uint32(0x7FFFFFFF))
    keys = (upside_down.astype(np.uint64) << np.uint64(32)) | named.astype(np.uint32)
    keys.sort(axis=1)
    return keys[:, :most].astype(np.uint32).astype(np.int64)
