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
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np

from playbill.bundle.open import Bundle
from playbill.engine.catalogue import Catalogue, Offer, comparable, newest_first
from playbill.engine.parts import Parts
from playbill.engine.runtime import Model, open_model
from playbill.engine.settings import EngineSettings
from playbill.features.encoder import Arrays, encode_fields
from playbill.features.spec import UNKNOWN, Side
from playbill.index.live import LiveIndex, live, rebuild_due, with_items, without

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
    """

    catalogue: Catalogue
    offer: Offer
    embeddings: Rows | None
    item_arrays: Mapping[str, Rows]
    index: LiveIndex | None
    due: str = ""
    changes: Changes = field(default_factory=dict)


@dataclass(slots=True)
class FreshItems:
    """What was made of fresh items so far, so that each is encoded and embedded once.

    Attributes:
        refused: why items could not be embedded, by reason; they are not shown.
    """

    bundle: Bundle
    settings: EngineSettings
    refused: dict[str, int] = field(default_factory=dict)
    _made: dict[int | str, tuple[Mapping[str, Any], Arrays, np.ndarray | None]] = field(default_factory=dict)
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
        told = {"title", *(f.name for f in spec.side(Side.ITEM))}
        fresh = {
            item_id: row
            for item_id, row in changes.items()
            if type(item_id) is kind
            and not known.index(item_id)
            and any(row.get(name) is not None for name in told & row.keys())
        }
        return dict(sorted(fresh.items()))

    def make(self, fresh: Mapping[int | str, Mapping[str, Any]], embed: bool) -> tuple[Arrays, np.ndarray | None]:
        """Return the encoded arrays of these items, [F, ...] each, and with `embed` their vectors, [F, d] float32.

        Rows that did not change since the last call are not worked on again. A vector that could not be made, or is
        not finite, comes back as NaN; `refused` says why.
        """
        new = [i for i, row in fresh.items() if i not in self._made or self._made[i][0] != row]
        if new:
            arrays = encode_items([fresh[i] for i in new], self.bundle)
            vectors = self._embed(arrays, len(new)) if embed else None
            for place, item_id in enumerate(new):
                mine = {name: array[place] for name, array in arrays.items()}
                self._made[item_id] = dict(fresh[item_id]), mine, None if vectors is None else vectors[place]
        self._made = {i: self._made[i] for i in fresh}
        made = list(self._made.values())
        names = list(made[0][1]) if made else []
        stacked = {name: np.stack([arrays[name] for _, arrays, _ in made]) for name in names}
        found = [vector for _, _, vector in made if vector is not None]
        return stacked, np.stack(found) if embed and found else None

    def _embed(self, arrays: Arrays, num_rows: int) -> np.ndarray:
        try:
            if self._tower is None:
                self._tower = open_model(self.bundle.file("item_tower.onnx"), self.settings)
            vectors = embed_items(self._tower, arrays, num_rows)
        except Exception as error:  # onnxruntime raises its own classes, straight below Exception
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            self._refuse(f"item_tower.onnx does not answer: {reason}", num_rows)
            return np.full((num_rows, self._width()), np.nan, np.float32)
        bad = ~np.isfinite(vectors).all(1)
        if bad.any():
            self._refuse("its vector is not finite", int(bad.sum()))
        return vectors

    def _width(self) -> int:
        return int(self.bundle.array("item_embeddings").shape[1])

    def _refuse(self, reason: str, count: int) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + count


def encode_items(rows: list[Mapping[str, Any]], bundle: Bundle) -> Arrays:
    """Return the arrays of raw rows of the items table as the bundle's models read them, [B, ...] each."""
    fields = bundle.spec.side(Side.ITEM)
    columns = {f.name: [row.get(f.name) for row in rows] for f in fields}
    return encode_fields(columns, len(rows), fields, bundle.vocabularies)


def embed_items(tower: Model, arrays: Arrays, num_rows: int) -> np.ndarray:
    """Return [B, d] float32, the vectors of items that no model has seen: unknown id, known content."""
    arrays = {"item_index": np.full(num_rows, UNKNOWN, np.int64), **arrays}
    parts = [
        tower.run({name: array[low : low + _ROWS] for name, array in arrays.items()}, tower.outputs[:1])[0]
        for low in range(0, num_rows, _ROWS)
    ]
    return np.concatenate(parts)


