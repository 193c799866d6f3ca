"""The embedding tables of a model as TorchRec collections, for training; `plain_embeddings` is their twin.

Both read the same arrays and give the same vectors, and a checkpoint of the first loads strictly into the second: the
parameters have the same names. Everything that is not a lookup belongs to the networks, which both share.

Shape legend: B queries, L history length, N items, D width of the item table, F width of all field vectors together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchrec import (
    EmbeddingBagCollection,
    EmbeddingBagConfig,
    EmbeddingCollection,
    EmbeddingConfig,
    JaggedTensor,
    KeyedJaggedTensor,
    PoolingType,
)

from playbill.features.spec import FeatureSpec, Field
from playbill.training.plain_embeddings import ITEM_SIDES, QUERY_SIDES, rows_of_items, tables_of


class TrainingEncoder(nn.Module):
    """KeyedJaggedTensors -> vectors, through TorchRec.

    The item table is one EmbeddingCollection read by two features, the history and the items themselves. Both go
    through it in a single call, since a fused table takes one optimizer step per backward pass of a call; a sequence
    collection does not pool, so items may be spread over the rows of the batch in any way. Fields are bags with the
    mean as pooling.

    Args:
        device: meta when tables are fused (TorchRec makes them where they belong), else cpu.
    """

    item_rows: Tensor | None

    def __init__(self, spec: FeatureSpec, dim: int, field_dim: int, device: torch.device) -> None:
        super().__init__()
        item = EmbeddingConfig(
            name="item",
            num_embeddings=spec.num_item_rows,
            embedding_dim=dim,
            feature_names=["history_item", "item_index"],
        )
        self.items = EmbeddingCollection(tables=[item], device=device)
        self.query_fields = _bags(tables_of(spec, QUERY_SIDES), field_dim, device)
        self.item_fields = _bags(tables_of(spec, ITEM_SIDES), field_dim, device)
        self.length = spec.history_length
        # not part of the weights: it follows from the spec
        self.register_buffer("item_rows", rows_of_items(spec), persistent=False)

    def forward(
        self, ids: KeyedJaggedTensor, query_bags: KeyedJaggedTensor | None, item_bags: KeyedJaggedTensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Return history [B, L, D] (0 where padded), item [N, D], query fields [B, F'] and item fields [N, F']."""
        found = self.items(ids if self.item_rows is None else spread(ids, self.item_rows))
        history, item = found["history_item"], found["item_index"].values()
        if self.item_rows is not None:
            history, item = mean_rows(history, self.item_rows.shape[1]), mean_rows(item, self.item_rows.shape[1])
        history = history.to_padded_dense(self.length)
        query = self.query_side(query_bags)
        fields = None if self.item_fields is None or item_bags is None else _in_order(self.item_fields, item_bags)
        return history, item, query, fields

    def query_side(self, bags: KeyedJaggedTensor | None) -> Tensor | None:
        """Return query fields [B, F'] alone; None without any."""
        return None if self.query_fields is None or bags is None else _in_order(self.query_fields, bags)


def spread(ids: KeyedJaggedTensor, rows: Tensor) -> KeyedJaggedTensor:
    """Return the table rows of item indices, H in the place of each. Args: rows, [N + 1, H] int64."""
    return KeyedJaggedTensor(
        keys=ids.keys(), values=rows[ids.values()].flatten(), lengths=ids.lengths() * rows.shape[1]
    )


def mean_rows(vectors: Any, hashes: int) -> Any:
    """Return the mean of each H successive vectors, of a jagged tensor or of a [M * H, D] one."""
    if isinstance(vectors, JaggedTensor):
        return JaggedTensor(mean_rows(vectors.values(), hashes), lengths=vectors.lengths() // hashes)
    return vectors.view(-1, hashes, vectors.shape[1]).mean(1)


def _in_order(fields: nn.Module, bags: KeyedJaggedTensor) -> Tensor:
    """Return the fields' vectors side by side in the order of `bags`; sharding has an order of its own."""
    found = fields(bags).to_dict()
    return torch.cat([found[name] for name in bags.keys()], -1)


def _bags(fields: Sequence[Field], width: int, device: torch.device) -> EmbeddingBagCollection | None:
    tables = [
        EmbeddingBagConfig(
            name=f.array,
            num_embeddings=f.size,
            embedding_dim=width,
            feature_names=[f.array],
            pooling=PoolingType.MEAN,
        )
        for f in fields
    ]
    return EmbeddingBagCollection(tables=tables, device=device) if tables else None


def join_fields(embedded: Tensor | None, numbers: Tensor) -> Tensor | None:
    """Return [rows, F]: embedded fields, then what is dense; None where a side has neither. As `PlainEncoder.fields`.

    Args:
        embedded: [rows, tables * width] or None.
        numbers: [rows, n] numbers and vectors of `batches.jagged`.
    """
    if embedded is None:
        return numbers if numbers.shape[1] else None
    return torch.cat([embedded, numbers], -1) if numbers.shape[1] else embedded
