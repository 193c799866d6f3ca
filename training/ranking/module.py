"""The ranker as a Lightning module."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from playbill.dataset.dataset import Dataset
from playbill.dataset.tasks import parents
from playbill.measure.binary import auc
from playbill.measure.ranking import NO_ITEM
from playbill.training.batches import order
from playbill.training.batches.jagged import Inputs
from playbill.training.distributed import rank, world_size
from playbill.training.embeddings import TrainingEncoder, join_fields
from playbill.training.module import Batches, ShardedModule
from playbill.training.ranking.data import (
    RankerBatch,
    RankerRows,
    SlateRows,
    list_inputs,
    ranker_batches,
    slate_batches,
)
from playbill.training.ranking.losses import departure_loss, log_probabilities, task_losses
from playbill.training.ranking.plain import build_net
from playbill.training.ranking.position import PositionTower
from playbill.training.ranking.sampling import list_offset
from playbill.training.ranking_settings import Ranker
from playbill.training.settings import TrainSettings
from playbill.training.validation import Validation, ValidationBatch

_SLATES = 256  # asked at once in validation


@dataclass(slots=True)
class Start:
    """Where the untrained ranker stands: the scale of the retrieval score, and a bias for each task."""

    scale: float
    biases: list[float]


def shown_auc(model: Ranker) -> str:
    """Return the name of the figure that picks the weights of a ranker that learns from impressions."""
    return f"auc_{model.tasks[0].name}_shown"


class RankerModel(nn.Module):
    """Encoder and network in one forward pass, and the position tower where there is one."""

    def __init__(self, encoder: TrainingEncoder, net: nn.Module, position: nn.Module | None) -> None:
        super().__init__()
        self.encoder, self.net = encoder, net
        if position is not None:
            self.position = position

    def forward(
        self, inputs: Inputs, cand_user: Tensor, score: Tensor, position: Tensor | None, per_user: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return logits [N, T], added [N], and log p that a candidate was looked at [B, C]; None without positions.

        Args: see `RankerBatch`; position None serves.
        """
        history, item, query_fields, item_fields = self.encoder(inputs.ids, inputs.query_bags, inputs.item_bags)
        logits, added = self.net(
            history,
            inputs.event,
            inputs.value,
            inputs.age,
            inputs.there,
            join_fields(query_fields, inputs.query_numbers),
            cand_user,
            item,
            join_fields(item_fields, inputs.item_numbers),
            score,
            per_user,
        )
        return logits, added, None if position is None else self.position(position)


