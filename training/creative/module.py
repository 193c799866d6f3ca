"""The creative heads as a Lightning module."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from playbill.features.creatives import CREATIVE_INDEX
from playbill.training.batches import order
from playbill.training.creative.data import (
    CreativeBatch,
    CreativeData,
    creative_inputs,
    is_there,
    training_batches,
    validation_batches,
)
from playbill.training.creative.network import CreativeNet, TitleNet, centred
from playbill.training.distributed import dense_weights, rank, sum_over_processes, world_size
from playbill.training.module import Batches, ShardedModule
from playbill.training.settings import TrainSettings

METRIC = "bits_per_click"
FIGURES = [METRIC, "log_loss", "title_log_loss"]


class CreativeModel(nn.Module):
    """Title and creative in one forward pass.

    Args:
        data: gives sizes, content of creatives and items, places, and the catalogue's vectors.
    """

    def __init__(self, data: CreativeData, settings: TrainSettings) -> None:
        super().__init__()
        model = settings.model
        share = float(np.clip(data.train.clicked.mean(), 1e-6, 1 - 1e-6))
        num_creatives, contents = len(data.arrays[CREATIVE_INDEX]) - 1, torch.from_numpy(data.contents)
        self.head = CreativeNet(data.fields, num_creatives, contents, model.field_dim, model.main, model.match)
        self.title = TitleNet(torch.from_numpy(data.items), model.max_positions, math.log(share / (1 - share)))
        for name, place in data.places.items():
            getattr(self.head, f"place_{name}").copy_(torch.from_numpy(place))
        self.names = list(data.arrays)
        for name, array in data.arrays.items():
            self.register_buffer(f"content_{name}", torch.from_numpy(array), persistent=False)

    def forward(self, batch: CreativeBatch) -> tuple[Tensor, Tensor]:
        """Return the title's logit [B] and the centred logit of the creative shown [B]."""
        title = self.title(batch.person, batch.item, batch.position)
        there = is_there(batch.eligible)
        row, column = torch.nonzero(there, as_tuple=True)
        content = {name: getattr(self, f"content_{name}") for name in self.names}
        features = self.head(batch.profile, row, creative_inputs(content, batch.eligible[row, column]))
        score = title.new_zeros(there.shape)
        score[row, column] = features @ self.head.weights()
        shown = centred(score, there).gather(1, batch.shown.unsqueeze(1)).squeeze(1)
        return title, shown


class CreativeModule(ShardedModule):
    """Trains the heads; validated by how much better they know what was clicked than the title alone does."""

    def __init__(self, data: CreativeData, settings: TrainSettings) -> None:
        self.size = order.batch_rows(len(data.train), settings.model.batch_size, world_size())
        super().__init__(settings, len(data.train) // self.size)
        self.data = data
        self._sums = torch.zeros(4, dtype=torch.float64)

    def build(self, tables_on: torch.device) -> nn.Module:
        return CreativeModel(self.data, self.run_settings)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert self.dmp is not None
        model = self.run_settings.model
        # those whose spread is set, and the title, whose levels are not to be drawn to 0
        free: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, weight in dense_weights(self.dmp):
            free[".own." in f".{name}" or "title." in name].append(weight)
        groups: list[dict[str, Any]] = [{"params": free[False]}, {"params": free[True], "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=model.learning_rate, weight_decay=model.weight_decay, fused=True)

    def batches(self, epoch: int, first_step: int) -> Iterable[CreativeBatch]:
        seed = self.run_settings.seed
        return training_batches(self.data, self.size, seed, epoch, first_step, rank(), world_size())

    def training_step(self, batch: CreativeBatch, batch_idx: int) -> Tensor:
        assert self.dmp is not None
        title, shown = self.dmp(batch)
        model, whole = self.run_settings.model, self.dmp.module
        fit = functional.binary_cross_entropy_with_logits(title + shown, batch.clicked)
        # what single creatives and titles have of their own is believed as far as their records go
        prior = whole.head.own.weight.square().sum() / model.own_sd**2
        prior = prior + whole.title.item.weight.square().sum() / model.item_sd**2
        loss: Tensor = fit + prior / (2 * len(self.data.train))
        return loss

    def val_dataloader(self) -> Batches:
        size = min(self.run_settings.model.batch_size, len(self.data.valid))
        return Batches(lambda: validation_batches(self.data, size, rank(), world_size()))

    def on_validation_epoch_start(self) -> None:
        self._sums.zero_()

    @torch.no_grad()
    def validation_step(self, batch: CreativeBatch, batch_idx: int) -> None:
        assert self.dmp is not None
        title, shown = self.dmp(batch)
        losses = [_loss(title + shown, batch), _loss(title, batch)]
        counts = [(batch.clicked * batch.counted).sum(), batch.counted.sum()]
        self._sums += torch.stack([*losses, *counts]).double().cpu()

    def on_validation_epoch_end(self) -> None:
        both, title, clicks, rows = sum_over_processes(self._sums).tolist()
        self.figures = {
            METRIC: (title - both) / max(clicks, 1.0) / math.log(2),
            "log_loss": both / rows,
            "title_log_loss": title / rows,
        }


def _loss(logit: Tensor, batch: CreativeBatch) -> Tensor:
    each = functional.binary_cross_entropy_with_logits(logit, batch.clicked, reduction="none")
    return (each * batch.counted).sum()
