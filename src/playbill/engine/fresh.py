"""Items that came after the bundle, as the store tells of them: encoded by the bundle's features, embedded by its item
tower, and searched beside its own from the next request on.

A row noted under an item id that the bundle does not know is a fresh item as soon as it says anything that the item
tower reads, or has a title; the names are those of the items table. Its id is unknown to every model (item_index 0 for
the graphs), so it stands on its content alone. Within one state of the catalogue fresh items are numbered N + 1, N + 2,
... in the order of their ids; no slate and no log ever holds these numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from playbill.bundle.open import Bundle
from playbill.engine.catalogue import Catalogue, Offer
from playbill.engine.runtime import Model, open_model
from playbill.engine.settings import EngineSettings
from playbill.errors import FeatureError
from playbill.features.encoder import Arrays, encode_fields
from playbill.features.spec import UNKNOWN, Side
from playbill.index.live import Living

_ROWS = 4_096  # items in one run of the item tower

Changes = Mapping[int | str, Mapping[str, Any]]


class Rows(Protocol):
    """What is read by rows: an array, or two that stand one after the other."""

    def __getitem__(self, rows: Any, /) -> Any: ...


class Joined:
    """Rows 0..N of one array and those of another behind them, read as one; neither is copied."""

    __slots__ = ("_behind", "_first")

    def __init__(self, first: np.ndarray, behind: np.ndarray) -> None:
        self._first, self._behind = first, behind

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        rows = np.asarray(rows)
        late = rows >= len(self._first)
        found: np.ndarray = self._first[np.where(late, 0, rows)]
        if late.any():
            found[late] = self._behind[rows[late] - len(self._first)]
        return found


@dataclass(slots=True)
class Stock:
    """The catalogue at one moment, the bundle's items and the fresh ones, M in all. Never changed, only replaced.

    Attributes:
        catalogue: arrays by item_index, [M + 1].
        offer: which of them can be shown.
        embeddings: [M + 1, d] float32, where the bundle has towers.
        item_arrays: by name, [M + 1, ...]; with fresh items also `item_index`, which is 0 for them.
        index: tombstones for what is not available, fresh items beside the built ones; None without an index.
        due: why the bundle should be exported anew for its index's sake, empty where it need not.
        changes: rows that the store notes over the bundle's items, by item id.
        refused: why fresh items cannot be shown, by item id.
    """

    catalogue: Catalogue
    offer: Offer
    embeddings: Rows | None
    item_arrays: Mapping[str, Rows]
    index: Living | None
    due: str = ""
    changes: Changes = field(default_factory=dict)
    refused: Mapping[int | str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Made:
    """What was made of one row: encoded arrays, its vector, and why it cannot be shown, empty where it can."""

    row: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    vector: np.ndarray | None
    refused: str = ""


@dataclass(slots=True)
class FreshItems:
    """What was made of fresh items so far, so that each is encoded and embedded once.

    Attributes:
        refused: how often an item could not be encoded or embedded, by reason; such are not shown.
    """

    bundle: Bundle
    settings: EngineSettings
    refused: dict[str, int] = field(default_factory=dict)
    _made: dict[int | str, Made] = field(default_factory=dict)
    _tower: Model | None = None

    def __post_init__(self) -> None:
        # here and not for the first new item, which would wait for it; what is wrong with it is said when it is asked
        if self.bundle.has("item_tower.onnx"):
            with suppress(Exception):
                self._tower = open_model(self.bundle.file("item_tower.onnx"), self.settings)

    def among(self, changes: Changes) -> dict[int | str, Mapping[str, Any]]:
        """Return the rows of fresh items among the store's changes, in the order of their ids."""
        spec, known = self.bundle.spec, self.bundle.vocabularies["item"]
        kind = int if spec.item_id_type == "int64" else str
        told = self.told
        fresh = {
            item_id: row
            for item_id, row in changes.items()
            if type(item_id) is kind
            and not known.index(item_id)
            and any(row.get(name) is not None for name in told & row.keys())
        }
        return dict(sorted(fresh.items()))

    @property
    def told(self) -> set[str]:
        """Columns of which one at least makes a row an item: what models read, and the title."""
        return {"title", *(name for f in self.bundle.spec.side(Side.ITEM) for name in f.reads)}

    def make(self, fresh: Mapping[int | str, Mapping[str, Any]], embed: bool) -> list[Made]:
        """Return what was made of these items, in their order; with `embed` also their vectors, [d] float32 each.

        Rows that did not change since the last call are not worked on again.
        """
        new = [i for i, row in fresh.items() if i not in self._made or self._made[i].row != row]
        if new:
            arrays, refused = self._encode([fresh[i] for i in new])
            vectors = self._embed(arrays, refused) if embed else None
            for place, item_id in enumerate(new):
                mine = {name: array[place] for name, array in arrays.items()}
                self._made[item_id] = Made(
                    dict(fresh[item_id]), mine, None if vectors is None else vectors[place], refused[place]
                )
            for reason in filter(None, refused):
                self.refused[reason] = self.refused.get(reason, 0) + 1
        self._made = {i: self._made[i] for i in fresh}
        return list(self._made.values())

    def _encode(self, rows: list[Mapping[str, Any]]) -> tuple[Arrays, list[str]]:
        """Return the rows' arrays, and for each why it has none of its own: one odd row must not take the others."""
        try:
            return encode_items(rows, self.bundle), [""] * len(rows)
        except FeatureError as error:
            if len(rows) == 1:
                return encode_items([{}], self.bundle), [str(error)]
        found = [self._encode([row]) for row in rows]
        names = found[0][0]
        return {n: np.concatenate([a[n] for a, _ in found]) for n in names}, [why for _, [why] in found]

    def _embed(self, arrays: Arrays, refused: list[str]) -> np.ndarray:
        """Return a vector for each row, and say in `refused` which are none: those are 0."""
        try:
            if self._tower is None:
                self._tower = open_model(self.bundle.file("item_tower.onnx"), self.settings)
            vectors = embed_items(self._tower, arrays, len(refused))
        except Exception as error:  # onnxruntime raises its own classes, straight below Exception
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            refused[:] = [why or f"item_tower.onnx does not answer: {reason}" for why in refused]
            return np.zeros((len(refused), self.bundle.array("item_embeddings").shape[1]), np.float32)
        good = np.isfinite(vectors).all(1)
        refused[:] = [
            why or ("" if fine else "its vector is not finite") for why, fine in zip(refused, good, strict=True)
        ]
        found: np.ndarray = np.where(good[:, None], vectors, np.float32(0))
        return found


def encode_items(rows: list[Mapping[str, Any]], bundle: Bundle) -> Arrays:
    """Return the arrays of raw rows of the items table as the bundle's models read them, [B, ...] each."""
    fields = bundle.spec.side(Side.ITEM)
    columns = {name: [row.get(name) for row in rows] for f in fields for name in f.reads}
    return encode_fields(columns, len(rows), fields, bundle.vocabularies)


def embed_items(tower: Model, arrays: Arrays, num_rows: int) -> np.ndarray:
    """Return [B, d] float32, the vectors of items that no model has seen: unknown id, known content."""
    arrays = {"item_index": np.full(num_rows, UNKNOWN, np.int64), **arrays}
    parts = [
        tower.run({name: array[low : low + _ROWS] for name, array in arrays.items()}, tower.outputs[:1])[0]
        for low in range(0, num_rows, _ROWS)
    ]
    return np.concatenate(parts)