class RankerModule(ShardedModule):
    """Trains the ranker. From events, it is validated by putting the tower's lists in a better order; from impressions,
    by how well it tells apart what was taken up from what was only shown.

    Args:
        lists, scores: [Q, K] item_index and retrieval scores of the validation queries, the tower's best first.
        held_out: slates of validation time; None where the ranker learns from events.
    """

    def __init__(
        self,
        dataset: Dataset,
        data: RankerRows,
        settings: TrainSettings,
        validation: Validation,
        lists: np.ndarray,
        scores: np.ndarray,
        start: Start,
        held_out: SlateRows | None,
    ) -> None:
        size = order.batch_rows(len(data), settings.model.batch_size, world_size())
        super().__init__(settings, len(data) // size)
        self.dataset, self.data, self.validation = dataset, data, validation
        self.lists, self.scores, self.start, self.held_out = lists, scores, start, held_out
        model = settings.model
        self.roots = [t for t, up in enumerate(parents(model.tasks)) if up < 0]
        slates = isinstance(data, SlateRows)
        self.positions = data.shown.item.shape[1] if isinstance(data, SlateRows) and model.position_tower else 0
        self.offset = (
            0.0
            if slates
            else list_offset(dataset.spec.num_items, model.hard_pool, model.uniform_negatives, model.hard_negatives)
        )
        self.departure = model.shown_departure_weight if slates else model.departure_weight
        self._sums = np.zeros(0)

    def build(self, tables_on: torch.device) -> nn.Module:
        model, spec = self.run_settings.model, self.dataset.spec
        net = build_net(spec, model, self.start.scale, self.start.biases)  # first: see TowerModule.build
        position = PositionTower(self.positions) if self.positions else None
        return RankerModel(TrainingEncoder(spec, model.dim, model.field_dim, tables_on), net, position)

    def batches(self, epoch: int, first_step: int) -> Iterable[RankerBatch]:
        model, seed = self.run_settings.model, self.run_settings.seed
        return ranker_batches(self.dataset, self.data, model, seed, epoch, first_step, rank(), world_size())

    def training_step(self, batch: RankerBatch, batch_idx: int) -> Tensor:
        assert self.dmp is not None
        model, shape = self.run_settings.model, batch.in_list.shape
        position = batch.position if self.positions else None
        logits, added, seen = self.dmp(batch.inputs, batch.cand_user, batch.score, position, shape[1])
        logits = logits.view(*shape, -1)
        if self.offset:  # while training only: hard negatives make items of the list look worse than they are
            columns = list(logits.unbind(-1))
            for task in self.roots:
                columns[task] = columns[task] - self.offset * batch.in_list
            logits = torch.stack(columns, -1)
        loss = task_losses(logits, batch.label, batch.known, model.tasks, isinstance(self.data, SlateRows), seen)
        if self.departure:
            loss = loss + self.departure * departure_loss(added.view(shape), batch.known[..., 0])
        return (loss * batch.weight).mean()

    def val_dataloader(self) -> Batches:
        return Batches(lambda: self.validation.batches(rank(), world_size()))

    def on_validation_epoch_start(self) -> None:
        self._sums = np.zeros(len(self.validation.names) + 1)

    def validation_step(self, batch: ValidationBatch, batch_idx: int) -> None:
        lists, scores = self.lists[batch.rows], self.scores[batch.rows]
        self._sums += self.validation.metrics(self.reorder(batch, lists, scores), batch)

    def on_validation_epoch_end(self) -> None:
        self.figures = self.validation.mean(self._sums)
        if self.held_out is not None:
            self.figures[shown_auc(self.run_settings.model)] = self.slates_auc(self.held_out)

    @torch.no_grad()
    def slates_auc(self, held_out: SlateRows) -> float:
        """Return how well the first task, where an item stood, tells apart the items of held-out slates.

        The position counts: a model that took it for the item's own must not seem the better one. Every process asks
        all of them.
        """
        assert self.dmp is not None
        found, label, known = [], [], []
        for whole in slate_batches(self.dataset, held_out, _SLATES):
            batch = whole.to(self.device)
            position = batch.position if self.positions else None
            logits, _, seen = self.dmp(batch.inputs, batch.cand_user, batch.score, position, batch.in_list.shape[1])
            logits = logits.view(*batch.in_list.shape, -1)
            chance = log_probabilities(logits, self.run_settings.model.tasks, seen)[0]
            found.append(chance.float().flatten().cpu().numpy())
            label.append(batch.label[..., 0].flatten().cpu().numpy())
            known.append(batch.known[..., 0].flatten().cpu().numpy())
        counted = np.concatenate(known) > 0
        return auc(np.concatenate(label)[counted] > 0, np.concatenate(found)[counted])

    @torch.no_grad()
    def reorder(self, batch: ValidationBatch, lists: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Return the lists [b, K] by descending logit of the first task, places without an item last."""
        assert self.dmp is not None
        inputs, cand_user = list_inputs(self.dataset, batch.arrays, lists)
        score = torch.from_numpy(np.where(lists == NO_ITEM, 0, scores).astype(np.float32).reshape(-1))
        parts = inputs.to(self.device), cand_user.to(self.device), score.to(self.device)
        logits, _, _ = self.dmp(*parts, None, lists.shape[1])
        logit = logits[:, 0].float().cpu().numpy().reshape(lists.shape)
        ranked = np.where(lists == NO_ITEM, -np.inf, logit)
        return np.take_along_axis(lists, np.argsort(-ranked, axis=1, kind="stable"), 1)
