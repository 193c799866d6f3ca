"""The folder of validated tables: one parquet file a table, and `tables.json` that describes them all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from playbill.errors import TableError
from playbill.tables.files import sha256_file, write_atomic
from playbill.tables.schema import TABLES, Column, EventKind, TableFolder

MANIFEST = "tables.json"


def read_folder(path: Path | str, *, verify: bool = False) -> TableFolder:
    """Return what `tables.json` says about a folder of tables, after checking that its files are there.

    Args:
        path: the folder, such as `var/tables/ml-100k`.
        verify: also compare each file's sha256 (reads every byte).
    Raises:
        TableError: no such folder, unreadable manifest, or a table file that is missing or altered.
    """
    path = Path(path)
    manifest = path / MANIFEST
    if not manifest.is_file():
        raise TableError(f"no tables in {path}: {MANIFEST} is missing; write them with `playbill prepare`")
    try:
        folder = msgspec.json.decode(manifest.read_bytes(), type=TableFolder)
    except msgspec.DecodeError as error:
        raise TableError(f"{manifest} cannot be read ({error}); write it anew with `playbill prepare`") from error
    for name, digest in folder.files.items():
        file = path / name
        if not file.is_file():
            raise TableError(f"{file} is missing though {MANIFEST} lists it; run `playbill prepare force=true`")
        if verify and (got := sha256_file(file)) != digest:
            raise TableError(f"{file} was altered: sha256 {got}, expected {digest}; run `playbill prepare force=true`")
    return folder


def read_table(path: Path | str, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return one table of a folder, in file order.

    Args:
        path: the folder, such as `var/tables/ml-100k`.
        name: users, items, creatives, events or decisions.
        columns: only these, in this order; None reads all.
    Raises:
        TableError: the folder has no such table or column, or the file cannot be read.
    """
    file = Path(path) / f"{name}.parquet"
    if not file.is_file():
        there = sorted(f.stem for f in Path(path).glob("*.parquet"))
        raise TableError(f"no table {name!r} in {path}; there are: {', '.join(there) or 'none'}")
    try:
        known = pq.read_schema(file).names
        missing = [c for c in columns or () if c not in known]
        if missing:
            raise TableError(f"{file} has no column {', '.join(missing)}; it has: {', '.join(known)}")
        # one file, never a dataset: a folder name with "=" in it must not become a partition column
        return pq.ParquetFile(file).read(columns=None if columns is None else list(columns))
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{file} cannot be read ({error}); run `playbill prepare force=true`") from error


def has_table(path: Path | str, name: str) -> bool:
    """Return whether the folder holds this table."""
    return (Path(path) / f"{name}.parquet").is_file()


def describe_folder(
    path: Path | str,
    *,
    source: str,
    columns: Mapping[str, Sequence[Column]],
    events: Sequence[EventKind] = (),
    licence: str = "",
) -> TableFolder:
    """Write `tables.json` for the table files that stand in `path`, and return it."""
    path = Path(path)
    names = [name for name in TABLES if has_table(path, name)]
    files = {f"{name}.parquet": sha256_file(path / f"{name}.parquet") for name in names}
    # the fingerprint covers the meaning as well as the bytes: which columns are protected changes what a model may see
    digest = hashlib.sha256()
    for name, sha in sorted(files.items()):
        digest.update(f"{name} {sha}\n".encode())
    digest.update(msgspec.json.encode({name: list(columns[name]) for name in names}))
    digest.update(msgspec.json.encode(list(events)))
    folder = TableFolder(
        source=source,
        fingerprint=digest.hexdigest(),
        rows={name: pq.ParquetFile(path / f"{name}.parquet").metadata.num_rows for name in names},
        files=files,
        columns={name: list(columns[name]) for name in names},
        events=list(events),
        licence=licence,
    )
    write_atomic(path / MANIFEST, msgspec.json.format(msgspec.json.encode(folder), indent=2))
    return folder


def write_folder(
    path: Path | str,
    tables: Mapping[str, pa.Table],
    *,
    source: str,
    columns: Mapping[str, Sequence[Column]],
    events: Sequence[EventKind] = (),
    licence: str = "",
) -> TableFolder:
    """Write whole tables into `path` (created where absent) with their manifest; for folders that fit in memory.

    Args:
        tables: Arrow table by name, already valid: `validate.py` is the road for rows that come from outside.
        columns: every column of every table, feature columns included.
    Raises:
        TableError: a table's columns differ from those declared for it.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        declared = [column.name for column in columns.get(name, ())]
        if declared != table.column_names:
            raise TableError(f"table {name}: columns {table.column_names}, declared {declared}; declare each, in order")
        pq.write_table(table, path / f"{name}.parquet", compression="zstd")
    return describe_folder(path, source=source, columns=columns, events=events, licence=licence)
