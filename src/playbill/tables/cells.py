"""Single cells of raw columns: texts that are UTF-8, numbers that are numbers, and the record of those that are not."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from playbill.errors import TableError
from playbill.tables.ids import Bools, valid

_NUMBER = r"^[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|nan|inf|infinity)$"
NAN, INFINITE = "NaN", "infinite"


@dataclass(slots=True)
class Converted:
    """A contract column of one batch.

    Attributes:
        values: [n] of `arrow_type(kind)`, null where a cell is faulty.
        faults: (rule, detail, [n] bool) for every kind of faulty cell.
    """

    values: pa.Array
    faults: list[tuple[str, str, Bools]] = field(default_factory=list)

    def fault(self, rule: str, detail: str, mask: Bools) -> None:
        if mask.any():
            self.faults.append((rule, detail, mask))


def impossible(array: pa.Array, expected: str) -> TableError:
    """Return the error for a column of which no cell can be converted."""
    return TableError(f"is {array.type}; expected {expected}")


def blank(values: pa.Array, mask: Bools) -> pa.Array:
    """Return the array with null where `mask` is set."""
    return pc.if_else(pa.array(mask), pa.scalar(None, values.type), values) if mask.any() else values


def utf8(array: pa.Array) -> Converted:
    """Check that texts are UTF-8: Arrow reads any bytes into a string column without looking."""
    try:
        array.validate(full=True)
        return Converted(array)
    except pa.ArrowInvalid:
        mask = np.zeros(len(array), dtype=np.bool_)
        good: list[str | None] = []
        for row, data in enumerate(array.cast(pa.binary()).to_pylist()):
            try:
                good.append(None if data is None else data.decode("utf-8"))
            except UnicodeDecodeError:
                good.append(None)
                mask[row] = True
        result = Converted(pa.array(good, pa.string()))
        result.fault("bad_utf8", "not UTF-8", mask)
        return result


def number(array: pa.Array) -> Converted:
    """Return numbers, flags, decimals and texts as float64.

    Raises:
        TableError: no number can be read from this Arrow type.
    """
    dtype = array.type
    wrong = np.zeros(len(array), dtype=np.bool_)
    if pa.types.is_boolean(dtype):
        values = array.cast(pa.int8()).cast(pa.float64())
    elif pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_decimal(dtype):
        values = array.cast(pa.float64(), safe=False)
    elif pa.types.is_string(dtype):
        values, wrong = _parsed(array)
    else:
        raise impossible(array, "numbers")
    floats = values.fill_null(0.0).to_numpy()
    result = Converted(blank(values, ~np.isfinite(floats)))
    result.fault("wrong_type", "not a number", wrong)
    result.fault("not_finite", NAN, np.isnan(floats))
    result.fault("not_finite", INFINITE, np.isinf(floats))
    return result


def _parsed(array: pa.Array) -> tuple[pa.Array, Bools]:
    """Return texts as float64 and which of them are no numbers; blank text is null."""
    text = utf8(array).values
    trimmed = pc.utf8_lower(pc.utf8_trim_whitespace(text))
    trimmed = blank(trimmed, equal(trimmed, ""))
    numeric = pc.fill_null(pc.match_substring_regex(trimmed, _NUMBER), False).to_numpy(zero_copy_only=False)
    wrong = (valid(trimmed) & ~numeric) | (valid(array) & ~valid(text))
    # Arrow's parser takes no leading plus
    plain = pc.replace_substring_regex(blank(trimmed, ~numeric), r"^\+", "")
    return plain.cast(pa.float64()), wrong


def equal(array: pa.Array, word: str) -> Bools:
    """Return [n] bool: which texts are this word; null is none."""
    result: Bools = pc.fill_null(pc.equal(array, word), False).to_numpy(zero_copy_only=False)
    return result


def whole(array: pa.Array) -> Converted:
    """Return integers, whole floats and whole decimals as int64; a fraction is a fault, NaN is null."""
    if pa.types.is_decimal(array.type):
        return _whole_decimals(array)
    if pa.types.is_uint64(array.type):
        big = pc.fill_null(pc.greater(array, pa.scalar((1 << 63) - 1, pa.uint64())), False)
        mask = big.to_numpy(zero_copy_only=False)
        result = Converted(blank(array, mask).cast(pa.int64()))
        result.fault("wrong_type", "larger than int64 holds", mask)
        return result
    if pa.types.is_integer(array.type):
        return Converted(array.cast(pa.int64()))
    floats = array.cast(pa.float64()).fill_null(0.0).to_numpy()
    missing = ~valid(array) | np.isnan(floats)  # NaN is how float columns write "none"
    # above 2**53 neighbouring whole numbers share one float: such an id may be another's
    mask = ~missing & ~((np.floor(floats) == floats) & (np.abs(floats) <= 2**53))
    result = Converted(pa.array(np.where(missing | mask, 0, floats).astype(np.int64), mask=missing | mask))
    result.fault("wrong_type", "not a whole number", mask)
    return result


def _whole_decimals(array: pa.Array) -> Converted:
    # warehouses export ids as decimal(38, 0)
    numbers = array.to_pylist()
    fits = [n is None or (n == int(n) and -(1 << 63) <= n < 1 << 63) for n in numbers]
    kept = [int(n) if n is not None and ok else None for n, ok in zip(numbers, fits, strict=True)]
    result = Converted(pa.array(kept, pa.int64()))
    result.fault("wrong_type", "not a whole number that int64 holds", ~np.array(fits, dtype=np.bool_))
    return result
