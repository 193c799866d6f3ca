"""Whom a batch scores, and who asks in a load test: the user ids of a parquet file, or of the tables."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from playbill.errors import TableError
from playbill.tables.folder import has_table, read_table


def read_audience(home: Path | str, tables: str, audience: str | None) -> pa.Array:
    """Return the ids of the audience, [N] int64 or string, each once, in the order of the file.

    Args:
        home: folder of everything Playbill writes.
        tables: name of a source whose users are meant where `audience` is None, or whoever did something.
        audience: parquet file with a column `user_id`.
    Raises:
        TableError: no such file or column, ids of another type, or nobody in it.
    """
    if audience is None:
        where = Path(home) / "tables" / tables
        # with no table of users, everybody who did something
        ids = read_table(where, "users" if has_table(where, "users") else "events", ["user_id"])["user_id"]
    else:
        where = Path(audience)
        try:
            ids = pq.read_table(where, columns=["user_id"])["user_id"]
        except (OSError, pa.ArrowInvalid, KeyError) as error:
            raise TableError(f"audience {where}: expected a parquet file with a column user_id: {error}") from error
    if pa.types.is_integer(ids.type):
        ids = ids.cast(pa.int64())
    elif pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type):
        ids = ids.cast(pa.string())
    else:
        raise TableError(f"{where}: expected user_id as integers or text, got {ids.type}")
    ids = ids.combine_chunks().drop_null().unique()
    if not len(ids):
        raise TableError(f"{where}: nobody is in it")
    return ids
