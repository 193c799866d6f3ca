"""Vocabularies: value <-> row, with row 0 for whatever is not known. The one place where ids become indices."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from playbill.errors import FeatureError
from playbill.features.column import Column
from playbill.tables.files import write_atomic
from playbill.tables.vectors import fixed_size, rows_of

# Arrow hashes all known values anew in each look-up (7 ns each); up to these many values the dict is quicker (measured)
_SMALL, _SMALL_SHARE = 2048, 6


class Vocabulary:
    """The known values of one feature, in order; value number i (0-based) has index i + 1, anything else index 0.

    Args:
        values: unique, all int or all str.
        vectors: [N, width] float32, what each value adds to the vector of a text (see `text.py`); None for all else.
            Not hashed: they follow from the texts, up to the last bits of a computation.
    Raises:
        FeatureError: duplicates or mixed types.
    """

    __slots__ = ("_arrow", "_index", "_type", "_values", "vectors")

    def __init__(self, values: Iterable[int | str] | pa.Array, vectors: np.ndarray | None = None) -> None:
        self.vectors = vectors
        self._values: list[Any] | None = None
        self._index: dict[Any, int] | None = None
        if isinstance(values, (pa.Array, pa.ChunkedArray)):
            # ten million values as Python objects take 1.5 GB, so they are made when somebody asks for them
            self._arrow = _plain(values)
            self._type: type = int if pa.types.is_int64(self._arrow.type) else str
            distinct = pc.count_distinct(self._arrow, mode="all").as_py()
        else:
            self._values = list(values)
            kinds = {type(v) for v in self._values}
            if not kinds <= {int} and not kinds <= {str}:
                raise FeatureError(f"a vocabulary holds all int or all str, got {sorted(k.__name__ for k in kinds)}")
            self._type = next(iter(kinds), str)
            distinct = len(self._by_value())
            self._arrow = pa.array(self._values, pa.int64() if kinds == {int} else pa.string())
        if distinct != len(self):
            raise FeatureError(f"{len(self) - distinct} values stand twice in a vocabulary")

    def __len__(self) -> int:
        return len(self._arrow) if self._values is None else len(self._values)

    @property
    def values(self) -> list[Any]:
        """All values, in order."""
        if self._values is None:
            self._values = self._arrow.to_pylist()
        return self._values

    @property
    def arrow(self) -> pa.Array:
        """All values, in order; int64 or string."""
        return self._arrow

    def _by_value(self) -> dict[Any, int]:
        if self._index is None:
            self._index = {v: i + 1 for i, v in enumerate(self.values)}
        return self._index

    @property
    def size(self) -> int:
        """Rows of an embedding table over this vocabulary: known values + 1."""
        return len(self) + 1

    @property
    def id_type(self) -> str:
        return "int64" if pa.types.is_int64(self._arrow.type) else "string"

    def index(self, value: Any) -> int:
        """Return the row of one value, 0 when unknown; a value of another type (True, 1.0, a list) is unknown."""
        if isinstance(value, np.generic):
            value = value.item()
        return self._by_value().get(value, 0) if type(value) is self._type else 0

    def indices(self, values: Sequence[Any] | np.ndarray | pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Return the rows of many values, [N] int64, 0 where unknown or null.

        A list may hold anything, as it may come from a request; a typed array of the wrong type is a mistake of ours.

        Raises:
            FeatureError: a typed array whose values can never be in this vocabulary.
        """
        array = self.typed(values)
        if array is None:
            get, kind = self._by_value().get, self._type  # a call a value would be half the time of a small request
            return np.asarray([get(v, 0) if type(v) is kind else self.index(v) for v in values], np.int64)
        if not len(array):
            return np.zeros(0, np.int64)
        found = pc.fill_null(pc.index_in(array, value_set=self._arrow, skip_nulls=True), -1)
        return np.asarray(found, dtype=np.int64) + 1

    def typed(self, values: Sequence[Any] | np.ndarray | pa.Array | pa.ChunkedArray) -> Any:
        """Return the values in the vocabulary's Arrow type, or None where the dict is the better or the only way.

        Raises:
            FeatureError: see `indices`.
        """
        if isinstance(values, np.ndarray) and values.dtype.kind in "iufUb":
            values = pa.array(values)
        if isinstance(values, (pa.Array, pa.ChunkedArray)):
            kind = values.type
            if kind == self._arrow.type or pa.types.is_null(kind):
                return values.cast(self._arrow.type)
            # no cast between numbers and text: "007" would become 7 here and stay unknown in `index`
            if pa.types.is_integer(kind) and self._type is int or pa.types.is_large_string(kind) and self._type is str:
                return values.cast(self._arrow.type)
            raise FeatureError(f"values of type {kind} looked up among {self._arrow.type}")
        few = len(values) < max(_SMALL, len(self) // _SMALL_SHARE)
        if few or not set(map(type, values)) <= {self._type, type(None)}:
            return None
        try:
            return pa.array(values, self._arrow.type)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            return None  # an integer beyond 64 bits, a lone surrogate: unknown, and the dict says so

    def hash(self) -> str:
        """Return sha256 over type and values, in order."""
        digest = hashlib.sha256(self.id_type.encode())
        for value in Column(self._arrow):
            text = str(value).encode()
            digest.update(len(text).to_bytes(8, "little") + text)
        return digest.hexdigest()


def _plain(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return values as one int64 or string array, the types of ids and of texts."""
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if not len(array):
        return pa.array([], pa.string())  # what an empty list gives
    if pa.types.is_integer(array.type):
        array = array.cast(pa.int64())
    elif pa.types.is_null(array.type) or pa.types.is_large_string(array.type):
        array = array.cast(pa.string())
    if not (pa.types.is_int64(array.type) or pa.types.is_string(array.type)) or array.null_count:
        raise FeatureError(f"a vocabulary holds all int or all str, got {array.type} with {array.null_count} nulls")
    return array


def write_vocabularies(vocabularies: dict[str, Vocabulary], folder: Path) -> None:
    """Write one parquet file a vocabulary, `<name>.parquet` with the column `value`, and `vector` where it has them."""
    for name, vocabulary in vocabularies.items():
        sink = pa.BufferOutputStream()
        table = pa.table({"value": vocabulary._arrow})
        if vocabulary.vectors is not None:
            table = table.append_column("vector", fixed_size(vocabulary.vectors, np.ones(len(vocabulary), np.bool_)))
        pq.write_table(table, sink)
        write_atomic(folder / f"{name}.parquet", sink.getvalue().to_pybytes())


def read_vocabularies(folder: Path, hashes: dict[str, str]) -> dict[str, Vocabulary]:
    """Return the vocabularies that a spec names, each checked against its hash.

    Args:
        folder: where `<name>.parquet` files are.
        hashes: `FeatureSpec.vocabularies`.
    Raises:
        FeatureError: a file is missing or unreadable, or its values hash differently; names the vocabulary.
    """
    found: dict[str, Vocabulary] = {}
    for name, expected in hashes.items():
        path = folder / f"{name}.parquet"
        if not path.is_file():
            raise FeatureError(f"vocabulary {name!r} is missing: no {path}")
        try:
            # as a list: who reads a bundle asks for single values, and the first request should not wait for the dict
            table = pq.ParquetFile(path).read()
            vectors = rows_of(table["vector"])[0] if "vector" in table.column_names else None
            vocabulary = Vocabulary(table["value"].to_pylist(), vectors)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise FeatureError(f"vocabulary {name!r} in {path} cannot be read: {error}") from error
        if vocabulary.hash() != expected:
            raise FeatureError(
                f"vocabulary {name!r} hashes to {vocabulary.hash()[:12]}, the feature spec says {expected[:12]}; "
                "it belongs to another training run: export again"
            )
        found[name] = vocabulary
    return found
