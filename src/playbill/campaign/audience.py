"""Whom a campaign is about: the people of a file or of the users table, each once, and the rows that are nobody.

A row of a file that cannot be somebody (no id, an id that is there before, one of another kind, one that the users
table does not know) is set aside with its number and its reason; the others go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from playbill.campaign.settings import Audience
from playbill.errors import ConfigError, FilterError, TableError
from playbill.filters.check import kinds, parse
from playbill.filters.mask import mask
from playbill.filters.read import columns
from playbill.tables.folder import has_table, read_folder
from playbill.tables.schema import CONSENT_PREFIX, Provenance

ASIDE = {"row": pl.Int64, "user_id": pl.String, "reason": pl.String}


@dataclass(frozen=True, slots=True)
class People:
    """Recipients.

    Attributes:
        user_ids: int64 or string, each once.
        aside: rows of the file that are none: row (1-based, the header not counted), user_id (as it stood there),
            reason.
        given: user_id, items (list) of those for whom the file lists some; None where it names none.
    """

    user_ids: pl.Series
    aside: pl.DataFrame
    given: pl.DataFrame | None = None


def read_people(tables: Path, audience: Audience) -> People:
    """Return the recipients of a campaign, in the order of the file, or of the users table.

    Raises:
        ConfigError: a filter that cannot be understood, or that asks what nobody may be chosen by; names the column.
        TableError: no users table, no such file or column, or nobody is left.
    """
    if not has_table(tables, "users"):
        raise TableError(f"{tables} has no table of users: whom one may write to stands there")
    if audience.file is None:
        return People(_of_table(tables, audience.filter), pl.DataFrame(schema=ASIDE))
    file = Path(audience.file)
    known = pl.scan_parquet(tables / "users.parquet").select("user_id").collect()["user_id"]
    given = _read(file)
    lists = None if audience.items is None else _lists(file, audience.items)
    if not (given.dtype.is_integer() or given.dtype.is_float() or given.dtype in (pl.String, pl.Null)):
        raise TableError(f"audience.file: {file}: user_id is {given.dtype}; expected whole numbers or text")
    ids = given.cast(known.dtype, strict=False)
    text = given.cast(pl.String, strict=False)
    if known.dtype == pl.String and given.dtype != pl.String:
        ids = pl.Series("user_id", [None] * len(given), dtype=pl.String)  # a number is no text id
    elif known.dtype != pl.String and given.dtype.is_float():
        ids = pl.Series(
            "user_id", [int(v) if v is not None and abs(v) < 2**53 and v == int(v) else None for v in given]
        )
        ids = ids.cast(known.dtype, strict=False)
    rows = pl.DataFrame({"user_id": ids, "text": text}).with_row_index("row", 1)
    first = pl.col("user_id").is_first_distinct()
    named = rows.with_columns(
        reason=pl.when(pl.col("text").is_null() | (pl.col("text").str.strip_chars() == ""))
        .then(pl.lit("no user_id"))
        .when(pl.col("user_id").is_null())
        .then(pl.lit(f"expected user_id as {'text' if known.dtype == pl.String else 'an integer'}"))
        .when(~pl.col("user_id").is_in(known.implode()))
        .then(pl.lit("not in the users table"))
        .when(~first)
        .then(pl.lit("is there before"))
        .otherwise(pl.lit(""))
    )
    fine = named["reason"] == ""
    good = named.filter(fine)["user_id"]
    if not len(good):
        they = f"; they are {_worst(named)}" if len(rows) else ""
        raise TableError(f"audience.file: {file}: nobody is left of {len(rows)} rows{they}")
    aside = named.filter(pl.col("reason") != "").select("row", "text", "reason").rename({"text": "user_id"})
    theirs = None if lists is None else pl.DataFrame({"user_id": good, "items": lists.filter(fine)})
    given_to = None if theirs is None else theirs.filter(pl.col("items").list.len() > 0)
    return People(good, aside.cast(ASIDE), given_to)  # type: ignore[arg-type]  # a schema


def _worst(named: pl.DataFrame) -> str:
    counts = named.group_by("reason").len().sort("len", descending=True)
    return ", ".join(f"{n} times {reason!r}" for reason, n in counts.iter_rows())


def _read(file: Path) -> pl.Series:
    try:
        if file.suffix == ".csv":
            # as text: a column of numbers with one word in it has one bad row, not a bad file
            return pl.read_csv(file, columns=["user_id"], infer_schema=False)["user_id"]
        found = pl.read_parquet(file, columns=["user_id"])["user_id"]
        return found.cast(pl.String) if found.dtype in (pl.Categorical, pl.Enum) else found
    except (OSError, pl.exceptions.PolarsError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise TableError(f"audience.file: {file}: expected parquet or csv with a column user_id: {first}") from error


def _lists(file: Path, column: str) -> pl.Series:
    """Return each row's items, as a list that has none where nothing is said.

    Raises:
        ConfigError: no such column, or it holds no ids.
    """
    if file.suffix == ".csv":
        raise ConfigError(f"audience.items: {file} is csv, which holds no lists; give parquet")
    there = pl.scan_parquet(file).collect_schema()
    if column not in there:
        raise ConfigError(f"audience.items: {file} has no column {column!r}; it has {', '.join(there.names())}")
    found = pl.read_parquet(file, columns=[column])[column]
    if not isinstance(found.dtype, pl.List):
        found = found.to_frame().select(pl.concat_list(column))[column]
    if not (found.dtype.inner.is_integer() or found.dtype.inner == pl.String):  # type: ignore[attr-defined]  # a list
        raise ConfigError(
            f"audience.items: column {column!r} of {file} holds {found.dtype}; expected lists of item ids"
        )
    return found.list.drop_nulls().fill_null([])


def _of_table(tables: Path, condition: str | None) -> pl.Series:
    if condition is None:
        return pl.read_parquet(tables / "users.parquet", columns=["user_id"])["user_id"]
    known = kinds(pl.scan_parquet(tables / "users.parquet").collect_schema())
    try:
        tree = parse(condition, known)
    except FilterError as error:
        raise ConfigError(f"audience.filter: {error}") from error
    check_columns(tables, sorted(columns(tree)), "audience.filter")
    users = pl.read_parquet(tables / "users.parquet", columns=["user_id", *(columns(tree) - {"user_id"})])
    found = users["user_id"].filter(pl.Series(mask(tree, users, known)))
    if not len(found):
        raise TableError(f"audience.filter: nobody in {tables / 'users.parquet'} meets {condition!r}")
    return found


def check_declared(tables: Path, names: list[str], where: str) -> None:
    """Do nothing where these columns of the users table hold what people said of themselves.

    Raises:
        ConfigError: one is not there, is protected, or was observed, inferred or bought.
    """
    known = {column.name: column for column in read_folder(tables).columns.get("users", [])}
    for name in names:
        if name not in known:
            raise ConfigError(f"{where}: users has no column {name!r}; it has {', '.join(known)}")
        column = known[name]
        if column.protected or column.provenance is not Provenance.DECLARED:
            mark = "protected" if column.protected else column.provenance.value
            raise ConfigError(f"{where}: column {name!r} is {mark}; only what people declared themselves counts here")


def check_columns(tables: Path, names: list[str], where: str) -> None:
    """Do nothing where people may be told apart by these columns of the users table.

    Raises:
        ConfigError: one is protected or sensitive; such columns serve audits.
    """
    declared = {column.name: column for column in read_folder(tables).columns.get("users", [])}
    for name in names:
        column = declared.get(name)
        if column is not None and (column.protected or column.sensitive):
            mark = "protected" if column.protected else "sensitive"
            raise ConfigError(f"{where}: column {name!r} is {mark}: it serves audits, and nobody is chosen by it")
        if name.startswith(CONSENT_PREFIX):
            raise ConfigError(f"{where}: {name!r} is consent, which every campaign heeds anyway; leave it out")