def stock(
    catalogue: Catalogue, parts: Parts, bundle: Bundle, made: FreshItems, version: int, changes: Changes
) -> Stock:
    """Return the catalogue as it stands after the store's changes.

    Args:
        catalogue, parts: the bundle's own.
        made: what is kept from one state to the next; one caller at a time.
        version: of the store's catalogue.
        changes: by item id: availability of the bundle's items, whole rows of fresh ones.
    """
    rows = made.among(changes)
    num_built = catalogue.num_items
    index = None if parts.index is None else live(parts.index)
    embeddings: Rows | None = parts.embeddings
    item_arrays: Mapping[str, Rows] = bundle.item_arrays
    good = np.ones(len(rows), bool)
    if rows:
        arrays, vectors = made.make(rows, embed=parts.embeddings is not None)
        late = np.arange(num_built + 1, num_built + len(rows) + 1)
        known = np.arange(num_built + 1)
        none = {n: np.zeros((len(rows), *a.shape[1:]), a.dtype) for n, a in bundle.item_arrays.items()}
        item_arrays = {n: Joined(a, {**none, **arrays}[n]) for n, a in bundle.item_arrays.items()}
        item_arrays = {**item_arrays, "item_index": Joined(known, np.zeros(len(rows), np.int64))}
        if parts.embeddings is not None and vectors is not None:
            good = np.isfinite(vectors).all(1)
            embeddings = Joined(parts.embeddings, np.where(good[:, None], vectors, 0))
            index = None if index is None else with_items(index, late[good], vectors[good])
        catalogue = _with_late(catalogue, rows, embeddings, _micros(bundle.manifest.created_at) or 0)
    due = "" if index is None else rebuild_due(index)
    offer = catalogue.offer(version, changes)
    if not good.all():
        offer = replace(offer, available=offer.available.copy(), whole=False)
        offer.available[np.flatnonzero(~good) + num_built + 1] = False
        offer.popular_order = offer.popular_order[offer.available[offer.popular_order]]
        offer.newest_order = offer.newest_order[offer.available[offer.newest_order]]
    if index is not None and not offer.whole:
        index = without(index, np.flatnonzero(~offer.available[1:]) + 1)
    return Stock(catalogue, offer, embeddings, item_arrays, index, due, changes)


def _with_late(
    catalogue: Catalogue, rows: Mapping[int | str, Mapping[str, Any]], embeddings: Rows | None, bundled_us: int
) -> Catalogue:
    """Return the catalogue with fresh items behind its own: nobody chose them yet, so they are the least popular.

    Args:
        bundled_us: when the bundle was made; what came later and gives no date of its own came out then.
    """
    count, built = len(rows), catalogue.num_items
    late = np.arange(built + 1, built + count + 1)
    titles = [row.get("title") for row in rows.values()]
    vectors: Any = None if embeddings is None else comparable(embeddings, catalogue.filled)
    if embeddings is None and catalogue.vectors is not None:
        vectors = Joined(catalogue.vectors, np.zeros((count, catalogue.vectors[[0]].shape[1]), np.float32))
    nothing = np.zeros(count, np.float32)
    dates = [_micros(row.get("published_at")) for row in rows.values()]
    published = np.concatenate([catalogue.published, [bundled_us if date is None else date for date in dates]])
    return replace(
        catalogue,
        ids=[*catalogue.ids, *rows],
        titles=[*catalogue.titles, *(title if isinstance(title, str) else None for title in titles)],
        late=dict(zip(rows, late.tolist(), strict=True)),
        available=np.concatenate([catalogue.available, np.ones(count, bool)]),
        popular=np.concatenate([catalogue.popular, nothing]),
        trending=np.concatenate([catalogue.trending, nothing]),
        events=np.concatenate([catalogue.events, nothing]),
        lately=np.concatenate([catalogue.lately, nothing]),
        place=np.concatenate([catalogue.place, late]),
        popular_order=np.concatenate([catalogue.popular_order, late]),
        published=published,
        newest_order=newest_first(published),
        vectors=vectors,
    )


def _micros(moment: Any) -> int | None:
    """Return a moment of the store as UTC microseconds: a number is one already, a text is ISO 8601."""
    if isinstance(moment, int) and not isinstance(moment, bool):
        return moment
    try:
        found = datetime.fromisoformat(moment)
    except (TypeError, ValueError):  # whatever a catalogue feed writes there must not stop answers
        return None
    found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return round(found.timestamp() * 1e6)
