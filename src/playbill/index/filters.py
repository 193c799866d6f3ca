"""Filters made ready, and exact search over what they leave.

A narrow allow-list destroys the recall of list and graph indexes silently (0.27 and 0.09 at 1 % eligible, measured),
so below the route's `narrow` share the eligible rows are searched exactly. Made ready once, their vectors lie in one
block, which is many times faster than gathering them for each search; so a filter that many requests share (what is
available, a market, a category) is worth preparing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from playbill.errors import SearchError
from playbill.index.item_index import ItemIndex
from playbill.index.settings import Kind

_CHUNK = 65_536  # rows scored at once by exact search: 16 MiB of vectors at width 64

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class Eligible:
    """A filter, ready for any number of searches of one index, by any number of threads.

    Attributes:
        rows: [E] int64 ascending, item_index values that are in the index and may come back.
        share: of the index's items, 0..1.
        vectors: [E, d] float32 of the rows, where they are few enough to be searched exactly.
        mask: [N + 1] bool.
        selector: for FAISS, where they are more.
    """

    rows: np.ndarray
    share: float
    vectors: np.ndarray | None
    mask: np.ndarray
    selector: Any = None


def prepare(index: ItemIndex, allowed: np.ndarray) -> Eligible:
    """Return a filter made ready for this index.

    Args:
        allowed: [N + 1] bool by item_index; copied.
    Raises:
        SearchError: another shape or dtype.
    """
    if allowed.dtype != np.bool_ or allowed.shape != (len(index.embeddings),):
        raise SearchError(
            f"allowed must be bool [{len(index.embeddings)}] by item_index, got {allowed.dtype} {allowed.shape}"
        )
    rows = np.flatnonzero(allowed[1:]) + 1 if index.held is None else index.held[allowed[index.held]]
    share = len(rows) / max(1, len(index))
    mask = allowed.copy()
    if share < index.route.narrow:
        return Eligible(rows, share, np.ascontiguousarray(index.embeddings[rows], np.float32), mask)
    listed = index.kind is not Kind.flat
    selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little")) if listed else None
    return Eligible(rows, share, None, mask, selector)


def exact(embeddings: Any, queries: np.ndarray, k: int, allowed: np.ndarray) -> Pair:
    """Return the exact top k among the allowed rows: the reference.

    Args:
        embeddings: [N + 1, d] float32.
        queries: [B, d] float32.
        k: items wanted.
        allowed: [N + 1] bool; row 0 is never returned.
    Returns:
        scores [B, m] float32 descending, item_index [B, m] int64, m = min(k, eligible); equal scores keep the lower
        index first.
    """
    return exact_rows(embeddings, queries, k, np.flatnonzero(allowed[1:]) + 1)


def exact_rows(embeddings: Any, queries: np.ndarray, k: int, rows: np.ndarray, together: bool = False) -> Pair:
    """Return the exact top k among some rows, as `exact` does.

    Args:
        rows: [E] int64 ascending.
        together: `embeddings` are those of the rows alone, [E, d].
    """
    best = np.empty((len(queries), 0), np.float32)
    items = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(rows), _CHUNK):
        some = rows[start : start + _CHUNK]
        vectors = embeddings[start : start + _CHUNK] if together else np.asarray(embeddings[some])
        scores = queries @ vectors.T
        order = top(scores, k)
        scores, found = np.take_along_axis(scores, order, 1), some[order]
        if start:
            # what is kept so far stands in front and has lower indices, so a stable sort settles ties as promised
            scores, found = np.concatenate([best, scores], 1), np.concatenate([items, found], 1)
            order = top(scores, k)
            scores, found = np.take_along_axis(scores, order, 1), np.take_along_axis(found, order, 1)
        best, items = scores, found
    return best, items


def top(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the columns of the k largest of each row, [B, min(k, M)] int64, equal ones in column order."""
    width = scores.shape[1]
    if k >= width:
        return np.argsort(-scores, axis=1, kind="stable")
    order = np.empty((len(scores), k), np.int64)
    if not k:
        return order
    cut = np.partition(scores, width - k, axis=1)[:, width - k]
    for row, (line, least) in enumerate(zip(scores, cut, strict=True)):
        columns = np.flatnonzero(line >= least)
        order[row] = columns[np.argsort(-line[columns], kind="stable")][:k]
    return order
