"""Training of the two towers, from an open dataset to a finished run folder."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from playbill.dataset.dataset import Dataset
from playbill.dataset.ends import learning_ends
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
    settings: TrainSettings,
    dataset: Dataset,
    run_dir: Path,
    record: RunRecord,
    resume: Path | None,
    refit: RunRecord | None = None,
) -> Tracker | None:
    """Train the towers and fill `record`; weights are left in `run_dir`/checkpoints. Returns the tracker, if any.

    Args:
        refit: of the run that this one is made again from.
    Raises:
        TrainingError: no events to learn from, nobody to validate on, or a warm start that does not fit.
    """
    end = learning_ends(dataset, "valid" if refit is None else "test")
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
    epochs = settings.model.max_epochs if refit is None else refit.best_epoch
    tracker = train_run(
        "two_tower",
        module,
        settings,
        validation.names,
        settings.model.batch_tokens,
        run_dir,
        record,
        resume,
        epochs=epochs,
        # once, at the end, where the weights are kept: of a refit the figure says nothing, it has learned these people
        validate_every=settings.model.validate_every if refit is None else epochs,
    )
    if refit is not None:
        record.metric, record.best, record.best_epoch = refit.metric, refit.best, refit.best_epoch
        record.report = refit.report
    return tracker
