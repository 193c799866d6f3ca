"""What both models share as Lightning modules: tables under TorchRec, optimizers, schedule, and exact resumption.

Resumption rests on one rule: whatever is random follows from (seed, step) alone, so nothing but weights, optimizer
states and the step needs to be stored. Order of rows and negatives come from counter-based generators
(`batches.order`), dropout from a seed set before every step.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torchrec.distributed import DistributedModelParallel

from playbill.training.distributed import (
    dense_parameters,
    fused_state,
    load_fused_state,
    rank,
    set_table_learning_rate,
    shard,
)
from playbill.training.settings import Tables, TrainSettings

_LAST_SHARE = 0.1  # of the learning rate at the end of the cosine


class ShardedModule(pl.LightningModule, ABC):
    """A model whose tables TorchRec keeps, in `dmp`. Subclasses say what the model is and what a step does.

    Attributes:
        figures: of the newest validation, by name; the same on every process.

    Args:
        settings: of the run; `settings.model` has the rates.
        steps_per_epoch: of all processes together; the same on each.
    """

    def __init__(self, settings: TrainSettings, steps_per_epoch: int) -> None:
        super().__init__()
        self.run_settings, self.steps_per_epoch = settings, steps_per_epoch
        self.dmp: DistributedModelParallel | None = None
        self.figures: dict[str, float] = {}

    @abstractmethod
    def build(self, tables_on: torch.device) -> nn.Module:
        """Return the model, its embedding modules on this device."""

    @abstractmethod
    def batches(self, epoch: int, first_step: int) -> Iterable[Any]:
        """Yield this process's batches of an epoch, from a step of it on."""

    def configure_model(self) -> None:
        if self.dmp is not None:  # Lightning asks again before a validation of its own
            return
        model, seed = self.run_settings.model, self.run_settings.seed
        fused = model.tables is Tables.fused
        torch.manual_seed(seed)  # dense weights: the same on every process
        whole = self.build(torch.device("meta" if fused else "cpu"))
        root = self.trainer.strategy.root_device
        self.dmp = shard(whole, root, model.table_learning_rate if fused else None, seed)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert self.dmp is not None
        model = self.run_settings.model
        return torch.optim.AdamW(dense_parameters(self.dmp), lr=model.learning_rate, weight_decay=model.weight_decay)

    def train_dataloader(self) -> Batches:
        # from the step at which a resumed run stands: Lightning itself would start again at the epoch's first batch
        return Batches(lambda: self.batches(*divmod(self.global_step, self.steps_per_epoch)))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        model, step = self.run_settings.model, self.global_step
        share = cosine(step / (self.steps_per_epoch * model.max_epochs))
        optimizer = self.optimizers()
        assert isinstance(optimizer, torch.optim.Optimizer) or hasattr(optimizer, "param_groups")
        for group in optimizer.param_groups:
            group["lr"] = model.learning_rate * share
        assert self.dmp is not None
        if model.tables is Tables.fused:
            set_table_learning_rate(self.dmp, model.table_learning_rate * share)
        torch.manual_seed((self.run_settings.seed * 1_000_003 + step) * 1_009 + rank())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert self.dmp is not None
        checkpoint["fused_optimizer"] = fused_state(self.dmp)  # collective: every process comes by here

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert self.dmp is not None
        load_fused_state(self.dmp, checkpoint["fused_optimizer"])


class Batches:
    """Hands Lightning a fresh iterator for every pass.

    It has no length on purpose: after a restart in the middle of an epoch Lightning counts batches from where its own
    books stand, and would leave out the validation at the end of that epoch if it knew how many to expect.
    """

    def __init__(self, make: Callable[[], Iterable[Any]]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[Any]:
        return iter(self.make())


def cosine(done: float) -> float:
    """Return the share of the learning rate after a share of all steps: 1 at the start, a tenth at the end."""
    return _LAST_SHARE + (1 - _LAST_SHARE) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
