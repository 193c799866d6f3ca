"""Rows that broke a rule, kept as they came, so that they can be repaired and brought again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from playbill.tables.faults import show
from playbill.tables.ids import Numbers, valid

FOLDER = "quarantine"


class Quarantine:
    """Writes `quarantine/<table>.parquet`: the raw columns, and `playbill_file`, `playbill_row`, `playbill_rules`.

    Columns keep the user's names; numbers, flags, texts and lists of texts keep their types. All else is stored as
    text, and so is a column whose type differs between the files of a table.
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

    def add(
        self, batch: pa.RecordBatch, index: Numbers, file: str, rows: Numbers, rules: Sequence[Sequence[str]]
    ) -> None:
        """Append raw rows.

        Args:
            index: [n] places of the rows in the batch.
            rows: [n] their 0-based numbers in `file`.
            rules: [n] what each breaks.
        """
        if len(index) == 0:
            return
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd")
        arrays = []
        for name, dtype in self._raw.items():
            place = batch.schema.get_field_index(name)
            arrays.append(pa.nulls(len(index), dtype) if place < 0 else _stored(batch.column(place), index, dtype))
        arrays.append(pa.repeat(file, len(index)))
        arrays.append(pa.array(rows, pa.int64()))
        arrays.append(pa.array([list(names) for names in rules], pa.list_(pa.string())))
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
        self.rows += len(index)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _storable(dtype: pa.DataType) -> pa.DataType:
    """Return the type in which raw cells are kept: their own if every parquet reader knows it, else text."""
    if pa.types.is_dictionary(dtype):
        return _storable(dtype.value_type)
    number = pa.types.is_integer(dtype) or pa.types.is_float32(dtype) or pa.types.is_float64(dtype)
    if number or pa.types.is_boolean(dtype):
        return dtype  # times become text: the one that no calendar knows is the one that lies here
    return pa.list_(pa.string()) if _is_text_list(dtype) else pa.string()


def _is_text_list(dtype: pa.DataType) -> bool:
    return bool((pa.types.is_list(dtype) or pa.types.is_large_list(dtype)) and _is_text(dtype.value_type))


def _is_text(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_string(dtype) or pa.types.is_large_string(dtype))


def _stored(array: pa.Array, index: Numbers, dtype: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if dtype not in (pa.string(), pa.list_(pa.string())):
        return array.take(pa.array(index))
    # a reader of the quarantine must not stumble over the very bytes that put the row there
    if _is_text(array.type):
        data = array.take(pa.array(index)).cast(pa.binary()).to_pylist()
        return pa.array([_text(cell) for cell in data], pa.string())
    if dtype != pa.string():
        lists = array.take(pa.array(index)).cast(pa.list_(pa.binary())).to_pylist()
        return pa.array([None if row is None else [_text(cell) for cell in row] for row in lists], dtype)
    return pa.array(show(array, index), pa.string(), mask=~valid(array)[index])


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "backslashreplace")
