"""Are these the five tables? Looked at once, before any question is answered: types, times, empty cells, ids twice.

`playbill prepare` does all of this and more for tables that it writes. A folder from elsewhere may be measured too, and
a time in other units or an event that stands twice would change figures without a word.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from playbill.errors import MeasureError
from playbill.tables.folder import has_table
from playbill.tables.schema import CONTRACT, TABLES, Kind

_ONCE = {"users": "user_id", "items": "item_id", "events": "event_id", "decisions": "decision_id"}
_WANTED = {
    Kind.ID: "whole numbers or text (pandas writes fractions where one is missing: use Int64)",
    Kind.TEXT: "text",
    Kind.NUMBER: "numbers",
    Kind.FLAG: "true or false",
    Kind.TIME: "times in microseconds, UTC: timestamp[us, tz=UTC]",
    Kind.CATEGORIES: "lists of text",
}


def check_tables(tables: Path) -> None:
    """Do nothing where every table in the folder keeps to the contract.

    Raises:
        MeasureError: a file cannot be read, a column is of another type, an id is of another type than in another
            table, a needed cell is empty, an id stands twice, or a position is none; names table, column, how many
            rows and the first of them.
    """
    ids: dict[str, tuple[str, str]] = {}
    for name in TABLES:
        if not has_table(tables, name):
            continue
        file = tables / f"{name}.parquet"
        try:
            schema = pq.read_schema(file)
        except (pa.ArrowException, OSError) as error:
            raise MeasureError(f"{file} cannot be read ({error}); write it anew") from error
        for column in CONTRACT[name]:
            if column.name not in schema.names:
                continue
            found = schema.field(column.name).type
            if not _fits(found, column.kind):
                raise MeasureError(f"{name}.{column.name}: expected {_WANTED[column.kind]}, found {found}; {_HOW}")
            if column.kind is Kind.ID and column.name in ("user_id", "item_id", "creative_id", "decision_id"):
                sort = "whole numbers" if pa.types.is_integer(found) else "text"
                first = ids.setdefault(column.name, (name, sort))
                if first[1] != sort:
                    raise MeasureError(
                        f"{name}.{column.name} holds {sort} and {first[0]}.{column.name} {first[1]}: no row of the one "
                        f"could be found in the other; {_HOW}"
                    )
        _check_rows(pl.scan_parquet(file, glob=False), name, schema.names)


_HOW = "cast it, or let `playbill prepare source=parquet` write the tables"


def _check_rows(table: pl.LazyFrame, name: str, columns: list[str]) -> None:
    needed = [c.name for c in CONTRACT[name] if c.needed and c.name in columns]
    bad = {column: pl.col(column).is_null() for column in needed}
    if "position" in columns:
        place = pl.col("position")
        bad["position"] = place.is_not_null() & ((place.cast(pl.Float64) < 0) | (place != place.floor()) | _nan(place))
    counts = table.select(**{column: rows.sum() for column, rows in bad.items()}).collect().row(0, named=True)
    for column, count in counts.items():
        if count:
            rows = table.with_row_index("__row").filter(bad[column]).select("__row", column).head(5).collect()
            why = "empty, though every row needs one" if column in needed else "a place counts from 0 and is whole"
            raise MeasureError(f"{name}.{column}: {why}; {count:,} rows break this, first {_shown(rows)}")
    key = _ONCE.get(name)
    if key is None or key not in columns:
        return
    ordered = table.select(key).collect()[key].sort()  # several times as fast as hashing, where ids are many
    again = int((ordered == ordered.shift(1)).sum() or 0)
    if again:
        twice = table.with_row_index("__row").filter(pl.col(key).is_duplicated()).select("__row", key).head(5).collect()
        raise MeasureError(f"{name}.{key}: an id stands once; {again:,} rows repeat one, first {_shown(twice)}")


def _nan(column: pl.Expr) -> pl.Expr:
    return column.cast(pl.Float64).is_nan()


def _shown(rows: pl.DataFrame) -> str:
    return ", ".join(f"row {row}: {value!r}" for row, value in rows.iter_rows())


def _fits(found: pa.DataType, kind: Kind) -> bool:
    plain = found.value_type if pa.types.is_dictionary(found) else found
    text = pa.types.is_string(plain) or pa.types.is_large_string(plain)
    if kind is Kind.ID:
        return bool(text or pa.types.is_integer(plain))
    if kind is Kind.TEXT:
        return bool(text or pa.types.is_null(plain))
    if kind is Kind.NUMBER:
        return bool(pa.types.is_integer(plain) or pa.types.is_floating(plain) or pa.types.is_null(plain))
    if kind is Kind.FLAG:
        return bool(pa.types.is_boolean(plain) or pa.types.is_null(plain))
    if kind is Kind.TIME:
        return bool(pa.types.is_timestamp(plain) and plain.unit == "us" and plain.tz in ("UTC", "+00:00", "Etc/UTC"))
    return bool(pa.types.is_list(plain) or pa.types.is_large_list(plain))
