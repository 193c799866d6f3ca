"""A page: shelves in the order of their expected utility, and no item on two of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from playbill.bundle.open import Bundle
from playbill.bundle.pages import ShelfKind
from playbill.bundle.rules import Act
from playbill.bundle.rungs import PROPOSERS
from playbill.engine.compose import explore
from playbill.engine.conditions import Conditions
from playbill.engine.explain import reasons
from playbill.engine.falls import Falls, falls
from playbill.engine.parts import Parts
from playbill.engine.placing import Placed, place
from playbill.engine.rank import utility
from playbill.engine.retrieve import NEW, TRENDING, Candidates
from playbill.engine.row import Row
from playbill.engine.rules import moved
from playbill.engine.shelves import Draft
from playbill.engine.slate import chance_of_cold, damped_for, groups_of, items_of, matched_by, name_rules, weights_of
from playbill.engine.types import Answer, Page, PageShelf, Reason, Removal, Slate
from playbill.engine.variety import order_by_score
from playbill.engine.wishes import moved_as_asked, name_wishes
from playbill.engine.wording import did

AGAIN, SIMILAR = PROPOSERS.index("again"), PROPOSERS.index("similar")
_CODES = {
    ShelfKind.TRENDING: TRENDING,
    ShelfKind.NEAR: TRENDING,
    ShelfKind.NEW: NEW,
    ShelfKind.BECAUSE: SIMILAR,
    ShelfKind.CONTINUE: AGAIN,
    ShelfKind.AGAIN: AGAIN,
}


@dataclass(slots=True)
class _Chosen:
    """A shelf with what stands on it: `order` [n] candidates, `spare` those that chance may put in their place."""

    draft: Draft
    utility: float
    order: np.ndarray
    spare: np.ndarray
    placed: Placed | None


def make_page(row: Row, bundle: Bundle, parts: Parts, policy: str, version: int, conditions: Conditions) -> Page:
    """Return the page of a request whose candidates are retrieved and ranked; its latency is left to the caller.

    Shelf by shelf, from the top: of all that could come next the one whose best items, of those that are left, are
    worth the most. Exploration then acts within each shelf, on candidates that stand nowhere on the page, each of them
    the spare of one shelf alone; so what is drawn on one changes nothing on another, and propensities are exact.

    Args:
        policy: name and hash, as slates show it.
        version: of the store when the profile was read.
        conditions: that rules are about.
    """
    request, candidates, catalogue = row.request, row.candidates, row.stock.catalogue
    score = utility(weights_of(row), {**candidates.scores, **row.probabilities}, len(candidates))
    matched = {rule.name: matched_by(rule, row, conditions) for rule in row.rules}
    score = moved(damped_for(row, score), matched, row.rules)
    if row.asked is not None:
        score = moved_as_asked(row.asked, candidates, score, row.stock, conditions)
    worth = score - min(0.0, float(score.min(initial=0.0)))
    chosen = _fill(row, score, worth, matched, conditions)
    exploration = row.surface.exploration
    strength, places = exploration.strength(request.exploration), exploration.places(request.k)
    weight = chance_of_cold(row)
    removed = list(row.removed)
    shelves = []
    drawn_on = []
    for shelf in chosen:
        order = np.concatenate([shelf.order, shelf.spare])
        held = None if shelf.placed is None else shelf.placed.held
        key = f"{request.request_id}|{shelf.draft.key}"
        drawn_on.append(explore(order, len(shelf.order), strength, places, bundle.policy.seed, key, weight, held))
    fallen = _falls(row, [shelf.draft for shelf in chosen], [mine for mine, _, _ in drawn_on], parts)
    for position, (shelf, (mine, propensity, drawn)) in enumerate(zip(chosen, drawn_on, strict=True)):
        draft, placed = shelf.draft, shelf.placed
        why = _reasons(row, draft, mine, drawn, propensity, parts, fallen.get(position))
        if row.asked is not None and draft.plan.kind is ShelfKind.FOR_YOU:
            name_wishes(row.asked, row.surface.answers, why, mine, drawn, candidates.item, row.stock, conditions)
        proposed = _proposed(candidates, draft)
        items = items_of(replace(candidates, retriever=proposed), row.probabilities, catalogue, mine, score, propensity,
                         why)  # fmt: skip
        if row.rules:
            name_rules(items, mine.tolist(), row, matched, placed)
        removed += [Removal(rule=name, items=n) for name, n in (placed.removed.items() if placed else ())]
        shelves.append(
            PageShelf(
                position=position,
                kind=draft.plan.kind.value,
                title=draft.title,
                fact=draft.fact,
                expected_utility=shelf.utility,
                items=items,
            )
        )
    return Page(
        request_id=str(request.request_id),
        user_id=request.user_id,
        session_id=request.session_id,
        bundle=bundle.version,
        state_version=version,
        profile_version=row.person.version,
        policy=policy,
        surface=bundle.policy.known(request.surface),
        objective=weights_of(row),
        rung=row.rung,
        rung_reason="; ".join(row.why),
        shelves=shelves,
        eligible_count=row.eligible,
        latency_ms=0.0,
        at=int(request.at or 0),
        removed=_together(removed) or msgspec.UNSET,
        unread_context=row.unread_context or msgspec.UNSET,
    )


def _fill(
    row: Row, score: np.ndarray, worth: np.ndarray, matched: dict[str, np.ndarray], conditions: Conditions
) -> list[_Chosen]:
    """Return the shelves of a page, from the top, with what stands on each."""
    candidates, k = row.candidates, row.request.k
    by_score = np.argsort(-score, kind="stable")
    seen = np.isin(candidates.item, _of_the_past(row.drafts))
    pools = [_pool(draft, candidates, by_score, seen) for draft in row.drafts]
    free = np.ones(len(candidates), bool)
    discount = 1 / np.log2(2 + np.arange(k))
    left = list(range(len(pools)))
    chosen: list[_Chosen] = []
    most = row.surface.page[1]
    while left and len(chosen) < most:
        best, worthiest = -1, -math.inf
        for n in list(left):
            pools[n] = pools[n][free[pools[n]]]
            plan = row.drafts[n].plan
            if len(pools[n]) < plan.least:
                left.remove(n)
                continue
            mine = worth[pools[n][:k]]
            value = plan.weight * float(mine @ discount[: len(mine)])
            if value > worthiest:
                best, worthiest = n, value
        if best < 0 or (chosen and worthiest <= 0):  # what is worth nothing is no shelf, except for the only one
            break
        left.remove(best)
        draft, order, placed = row.drafts[best], pools[best], None
        if not draft.ordered:
            spread = order_by_score(
                score[order], candidates.item[order], k, row.surface.diversity, row.stock.catalogue.vectors
            )
            order = order[spread]
        # a page has one place to pin to and to promote on, the shelf that is a slate; caps hold on every shelf
        whole = draft.plan.kind is ShelfKind.FOR_YOU
        kinds = (Act.PIN, Act.CAP, Act.FLOOR, Act.PROMOTE) if whole else (Act.CAP,)
        rules = [rule for rule in row.rules if rule.kind in kinds]
        if rules:
            placed = place(order, k, rules, matched, groups_of(row, conditions), False)
        shown = order[:k] if placed is None else placed.chosen
        free[shown] = False
        chosen.append(_Chosen(draft, worthiest, shown, shown[:0], placed))
    capped = any(rule.kind is Act.CAP for rule in row.rules)
    for shelf in chosen:
        if not capped and not shelf.draft.ordered:
            spare = _pool(shelf.draft, candidates, by_score, seen)
            shelf.spare = spare[free[spare]]
            free[shelf.spare] = False
    return chosen


def _pool(draft: Draft, candidates: Candidates, by_score: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return [n] candidates that a shelf may hold, in the order in which they come."""
    if draft.past:
        by_item = np.argsort(candidates.item)
        at = np.searchsorted(candidates.item, draft.items, sorter=by_item)
        at = by_item[np.minimum(at, len(by_item) - 1)]
        mine = at[candidates.item[at] == draft.items]  # as they stand in the past
        return mine if draft.ordered else by_score[np.isin(by_score, mine)]
    may = np.isin(candidates.item, draft.items)
    if draft.mask is not None:
        may |= draft.mask[candidates.item]
    found: np.ndarray = by_score[(may & ~seen)[by_score]]
    return found


