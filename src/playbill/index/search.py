"""Searching: k best of what a request may see, each item once, no padding.

Filters are routed by how much they leave. Leaving out a few items (seen, blocked) asks for that many more and drops
them, which keeps the fast kernel of a flat index. A narrow allow-list destroys the recall of list indexes silently
(0.27 at 1 % eligible), so under `NARROW` of the catalogue the eligible rows are searched exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np

from playbill.errors import SearchError
from playbill.index.item_index import ItemIndex
from playbill.index.settings import Kind

NARROW = 0.2

_CHUNK = 65_536  # rows scored at once by exact search: 16 MiB of vectors at width 64

Pair = tuple[np.ndarray, np.ndarray]
Found = tuple[list[np.ndarray], list[np.ndarray]]


def search(
    index: ItemIndex,
    queries: np.ndarray,
    k: int,
    exclude: Sequence[np.ndarray] | None = None,
    allowed: np.ndarray | None = None,
) -> Found:
    """Return the k nearest eligible items of each query, best first.

    Args:
        index: what to search.
        queries: [B, d] float32.
        k: items wanted for each query.
        exclude: B arrays of item_index to leave out, one for each query.
        allowed: [N + 1] bool by item_index, items that may come back at all; None allows every item.
    Returns:
        scores: B arrays of float32, descending inner product; item_index: B arrays of int64. An array is shorter than k
        exactly when fewer items are eligible (list indexes: or fewer stand in the lists they visit).
    Raises:
        SearchError: shapes that do not fit the index; names both.
    """
    queries = np.ascontiguousarray(queries, np.float32)
    num_queries = _check(index, queries, k, exclude, allowed)
    if exclude is None:
        nearest = _nearest(index, queries, min(k, len(index)), allowed)
        there = [item > 0 for item in nearest[1]]  # -1 pads a short answer, 0 is the unknown item
        best, found = ([row[keep][:k] for row, keep in zip(rows, there, strict=True)] for rows in nearest)
        return best, found
    scores: list[np.ndarray] = [_NO_SCORE] * num_queries
    items: list[np.ndarray] = [_NOTHING] * num_queries
    # one person's long past must not make everybody's search long: rows are grouped by how many results they need
    need = np.minimum(k + np.fromiter(map(len, exclude), np.int64, num_queries), len(index))
    size = np.where(need > k, 2 ** np.ceil(np.log2(np.maximum(need, 1))).astype(np.int64), need)
    for wanted in np.unique(size).tolist():
        rows = np.flatnonzero(size == wanted).tolist()
        found_scores, found_items = _nearest(index, queries[rows], min(wanted, len(index)), allowed)
        for row, score, item in zip(rows, found_scores, found_items, strict=True):
            keep = item > 0  # -1 pads a short answer, 0 is the unknown item
            if len(exclude[row]):
                keep &= ~np.isin(item, exclude[row])
            scores[row], items[row] = score[keep][:k], item[keep][:k]
    return scores, items


def exact(embeddings: np.ndarray, queries: np.ndarray, k: int, allowed: np.ndarray) -> Pair:
    """Return the exact top k among the allowed rows: the reference, and the road of narrow filters.

    Args:
        embeddings: [N + 1, d] float32.
        queries: [B, d] float32.
        k: items wanted.
        allowed: [N + 1] bool; row 0 is never returned.
    Returns:
        scores [B, m] float32 descending, item_index [B, m] int64, m = min(k, eligible); equal scores keep the lower
        index first.
    """
    eligible = np.flatnonzero(allowed[1:]) + 1
    best = np.empty((len(queries), 0), np.float32)
    items = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(eligible), _CHUNK):
        rows = eligible[start : start + _CHUNK]
        # what is kept so far stands in front and has lower indices, so a stable sort settles ties as promised
        scores = np.concatenate([best, queries @ np.asarray(embeddings[rows]).T], 1)
        order = _top(scores, k)
        items = np.take_along_axis(np.concatenate([items, np.tile(rows, (len(queries), 1))], 1), order, 1)
        best = np.take_along_axis(scores, order, 1)
    return best, items


def _top(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the columns of the k largest of each row, [B, min(k, M)] int64, equal ones in column order."""
    width = scores.shape[1]
    if k >= width:
        return np.argsort(-scores, axis=1, kind="stable")
    cut = np.partition(scores, width - k, axis=1)[:, width - k]
    order = np.empty((len(scores), k), np.int64)
    for row, (line, least) in enumerate(zip(scores, cut, strict=True)):
        columns = np.flatnonzero(line >= least)
        order[row] = columns[np.argsort(-line[columns], kind="stable")][:k]
    return order


def _nearest(index: ItemIndex, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> Pair:
    """Return scores and ids, [B, up to k + 1], padded with id -1 where FAISS finds too few."""
    if k == 0:
        return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    if allowed is not None and index.kind is not Kind.FLAT and _share(allowed) < NARROW:
        held = np.zeros(len(allowed), bool)
        held[index.ids()] = True
        return exact(index.embeddings, queries, k, held & allowed)
    parameters = None if allowed is None else _parameters(index, allowed)
    # row 0 of the refined kind, the unknown item, takes a place in its answer
    wanted = k + (index.kind is Kind.IVF_PQ)
    found: Pair = index.faiss_index.search(queries, wanted, params=parameters)
    return found


def _share(allowed: np.ndarray) -> float:
    return float(np.count_nonzero(allowed[1:])) / max(1, len(allowed) - 1)


def _parameters(index: ItemIndex, allowed: np.ndarray) -> Any:
    """Return search parameters of the class that the index takes; FAISS ignores those of another class silently."""
    selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
    if index.kind is Kind.FLAT:
        return faiss.SearchParameters(sel=selector)
    ivf = faiss.extract_index_ivf(index.faiss_index)
    # a filter thins every list: twice the lists keep the recall of the unfiltered search down to a fifth
    lists = faiss.SearchParametersIVF(sel=selector, nprobe=min(2 * ivf.nprobe, ivf.nlist))
    if index.kind is Kind.IVF_SQ8:
        return lists
    return faiss.IndexRefineSearchParameters(k_factor=index.faiss_index.k_factor, base_index_params=lists)


_NOTHING = np.empty(0, np.int64)
_NO_SCORE = np.empty(0, np.float32)


def _check(
    index: ItemIndex,
    queries: np.ndarray,
    k: int,
    exclude: Sequence[np.ndarray] | None,
    allowed: np.ndarray | None,
) -> int:
    if queries.ndim != 2 or queries.shape[1] != index.width:
        raise SearchError(
            f"queries have shape {queries.shape}, the index holds vectors of {index.width} columns; "
            "query tower and index must come from the same bundle"
        )
    if k < 0:
        raise SearchError(f"k must not be negative, got {k}")
    if exclude is not None and len(exclude) != len(queries):
        raise SearchError(f"{len(exclude)} exclusion lists for {len(queries)} queries; give one for each")
    if allowed is not None and (allowed.dtype != np.bool_ or allowed.shape != (len(index.embeddings),)):
        raise SearchError(
            f"allowed must be bool [{len(index.embeddings)}] by item_index, got {allowed.dtype} {allowed.shape}"
        )
    return len(queries)
