"""The slate at the end of a request's way through the steps."""

from __future__ import annotations

import msgspec
import numpy as np

from playbill.bundle.open import Bundle
from playbill.bundle.rules import Act, Rule
from playbill.bundle.rungs import RETRIEVERS
from playbill.engine.blending import BLEND, BLENDED
from playbill.engine.catalogue import Catalogue
from playbill.engine.compose import explore, order_by_score
from playbill.engine.conditions import Conditions
from playbill.engine.explain import reasons
from playbill.engine.newcomers import keep_places
from playbill.engine.parts import Parts
from playbill.engine.placing import PLACING, Placed, place
from playbill.engine.rank import ITEM_KNN, POPULAR, RETRIEVAL, utility
from playbill.engine.retrieve import NEW
from playbill.engine.row import Row
from playbill.engine.rules import moved
from playbill.engine.types import Reason, Removal, Slate, SlateItem

_WEIGHTS = {"retrieval": RETRIEVAL, "item_knn": ITEM_KNN, "popularity": POPULAR}


def make_slate(
    row: Row, bundle: Bundle, catalogue: Catalogue, parts: Parts, policy: str, version: int, conditions: Conditions
) -> Slate:
    """Return the slate of a request whose candidates are retrieved and ranked; its latency is left to the caller.

    Args:
        catalogue: whole, as `row.stock` has it narrowed.
        policy: name and hash, as slates show it.
        version: of the store when the profile was read.
        conditions: that rules are about.
    """
    request, candidates, surface = row.request, row.candidates, row.surface
    request_id = str(request.request_id)
    weights = _WEIGHTS.get(row.rung, surface.weights)
    if BLEND in candidates.scores and row.rung in BLENDED:
        weights = {BLEND: 1.0}
        if candidates.owed_to is not None:
            candidates.retriever = candidates.owed_to
    score = utility(weights, {**candidates.scores, **row.probabilities}, len(candidates))
    matched = {rule.name: _matched(rule, row, conditions) for rule in row.rules}
    score = moved(score, matched, row.rules)
    order = order_by_score(score, candidates.item, request.k, surface.diversity, catalogue.vectors)
    if row.newcomers is not None:
        by_item = np.argsort(candidates.item)
        kept = by_item[np.searchsorted(candidates.item, row.newcomers, sorter=by_item)]
        order, brought = keep_places(order, kept, request.k)
        candidates.retriever[brought] = NEW
    exploration = surface.exploration
    strength, places = exploration.strength(request.exploration), exploration.places(request.k)
    placed, k = None, request.k
    if len(order) and any(rule.kind in PLACING for rule in row.rules):
        placed = place(order, k, row.rules, matched, _groups(row, conditions), strength > 0 and places > 0)
        order, k = np.concatenate([placed.chosen, placed.rest]), len(placed.chosen)
    weight = None
    if exploration.cold_boost > 1:
        cold = catalogue.cold(candidates.item, int(request.at or 0), exploration.cold_days)
        weight = np.where(cold, exploration.cold_boost, 1.0)
    held = None if placed is None else placed.held
    chosen, propensity, drawn = explore(order, k, strength, places, bundle.policy.seed, request_id, weight, held)
    why = reasons(
        catalogue,
        candidates,
        chosen,
        drawn,
        propensity,
        row.history,
        row.events,
        parts.tables,
        catalogue.vectors,
        parts.ials,
    )
    note = parts.missing.get("index", "") if row.rung in ("full", "retrieval") else ""
    if row.rung in BLENDED and BLEND not in candidates.scores:
        unblended = parts.missing.get("blend") or (parts.blend and "not every member of the blend answered")
        row.why += [f"not blended: {unblended}"] if unblended else []
    items = _items(row, catalogue, chosen, score, propensity, why)
    if row.rules:
        _name_rules(items, chosen.tolist(), row, matched, placed)
    removed = row.removed + [Removal(rule=name, items=n) for name, n in (placed.removed.items() if placed else ())]
    return Slate(
        request_id=request_id,
        user_id=request.user_id,
        session_id=request.session_id,
        bundle=bundle.version,
        state_version=version,
        profile_version=row.person.version,
        policy=policy,
        surface=request.surface if request.surface in bundle.policy.surfaces else "slate",
        rung=row.rung,
        rung_reason="; ".join([*row.why, f"{note}: searched exactly"] if note else row.why),
        items=items,
        eligible_count=row.eligible,
        latency_ms=0.0,
        at=int(request.at or 0),
        removed=removed or msgspec.UNSET,
    )


def _matched(rule: Rule, row: Row, conditions: Conditions) -> np.ndarray:
    """Return [M] bool, the candidates that a rule is about."""
    if not rule.where:
        return np.ones(len(row.candidates), bool)
    found: np.ndarray = conditions.mask(rule.where, row.stock)[row.candidates.item]
    return found


def _groups(row: Row, conditions: Conditions) -> dict[str, list[list[object]]]:
    """Return for each cap by a column the values that each candidate counts for."""
    return {r.name: conditions.values(r.by, row.candidates.item, row.stock) for r in row.rules if r.by}


def _name_rules(
    items: list[SlateItem], chosen: list[int], row: Row, matched: dict[str, np.ndarray], placed: Placed | None
) -> None:
    """Write on each item the rules that put it where it stands, then those that changed its score."""
    scoring = [rule.name for rule in row.rules if rule.kind in (Act.BOOST, Act.BURY)]
    for item, candidate in zip(items, chosen, strict=True):
        names = list(placed.rules.get(candidate, ())) if placed is not None else []
        names += [name for name in scoring if matched[name][candidate]]
        if names:
            item.rules = names


def _items(
    row: Row,
    catalogue: Catalogue,
    chosen: np.ndarray,
    score: np.ndarray,
    propensity: np.ndarray,
    why: list[Reason],
) -> list[SlateItem]:
    names = list(row.probabilities)
    by_item = zip(*(row.probabilities[name][chosen].tolist() for name in names), strict=True)
    probabilities = [dict(zip(names, values, strict=True)) for values in by_item] if names else [{} for _ in why]
    columns = zip(
        row.candidates.item[chosen].tolist(),
        score[chosen].tolist(),
        probabilities,
        row.candidates.retriever[chosen].tolist(),
        why,
        propensity.tolist(),
        strict=True,
    )
    return [
        SlateItem(
            position=position,
            item_id=catalogue.ids[index],
            title=catalogue.titles[index],
            score=points,
            probabilities=chances,
            retriever=RETRIEVERS[code],
            reason=reason,
            propensity=shown,
        )
        for position, (index, points, chances, code, reason, shown) in enumerate(columns)
    ]
