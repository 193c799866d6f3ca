"""Who a row belongs to: the person, or the session where nobody had signed in."""

from __future__ import annotations

import polars as pl
import pyarrow.parquet as pq

from playbill.errors import MeasureError
from playbill.measure.scan import ROW

WHO = "who"
_UNITS = {"u": "people", "s": "sessions", "r": "requests"}


def who_columns(path: str) -> list[str]:
    """Return those of user_id and session_id that a parquet file has."""
    names = pq.read_schema(path).names
    return [name for name in ("user_id", "session_id") if name in names]


def with_who(rows: pl.DataFrame, table: str) -> pl.DataFrame:
    """Return the rows with a text column `who`: `u:<user_id>`, or `s:<session_id>` where there is no user.

    Args:
        rows: with `ROW` where they are a part of the table.
        table: its name.
    Raises:
        MeasureError: rows that belong to nobody; names table, count and first rows.
    """
    there = [name for name in ("user_id", "session_id") if name in rows.columns]
    if not there:
        raise MeasureError(f"{table} has neither user_id nor session_id, so nobody's rows can be told apart")
    names = [pl.lit(f"{name[0]}:") + pl.col(name).cast(pl.String) for name in there]
    rows = rows.with_columns(pl.coalesce(names).alias(WHO))
    nobody = rows[WHO].is_null()
    if nobody.any():
        number = rows[ROW].filter(nobody) if ROW in rows.columns else nobody.arg_true()
        first = ", ".join(f"row {i}" for i in number[:5].to_list())
        raise MeasureError(
            f"{table}.user_id: a row belongs to a person or a session; {nobody.sum():,} of {len(rows):,} rows have "
            f"neither, first {first}"
        )
    return rows


def units(who: pl.Series) -> dict[str, int]:
    """Return how many different people, sessions and requests are among the values of `who`, without those that are 0.

    `r:<request_id>` is for callers that tell apart by request what bears no other name.
    """
    first = who.unique().str.slice(0, 1)
    return {name: number for letter, name in _UNITS.items() if (number := int((first == letter).sum()))}


def unit_warnings(number: dict[str, int]) -> list[str]:
    """Return what speaks against counting each of `units` once; nothing where all are people."""
    if set(number) <= {"people"}:
        return []
    said = " and ".join(f"{n:,} {name}" for name, n in number.items())
    return [
        f"counted are {said}: who comes back without signing in counts again, so intervals are narrower than they "
        "would be over people"
    ]
