"""What an engine draws from at each moment: the bundle's catalogue, as the store's changes leave it.

Taking changes in walks the whole catalogue: tens of milliseconds over 100,000 items, more with many fresh ones. Who
keeps an engine up with its store in a thread (`Stocking.follow`) spares the requests that: what was there answers until
the new stock is ready. Where nobody does, or has not for a while, the first request that finds a change takes it in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from playbill.bundle.open import Bundle
from playbill.engine.catalogue import UNDATED, Catalogue, comparable, newest_first
from playbill.engine.fresh import Changes, FreshItems, Joined, Made, Rows, Stock
from playbill.engine.parts import Parts
from playbill.engine.settings import EngineSettings
from playbill.index.item_index import ItemIndex
from playbill.index.live import Living, live, ready, rebuild_due, with_items, without
from playbill.index.sharded import Sharded
from playbill.state.store import Store, View

TRUST_S = 1.0  # how long a stock may answer after it was last known to be the newest


class Stocking:
    """The stock of one engine, exchanged as the store changes.

    Attributes:
        now: what answers. Other threads exchange it: take it once for each request.
        fresh: what was made of items that came after the bundle.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        parts: Parts,
        bundle: Bundle,
        settings: EngineSettings,
        fault: Callable[[str, Exception], None],
    ) -> None:
        self._catalogue, self._parts, self._bundle, self._fault = catalogue, parts, bundle, fault
        self.fresh = FreshItems(bundle, settings)
        self.now = stock(catalogue, parts, bundle, self.fresh, 0, {})
        # called with a view, what answers and what will, before it does
        self.prepare: Callable[[View, Stock, Stock], object] = lambda view, before, stocked: None
        self._lock = threading.Lock()
        self._failed = -1
        self._prepared = (0, 0)
        self._whole = (0, 0)  # version of a stock, and of the store when that was last known to be its newest
        self._trusted_until = 0.0

    @property
    def checked_s(self) -> float | None:
        """Seconds since the stock was last known to be the store's newest; None where nobody follows the store."""
        return time.monotonic() - (self._trusted_until - TRUST_S) if self._trusted_until else None

    def forget(self) -> None:
        """Answer from the bundle's own catalogue, and ask the store anew."""
        self.now = stock(self._catalogue, self._parts, self._bundle, self.fresh, 0, {})
        self._failed, self._whole = -1, (0, 0)

    def at(self, view: View) -> Stock:
        """Return the stock for requests that see the store in this view."""
        if view.catalogue_version != self.now.offer.version and time.monotonic() >= self._trusted_until:
            self._take_in(view)
        return self.now

    def known(self, view: View, stocked: Stock) -> int:
        """Return the version of the store all of which an answer from this stock knows.

        That is the view's, where the stock is its newest; else the last at which it was, for nothing of the catalogue
        changed between the stock's own version and that one.
        """
        if stocked.offer.version == view.catalogue_version:
            self._whole = stocked.offer.version, view.version
            return view.version
        made, whole = self._whole
        return min(whole if made == stocked.offer.version else stocked.offer.version, view.version)

    def take_in(self, store: Store) -> None:
        """Take in what the store notes by now; requests of other threads are answered meanwhile."""
        with store.view() as view:
            self._take_in(view, self._prepare)
            self.known(view, self.now)
            self._prepare(view, self.now)

    def follow(self, store: Store) -> None:
        """Do as `take_in`, and let requests be answered from what is there until `TRUST_S` from now.

        To be called again and again, well within that time.
        """
        began = time.monotonic()
        self.take_in(store)
        self._trusted_until = began + TRUST_S

    def _take_in(self, view: View, prepare: Callable[[View, Stock], None] | None = None) -> None:
        """Make the stock of a view; who comes meanwhile waits for this and finds it done."""
        if view.catalogue_version in (self.now.offer.version, self._failed):
            return
        with self._lock:
            version = view.catalogue_version
            if version <= max(self.now.offer.version, self._failed):
                return
            changes = view.catalogue()  # a store that is away says so itself, and is asked again
            try:
                made = stock(self._catalogue, self._parts, self._bundle, self.fresh, version, changes)
            except Exception as error:  # whatever a feed wrote there must not stop answers; not tried for each request
                self._failed = version
                self._fault("catalogue", error)
            else:
                if prepare is not None:  # a request makes what it needs itself, and nothing else
                    prepare(view, made)
                self.now = made

    def _prepare(self, view: View, stocked: Stock) -> None:
        versions = view.creatives_version, stocked.offer.version
        if versions != self._prepared:
            self._prepared = versions  # whatever comes of it: a request that needs it tries again
            try:
                self.prepare(view, self.now, stocked)
            except Exception as error:
                self._fault("catalogue", error)


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
    index: Living | None = parts.index if isinstance(parts.index, Sharded) else None
    index = live(parts.index) if isinstance(parts.index, ItemIndex) else index
    embeddings: Rows | None = parts.embeddings
    item_arrays: Mapping[str, Rows] = bundle.item_arrays
    catalogue = _told(catalogue, {i: row for i, row in changes.items() if i not in rows})
    found: list[Made] = []
    if rows:
        found = made.make(rows, embed=parts.embeddings is not None)
        late = np.arange(num_built + 1, num_built + len(rows) + 1)
        item_arrays = {name: Joined(array, _stacked(name, array, found)) for name, array in bundle.item_arrays.items()}
        item_index = Joined(np.arange(num_built + 1), np.zeros(len(rows), np.int64))
        item_arrays = {**item_arrays, "item_index": item_index}
        if parts.embeddings is not None:
            vectors = np.stack([mine.vector for mine in found if mine.vector is not None])
            embeddings = Joined(parts.embeddings, vectors)
            good = np.asarray([not mine.refused for mine in found])
            index = None if index is None else with_items(index, late[good], vectors[good])
        catalogue = _with_late(catalogue, rows, embeddings, micros(bundle.manifest.created_at) or 0)
    due = "" if index is None else rebuild_due(index)
    refused = {item_id: mine.refused for item_id, mine in zip(rows, found, strict=True) if mine.refused}
    offer = catalogue.offer(version, {**changes, **{i: {"available": False} for i in refused}})
    if index is not None and not offer.whole:
        index = without(index, np.flatnonzero(~offer.available[1:]) + 1)
    index = None if index is None else ready(index)
    return Stock(catalogue, offer, embeddings, item_arrays, index, due, changes, refused)


