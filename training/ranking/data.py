"""Batches of the ranker: training rows with their candidates, and validation lists to put in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from playbill.dataset.dataset import Dataset, Examples
from playbill.features.encoder import Arrays
from playbill.training.batches import order
from playbill.training.batches.jagged import Inputs, to_inputs
from playbill.training.batches.rows import queries_of, take
from playbill.training.ranking.sampling import Touched, candidates_of
from playbill.training.ranking.scores import Scored
from playbill.training.retrieval.data import forget, item_arrays
from playbill.training.settings import Ranker


@dataclass(slots=True)
class RankerBatch:
    """One step of one process: B rows with C candidates each, the positive first; N = B * C, row by row.

    Attributes:
        inputs: B queries and N items.
        cand_user: [N] int64 row of the query.
        score: [N] float32 retrieval score.
        in_list: [B, C] float32, 1 for a candidate that stands in the row's list or would, were it not touched.
        counts: [B, C] float32, 0 for a candidate that does not count.
        like: [B] float32, 1 where the row's event was a like; like_known: [B] float32, 0 where it had no value.
        weight: [B] float32, mean 1 over all training rows.
    """

    inputs: Inputs
    cand_user: Tensor
    score: Tensor
    in_list: Tensor
    counts: Tensor
    like: Tensor
    like_known: Tensor
    weight: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> RankerBatch:
        return RankerBatch(*(getattr(self, f.name).to(device, non_blocking=non_blocking) for f in fields(self)))


@dataclass(slots=True)
class RankerRows:
    """All that the ranker learns from, R rows.

    Attributes:
        rows: histories as the model is to see them.
        value: [R] float64 raw value of each row's event, NaN where it has none.
        weight: [R] float32, mean 1.
        scored: what towers that never saw a row say of it.
        touched: what each person touches in training time.
    """

    rows: Examples
    value: np.ndarray
    weight: np.ndarray
    scored: Scored
    touched: Touched


def ranker_batches(
    dataset: Dataset,
    data: RankerRows,
    model: Ranker,
    seed: int,
    epoch: int,
    first_step: int,
    process: int,
    processes: int,
) -> Iterator[RankerBatch]:
    """Yield one process's batches of an epoch from `first_step` on, with new negatives in every epoch."""
    size = order.batch_rows(len(data.rows), model.batch_size, processes)
    for step in range(first_step, len(data.rows) // size):
        picked = order.step_rows(len(data.rows), size, seed, epoch, step)
        rows = take(data.rows, picked)
        chosen, counts = candidates_of(
            dataset.pool.item[rows.target_row],
            rows.person,
            data.scored.top[picked],
            data.touched,
            model.uniform_negatives,
            model.hard_negatives,
            order.generator(seed, epoch, step, order.NEGATIVES),
        )
        own = np.array_split(np.arange(size), processes)[process]
        picked, chosen = picked[own], chosen[own]
        queries = queries_of(dataset, take(rows, own))
        draw = order.generator(seed, epoch, step, order.UNKNOWN)
        queries["history_item"] = forget(queries["history_item"], model.unknown_share, draw, process, processes)
        items = item_arrays(dataset, chosen.reshape(-1))
        items["item_index"] = forget(items["item_index"], model.unknown_share, draw, process, processes)
        value = data.value[picked]
        score = data.scored.score(picked, chosen)
        yield RankerBatch(
            inputs=to_inputs(dataset.spec, queries, items),
            cand_user=torch.arange(len(own)).repeat_interleave(chosen.shape[1]),
            score=torch.from_numpy(score.reshape(-1)),
            in_list=torch.from_numpy((score >= data.scored.floor[picked, None]).astype(np.float32)),
            counts=torch.from_numpy(counts[own]),
            like=torch.from_numpy((value >= model.like_threshold).astype(np.float32)),
            like_known=torch.from_numpy((~np.isnan(value)).astype(np.float32)),
            weight=torch.from_numpy(data.weight[picked]),
        )


def list_inputs(dataset: Dataset, queries: Arrays, lists: np.ndarray) -> tuple[Inputs, Tensor]:
    """Return (inputs, cand_user) for B queries and their lists [B, K] of item_index; NO_ITEM reads row 0."""
    inputs = to_inputs(dataset.spec, queries, item_arrays(dataset, np.maximum(lists, 0).reshape(-1)))
    return inputs, torch.arange(len(lists)).repeat_interleave(lists.shape[1])
