"""The embedding tables of a model, twice: as TorchRec collections for training, as plain gathers for export and tests.

Both read the same arrays and give the same vectors, and a checkpoint of the first loads strictly into the second: the
parameters have the same names. Everything that is not a lookup belongs to the networks, which both share.

Shape legend: B queries, L history length, N items, D width of the item table, F width of all field vectors together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchrec import (
    EmbeddingBagCollection,
    EmbeddingBagConfig,
    EmbeddingCollection,
    EmbeddingConfig,
    KeyedJaggedTensor,
    PoolingType,
)

from playbill.features.spec import Encoding, FeatureSpec, Field, Side

QUERY_SIDES = (Side.USER, Side.CONTEXT)
ITEM_SIDES = (Side.ITEM,)


def tables_of(spec: FeatureSpec, sides: Sequence[Side]) -> list[Field]:
    """Return the fields of these sides that have an embedding table, in the order in which vectors are concatenated."""
    return [f for f in spec.fields if f.side in sides and f.encoding is not Encoding.NUMBER]


def numbers_of(spec: FeatureSpec, sides: Sequence[Side]) -> list[Field]:
    """Return the NUMBER fields of these sides, in the order in which they are concatenated after the tables."""
    return [f for f in spec.fields if f.side in sides and f.encoding is Encoding.NUMBER]


def fields_width(spec: FeatureSpec, sides: Sequence[Side], field_dim: int) -> int:
    """Return F: columns of one side's field vector."""
    return len(tables_of(spec, sides)) * field_dim + len(numbers_of(spec, sides))


class TrainingEncoder(nn.Module):
    """KeyedJaggedTensors -> vectors, through TorchRec.

    The item table is one EmbeddingCollection read by two features, the history and the items themselves. Both go through it
    in a single call, since a fused table takes one optimizer step per backward pass of a call; a sequence collection does
    not pool, so items may be spread over the rows of the batch in any way. Fields are bags with the mean as pooling.

    Args:
        device: meta when tables are fused (TorchRec makes them where they belong), else cpu.
    """

    def __init__(self, spec: FeatureSpec, dim: int, field_dim: int, device: torch.device) -> None:
        super().__init__()
        item = EmbeddingConfig(
            name="item",
            num_embeddings=spec.num_items + 1,
            embedding_dim=dim,
            feature_names=["history_item", "item_index"],
        )
        self.items = EmbeddingCollection(tables=[item], device=device)
        self.query_fields = _bags(tables_of(spec, QUERY_SIDES), field_dim, device)
        self.item_fields = _bags(tables_of(spec, ITEM_SIDES), field_dim, device)
        self.length = spec.history_length

    def forward(
        self, ids: KeyedJaggedTensor, query_bags: KeyedJaggedTensor | None, item_bags: KeyedJaggedTensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Return history [B, L, D] (0 where padded), item [N, D], query fields [B, F'] and item fields [N, F']."""
        found = self.items(ids)
        history = found["history_item"].to_padded_dense(self.length)
        item = found["item_index"].values()
        query = None if self.query_fields is None or query_bags is None else self.query_fields(query_bags).values()
        fields = None if self.item_fields is None or item_bags is None else self.item_fields(item_bags).values()
        return history, item, query, fields


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


class _Tables(nn.Module):
    """Plain tables under the name that a TorchRec collection gives them."""

    def __init__(self, attribute: str, sizes: Mapping[str, tuple[int, int]]) -> None:
        super().__init__()
        self.attribute = attribute
        setattr(self, attribute, nn.ModuleDict({name: nn.Embedding(*size) for name, size in sizes.items()}))

    def weight(self, name: str) -> Tensor:
        weight: Tensor = getattr(self, self.attribute)[name].weight
        return weight


class PlainEncoder(nn.Module):
    """Padded arrays -> the same vectors, by gather and masked mean alone: what the exported graphs are made of.

    Loads the `encoder.` part of a checkpoint strictly. Ids must be in range; PAD (-1) only where arrays are padded.
    """

    def __init__(self, spec: FeatureSpec, dim: int, field_dim: int) -> None:
        super().__init__()
        self.spec = spec
        self.items = _Tables("embeddings", {"item": (spec.num_items + 1, dim)})
        for name, sides in (("query_fields", QUERY_SIDES), ("item_fields", ITEM_SIDES)):
            sizes = {f.array: (f.size, field_dim) for f in tables_of(spec, sides)}
            setattr(self, name, _Tables("embedding_bags", sizes) if sizes else None)

    def history(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """Return [B, L, D], 0 where padded."""
        ids = arrays["history_item"]
        there = (ids >= 0).to(torch.float32)
        return functional.embedding(ids.clamp(min=0), self.items.weight("item")) * there.unsqueeze(-1)

    def item(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """Return [N, D]."""
        return functional.embedding(arrays["item_index"], self.items.weight("item"))

    def fields(self, arrays: Mapping[str, Tensor], sides: Sequence[Side]) -> Tensor | None:
        """Return [rows, F]: embedded fields, then numbers; None where these sides have none."""
        tables = self.query_fields if Side.ITEM not in sides else self.item_fields
        parts = []
        for field in tables_of(self.spec, sides):
            ids, weight = arrays[field.array], tables.weight(field.array)
            parts.append(
                _bag(ids, weight) if field.encoding is Encoding.CATEGORIES else functional.embedding(ids, weight)
            )
        parts += [arrays[f.array].unsqueeze(-1) for f in numbers_of(self.spec, sides)]
        return torch.cat(parts, -1) if parts else None


def _bag(ids: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of the rows named by each line of `ids` [rows, width], 0 where all are PAD."""
    there = (ids >= 0).to(weight.dtype)
    vectors = functional.embedding(ids.clamp(min=0), weight)
    total = torch.matmul(there.unsqueeze(1), vectors).squeeze(1)
    return total / there.sum(1, keepdim=True).clamp(min=1)


def join_fields(embedded: Tensor | None, numbers: Tensor) -> Tensor | None:
    """Return [rows, F]: embedded fields, then numbers; None where a side has neither. As `PlainEncoder.fields` does."""
    if embedded is None:
        return numbers if numbers.shape[1] else None
    return torch.cat([embedded, numbers], -1) if numbers.shape[1] else embedded
