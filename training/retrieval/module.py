"""The two towers as a Lightning module."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from playbill.dataset.dataset import Dataset
from playbill.errors import ConfigError
from playbill.features.encoder import Arrays
from playbill.training.batches.jagged import Inputs, check_ids, to_fields, to_inputs
from playbill.training.distributed import rank, world_size
from playbill.training.embeddings import TrainingEncoder, join_fields
from playbill.training.module import Batches, ShardedModule
from playbill.training.retrieval.data import NEGATIVES, Histories, Source, TowerBatch, item_arrays
from playbill.training.retrieval.losses import full_softmax
from playbill.training.retrieval.negatives import log_inclusion
from playbill.training.retrieval.sampled import gbce, sampled_softmax
from playbill.training.retrieval.towers import build_nets, compared, gap_days, logit_scale
from playbill.training.retrieval.warm import Warm, put_weights
from playbill.training.settings import Loss, TrainSettings
from playbill.training.validation import Validation, ValidationBatch, best_first

_ITEMS_AT_ONCE = 65_536


class TwoTowerModel(nn.Module):
    """Both towers in one forward pass, so that the shared item table is looked up once a step.

    Attributes:
        table_row: [N + 1] int64 row of the item table of each item; stands in the checkpoint for whoever exports it.
    """

    table_row: Tensor

    def __init__(
        self, encoder: TrainingEncoder, query_net: nn.Module, item_net: nn.Module, table_row: np.ndarray
    ) -> None:
        super().__init__()
        self.encoder, self.query_net, self.item_net = encoder, query_net, item_net
        self.register_buffer("table_row", torch.from_numpy(table_row))

    def forward(self, inputs: Inputs, histories: Histories | None) -> tuple[Tensor, Tensor | None]:
        """Return items [M, D] and the queries [P, D] of what is learned, neither compared yet."""
        _, item, _, item_fields = self.encoder(inputs.ids, None, inputs.item_bags)
        vectors = self.item_net(item, join_fields(item_fields, inputs.item_numbers))
        if histories is None:
            return vectors, None
        net: Any = self.query_net
        read = nn.functional.embedding(histories.item, vectors)
        tokens = net.tokens(read, histories.event, histories.value, histories.gap_days)
        states = net.states(tokens, histories.layout)
        states = nn.functional.embedding(histories.state, torch.cat([states, net.start.unsqueeze(0)]))
        return vectors, net.query(states, self._fields(histories.query_bags, histories.query_numbers))

    def newest(self, read: Tensor, arrays: dict[str, Tensor], bags: Any, numbers: Tensor) -> Tensor:
        """Return queries [B, D] of padded histories. Args: read [B, L, D] item vectors, arrays history_* by name."""
        net: Any = self.query_net
        there = arrays["history_item"] >= 0
        age = arrays["history_age"]
        gaps = gap_days(age, there)
        tokens = net.tokens(read, arrays["history_event"], arrays["history_value"], gaps)
        query: Tensor = net.query(net.newest(tokens, there, age), self._fields(bags, numbers))
        return query

    def _fields(self, bags: Any, numbers: Tensor) -> Tensor | None:
        return join_fields(self.encoder.query_side(bags), numbers)


class TowerModule(ShardedModule):
    """Trains the towers and validates on the full catalogue.

    Args:
        end: [P] int64, one past the last pool row of each person that may be learned from.
        validation: None leaves it out.
        warm: weights to begin with; None draws them.
    """

    def __init__(
        self,
        dataset: Dataset,
        end: np.ndarray,
        settings: TrainSettings,
        validation: Validation | None,
        warm: Warm | None = None,
    ) -> None:
        own = None if warm is None else warm.has_id
        self.source = Source(dataset, end, settings.model, settings.seed, settings.since_us(), own)
        self.warm = warm
        super().__init__(settings, self.source.steps)
        self.dataset, self.validation = dataset, validation
        model = settings.model
        kind = NEGATIVES.get(model.loss)
        if kind is not None and model.negative_groups % world_size():
            raise ConfigError(
                f"model.negative_groups ({model.negative_groups}) must be a multiple of the {world_size()} processes"
            )
        counts = self.source.counts
        found = (
            None
            if kind is None
            else log_inclusion(kind, counts, model.negatives, model.batch_tokens, model.mixed_share)
        )
        self.log_q = None if found is None or model.loss is Loss.uniform else torch.from_numpy(found)
        self._vectors: Tensor | None = None
        self._sums = np.zeros(0)

    def build(self, tables_on: torch.device) -> nn.Module:
        model, spec = self.run_settings.model, self.dataset.spec
        nets = build_nets(spec, model)  # first: tables that are made at once draw from the same generator
        encoder = TrainingEncoder(spec, model.dim, model.field_dim, tables_on)
        return TwoTowerModel(encoder, *nets, self.source.table_row)

    def configure_model(self) -> None:
        fresh = self.dmp is None
        super().configure_model()
        if fresh and self.warm is not None:
            assert self.dmp is not None
            put_weights(self.dmp, self.warm.weights)

    def batches(self, epoch: int, first_step: int) -> Iterable[TowerBatch]:
        return self.source.batches(epoch, first_step, rank(), world_size())

    def training_step(self, batch: TowerBatch, batch_idx: int) -> Tensor:
        assert self.dmp is not None
        model = self.run_settings.model
        vectors, query = self.dmp(batch.inputs, batch.histories)
        items, query = compared(vectors, model.similarity), compared(query, model.similarity)
        scale = logit_scale(model)
        if batch.negative is None:
            # the unknown item is no answer
            loss = full_softmax(query, items[1:], batch.target - 1, scale, batch.weight, model.label_smoothing)
            return loss * batch.weight.sum()
        log_q = None if self.log_q is None else self.log_q.to(items.device)[batch.index]
        losses = []
        for group, (low, high) in enumerate(itertools.pairwise(batch.groups)):
            some, own = slice(low, high), batch.negative[group : group + 1]
            asked, target, weight = query[some], batch.target[some], batch.weight[some]
            if low == high:
                continue
            if model.loss is Loss.gbce:
                num_items = self.dataset.spec.num_items
                loss = gbce(asked, items, target, own, num_items, model.gbce_t, scale, weight)
            else:
                loss = sampled_softmax(asked, items, target, own, log_q, scale, weight)
            losses.append(loss * weight.sum())
        return torch.stack(losses).sum() if losses else (query.sum() + items.sum()) * 0.0

    def val_dataloader(self) -> Batches:
        validation = self.validation
        return Batches(lambda: [] if validation is None else validation.batches(rank(), world_size()))

    def on_validation_epoch_start(self) -> None:
        assert self.validation is not None
        self._vectors = self.vectors()
        self._sums = np.zeros(len(self.validation.names) + 1)

    def validation_step(self, batch: ValidationBatch, batch_idx: int) -> None:
        assert self.validation is not None and self._vectors is not None
        items = compared(self._vectors[1:], self.run_settings.model.similarity)
        scores = self.validation.hide_seen(self.query(batch.arrays, self._vectors) @ items.t(), batch.rows)
        lists, _ = best_first(scores, max(self.validation.ks))
        self._sums += self.validation.metrics(lists, batch)

    def on_validation_epoch_end(self) -> None:
        assert self.validation is not None
        self.figures = self.validation.mean(self._sums)
        self._vectors = None

    @torch.no_grad()
    def query(self, arrays: Arrays, vectors: Tensor) -> Tensor:
        """Return [B, D] float32 queries as they are compared. Args: vectors, what `vectors` returns."""
        assert self.dmp is not None
        history = arrays["history_item"]
        check_ids(history, "history_item", self.dataset.spec.num_items + 1, padded=True)
        bags, numbers = to_fields(self.dataset.spec, arrays)
        columns = {n: torch.from_numpy(a).to(self.device) for n, a in arrays.items() if n.startswith("history_")}
        read = nn.functional.embedding(columns["history_item"].clamp(min=0), vectors)
        bags = None if bags is None else bags.to(self.device)
        found = self.dmp.module.newest(read, columns, bags, numbers.to(self.device))
        return compared(found, self.run_settings.model.similarity)

    @torch.no_grad()
    def vectors(self) -> Tensor:
        """Return [N + 1, D] float32 item vectors as histories read them; row i is item_index i. Collective."""
        assert self.dmp is not None
        parts = []
        for low in range(0, self.dataset.spec.num_items + 1, _ITEMS_AT_ONCE):
            index = np.arange(low, min(low + _ITEMS_AT_ONCE, self.dataset.spec.num_items + 1))
            arrays = item_arrays(self.dataset, index, self.source.table_row[index])
            inputs = to_inputs(self.dataset.spec, None, arrays).to(self.device)
            parts.append(self.dmp(inputs, None)[0].float())
        return torch.cat(parts)
