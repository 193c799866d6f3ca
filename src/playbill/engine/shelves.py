"""Shelves of a page before they are filled: which a person could have, what each may hold, what its title rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from playbill.baselines.near import Near
from playbill.baselines.neighbours import Neighbours
from playbill.bundle.pages import ShelfKind, ShelfPlan
from playbill.engine.alike import like
from playbill.engine.catalogue import DAY_US, UNDATED, Catalogue
from playbill.engine.conditions import Conditions
from playbill.engine.fresh import Stock
from playbill.engine.wording import did, title_of
from playbill.features.fold import Past
from playbill.filters.check import Kind
from playbill.index.sharded import Patience

_NONE = np.zeros(0, np.int64)
_POOL = 4  # times as many items are brought to a shelf as it shows, so that the ranker has a choice


@dataclass(slots=True)
class Draft:
    """One shelf that a page could have.

    Attributes:
        key: tells it from the page's others.
        items: [n] int64 item_index that it may hold and that are brought to the answer for it, best first.
        mask: [M + 1] bool, what else of the answer's candidates it may hold; None: nothing.
        ordered: whether `items` stand in their own order and not in that of the scores.
        anchor: item_index that it is because of, 0 for none.
        past: by item_index, the event that each of its items rests on (continue, again).
        share: [n] float32 of near, what each of its items has of the best one's score there.
    """

    plan: ShelfPlan
    key: str
    title: str
    fact: dict[str, Any]
    items: np.ndarray = field(default_factory=lambda: _NONE)
    mask: np.ndarray | None = None
    ordered: bool = False
    anchor: int = 0
    past: dict[int, Past] = field(default_factory=dict)
    share: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What shelves are made from: one person at one moment.

    Attributes:
        past: the whole stored history, oldest first.
        history: [H] int64 known items, newest first, and `events` the newest event of each.
        speaks: [H] bool, whether a shelf may be because of it.
        left_out: [S] int64 item_index seen or excluded; `blocked` [M + 1] bool those and what is not available.
        excluded: [E] int64 item_index that the request does not want.
        k: items of a shelf.
        at: UTC microseconds.
        place: where the person is, as the request's context or they themselves say it; None where nobody says.
        patience: with an index in parts; it is told what was found without.
    """

    past: Sequence[Past]
    history: np.ndarray
    events: Sequence[Past]
    speaks: np.ndarray
    left_out: np.ndarray
    blocked: np.ndarray
    excluded: np.ndarray
    k: int
    at: int
    place: Any = None
    patience: Patience = field(default_factory=Patience)


def drafts_of(
    plans: Sequence[ShelfPlan],
    asked: Asked,
    stock: Stock,
    tables: Mapping[str, Neighbours],
    conditions: Conditions,
    near: Near | None = None,
) -> list[Draft]:
    """Return the shelves that one person's page could have, in the order of the plans.

    Args:
        stock: the catalogue, narrowed to what this request may be shown.
        tables: neighbours by retriever, for likeness where there are no vectors.
        near: what is trending by place, where the bundle has it.
    """
    found: list[Draft] = []
    for plan in plans:
        if plan.kind is ShelfKind.FOR_YOU:
            title = "Picked for you" if len(asked.history) else "Popular"
            every = np.ones(stock.catalogue.num_items + 1, bool)
            found.append(Draft(plan, "for_you", title, {"events": len(asked.past)}, mask=every))
        elif plan.kind is ShelfKind.TRENDING:
            order = stock.offer.trending_order
            found.append(Draft(plan, "trending", "Trending now", {}, _free(order, asked, _POOL * asked.k)))
        elif plan.kind is ShelfKind.NEAR:
            found += [] if near is None else [_near(plan, asked, near)]
        elif plan.kind is ShelfKind.POPULAR:
            order = stock.offer.popular_order
            found.append(Draft(plan, "popular", "Popular", {}, _free(order, asked, _POOL * asked.k)))
        elif plan.kind is ShelfKind.BECAUSE:
            found += _because(plan, asked, stock, tables)
        elif plan.kind is ShelfKind.CONTINUE:
            found.append(_continue(plan, asked, stock))
        elif plan.kind is ShelfKind.AGAIN:
            found.append(_again(plan, asked, stock))
        else:
            found += _by_value(plan, asked, stock, conditions)
    return [draft for draft in found if draft.mask is not None or len(draft.items)]


def _near(plan: ShelfPlan, asked: Asked, near: Near) -> Draft:
    """What people of the same place choose."""
    items, share = near.of(asked.place)
    free = np.flatnonzero(~asked.blocked[items])[: _POOL * asked.k]
    fact = {"column": near.column, "value": asked.place}
    return Draft(plan, "near", "Trending near you", fact, items[free], share=share[free])