def _of_the_past(drafts: list[Draft]) -> np.ndarray:
    found = [item for draft in drafts for item in draft.past]
    return np.asarray(found, np.int64)


def _proposed(candidates: Candidates, draft: Draft) -> np.ndarray:
    code = _CODES.get(draft.plan.kind)
    return candidates.retriever if code is None else np.full(len(candidates), code, np.int8)


def _falls(row: Row, drafts: list[Draft], chosen: list[np.ndarray], parts: Parts) -> dict[int, Falls]:
    """Return `falls` of the shelves whose items stand there for their scores, by place; all asked for at once."""
    mine = [n for n, draft in enumerate(drafts) if draft.plan.kind not in _CODES]
    if not mine:
        return {}
    every = falls(row, np.concatenate([chosen[n] for n in mine]), weights_of(row), parts)
    if every is None:
        return {}
    ends = np.cumsum([len(chosen[n]) for n in mine])
    split = np.split(every.fall, ends[:-1], axis=1)
    return {n: Falls(every.place, fall) for n, fall in zip(mine, split, strict=True)}


def _reasons(
    row: Row,
    draft: Draft,
    chosen: np.ndarray,
    drawn: np.ndarray,
    propensity: np.ndarray,
    parts: Parts,
    fallen: Falls | None,
) -> list[Reason]:
    candidates, catalogue = row.candidates, row.stock.catalogue
    found = reasons(
        catalogue,
        candidates if draft.past else replace(candidates, retriever=_proposed(candidates, draft)),
        chosen,
        drawn,
        propensity,
        row.history,
        row.events,
        row.speaks,
        parts.tables,
        catalogue.vectors,
        parts.ials,
        draft.anchor,
        fallen,
    )
    if draft.share is not None:
        shares = dict(zip(draft.items.tolist(), draft.share.tolist(), strict=True))
        for n, item in enumerate(candidates.item[chosen].tolist()):
            if not drawn[n]:
                found[n] = Reason(kind="near", text="Popular near you now", fact={**draft.fact, "share": shares[item]})
    if not draft.past:
        return found
    kind = draft.plan.kind.value
    for n, item in enumerate(candidates.item[chosen].tolist()):
        if not drawn[n]:
            event = draft.past[item]
            fact = {"event": event.event, "event_id": event.event_id, "at": event.at}
            text = "You have not finished this" if draft.ordered else f"You {did(event)} this before"
            found[n] = Reason(kind=kind, text=text, fact=fact)
    return found


def _together(removed: list[Removal]) -> list[Removal]:
    """Return what rules took from the page, one entry a rule."""
    total: dict[str, int] = {}
    for removal in removed:
        total[removal.rule] = total.get(removal.rule, 0) + removal.items
    return [Removal(rule=name, items=items) for name, items in total.items()]


def flat(page: Page) -> Slate:
    """Return the page's items as one slate, top shelf first; the items are the page's own."""
    header = {name: getattr(page, name) for name in Answer.__struct_fields__}
    return Slate(**header, items=[item for shelf in page.shelves for item in shelf.items])
