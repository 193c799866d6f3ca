"""The ids seen so far: the one thing that validation keeps in memory beyond the batch at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

Bools = np.ndarray[Any, np.dtype[np.bool_]]
Numbers = np.ndarray[Any, np.dtype[np.int64]]
_Keys = np.ndarray[Any, np.dtype[np.uint64]]


class IdSet:
    """A set of ids that takes 16 bytes an id.

    Keys stand in sorted runs, merged when two have about the same length: adding n ids costs O(n log n) in all, a
    look-up searches O(log n) runs. Whole numbers are exact. A text is known by two hashes of 64 bits, of which the
    first is sorted: with a hundred million ids the chance that a new one is taken for a known one is about 1e-22.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[_Keys, _Keys]] = []

    def __len__(self) -> int:
        return sum(len(first) for first, _ in self._runs)

    def contains(self, ids: pa.Array) -> Bools:
        """Return [n] bool: which ids (int64 or string) are in the set; null is in no set."""
        return self._found(*_keys(ids)) & valid(ids)

    def add(self, ids: pa.Array) -> None:
        """Add ids (int64 or string); nulls and ids that are in already are passed over."""
        first, second = _keys(ids.filter(pa.array(valid(ids))))
        first, where = np.unique(first, return_index=True)
        second = second[where]
        new = ~self._found(first, second)
        if not new.any():
            return
        self._runs.append((first[new], second[new]))
        while len(self._runs) > 1 and len(self._runs[-2][0]) <= 2 * len(self._runs[-1][0]):
            (late, late_second), (early, early_second) = self._runs.pop(), self._runs.pop()
            first = np.concatenate([early, late])
            order = np.argsort(first, kind="stable")  # timsort: merges two sorted runs in linear time
            self._runs.append((first[order], np.concatenate([early_second, late_second])[order]))

    def _found(self, first: _Keys, second: _Keys) -> Bools:
        found = np.zeros(len(first), dtype=np.bool_)
        for run, run_second in self._runs:
            place = np.minimum(np.searchsorted(run, first), len(run) - 1)
            found |= (run[place] == first) & (run_second[place] == second)
        return found


def valid(array: pa.Array) -> Bools:
    """Return [n] bool: which cells are not null."""
    result: Bools = array.is_valid().to_numpy(zero_copy_only=False).astype(np.bool_)
    return result


def codes(ids: pa.Array) -> tuple[Numbers, int]:
    """Return [n] int64, the number of each row's id among the distinct ids of this batch, and how many those are."""
    first, second = _keys(ids)
    # 128 bits folded to 64 by an odd multiplier: whole numbers (second = 0) stay exact
    _, inverse = np.unique(first ^ (second * np.uint64(0x9E3779B97F4A7C15)), return_inverse=True)
    inverse = inverse.astype(np.int64)
    return inverse, int(inverse.max()) + 1 if len(inverse) else 0


def _keys(ids: pa.Array) -> tuple[_Keys, _Keys]:
    if pa.types.is_integer(ids.type):
        numbers: _Keys = ids.fill_null(0).to_numpy().view(np.uint64)
        return numbers, np.zeros(len(ids), dtype=np.uint64)
    if not len(ids):
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint64)
    texts = pl.Series(values=ids, dtype=pl.String)
    return texts.hash(seed=1).to_numpy(), texts.hash(seed=2).to_numpy()
