"""Building an index: which kind for which catalogue, and the vectors put into it. `tune` sets how it is searched."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from playbill.errors import SearchError
from playbill.index.item_index import ItemIndex, set_threads
from playbill.index.settings import IndexSettings, Kind

FLAT_LIMIT = 50_000
SQ8_LIMIT = 2_000_000

# FAISS asks for at least this many training vectors a list, and makes no use of more than the larger number
_MIN_PER_LIST, _MAX_PER_LIST = 39, 128
_EF_CONSTRUCTION = 80


def choose(num_items: int) -> Kind:
    """Return the kind to try for a catalogue of this size."""
    if num_items <= FLAT_LIMIT:
        return Kind.flat
    return Kind.ivf_sq8 if num_items <= SQ8_LIMIT else Kind.ivf_pq


def build_index(embeddings: np.ndarray, ids: np.ndarray, settings: IndexSettings) -> ItemIndex:
    """Return an index over the rows `ids` of `embeddings`, not tuned yet.

    Args:
        embeddings: [N + 1, d] float32, row i is item_index i, row 0 unused.
        ids: [M] int64, the item_index values to hold, each once, 1..N.
        settings: kind, lists and seed.
    Raises:
        SearchError: ids twice or out of range, or vectors not finite; names the first.
    """
    ids = _checked_ids(embeddings, ids)
    kind = choose(len(ids)) if settings.kind is Kind.auto else settings.kind
    vectors = np.ascontiguousarray(embeddings[ids], np.float32)
    if not np.isfinite(vectors).all():
        bad = ids[~np.isfinite(vectors).all(1)]
        raise SearchError(f"{len(bad)} item vectors are not finite, first item_index {bad[0]}; train again")
    set_threads(settings.threads)
    held = None if len(ids) == len(embeddings) - 1 else np.sort(ids)
    return ItemIndex(_filled(vectors, ids, kind, settings), embeddings, kind, held)


def _filled(vectors: np.ndarray, ids: np.ndarray, kind: Kind, settings: IndexSettings) -> Any:
    width = vectors.shape[1]
    if kind is Kind.flat or kind is Kind.hnsw:
        inner = "Flat" if kind is Kind.flat else f"HNSW{settings.links}"
        index = faiss.index_factory(width, f"IDMap2,{inner}", faiss.METRIC_INNER_PRODUCT)
        if kind is Kind.hnsw:
            faiss.downcast_index(index.index).hnsw.efConstruction = _EF_CONSTRUCTION
        index.add_with_ids(vectors, ids)
        return index
    lists = settings.num_lists or max(1, min(int(4 * len(ids) ** 0.5), len(ids) // _MIN_PER_LIST))
    if kind is Kind.ivf_pq and width % 2:
        raise SearchError(f"ivf_pq holds vectors of even width, got {width}; use index.kind=ivf_sq8")
    codes = "SQ8" if kind is Kind.ivf_sq8 else f"PQ{width // 2}x4fs"
    index = faiss.index_factory(width, f"IVF{lists},{codes}", faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = settings.seed + 1  # faiss takes the seed as an int > 0
    index.cp.max_points_per_centroid = _MAX_PER_LIST
    index.train(vectors)
    index.add_with_ids(vectors, ids)
    return index


def _checked_ids(embeddings: np.ndarray, ids: np.ndarray) -> np.ndarray:
    ids = np.asarray(ids, np.int64)
    if embeddings.ndim != 2 or not len(ids):
        raise SearchError(f"expected embeddings [N + 1, d] and at least one id, got {embeddings.shape}, {len(ids)} ids")
    if ids.min() < 1 or ids.max() >= len(embeddings):
        raise SearchError(f"ids run from {ids.min()} to {ids.max()}, embeddings have items 1..{len(embeddings) - 1}")
    values, counts = np.unique(ids, return_counts=True)
    if counts.max() > 1:  # FAISS would take them, and give the item back twice
        raise SearchError(f"{int((counts > 1).sum())} ids stand twice, first item_index {values[counts > 1][0]}")
    return ids
