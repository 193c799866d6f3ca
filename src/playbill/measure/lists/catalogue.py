"""Items as rows: the index that lists, targets and vectors share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from scipy import sparse

from playbill.errors import MeasureError
from playbill.measure.slices import long_form
from playbill.measure.statement import refuse_rows
from playbill.tables.folder import has_table, read_table


@dataclass(slots=True)
class Catalogue:
    """The items table of a folder.

    Attributes:
        table: its rows in file order; item_id as text, and the columns that were asked for where the file has them.
        columns: all that the file has.
    """

    table: pl.DataFrame
    columns: list[str]

    def __len__(self) -> int:
        return len(self.table)

    def rows_of(self, item_id: pl.Series) -> np.ndarray:
        """Return [M] int64: the 0-based row of each item, -1 of one that is not in the catalogue."""
        known = pl.DataFrame({"item_id": self.table["item_id"], "row": np.arange(len(self.table))})
        asked = pl.DataFrame({"item_id": item_id.cast(pl.String)})
        found = asked.join(known, on="item_id", how="left", maintain_order="left")["row"]
        return found.fill_null(-1).to_numpy()

    def shown_rows(self, table: str, item_id: pl.Series) -> np.ndarray:
        """Return the rows of items that were shown.

        Raises:
            MeasureError: an item that is not in the catalogue: shares of the catalogue would mean nothing.
        """
        rows = self.rows_of(item_id)
        if (rows < 0).any():
            refuse_rows(table, "item", rows < 0, item_id.to_list(), "an item that was shown must be in the items table")
        return rows

    def category_vectors(self, column: str) -> sparse.csr_array:
        """Return [N, C] float64: 1 where an item has a category; a text column is one category an item.

        Raises:
            MeasureError: the items table has no such column; names those it has.
        """
        if column not in self.table.columns:
            raise MeasureError(f"items has no column {column!r}; it has: {', '.join(self.columns)}")
        long = long_form(self.table[column]).drop_nulls().unique()
        code = long["value"].rank("dense").to_numpy().astype(np.int64) - 1
        shape = (len(self.table), int(code.max(initial=-1)) + 1)
        return sparse.csr_array((np.ones(len(code)), (long["row"].to_numpy(), code)), shape=shape)


def open_catalogue(folder: Path, wanted: Sequence[str] = ()) -> Catalogue:
    """Return the catalogue of a table folder, with the wanted columns that its items table has.

    Raises:
        TableError: the folder has no items table.
        MeasureError: it is empty, or an item stands in it twice.
    """
    needs(folder, "items", "the catalogue is what every list is measured against")
    there = list(pq.read_schema(folder / "items.parquet").names)
    columns = dict.fromkeys(["item_id", *(name for name in wanted if name in there)])
    table = pl.DataFrame(pl.from_arrow(read_table(folder, "items", list(columns))))
    table = table.with_columns(pl.col("item_id").cast(pl.String))
    if not len(table):
        raise MeasureError(f"items in {folder} is empty, so no list can be measured against the catalogue")
    twice = table["item_id"].is_duplicated()
    refuse_rows("items", "item_id", twice.to_numpy(), table["item_id"].to_list(), "an item stands in one row")
    return Catalogue(table, there)


def needs(folder: Path, table: str, what: str) -> None:
    """Raise MeasureError where a folder lacks a table that a question rests on."""
    if not has_table(folder, table):
        raise MeasureError(f"{folder} has no table {table!r}: {what}")
