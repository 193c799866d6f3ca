"""What may be told of items and creatives between bundles: columns by kind, and values held against them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl

from playbill.bundle.open import Bundle, item_kinds
from playbill.engine.catalogue import WITHDRAWN
from playbill.errors import RequestError
from playbill.features.spec import Encoding, Side
from playbill.filters.check import Kind, moment_us
from playbill.tables.schema import CONTRACT
from playbill.tables.schema import Kind as TableKind

MAX_TEXT, MAX_LIST = 100_000, 1_000
_LARGEST = float(np.finfo(np.float32).max)
_MOMENTS = 2**61  # microseconds either side of 1970: 73,000 years; differences of two still fit
_KINDS = {TableKind.TEXT: Kind.TEXT, TableKind.TIME: Kind.TIME, TableKind.FLAG: Kind.TRUTH}
_READ_BY_ENGINE = {
    WITHDRAWN: Kind.TRUTH,
    "available": Kind.TRUTH,
    "title": Kind.TEXT,
    "published_at": Kind.TIME,
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: what it holds; of vectors, which no condition can ask for, how many numbers each has."""

    kind: Kind
    width: int = 0


def item_columns(bundle: Bundle) -> dict[str, Column]:
    """Return the columns of items by which anything is done: those of the bundle's table and what models read."""
    found = {name: Column(kind) for name, kind in _READ_BY_ENGINE.items()}
    for name, kind in item_kinds(bundle.items).items():
        found[name] = Column(kind, _width(bundle.items[name]) if kind is Kind.OTHER else 0)
    for field in bundle.spec.side(Side.ITEM):
        if field.encoding is Encoding.VECTOR and field.reads == [field.name]:
            found[field.name] = Column(Kind.OTHER, field.width)
        kind = {Encoding.CATEGORIES: Kind.TEXTS, Encoding.NUMBER: Kind.NUMBER}.get(field.encoding, Kind.TEXT)
        for name in field.reads:
            found.setdefault(name, Column(kind))
    return {name: column for name, column in found.items() if name != "item_id" and _can_be_given(column)}


def creative_columns(bundle: Bundle) -> dict[str, Column]:
    """Return the columns of creatives that can be told: the contract's and the bundle's own; none without any."""
    if bundle.creatives is None:
        return {}
    found = {WITHDRAWN: Column(Kind.TRUTH)}
    found |= {c.name: Column(_KINDS[c.kind]) for c in CONTRACT["creatives"] if c.kind in _KINDS}
    for name, values in bundle.creatives.columns.items():
        if name not in found and (first := next((v for v in values if v is not None), None)) is not None:
            found[name] = _column_of(first)
    own = ("creative_id", "item_id")
    return {name: column for name, column in found.items() if name not in own and _can_be_given(column)}


def checked(values: Mapping[str, Any], columns: Mapping[str, Column], path: str) -> dict[str, Any]:
    """Return what a sender says of columns in the form in which the store keeps it: times are UTC microseconds.

    Args:
        values: by column, as json decodes them; None takes back what was noted.
        path: of what they are said of, such as `items[3]`.
    Raises:
        RequestError: a column that nobody knows, or a value of another kind; names it.
    """
    return {name: _checked(value, name, columns, f"{path}.{name[:80]}") for name, value in values.items()}


def shown(value: Any) -> str:
    """Return a value as it was sent, cut where it is long."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


def _checked(value: Any, name: str, columns: Mapping[str, Column], path: str) -> Any:
    column = columns.get(name)
    if column is None:
        near = difflib.get_close_matches(name[:80], columns, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise RequestError(path, f"no such column; {hint}columns: {', '.join(columns) or 'none'}")
    if value is None:
        return None
    if column.kind is Kind.TIME:
        moment = moment_us(value) if isinstance(value, str) else value
        if type(moment) is not int or abs(moment) > _MOMENTS:
            wanted = 'a time, ISO 8601 such as "2024-05-01T18:30:00Z" or UTC microseconds'
            raise RequestError(path, f"expected {wanted}, got {shown(value)}")
        return moment
    if column.width or column.kind in (Kind.TEXTS, Kind.NUMBERS):
        return _list(value, column, path)
    if not _fits(value, column.kind):
        raise RequestError(path, f"expected {_ONE[column.kind]}, got {shown(value)}")
    return value


def _list(value: Any, column: Column, path: str) -> list[Any]:
    one = Kind.TEXT if column.kind is Kind.TEXTS else Kind.NUMBER
    wanted = f"a vector of {column.width} numbers" if column.width else f"a list, each {_ONE[one]}"
    if not isinstance(value, list):
        raise RequestError(path, f"expected {wanted}, got {shown(value)}")
    if column.width and len(value) != column.width:
        raise RequestError(path, f"expected {wanted}, got {len(value)}")
    if not column.width and len(value) > MAX_LIST:
        raise RequestError(path, f"expected at most {MAX_LIST:,} values, got {len(value):,}")
    for place, part in enumerate(value):
        if not _fits(part, one):
            raise RequestError(f"{path}[{place}]", f"expected {_ONE[one]}, got {shown(part)}")
    return value


_ONE = {
    Kind.TEXT: f"a text of at most {MAX_TEXT:,} characters",
    Kind.NUMBER: "a number that 32 bits hold",
    Kind.TRUTH: "true or false",
}


def _fits(value: Any, kind: Kind) -> bool:
    if kind is Kind.TEXT:
        return isinstance(value, str) and len(value) <= MAX_TEXT
    if kind is Kind.TRUTH:
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    # json knows larger whole numbers than the store does, and models read halves of what a float holds
    return isinstance(value, float) and abs(value) <= _LARGEST or isinstance(value, int) and -(2**63) <= value < 2**63


def _can_be_given(column: Column) -> bool:
    return column.kind is not Kind.OTHER or column.width > 0


def _width(series: pl.Series) -> int:
    """Return the numbers in each vector of a column; 0 where it holds something else."""
    if isinstance(series.dtype, pl.Array):
        return series.dtype.size
    if isinstance(series.dtype, pl.List) and series.dtype.inner in (pl.Float32, pl.Float64):
        return max(series.list.len().drop_nulls().to_list(), default=0)
    return 0


def _column_of(value: Any) -> Column:
    if isinstance(value, Iterable) and not isinstance(value, str):
        parts = list(value)
        texts = any(isinstance(part, str) for part in parts)
        return Column(Kind.TEXTS) if texts else Column(Kind.OTHER, len(parts))
    for kind, types in ((Kind.TEXT, str), (Kind.TRUTH, bool), (Kind.NUMBER, (int, float))):
        if isinstance(value, types):
            return Column(kind)
    return Column(Kind.OTHER)