def _because(plan: ShelfPlan, asked: Asked, stock: Stock, tables: Mapping[str, Neighbours]) -> list[Draft]:
    """Shelves of what is like the items that were chosen last, and liked as far as that was said."""
    anchors = [
        (int(item), event)
        for item, event, speaks in zip(asked.history.tolist(), asked.events, asked.speaks.tolist(), strict=True)
        if speaks and (not plan.events or event.event in plan.events)
    ][: plan.most]
    near = (
        like([item for item, _ in anchors], stock, tables, _POOL * asked.k, asked.left_out, asked.patience)
        if anchors
        else []
    )
    return [
        Draft(
            plan,
            f"because:{item}",
            f"Because you {did(event)} {title_of(stock.catalogue, item)}",
            {"item_id": stock.catalogue.ids[item], "event": event.event, "event_id": event.event_id},
            items[~asked.blocked[items]],
            anchor=item,
        )
        for (item, event), items in zip(anchors, near, strict=True)
    ]


def _continue(plan: ShelfPlan, asked: Asked, stock: Stock) -> Draft:
    """What was begun and not ended since."""
    last: dict[int | str, Past] = {}
    for event in asked.past:
        if event.event in plan.events or event.event in plan.finished:
            last.pop(event.item_id, None)  # so that the latest stand last
            last[event.item_id] = event
    since = asked.at - round(plan.days * DAY_US)
    begun = {i: e for i, e in reversed(last.items()) if e.event in plan.events and since <= e.at <= asked.at}
    return _of_the_past(plan, "continue", "Continue where you stopped", begun, asked, stock)


def _again(plan: ShelfPlan, asked: Asked, stock: Stock) -> Draft:
    """What was chosen, and not lately."""
    last = {event.item_id: event for event in asked.past if event.event in plan.events}
    until = asked.at - round(plan.days * DAY_US)
    old = {item_id: event for item_id, event in last.items() if event.at < until}
    return _of_the_past(plan, "again", "Choose again", old, asked, stock)


def _of_the_past(
    plan: ShelfPlan, key: str, title: str, events: Mapping[int | str, Past], asked: Asked, stock: Stock
) -> Draft:
    """A shelf of items that were seen: nothing but that stands against them."""
    rows = stock.catalogue.indices(list(events))
    may = (rows > 0) & stock.offer.available[rows] & ~np.isin(rows, asked.excluded)
    past = {int(row): event for row, event, kept in zip(rows.tolist(), events.values(), may, strict=True) if kept}
    items = np.asarray(list(past)[: _POOL * asked.k], np.int64)
    return Draft(plan, key, title, {"events": plan.events}, items, ordered=key == "continue", past=past)


def _by_value(plan: ShelfPlan, asked: Asked, stock: Stock, conditions: Conditions) -> list[Draft]:
    """Shelves of the values of a column, such as categories, that the person chose most."""
    kind = conditions.known.get(plan.by)
    if not conditions.names(plan.by) or not len(asked.history):
        return []
    values = conditions.values(plan.by, asked.history, stock)
    counts = Counter(value for mine in values for value in mine if isinstance(value, str) and value)
    found = []
    for value, count in counts.most_common(2 * plan.most):
        column = "`" + plan.by + "`"
        text = f"{column} {'contains' if kind is Kind.TEXTS else '='} '" + value.replace("'", "''") + "'"
        fact = {"column": plan.by, "value": value, "chosen": count, "of": len(asked.history)}
        if plan.kind is ShelfKind.CATEGORY:
            order = conditions.popular(text, stock)
            mask = conditions.mask(text, stock)
            items = _free(order, asked, _POOL * asked.k)
            found.append(Draft(plan, f"category:{value}", value, fact, items, mask))
        else:
            young = _young(stock.catalogue, stock.offer.newest_order, asked.at, plan.days)
            items = _free(young[conditions.mask(text, stock)[young]], asked, _POOL * asked.k)
            if len(items):
                fact["published_at"] = int(stock.catalogue.published[items].min())
                found.append(Draft(plan, f"new:{value}", f"New in {value}", fact, items))
        if len(found) == plan.most:
            break
    return found


def _young(catalogue: Catalogue, newest: np.ndarray, at: int, days: float) -> np.ndarray:
    published = catalogue.published[newest]
    young: np.ndarray = newest[(published > UNDATED) & (published <= at) & (published > at - round(days * DAY_US))]
    return young


def _free(order: np.ndarray, asked: Asked, most: int) -> np.ndarray:
    """Return the first items of an order that this person may be shown."""
    # most are neither seen nor filtered out: a few more than asked for are looked at before all are
    for some in (order[: most + len(asked.left_out) + 64], order):
        found: np.ndarray = some[~asked.blocked[some]][:most]
        if len(found) == most:
            break
    return found
