"""The two towers as a Lightning module."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from playbill.dataset.dataset import Dataset, Examples, item_counts
from playbill.training.batches import order
from playbill.training.batches.jagged import Inputs, to_inputs
from playbill.training.batches.rows import recency_weights
from playbill.training.distributed import rank, world_size
from playbill.training.embeddings import TrainingEncoder, join_fields
from playbill.training.module import Batches, ShardedModule
from playbill.training.retrieval.data import TowerBatch, item_arrays, tower_batches
from playbill.training.retrieval.losses import full_softmax, in_batch_softmax
from playbill.training.retrieval.plain import build_nets
from playbill.training.settings import Loss, TrainSettings
from playbill.training.validation import Validation, ValidationBatch, best_first


class TwoTowerModel(nn.Module):
    """Both towers in one forward pass, so that the shared item table is looked up once a step."""

    def __init__(self, encoder: TrainingEncoder, query_net: nn.Module, item_net: nn.Module) -> None:
        super().__init__()
        self.encoder, self.query_net, self.item_net = encoder, query_net, item_net

    def forward(self, inputs: Inputs) -> tuple[Tensor | None, Tensor | None]:
        """Return query [B, D] and items [N, D], unit length; None for a side that `inputs` does not have."""
        history, item, query_fields, item_fields = self.encoder(inputs.ids, inputs.query_bags, inputs.item_bags)
        query = vectors = None
        if len(inputs.there):
            fields = join_fields(query_fields, inputs.query_numbers)
            query = self.query_net(history, inputs.event, inputs.value, inputs.age, inputs.there, fields)
        if len(item):
            vectors = self.item_net(item, join_fields(item_fields, inputs.item_numbers))
        return query, vectors


class TowerModule(ShardedModule):
    """Trains the towers on `rows` and validates on the full catalogue.

    Args:
        rows: what to learn from; all rows of the train part, or some people's for cross-fitting.
        validation: None leaves it out.
    """

    def __init__(
        self, dataset: Dataset, rows: Examples, settings: TrainSettings, validation: Validation | None
    ) -> None:
        size = order.batch_rows(len(rows), settings.model.batch_size, world_size())
        super().__init__(settings, len(rows) // size)
        self.dataset, self.rows, self.validation = dataset, rows, validation
        model = settings.model
        self.weight = recency_weights(rows, model.half_life_days, model.weight_floor)
        counts = item_counts(dataset, "train")
        # +1: an item that only validation knows has a probability too
        self.log_q = torch.from_numpy(np.log((counts + 1) / (counts + 1).sum()).astype(np.float32))
        self._items: Tensor | None = None
        self._sums = np.zeros(0)

    def build(self, tables_on: torch.device) -> nn.Module:
        model, spec = self.run_settings.model, self.dataset.spec
        nets = build_nets(spec, model)  # first: tables that are made at once draw from the same generator
        return TwoTowerModel(TrainingEncoder(spec, model.dim, model.field_dim, tables_on), *nets)

    def batches(self, epoch: int, first_step: int) -> Iterable[TowerBatch]:
        settings = self.run_settings
        return tower_batches(
            self.dataset, self.rows, self.weight, settings.model, settings.seed, epoch, first_step, rank(), world_size()
        )

    def training_step(self, batch: TowerBatch, batch_idx: int) -> Tensor:
        assert self.dmp is not None
        model = self.run_settings.model
        query, items = self.dmp(batch.inputs)
        if model.loss is Loss.full_softmax:
            loss = full_softmax(query, items, batch.target, model.temperature, model.label_smoothing)
        else:
            log_q = self.log_q.to(query.device)[batch.target]
            loss = in_batch_softmax(query, items, batch.target, log_q, model.temperature, model.negatives_per_group)
        return (loss * batch.weight).mean()

    def val_dataloader(self) -> Batches:
        validation = self.validation
        return Batches(lambda: [] if validation is None else validation.batches(rank(), world_size()))

    def on_validation_epoch_start(self) -> None:
        assert self.validation is not None
        self._items = self.catalogue()
        self._sums = np.zeros(len(self.validation.names) + 1)

    def validation_step(self, batch: ValidationBatch, batch_idx: int) -> None:
        assert self.validation is not None and self._items is not None
        scores = self.validation.hide_seen(self.query(batch.arrays) @ self._items.t(), batch.rows)
        lists, _ = best_first(scores, max(self.validation.ks))
        self._sums += self.validation.metrics(lists, batch)

    def on_validation_epoch_end(self) -> None:
        assert self.validation is not None
        self.figures = self.validation.mean(self._sums)
        self._items = None

    @torch.no_grad()
    def query(self, arrays: dict[str, np.ndarray]) -> Tensor:
        """Return [B, D] float32 query vectors."""
        assert self.dmp is not None
        inputs = to_inputs(self.dataset.spec, arrays, None).to(self.device)
        return self.dmp(inputs)[0].float()

    @torch.no_grad()
    def catalogue(self) -> Tensor:
        """Return [N, D] float32 item vectors, row i is item_index i + 1."""
        assert self.dmp is not None
        inputs = to_inputs(self.dataset.spec, None, item_arrays(self.dataset, None)).to(self.device)
        return self.dmp(inputs)[1].float()
