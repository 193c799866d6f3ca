"""Arrays of the feature encoder -> what the towers read in training. The last place before the model: ids are checked
here.

A table sharded by TorchRec clamps an id out of range to row 0 with no more than a line in the log, so it is refused
before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchrec import KeyedJaggedTensor

from playbill.errors import FeatureError
from playbill.features.encoder import Arrays
from playbill.features.spec import PAD, Encoding, FeatureSpec, Field
from playbill.training.plain_embeddings import ITEM_SIDES, QUERY_SIDES, dense_of, tables_of


@dataclass(slots=True)
class Inputs:
    """What the towers read: B queries and N items. Either may be empty.

    Attributes:
        ids: features history_item and item_index. It has B rows (1 without queries), and the items all lie in the
            first.
        query_bags: [B] the query fields, None without such fields or queries.
        item_bags: [N] the item fields, None without such fields or items.
        event, value, age: [B, L] history columns besides the item; there: [B, L] float32, 1 where an event is.
        query_numbers: [B, n] float32. item_numbers: [N, n] float32. Numbers first, then the columns of vectors.
    """

    ids: KeyedJaggedTensor
    query_bags: KeyedJaggedTensor | None
    item_bags: KeyedJaggedTensor | None
    event: Tensor
    value: Tensor
    age: Tensor
    there: Tensor
    query_numbers: Tensor
    item_numbers: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Inputs:
        """Return the same on another device. Lightning moves a batch by this."""
        parts = [getattr(self, f.name) for f in fields(self)]
        moved: list[Any] = [None if p is None else p.to(device, non_blocking=non_blocking) for p in parts]
        return Inputs(*moved)


def to_inputs(spec: FeatureSpec, queries: Arrays | None, items: Arrays | None) -> Inputs:
    """Return model inputs for padded arrays.

    Args:
        spec: of the arrays.
        queries: history_* and the user and context fields, [B, ...]; None for no queries.
        items: item_index [N] and the item fields; None for no items.
    Raises:
        FeatureError: an id is out of range; names array, id and range.
    """
    length = spec.history_length
    history = np.full((0, length), PAD, np.int64) if queries is None else queries["history_item"]
    index = np.zeros(0, np.int64) if items is None else items["item_index"]
    check_ids(history, "history_item", spec.num_items + 1, padded=True)
    check_ids(index, "item_index", spec.num_items + 1)
    there = history >= 0
    rows = max(len(history), 1)
    lengths = np.zeros((2, rows), np.int64)
    lengths[0, : len(history)] = there.sum(1)
    lengths[1, 0] = len(index)
    ids = KeyedJaggedTensor(
        keys=["history_item", "item_index"],
        values=torch.from_numpy(np.concatenate([history[there], index])),
        lengths=torch.from_numpy(lengths.reshape(-1)),
    )
    blank = np.zeros((0, length), np.float32)
    return Inputs(
        ids=ids,
        query_bags=None if queries is None else _bags(queries, tables_of(spec, QUERY_SIDES)),
        item_bags=None if items is None else _bags(items, tables_of(spec, ITEM_SIDES)),
        event=torch.from_numpy(blank.astype(np.int64) if queries is None else queries["history_event"]),
        value=torch.from_numpy(blank if queries is None else queries["history_value"]),
        age=torch.from_numpy(blank if queries is None else queries["history_age"]),
        there=torch.from_numpy(there.astype(np.float32)),
        query_numbers=_numbers(queries, dense_of(spec, QUERY_SIDES)),
        item_numbers=_numbers(items, dense_of(spec, ITEM_SIDES)),
    )


def to_fields(spec: FeatureSpec, queries: Arrays) -> tuple[KeyedJaggedTensor | None, Tensor]:
    """Return (bags [B], numbers [B, n]) of the user and context fields alone; bags are None without such fields.

    Args:
        queries: user and context fields, [B, ...] each.
    Raises:
        FeatureError: an id is out of range.
    """
    return _bags(queries, tables_of(spec, QUERY_SIDES)), _numbers(queries, dense_of(spec, QUERY_SIDES))


def check_ids(ids: np.ndarray, name: str, size: int, padded: bool = False) -> None:
    """Raise FeatureError unless all ids are in 0..size-1 (or PAD where `padded`)."""
    if not ids.size:
        return
    low, high = int(ids.min()), int(ids.max())
    if high >= size or low < (PAD if padded else 0):
        bad = high if high >= size else low
        raise FeatureError(
            f"{name} holds id {bad}, its table has rows 0..{size - 1}; "
            "encode with the vocabularies of the same feature spec"
        )


def _bags(arrays: Mapping[str, np.ndarray], tables: Sequence[Field]) -> KeyedJaggedTensor | None:
    if not tables:
        return None
    values, lengths = [], []
    for field in tables:
        ids = arrays[field.array]
        several = field.encoding is Encoding.CATEGORIES
        check_ids(ids, field.array, field.size, padded=several)
        values.append(ids[ids >= 0] if several else ids)
        lengths.append((ids >= 0).sum(1) if several else np.ones(len(ids), np.int64))
    return KeyedJaggedTensor(
        keys=[f.array for f in tables],
        values=torch.from_numpy(np.concatenate(values)),
        lengths=torch.from_numpy(np.concatenate(lengths)),
    )


def _numbers(arrays: Mapping[str, np.ndarray] | None, columns: Sequence[Field]) -> Tensor:
    """Return [rows, n] of the fields that are numbers already, side by side."""
    rows = 0 if arrays is None else len(next(iter(arrays.values()), ()))  # no field at all: nobody counts rows
    if arrays is None or not columns:
        return torch.zeros(rows, sum(f.width or 1 for f in columns))
    parts = [arrays[f.array].reshape(rows, f.width or 1) for f in columns]
    return torch.from_numpy(np.concatenate(parts, 1).astype(np.float32, copy=False))
