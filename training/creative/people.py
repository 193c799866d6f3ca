"""How people looked to the towers when they were shown something: what the title is held fixed with.

The tower has seen the items that these people went on to choose, but no creative, and the heads compare creatives of
one item.
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
