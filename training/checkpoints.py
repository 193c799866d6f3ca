"""Checkpoints: `last.ckpt` to go on from, `best.ckpt` to use, `final.ckpt` as it ended. Each is whole or absent."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins import TorchCheckpointIO

from playbill.tables.files import write_atomic
from playbill.training.module import ShardedModule


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the place, flushes, renames: a killed process leaves the checkpoint before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomic(Path(path), buffer.getvalue())


class Checkpoints(Callback):
    """Writes last.ckpt every so many steps and best.ckpt after the best validation; stops when that gets no better.

    `last` is never written after an epoch's last step: validation belongs to that step, and a run that goes on from
    there would leave it out. Going on from the middle of an epoch repeats the validations since, with the same results.

    Attributes:
        best: best value of the metric so far; best_epoch: the epoch (1-based) it came after; report: all figures of it.
        waited: validations since.
    """

    def __init__(self, folder: Path, metric: str, every_steps: int, steps_per_epoch: int, patience_epochs: int) -> None:
        self.folder, self.metric = folder, metric
        self.every_steps, self.steps_per_epoch, self.patience_epochs = every_steps, steps_per_epoch, patience_epochs
        self.best, self.best_epoch, self.waited = float("-inf"), 0, 0
        self.report: dict[str, float] = {}
        self._saved_at = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_at = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if step - self._saved_at >= self.every_steps and step % self.steps_per_epoch:
            self._saved_at = step
            trainer.save_checkpoint(self.folder / "last.ckpt")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        figures = dict(cast(ShardedModule, pl_module).figures)
        if figures[self.metric] > self.best:
            self.best, self.best_epoch, self.waited = figures[self.metric], trainer.current_epoch + 1, 0
            self.report = figures
            trainer.save_checkpoint(self.folder / "best.ckpt", weights_only=True)
        else:
            self.waited += 1
        if self.patience_epochs and self.waited >= self.patience_epochs:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.folder / "final.ckpt", weights_only=True)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch, "waited": self.waited, "report": self.report}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]
        self.waited, self.report = state_dict["waited"], state_dict["report"]
