"""One raw column to one contract column: cells that cannot be converted become null and are named, never guessed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from playbill.tables.cells import Converted, blank, equal, impossible, number, utf8, whole
from playbill.tables.faults import show
from playbill.tables.ids import Bools, valid
from playbill.tables.schema import Kind, arrow_type
from playbill.tables.times import time
from playbill.tables.vectors import vectors

_YES, _NO = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")


def convert(
    array: pa.Array,
    kind: Kind,
    *,
    id_type: pa.DataType = None,
    time_unit: str = "",
    separator: str = "",
    width: int = 1,
) -> Converted:
    """Return a raw column as a contract column.

    Args:
        array: [n] of any Arrow type.
        id_type: int64 or string, for ids.
        time_unit: `s`, `ms`, `us` or `ns`, for times stored as numbers.
        separator: between categories stored as one text; empty: the text is one category.
        width: numbers in each vector.
    Raises:
        TableError: no cell of this Arrow type can become the kind (a struct as an id); says what would do.
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if isinstance(array.type, pa.UuidType):
        array = pa.array([None if value is None else str(value) for value in array.to_pylist()], pa.string())
    if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
        array = array.cast(pa.binary()).cast(pa.string(), safe=False)
    if pa.types.is_null(array.type):
        return Converted(pa.nulls(len(array), arrow_type(kind, id_type, width)))
    if kind is Kind.ID:
        return _id(array, id_type)
    if kind is Kind.TEXT:
        return _text(array)
    if kind is Kind.NUMBER:
        return number(array)
    if kind is Kind.FLAG:
        return _flag(array)
    if kind is Kind.TIME:
        return time(array, time_unit)
    if kind is Kind.VECTOR:
        return vectors(array, width)
    return _categories(array, separator)


def _text(array: pa.Array) -> Converted:
    dtype = array.type
    if pa.types.is_binary(dtype) or pa.types.is_large_binary(dtype) or pa.types.is_fixed_size_binary(dtype):
        array = array.cast(pa.binary()).cast(pa.string(), safe=False)
    elif pa.types.is_floating(dtype):
        array = _float_text(array)
    elif pa.types.is_nested(dtype):
        raise impossible(array, "text")
    elif not pa.types.is_string(dtype):
        # cell by cell: one date that no calendar knows must not spoil the column
        array = pa.array(show(array, np.arange(len(array))), pa.string(), mask=~valid(array))
    return utf8(array)


def _float_text(array: pa.Array) -> pa.Array:
    # a column of whole numbers with gaps arrives as floats: 85711.0 was 85711 to the one who wrote it
    def text(value: float | None) -> str | None:
        if value is None:
            return None
        return str(int(value)) if value.is_integer() else str(value)

    return pa.array([text(v) for v in array.cast(pa.float64()).to_pylist()], pa.string())


def _id(array: pa.Array, id_type: pa.DataType) -> Converted:
    dtype = array.type
    if pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_decimal(dtype):
        numbers = whole(array)
        if pa.types.is_string(id_type):
            numbers.values = numbers.values.cast(pa.string())
        return numbers
    if pa.types.is_string(dtype) or pa.types.is_binary(dtype) or pa.types.is_large_binary(dtype):
        result = _text(array)
        # an empty id names nobody: exports write it for "none"
        result.values = blank(result.values, equal(result.values, ""))
        return result
    raise impossible(array, "whole numbers or text")


def _flag(array: pa.Array) -> Converted:
    if pa.types.is_boolean(array.type):
        return Converted(array)
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        numbers = array.cast(pa.float64(), safe=False)
        values = pc.equal(numbers, 1.0)
        wrong = valid(array) & ~_one_of(numbers, (0.0, 1.0))
    elif pa.types.is_string(array.type):
        text = pc.utf8_lower(pc.utf8_trim_whitespace(utf8(array).values))
        text = blank(text, equal(text, ""))
        values = pc.if_else(text.is_valid(), pc.is_in(text, pa.array(_YES)), pa.scalar(None, pa.bool_()))
        wrong = (valid(text) & ~_one_of(text, _YES + _NO)) | (valid(array) & ~valid(utf8(array).values))
    else:
        raise impossible(array, "true or false")
    result = Converted(blank(values, wrong))
    result.fault("wrong_type", "neither true nor false", wrong)
    return result


def _one_of(array: pa.Array, words: tuple[object, ...]) -> Bools:
    result: Bools = pc.is_in(array, pa.array(list(words), array.type)).to_numpy(zero_copy_only=False)
    return result


def _categories(array: pa.Array, separator: str) -> Converted:
    dtype = array.type
    if pa.types.is_string(dtype):
        text = utf8(array)
        parts = pc.split_pattern(text.values, separator) if separator else _singletons(text.values)
        result = Converted(_tidy(parts), text.faults)
        return result
    if not (pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype)):
        raise impossible(array, "a list of texts, or text with a declared separator")
    if pa.types.is_nested(dtype.value_type):
        raise impossible(array, "a list of texts")
    parent = np.asarray(pc.list_parent_indices(array))
    inner = convert(pc.list_flatten(array), Kind.TEXT)
    broken = np.zeros(len(array), dtype=np.bool_)
    for _, _, mask in inner.faults:
        broken[parent[mask]] = True
    # lengths, not the raw offsets: a slice's offsets do not start at 0
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), inner.values, mask=pa.array(~valid(array)))
    gaps = np.zeros(len(array), dtype=np.bool_)
    gaps[parent[~valid(inner.values)]] = True
    result = Converted(blank(_tidy(lists), broken))
    result.fault("bad_utf8", "not UTF-8", broken)
    result.fault("empty_category", "a null among the categories; left out of the list", gaps & ~broken)
    return result


def _singletons(text: pa.Array) -> pa.Array:
    offsets = pa.array(np.arange(len(text) + 1, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, text, mask=pa.array(~valid(text)))


def _tidy(lists: pa.Array) -> pa.Array:
    """Return lists of trimmed texts without nulls and blanks."""
    rows = lists.to_pylist()
    tidy = [None if row is None else [w.strip() for w in row if w is not None and w.strip()] for row in rows]
    return pa.array(tidy, pa.list_(pa.string()))
