"""hnswlib and usearch as the index benchmark asks them: inner product, one thread a search, M = 32, ids = item_index.

Benchmark only: `pip install hnswlib usearch`; the product needs neither.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

LINKS, EF_CONSTRUCTION = 32, 80  # as ours


class Built(Protocol):
    """An index of a rival."""

    version: str
    filters: bool

    def search(self, query: np.ndarray, k: int, effort: int, mask: np.ndarray | None = None) -> np.ndarray: ...

    def size_bytes(self) -> int: ...


class Rival(Protocol):
    """Builds one over items [N + 1, d], row 0 left out."""

    name: str

    def __call__(self, items: np.ndarray) -> Built: ...


class Hnswlib:
    """Header-only HNSW; a filter is a Python function that it calls for each item it meets."""

    name, filters = "hnswlib", True

    def __init__(self, items: np.ndarray) -> None:
        import hnswlib

        self.version = version("hnswlib")
        self._index = hnswlib.Index(space="ip", dim=items.shape[1])
        self._index.init_index(len(items) - 1, ef_construction=EF_CONSTRUCTION, M=LINKS, random_seed=1)
        self._index.add_items(items[1:], np.arange(1, len(items)), num_threads=os.cpu_count())

    def search(self, query: np.ndarray, k: int, effort: int, mask: np.ndarray | None = None) -> np.ndarray:
        """Return the item_index of what it found, best first; empty where a filter leaves it fewer than k."""
        self._index.set_ef(max(effort, k))
        chosen = None if mask is None else mask.__getitem__
        try:
            found: np.ndarray = self._index.knn_query(query, k, num_threads=1, filter=chosen)[0][0].astype(np.int64)
        except RuntimeError:  # "Cannot return the results in a contiguous 2D array": it gives all k or nothing
            return np.empty(0, np.int64)
        return found

    def size_bytes(self) -> int:
        """Return the size of its file, vectors included."""
        return int(self._index.index_file_size())


class Usearch:
    """HNSW with half-precision or smaller scalars; here float32, as ours and hnswlib's. No filters in Python."""

    name, filters = "usearch", False

    def __init__(self, items: np.ndarray) -> None:
        from usearch.index import Index

        self.version = version("usearch")
        self._index: Any = Index(
            ndim=items.shape[1], metric="ip", dtype="f32", connectivity=LINKS, expansion_add=EF_CONSTRUCTION
        )
        self._index.add(np.arange(1, len(items)), np.ascontiguousarray(items[1:]), threads=os.cpu_count() or 1)

    def search(self, query: np.ndarray, k: int, effort: int, mask: np.ndarray | None = None) -> np.ndarray:
        """Return the item_index of what it found, best first."""
        assert mask is None
        self._index.expansion_search = max(effort, k)
        found: np.ndarray = np.asarray(self._index.search(query, k, threads=1).keys).astype(np.int64)
        return found

    def size_bytes(self) -> int:
        """Return the size of its file, vectors included."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "index"
            self._index.save(str(path))
            return path.stat().st_size


RIVALS: dict[str, Rival] = {"hnswlib": Hnswlib, "usearch": Usearch}  # type: ignore[dict-item]  # classes are their own builders
