"""A tree held against columns: every name is one, every value is of its column's kind."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum

import polars as pl

from playbill.errors import FilterError
from playbill.filters.read import Both, Literal, Node, Not, Test, Value, columns, read


class Kind(Enum):
    """What a column holds, in words for people."""

    TEXT = "text"
    NUMBER = "numbers"
    TRUTH = "true or false"
    TIME = "times"
    TEXTS = "lists of text"
    NUMBERS = "lists of numbers"
    OTHER = "what no value can be held against"


_LISTS = {Kind.TEXTS: Kind.TEXT, Kind.NUMBERS: Kind.NUMBER}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def kinds(schema: Mapping[str, pl.DataType]) -> dict[str, Kind]:
    """Return the kind of each column of a table."""
    return {name: _kind(dtype) for name, dtype in schema.items()}


def parse(text: str, known: Mapping[str, Kind]) -> Node:
    """Return the tree of a condition over these columns; values of times are UTC microseconds in it.

    Raises:
        FilterError: it cannot be read, names a column that is not there, or holds one against a value of another kind.
    """
    tree = read(text)
    for column in columns(tree) & known.keys():
        if known[column] is Kind.TIME:
            tree = _times(tree, column, text)
    _check(tree, text, known)
    return tree


def moment_us(text: str) -> int | None:
    """Return UTC microseconds of an ISO 8601 date or time, taken as UTC where it names no zone; None if it is none."""
    try:
        moment = datetime.fromisoformat(text)
        if not text[:4].isdigit() or text[4:5] != "-":  # a bare 881250949 would be a date of the year 8812
            return None
        return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return None


def _kind(dtype: pl.DataType) -> Kind:
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return Kind.TEXT
    if isinstance(dtype, pl.Boolean):
        return Kind.TRUTH
    if isinstance(dtype, pl.Datetime | pl.Date):
        return Kind.TIME
    if dtype.is_numeric():
        return Kind.NUMBER
    if isinstance(dtype, pl.List):
        inner = dtype.inner() if isinstance(dtype.inner, type) else dtype.inner
        if _kind(inner) is Kind.TEXT:
            return Kind.TEXTS
        return (
            Kind.NUMBERS if inner.is_integer() else Kind.OTHER
        )  # floats are a vector, which holds no value to ask for
    return Kind.OTHER


def _check(tree: Node, text: str, known: Mapping[str, Kind]) -> None:
    if isinstance(tree, Not):
        _check(tree.part, text, known)
    elif isinstance(tree, Both):
        for part in tree.parts:
            _check(part, text, known)
    else:
        _check_test(tree, text, known)


def _check_test(test: Test, text: str, known: Mapping[str, Kind]) -> None:
    if test.column not in known:
        near = difflib.get_close_matches(test.column, known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise FilterError(text, test.at, f"no column {test.column[:80]!r}; {hint}columns: {', '.join(known) or 'none'}")
    kind = known[test.column]
    holds = f"{test.column} holds {kind.value}"
    if test.op == "null":
        return
    if test.op == "true":
        if kind is not Kind.TRUTH:
            raise FilterError(text, test.at, f"{holds}: expected an operator behind it, such as = or is null")
        return
    if test.op == "contains":
        if kind not in _LISTS:
            raise FilterError(text, test.op_at, f"{holds}, `contains` is for lists; use = or in")
        kind = _LISTS[kind]
    elif kind in _LISTS:
        raise FilterError(text, test.op_at, f"{holds}; use contains, not {test.op}")
    elif kind is Kind.OTHER:
        raise FilterError(text, test.op_at, f"{holds}; only `is null` can be asked")
    elif kind is Kind.TRUTH and test.op not in ("=", "!=", "in"):
        raise FilterError(text, test.op_at, f"{holds}; use = or !=, not {test.op}")
    for literal in test.values:
        if not fits(literal.value, kind):
            raise FilterError(text, literal.at, f"{holds}: expected {_EXAMPLE[kind]}, got {literal.value!r}")


_EXAMPLE = {
    Kind.TEXT: "a quoted text",
    Kind.NUMBER: "a number",
    Kind.TRUTH: "true or false",
    Kind.TIME: "a quoted ISO 8601 time such as '2024-05-01T18:30:00Z'",
}


def fits(value: object, kind: Kind) -> bool:
    """Return whether a single value is of a kind; times are UTC microseconds."""
    if kind is Kind.TEXT:
        return isinstance(value, str)
    if kind is Kind.TRUTH:
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    return isinstance(value, int) if kind is Kind.TIME else kind is Kind.NUMBER and isinstance(value, int | float)


def _times(tree: Node, column: str, text: str) -> Node:
    """Return the tree with this column's values as UTC microseconds."""
    if isinstance(tree, Not):
        return Not(_times(tree.part, column, text))
    if isinstance(tree, Both):
        return Both(tuple(_times(part, column, text) for part in tree.parts), tree.every)
    if tree.column != column:
        return tree
    values = tuple(Literal(_moment(literal, column, text), literal.at) for literal in tree.values)
    return Test(tree.column, tree.op, values, tree.at, tree.op_at)


def _moment(literal: Literal, column: str, text: str) -> Value:
    found = moment_us(literal.value) if isinstance(literal.value, str) else None
    if found is None:
        raise FilterError(
            text, literal.at, f"{column} holds times: expected {_EXAMPLE[Kind.TIME]}, got {literal.value!r}"
        )
    return found
