"""Searching: k best of what a request may see, each item once, no padding.

Filters are routed by how much they leave, see `filters`. Leaving out a few items (seen, blocked) asks for that many
more and drops them, which keeps the fast kernel of a flat index; so does a filter of a flat index that leaves most.
Kinds that keep compressed vectors have what they found scored again exactly, together with the hot items: what people
want is concentrated, and where query and item vectors point in different directions (towers trained on few events make
them so) lists and graphs lead elsewhere, while the few items that are near to anybody are quickly compared with
everybody. A search that comes back short although more is eligible, as deep ones do of which few lists have been looked
at, is done again in more lists, and where that would be a large part of all, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np

from playbill.errors import SearchError
from playbill.index.filters import Eligible, Pair, exact, exact_rows, prepare, top
from playbill.index.item_index import ItemIndex, effort_of
from playbill.index.settings import Kind

__all__ = ["Found", "exact", "search"]

Found = tuple[list[np.ndarray], list[np.ndarray]]
_WIDER, _SPARE, _MOST_LISTS = 4, 2.0, 0.25  # lists are of uneven length; beyond a quarter of them all rows are as quick


def search(
    index: ItemIndex,
    queries: np.ndarray,
    k: int,
    exclude: Sequence[np.ndarray] | None = None,
    allowed: np.ndarray | Eligible | None = None,
) -> Found:
    """Return the k nearest eligible items of each query, best first.

    Args:
        index: what to search.
        queries: [B, d] float32.
        k: items wanted for each query.
        exclude: B arrays of item_index to leave out, one for each query.
        allowed: [N + 1] bool by item_index, items that may come back at all, or that made ready by `prepare`; None
            allows every item.
    Returns:
        scores: B arrays of float32, descending inner product; item_index: B arrays of int64. An array is shorter than k
        exactly when fewer items are eligible.
    Raises:
        SearchError: shapes that do not fit the index, or a query that is not finite; names both.
    """
    queries = np.ascontiguousarray(queries, np.float32)
    num_queries = check_queries(queries, index.width, k, exclude)
    eligible = prepare(index, allowed) if isinstance(allowed, np.ndarray) else allowed
    most = len(index) if eligible is None else len(eligible.rows)
    if exclude is None:
        best, nearest = _nearest(index, queries, min(k, most), eligible)
        if (nearest[:, -1:] >= 0).all():  # -1 pads a short answer
            return list(best), list(nearest)
        there = nearest >= 0
        return [row[keep] for row, keep in zip(best, there, strict=True)], [
            row[keep] for row, keep in zip(nearest, there, strict=True)
        ]
    scores: list[np.ndarray] = [_NO_SCORE] * num_queries
    items: list[np.ndarray] = [_NOTHING] * num_queries
    # one person's long past must not make everybody's search long: rows are grouped by how many results they need
    need = np.minimum(k + np.fromiter(map(len, exclude), np.int64, num_queries), most)
    size = np.where(need > k, 2 ** np.ceil(np.log2(np.maximum(need, 1))).astype(np.int64), need)
    for wanted in np.unique(size).tolist():
        rows = np.flatnonzero(size == wanted).tolist()
        found_scores, found_items = _nearest(index, queries[rows], min(wanted, most), eligible)
        for row, score, item in zip(rows, found_scores, found_items, strict=True):
            keep = item >= 0
            if len(exclude[row]):
                keep &= ~np.isin(item, exclude[row])
            scores[row], items[row] = score[keep][:k], item[keep][:k]
    return scores, items


def check_queries(queries: np.ndarray, width: int, k: int, exclude: Sequence[np.ndarray] | None) -> int:
    """Return the number of queries.

    Raises:
        SearchError: another width, a negative k, not one list of exclusions for each query.
    """
    if queries.ndim != 2 or queries.shape[1] != width:
        raise SearchError(
            f"queries have shape {queries.shape}, the index holds vectors of {width} columns; "
            "query tower and index must come from the same bundle"
        )
    if k < 0:
        raise SearchError(f"k must not be negative, got {k}")
    if exclude is not None and len(exclude) != len(queries):
        raise SearchError(f"{len(exclude)} exclusion lists for {len(queries)} queries; give one for each")
    return len(queries)


def _nearest(index: ItemIndex, queries: np.ndarray, k: int, eligible: Eligible | None) -> Pair:
    """Return scores and ids, [B, k] each, best first, padded with id -1 at the end; k is at most what is eligible."""
    if k == 0:
        return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    if eligible is not None and eligible.vectors is not None:
        return exact_rows(eligible.vectors, queries, k, eligible.rows, together=True)
    if index.kind is Kind.flat:
        scores, items = _flat(index, queries, k, eligible)
    else:
        share = 1.0 if eligible is None else eligible.share
        effort = max(1, index.route.effort(k, share, effort_of(index)))
        if eligible is not None or (index.route.steps and k > index.route.steps[0].depth):
            effort = max(effort, _holding(index, k, share))  # else it may be full of the second best, and not short
        scores, items = _approximate(index, queries, k, eligible, effort)
        if index.parts > 1 and index.kind is not Kind.hnsw:
            return scores, items
        short = _short(queries, items)
        if len(short) and (wider := _wider(index, k, share, effort)):
            scores[short], items[short] = _approximate(index, queries[short], k, eligible, wider)
    short = _short(queries, items)
    if not len(short):
        return scores, items
    if eligible is not None:
        scores[short], items[short] = exact_rows(index.embeddings, queries[short], k, eligible.rows)
    elif index.held is None:  # all rows as they lie, none gathered
        found = exact_rows(index.embeddings[1:], queries[short], k, index.ids(), together=True)
        scores[short], items[short] = found
    else:
        scores[short], items[short] = exact_rows(index.embeddings, queries[short], k, index.held)
    return scores, items


def _short(queries: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return the rows that want more than was found; a query that is not finite finds nothing, also exactly."""
    short = items[:, -1] < 0
    return np.flatnonzero(short & np.isfinite(queries).all(1)) if short.any() else _NOTHING


