"""Columns of vectors: a list of numbers in each row, all of one length, such as the embedding of a text or an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from playbill.tables.cells import Converted, impossible
from playbill.tables.ids import valid
from playbill.tables.incoming import Incoming


def vectors(array: pa.Array, width: int) -> Converted:
    """Return lists of numbers as float32 vectors of one width; an empty list is null, as an empty text id is.

    Args:
        array: [n] lists of numbers.
        width: numbers in each.
    Raises:
        TableError: the column holds no lists of numbers.
    """
    if not is_vector(array.type):
        raise impossible(array, "a list of numbers, the same count in every row")
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    there = valid(array) & (lengths > 0)
    right = there & (lengths == width)
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is infinite, and found below
        inner = pc.list_flatten(array.filter(pa.array(right))).cast(pa.float64(), safe=False)
        numbers = np.asarray(inner.fill_null(float("nan")), np.float64).astype(np.float32).reshape(-1, width)
    finite = np.isfinite(numbers).all(1)
    broken = np.zeros(len(array), np.bool_)
    broken[np.flatnonzero(right)[~finite]] = True
    kept = np.zeros((len(array), width), np.float32)
    kept[right & ~broken] = numbers[finite]
    result = Converted(fixed_size(kept, right & ~broken))
    result.fault("wrong_type", f"not {width} numbers, as the first vector has", there & ~right)
    result.fault("nan_feature", "NaN or infinity in a vector", broken)
    return result


def fixed_size(rows: np.ndarray, there: np.ndarray) -> pa.Array:
    """Return [n, width] float32 rows as an Arrow column, null where `there` ([n] bool) is not set."""
    flat = pa.array(np.ascontiguousarray(rows, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1], mask=pa.array(~there))


def rows_of(column: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return ([n, width] float32 rows, [n] bool which are there) of a column stored at a fixed width.

    A row that is missing is 0 throughout.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    there = valid(array)
    rows = np.zeros((len(array), array.type.list_size), np.float32)
    inner = array.filter(pa.array(there)).flatten().cast(pa.float32()).fill_null(float("nan"))
    rows[there] = np.asarray(inner).reshape(-1, array.type.list_size)
    return rows, there


def is_vector(dtype: pa.DataType) -> bool:
    """Return whether a raw column's type can hold vectors."""
    if pa.types.is_null(dtype):
        return True
    if not (pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype)):
        return False
    inner = dtype.value_type
    return bool(pa.types.is_floating(inner) or pa.types.is_integer(inner) or pa.types.is_null(inner))


def vector_width(files: Sequence[Incoming], column: str) -> int:
    """Return how many numbers the vectors of a column have: as its type says, else as the first one that is there; 1
    where no file has any.

    Args:
        files: of one table.
        column: name in the contract.
    """
    for file in files:
        place = file.schema.get_field_index(file.names.get(column, ""))
        dtype = file.schema.field(place).type if place >= 0 else pa.null()
        if pa.types.is_null(dtype) or not is_vector(dtype):
            continue
        if pa.types.is_fixed_size_list(dtype):
            return max(int(dtype.list_size), 1)
        try:
            for batch in file.batches():
                longest = pc.max(pc.list_value_length(batch.column(place))).as_py()
                if longest:
                    lengths = pc.fill_null(pc.list_value_length(batch.column(place)), 0).to_numpy(zero_copy_only=False)
                    return int(lengths[lengths > 0][0])
        except (pa.ArrowException, OSError):
            continue  # whoever reads the rows says so, with the file's name
    return 1
