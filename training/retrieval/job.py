"""Training of the two towers, from an open dataset to a finished run folder."""

from __future__ import annotations

from pathlib import Path

from playbill.dataset.dataset import Dataset
from playbill.errors import TrainingError
from playbill.training.fit import train_run
from playbill.training.retrieval.data import learned_end
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
        TrainingError: no events to learn from, or nobody to validate on.
    """
    end = learned_end(dataset)
    if not (end > dataset.pool.offsets[:-1]).any():
        raise TrainingError("no event to learn from in training time; raise split.train, or check consent and item ids")
    validation = Validation(dataset, settings.metric_k)
    module = TowerModule(dataset, end, settings, validation)
    return train_run(
        "two_tower", module, settings, validation.names, settings.model.batch_tokens, run_dir, record, resume
    )