def _holding(index: ItemIndex, k: int, share: float) -> int:
    """Return how many lists hold twice as many eligible items as are wanted, all parts together; 0 without lists."""
    if index.kind in (Kind.flat, Kind.hnsw):
        return 0
    lists: int = index.faiss_index.nlist
    return math.ceil(_SPARE * index.route.rescore * k * lists / max(share * len(index) * index.parts, 1e-9))


def _wider(index: ItemIndex, k: int, share: float, effort: int) -> int:
    """Return in how many lists to look again, 0 where there are no lists or it were too many of them."""
    if index.kind in (Kind.flat, Kind.hnsw):
        return 0
    wider = max(_WIDER * effort, _holding(index, k, share))
    return wider if wider <= _MOST_LISTS * index.faiss_index.nlist else 0


def _flat(index: ItemIndex, queries: np.ndarray, k: int, eligible: Eligible | None) -> Pair:
    """Search every vector; a filter asks for more and drops, as a selector costs FAISS its fast kernel."""
    if eligible is None:
        found: Pair = index.faiss_index.search(queries, k)
        return found
    share = eligible.share
    # so many that k eligible ones are among them in all but rare cases, if the filter has nothing to do with the query
    wanted = k if share >= 1 else round((k + 4 * (k * (1 - share)) ** 0.5 + 8) / share)
    return _drop(index.faiss_index.search(queries, min(wanted, len(index))), eligible.mask, k)


def _drop(found: Pair, mask: np.ndarray, k: int) -> Pair:
    """Return the first k of each row that the mask lets through, padded with -1."""
    scores, items = found
    keep = mask[np.maximum(items, 0)] & (items > 0)
    order = np.argsort(~keep, axis=1, kind="stable")[:, :k]
    best, chosen = np.take_along_axis(scores, order, 1), np.take_along_axis(items, order, 1)
    return best, np.where(np.take_along_axis(keep, order, 1), chosen, -1)


def _approximate(index: ItemIndex, queries: np.ndarray, k: int, eligible: Eligible | None, effort: int) -> Pair:
    wanted = min(round(index.route.rescore * k), len(index))
    scores, items = index.faiss_index.search(queries, wanted, params=parameters(index, effort, wanted, eligible))
    if index.kind is Kind.hnsw and index.hot is None:
        return scores, items
    return _rescored(index, queries, items, k, eligible)


def parameters(index: ItemIndex, effort: int, wanted: int, eligible: Eligible | None) -> Any:
    """Return search parameters of the class that the index takes; FAISS ignores those of another class silently.

    They are made for each search: FAISS writes into those of a mapped index while it searches, the selector it only
    reads.
    """
    selector = None if eligible is None else eligible.selector
    if index.kind is Kind.hnsw:
        return faiss.SearchParametersHNSW(sel=selector, efSearch=max(effort, wanted))
    return faiss.SearchParametersIVF(sel=selector, nprobe=min(effort, index.faiss_index.nlist))


def _rescored(index: ItemIndex, queries: np.ndarray, items: np.ndarray, k: int, eligible: Eligible | None) -> Pair:
    """Return the best k of what was found and of the hot items, by exact vectors, [B, k] each, padded with id -1."""
    best = np.full((len(queries), k), -np.inf, np.float32)
    chosen = np.full((len(queries), k), -1, np.int64)
    hot, hot_scores, cold = index.hot_ids, None, index.cold
    if hot is not None and index.hot is not None:
        vectors = index.hot
        if eligible is not None:
            keep = eligible.mask[hot]
            hot, vectors = hot[keep], vectors[keep]
        hot_scores = queries @ vectors.T
    for row, (query, found) in enumerate(zip(queries, items, strict=True)):
        ids = found[found > 0] if cold is None else found[cold[found]]
        scores = index.embeddings[ids] @ query
        if hot is not None and hot_scores is not None:
            scores, ids = np.concatenate([hot_scores[row], scores]), np.concatenate([hot, ids])
        order = top(scores[None], k)[0]
        best[row, : len(order)], chosen[row, : len(order)] = scores[order], ids[order]
    return best, chosen


_NOTHING = np.empty(0, np.int64)
_NO_SCORE = np.empty(0, np.float32)
