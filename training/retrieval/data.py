"""Batches of the two towers: queries as of their moment, and the items they are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from playbill.dataset.dataset import Dataset, Examples, query_arrays
from playbill.features.encoder import Arrays
from playbill.features.spec import UNKNOWN
from playbill.training.batches import order
from playbill.training.batches.jagged import Inputs, to_inputs
from playbill.training.settings import Loss, TwoTower


@dataclass(slots=True)
class TowerBatch:
    """One step of one process.

    Attributes:
        inputs: B queries, and N items: the whole catalogue 1..N (full_softmax) or the B positives (in_batch).
        target: [B] int64 item_index of each query's positive.
    """

    inputs: Inputs
    target: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TowerBatch:
        return TowerBatch(self.inputs.to(device, non_blocking), self.target.to(device, non_blocking=non_blocking))


def tower_batches(
    dataset: Dataset,
    rows: Examples,
    model: TwoTower,
    seed: int,
    epoch: int,
    first_step: int,
    process: int,
    processes: int,
) -> Iterator[TowerBatch]:
    """Yield one process's batches of an epoch from `first_step` on; the rows of a last, smaller batch wait for another epoch.

    A share of all item ids (`model.unknown_share`) is replaced by the unknown item, in histories and among the items, so
    that row 0 learns what an item is of which only the content is known.
    """
    size = order.batch_rows(len(rows), model.batch_size, processes)
    for step in range(first_step, len(rows) // size):
        picked = order.step_rows(len(rows), size, seed, epoch, step, process, processes)
        queries = query_arrays(
            dataset,
            rows.person[picked],
            rows.start[picked],
            rows.end[picked],
            rows.now[picked],
            rows.target_row[picked],
        )
        target = dataset.pool.item[rows.target_row[picked]]
        items = item_arrays(dataset, None if model.loss is Loss.full_softmax else target)
        draw = order.generator(seed, epoch, step, order.UNKNOWN)
        mine = (process, processes)
        share = model.unknown_share
        items["item_index"] = forget(
            items["item_index"], share, draw, *(mine if model.loss is Loss.in_batch else (0, 1))
        )
        queries["history_item"] = forget(queries["history_item"], share, draw, *mine)
        yield TowerBatch(to_inputs(dataset.spec, queries, items), torch.from_numpy(target))


def item_arrays(dataset: Dataset, index: np.ndarray | None) -> Arrays:
    """Return the item-side arrays of these item indices, or of the whole catalogue 1..N."""
    chosen = np.arange(1, dataset.spec.num_items + 1) if index is None else index
    return {"item_index": chosen.copy(), **{name: array[chosen] for name, array in dataset.item_arrays.items()}}


def forget(ids: np.ndarray, share: float, draw: np.random.Generator, process: int, processes: int) -> np.ndarray:
    """Return `ids` with a share of the known ones replaced by the unknown item; drawn for all processes' rows at once."""
    rows = len(ids)
    gone = (
        draw.random((rows * processes, *ids.shape[1:]), dtype=np.float32)[process * rows : (process + 1) * rows] < share
    )
    return np.where(gone & (ids > 0), UNKNOWN, ids)
