"""Holds an answer against the one that was logged."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from playbill.engine.types import Page, Slate, SlateItem

_HEAD = ("bundle", "policy", "surface", "rung", "eligible_count", "profile_version")
_EXACT = ("item_id", "creative_id", "retriever", "rules", "decision_id")
_CLOSE = ("score", "propensity", "creative_propensity")


def items_of(answer: Slate | Page) -> list[tuple[str, Sequence[SlateItem]]]:
    """Return the lists of an answer, with what each is called in messages."""
    if isinstance(answer, Slate):
        return [("items", answer.items)]
    return [(f"shelves[{n}].items", shelf.items) for n, shelf in enumerate(answer.shelves)]


def same_bytes(logged: Slate | Page, again: Slate | Page) -> bool:
    """Return whether all that is shown is equal byte for byte, reasons included."""
    part = "items" if isinstance(logged, Slate) else "shelves"
    return msgspec.json.encode(getattr(logged, part)) == msgspec.json.encode(getattr(again, part))


def difference(logged: Slate | Page, again: Slate | Page, tolerance: float) -> str:
    """Return the first difference in words; empty where there is none.

    Args:
        tolerance: of scores and probabilities, relative.
    """
    for name in _HEAD:
        one, other = getattr(logged, name), getattr(again, name)
        if one != other:
            return _told(name, one, other)
    lists, others = items_of(logged), items_of(again)
    if len(lists) != len(others):
        return _told("shelves", len(lists), len(others))
    for (path, items), (_, theirs) in zip(lists, others, strict=True):
        for n, (one, other) in enumerate(zip(items, theirs, strict=False)):
            found = _of_item(f"{path}[{n}]", one, other, tolerance)
            if found:
                return found
        if len(items) != len(theirs):
            return _told(f"{path}, their number", len(items), len(theirs))
    return ""


def _of_item(path: str, one: SlateItem, other: SlateItem, tolerance: float) -> str:
    for name in _EXACT:
        if getattr(one, name) != getattr(other, name):
            return _told(f"{path}.{name}", getattr(one, name), getattr(other, name))
    pairs = [(name, getattr(one, name), getattr(other, name)) for name in _CLOSE]
    if one.probabilities.keys() != other.probabilities.keys():
        return _told(f"{path}.probabilities", sorted(one.probabilities), sorted(other.probabilities))
    pairs += [(f"probabilities.{task}", p, other.probabilities[task]) for task, p in one.probabilities.items()]
    for name, a, b in pairs:
        if a is b:  # both are left out
            continue
        if not (isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=tolerance, abs_tol=0)):
            return _told(f"{path}.{name}", a, b)
    return ""


def _told(path: str, logged: object, again: object) -> str:
    return f"{path}: logged {logged!r}, again {again!r}"
