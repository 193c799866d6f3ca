"""Inputs for holding a graph against its module: sizes that differ, and the rows on which exports usually break."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from playbill.features.encoder import Arrays
from playbill.features.spec import PAD, UNKNOWN, Encoding, FeatureSpec, Field, Side

EDGES = ("empty", "unknown", "full", "one")


def query_rows(spec: FeatureSpec, num_rows: int, rng: np.random.Generator) -> Arrays:
    """Return the query-side arrays of `num_rows` made-up queries.

    The first four are edges: an empty history, one of unknown items (and unknown field values), a full one, one with a
    single event; the others are of any length, an item in ten unknown.
    """
    length = spec.history_length
    known = rng.integers(0, length + 1, num_rows)
    item = rng.integers(1, spec.num_items + 1, (num_rows, length))
    item[rng.random(item.shape) < 0.1] = UNKNOWN
    for row, edge in enumerate(EDGES[:num_rows]):
        known[row] = {"empty": 0, "unknown": length, "full": length, "one": 1}[edge]
        if edge == "unknown":
            item[row] = UNKNOWN
    there = np.arange(length) < known[:, None]
    arrays: Arrays = {
        "history_item": np.where(there, item, PAD),
        "history_event": np.where(there, rng.integers(1, len(spec.events) + 1, item.shape), 0),
        "history_value": np.where(there, rng.uniform(-1, 1, item.shape), 0).astype(np.float32),
        "history_age": np.where(there, np.cumsum(rng.exponential(0.5, item.shape), 1), 0).astype(np.float32),
    }
    arrays |= _fields(spec, (Side.USER, Side.CONTEXT), num_rows, rng)
    for name, array in arrays.items():
        if not name.startswith("history_"):
            _forget(array, [row for row, edge in enumerate(EDGES[:num_rows]) if edge in ("empty", "unknown")])
    return arrays


def item_rows(spec: FeatureSpec, num_rows: int, rng: np.random.Generator) -> Arrays:
    """Return the item-side arrays of `num_rows` made-up items.

    The first is wholly unknown, the second cold (unknown id, known content), the others are known.
    """
    arrays: Arrays = {"item_index": rng.integers(1, spec.num_items + 1, num_rows)}
    arrays |= _fields(spec, (Side.ITEM,), num_rows, rng)
    arrays["item_index"][:2] = UNKNOWN
    for name, array in arrays.items():
        if name != "item_index":
            _forget(array, [0])
    return arrays


def candidate_rows(spec: FeatureSpec, num_users: int, num_rows: int, rng: np.random.Generator) -> Arrays:
    """Return all arrays of a ranker's call: `num_users` queries, `num_rows` candidates spread over them."""
    return {
        **query_rows(spec, num_users, rng),
        "cand_user": np.sort(rng.integers(0, num_users, num_rows)),
        **item_rows(spec, num_rows, rng),
        "retrieval_score": rng.uniform(-1, 1, num_rows).astype(np.float32),
    }


def creative_rows(
    spec: FeatureSpec,
    fields: Sequence[Field],
    num_creatives: int,
    num_users: int,
    num_rows: int,
    rng: np.random.Generator,
) -> Arrays:
    """Return all arrays of a creative head's call: `num_users` queries, `num_rows` creatives spread over them.

    The first creative is wholly unknown, the second came later (unknown index, known content).
    """
    arrays: Arrays = {"creative_index": rng.integers(1, num_creatives + 1, num_rows)}
    arrays |= _values(fields, num_rows, rng)
    arrays["creative_index"][:2] = UNKNOWN
    for name, array in arrays.items():
        if name != "creative_index":
            _forget(array, [0])
    item = rng.integers(0, spec.num_items + 1, num_rows)
    users = np.sort(rng.integers(0, num_users, num_rows))
    return {**query_rows(spec, num_users, rng), "cand_user": users, "item_index": item, **arrays}


def _fields(spec: FeatureSpec, sides: tuple[Side, ...], num_rows: int, rng: np.random.Generator) -> Arrays:
    return _values([field for field in spec.fields if field.side in sides], num_rows, rng)


def _values(fields: Sequence[Field], num_rows: int, rng: np.random.Generator) -> Arrays:
    arrays: Arrays = {}
    for field in fields:
        if field.encoding is Encoding.NUMBER:
            arrays[field.array] = np.clip(rng.standard_t(2, num_rows), -8, 8).astype(np.float32)
        elif field.encoding is Encoding.VECTOR:
            arrays[field.array] = rng.standard_normal((num_rows, field.width)).astype(np.float32)
        elif field.encoding is Encoding.CATEGORIES:
            values = rng.integers(0, field.size, (num_rows, field.width))
            there = np.arange(field.width) < rng.integers(0, field.width + 1, num_rows)[:, None]
            arrays[field.array] = np.where(there, values, PAD)
        else:
            arrays[field.array] = rng.integers(0, field.size, num_rows)
    return arrays


def _forget(array: np.ndarray, rows: list[int]) -> None:
    """Make these rows missing: unknown for one value, nothing but padding for lists, 0 for numbers and vectors."""
    array[rows] = PAD if array.ndim == 2 and array.dtype.kind == "i" else UNKNOWN
