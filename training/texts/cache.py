"""Vectors of texts that were embedded once: a folder of parquet parts, each written whole or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from playbill.errors import TableError
from playbill.tables.files import write_atomic
from playbill.tables.vectors import fixed_size, rows_of

KEY_BYTES = 16


def text_key(text: str) -> bytes:
    """Return what a text is known by."""
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).digest()


def read_vectors(folder: Path) -> dict[bytes, np.ndarray]:
    """Return every vector kept in a folder, [width] float32 by text key.

    Raises:
        TableError: a part cannot be read; names it.
    """
    found: dict[bytes, np.ndarray] = {}
    for path in sorted(folder.glob("part-*.parquet")):
        try:
            table = pq.ParquetFile(path).read()
            rows, _ = rows_of(table["vector"])
            found |= dict(zip(table["key"].to_pylist(), rows, strict=True))
        except (pa.ArrowException, OSError, KeyError, AttributeError) as error:
            raise TableError(f"{path} cannot be read ({error}); delete it, its texts are embedded again") from error
    return found


def add_vectors(folder: Path, keys: list[bytes], rows: np.ndarray) -> None:
    """Write one more part. Args: keys [n], rows [n, width] float32."""
    table = pa.table(
        {"key": pa.array(keys, pa.binary(KEY_BYTES)), "vector": fixed_size(rows, np.ones(len(rows), bool))}
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    name = hashlib.blake2b(b"".join(keys), digest_size=8).hexdigest()
    write_atomic(folder / f"part-{name}.parquet", sink.getvalue().to_pybytes())
