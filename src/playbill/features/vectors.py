"""Vector columns as features: the embedding of a text or an image, the same count of numbers in every row.

A vector enters the item tower as it is, divided by one number for the whole column, so that its numbers are of the size
of every other input; a row without one is 0 throughout, which no embedding is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from playbill.errors import FeatureError
from playbill.features.spec import Encoding, Field, Side
from playbill.tables.schema import Column
from playbill.tables.vectors import is_vector, rows_of


def vector_field(column: Column, values: pa.ChunkedArray, teaches: np.ndarray) -> Field | None:
    """Return the field of a vector column of the items table; None where no row has a vector.

    Args:
        values: [N] the whole column.
        teaches: [N] bool, rows that the scale is learned from.
    Raises:
        FeatureError: the column holds no vectors, or vectors of several widths; names the column and the row.
    """
    width = _width(values, column.name)
    if not width:
        return None
    rows, there = matrix(values, width, column.name)
    broken = int((values.is_valid().to_numpy() & ~there).sum())
    if broken:
        Console(stderr=True).print(
            f"items.{column.name}: {broken:,} of {len(rows):,} vectors hold NaN or infinity and count as missing",
            soft_wrap=True,
        )
    known = rows[there & teaches] if (there & teaches).any() else rows[there]
    if not len(known):
        return None
    std = float(np.sqrt(np.square(known, dtype=np.float64).mean()))
    return Field(
        name=column.name,
        side=Side.ITEM,
        encoding=Encoding.VECTOR,
        width=width,
        std=std if std > 0 else 1.0,
        protected=column.protected,
    )


def encode_vectors(raw: Any, num_rows: int, field: Field) -> np.ndarray:
    """Return [B, width] float32: each vector divided by the field's std; 0 where it is missing or not finite.

    Args:
        raw: [B] vectors, None where missing: an Arrow column, an array [B, width], or a sequence; None for no column.
    Raises:
        FeatureError: a vector has another width; names the feature and the row.
    """
    if raw is None:
        return np.zeros((num_rows, field.width), np.float32)
    rows, _ = matrix(raw, field.width, field.name)
    with np.errstate(over="ignore"):  # numbers at the end of what float32 holds: no finite vector either
        scaled: np.ndarray = (rows / field.std).astype(np.float32)
    scaled[~np.isfinite(scaled).all(1)] = 0
    return scaled


def matrix(raw: Any, width: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return ([n, width] float32 rows, 0 where missing; [n] bool which hold a vector of finite numbers).

    Args:
        raw: see `encode_vectors`.
        width, name: of the column, for the message.
    Raises:
        FeatureError: a row has another width.
    """
    if isinstance(raw, (pa.Array, pa.ChunkedArray)):
        rows, there = _from_arrow(raw, width, name)
    elif isinstance(raw, np.ndarray) and raw.ndim == 2:
        if raw.shape[1] != width:
            raise _ragged(name, 0, raw.shape[1], width)
        rows, there = raw.astype(np.float32), np.ones(len(raw), np.bool_)
    else:
        rows, there = _from_sequence(raw, width, name)
    there = there & np.isfinite(rows).all(1)
    rows[~there] = 0
    return rows, there


def _from_arrow(column: pa.Array | pa.ChunkedArray, width: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    if pa.types.is_null(column.type):
        return np.zeros((len(column), width), np.float32), np.zeros(len(column), np.bool_)
    if not is_vector(column.type):
        raise FeatureError(f"column {name!r} holds {column.type}, expected vectors: lists of {width} numbers")
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero((lengths != width) & (lengths != 0))
    if len(wrong):
        raise _ragged(name, int(wrong[0]), int(lengths[wrong[0]]), width)
    array = pc.if_else(pa.array(lengths == width), array, pa.scalar(None, array.type))
    return rows_of(array.cast(pa.list_(pa.float32(), width)))


def _from_sequence(raw: Sequence[Any], width: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    rows, there = np.zeros((len(raw), width), np.float32), np.zeros(len(raw), np.bool_)
    for row, vector in enumerate(raw):
        if vector is None or not np.size(vector):
            continue
        if np.shape(vector) != (width,):
            raise _ragged(name, row, np.size(vector), width)
        rows[row], there[row] = np.asarray(vector, np.float32), True
    return rows, there


def _width(values: pa.ChunkedArray, name: str) -> int:
    """Return the numbers of the first vector there is, 0 where there is none."""
    if not is_vector(values.type):
        raise FeatureError(f"column {name!r} is declared as vectors and holds {values.type}; prepare the tables again")
    if pa.types.is_null(values.type):
        return 0
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy()
    found = lengths[lengths > 0]
    return int(found[0]) if len(found) else 0


def _ragged(name: str, row: int, got: int, expected: int) -> FeatureError:
    return FeatureError(
        f"column {name!r}, row {row}: a vector of {got} numbers, expected {expected}; embed all rows with one model"
    )
