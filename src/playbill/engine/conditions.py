"""Conditions over items, ready for requests: masks over the catalogue, and the catalogue narrowed to what they leave.

A narrowed catalogue is what every retriever and every rung draws from, its index included, which goes about it by how
much is left (`index.filters`). Making one walks the whole catalogue; it is kept while its bundle, the state of the
catalogue and the memory for such allow, so that a condition that many requests share is paid for once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

from playbill.bundle.open import Bundle, item_kinds
from playbill.engine.catalogue import Offer
from playbill.engine.fresh import Stock
from playbill.errors import FilterError, RequestError
from playbill.filters.check import Kind, parse
from playbill.filters.mask import holds, mask
from playbill.filters.read import Node, columns
from playbill.index.live import Living, without

_T = TypeVar("_T")
_MOST_VALUES = 100_000  # items of which a cap's column is kept at hand
_PREPARED = 16  # conditions that are made ready for the next state of the catalogue before that answers
_SINGLE = (str, int, float, date)


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What is left of a catalogue.

    Attributes:
        stock: of which only what is left can be shown.
        removed: for each mask that was taken off, how many items it took that could have been shown.
    """

    stock: Stock
    removed: tuple[int, ...] = ()


class Kept(Generic[_T]):
    """Things made once, by key, the least used dropped when they take more than so many bytes. For any thread."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.bytes = most_bytes, 0
        self._things: OrderedDict[Hashable, tuple[_T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._things)

    def keys(self) -> list[Hashable]:
        """Return what is there, the last used last."""
        with self._lock:
            return list(self._things)

    def get(self, key: Hashable, make: Callable[[], tuple[_T, int]]) -> _T:
        """Return the thing, made by `make`, which says its bytes too, unless it is there."""
        with self._lock:
            if key in self._things:
                self._things.move_to_end(key)
                return self._things[key][0]
        thing, size = make()  # two threads may both make it: better than one waiting for another's other thing
        with self._lock:
            if key not in self._things:
                self._things[key] = thing, size
                self.bytes += size
            while self.bytes > self.most_bytes and len(self._things) > 1:
                self.bytes -= self._things.popitem(last=False)[1][1]
        return thing


class Conditions:
    """Conditions over the items of one bundle, and of what came later."""

    def __init__(self, bundle: Bundle, cache_mb: int) -> None:
        self.bundle, self.known = bundle, item_kinds(bundle.items)
        self._trees: Kept[Node] = Kept(16_000_000)
        self._masks: Kept[np.ndarray] = Kept(cache_mb * 250_000)
        self._narrowed: Kept[Narrowed] = Kept(cache_mb * 750_000)
        self._values: dict[str, dict[int, list[object]]] = {}

    def tree(self, text: str) -> Node:
        """Return a condition's tree.

        Raises:
            FilterError: it cannot be understood.
        """
        return self._trees.get(text, lambda: (parse(text, self.known), 100 * len(text) + 1_000))

    def check(self, text: str) -> None:
        """Do nothing where a request's filter can be understood.

        Raises:
            RequestError: it cannot; points at the character.
        """
        try:
            self.tree(text)
        except FilterError as error:
            raise RequestError("filter", str(error)) from None

    def mask(self, text: str, stock: Stock) -> np.ndarray:
        """Return [M + 1] bool by item_index, the items of which a condition is true as the store has them now."""

        def make() -> tuple[np.ndarray, int]:
            tree, built = self.tree(text), len(self.bundle.items)
            found = np.zeros(stock.catalogue.num_items + 1, bool)
            found[1 : built + 1] = self._masks.get(text, partial(self._of_bundle, tree))
            named, told = columns(tree), []
            for item_id, row in stock.changes.items():
                index = stock.catalogue.index(item_id)
                if index > built:
                    found[index] = holds(tree, {"item_id": item_id, **row}, self.known)
                elif index and not named.isdisjoint(row):
                    told.append((index, row))
            for (index, _), row in zip(told, self._rows(told, named), strict=True):
                found[index] = holds(tree, row, self.known)
            return found, found.nbytes

        return self._masks.get((stock.offer.version, text), make)

    def names(self, column: str) -> bool:
        """Return whether a column holds names, such as categories: a text, or a list of texts."""
        return self.known.get(column) in (Kind.TEXT, Kind.TEXTS)

    def popular(self, text: str, stock: Stock) -> np.ndarray:
        """Return [n] int64, the available items of which a condition is true, most popular first."""

        def make() -> tuple[np.ndarray, int]:
            order = stock.offer.popular_order
            found = order[self.mask(text, stock)[order]]
            return found, found.nbytes

        return self._masks.get((stock.offer.version, text, "popular"), make)

    def values(self, column: str, item: np.ndarray, stock: Stock) -> list[list[object]]:
        """Return what a column of text, numbers, times, or lists of them says of items, each value once.

        Args:
            item: [M] int64 item_index.
        """
        known, items = self._values.setdefault(column, {}), item.tolist()
        if len(known) > _MOST_VALUES:
            known = self._values[column] = {}
        unknown = [index for index in items if index not in known and index <= len(self.bundle.items)]
        if unknown:
            cells = self.bundle.items[column].gather(np.asarray(unknown) - 1).to_list()
            known.update(zip(unknown, map(_several, cells), strict=True))
        if not stock.changes:
            return [known[index] for index in items]
        changes, ids = stock.changes, stock.catalogue.ids
        rows = [changes.get(ids[index]) for index in items]
        return [
            known.get(index, []) if row is None or (column not in row and index in known) else _several(row.get(column))
            for index, row in zip(items, rows, strict=True)
        ]

    def narrowed(self, stock: Stock, wanted: str | None, blocked: tuple[str, ...]) -> Narrowed:
        """Return what is left of the catalogue where a condition must be true, and others must not.

        Args:
            wanted: condition; None for any item.
            blocked: conditions; each is counted over what those before it leave.
        """
        if wanted is None and not blocked:
            return Narrowed(stock)

        def make() -> tuple[Narrowed, int]:
            left = stock.offer.available.copy()
            if wanted is not None:
                left &= self.mask(wanted, stock)
            removed = []
            for text in blocked:
                before = int(np.count_nonzero(left))
                left &= ~self.mask(text, stock)
                removed.append(before - int(np.count_nonzero(left)))
            offer = narrow_offer(stock.offer, left)
            index = None if stock.index is None else without(stock.index, np.flatnonzero(~left[1:]) + 1)
            narrow = Narrowed(replace(stock, offer=offer, index=index), tuple(removed))
            return narrow, _bytes(offer, index)

        return self._narrowed.get((stock.offer.version, wanted, blocked), make)

    def prepare(self, before: Stock, stock: Stock) -> None:
        """Make the conditions that were asked of a stock last ready for the one that comes after it."""
        version = before.offer.version
        asked = [key for key in self._narrowed.keys() if isinstance(key, tuple) and key[0] == version]
        for _, wanted, blocked in asked[-_PREPARED:]:
            self.narrowed(stock, wanted, blocked)

    def _of_bundle(self, tree: Node) -> tuple[np.ndarray, int]:
        found = mask(tree, self.bundle.items, self.known)
        return found, found.nbytes

    def _rows(self, told: list[tuple[int, Mapping[str, Any]]], named: set[str]) -> list[dict[str, Any]]:
        """Return the columns that a condition names of items of the bundle, the store's before the bundle's.

        Args:
            told: item_index and what the store notes of each.
        """
        place = np.asarray([index - 1 for index, _ in told], np.int64)
        # gathered at once: cell by cell a price list of 10,000 would take a second
        cells = {name: map(_python, self.bundle.items[name].gather(place).to_list()) for name in named}
        return [
            {name: row.get(name, value) for name, value in zip(cells, values, strict=True)}
            for values, (_, row) in zip(zip(*cells.values(), strict=True), told, strict=True)
        ]


def _several(value: object) -> list[object]:
    if isinstance(value, list):
        return list(dict.fromkeys(v for v in value if isinstance(v, _SINGLE)))
    return [value] if isinstance(value, _SINGLE) else []


def _python(value: Any) -> Any:
    """Return a cell of a table as the store would hold it."""
    return value.isoformat() if isinstance(value, date) else value


def narrow_offer(offer: Offer, left: np.ndarray) -> Offer:
    """Return the offer of what is left, [M + 1] bool."""
    return Offer(
        version=offer.version,
        available=left,
        whole=False,
        popular_order=offer.popular_order[left[offer.popular_order]],
        trending_order=offer.trending_order[left[offer.trending_order]],
        newest_order=offer.newest_order[left[offer.newest_order]],
    )


def _bytes(offer: Offer, index: Living | None) -> int:
    arrays = [offer.available, offer.popular_order, offer.trending_order, offer.newest_order]
    own = 0 if index is None else index.nbytes
    return sum(array.nbytes for array in arrays) + own + 1_000
