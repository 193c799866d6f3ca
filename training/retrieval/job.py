"""Training of the two towers, from an open dataset to a finished run folder."""

from __future__ import annotations

from pathlib import Path

from playbill.dataset.dataset import Dataset
from playbill.training.batches.order import batch_rows
from playbill.training.batches.rows import learnable
from playbill.training.distributed import world_size
from playbill.training.fit import train_run
from playbill.training.retrieval.module import TowerModule
from playbill.training.runs import RunRecord
from playbill.training.settings import TrainSettings
from playbill.training.tracking import Tracker
from playbill.training.validation import Validation


def train(
    settings: TrainSettings, dataset: Dataset, run_dir: Path, record: RunRecord, resume: Path | None
) -> Tracker | None:
    """Train the towers and fill `record`; weights are left in `run_dir`/checkpoints. Returns the tracker, if any.

    Raises:
        TrainingError: no rows to learn from, or nobody to validate on.
        ConfigError: a batch that cannot be shared among the processes.
    """
    rows = learnable(dataset)
    validation = Validation(dataset, settings.metric_k)
    module = TowerModule(dataset, rows, settings, validation)
    size = batch_rows(len(rows), settings.model.batch_size, world_size())
    return train_run("two_tower", module, settings, validation.names, size, run_dir, record, resume)
