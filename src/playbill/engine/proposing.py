"""Step 2 for one request: who proposes what, by the form of its surface."""

from __future__ import annotations

from typing import Any

import numpy as np

from playbill.bundle.pages import Form
from playbill.bundle.rules import Act
from playbill.bundle.rungs import PROPOSERS
from playbill.engine.alike import cosines
from playbill.engine.conditions import Conditions
from playbill.engine.fresh import Stock
from playbill.engine.parts import KNN, Parts
from playbill.engine.rank import ITEM_KNN
from playbill.engine.retrieve import TOWER, candidates_of, cold_items
from playbill.engine.row import Row
from playbill.engine.rules import brought_in
from playbill.engine.shelves import Asked, drafts_of
from playbill.engine.wishes import wished_for
from playbill.index.sharded import Patience

LIST, SIMILAR = PROPOSERS.index("list"), PROPOSERS.index("similar")


def propose(
    row: Row,
    stocked: Stock,
    parts: Parts,
    conditions: Conditions,
    personal: bool,
    nearest: np.ndarray | None,
    query: np.ndarray | None,
    within_s: float | None = None,
) -> None:
    """Give a request its candidates, and the drafts of its shelves where it wants a page.

    Args:
        stocked: the whole catalogue.
        personal: whether the person's history may be used.
        nearest: items that the index found, and `query` [d] the person's vector; None without a tower.
        within_s: seconds for an index in parts.
    """
    form = row.surface.answers
    blend = parts.blend if personal and form is Form.SLATE else None
    history = np.asarray([row.anchor]) if row.anchor else row.history
    brought = row.listed
    if form is not Form.RERANK and row.rules:
        brought = brought_in(row.rules, conditions, stocked, row.request.k, row.blocked)
    if row.asked is not None and row.asked.leans:
        wished = wished_for(row.asked, form, conditions, stocked, row.request.k, row.blocked)
        brought = wished if brought is None else np.concatenate([brought, wished])
    if form is Form.HOME:
        page = _draft(row, parts, conditions, within_s)
        brought = page if brought is None else np.concatenate([brought, page])
    tables = parts.tables if personal or row.anchor else {}
    if row.anchor:  # one that came after the bundle was chosen with nothing yet
        tables = {name: table for name, table in tables.items() if row.anchor <= table.num_items}
    row.candidates = found = candidates_of(
        stocked.catalogue,
        row.stock.offer,
        row.left_out,
        row.blocked,
        _wanted(row),
        _quotas(row, parts),
        tables,
        history,
        nearest,
        query if nearest is not None else None,
        stocked.embeddings,
        blend,
        parts.ials if personal and not row.anchor else None,
        {*row.surface.weights, *(ITEM_KNN if row.rung == "item_knn" else ())},
        _newest(row),
        row.newcomers,
        brought,
    )
    if row.anchor and stocked.catalogue.vectors is not None:
        found.scores["similar"] = cosines(row.anchor, found.item, stocked.catalogue.vectors)
        found.retriever[found.retriever == TOWER] = SIMILAR
    if row.listed is not None:
        found.retriever[:] = LIST


def _draft(row: Row, parts: Parts, conditions: Conditions, within_s: float | None) -> np.ndarray:
    """Draft a page's shelves and return the items that they want proposed."""
    stock = row.stock
    plans, _ = row.surface.page
    not_wanted = [*row.request.exclude, *([] if row.asked is None else row.asked.hidden)]
    asked = Asked(
        past=row.person.past,
        history=row.history,
        events=row.events,
        speaks=row.speaks,
        left_out=row.left_out,
        blocked=row.blocked,
        excluded=stock.catalogue.indices(not_wanted),
        k=row.request.k,
        at=int(row.request.at or 0),
        place=_place(row, parts),
        patience=Patience(within_s),
    )
    row.drafts = drafts_of(plans, asked, stock, parts.tables, conditions, parts.near)
    row.why += [asked.patience.told()] if asked.patience.lost else []
    past = [item for draft in row.drafts for item in draft.past]
    row.blocked[past] = False  # on their own shelves they may stand, though they were seen
    items = np.concatenate([np.zeros(0, np.int64), *(draft.items for draft in row.drafts)])
    every: np.ndarray = items[np.sort(np.unique(items, return_index=True)[1])]
    return every


def _place(row: Row, parts: Parts) -> Any:
    """Return where the person is: where this request comes from, else where they say that they live."""
    if parts.near is None:
        return None
    column = parts.near.column
    return row.request.context.get(column, row.person.profile.features.get(column))


def _quotas(row: Row, parts: Parts) -> dict[str, int]:
    """Return how many candidates each retriever may propose: below the ranker, members of a blend their depth."""
    form = row.surface.answers
    if form is Form.RERANK:
        return {}
    blend = parts.blend if form is Form.SLATE else None
    quotas = row.surface.quotas
    if row.rung == "item_knn" and not any(quotas.get(name) for name in KNN):  # they take the place of the tower
        return quotas | dict.fromkeys(KNN, quotas.get("tower", 0))
    if blend is None or row.rung in ("full", "popularity"):
        return quotas
    return quotas | dict.fromkeys(blend.members, blend.depth)


def _wanted(row: Row) -> int:
    """Return how many candidates an answer wants at least: more where caps pass some over, or shelves share them."""
    if row.surface.answers is Form.HOME:
        return row.request.k * row.surface.page[1]
    capped = any(rule.kind is Act.CAP for rule in row.rules)
    return 4 * row.request.k + 50 if capped else row.request.k


def _newest(row: Row) -> np.ndarray | None:
    """Return the cold items that a request may be shown, where its surface has a quota for them."""
    quota = 0 if row.surface.answers is Form.RERANK else row.surface.quotas.get("new", 0)
    if not quota:
        return None
    at, days = int(row.request.at or 0), row.surface.exploration.cold_days
    return cold_items(row.stock.catalogue, row.stock.offer, at, days, quota + len(row.left_out))
