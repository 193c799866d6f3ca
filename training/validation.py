"""The validation metric of both models: one query a person at the moment where validation time begins, full catalogue.

Asked are people with a history, as in an engine, which has other answers for those it knows nothing of.

Items a person has touched before are left out of their list; the metric is the same as in the final evaluation
(`measure.ranking`). People are dealt to the processes, each of which asks the model equally often.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from playbill.dataset.boundary import boundary_queries
from playbill.dataset.dataset import Dataset, query_arrays
from playbill.errors import TrainingError
from playbill.features.encoder import Arrays
from playbill.measure.ranking import NO_ITEM, Targets, user_metrics
from playbill.training.distributed import sum_over_processes

_SIZE = 256
_WIDEST = 100


@dataclass(slots=True)
class ValidationBatch:
    """Some people of one process.

    Attributes:
        rows: [b] int64 rows of the queries.
        counted: [b] bool, False for rows that only keep the processes in step.
        arrays: query-side arrays, [b, ...].
    """

    rows: np.ndarray
    counted: np.ndarray
    arrays: Arrays

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ValidationBatch:
        return self  # becomes tensors in the module, which knows its device


class Validation:
    """Everybody with a history and events in validation time, and what they went on to do; all, if none has a history.

    Raises:
        TrainingError: nobody has any; says how the split must change.
    """

    def __init__(self, dataset: Dataset, metric_k: int) -> None:
        everybody = boundary_queries(dataset, "valid")
        if not len(everybody):
            raise TrainingError("nobody has events in validation time; raise split.valid or lower split.train")
        known = everybody.with_history()
        self.dataset, self.queries = dataset, known if len(known) else everybody
        self.ks = sorted({metric_k, _WIDEST})
        self.targets = Targets(self.queries.target_indptr, self.queries.target_item)

    @property
    def names(self) -> list[str]:
        """Names of all figures of `metrics`, the metrics' means."""
        return [f"{m}_at_{k}" for k in self.ks for m in ("ndcg", "recall", "hit_rate")]

    def batches(self, process: int, processes: int) -> Iterator[ValidationBatch]:
        """Yield the batches of one process; every process gets as many, of the same sizes."""
        share = -(-len(self.queries) // processes)
        mine = process + processes * np.arange(share)
        counted = mine < len(self.queries)
        mine = np.where(counted, mine, 0)
        for begin in range(0, share, _SIZE):
            rows = mine[begin : begin + _SIZE]
            q = self.queries
            arrays = query_arrays(self.dataset, q.person[rows], q.start[rows], q.end[rows], q.now[rows])
            yield ValidationBatch(rows, counted[begin : begin + _SIZE], arrays)

    def hide_seen(self, scores: Tensor, rows: np.ndarray) -> Tensor:
        """Return scores [b, N] (column i is item_index i + 1) with -inf for what each person has seen."""
        hidden = seen_mask(self.queries.seen_indptr, self.queries.seen_item, rows, scores.shape[1])
        return scores.masked_fill(torch.from_numpy(hidden).to(scores.device), float("-inf"))

    def metrics(self, lists: np.ndarray, batch: ValidationBatch) -> np.ndarray:
        """Return [len(names) + 1] float64: the sums over counted rows of each metric, and their number.

        Args:
            lists: [b, K] item_index, best first, NO_ITEM where a list is shorter.
        """
        num_items = self.dataset.spec.num_items
        widest = max(self.ks)
        padded = np.full((len(lists), widest), NO_ITEM, np.int64)
        padded[:, : lists.shape[1]] = lists[:, :widest]
        counted = np.flatnonzero(batch.counted)
        if not len(counted):
            return np.zeros(len(self.names) + 1)
        by_name = user_metrics(padded[counted], self.targets.take(batch.rows[counted]), self.ks, num_items)
        return np.asarray([by_name[name].sum() for name in self.names] + [float(len(counted))])

    def mean(self, sums: np.ndarray) -> dict[str, float]:
        """Return the means over all processes. Collective."""
        values = sum_over_processes(torch.from_numpy(sums)).tolist()
        return {name: values[i] / values[-1] for i, name in enumerate(self.names)}


def seen_mask(indptr: np.ndarray, item: np.ndarray, rows: np.ndarray, num_items: int) -> np.ndarray:
    """Return [b, N] bool, True at column i where item_index i + 1 is in the list of rows[b].

    Args:
        indptr, item: lists of item_index >= 1 as CSR.
        rows: [b] int64 which lists.
    """
    mask = np.zeros((len(rows), num_items), bool)
    counts = indptr[rows + 1] - indptr[rows]
    first = np.repeat(indptr[rows] - np.cumsum(counts) + counts, counts)
    mask[np.repeat(np.arange(len(rows)), counts), item[first + np.arange(len(first))] - 1] = True
    return mask


def best_first(scores: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (item_index [b, k], score [b, k]) of the k best columns, NO_ITEM where fewer than k are finite."""
    top = torch.topk(scores, min(k, scores.shape[1]), dim=1)
    score = top.values.float().cpu().numpy()
    return np.where(np.isfinite(score), top.indices.cpu().numpy() + 1, NO_ITEM), score
