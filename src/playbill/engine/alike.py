"""What is like an item: near its vector, or chosen with or after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from playbill.baselines.neighbours import Neighbours, gather_evidence, score_evidence
from playbill.engine.fresh import Stock
from playbill.index.filters import exact
from playbill.index.live import search_live
from playbill.index.sharded import Patience

_TOGETHER = ("item_knn", "transitions")


def like(
    anchors: Sequence[int],
    stock: Stock,
    tables: Mapping[str, Neighbours],
    most: int,
    left_out: np.ndarray,
    patience: Patience | None = None,
) -> list[np.ndarray]:
    """Return for each anchor what is like it, best first: near it by the index where there is one, by all vectors of
    the catalogue where there is none, and without vectors what was chosen with it or after it.

    Args:
        anchors: item_index, each at least 1.
        stock: the catalogue, narrowed to what may be shown.
        most: items wanted of each; fewer where there are not so many.
        left_out: [S] int64 item_index that are not wanted; an anchor never is.
        patience: with an index in parts; see `search_live`.
    Returns:
        arrays of int64 item_index.
    """
    outs = [np.union1d(left_out, [anchor]) for anchor in anchors]
    vectors = stock.catalogue.vectors
    if vectors is None:
        found = []
        for anchor, out in zip(anchors, outs, strict=True):
            score = together(anchor, tables, stock.catalogue.num_items)
            best = np.argsort(-score, kind="stable")[: most + len(out)]
            best = best[(score[best] > 0) & stock.offer.available[best] & ~np.isin(best, out)]
            found.append(best[:most])
        return found
    queries = np.ascontiguousarray(vectors[np.asarray(anchors)], np.float32)
    if stock.index is not None and stock.embeddings is not None:
        # vectors of the index may carry columns that say nothing of likeness: a query that has 0 there asks for none
        wide = np.zeros((len(queries), stock.embeddings[[0]].shape[1]), np.float32)
        wide[:, : queries.shape[1]] = queries
        items = search_live(stock.index, wide, most, outs, patience=patience)[1]
        return [row[row > 0] for row in items]
    found = []
    for query, out in zip(queries, outs, strict=True):
        mine = stock.offer.available.copy()
        mine[out] = False
        found.append(exact(vectors, query[None], most, mine)[1][0])
    return found


def together(anchor: int, tables: Mapping[str, Neighbours], num_items: int) -> np.ndarray:
    """Return [N + 1] float32, how much each item is chosen with and after one."""
    total = np.zeros(num_items + 1, np.float32)
    for name in _TOGETHER:
        if name in tables and anchor <= tables[name].num_items:  # not for items that came after the bundle
            total += score_evidence(gather_evidence(tables[name], np.asarray([anchor])), tables[name].decay, num_items)
    return total


def cosines(anchor: int, items: np.ndarray, vectors: Any) -> np.ndarray:
    """Return [M] float32 likeness of items to one, by the catalogue's vectors."""
    found: np.ndarray = np.asarray(vectors[items], np.float32) @ np.asarray(vectors[anchor], np.float32)
    return found
