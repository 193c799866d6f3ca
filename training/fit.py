"""Running a module: processes, trainer, callbacks. Both models and the towers of cross-fitting go through `fit`."""

from __future__ import annotations

import gc
import logging
import os
import resource
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch._C._distributed_c10d import HashStore

from playbill.errors import TrainingError
from playbill.training.checkpoints import AtomicCheckpointIO, Checkpoints
from playbill.training.distributed import TorchRecStrategy, device, local_world_size, world_size
from playbill.training.module import ShardedModule
from playbill.training.progress import Report
from playbill.training.runs import RunRecord
from playbill.training.settings import TrainSettings
from playbill.training.tracking import Tracker

T = TypeVar("T")


@contextmanager
def processes(settings: TrainSettings) -> Iterator[None]:
    """Join this process to the others (torchrun's, or a world of one) and set seeds, threads and determinism."""
    _quiet()
    if device() == "cuda":
        # NCCL sends objects through the current device; cuBLAS sums in one order only with a space of its own
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cores = len(os.sched_getaffinity(0))
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    share = max(1, cores // local_world_size())
    torch.set_num_threads(settings.threads or int(os.environ.get("OMP_NUM_THREADS", share)))
    pl.seed_everything(settings.seed, workers=True, verbose=False)
    torch.use_deterministic_algorithms(True, warn_only=device() == "cuda")
    # costs time, and no result of ours reads such memory
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # not in torch's stubs
    opened = not dist.is_initialized()
    if opened and world_size() > 1:
        dist.init_process_group("nccl" if device() == "cuda" else "gloo")
    elif opened:
        store = HashStore()  # no port: nobody else takes part
        dist.init_process_group("nccl" if device() == "cuda" else "gloo", store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        if opened:
            dist.destroy_process_group()
            # Gloo's threads end when nobody holds the group, and the trainer is a cycle that does. One that lets go of
            # its last tensor while Python shuts down aborts the process.
            gc.collect()
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


def agree(value: T) -> T:
    """Return rank 0's value on every process. Collective."""
    box = [value]
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]


def fit(
    module: ShardedModule,
    settings: TrainSettings,
    epochs: int,
    report: Report,
    checkpoints: Checkpoints | None,
    resume: Path | None,
    validate_every: int = 1,
) -> pl.Trainer:
    """Train a module to the end; it goes on from `resume` where that is given.

    Args:
        checkpoints: None trains without validation and leaves nothing behind.
        validate_every: epochs between validations.
    Raises:
        TrainingError: a signal stopped it.
    """
    # the report first: a step that last.ckpt knows of must stand in metrics.csv
    callbacks: list[Any] = [report] if checkpoints is None else [report, checkpoints]
    local = local_world_size()
    trainer = pl.Trainer(
        accelerator="gpu" if device() == "cuda" else "cpu",
        devices=local,
        num_nodes=world_size() // local,
        strategy=TorchRecStrategy(checkpoint_io=AtomicCheckpointIO()),
        precision=settings.precision,  # type: ignore[arg-type]  # checked by TrainSettings
        max_epochs=epochs,
        gradient_clip_val=settings.gradient_clip or None,
        limit_val_batches=0 if checkpoints is None else None,
        check_val_every_n_epoch=validate_every,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    with warnings.catch_warnings():
        _quiet_lightning()
        try:
            trainer.fit(module, ckpt_path=None if resume is None else str(resume), weights_only=True)
        except SIGTERMException as error:  # a SystemExit without a code: the process would end as if all were done
            raise TrainingError(
                f"stopped by SIGTERM at step {trainer.global_step}; the same command goes on from the last checkpoint"
            ) from error
    return trainer


def train_run(
    title: str,
    module: ShardedModule,
    settings: TrainSettings,
    figures: list[str],
    samples_per_step: int,
    run_dir: Path,
    record: RunRecord,
    resume: Path | None,
    metric: str | None = None,
    epochs: int | None = None,
    validate_every: int = 1,
) -> Tracker | None:
    """Train a run's own model with validation, checkpoints and figures, and fill its record; return its tracker.

    On other processes than rank 0, and where there was nothing left to train, there is no tracker.

    Args:
        figures: names of the validation metrics.
        samples_per_step: rows of all processes together.
        metric: the figure that decides which epoch is best, higher is better; None: ndcg_at_<metric_k>.
        epochs: passes; None: model.max_epochs, to whose end the learning rate falls in any case.
        validate_every: epochs between validations.
    """
    metric = metric or f"ndcg_at_{settings.metric_k}"
    model = settings.model
    checkpoints = Checkpoints(
        run_dir / "checkpoints",
        metric,
        settings.checkpoint_every_steps,
        module.steps_per_epoch,
        model.patience_epochs,
    )

    def open_tracker(step: int) -> Tracker:
        return Tracker(run_dir, ["epoch", "loss", "learning_rate", *figures], step, settings)

    epochs = epochs or model.max_epochs
    steps = epochs * module.steps_per_epoch
    report = Report(title, samples_per_step, steps, open_tracker, checkpoints, settings.log_every_steps)
    trainer = fit(module, settings, epochs, report, checkpoints, resume, validate_every)
    record.metric, record.best, record.best_epoch = metric, checkpoints.best, checkpoints.best_epoch
    record.report, record.epochs = checkpoints.report, trainer.current_epoch
    record.samples_per_second = round(report.samples_per_second, 1)
    record.input_share = round(report.input_share, 4)
    record.peak_mib = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    return report.tracker


def _quiet() -> None:
    """Silence what libraries say about themselves at every start."""
    for name in ("pytorch_lightning", "lightning.pytorch", "torchrec", "torch.fx._symbolic_trace"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _quiet_lightning() -> None:
    # our iterable starts where a resumed run stands, and batches are cheap to make
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*mid-epoch.*")
    # Lightning's own use of a torch name that is on its way out
    warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*")
