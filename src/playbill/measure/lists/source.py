"""Where lists come from: the decisions log, or parquet files such as those of `playbill batch`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from playbill.errors import MeasureError
from playbill.measure.lists.catalogue import Catalogue, needs
from playbill.measure.people import WHO, with_who
from playbill.measure.ranking import NO_ITEM
from playbill.measure.statement import refuse_rows
from playbill.tables.folder import read_table


@dataclass(slots=True)
class Lists:
    """Ranked lists of one source.

    Attributes:
        name: of the source, as it was asked for.
        who: [L] text, whose each list is (see `people.py`).
        at: [L] int64, when, microseconds since 1970.
        items: [L, K] int64 item_index 1..N, best first, padded at the end with -1.
        key: [L] text, the request of each list, or its person where the source names no requests.
    """

    name: str
    who: pl.Series
    at: np.ndarray
    items: np.ndarray
    key: pl.Series

    def take(self, rows: np.ndarray) -> Lists:
        """Return some of the lists, in the order given ([M] int64 rows)."""
        return Lists(self.name, self.who[rows], self.at[rows], self.items[rows], self.key[rows])


def open_lists(source: str, tables: Path, catalogue: Catalogue, longest: int, split_us: int | None) -> Lists:
    """Return the lists of a source, as wide as their longest, cut after the first `longest` items.

    Args:
        source: `decisions`, `decisions:COLUMN=VALUE`, or a path of a parquet file or of a folder of them.
        tables: the table folder.
        catalogue: of that folder; N items.
        longest: columns of the result at most.
        split_us: time of all lists from files; None reads their column `at`.
    Raises:
        MeasureError: nothing there, columns missing, an item twice in a list, a position twice or missing, an item
            that is not in the catalogue; names column, count and first rows.
    """
    kind, _, only = source.partition(":")
    rows = _decisions(tables, only) if kind == "decisions" else _file(Path(source), split_us)
    name = "decisions" if kind == "decisions" else source
    if not len(rows):
        raise MeasureError(f"{source}: no list is in it")
    item = catalogue.shown_rows(name, rows["item"]) + 1
    rows = rows.with_columns(
        pl.Series("item", item),
        pl.col("list").cast(pl.String).alias("key"),
        pl.col("list").rank("dense").cast(pl.Int64) - 1,
    )
    for column, why in (("item", "an item stands once in a list"), ("position", "a place holds one item")):
        twice = rows.select(pl.struct("list", column).is_duplicated()).to_series().to_numpy()
        if twice.any():
            refuse_rows(name, column, twice, rows[column].to_list(), why)
    rows = rows.sort("list", "position")
    of = rows["list"].to_numpy()
    first = np.flatnonzero(np.diff(of, prepend=-1))
    within = np.arange(len(of)) - first[of]
    kept = within < longest
    items = np.full((len(first), int(within[kept].max()) + 1), NO_ITEM, np.int64)
    items[of[kept], within[kept]] = rows["item"].to_numpy()[kept]
    at = rows["at"].to_numpy()
    owners = rows.group_by("list").agg(pl.col(WHO).n_unique())[WHO].to_numpy()
    if (owners > 1).any():
        raise MeasureError(f"{name}: a list belongs to one person; {(owners > 1).sum():,} have several, see request_id")
    return Lists(source, rows[WHO][first], at[first], items, rows["key"][first])


def _decisions(tables: Path, only: str) -> pl.DataFrame:
    needs(tables, "decisions", "lists come from it unless question.lists names a parquet file")
    there = list(pq.read_schema(tables / "decisions.parquet").names)
    column, equals, value = only.partition("=")
    if only and (not equals or column not in there):
        raise MeasureError(f"decisions:{only} is not decisions:COLUMN=VALUE with a column of: {', '.join(there)}")
    if "position" not in there:
        raise MeasureError("decisions has no column position, so the order of its lists is not known")
    wanted = ("request_id", "kind", "chosen", "at", "user_id", "session_id", "position", column)
    rows = pl.DataFrame(pl.from_arrow(read_table(tables, "decisions", [c for c in there if c in wanted])))
    rows = rows.filter(pl.col("kind") == "item")
    if only:
        values = rows[column].cast(pl.String)
        found = sorted(values.drop_nulls().unique().to_list())
        rows = rows.filter(values == value)
        if not len(rows):
            raise MeasureError(
                f"decisions.{column} is never {value!r} where kind is item; it is: {', '.join(found[:20])}"
            )
    _numbered(rows, "decisions")
    rows = with_who(rows, "decisions").with_columns(pl.col("at").cast(pl.Int64).min().over("request_id"))
    return rows.select(WHO, "at", "position", list="request_id", item="chosen")


def _file(path: Path, split_us: int | None) -> pl.DataFrame:
    """Return rows (who, at, position, list, item) of a file in the long form or in that of `playbill batch`."""
    files = sorted(p for p in path.glob("*.parquet") if p.name[0] not in "._") if path.is_dir() else [path]
    if not files or not path.exists():
        raise MeasureError(f"no lists at {path}: name a parquet file, or a folder with some such as <home>/batch/NAME")
    try:
        there = pq.read_schema(files[0]).names
        wanted = ["user_id", "session_id", "request_id", "item_ids", "item_id", "position", "at"]
        columns = [c for c in wanted if c in there]
        # one by one: a dataset would take a folder name with "=" in it for a column
        table = pa.concat_tables([pq.ParquetFile(f).read(columns=columns) for f in files])
    except (OSError, pa.ArrowException) as error:
        raise MeasureError(f"{path} cannot be read as parquet: {error}") from error
    rows = pl.DataFrame(pl.from_arrow(table))
    if split_us is not None:
        rows = rows.with_columns(pl.lit(split_us).alias("at"))  # a batch may have been made for another moment
    elif "at" in rows.columns:
        time = rows["at"]
        refuse_rows(str(path), "at", time.is_null().to_numpy(), time.to_list(), "every list has its time")
        rows = rows.with_columns(time.cast(pl.Datetime("us")).cast(pl.Int64).alias("at"))
    else:
        raise MeasureError(f"{path} has no column at, so question.split must say when its lists were made")
    rows = with_who(rows, str(path))
    key = "request_id" if "request_id" in rows.columns else WHO
    if "item_ids" in rows.columns:
        if isinstance(rows["item_ids"].dtype, pl.Array):  # all lists of one length
            rows = rows.with_columns(pl.col("item_ids").arr.to_list())
        if not isinstance(rows["item_ids"].dtype, pl.List):
            raise MeasureError(
                f"{path}.item_ids holds one {rows['item_ids'].dtype} a row and must hold a list of items; name the "
                "column item_id, with position beside it, where each row is one item"
            )
        twice = rows[key].is_duplicated().to_numpy()
        refuse_rows(str(path), key, twice, rows[key].to_list() if twice.any() else (), "a list stands in one row")
        lists = rows["item_ids"].to_arrow()
        counts = rows["item_ids"].list.len().fill_null(0).to_numpy().astype(np.int64)
        of = np.repeat(np.arange(len(rows)), counts)
        position = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
        item = pl.Series("item", pl.from_arrow(lists.flatten()))
        whose = rows.select(WHO, "at", list=pl.col(key))[of]
        return whose.with_columns(item, pl.Series("position", position))
    missing = [c for c in ("item_id", "position") if c not in rows.columns]
    if missing:
        raise MeasureError(
            f"{path} has no column {', '.join(missing)}; lists are user_id and item_ids (a list), or user_id, item_id "
            f"and position; it has: {', '.join(there)}"
        )
    _numbered(rows, str(path))
    return rows.select(WHO, "at", "position", list=key, item="item_id")


def _numbered(rows: pl.DataFrame, table: str) -> None:
    position = rows["position"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    bad = ~(position >= 0)
    if bad.any():
        refuse_rows(table, "position", bad, rows["position"].to_list(), "an item in a list has a position >= 0")
