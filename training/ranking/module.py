"""The ranker as a Lightning module."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from playbill.dataset.dataset import Dataset
from playbill.measure.ranking import NO_ITEM
from playbill.training.batches import order
from playbill.training.batches.jagged import Inputs
from playbill.training.distributed import rank, world_size
from playbill.training.embeddings import TrainingEncoder, join_fields
from playbill.training.module import Batches, ShardedModule
from playbill.training.ranking.data import RankerBatch, RankerRows, list_inputs, ranker_batches
from playbill.training.ranking.losses import departure_loss, interact_loss, like_loss
from playbill.training.ranking.plain import build_net
from playbill.training.ranking.sampling import list_offset
from playbill.training.settings import TrainSettings
from playbill.training.validation import Validation, ValidationBatch


class RankerModel(nn.Module):
    """Encoder and network in one forward pass."""

    def __init__(self, encoder: TrainingEncoder, net: nn.Module) -> None:
        super().__init__()
        self.encoder, self.net = encoder, net

    def forward(self, inputs: Inputs, cand_user: Tensor, score: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logit_interact, logit_like and added, [N] float32. Args: see `RankerBatch`."""
        history, item, query_fields, item_fields = self.encoder(inputs.ids, inputs.query_bags, inputs.item_bags)
        return self.net(
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
        )


class RankerModule(ShardedModule):
    """Trains the ranker and validates it by putting the tower's lists in a better order.

    Args:
        lists, scores: [Q, K] item_index and retrieval scores of the validation queries, the tower's best first.
        score_scale, score_bias: see `RankerNet`.
    """

    def __init__(
        self,
        dataset: Dataset,
        data: RankerRows,
        settings: TrainSettings,
        validation: Validation,
        lists: np.ndarray,
        scores: np.ndarray,
        score_scale: float,
        score_bias: float,
    ) -> None:
        size = order.batch_rows(len(data.rows), settings.model.batch_size, world_size())
        super().__init__(settings, len(data.rows) // size)
        self.dataset, self.data, self.validation = dataset, data, validation
        self.lists, self.scores = lists, scores
        self.score_scale, self.score_bias = score_scale, score_bias
        model = settings.model
        self.offset = list_offset(
            dataset.spec.num_items, model.hard_pool, model.uniform_negatives, model.hard_negatives
        )
        self._sums = np.zeros(0)

    def build(self, tables_on: torch.device) -> nn.Module:
        model, spec = self.run_settings.model, self.dataset.spec
        net = build_net(spec, model, self.score_scale, self.score_bias)  # first: see TowerModule.build
        return RankerModel(TrainingEncoder(spec, model.dim, model.field_dim, tables_on), net)

    def batches(self, epoch: int, first_step: int) -> Iterable[RankerBatch]:
        model, seed = self.run_settings.model, self.run_settings.seed
        return ranker_batches(self.dataset, self.data, model, seed, epoch, first_step, rank(), world_size())

    def training_step(self, batch: RankerBatch, batch_idx: int) -> Tensor:
        assert self.dmp is not None
        interact, like, added = self.dmp(batch.inputs, batch.cand_user, batch.score)
        shape = batch.counts.shape
        # while training only: hard negatives make items of the list look worse than they are
        loss = interact_loss(interact.view(shape) - self.offset * batch.in_list, batch.counts)
        of_positives = like_loss(like.view(shape)[:, 0], batch.like, batch.like_known)
        model = self.run_settings.model
        departure = model.departure_weight * departure_loss(added.view(shape), batch.counts)
        return ((loss + model.like_weight * of_positives + departure) * batch.weight).mean()

    def val_dataloader(self) -> Batches:
        return Batches(lambda: self.validation.batches(rank(), world_size()))

    def on_validation_epoch_start(self) -> None:
        self._sums = np.zeros(len(self.validation.names) + 1)

    def validation_step(self, batch: ValidationBatch, batch_idx: int) -> None:
        lists, scores = self.lists[batch.rows], self.scores[batch.rows]
        self._sums += self.validation.metrics(self.reorder(batch, lists, scores), batch)

    def on_validation_epoch_end(self) -> None:
        self.figures = self.validation.mean(self._sums)

    @torch.no_grad()
    def reorder(self, batch: ValidationBatch, lists: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Return the lists [b, K] by descending interact logit, places without an item last."""
        assert self.dmp is not None
        inputs, cand_user = list_inputs(self.dataset, batch.arrays, lists)
        score = torch.from_numpy(np.where(lists == NO_ITEM, 0, scores).astype(np.float32).reshape(-1))
        logit, _, _ = self.dmp(inputs.to(self.device), cand_user.to(self.device), score.to(self.device))
        ranked = np.where(lists == NO_ITEM, -np.inf, logit.float().cpu().numpy().reshape(lists.shape))
        return np.take_along_axis(lists, np.argsort(-ranked, axis=1, kind="stable"), 1)
