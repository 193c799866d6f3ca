"""Batches of the ranker: training rows with their candidates, and validation lists to put in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from playbill.dataset.dataset import Dataset, Examples, query_arrays
from playbill.dataset.impressions import Impressions
from playbill.features.encoder import Arrays, encode_fields, point_in_time
from playbill.features.spec import Side
from playbill.training.batches import order
from playbill.training.batches.jagged import Inputs, to_inputs
from playbill.training.batches.rows import queries_of, take
from playbill.training.ranking.sampling import Touched, candidates_of
from playbill.training.ranking.scores import Scored
from playbill.training.ranking_settings import Ranker
from playbill.training.retrieval.data import forget, item_arrays


@dataclass(slots=True)
class RankerBatch:
    """One step of one process: B rows with C candidates each; N = B * C, row by row; T tasks.

    Attributes:
        inputs: B queries and N items.
        cand_user: [N] int64 row of the query.
        score: [N] float32 retrieval score.
        in_list: [B, C] float32, 1 for a candidate that stands in the row's list or would, were it not touched; 0 for
            impressions.
        label, known: [B, C, T] float32 of 0 and 1: what came true, and what counts.
        position: [B, C] int64 as shown, 0 for candidates that were not.
        weight: [B] float32, mean 1 over all training rows.
    """

    inputs: Inputs
    cand_user: Tensor
    score: Tensor
    in_list: Tensor
    label: Tensor
    known: Tensor
    position: Tensor
    weight: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> RankerBatch:
        return RankerBatch(*(getattr(self, f.name).to(device, non_blocking=non_blocking) for f in fields(self)))


@dataclass(slots=True)
class EventRows:
    """Rows that are events: the item is the positive, negatives are drawn anew in every epoch.

    Attributes:
        rows: histories as the model is to see them.
        label, known: [R, T] float32 of each row's own item.
        weight: [R] float32, mean 1.
        scored: what towers that never saw a row say of it.
        touched: what each person touches in training time.
    """

    rows: Examples
    label: np.ndarray
    known: np.ndarray
    weight: np.ndarray
    scored: Scored
    touched: Touched

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(slots=True)
class SlateRows:
    """Rows that are slates as they were shown.

    Attributes:
        shown: with labels.
        rows: what each person had done before; `target_row` is -1, nobody -1 has no history.
        weight: [R] float32, mean 1.
        scored: what towers that never saw these moments say; its lists are not used.
    """

    shown: Impressions
    rows: Examples
    weight: np.ndarray
    scored: Scored

    def __len__(self) -> int:
        return len(self.rows)


RankerRows = EventRows | SlateRows


def slate_histories(dataset: Dataset, shown: Impressions) -> Examples:
    """Return the rows of slates: what each person had done strictly before; nothing for people without a number."""
    person = np.maximum(shown.person, 0)
    start, end = point_in_time(dataset.pool, person, shown.now)
    end = np.where(shown.person < 0, start, end)
    return Examples(shown.person, np.full(len(shown), -1), start, end, shown.now)


def slate_queries(dataset: Dataset, rows: Examples, context: Arrays) -> Arrays:
    """Return the query-side arrays of slates, [R, ...] each. Args: context, of these rows."""
    nobody = rows.person < 0
    arrays = query_arrays(dataset, np.maximum(rows.person, 0), rows.start, rows.end, rows.now)
    if nobody.any():
        arrays |= {
            name: np.where(nobody.reshape(-1, *[1] * (array.ndim - 1)), array, arrays[name])
            for name, array in encode_fields({}, len(rows), dataset.spec.side(Side.USER), dataset.vocabularies).items()
        }
    return arrays | context


def event_batch(
    dataset: Dataset, data: EventRows, model: Ranker, picked: np.ndarray, hard: int, negatives: np.random.Generator
) -> tuple[Arrays, np.ndarray, dict[str, np.ndarray]]:
    """Return the queries of some events, their candidates [B, C], positive first, and the rest of a batch by name."""
    rows = take(data.rows, picked)
    target = dataset.pool.item[rows.target_row]
    top = data.scored.top[picked]
    chosen, counts = candidates_of(target, rows.person, top, data.touched, model.uniform_negatives, hard, negatives)
    score = data.scored.score(picked, chosen)
    label, known = np.zeros((2, *chosen.shape, data.label.shape[1]), np.float32)
    label[:, 0], known[:, 0] = data.label[picked], data.known[picked]
    for t, task in enumerate(model.tasks):
        if task.parent is None:  # of an item that was drawn only this is known: that it was not taken up
            known[:, 1:, t] = counts[:, 1:] * data.known[picked, t, None]
    rest = {
        "score": score,
        "in_list": (score >= data.scored.floor[picked, None]).astype(np.float32),
        "label": label,
        "known": known,
        "position": np.zeros(chosen.shape, np.int64),
    }
    return queries_of(dataset, rows), chosen, rest


def slate_batch(
    dataset: Dataset, data: SlateRows, picked: np.ndarray
) -> tuple[Arrays, np.ndarray, dict[str, np.ndarray]]:
    """Return the queries of some slates, their items [B, C], and the rest of a batch by name."""
    shown = data.shown
    queries = slate_queries(dataset, take(data.rows, picked), {n: a[picked] for n, a in shown.context.items()})
    item = shown.item[picked]
    rest = {
        "score": data.scored.score(picked, item),
        "in_list": np.zeros(item.shape, np.float32),
        "label": shown.label[picked],
        "known": shown.known[picked],
        "position": shown.position[picked],
    }
    return queries, item, rest


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
    size = order.batch_rows(len(data), model.batch_size, processes)
    own = np.array_split(np.arange(size), processes)[process]
    for step in range(first_step, len(data) // size):
        picked = order.step_rows(len(data), size, seed, epoch, step)
        if isinstance(data, EventRows):
            # negatives of all processes at once, so that they do not hang on how many there are
            negatives = order.generator(seed, epoch, step, order.NEGATIVES)
            queries, chosen, rest = event_batch(dataset, data, model, picked, model.hard_negatives, negatives)
            queries = {name: array[own] for name, array in queries.items()}
            chosen, rest = chosen[own], {name: array[own] for name, array in rest.items()}
        else:
            queries, chosen, rest = slate_batch(dataset, data, picked[own])
        draw = order.generator(seed, epoch, step, order.UNKNOWN)
        queries["history_item"] = forget(queries["history_item"], model.unknown_share, draw, process, processes)
        items = item_arrays(dataset, chosen.reshape(-1))
        items["item_index"] = forget(items["item_index"], model.unknown_share, draw, process, processes)
        yield _batch(dataset, queries, items, chosen.shape[1], rest, data.weight[picked[own]])


def slate_batches(dataset: Dataset, data: SlateRows, size: int) -> Iterator[RankerBatch]:
    """Yield all slates in their order, nothing forgotten, for validation."""
    for low in range(0, len(data), size):
        picked = np.arange(low, min(low + size, len(data)))
        queries, chosen, rest = slate_batch(dataset, data, picked)
        items = item_arrays(dataset, chosen.reshape(-1))
        yield _batch(dataset, queries, items, chosen.shape[1], rest, data.weight[picked])


def _batch(
    dataset: Dataset, queries: Arrays, items: Arrays, per_row: int, rest: dict[str, np.ndarray], weight: np.ndarray
) -> RankerBatch:
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in rest.items()}
    tensors["score"] = tensors["score"].reshape(-1)
    return RankerBatch(
        inputs=to_inputs(dataset.spec, queries, items),
        cand_user=torch.arange(len(weight)).repeat_interleave(per_row),
        weight=torch.from_numpy(weight),
        **tensors,
    )


def list_inputs(dataset: Dataset, queries: Arrays, lists: np.ndarray) -> tuple[Inputs, Tensor]:
    """Return (inputs, cand_user) for B queries and their lists [B, K] of item_index; NO_ITEM reads row 0."""
    inputs = to_inputs(dataset.spec, queries, item_arrays(dataset, np.maximum(lists, 0).reshape(-1)))
    return inputs, torch.arange(len(lists)).repeat_interleave(lists.shape[1])
