"""What a person asks for, on its way into an answer: what is not shown, what moves up and down, and who is told so.

never         narrows the catalogue, as a block of the policy does, and stands above every rule of it
not this      is blocked like what was excluded by the request
more          lifts scores by `WishPolicy.more` of the distance from the worst candidate's to the best's, and brings the
              most popular items that it is about among the candidates
less          lowers them by `WishPolicy.less`
less like it  lowers them by `WishPolicy.like` times the cosine with the item, of categories where there are no towers,
              the largest of all such items; half of it after each half-life

Consent is to what is observed. What somebody asks for in so many words holds for them with and without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from playbill.bundle.pages import Form
from playbill.bundle.policy import WishPolicy
from playbill.engine.alike import cosines
from playbill.engine.catalogue import DAY_US, Catalogue
from playbill.engine.conditions import Conditions
from playbill.engine.fresh import Stock
from playbill.engine.retrieve import Candidates
from playbill.engine.types import Reason, Removal
from playbill.engine.wording import listed
from playbill.errors import FilterError, RequestError
from playbill.filters.check import Kind
from playbill.state.wishes import Lean, Marked, Preference, Wishes

ASKED = "asked: "  # begins what stands beside the names of the policy's rules
CATEGORIES = "categories"
MAX_CONDITIONS = 5
_BROUGHT, _SPARE = 200, 16
_UNMOVED = (Form.SIMILAR, Form.TRENDING)  # what they show is said by their name; wishes only order it


@dataclass(slots=True)
class Asked:
    """What one person asks for, as one request meets it.

    Attributes:
        hidden: item ids.
        never: condition and name of each.
        leans: condition, preference and strength of each, above 0 for more and below for less.
        less, fading: [L] int64 items the like of which is not wanted, and [L] float64 what is left of each wish, 0..1.
        like: strength of those.
        risen: for each of `leans` above 0, [M] bool candidates that it lifted, once they were scored.
    """

    hidden: list[int | str]
    never: list[tuple[str, str]]
    leans: list[tuple[str, Preference, float]]
    less: np.ndarray
    fading: np.ndarray
    like: float
    risen: list[tuple[Preference, np.ndarray]] = field(default_factory=list)


def condition_of(preference: Preference, conditions: Conditions) -> str:
    """Return the condition that a preference is about.

    Raises:
        FilterError: it cannot be understood, or items have no categories.
    """
    text = preference.where
    if text is None:
        operator = "=" if conditions.known.get(CATEGORIES) is Kind.TEXT else "contains"
        quoted = ["'" + name.replace("'", "''") + "'" for name in sorted(set(preference.categories))]
        text = " or ".join(f"{CATEGORIES} {operator} {name}" for name in quoted)
    conditions.tree(text)
    return text


def check_preferences(preferences: Sequence[Preference], conditions: Conditions) -> None:
    """Do nothing where preferences can be understood.

    Raises:
        RequestError: one cannot; names its place.
    """
    conditional = [place for place, preference in enumerate(preferences) if preference.where is not None]
    if len(conditional) > MAX_CONDITIONS:  # each is one of its own, which no other person's answers share
        raise RequestError(
            f"preferences[{conditional[MAX_CONDITIONS]}].where",
            f"expected at most {MAX_CONDITIONS} conditions; categories are not counted",
        )
    for place, preference in enumerate(preferences):
        path = f"preferences[{place}]"
        if bool(preference.categories) == (preference.where is not None):
            given = "both" if preference.categories else "neither"
            raise RequestError(path, f"expected categories or a condition `where`, got {given}")
        try:
            condition_of(preference, conditions)
        except FilterError as error:
            raise RequestError(f"{path}.{'categories' if preference.categories else 'where'}", str(error)) from None


def asked_of(wishes: Wishes, policy: WishPolicy, conditions: Conditions, catalogue: Catalogue, at: int) -> Asked:
    """Return what somebody asks for, as far as this bundle knows what it is about.

    Args:
        at: UTC microseconds of the answer.
    """
    never, leans = [], []
    for preference in wishes.preferences:
        try:
            text = condition_of(preference, conditions)
        except FilterError:  # of a column that this bundle has no more; GET /v1/preferences says so
            continue
        if preference.kind is Lean.NEVER:
            never.append((text, f"{ASKED}{named(preference)}"))
        else:
            leans.append((text, preference, policy.more if preference.kind is Lean.MORE else -policy.less))
    less = catalogue.indices([mark.item_id for mark in wishes.less])
    fading = np.asarray([left_of(mark, policy, at) for mark in wishes.less], np.float64)
    hidden: list[int | str] = [mark.item_id for mark in wishes.hidden]
    return Asked(hidden, sorted(never), leans, less[less > 0], fading[less > 0], policy.like)


def left_of(mark: Marked, policy: WishPolicy, at: int) -> float:
    """Return what is left of a wish for less like an item, 0..1: half of it after each half-life."""
    return float(0.5 ** (max(0, at - mark.at) / (policy.half_life_days * DAY_US)))


def named(preference: Preference) -> str:
    """Return a preference in words, such as `never Horror or War`."""
    return f"{preference.kind.value} {preference.where or listed(preference.categories, 'or')}"


def hide(asked: Asked, catalogue: Catalogue, blocked: np.ndarray) -> tuple[np.ndarray, list[Removal]]:
    """Mark what is hidden in `blocked` [N + 1]; return its item_index, and how many of it could have been shown."""
    rows = catalogue.indices(asked.hidden)
    rows = rows[rows > 0]
    taken = int(np.count_nonzero(~blocked[rows]))
    blocked[rows] = True
    return rows, [Removal(rule=f"{ASKED}not this item", items=taken)] if taken else []


def wished_for(
    asked: Asked, form: Form, conditions: Conditions, stock: Stock, k: int, blocked: np.ndarray
) -> np.ndarray:
    """Return [n] int64, the most popular items of which somebody asks for more; none for surfaces that say themselves
    what they show.

    Args:
        stock: the catalogue, before it is narrowed.
        blocked: [M + 1] bool, what this person may not be shown.
    """
    found = [np.zeros(0, np.int64)]
    for text, _, strength in asked.leans if form in (Form.SLATE, Form.HOME) else ():
        if strength > 0:
            order = conditions.popular(text, stock)
            for some in (order[: 4 * (k + _SPARE)], order):
                mine = some[~blocked[some]][: k + _SPARE]
                if len(mine) == k + _SPARE:
                    break
            found.append(mine)
    both = np.concatenate(found)
    return both[np.sort(np.unique(both, return_index=True)[1])][:_BROUGHT]


def moved_as_asked(
    asked: Asked, candidates: Candidates, score: np.ndarray, stock: Stock, conditions: Conditions
) -> np.ndarray:
    """Return [M] scores as somebody wants them; nothing is taken away.

    Args:
        score: [M] of all candidates, higher is better.
    """
    if not len(score) or not (asked.leans or len(asked.less)):
        return score
    item, distance = candidates.item, float(score.max() - score.min()) or 1.0
    rise, fall = np.zeros(len(item)), np.zeros(len(item))
    for text, preference, strength in asked.leans:
        mine = conditions.mask(text, stock)[item]
        if strength > 0:
            asked.risen.append((preference, mine))
            rise += strength * mine
        else:
            fall -= strength * mine
    if len(asked.less):
        fall += (asked.like * asked.fading[:, None] * likeness(asked.less, item, stock.catalogue)).max(0)
    wanted = score + distance * rise
    found: np.ndarray = wanted - distance * fall
    return found


def likeness(less: np.ndarray, item: np.ndarray, catalogue: Catalogue) -> np.ndarray:
    """Return [L, M] 0..1, how like candidates are to some items by the catalogue's vectors; an item is like itself."""
    if catalogue.vectors is not None:
        near = np.stack([cosines(index, item, catalogue.vectors) for index in less.tolist()])
    else:
        near = np.zeros((len(less), len(item)))
    near[less[:, None] == item] = 1.0
    found: np.ndarray = np.clip(near, 0.0, 1.0)
    return found


def name_wishes(
    asked: Asked, form: Form, why: list[Reason], chosen: np.ndarray, drawn: np.ndarray, item: np.ndarray,
    stock: Stock, conditions: Conditions,
) -> None:  # fmt: skip
    """Put in place of the reasons of items that rose because somebody asked for more of them that they did.

    Args:
        why: [n] of the chosen candidates, changed in place.
        chosen: [n] places among the candidates; `drawn` [n] bool, by chance.
        item: [M] int64 item_index of the candidates.
    """
    if form in _UNMOVED:
        return
    for n, (place, by_chance) in enumerate(zip(chosen.tolist(), drawn.tolist(), strict=True)):
        risen = [preference for preference, mine in asked.risen if mine[place]]
        if not risen or by_chance:
            continue
        first = risen[0]
        fact: dict[str, Any] = {"asked": "more"}
        if first.where is not None:
            fact["where"] = what = first.where
        else:
            values = conditions.values(CATEGORIES, item[place : place + 1], stock)[0]
            both = [name for name in first.categories if name in values]
            fact["categories"], what = both, listed(both, "and")
        why[n] = Reason(kind="declared", text=f"Because you asked for more {what}", fact=fact)
