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

_SMALL = 256  # below this many values a dict lookup beats the set-up of Arrow's


class Vocabulary:
    """The known values of one feature, in order; value number i (0-based) has index i + 1, anything else index 0.

    Args:
        values: unique, all int or all str.
    Raises:
        FeatureError: duplicates or mixed types.
    """

    __slots__ = ("_arrow", "_index", "values")

    def __init__(self, values: Iterable[int | str]) -> None:
        self.values: list[Any] = list(values)
        kinds = {type(v) for v in self.values}
        if not kinds <= {int} and not kinds <= {str}:
            raise FeatureError(f"a vocabulary holds all int or all str, got {sorted(k.__name__ for k in kinds)}")
        self._index: dict[Any, int] = {v: i + 1 for i, v in enumerate(self.values)}
        if len(self._index) != len(self.values):
            raise FeatureError(f"{len(self.values) - len(self._index)} values stand twice in a vocabulary")
        self._arrow = pa.array(self.values, pa.int64() if kinds == {int} else pa.string())

    def __len__(self) -> int:
        return len(self.values)

    @property
    def size(self) -> int:
        """Rows of an embedding table over this vocabulary: known values + 1."""
        return len(self.values) + 1

    @property
    def id_type(self) -> str:
        return "int64" if pa.types.is_int64(self._arrow.type) else "string"

    def index(self, value: Any) -> int:
        """Return the row of one value, 0 when unknown. An unhashable value is unknown, not an error."""
        try:
            return self._index.get(value, 0)
        except TypeError:
            return 0

    def indices(self, values: Sequence[Any] | np.ndarray | pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Return the rows of many values, [N] int64, 0 where unknown or null."""
        if isinstance(values, (pa.Array, pa.ChunkedArray)) or len(values) >= _SMALL:
            array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values)
            if not len(array):
                return np.zeros(0, np.int64)
            if array.type != self._arrow.type:
                try:
                    array = array.cast(self._arrow.type)
                except pa.ArrowInvalid as error:
                    raise FeatureError(f"values of type {array.type} looked up among {self._arrow.type}") from error
            found = pc.fill_null(pc.index_in(array, value_set=self._arrow, skip_nulls=True), -1)
            return np.asarray(found, dtype=np.int64) + 1
        return np.fromiter((self.index(v) for v in values), np.int64, len(values))

    def hash(self) -> str:
        """Return sha256 over type and values, in order."""
        digest = hashlib.sha256(self.id_type.encode())
        for value in self.values:
            text = str(value).encode()
            digest.update(len(text).to_bytes(8, "little") + text)
        return digest.hexdigest()


def write_vocabularies(vocabularies: dict[str, Vocabulary], folder: Path) -> None:
    """Write one parquet file a vocabulary, `<name>.parquet` with the column `value`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, vocabulary in vocabularies.items():
        pq.write_table(pa.table({"value": vocabulary._arrow}), folder / f"{name}.parquet")


def read_vocabularies(folder: Path, hashes: dict[str, str]) -> dict[str, Vocabulary]:
    """Return the vocabularies that a spec names, each checked against its hash.

    Args:
        folder: where `<name>.parquet` files are.
        hashes: `FeatureSpec.vocabularies`.
    Raises:
        FeatureError: a file is missing or its values hash differently; names the vocabulary.
    """
    found: dict[str, Vocabulary] = {}
    for name, expected in hashes.items():
        path = folder / f"{name}.parquet"
        if not path.is_file():
            raise FeatureError(f"vocabulary {name!r} is missing: no {path}")
        vocabulary = Vocabulary(pq.read_table(path)["value"].to_pylist())
        if vocabulary.hash() != expected:
            raise FeatureError(
                f"vocabulary {name!r} hashes to {vocabulary.hash()[:12]}, the feature spec says {expected[:12]}; "
                "it belongs to another training run: export again"
            )
        found[name] = vocabulary
    return found
