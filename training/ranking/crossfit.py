"""Retrieval scores for the ranker's training rows, from towers that never saw those rows.

A tower scores what it was trained on too high: a ranker that learned from such scores would trust them more than it may
when it serves. So people are dealt into folds, each fold's rows are scored by a tower trained on the other folds, with
the settings and the number of epochs that the retrieval run found best, and the ranker learns from those. Cost: folds
minus 1 times the retrieval run's training (2 folds: once more). Serving and validation use the run's own tower, which
saw neither validation nor test rows; it has learned from more people than a fold's tower, so its scores are a little
better than those the ranker got to know. Folds of people and not of time, because every training row can be used and
because most who are asked for later are people the tower has not met.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import torch

from playbill.dataset.dataset import Dataset, Examples
from playbill.tables.files import write_atomic
from playbill.training.batches import order
from playbill.training.batches.order import batch_rows
from playbill.training.batches.rows import learnable, queries_of, take
from playbill.training.distributed import rank, world_size
from playbill.training.fit import agree, fit
from playbill.training.progress import Report
from playbill.training.ranking.sampling import Touched
from playbill.training.retrieval.module import TowerModule
from playbill.training.runs import Run
from playbill.training.settings import Ranker, TrainSettings, TwoTower
from playbill.training.validation import best_first

_SIZE = 2048  # rows scored at once


@dataclasses.dataclass(slots=True)
class Scored:
    """What the towers of the other folds say of R training rows.

    Attributes:
        fold: [R] int64.
        query: [R, D] float32 vectors of the rows' histories.
        items: [folds, N + 1, D] float32 item vectors of each fold's tower; row 0 (unknown) is 0.
        top: [R, pool] int32 item_index, best first, nothing that the person touches in training time; 0 where it ends.
    """

    fold: np.ndarray
    query: np.ndarray
    items: np.ndarray
    top: np.ndarray

    def score(self, rows: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Return cosines [B, C] float32. Args: rows [B] int64, candidates [B, C] int64 item_index."""
        vectors = self.items[self.fold[rows][:, None], candidates]
        scores: np.ndarray = np.einsum("bd,bcd->bc", self.query[rows], vectors)
        return scores


def cross_fit(
    dataset: Dataset, rows: Examples, touched: Touched, retrieval: Run, settings: TrainSettings, path: Path
) -> Scored:
    """Return scores of `rows`; they are kept at `path` for a run that is stopped later on, and read from there if
    present.

    Args:
        rows: the ranker's training rows, histories as the ranker will see them.
        touched: what each person touches in training time.
    """
    if not agree(path.is_file()):
        scored = _train_and_score(dataset, rows, touched, retrieval, settings)
        if rank() == 0:
            buffer = io.BytesIO()
            np.savez(buffer, fold=scored.fold, query=scored.query, items=scored.items, top=scored.top)
            write_atomic(path, buffer.getvalue())
        agree(None)  # the file is there
    with np.load(path, allow_pickle=False) as saved:  # every process goes on with rank 0's numbers
        return Scored(saved["fold"], saved["query"], saved["items"], saved["top"])


def _train_and_score(
    dataset: Dataset, rows: Examples, touched: Touched, retrieval: Run, settings: TrainSettings
) -> Scored:
    model: Ranker = settings.model
    towers: TwoTower = retrieval.model
    draw = order.generator(settings.seed, 0, 0, order.FOLDS)
    fold = draw.permutation(len(dataset.people)) % model.cross_fit_folds
    everything = learnable(dataset)
    num_items = dataset.spec.num_items
    scored = Scored(
        fold=fold[rows.person],
        query=np.zeros((len(rows), towers.dim), np.float32),
        items=np.zeros((model.cross_fit_folds, num_items + 1, towers.dim), np.float32),
        top=np.zeros((len(rows), min(model.hard_pool, num_items)), np.int32),
    )
    for number in range(model.cross_fit_folds):
        others = take(everything, np.flatnonzero(fold[everything.person] != number))
        module = TowerModule(dataset, others, dataclasses.replace(settings, model=towers), None)
        epochs = max(retrieval.record.best_epoch, 1)
        steps = epochs * module.steps_per_epoch
        size = batch_rows(len(others), towers.batch_size, world_size())
        fit(module, module.run_settings, epochs, Report(f"cross-fit {number + 1}", size, steps), None, None)
        module.eval()
        items = module.catalogue()
        scored.items[number, 1:] = items.cpu().numpy()
        mine = np.flatnonzero(scored.fold == number)
        for begin in range(0, len(mine), _SIZE):
            some = mine[begin : begin + _SIZE]
            query = module.query(queries_of(dataset, take(rows, some)))
            scored.query[some] = query.cpu().numpy()
            hidden = torch.from_numpy(touched.mask(rows.person[some])).to(items.device)
            top, score = best_first((query @ items.t()).masked_fill(hidden, float("-inf")), scored.top.shape[1])
            scored.top[some] = np.where(np.isfinite(score), top, 0)
    return scored
