"""The index object and its files. What an index holds never changes: a new catalogue means a new build.

FAISS aborts the whole process (a C++ assertion, no exception) when vectors are added to a memory-mapped index, so the
FAISS object is kept inside `ItemIndex`, which offers search alone. Fresh items stand beside it, see `live`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from playbill.errors import SearchError
from playbill.index.route import Route, read_route, write_route
from playbill.index.settings import Kind


@dataclass(frozen=True, slots=True)
class ItemIndex:
    """Item vectors, searchable by inner product (cosine, as they have unit length).

    Attributes:
        faiss_index: the FAISS object; its ids are item_index. Never add to it, see the top of this file.
        embeddings: [N + 1, d] float32, row i is item_index i, row 0 unused; exact vectors for narrow filters and for
            scoring again what compressed vectors found.
        kind: how the vectors are kept.
        held: [M] int64 ascending, the item_index values that are in it; None where that is all of 1..N.
        route: how searches go about it; set by `routed`.
        hot: [H, d] float32, vectors of the items that `route.hot` names, in one block; `hot_ids` [H] int64 are theirs.
        cold: [N + 2] bool by item_index, the others of 1..N; False behind them, where FAISS's -1 leads.
        parts: how many parts this is one of, see `split`. One of several brings what lies where the whole would look,
            be it fewer than are wanted.
    """

    faiss_index: Any
    embeddings: np.ndarray
    kind: Kind
    held: np.ndarray | None = None
    route: Route = Route()
    hot: np.ndarray | None = None
    hot_ids: np.ndarray | None = None
    cold: np.ndarray | None = None
    parts: int = 1

    def __len__(self) -> int:
        return int(self.faiss_index.ntotal)

    @property
    def width(self) -> int:
        return int(self.faiss_index.d)

    def ids(self) -> np.ndarray:
        """Return the held item_index values, [M] int64 ascending."""
        return np.arange(1, len(self.embeddings)) if self.held is None else self.held


def routed(index: ItemIndex, route: Route) -> ItemIndex:
    """Return the index with another route.

    Raises:
        SearchError: the route names hot items that the index does not hold.
    """
    hot = np.asarray(route.hot, np.int64)
    if len(hot) and (hot[-1] >= len(index.embeddings) or not np.isin(hot, index.ids()).all()):
        raise SearchError(f"the route names {len(hot)} hot items, not all of which are in the index; export again")
    if not len(hot):
        return replace(index, route=route, hot=None, hot_ids=None, cold=None)
    cold = np.ones(len(index.embeddings) + 1, bool)
    cold[hot] = cold[0] = cold[-1] = False
    vectors = np.ascontiguousarray(index.embeddings[hot], np.float32)
    return replace(index, route=route, hot=vectors, hot_ids=hot, cold=cold)


def set_threads(threads: int) -> None:
    """Set FAISS's threads for this process: 1 in servers (requests are the parallelism), 0 for all cores in builds."""
    # Ray sets OMP_NUM_THREADS for its workers on its own, so the environment is not enough
    faiss.omp_set_num_threads(threads or os.cpu_count() or 1)


def route_path(path: Path) -> Path:
    """Return where the route of the index at `path` stands: items.json beside items.faiss."""
    return path.with_suffix(".json")


def write_index(index: ItemIndex, path: Path) -> None:
    """Write the index to `path` and its route beside it, each complete or not at all."""
    part = path.with_name(path.name + ".part")
    faiss.write_index(index.faiss_index, str(part))
    _settle(part, path)
    part.write_bytes(write_route(index.route))
    _settle(part, route_path(path))


def read_index(path: Path, embeddings: np.ndarray) -> ItemIndex:
    """Return the index at `path`, memory-mapped: processes share its pages and opening costs no memory.

    Args:
        path: what `write_index` wrote.
        embeddings: [N + 1, d] float32 that it was built from; a memory-mapped array is fine.
    Raises:
        SearchError: no such file, not an index of ours, or another width or size than `embeddings`.
    """
    if not path.is_file():
        raise SearchError(f"no index at {path}; export writes items.faiss beside item_embeddings.npy")
    try:
        # comes back as its own class; another downcast would leave an object whose memory is freed
        found = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise SearchError(f"{path} is not a readable FAISS index: {str(error).splitlines()[0]}; export again") from None
    kind, beside = _kind(found, path), route_path(path)
    if embeddings.ndim != 2 or found.d != embeddings.shape[1] or found.ntotal >= len(embeddings):
        raise SearchError(
            f"{path} holds {found.ntotal} vectors of {found.d} columns, the embeddings have shape "
            f"{embeddings.shape} (one row more than items); both must come from one export"
        )
    held = None if found.ntotal == len(embeddings) - 1 else _held(found, kind)
    route = read_route(beside.read_bytes(), str(beside)) if beside.is_file() else Route()
    return routed(ItemIndex(found, embeddings, kind, held), route)


def effort_of(index: ItemIndex) -> int:
    """Return the effort that the FAISS file itself names; what holds where there is no route."""
    if index.kind is Kind.flat:
        return 0
    found = faiss.downcast_index(index.faiss_index.index) if index.kind is Kind.hnsw else index.faiss_index
    return int(found.hnsw.efSearch if index.kind is Kind.hnsw else found.nprobe)


def _kind(found: Any, path: Path) -> Kind:
    if isinstance(found, faiss.IndexIDMap2):
        return Kind.hnsw if isinstance(faiss.downcast_index(found.index), faiss.IndexHNSW) else Kind.flat
    if isinstance(found, faiss.IndexIVFScalarQuantizer):
        return Kind.ivf_sq8
    if isinstance(found, faiss.IndexIVFPQFastScan):
        return Kind.ivf_pq
    raise SearchError(f"{path} holds a {type(found).__name__}; expected what build_index makes: export again")


def _held(found: Any, kind: Kind) -> np.ndarray:
    if kind in (Kind.flat, Kind.hnsw):
        return np.sort(faiss.vector_to_array(found.id_map))
    lists = found.invlists
    parts = [
        faiss.rev_swig_ptr(lists.get_ids(i), lists.list_size(i)).copy()
        for i in range(lists.nlist)
        if lists.list_size(i)
    ]
    return np.sort(np.concatenate(parts))


def _settle(part: Path, path: Path) -> None:
    with open(part, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
