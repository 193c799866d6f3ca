"""What people had, as matrices: of a whole log, and of the newest items of some histories."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def binary(person: np.ndarray, item: np.ndarray, num_items: int) -> sp.csr_array:
    """Return [P, N + 1] float64 of 1 where a person had an item, however often; column 0 is empty."""
    kept = item > 0
    _, rows = np.unique(person[kept], return_inverse=True)
    num_people = int(rows.max()) + 1 if len(rows) else 0
    matrix = sp.coo_array((np.ones(len(rows)), (rows, item[kept])), shape=(num_people, num_items + 1)).tocsr()
    matrix.data[:] = 1
    return matrix


def newest_distinct(
    indptr: np.ndarray, item: np.ndarray, length: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the newest distinct known items of histories as (row, item, place), each [S] int64; place 0 is the newest.

    Args:
        indptr, item: B histories, CSR, oldest first; items 0 and below are passed over, a slice of a longer indptr is
            a valid one.
        length: items of each history at most; None takes all.
    """
    newest_first = item[indptr[0] : indptr[-1]][::-1]
    row = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))[::-1]
    kept = newest_first > 0
    newest_first, row = newest_first[kept], row[kept]
    if not len(row):
        return row, newest_first, row
    _, first = np.unique(row * (int(newest_first.max()) + 1) + newest_first, return_index=True)
    first.sort()
    newest_first, row = newest_first[first], row[first]
    starts = np.flatnonzero(np.append(True, row[1:] != row[:-1]))
    place = np.arange(len(row)) - np.repeat(starts, np.diff(np.append(starts, len(row))))
    if length is not None:
        kept = place < length
        newest_first, row, place = newest_first[kept], row[kept], place[kept]
    return row, newest_first, place


def had_matrix(indptr: np.ndarray, item: np.ndarray, num_items: int, length: int | None = None) -> sp.csr_array:
    """Return [B, N + 1] float32 of 1 where a history holds an item, however often; column 0 is empty.

    Args:
        indptr, item: as `newest_distinct` takes them.
        length: newest distinct items that count; None counts all.
    """
    row, known, _ = newest_distinct(indptr, item, length)
    shape = (len(indptr) - 1, num_items + 1)
    return sp.csr_array((np.ones(len(row), np.float32), (row, known)), shape=shape)