def _stacked(name: str, array: np.ndarray, found: list[Made]) -> np.ndarray:
    if name not in found[0].arrays:
        return np.zeros((len(found), *array.shape[1:]), array.dtype)
    return np.stack([mine.arrays[name] for mine in found])


def _told(catalogue: Catalogue, changes: Changes) -> Catalogue:
    """Return the catalogue with the titles and dates that the store notes of the bundle's own items."""
    titles: dict[int, str] = {}
    dates: dict[int, int] = {}
    for item_id, row in changes.items():
        if "title" in row or "published_at" in row:
            index, title, date = catalogue.vocabulary.index(item_id), row.get("title"), micros(row.get("published_at"))
            if index and isinstance(title, str):
                titles[index] = title
            if index and date is not None:
                dates[index] = date
    if titles:
        catalogue = replace(catalogue, titles=list(catalogue.titles))
        for index, title in titles.items():
            catalogue.titles[index] = title
    if dates:
        published = catalogue.published.copy()
        published[list(dates)] = list(dates.values())
        catalogue = replace(catalogue, published=published, newest_order=newest_first(published))
    return catalogue


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
    dates = [micros(row.get("published_at")) for row in rows.values()]
    when = np.asarray([bundled_us if date is None else date for date in dates], np.int64)
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
        published=np.concatenate([catalogue.published, when]),
        newest_order=_among_newest(catalogue, late, when),
        vectors=vectors,
    )


def _among_newest(catalogue: Catalogue, late: np.ndarray, when: np.ndarray) -> np.ndarray:
    """Return `newest_first` of the catalogue with these items behind it; sorting it all again takes much longer."""
    dated = late[when > UNDATED]
    when = when[when > UNDATED]
    newest = np.argsort(-when, kind="stable")
    place = np.searchsorted(-catalogue.published[catalogue.newest_order], -when[newest], side="right")
    order: np.ndarray = np.insert(catalogue.newest_order, place, dated[newest])
    return order


def micros(moment: Any) -> int | None:
    """Return a moment of the store as UTC microseconds: a number is one already, a text is ISO 8601."""
    if isinstance(moment, int) and not isinstance(moment, bool):
        return moment
    try:
        found = datetime.fromisoformat(moment)
    except (TypeError, ValueError):  # whatever a catalogue feed writes there must not stop answers
        return None
    found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return round(found.timestamp() * 1e6)
