"""What a person sees of a training: a bar to stderr, and a line for each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from playbill.errors import TrainingError
from playbill.training.checkpoints import Checkpoints
from playbill.training.distributed import sum_over_processes
from playbill.training.module import ShardedModule
from playbill.training.tracking import Tracker


class Report(Callback):
    """Shows progress, hands figures to the tracker, and measures the speed of training without validation.

    Args:
        title: what is being trained.
        samples_per_step: rows of all processes together.
        steps: of the whole training.
        open_tracker: called with the step that training starts from, on rank 0; None logs nothing.
        checkpoints: None where no validation takes place.
    """

    def __init__(
        self,
        title: str,
        samples_per_step: int,
        steps: int,
        open_tracker: Callable[[int], Tracker] | None = None,
        checkpoints: Checkpoints | None = None,
        log_every_steps: int = 1,
    ) -> None:
        self.title, self.samples_per_step, self.steps = title, samples_per_step, steps
        self.open_tracker, self.checkpoints, self.log_every_steps = open_tracker, checkpoints, log_every_steps
        self.tracker: Tracker | None = None
        self.seconds, self.timed_steps, self.waited = 0.0, 0, 0.0
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task: Any = None
        self._losses: list[float] = []
        self._begun = self._ended = 0.0

    @property
    def samples_per_second(self) -> float:
        return self.timed_steps * self.samples_per_step / self.seconds if self.seconds else 0.0

    @property
    def input_share(self) -> float:
        """Share of the training time that steps waited for their batch."""
        return self.waited / self.seconds if self.seconds else 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begun = self._ended = (
            time.perf_counter()
        )  # a run that goes on within an epoch is not told that one starts
        if trainer.is_global_zero:
            if self.open_tracker is not None:
                self.tracker = self.open_tracker(trainer.global_step)
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.steps, completed=trainer.global_step)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begun = self._ended = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.waited += time.perf_counter() - self._ended

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds += time.perf_counter() - self._begun
        self._begun = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.timed_steps += 1
        loss = float(outputs["loss"])
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at step {trainer.global_step}; lower model.learning_rate, or look for outliers "
                "among the features"
            )
        self._losses.append(loss)
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step)
        if self.open_tracker is not None and trainer.global_step % self.log_every_steps == 0:
            self._log_loss(trainer, pl_module)
        self._ended = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds += time.perf_counter() - self._begun

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        figures = dict(cast(ShardedModule, pl_module).figures)
        if trainer.is_global_zero:
            if self.tracker is not None:
                self.tracker.log(trainer.global_step, {"epoch": trainer.current_epoch + 1} | figures)
                self.tracker.log_system(trainer.global_step, self.samples_per_second)
            if self.checkpoints is not None:
                name = self.checkpoints.metric
                mark = " best so far" if figures[name] > self.checkpoints.best else ""
                self._console.print(f"{self.title} epoch {trainer.current_epoch + 1}: {name} {figures[name]:.4f}{mark}")
        self._begun = self._ended = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._bar.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _log_loss(self, trainer: Trainer, pl_module: LightningModule) -> None:
        sums = sum_over_processes(torch.tensor([sum(self._losses), len(self._losses)], dtype=torch.float64))
        self._losses = []
        if self.tracker is not None:
            rate = pl_module.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]  # one optimizer, never a list
            self.tracker.log(trainer.global_step, {"loss": float(sums[0] / sums[1]), "learning_rate": rate})
