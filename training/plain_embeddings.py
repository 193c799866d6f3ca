"""The embedding tables of a model as plain gathers: what export, tests and cross-fitted scores read.

The twin of `embeddings.TrainingEncoder` with the same parameter names, so a checkpoint of that loads strictly into
this. Needs torch alone: a trained model can be exported where TorchRec is not installed.

Shape legend: B queries, L history length, N items, D width of the item table, F width of all field vectors together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from playbill.features.spec import Encoding, FeatureSpec, Field, Side

QUERY_SIDES = (Side.USER, Side.CONTEXT)
ITEM_SIDES = (Side.ITEM,)
_FEW_PRODUCTS = 8192  # a row; more of them take longer than one small product of its own


def tables_of(spec: FeatureSpec, sides: Sequence[Side]) -> list[Field]:
    """Return the fields of these sides that have an embedding table, in the order in which vectors are concatenated."""
    return [f for f in spec.fields if f.side in sides and f.encoding not in (Encoding.NUMBER, Encoding.VECTOR)]


def numbers_of(spec: FeatureSpec, sides: Sequence[Side]) -> list[Field]:
    """Return the NUMBER fields of these sides, in the order in which they are concatenated after the tables."""
    return [f for f in spec.fields if f.side in sides and f.encoding is Encoding.NUMBER]


def vectors_of(spec: FeatureSpec, sides: Sequence[Side]) -> list[Field]:
    """Return the VECTOR fields of these sides, in the order in which they are concatenated after the numbers."""
    return [f for f in spec.fields if f.side in sides and f.encoding is Encoding.VECTOR]


def dense_of(spec: FeatureSpec, sides: Sequence[Side]) -> list[Field]:
    """Return the fields of these sides that are numbers already, in the order in which they are concatenated."""
    return numbers_of(spec, sides) + vectors_of(spec, sides)


def fields_width(spec: FeatureSpec, sides: Sequence[Side], field_dim: int) -> int:
    """Return F: columns of one side's field vector."""
    dense = sum(f.width or 1 for f in dense_of(spec, sides))
    return len(tables_of(spec, sides)) * field_dim + dense


def rows_of_items(spec: FeatureSpec) -> Tensor | None:
    """Return [N + 1, H] int64: table rows whose mean is each item's vector; None where item i reads row i."""
    rows = spec.item_rows()
    return None if rows is None else torch.from_numpy(rows)


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

    query_fields: _Tables | None
    item_fields: _Tables | None
    item_rows: Tensor | None

    def __init__(self, spec: FeatureSpec, dim: int, field_dim: int) -> None:
        super().__init__()
        self.spec = spec
        self.items = _Tables("embeddings", {"item": (spec.num_item_rows, dim)})
        self.register_buffer("item_rows", rows_of_items(spec), persistent=False)
        for name, sides in (("query_fields", QUERY_SIDES), ("item_fields", ITEM_SIDES)):
            sizes = {f.array: (f.size, field_dim) for f in tables_of(spec, sides)}
            setattr(self, name, _Tables("embedding_bags", sizes) if sizes else None)

    def history(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """Return [B, L, D], 0 where padded."""
        ids = arrays["history_item"]
        there = (ids >= 0).to(torch.float32)
        return self._vectors(ids.clamp(min=0)) * there.unsqueeze(-1)

    def item(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """Return [N, D]."""
        return self._vectors(arrays["item_index"])

    def _vectors(self, index: Tensor) -> Tensor:
        weight = self.items.weight("item")
        if self.item_rows is None:
            return functional.embedding(index, weight)
        # one gather for the rows and one for each hash: the graph holds the map as a constant
        rows = functional.embedding(index, self.item_rows)
        hashes = self.item_rows.shape[1]
        return torch.stack([functional.embedding(rows[..., h], weight) for h in range(hashes)]).mean(0)

    def fields(self, arrays: Mapping[str, Tensor], sides: Sequence[Side]) -> Tensor | None:
        """Return [rows, F]: embedded fields, then numbers, then vectors; None where these sides have none."""
        tables = self.query_fields if Side.ITEM not in sides else self.item_fields
        parts = []
        for field in tables_of(self.spec, sides):
            assert tables is not None
            ids, weight = arrays[field.array], tables.weight(field.array)
            parts.append(
                mean_of_rows(ids, weight)
                if field.encoding is Encoding.CATEGORIES
                else functional.embedding(ids, weight)
            )
        parts += [arrays[f.array].unsqueeze(-1) for f in numbers_of(self.spec, sides)]
        parts += [arrays[f.array] for f in vectors_of(self.spec, sides)]
        return torch.cat(parts, -1) if parts else None


def mean_of_rows(ids: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of the rows named by each line of `ids` [rows, width], 0 where all are PAD."""
    there = (ids >= 0).to(weight.dtype)
    vectors = functional.embedding(ids.clamp(min=0), weight).flatten(1)
    width, columns = ids.shape[1], weight.shape[1]
    count = there.sum(1, keepdim=True).clamp(min=1)
    if width * columns * (width + columns) > _FEW_PRODUCTS:
        return torch.matmul(there.unsqueeze(1), vectors.view(-1, width, columns)).squeeze(1) / count
    # two products with zeros and ones: ONNX Runtime takes fifteen times as long for a small product in every row
    spread = torch.eye(width, dtype=weight.dtype, device=weight.device).repeat_interleave(columns, 1)
    add = torch.eye(columns, dtype=weight.dtype, device=weight.device).repeat(width, 1)
    return (vectors * (there @ spread)) @ add / count
