"""The slate at the end of a request's way through the steps."""

from __future__ import annotations

import msgspec
import numpy as np

from playbill.bundle.open import Bundle
from playbill.bundle.pages import Form
from playbill.bundle.rules import Act, Rule
from playbill.bundle.rungs import PROPOSERS
from playbill.engine.blending import BLEND, BLENDED
from playbill.engine.catalogue import Catalogue
from playbill.engine.compose import explore
from playbill.engine.conditions import Conditions
from playbill.engine.explain import reasons
from playbill.engine.falls import falls
from playbill.engine.newcomers import keep_places
from playbill.engine.parts import Parts
from playbill.engine.placing import PLACING, Placed, place
from playbill.engine.rank import ITEM_KNN, POPULAR, RETRIEVAL, utility
from playbill.engine.retrieve import NEW, Candidates
from playbill.engine.row import Row
from playbill.engine.rules import moved
from playbill.engine.types import Reason, Removal, Slate, SlateItem
from playbill.engine.variety import Wanted, damped, order_by_score, pool, wanted_mix
from playbill.engine.wishes import moved_as_asked, name_wishes

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
    weights = weights_of(row)
    if BLEND in weights and candidates.owed_to is not None:
        candidates.retriever = candidates.owed_to
    score = utility(weights, {**candidates.scores, **row.probabilities}, len(candidates))
    matched = {rule.name: matched_by(rule, row, conditions) for rule in row.rules}
    score = moved(damped_for(row, score), matched, row.rules)
    if row.asked is not None:
        score = moved_as_asked(row.asked, candidates, score, row.stock, conditions)
    wanted = mix_for(row, score, conditions)
    order = order_by_score(score, candidates.item, request.k, surface.diversity, catalogue.vectors, wanted)
    if row.newcomers is not None:
        by_item = np.argsort(candidates.item)
        kept = by_item[np.searchsorted(candidates.item, row.newcomers, sorter=by_item)]
        order, brought = keep_places(order, kept, request.k)
        candidates.retriever[brought] = NEW
    exploration = surface.exploration
    strength, places = exploration.strength(request.exploration), exploration.places(request.k)
    placed, k = None, request.k
    if len(order) and any(rule.kind in PLACING for rule in row.rules):
        placed = place(order, k, row.rules, matched, groups_of(row, conditions), strength > 0 and places > 0)
        order, k = np.concatenate([placed.chosen, placed.rest]), len(placed.chosen)
    weight = chance_of_cold(row)
    held = None if placed is None else placed.held
    chosen, propensity, drawn = explore(order, k, strength, places, bundle.policy.seed, request_id, weight, held)
    fallen = falls(row, chosen, weights, parts) if surface.answers in (Form.SLATE, Form.RERANK) else None
    why = reasons(
        catalogue,
        candidates,
        chosen,
        drawn,
        propensity,
        row.history,
        row.events,
        row.speaks,
        parts.tables,
        catalogue.vectors,
        parts.ials,
        row.anchor,
        fallen,
    )
    if row.asked is not None:
        name_wishes(row.asked, surface.answers, why, chosen, drawn, candidates.item, row.stock, conditions)
    note = parts.missing.get("index", "") if row.rung in ("full", "retrieval") else ""
    if surface.answers is Form.SLATE and row.rung in BLENDED and BLEND not in candidates.scores:
        unblended = parts.missing.get("blend") or (parts.blend and "not every member of the blend answered")
        row.why += [f"not blended: {unblended}"] if unblended else []
    items = items_of(candidates, row.probabilities, catalogue, chosen, score, propensity, why)
    if row.rules:
        name_rules(items, chosen.tolist(), row, matched, placed)
    removed = row.removed + [Removal(rule=name, items=n) for name, n in (placed.removed.items() if placed else ())]
    return Slate(
        request_id=request_id,
        user_id=request.user_id,
        session_id=request.session_id,
        bundle=bundle.version,
        state_version=version,
        profile_version=row.person.version,
        policy=policy,
        surface=bundle.policy.known(request.surface),
        objective=weights,
        rung=row.rung,
        rung_reason="; ".join([*row.why, f"{note}: searched exactly"] if note else row.why),
        items=items,
        eligible_count=row.eligible,
        latency_ms=0.0,
        at=int(request.at or 0),
        removed=removed or msgspec.UNSET,
        not_ordered=_not_ordered(row, catalogue, chosen) or msgspec.UNSET,
        unread_context=row.unread_context or msgspec.UNSET,
    )


