"""What a bundle knows of its items, as arrays by item_index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from playbill.baselines.popularity import read_scores
from playbill.bundle.open import Bundle
from playbill.features.vocabulary import Vocabulary

DAY_US = 86_400_000_000
WITHDRAWN = "withdrawn"  # true in a note of an item or a creative: not to be shown, whatever else is said of it
UNDATED = -(2**62)  # before any date, and its difference to any still fits


@dataclass(slots=True)
class Catalogue:
    """Arrays by item_index; row 0 is the unknown item, which is never shown.

    Attributes:
        ids, titles: [N + 1] lists.
        vocabulary: item ids to item_index, of the bundle's own items.
        available: [N + 1] bool, as the bundle says.
        popular, trending: [N + 1] float32, share of the most popular (trending) item's score, 0..1.
        events, lately: [N + 1] float32, events that training knew of an item, all and the more the later; 0 where the
            bundle does not say.
        place: [N + 1] int64, 1-based place by popularity.
        popular_order: [N] int64 item_index, most popular first.
        trending_order: [T] int64 item_index with any recent event, best first.
        published: [N + 1] int64 UTC microseconds at which an item came out, UNDATED where nobody says.
        newest_order: [D] int64 item_index with a date, newest first.
        vectors: [N + 1, d] float32 of unit length for likeness between items; None where there is nothing to compare.
        filled: columns of the item vectors that say nothing of likeness, see `bundle.manifest`.
        late: item_index by id of items that came after the bundle, see `fresh`; they stand behind the others.
    """

    ids: list[Any]
    titles: list[str | None]
    vocabulary: Vocabulary
    available: np.ndarray
    popular: np.ndarray
    trending: np.ndarray
    events: np.ndarray
    lately: np.ndarray
    place: np.ndarray
    popular_order: np.ndarray
    trending_order: np.ndarray
    published: np.ndarray
    newest_order: np.ndarray
    vectors: Any  # an array, or what is read like one
    filled: int = 0
    late: dict[Any, int] = field(default_factory=dict)

    @property
    def num_items(self) -> int:
        return len(self.ids) - 1

    def index(self, item_id: Any) -> int:
        """Return the item_index of one id, 0 when unknown."""
        return self.vocabulary.index(item_id) or self.late.get(item_id, 0)

    def indices(self, item_ids: list[Any]) -> np.ndarray:
        """Return [S] int64 item_index, 0 where unknown."""
        rows = self.vocabulary.indices(item_ids)
        if self.late:
            for place in np.flatnonzero(rows == 0).tolist():
                rows[place] = self.late.get(item_ids[place], 0)
        return rows

    def cold(self, item: np.ndarray, at: int, days: float) -> np.ndarray:
        """Return [M] bool, which items came out within so many days before `at` (UTC microseconds).

        Args:
            item: [M] int64 item_index.
        """
        published = self.published[item]
        young: np.ndarray = (published > at - round(days * DAY_US)) & (published <= at)
        return young

    def offer(self, version: int, changes: Mapping[int | str, Mapping[str, Any]]) -> Offer:
        """Return what can be shown after changes noted in the store.

        Args:
            version: of the store's catalogue.
            changes: by item id, such as `{12: {"available": False}}` or `{12: {"withdrawn": True}}`, which stands above
                it; items that are not known are passed over.
        """
        available = self.available.copy()
        for item_id, change in changes.items():
            told = change.get("available")
            gone = change.get(WITHDRAWN) is True
            row = self.index(item_id) if gone or isinstance(told, bool) else 0
            if row:
                available[row] = told is True and not gone
        return Offer(
            version=version,
            available=available,
            whole=bool(available[1:].all()),
            popular_order=self.popular_order[available[self.popular_order]],
            trending_order=self.trending_order[available[self.trending_order]],
            newest_order=self.newest_order[available[self.newest_order]],
        )


@dataclass(slots=True)
class Offer:
    """What can be shown at present, by item_index.

    Attributes:
        version: of the store's catalogue that it was made for.
        available: [N + 1] bool.
        whole: every item is available.
        popular_order, trending_order, newest_order: those of the catalogue, available items only.
    """

    version: int
    available: np.ndarray
    whole: bool
    popular_order: np.ndarray
    trending_order: np.ndarray
    newest_order: np.ndarray


def open_catalogue(bundle: Bundle, embeddings: np.ndarray | None) -> Catalogue:
    """Return the arrays of a bundle's items.

    Args:
        embeddings: [N + 1, d] float32 of the item tower, where the bundle has it.
    """
    num_items = bundle.spec.num_items
    # without any counts the catalogue's own order is what is left
    events, trend, lately = (_scores(bundle, name) for name in ("popularity.npy", "trending.npy", "lately.npy"))
    popular, trending = _share(events), _share(trend)
    by_popularity = np.argsort(-popular[1:], kind="stable") + 1
    place = np.zeros(num_items + 1, np.int64)
    place[by_popularity] = np.arange(1, num_items + 1)
    by_trend = np.argsort(-trending[1:], kind="stable") + 1
    available = np.ones(num_items + 1, bool)
    if "available" in bundle.items.columns:
        available[1:] = bundle.items["available"].fill_null(True).to_numpy()
    available[0] = False
    published = np.full(num_items + 1, UNDATED)
    if "published_at" in bundle.items.columns and isinstance(bundle.items.schema["published_at"], pl.Datetime):
        published[1:] = bundle.items["published_at"].cast(pl.Int64).fill_null(UNDATED).to_numpy()
    titles = bundle.items["title"].to_list() if "title" in bundle.items.columns else [None] * num_items
    return Catalogue(
        ids=[None, *bundle.vocabularies["item"].values],
        titles=[None, *titles],
        vocabulary=bundle.vocabularies["item"],
        available=available,
        popular=popular,
        trending=trending,
        events=events,
        lately=lately,
        place=place,
        popular_order=by_popularity,
        trending_order=by_trend[trending[by_trend] > 0],
        published=published,
        newest_order=newest_first(published),
        vectors=_category_vectors(bundle) if embeddings is None else comparable(embeddings, bundle.manifest.filled),
        filled=bundle.manifest.filled,
    )


def newest_first(published: np.ndarray) -> np.ndarray:
    """Return [D] int64 item_index of the items with a date, newest first; of one moment the lower index first."""
    order = np.argsort(-published, kind="stable")
    dated: np.ndarray = order[published[order] > UNDATED]
    return dated


@dataclass(frozen=True, slots=True)
class Unfilled:
    """Item vectors as they are compared with each other, read by rows: without the columns that fill them up."""

    vectors: Any
    filled: int

    def __getitem__(self, rows: Any) -> np.ndarray:
        mine = np.asarray(self.vectors[rows])[..., : -self.filled]
        found: np.ndarray = mine / np.maximum(np.linalg.norm(mine, axis=-1, keepdims=True), 1e-12)
        return found


def comparable(vectors: Any, filled: int) -> Any:
    """Return item vectors, an array or what is read like one, by which items may be compared with items."""
    return Unfilled(vectors, filled) if filled else vectors


def _scores(bundle: Bundle, name: str) -> np.ndarray:
    """Return [N + 1] float32 of one of the bundle's orders; 0 in row 0, where not finite, and where it has none."""
    if not bundle.has(name):
        return np.zeros(bundle.spec.num_items + 1, np.float32)
    scores = read_scores(bundle.file(name))
    scores = np.where(np.isfinite(scores), scores, 0).astype(np.float32)
    scores[0] = 0
    return scores


def _share(scores: np.ndarray) -> np.ndarray:
    """Return scores as shares of the largest."""
    most = scores.max(initial=0)
    return scores / most if most > 0 else scores


def _category_vectors(bundle: Bundle) -> np.ndarray | None:
    arrays = [
        bundle.item_arrays[f.array] for f in bundle.spec.fields if f.side == "item" and f.encoding == "categories"
    ]
    sizes = [f.size for f in bundle.spec.fields if f.side == "item" and f.encoding == "categories"]
    if not arrays:
        return None
    marks = np.zeros((bundle.spec.num_items + 1, sum(sizes)), np.float32)
    offset = 0
    for array, size in zip(arrays, sizes, strict=True):
        rows, columns = np.nonzero(array > 0)
        marks[rows, offset + array[rows, columns]] = 1
        offset += size
    vectors: np.ndarray = marks / np.maximum(np.linalg.norm(marks, axis=1, keepdims=True), 1e-12)
    return vectors
