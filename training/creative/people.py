"""How people looked when they were shown something: the query tower's vectors, which the heads read and never change.

Clicks on artworks are too few to learn tastes from; the tower has learned them from all that people did. It has seen
the items that these people went on to choose, but no creative, and the heads compare creatives of one item.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from playbill.dataset.dataset import Dataset
from playbill.features.encoder import (
    Arrays,
    encode_history,
    encode_moment,
    encode_queries,
    offsets,
    point_in_time,
)
from playbill.features.spec import Side
from playbill.training.creative.decisions import NOBODY, Moments
from playbill.training.retrieval.plain import ItemTower, QueryTower, load_plain

_SIZE = 4096
_NOBODIES, _KEPT = 500, 0.99  # moments that are looked at, and how much of their vectors the directions hold


def moment_arrays(dataset: Dataset, moments: Moments, rows: np.ndarray) -> Arrays:
    """Return the query-side arrays of some moments ([n] int64 rows), each knowing what was done strictly before it."""
    spec = dataset.spec
    person, now = moments.person[rows], moments.now[rows]
    context = {name: [values[row] for row in rows] for name, values in moments.context.items()}
    zero = np.zeros(len(rows), np.int64)
    arrays = encode_queries(dataset.pool, zero, zero, now, {}, context, spec, dataset.vocabularies)
    known = np.flatnonzero(person != NOBODY)
    person, now = person[known], now[known]
    start, end = point_in_time(dataset.pool, person, now)
    zones = dataset.user_columns.get("timezone")
    offset = np.zeros(len(now), np.int64) if zones is None else offsets(zones.take(person), now)
    of_known = {
        **encode_history(dataset.pool, start, end, spec),
        **{name: array[person] for name, array in dataset.user_arrays.items()},
        **encode_moment(now, offset, spec.side(Side.CONTEXT)),
    }
    for name, array in of_known.items():
        arrays[name][known] = array
    return arrays


@torch.no_grad()
def tower_vectors(dataset: Dataset, moments: Moments, retrieval: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a run's vectors of the moments, [V, D] float32, and of the catalogue, [N + 1, D] float32, 0 the unknown.

    Columns that only fill vectors up to unit length are left out: every query has 0 there.
    """
    query_tower, item_tower = load_plain([retrieval], dataset.item_arrays)
    items = catalogue_vectors(item_tower, query_tower, dataset.item_arrays, dataset.spec.num_items).numpy()
    width = items.shape[1]
    vectors = np.zeros((len(moments), width), np.float32)
    for low in range(0, len(moments), _SIZE):
        rows = np.arange(low, min(low + _SIZE, len(moments)))
        arrays = {n: torch.from_numpy(a) for n, a in moment_arrays(dataset, moments, rows).items()}
        vectors[rows] = query_tower(arrays)[:, :width].numpy()
    return vectors, items


@torch.no_grad()
def catalogue_vectors(item_tower: ItemTower, query_tower: QueryTower, items: Arrays, num_items: int) -> Tensor:
    """Return [N + 1, D] float32 vectors of the catalogue, 0 for the unknown item. Args: items, [N + 1, ...] each."""
    index = np.arange(1, num_items + 1)
    arrays = {"item_index": index} | {name: array[index] for name, array in items.items()}
    vectors = item_tower({n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in arrays.items()})
    width = vectors.shape[1] - query_tower.extra
    return torch.cat([torch.zeros(1, width), vectors[:, :width]])


def neutral_directions(dataset: Dataset, moments: Moments, people: np.ndarray, retrieval: Path) -> np.ndarray:
    """Return [k, D] float64 orthonormal: directions in which nobody leans to an artwork more than others do.

    They are where the tower puts people of whom nothing is known, which is the hour, the day and the device, and where
    it puts the mean of all: what the mean person answers is said of artworks alone, and holds for unknown people too.

    Args:
        people: [V, D] the tower's vectors of the moments.
    """
    some = np.unique(np.linspace(0, len(moments) - 1, _NOBODIES).astype(np.int64))
    context = {name: [values[row] for row in some] for name, values in moments.context.items()}
    vectors, _ = tower_vectors(dataset, Moments(np.full(len(some), NOBODY), moments.now[some], context), retrieval)
    _, size, directions = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)
    count = int(np.searchsorted(np.cumsum(size**2), _KEPT * np.square(size).sum())) + 1
    told = directions[: min(count, vectors.shape[1] // 4)]
    found: np.ndarray = np.linalg.qr(np.vstack([told, people.mean(0, dtype=np.float64)]).T)[0].T
    return found
