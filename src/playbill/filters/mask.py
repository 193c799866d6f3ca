"""What a checked tree says: of a whole table, as a mask, or of one row.

What is missing is neither equal nor unequal to anything, as in SQL: a test of it is unknown, `not` leaves it unknown,
and what is unknown is not chosen. `is null` alone asks for it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np
import polars as pl

from playbill.filters.check import Kind, fits, moment_us
from playbill.filters.read import Both, Node, Not, Test

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_INNER = {Kind.TEXTS: Kind.TEXT, Kind.NUMBERS: Kind.NUMBER}
_Truth = tuple[np.ndarray, np.ndarray]  # is true, is false; unknown where neither


def mask(tree: Node, table: pl.DataFrame, known: Mapping[str, Kind]) -> np.ndarray:
    """Return [N] bool, the rows of a table of which a checked tree is true."""
    return _mask(tree, table, known)[0]


def holds(tree: Node, row: Mapping[str, Any], known: Mapping[str, Kind]) -> bool:
    """Return whether a checked tree is true of one row.

    Args:
        row: values by column; what is absent or of another kind counts as missing. A time is UTC microseconds or a
            text in ISO 8601.
    """
    return _holds(tree, row, known) is True


def _mask(tree: Node, table: pl.DataFrame, known: Mapping[str, Kind]) -> _Truth:
    if isinstance(tree, Not):
        true, false = _mask(tree.part, table, known)
        return false, true
    if isinstance(tree, Both):
        parts = [_mask(part, table, known) for part in tree.parts]
        one, all_ = (np.logical_and, np.logical_or) if tree.every else (np.logical_or, np.logical_and)
        return reduce(one, (true for true, _ in parts)), reduce(all_, (false for _, false in parts))
    return _column(tree, table[tree.column], known[tree.column])


def _column(test: Test, series: pl.Series, kind: Kind) -> _Truth:
    if test.op == "null":
        missing = _plain(series, kind).is_null().to_numpy()
        return missing, ~missing
    series = _plain(series, kind)
    values = [literal.value for literal in test.values]
    if test.op == "in":
        true = series.is_in(_listed(values, series.dtype).implode())
    elif test.op == "contains":
        inner = series.dtype.inner  # type: ignore[attr-defined]  # checked: a list
        wanted = _listed(values, inner)
        # a fraction is in no list of whole numbers
        true = series.list.contains(wanted[0]) if len(wanted) else series.is_null() & False
    else:
        true = series if test.op == "true" else _COMPARE[test.op](series, values[0])
    found = true.fill_null(False).to_numpy()
    return found, series.is_not_null().to_numpy() & ~found


def _plain(series: pl.Series, kind: Kind) -> pl.Series:
    """Return a column in the form that values are held against: times as microseconds, no NaN."""
    if kind is Kind.TIME:
        return series.cast(pl.Datetime("us")).cast(pl.Int64)
    if kind is Kind.TEXT:
        return series.cast(pl.String)
    if kind is Kind.NUMBER:
        if series.dtype.is_integer() and series.dtype != pl.UInt64:
            return series.cast(pl.Int64)
        series = series.cast(pl.Float64)
        return series.set(series.is_nan() | series.is_infinite(), None)
    if kind in _INNER:
        return series.cast(pl.List(pl.String if kind is Kind.TEXTS else pl.Int64))
    return series


def _listed(values: list[Any], dtype: Any) -> pl.Series:
    if dtype.is_integer():
        values = [int(v) for v in values if v == int(v) and -(2**63) <= v < 2**63]
        return pl.Series(values, dtype=pl.Int64)
    return pl.Series(values, dtype=dtype)


def _holds(tree: Node, row: Mapping[str, Any], known: Mapping[str, Kind]) -> bool | None:
    if isinstance(tree, Not):
        found = _holds(tree.part, row, known)
        return None if found is None else not found
    if isinstance(tree, Both):
        said = [_holds(part, row, known) for part in tree.parts]
        if tree.every:
            return False if False in said else None if None in said else True
        return True if True in said else None if None in said else False
    kind, value = known[tree.column], row.get(tree.column)
    value = _fitting(value, kind)
    if tree.op == "null":
        return value is None
    if value is None:
        return None
    if tree.op == "true":
        return bool(value)
    if tree.op == "in":
        return any(value == literal.value for literal in tree.values)
    if tree.op == "contains":
        return any(v == tree.values[0].value for v in value)
    return bool(_COMPARE[tree.op](value, tree.values[0].value))


def _fitting(value: Any, kind: Kind) -> Any:
    """Return the value if it is of its column's kind, else None."""
    if kind is Kind.OTHER:
        return value
    if kind in _INNER:
        return [v for v in value if fits(v, _INNER[kind])] if isinstance(value, list | tuple) else None
    if kind is Kind.TIME and isinstance(value, str):
        return moment_us(value)
    if not fits(value, kind) or (isinstance(value, float) and not np.isfinite(value)):
        return None
    return value
