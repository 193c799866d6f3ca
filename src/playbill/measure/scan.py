"""Looking into one table of a folder without reading it whole, and refusing rows by their number in the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from playbill.errors import MeasureError, TableError
from playbill.tables.folder import has_table

ROW = "__row"


def columns_of(tables: Path, name: str) -> list[str]:
    """Return the names of a table's columns; none where the folder does not hold the table."""
    return _open(tables, name).collect_schema().names() if has_table(tables, name) else []


def scan(tables: Path, name: str, needed: Sequence[str]) -> pl.LazyFrame:
    """Return a table to filter and collect, with the file's row numbers in the column `ROW`.

    Raises:
        TableError: no such table or column.
    """
    if not has_table(tables, name):
        there = sorted(f.stem for f in tables.glob("*.parquet"))
        raise TableError(f"no table {name!r} in {tables}; there are: {', '.join(there) or 'none'}")
    known = columns_of(tables, name)
    missing = [column for column in needed if column not in known]
    if missing:
        raise TableError(f"{tables}/{name}.parquet has no column {', '.join(missing)}; it has: {', '.join(known)}")
    return _open(tables, name).with_row_index(ROW)


def refuse(frame: pl.DataFrame, bad: pl.Expr, where: str, column: str, why: str) -> None:
    """Raise MeasureError where rows are bad, naming how many and the first of them; does nothing without any.

    Args:
        frame: rows with `ROW`.
        where: table and column, such as "decisions.user_id".
        column: whose values are shown.
        why: what was expected, and what to do.
    """
    rows = frame.filter(bad)
    if len(rows):
        first = ", ".join(f"row {row}: {_shown(value)}" for row, value in rows.select(ROW, column).head(5).iter_rows())
        raise MeasureError(f"{where}: {why}; {len(rows):,} of {len(frame):,} rows break this, first {first}")


def _open(tables: Path, name: str) -> pl.LazyFrame:
    # a folder name with "=" in it must not become a partition column
    return pl.scan_parquet(tables / f"{name}.parquet", hive_partitioning=False)


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)
