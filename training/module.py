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
from torch import Tensor, nn
from torchrec.distributed import DistributedModelParallel

from playbill.training.distributed import (
    dense_parameters,
    dense_weights,
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
        # running means of the dense weights by name, and the weights themselves while the means stand in their place
        self._means: dict[str, Tensor] = {}
        self._aside: dict[str, Tensor] | None = None

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
        return torch.optim.AdamW(
            dense_parameters(self.dmp), lr=model.learning_rate, weight_decay=model.weight_decay, fused=True
        )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # not Lightning's: under bf16-mixed it refuses fused optimizers, for the sake of gradients that fp16 scales
        if gradient_clip_val:
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            torch.nn.utils.clip_grad_norm_(weights, gradient_clip_val)

    def train_dataloader(self) -> Batches:
        # from the step at which a resumed run stands: Lightning itself would start again at the epoch's first batch
        return Batches(lambda: self.batches(*divmod(self.global_step, self.steps_per_epoch)))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        model, step = self.run_settings.model, self.global_step
        share = cosine(step / (self.steps_per_epoch * model.max_epochs))
        share *= min(1.0, (step + 1) / (getattr(model, "warmup_steps", 0) + 1))
        optimizer = self.optimizers()
        assert isinstance(optimizer, torch.optim.Optimizer) or hasattr(optimizer, "param_groups")
        for group in optimizer.param_groups:
            group["lr"] = model.learning_rate * share
        assert self.dmp is not None
        if model.tables is Tables.fused:
            set_table_learning_rate(self.dmp, model.table_learning_rate * share)
        torch.manual_seed((self.run_settings.seed * 1_000_003 + step) * 1_009 + rank())

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        # here and not at the end of the batch, where last.ckpt is written before a module is told of it
        step = self.global_step + 1
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        memory = getattr(self.run_settings.model, "averaging", 0.0)
        if not memory:
            return
        weights = self._weights()
        if not self._means:
            self._means = {name: weight.clone() for name, weight in weights.items()}
        # shorter at first, so that where the weights began is soon forgotten
        memory = min(memory, step / (step + 9))
        torch._foreach_lerp_(list(self._means.values()), list(weights.values()), 1 - memory)

    def on_validation_start(self) -> None:
        if self._means:
            self._aside = {name: weight.clone() for name, weight in self._weights().items()}
            self._put(self._means)

    def on_validation_end(self) -> None:
        # after the callbacks: best.ckpt holds the means, which is what was validated
        if self._aside is not None:
            self._put(self._aside)
            self._aside = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert self.dmp is not None
        checkpoint["fused_optimizer"] = fused_state(self.dmp)  # collective: every process comes by here
        if self._means and self._aside is None:
            checkpoint["means"] = self._means

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert self.dmp is not None
        load_fused_state(self.dmp, checkpoint["fused_optimizer"])
        device = next(self.dmp.parameters()).device
        self._means = {name: mean.to(device) for name, mean in checkpoint.get("means", {}).items()}

    def _weights(self) -> dict[str, Tensor]:
        """Return the dense weights by name, the tensors themselves. Tables that TorchRec updates are not averaged."""
        assert self.dmp is not None
        return {name: weight.detach() for name, weight in dense_weights(self.dmp)}

    def _put(self, values: dict[str, Tensor]) -> None:
        weights = self._weights()
        torch._foreach_copy_([weights[name] for name in values], list(values.values()))


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
