"""Training of the ranker, from an open dataset and a finished retrieval run to a finished run folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from playbill.dataset.boundary import rows_before
from playbill.dataset.dataset import Dataset
from playbill.errors import TrainingError
from playbill.features.encoder import Arrays
from playbill.tables.folder import read_table
from playbill.training.batches import order
from playbill.training.batches.rows import cut_histories, earlier_and_later, learnable, recency_weights
from playbill.training.distributed import rank, world_size
from playbill.training.fit import train_run
from playbill.training.ranking.data import RankerRows
from playbill.training.ranking.module import RankerModule
from playbill.training.ranking.sampling import Touched
from playbill.training.ranking.scores import score_rows, start_bias
from playbill.training.retrieval.data import item_arrays
from playbill.training.retrieval.plain import load_plain
from playbill.training.runs import Run, RunRecord
from playbill.training.settings import TrainSettings
from playbill.training.tracking import Tracker
from playbill.training.validation import Validation, best_first


def train(
    settings: TrainSettings, dataset: Dataset, run_dir: Path, record: RunRecord, resume: Path | None, retrieval: Run
) -> Tracker | None:
    """Train the ranker and fill `record`; weights are left in `run_dir`/checkpoints. Returns the tracker, if any.

    Raises:
        TrainingError: the retrieval run has other features than this one, or there is nothing to learn from.
    """
    if retrieval.spec.hash() != dataset.spec.hash():
        raise TrainingError(
            f"{retrieval.path} was trained on other features; train model=two_tower with the same features and split"
        )
    model, pool = settings.model, dataset.pool
    earlier, later = earlier_and_later(learnable(dataset), model.later_share, model.max_rows)
    draw = order.generator(settings.seed, 0, 0, order.CUTS)
    rows = cut_histories(later, model.stale_share, model.empty_share, draw)
    known = rows_before(dataset, "valid")
    touched = Touched(pool.person[known], pool.item[known], len(dataset.people), dataset.spec.num_items)
    scores_path = run_dir / "scores.npz"
    scored = score_rows(dataset, earlier, rows, touched, retrieval, settings, scores_path)
    value = event_values(Path(settings.home) / "tables" / settings.tables)[pool.source_row[rows.target_row]]
    weight = recency_weights(rows, model.half_life_days, model.weight_floor)
    data = RankerRows(rows, value, weight, scored, touched)
    validation = Validation(dataset, settings.metric_k)
    lists, scores = tower_lists(dataset, validation, retrieval, model.hard_pool)
    alone = list_metrics(validation, lists)
    bias = start_bias(scored, model.uniform_negatives)
    module = RankerModule(dataset, data, settings, validation, lists, scores, scored.scale, bias)
    size = order.batch_rows(len(rows), model.batch_size, world_size())
    tracker = train_run("ranker", module, settings, validation.names, size, run_dir, record, resume)
    record.report = record.report | {f"retrieval_{name}": value for name, value in alone.items()}
    if rank() == 0:
        scores_path.unlink()  # only a run that has to go on needs them
        name = record.metric
        Console(stderr=True).print(f"{name}: retrieval alone {alone[name]:.4f}, with the ranker {record.best:.4f}")
    return tracker


def event_values(tables: Path) -> np.ndarray:
    """Return [E] float64 raw values of the events table, NaN where there is none."""
    events = read_table(tables, "events")
    if "value" not in events.column_names:
        return np.full(events.num_rows, np.nan)
    return np.asarray(events["value"].cast("float64").fill_null(float("nan")))


@torch.no_grad()
def tower_lists(dataset: Dataset, validation: Validation, retrieval: Run, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (item_index, score) [Q, k] of the retrieval run's own tower for every validation query, seen left out."""
    query_tower, item_tower = load_plain([retrieval.path], dataset.item_arrays)
    items = item_tower(tensors(item_arrays(dataset, None)))
    lists, scores = [], []
    for batch in validation.batches(0, 1):
        found = validation.hide_seen(query_tower(tensors(batch.arrays)) @ items.t(), batch.rows)
        top, score = best_first(found, k)
        lists.append(top)
        scores.append(score)
    return np.concatenate(lists), np.concatenate(scores)


def list_metrics(validation: Validation, lists: np.ndarray) -> dict[str, float]:
    """Return the mean metrics of lists [Q, K] for all validation queries."""
    sums = np.zeros(len(validation.names) + 1)
    for batch in validation.batches(0, 1):
        sums += validation.metrics(lists[batch.rows], batch)
    return {name: float(sums[i] / sums[-1]) for i, name in enumerate(validation.names)}


def tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    """Return arrays as tensors of the same memory."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
