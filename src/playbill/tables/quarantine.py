"""Rows that broke a rule, kept as they came, so that they can be repaired and brought again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from playbill.tables.faults import show
from playbill.tables.ids import Numbers, valid

FOLDER = "quarantine"


class Quarantine:
    """Writes `quarantine/<table>.parquet`: the raw columns, and `playbill_file`, `playbill_row`, `playbill_rules`.

    Columns keep the user's names and types; one whose type differs between the files of a table is stored as text.
    """

    def __init__(self, folder: Path, table: str, schemas: Sequence[pa.Schema]) -> None:
        self._path = folder / FOLDER / f"{table}.parquet"
        self._writer: pq.ParquetWriter | None = None
        types: dict[str, pa.DataType] = {}
        for schema in schemas:
            for field in schema:
                dtype = _storable(field.type)
                types[field.name] = dtype if types.get(field.name, dtype) == dtype else pa.string()
        self._raw = types
        self._schema = pa.schema(
            [
                *((name, dtype) for name, dtype in types.items()),
                ("playbill_file", pa.string()),
                ("playbill_row", pa.int64()),
                ("playbill_rules", pa.list_(pa.string())),
            ]
        )
        self.rows = 0

    def add(self, batch: pa.RecordBatch, file: str, rows: Numbers, rules: Sequence[Sequence[str]]) -> None:
        """Append raw rows with their 0-based numbers in `file` and the rules that each breaks."""
        if batch.num_rows == 0:
            return
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd")
        arrays = []
        for name, dtype in self._raw.items():
            place = batch.schema.get_field_index(name)
            arrays.append(pa.nulls(batch.num_rows, dtype) if place < 0 else _stored(batch.column(place), dtype))
        arrays.append(pa.repeat(file, batch.num_rows))
        arrays.append(pa.array(rows, pa.int64()))
        arrays.append(pa.array([list(names) for names in rules], pa.list_(pa.string())))
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
        self.rows += batch.num_rows

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _storable(dtype: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(dtype):
        return _storable(dtype.value_type)
    if pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype) or pa.types.is_null(dtype):
        return pa.string()
    if _is_text_list(dtype):
        return pa.list_(pa.string())
    return dtype


def _is_text_list(dtype: pa.DataType) -> bool:
    listed = pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype)
    return bool(listed and _storable(dtype.value_type) == pa.string())


def _stored(array: pa.Array, dtype: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    # a reader of the quarantine must not stumble over the very bytes that put the row there
    if dtype == pa.string():
        if (
            pa.types.is_string(array.type)
            or pa.types.is_large_string(array.type)
            or pa.types.is_string_view(array.type)
        ):
            return pa.array([_text(data) for data in array.cast(pa.binary()).to_pylist()], pa.string())
        texts = show(array, np.arange(len(array)))
        return pa.array(texts, pa.string(), mask=~valid(array))
    if _is_text_list(dtype):
        lists = array.cast(pa.list_(pa.binary())).to_pylist()
        return pa.array([None if row is None else [_text(data) for data in row] for row in lists], dtype)
    return array


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "backslashreplace")
