"""Building an index: chosen by catalogue size, nprobe tuned to a recall floor, recall measured against exact search."""

from __future__ import annotations

import time

import faiss
import msgspec
import numpy as np

from playbill.errors import SearchError
from playbill.index.item_index import ItemIndex, set_threads
from playbill.index.search import search
from playbill.index.settings import IndexSettings, Kind

FLAT_LIMIT = 200_000
SQ8_LIMIT = 2_000_000

# FAISS asks for at least this many training vectors a list
_MIN_PER_LIST = 39


class IndexReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a build reached; written to report/index.json.

    Attributes:
        recall: mean share of the exact top `recall_k` that the index finds, 0..1.
        nprobe: lists visited by a search; 0 where the kind has none.
    """

    kind: str
    num_items: int
    width: int
    num_lists: int
    nprobe: int
    recall_k: int
    recall: float
    recall_floor: float
    num_queries: int
    build_s: float
    tried: dict[int, float]


def choose(num_items: int) -> Kind:
    """Return the kind for a catalogue of this size."""
    if num_items <= FLAT_LIMIT:
        return Kind.FLAT
    return Kind.IVF_SQ8 if num_items <= SQ8_LIMIT else Kind.IVF_PQ


def build_index(embeddings: np.ndarray, ids: np.ndarray, settings: IndexSettings) -> ItemIndex:
    """Return an index over the rows `ids` of `embeddings`.

    Args:
        embeddings: [N + 1, d] float32, row i is item_index i, row 0 unused.
        ids: [M] int64, the item_index values to hold, each once, 1..N.
        settings: kind, lists and seed.
    Raises:
        SearchError: ids twice or out of range, vectors not finite, or a kind that cannot hold a part of a catalogue.
    """
    ids = _checked_ids(embeddings, ids)
    kind = choose(len(ids)) if settings.kind is Kind.AUTO else settings.kind
    vectors = np.ascontiguousarray(embeddings[ids], np.float32)
    if not np.isfinite(vectors).all():
        bad = ids[~np.isfinite(vectors).all(1)]
        raise SearchError(f"{len(bad)} item vectors are not finite, first item_index {bad[0]}; train again")
    set_threads(settings.threads)
    width = vectors.shape[1]
    if kind is Kind.FLAT:
        index = faiss.index_factory(width, "IDMap2,Flat", faiss.METRIC_INNER_PRODUCT)
        index.add_with_ids(vectors, ids)
        return ItemIndex(index, embeddings, kind)
    lists = settings.num_lists or max(1, min(int(4 * len(ids) ** 0.5), len(ids) // _MIN_PER_LIST))
    if kind is Kind.IVF_SQ8:
        index = faiss.index_factory(width, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = settings.seed + 1  # faiss takes the seed as an int > 0
        index.train(vectors)
        index.add_with_ids(vectors, ids)
        return ItemIndex(index, embeddings, kind)
    if len(ids) != len(embeddings) - 1 or width % 2:
        raise SearchError(
            f"ivf_pq holds whole catalogues of even width, got {len(ids)} of {len(embeddings) - 1} items and width "
            f"{width}; use index.kind=ivf_sq8"
        )
    # FAISS's refined index knows no external ids: with a zero vector in front, row number and item_index are the same
    index = faiss.index_factory(width, f"IVF{lists},PQ{width // 2}x4fs,RFlat", faiss.METRIC_INNER_PRODUCT)
    faiss.extract_index_ivf(index.base_index).cp.seed = settings.seed + 1
    index.train(vectors)
    index.add(np.concatenate([np.zeros((1, width), np.float32), vectors[np.argsort(ids)]]))
    index.k_factor = 10.0
    return ItemIndex(index, embeddings, kind)


def recall_at(index: ItemIndex, queries: np.ndarray, k: int) -> float:
    """Return the mean share of the exact top k that the index finds, 0..1, higher is better.

    Args:
        index: with the embeddings it was built from.
        queries: [B, d] float32.
        k: cut; the catalogue's size where that is smaller.
    """
    k = min(k, len(index))
    ids = index.ids()
    queries = np.ascontiguousarray(queries, np.float32)
    vectors = np.ascontiguousarray(index.embeddings[ids], np.float32)
    _, rows = faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
    _, found = search(index, queries, k)
    return float(np.mean([len(np.intersect1d(ids[row], got)) / k for row, got in zip(rows, found, strict=True)]))


def tune_index(index: ItemIndex, queries: np.ndarray, settings: IndexSettings, build_s: float = 0.0) -> IndexReport:
    """Set the smallest nprobe that reaches the recall floor and return what was measured.

    Args:
        index: fresh from `build_index`; its nprobe is changed, and stays in the file that `write_index` writes.
        queries: [Q, d] float32, as real as possible: query-tower answers; a seeded sample of them is used.
        settings: floor, k, sample.
        build_s: seconds the build took, for the report.
    Raises:
        SearchError: the floor is missed at every nprobe, or there is no query to measure with.
    """
    if not len(queries):
        raise SearchError("recall cannot be measured without queries; give query-tower answers of the training part")
    start = time.monotonic()
    rows = np.random.default_rng(settings.seed).permutation(len(queries))[: settings.sample_queries]
    sample = np.ascontiguousarray(queries[np.sort(rows)], np.float32)
    ivf = None if index.kind is Kind.FLAT else faiss.extract_index_ivf(index.faiss_index)
    tried: dict[int, float] = {}
    recall = 0.0
    probes = (
        [0] if ivf is None else [p for p in (8, 16, 32, 64, 128, 256, 512, 1024, 2048) if p < ivf.nlist] + [ivf.nlist]
    )
    for nprobe in probes:
        if ivf is not None:
            ivf.nprobe = nprobe
        tried[nprobe] = recall = recall_at(index, sample, settings.recall_k)
        if recall >= settings.recall_floor:
            break
    if recall < settings.recall_floor:
        raise SearchError(
            f"recall at {settings.recall_k} is {recall:.4f}, the floor is {settings.recall_floor} "
            f"({index.kind.value}, {len(index)} items, nprobe up to {nprobe}); take index.kind=flat or lower the floor"
        )
    return IndexReport(
        kind=index.kind.value,
        num_items=len(index),
        width=index.width,
        num_lists=0 if ivf is None else ivf.nlist,
        nprobe=nprobe,
        recall_k=min(settings.recall_k, len(index)),
        recall=recall,
        recall_floor=settings.recall_floor,
        num_queries=len(sample),
        build_s=round(build_s + time.monotonic() - start, 3),
        tried=tried,
    )


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
