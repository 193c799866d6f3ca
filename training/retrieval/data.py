"""Batches of the two towers: queries as of their moment, and the items they are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from playbill.dataset.dataset import Dataset, Examples
from playbill.features.encoder import Arrays
from playbill.features.spec import UNKNOWN
from playbill.training.batches import order
from playbill.training.batches.jagged import Inputs, to_inputs
from playbill.training.batches.rows import cut_histories, queries_of, take
from playbill.training.settings import Loss, TwoTower


@dataclass(slots=True)
class TowerBatch:
    """One step of one process.

    Attributes:
        inputs: B queries, and N items: the whole catalogue 1..N (full_softmax) or the B positives (in_batch).
        target: [B] int64 item_index of each query's positive.
        weight: [B] float32, mean 1 over all training rows.
    """

    inputs: Inputs
    target: Tensor
    weight: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TowerBatch:
        moved = (t.to(device, non_blocking=non_blocking) for t in (self.target, self.weight))
        return TowerBatch(self.inputs.to(device, non_blocking), *moved)


def tower_batches(
    dataset: Dataset,
    rows: Examples,
    weight: np.ndarray,
    model: TwoTower,
    seed: int,
    epoch: int,
    first_step: int,
    process: int,
    processes: int,
) -> Iterator[TowerBatch]:
    """Yield one process's batches of an epoch from `first_step` on; rows of a last, smaller batch wait for another
    epoch.

    Some histories are cut (see `cut_histories`), another cut in every epoch. A share of all item ids is replaced by the
    unknown item, in histories and among the items, so that row 0 learns what an item is of which only content is known.
    """
    size = order.batch_rows(len(rows), model.batch_size, processes)
    catalogue = model.loss is Loss.full_softmax
    mine = (process, processes)
    for step in range(first_step, len(rows) // size):
        draw = order.generator(seed, epoch, step, order.CUTS)
        picked = order.step_rows(len(rows), size, seed, epoch, step)
        cut = cut_histories(take(rows, picked), model.stale_share, model.empty_share, draw)
        own = np.array_split(np.arange(size), processes)[process]
        queries = queries_of(dataset, take(cut, own))
        target = dataset.pool.item[cut.target_row[own]]
        items = item_arrays(dataset, None if catalogue else target)
        share, draw = model.unknown_share, order.generator(seed, epoch, step, order.UNKNOWN)
        items["item_index"] = forget(items["item_index"], share, draw, *((0, 1) if catalogue else mine))
        queries["history_item"] = forget(queries["history_item"], share, draw, *mine)
        inputs = to_inputs(dataset.spec, queries, items)
        yield TowerBatch(inputs, torch.from_numpy(target), torch.from_numpy(weight[picked[own]]))


def item_arrays(dataset: Dataset, index: np.ndarray | None) -> Arrays:
    """Return the item-side arrays of these item indices, or of the whole catalogue 1..N."""
    chosen = np.arange(1, dataset.spec.num_items + 1) if index is None else index
    return {"item_index": chosen.copy(), **{name: array[chosen] for name, array in dataset.item_arrays.items()}}


def forget(ids: np.ndarray, share: float, draw: np.random.Generator, process: int, processes: int) -> np.ndarray:
    """Return `ids` with a share of the known ones replaced by the unknown item; drawn for all processes at once."""
    rows = len(ids)
    gone = (
        draw.random((rows * processes, *ids.shape[1:]), dtype=np.float32)[process * rows : (process + 1) * rows] < share
    )
    return np.where(gone & (ids > 0), UNKNOWN, ids)
