"""What the towers read and learn in one step: packed histories, their targets, and the items they are compared with.

Shape legend: T events, S = T + starts positions, M items of the step, F field columns, G groups, K negatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchrec import KeyedJaggedTensor

from playbill.dataset.arrays import read_blocks
from playbill.dataset.dataset import Dataset, Examples, field_arrays
from playbill.dataset.order import epoch_order
from playbill.dataset.settings import SplitKind
from playbill.features.encoder import DAY_US, Arrays, point_in_time
from playbill.features.spec import UNKNOWN
from playbill.training.batches import order
from playbill.training.batches.jagged import Inputs, to_fields, to_inputs
from playbill.training.batches.rows import recency_weights_at, share_within_visits
from playbill.training.retrieval.attention import Layout
from playbill.training.retrieval.negatives import Negatives, draw
from playbill.training.retrieval.packing import START, Packed, Windows, epoch_windows, pack, step_of
from playbill.training.settings import Loss, TwoTower

_WHOLE_SHUFFLE = 1_000_000  # windows that are shuffled among each other whatever they lie on

NEGATIVES = {
    Loss.uniform: Negatives.uniform,
    Loss.in_batch: Negatives.in_batch,
    Loss.mixed: Negatives.mixed,
    Loss.gbce: Negatives.uniform,
}


@dataclass(slots=True)
class Histories:
    """Packed events, as rows of the step's items.

    Attributes:
        item: [T] int64 rows of the step's items. event: [T] int64. value, gap_days: [T] float32.
        layout: of the windows.
        state: [P] int64 event whose state each learned event is asked of; T is the state before a first event.
        query_bags: fields of the person and the moment, [P], or None; query_numbers: [P, n] float32 likewise.
    """

    item: Tensor
    event: Tensor
    value: Tensor
    gap_days: Tensor
    layout: Layout
    state: Tensor
    query_bags: KeyedJaggedTensor | None
    query_numbers: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Histories:
        return Histories(*_moved(self, device, non_blocking))


@dataclass(slots=True)
class TowerBatch:
    """One step of one process.

    Attributes:
        inputs: M items without queries; the first is the unknown item.
        histories: what the query tower reads.
        target: [P] int64 rows of the items, what is learned.
        weight: [P] float32; sums to the process's share of one step, whatever the number of processes.
        negative: [G, K] int64 rows of the items, None for the full softmax.
        groups: G + 1 places in `target`: group g is groups[g] .. groups[g + 1].
        index: [M] int64 item_index of the items.
    """

    inputs: Inputs
    histories: Histories
    target: Tensor
    weight: Tensor
    negative: Tensor | None
    groups: list[int]
    index: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TowerBatch:
        return TowerBatch(*_moved(self, device, non_blocking))


class Source:
    """All steps of a training: what may be learned, and how it is cut.

    Args:
        dataset: with its split.
        end: [P] int64, one past the last pool row of each person that may be learned from.
        model: settings.
        seed: of the run.
        since_us: events before this moment (UTC microseconds) are read and not learned; None learns all.
        warm: [N + 1] bool items whose ids were learned before, so that they have one; None for none.

    Attributes:
        steps: of an epoch.
        table_row: [N + 1] int64 row of the item table of each item: 0 for those with too few events to have their own.
        counts: [N + 1] int64 events that may be learned from, by item.
        away_us, visit_share: what is learned from before an absence, and what share of the rest is learned.
    """

    def __init__(
        self,
        dataset: Dataset,
        end: np.ndarray,
        model: TwoTower,
        seed: int,
        since_us: int | None = None,
        warm: np.ndarray | None = None,
    ) -> None:
        pool = dataset.pool
        self.dataset, self.end, self.model, self.seed = dataset, end, model, seed
        self.start = pool.offsets[:-1]
        self.counts = np.zeros(dataset.spec.num_items + 1, np.int64)
        self.away_us, away = int(model.away_days * DAY_US), 0
        for low, person in enumerate_blocks(pool.person):
            rows = np.arange(low, low + len(person))
            items = pool.item[low : low + len(person)][rows < end[person]]
            self.counts += np.bincount(items, minlength=len(self.counts))
            since = pool.at[low : low + len(person)] - pool.at[self.start[person]]
            away += int((since[rows < end[person]] > self.away_us).sum())
        self.visit_share = share_within_visits(model.visit_share, away / max(int(self.counts.sum()), 1))
        self.counts[0] = 0
        self.since_us = since_us
        self.table_row = own_rows(self.counts if warm is None else self.counts + warm)
        some = np.flatnonzero(end > self.start)
        last = pool.at[end[some] - 1]  # moments do not fall within a person's rows
        self.newest = int(last.max())
        # about as many as there are events to read: windows that overlap add a little
        read = np.maximum(end - self.start - 1, 1)[some]
        if since_us is not None:
            new = (end - point_in_time(pool, np.arange(len(end)), np.full(len(end), since_us))[1])[some]
            read = np.where(last >= since_us, np.minimum(read, new + dataset.spec.history_length), 0)
        events = int(read.sum())
        self.steps = max(1, round(events / model.batch_tokens))
        self._windows: tuple[int, Windows, np.ndarray, np.ndarray] | None = None

    def epoch(self, epoch: int) -> tuple[Windows, np.ndarray, np.ndarray]:
        if self._windows is None or self._windows[0] != epoch:
            rng = order.generator(self.seed, epoch, 0, order.CUTS)
            windows = epoch_windows(self.start, self.end, max(2, self.dataset.spec.history_length), rng)
            if self.since_us is not None:
                windows = windows.take(np.flatnonzero(self.dataset.pool.at[windows.target_high - 1] >= self.since_us))
            self._windows = (epoch, windows, *step_of(windows, self.steps, self._order(windows, epoch)))
        return self._windows[1:]

    def _order(self, windows: Windows, epoch: int) -> np.ndarray:
        """Return [W] int64: the order of an epoch, kind to the disk where there may be more than memory holds."""
        pool = self.dataset.pool
        if len(windows) <= _WHOLE_SHUFFLE:
            return order.generator(self.seed, epoch, 0, order.ORDER).permutation(len(windows))
        people = epoch_order(pool.offsets, self.seed, epoch)
        place = np.zeros(len(pool.offsets) - 1, np.int64)
        place[people] = np.arange(len(people))
        return np.argsort(place[pool.person[windows.low]], kind="stable")

    def batches(self, epoch: int, first_step: int, process: int, processes: int) -> Iterator[TowerBatch]:
        """Yield one process's steps of an epoch from `first_step` on."""
        windows, mixed, begins = self.epoch(epoch)
        for step in range(first_step, self.steps):
            chosen = mixed[begins[step] : begins[step + 1]]
            if len(chosen) >= processes:  # else a step in which some process would have nothing to do
                yield self.batch(windows, chosen, epoch, step, process, processes)

    def batch(
        self, windows: Windows, chosen: np.ndarray, epoch: int, step: int, process: int, processes: int
    ) -> TowerBatch:
        """Return one process's part of a step. All processes draw alike, so that each knows the others' weights."""
        dataset, model, pool = self.dataset, self.model, self.dataset.pool
        some = windows.take(chosen)
        strict = dataset.split.kind is SplitKind.global_time
        draw_cuts = self._draw(epoch, step, order.CUTS)
        shares = model.stale_share, model.empty_share
        packed = pack(pool, some, strict, *shares, draw_cuts, self.away_us, self.visit_share)
        whole = self._weights(packed)
        total = max(float(whole.sum()) / processes, np.finfo(np.float32).tiny)
        # windows of a group share their negatives; whole groups go to a process, so that their number changes nothing
        groups = processes if model.loss is Loss.full_softmax else model.negative_groups
        borders = np.linspace(0, len(chosen), groups + 1).astype(np.int64)
        mine = borders[process * groups // processes : (process + 1) * groups // processes + 1]
        events = slice(packed.offsets[mine[0]], packed.offsets[mine[-1]])
        learned = np.concatenate([[0], np.cumsum(some.target_high - some.target_low)])
        part = slice(learned[mine[0]], learned[mine[-1]])
        weight = whole[part]
        counted = np.flatnonzero(weight > 0)
        if not len(counted):  # a process that drew nothing takes part in the step all the same
            counted = np.flatnonzero(pool.item[packed.target_row[part]] > 0)[:1]
        rows, number = packed.rows[events], len(packed.rows)
        state = packed.state[part][counted]
        state = np.where(state == START, len(rows), state - events.start)
        draw_forget = self._draw(epoch, step, order.UNKNOWN)
        lost = draw_forget.random(dataset.spec.num_items + 1) < model.unknown_share
        gone = draw_forget.random(number, dtype=np.float32)[events] < model.unknown_share
        history = np.where(gone, UNKNOWN, pool.item[rows])
        target_row = packed.target_row[part][counted]
        target = pool.item[target_row]
        group = np.searchsorted(counted, learned[mine] - part.start)
        negative = self._negatives(pool.item[packed.target_row[whole > 0]], epoch, step)
        if negative is not None:
            negative = negative[process * groups // processes : (process + 1) * groups // processes]
        if negative is None:
            index = np.arange(dataset.spec.num_items + 1)
        else:
            index = np.unique(np.concatenate([[UNKNOWN], history, target, negative.reshape(-1)]))
        table = np.where(lost[index], UNKNOWN, self.table_row[index])
        offsets = packed.offsets[mine[0] : mine[-1] + 1] - events.start
        return TowerBatch(
            inputs=to_inputs(dataset.spec, None, item_arrays(dataset, index, table)),
            histories=self._histories(rows, offsets, np.searchsorted(index, history), state, target_row),
            target=torch.from_numpy(np.searchsorted(index, target)),
            weight=torch.from_numpy((weight[counted] / total).astype(np.float32)),
            negative=None if negative is None else torch.from_numpy(np.searchsorted(index, negative)),
            groups=group.tolist(),
            index=torch.from_numpy(index),
        )

    def _histories(
        self, rows: np.ndarray, offsets: np.ndarray, history: np.ndarray, state: np.ndarray, target_row: np.ndarray
    ) -> Histories:
        dataset, pool = self.dataset, self.dataset.pool
        days = pool.at[rows] / DAY_US
        gap = np.diff(days, prepend=days[:1])
        gap[offsets[:-1]] = 0  # the first of a window knows nothing before it
        queries = field_arrays(dataset, pool.person[target_row], pool.at[target_row], target_row)
        bags, numbers = to_fields(dataset.spec, queries)
        return Histories(
            item=torch.from_numpy(history),
            event=torch.from_numpy(pool.code[rows].astype(np.int64)),
            value=torch.from_numpy(np.ascontiguousarray(pool.value[rows], np.float32)),
            gap_days=torch.from_numpy(gap.astype(np.float32)),
            layout=Layout(offsets.tolist(), torch.from_numpy(days) if self.model.time_bias else None),
            state=torch.from_numpy(state),
            query_bags=bags,
            query_numbers=numbers,
        )

    def _weights(self, packed: Packed) -> np.ndarray:
        pool, model = self.dataset.pool, self.model
        at = pool.at[packed.target_row]
        weight = recency_weights_at(at, model.half_life_days, model.weight_floor, self.newest)
        if self.since_us is not None:
            weight = weight * (at >= self.since_us)
        return weight * (packed.possible & (pool.item[packed.target_row] > 0))

    def _negatives(self, target: np.ndarray, epoch: int, step: int) -> np.ndarray | None:
        model = self.model
        if model.loss is Loss.full_softmax or not len(target):
            return None
        rng = self._draw(epoch, step, order.NEGATIVES)
        groups, num_items = model.negative_groups, self.dataset.spec.num_items
        return draw(NEGATIVES[model.loss], target, groups, model.negatives, num_items, model.mixed_share, rng)

    def _draw(self, epoch: int, step: int, purpose: int) -> np.random.Generator:
        return order.generator(self.seed, epoch, step + 1, purpose)  # step 0 is the epoch's own


def enumerate_blocks(column: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, block) of a column that may lie on disk."""
    low = 0
    for block in read_blocks(column):
        yield low, block
        low += len(block)


def end_of(dataset: Dataset, rows: Examples) -> np.ndarray:
    """Return [P] int64: one past the last pool row of each person that is among the rows to predict."""
    end = dataset.pool.offsets[:-1].copy()
    np.maximum.at(end, rows.person, rows.target_row + 1)
    return end


def own_rows(counts: np.ndarray) -> np.ndarray:
    """Return [N + 1] int64: the item itself where it was learned, else 0.

    The id of an item without any event would stay as it was drawn; without it, the item stands on its content.
    """
    return np.where(counts > 0, np.arange(len(counts)), UNKNOWN)


def item_arrays(dataset: Dataset, index: np.ndarray | None, table: np.ndarray | None = None) -> Arrays:
    """Return the item-side arrays of these items, or of the whole catalogue 1..N.

    Args:
        index: [M] int64 item_index, or None.
        table: [M] int64 rows of the item table, where they are not the item_index.
    """
    index = np.arange(1, dataset.spec.num_items + 1) if index is None else index
    rows = index if table is None else table
    return {"item_index": rows.copy(), **{name: array[index] for name, array in dataset.item_arrays.items()}}


def forget(ids: np.ndarray, share: float, draw: np.random.Generator, process: int, processes: int) -> np.ndarray:
    """Return `ids` with a share of the known ones replaced by the unknown item; drawn for all processes at once."""
    rows = len(ids)
    gone = (
        draw.random((rows * processes, *ids.shape[1:]), dtype=np.float32)[process * rows : (process + 1) * rows] < share
    )
    return np.where(gone & (ids > 0), UNKNOWN, ids)


def _moved(parts: Any, device: torch.device | str, non_blocking: bool) -> list[Any]:
    values = [getattr(parts, f.name) for f in fields(parts)]
    return [v.to(device, non_blocking=non_blocking) if hasattr(v, "to") else v for v in values]
