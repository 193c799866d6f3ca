"""Real vectors: the factors of MovieLens-1M's ratings, people as queries and films as items."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse
import scipy.sparse.linalg


@dataclass(slots=True)
class Films:
    """Items [N + 1, 64] and queries [Q, 64], float32 of unit length; which films are of a genre, [N + 1] bool."""

    items: np.ndarray
    queries: np.ndarray
    genres: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def films(shared_data: Path) -> Films:
    rows = pl.read_parquet(shared_data / "ml-1m" / "interactions.parquet", columns=["user_id", "item_id"])
    ids = np.unique(rows["item_id"].to_numpy())
    item = np.searchsorted(ids, rows["item_id"].to_numpy())
    ones = np.ones(len(item), np.float32)
    ratings = scipy.sparse.csr_matrix((ones, (rows["user_id"].to_numpy(), item)))
    left, strength, right = scipy.sparse.linalg.svds(ratings, k=64, random_state=0, tol=1e-2)
    root = np.sqrt(strength)
    items = np.concatenate([np.zeros((1, 64)), _unit((root[:, None] * right).T)]).astype(np.float32)
    queries = _unit(left[1:] * root).astype(np.float32)
    movies = pl.read_parquet(shared_data / "ml-1m" / "movies.parquet", columns=["item_id", "genres"])
    genre = dict(movies.iter_rows())
    of = {}
    for name in ("Drama", "Comedy", "Horror", "Western"):
        of[name] = np.asarray([False, *(name in (genre.get(i) or "").split("|") for i in ids.tolist())])
    return Films(items, queries[np.random.default_rng(5).permutation(len(queries))[:300]], of)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
