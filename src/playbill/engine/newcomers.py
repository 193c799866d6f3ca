"""Places of a slate that are kept for newcomers: items of which too little is known for any model to choose them."""

from __future__ import annotations

import numpy as np
import polars as pl

from playbill.bundle.policy import PUBLISHED, Newcomers
from playbill.engine.catalogue import UNDATED, Catalogue, Offer
from playbill.engine.fresh import Stock
from playbill.engine.row import Row


def newcomers_order(wanted: Newcomers, items: pl.DataFrame, catalogue: Catalogue, offer: Offer) -> np.ndarray:
    """Return [D] int64 item_index of newcomers that can be shown: the newest first, of those what is chosen lately.

    Args:
        wanted: of a surface.
        items: the bundle's table; one that came after it is known by its date alone.
    """
    when = np.full(catalogue.num_items + 1, np.nan)
    if wanted.by == PUBLISHED:
        when = np.where(catalogue.published > UNDATED, catalogue.published, np.nan)
    else:
        when[1 : len(items) + 1] = items[wanted.by].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    mine = np.flatnonzero(offer.available & (catalogue.events <= wanted.events) & np.isfinite(when))
    order: np.ndarray = mine[np.lexsort((-catalogue.lately[mine], -when[mine]))]
    return order


def newcomers_of(order: np.ndarray, slots: int, blocked: np.ndarray, catalogue: Catalogue, at: int) -> np.ndarray:
    """Return [n] int64, the first `slots` newcomers that one person may be shown and that are out by now.

    Args:
        order: of `newcomers_order`.
        blocked: [N + 1] bool.
        at: UTC microseconds.
    """
    # most are neither seen nor still to come: a few more than asked for are looked at before all are
    for some in (order[: 4 * slots + 16], order):
        found: np.ndarray = some[~blocked[some] & (catalogue.published[some] <= at)][:slots]
        if len(found) == slots:
            break
    return found


def keep_places(order: np.ndarray, kept: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the order with all of `kept` among the first k, and [n] which of them had to be brought in.

    Whoever stands there already counts; the others take the last places, and what stood there comes right behind.

    Args:
        order: [M] candidates, best first.
        kept: [n] candidates, n <= k.
    """
    brought = kept[~np.isin(kept, order[:k])]
    if not len(brought):
        return order, brought
    free = np.flatnonzero(~np.isin(order[:k], kept))
    gone = free[len(free) - len(brought) :]
    stay = np.delete(order[:k], gone)
    behind = order[k:]
    return np.concatenate([stay, brought, order[gone], behind[~np.isin(behind, brought)]]), brought


class NewcomersPlaces:
    """The orders of newcomers that surfaces ask for, made anew with each state of the catalogue."""

    def __init__(self, items: pl.DataFrame) -> None:
        self._items = items
        self._orders: dict[Newcomers, tuple[int, np.ndarray]] = {}

    def of(self, row: Row, stocked: Stock) -> np.ndarray | None:
        """Return the items that places of this answer are kept for; their order is made anew with the catalogue."""
        wanted = row.surface.newcomers
        slots = min(wanted.slots, row.request.k)
        if not slots:
            return None
        version, order = self._orders.get(wanted, (-1, np.zeros(0, np.int64)))
        if version != stocked.offer.version:
            order = newcomers_order(wanted, self._items, stocked.catalogue, stocked.offer)
            self._orders[wanted] = stocked.offer.version, order
        return newcomers_of(order, slots, row.blocked, stocked.catalogue, int(row.request.at or 0))
