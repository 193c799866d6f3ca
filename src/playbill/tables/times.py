"""Raw times, in the many ways people write them, as microseconds UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from playbill.tables.cells import INFINITE, Converted, impossible, number, utf8, whole
from playbill.tables.ids import Bools, Numbers, valid

TIME_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0}  # microseconds in one; ns is divided instead

# 0001-01-01 and 9999-12-31 in microseconds: what Python's datetime, and so every reader, can hold
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OUTSIDE = "outside the years 1 to 9999"


def time(array: pa.Array, unit: str) -> Converted:
    """Return raw times as timestamp[us, UTC].

    Args:
        array: [n] timestamps (without a zone: taken as UTC), dates, ISO 8601 texts, or numbers.
        unit: of numbers, also where they are stored as text: `s`, `ms`, `us` or `ns` since 1970.
    Raises:
        TableError: no time can be read from this Arrow type, or numbers come without a unit.
    """
    dtype = array.type
    if pa.types.is_timestamp(dtype):
        return _microseconds(array.cast(pa.int64()), dtype.unit, valid(array))
    if pa.types.is_date(dtype):
        days = array.cast(pa.date32()).cast(pa.int32()).cast(pa.int64())
        return _microseconds(pc.multiply(days, 86_400), "s", valid(array))
    if pa.types.is_string(dtype) and not unit:
        return _iso(array)
    if not (pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_string(dtype)):
        raise impossible(array, "a time")
    if not unit:
        raise impossible(array, "a time, or numbers with a declared unit: s, ms, us or ns")
    if pa.types.is_integer(dtype):
        return _microseconds(whole(array).values, unit, valid(array))
    return _fractions(array, unit)


def _fractions(array: pa.Array, unit: str) -> Converted:
    numbers = number(array)
    there = valid(numbers.values)
    floats = numbers.values.fill_null(0.0).to_numpy()
    scaled = floats / 1000 if unit == "ns" else floats * TIME_UNITS[unit]
    inside = (scaled >= _FIRST_US) & (scaled <= _LAST_US)
    micro = pa.array(np.where(inside, np.round(scaled), 0).astype(np.int64), mask=~(there & inside))
    result = Converted(micro.cast(pa.timestamp("us", tz="UTC")))
    outside = there & ~inside
    for rule, detail, mask in numbers.faults:
        if rule == "wrong_type":
            result.fault("wrong_type", "not a time", mask)
        elif detail == INFINITE:  # NaN stays null: it is how float columns write "none"
            outside = outside | mask
    result.fault("time_out_of_range", _OUTSIDE, outside)
    return result


def _microseconds(numbers: pa.Array, unit: str, there: Bools) -> Converted:
    raw: Numbers = numbers.fill_null(0).to_numpy()
    if unit == "ns":
        micro, inside = raw // 1000, np.ones(len(raw), dtype=np.bool_)
    else:
        factor = TIME_UNITS[unit]
        inside = (raw >= _FIRST_US // factor) & (raw <= _LAST_US // factor)
        micro = np.where(inside, raw, 0) * factor
    outside = there & (~inside | ~valid(numbers))
    result = Converted(pa.array(micro, mask=~there | outside).cast(pa.timestamp("us", tz="UTC")))
    result.fault("time_out_of_range", _OUTSIDE, outside)
    return result


def _iso(array: pa.Array) -> Converted:
    text = utf8(array).values
    micro: list[int | None] = []
    wrong = np.zeros(len(array), dtype=np.bool_)
    for row, word in enumerate(text.to_pylist()):
        if word is None or not word.strip():
            micro.append(None)
            wrong[row] = word is None and array[row].is_valid
            continue
        try:
            # fromisoformat would read a bare 881250949 as a date of the year 8812
            if not re.match(r"\s*\d{4}-", word):
                raise ValueError(word)
            at = datetime.fromisoformat(word.strip())
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
            micro.append((at - _EPOCH) // timedelta(microseconds=1))
        except (ValueError, OverflowError):
            micro.append(None)
            wrong[row] = True
    result = Converted(pa.array(micro, pa.int64()).cast(pa.timestamp("us", tz="UTC")))
    result.fault("wrong_type", "not an ISO 8601 time such as 2024-05-01T18:30:00Z", wrong)
    return result
