"""Rows on their way in: what a source hands to validation, one object a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from playbill.tables.schema import Column

# Rows in a batch, as sources cut them: 64k rows of ten columns are some 10 MB, and keep numpy's cost per call small.
BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """One file of raw rows for one table, with the user's own column names and types.

    Attributes:
        table: users, items, creatives, events or decisions.
        file: path as faults name it.
        schema: of the raw batches, the user's own names.
        batches: starts the file anew at each call; batches of any size, BATCH_ROWS is a good one.
        columns: contract and feature columns to write, in this order.
        names: raw column name by contract column name; a column missing here is not in this file.
        time_units: `s`, `ms`, `us` or `ns` by contract column name, where a time is stored as a number.
        separators: by contract column name, where a list of categories is stored as one text.
        num_rows: for the progress bar; None where it is not known before reading.
        row_column: raw column that holds each row's 0-based number in the file, where batches come in another order.
    """

    table: str
    file: str
    schema: pa.Schema
    batches: Callable[[], Iterator[pa.RecordBatch]]
    columns: tuple[Column, ...]
    names: Mapping[str, str]
    time_units: Mapping[str, str] = field(default_factory=dict)
    separators: Mapping[str, str] = field(default_factory=dict)
    num_rows: int | None = None
    row_column: str | None = None
