"""Training of the two towers, from an open dataset to a finished run folder."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from playbill.dataset.dataset import Dataset
from playbill.dataset.ends import training_ends
from playbill.errors import TrainingError
from playbill.training.distributed import rank
from playbill.training.fit import train_run
from playbill.training.retrieval.module import TowerModule
from playbill.training.retrieval.warm import open_warm
from playbill.training.runs import RunRecord
from playbill.training.settings import TrainSettings
from playbill.training.tracking import Tracker
from playbill.training.validation import Validation


def train(
    settings: TrainSettings, dataset: Dataset, run_dir: Path, record: RunRecord, resume: Path | None
) -> Tracker | None:
    """Train the towers and fill `record`; weights are left in `run_dir`/checkpoints. Returns the tracker, if any.

    Raises:
        TrainingError: no events to learn from, nobody to validate on, or a warm start that does not fit.
    """
    end = training_ends(dataset)
    if not (end > dataset.pool.offsets[:-1]).any():
        raise TrainingError("no event to learn from in training time; raise split.train, or check consent and item ids")
    since = settings.since_us()
    last = dataset.pool.at[end[end > dataset.pool.offsets[:-1]] - 1]
    if since is not None and last.max() < since:
        raise TrainingError(f"no event in training time since {settings.since}; give an earlier moment")
    validation = Validation(dataset, settings.metric_k)
    warm = None
    if settings.warm_start is not None:
        warm = open_warm(settings, dataset)
        record.warm_start = warm.about
        if rank() == 0:
            Console(stderr=True).print(warm.about)
    module = TowerModule(dataset, end, settings, validation, warm)
    return train_run(
        "two_tower", module, settings, validation.names, settings.model.batch_tokens, run_dir, record, resume
    )