def chance_of_cold(row: Row) -> np.ndarray | None:
    """Return [M] how likely each candidate is to be drawn by chance, relative to others; None: all alike."""
    exploration = row.surface.exploration
    if exploration.cold_boost <= 1:
        return None
    cold = row.stock.catalogue.cold(row.candidates.item, int(row.request.at or 0), exploration.cold_days)
    return np.where(cold, exploration.cold_boost, 1.0)


def weights_of(row: Row) -> dict[str, float]:
    """Return what a score is made of on the rung that a request stands on."""
    trending = row.surface.answers is Form.TRENDING
    if trending or (row.anchor and row.rung != "popularity"):
        return {**row.surface.weights, "popularity": 1e-6}  # the last only orders what the others leave equal
    if BLEND in row.candidates.scores and row.rung in BLENDED:
        return {BLEND: 1.0}
    return _WEIGHTS.get(row.rung, row.surface.weights)


def _not_ordered(row: Row, catalogue: Catalogue, chosen: np.ndarray) -> list[int | str]:
    """Return of the items that a request wants in order those that are not on its slate.

    Args:
        chosen: [n] candidates that are: a cap may have left some over.
    """
    if row.listed is None:
        return []
    shown = set(row.candidates.item[chosen].tolist())
    found = zip(row.request.items, catalogue.indices(list(row.request.items)).tolist(), strict=True)
    return [item_id for item_id, index in found if index not in shown]


def damped_for(row: Row, score: np.ndarray) -> np.ndarray:
    """Return [M] scores as the surface's damping has them."""
    damping = row.surface.damping
    if isinstance(damping, msgspec.UnsetType):
        return score
    return damped(score, row.candidates.item, damping, row.stock.catalogue, int(row.request.at or 0))


def mix_for(row: Row, score: np.ndarray, conditions: Conditions) -> Wanted | None:
    """Return the mix that a slate should have; None where its surface asks for none, or nothing is known."""
    mix = row.surface.mix
    if isinstance(mix, msgspec.UnsetType) or not mix.strength or not len(row.history) or row.anchor:
        return None
    best = pool(np.argsort(-score, kind="stable"), row.request.k)
    past = conditions.values(mix.by, row.history, row.stock)
    return wanted_mix(past, conditions.values(mix.by, row.candidates.item[best], row.stock), mix.strength)


def matched_by(rule: Rule, row: Row, conditions: Conditions) -> np.ndarray:
    """Return [M] bool, the candidates that a rule is about."""
    if not rule.where:
        return np.ones(len(row.candidates), bool)
    found: np.ndarray = conditions.mask(rule.where, row.stock)[row.candidates.item]
    return found


def groups_of(row: Row, conditions: Conditions) -> dict[str, list[list[object]]]:
    """Return for each cap by a column the values that each candidate counts for."""
    return {r.name: conditions.values(r.by, row.candidates.item, row.stock) for r in row.rules if r.by}


def name_rules(
    items: list[SlateItem], chosen: list[int], row: Row, matched: dict[str, np.ndarray], placed: Placed | None
) -> None:
    """Write on each item the rules that put it where it stands, then those that changed its score."""
    scoring = [rule.name for rule in row.rules if rule.kind in (Act.BOOST, Act.BURY)]
    for item, candidate in zip(items, chosen, strict=True):
        names = list(placed.rules.get(candidate, ())) if placed is not None else []
        names += [name for name in scoring if matched[name][candidate]]
        if names:
            item.rules = names


def items_of(
    candidates: Candidates,
    by_task: dict[str, np.ndarray],
    catalogue: Catalogue,
    chosen: np.ndarray,
    score: np.ndarray,
    propensity: np.ndarray,
    why: list[Reason],
) -> list[SlateItem]:
    """Return the places of one slate or shelf.

    Args:
        by_task: probabilities [M] of the candidates.
        chosen: [n] candidates, in order; `propensity` [n] and `why` are theirs, `score` [M] is all candidates'.
    """
    names = list(by_task)
    by_item = zip(*(by_task[name][chosen].tolist() for name in names), strict=True)
    probabilities = [dict(zip(names, values, strict=True)) for values in by_item] if names else [{} for _ in why]
    columns = zip(
        candidates.item[chosen].tolist(),
        score[chosen].tolist(),
        probabilities,
        candidates.retriever[chosen].tolist(),
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
            retriever=PROPOSERS[code],
            reason=reason,
            propensity=shown,
        )
        for position, (index, points, chances, code, reason, shown) in enumerate(columns)
    ]
