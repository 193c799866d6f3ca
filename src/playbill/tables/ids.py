"""The ids seen so far, and numbers for them: all that a reader of large tables keeps beyond the batch at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from playbill.errors import TableError

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


class IdNumbers:
    """Numbers 0, 1, ... given to ids in the order in which they come, 24 bytes an id.

    Kept in sorted runs as in `IdSet`. Ids of one batch are looked up in sorted order: a look-up among ten million then
    walks memory forwards, six times as fast as in the order in which they come.

    Args:
        ids: the first ones, unique and without nulls (int64 or string).
    """

    def __init__(self, ids: pa.Array) -> None:
        self._runs: list[tuple[_Keys, _Keys, Numbers]] = []
        self._count = 0
        self.add(ids)

    def __len__(self) -> int:
        return self._count

    def look_up(self, ids: pa.Array) -> Numbers:
        """Return [n] int64, the number of each id; -1 where it has none, or is null."""
        keys, second = _keys(ids)
        keys, where, inverse = np.unique(keys, return_index=True, return_inverse=True)
        numbers: Numbers = self._find(keys, second[where])[inverse]
        return np.where(valid(ids), numbers, -1)

    def add(self, ids: pa.Array) -> pa.Array:
        """Give numbers to the ids that have none, in order of appearance, and return those; nulls are passed over.

        Raises:
            TableError: two ids share a hash of 64 bits.
        """
        ids = ids.filter(pa.array(valid(ids)))
        keys, second = _keys(ids)
        keys, where = np.unique(keys, return_index=True)
        unknown = self._find(keys, second[where]) < 0
        new = np.sort(where[unknown])
        added = ids.take(pa.array(new))
        if not len(new):
            return added
        numbers = np.searchsorted(new, where[unknown]) + self._count
        self._count += len(new)
        self._runs.append((keys[unknown], second[where[unknown]], numbers.astype(np.int64)))
        while len(self._runs) > 1 and len(self._runs[-2][0]) <= 2 * len(self._runs[-1][0]):
            late, early = self._runs.pop(), self._runs.pop()
            order = np.argsort(np.concatenate([early[0], late[0]]), kind="stable")
            merged = [np.concatenate([a, b])[order] for a, b in zip(early, late, strict=True)]
            if np.any(merged[0][1:] == merged[0][:-1]):
                # about 1 in 400,000 at ten million ids; without this the later one would be taken for nobody
                raise TableError("two different ids have the same 64-bit hash; write one of them differently")
            self._runs.append((merged[0], merged[1], merged[2]))
        return added

    def _find(self, keys: _Keys, second: _Keys) -> Numbers:
        numbers = np.full(len(keys), -1, np.int64)
        for run, run_second, run_numbers in self._runs:
            place = np.minimum(np.searchsorted(run, keys), len(run) - 1)
            found = (run[place] == keys) & (run_second[place] == second)
            numbers[found] = run_numbers[place[found]]
        return numbers


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
    import polars as pl  # late: whoever only asks if a run is finished should not wait for it

    texts = pl.Series(values=ids, dtype=pl.String)
    return texts.hash(seed=1).to_numpy(), texts.hash(seed=2).to_numpy()
