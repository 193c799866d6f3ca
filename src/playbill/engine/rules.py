"""Rules of the policy on their way into an answer: which act, what they bring in, how they move scores.

Blocks narrow the catalogue (`conditions`), boosts and buries move scores here, and the others place items on the slate
(`placing`). So the order in which they are heard is that of `bundle.rules.Act`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from playbill.bundle.open import Bundle
from playbill.bundle.rules import Act, Rule, bounds_us, user_kinds
from playbill.engine.conditions import Conditions
from playbill.engine.fresh import Stock
from playbill.filters.check import Kind, parse
from playbill.filters.mask import holds
from playbill.filters.read import Node

_BROUGHT = 4  # times as many items are brought in as a rule has places for, so that the ranker has a choice
_SPARE = 16


@dataclass(frozen=True, slots=True)
class Ready:
    """A rule as it is asked on each request; times in UTC microseconds, None where open."""

    rule: Rule
    segment: Node | None
    since: int | None
    until: int | None


def ready_rules(bundle: Bundle) -> list[Ready]:
    """Return the rules of a bundle's policy, in the order of the list."""
    users = user_kinds(bundle.spec, bundle.vocabularies)
    return [
        Ready(rule, parse(rule.segment, users) if rule.segment else None, *bounds_us(rule))
        for rule in bundle.policy.every_rule
    ]


def acting(
    rules: Sequence[Ready], surface: str, at: int, features: Mapping[str, Any], users: Mapping[str, Kind]
) -> list[Rule]:
    """Return the rules that act on one request.

    Args:
        surface: whose settings answer.
        at: UTC microseconds.
        features: of the person, as they may be used; flags count as 1 and 0.
        users: kinds of the columns that segments ask for.
    """
    row: dict[str, Any] | None = None
    found = []
    for ready in rules:
        if ready.rule.surfaces and surface not in ready.rule.surfaces:
            continue
        if (ready.since is not None and at < ready.since) or (ready.until is not None and at >= ready.until):
            continue
        if ready.segment is not None:
            if row is None:
                row = {n: int(v) if isinstance(v, bool) else v for n, v in features.items()}
            if not holds(ready.segment, row, users):
                continue
        found.append(ready.rule)
    return found


def brought_in(rules: Sequence[Rule], conditions: Conditions, stock: Stock, k: int, blocked: np.ndarray) -> np.ndarray:
    """Return [n] int64 items, the most popular of those that rules have places for, each once.

    Args:
        stock: the catalogue, before it is narrowed.
        blocked: [M + 1] bool, what this person may not be shown.
    """
    found = []
    for rule in rules:
        places = _places(rule, k)
        if places:
            order = conditions.popular(rule.where, stock)
            most = _BROUGHT * places + _SPARE
            # most are neither seen nor filtered out: a few more than asked for are looked at before all are
            for some in (order[: 2 * most], order):
                mine = some[~blocked[some]][:most]
                if len(mine) == most:
                    break
            found.append(mine)
    both = np.concatenate(found) if found else np.zeros(0, np.int64)
    return both[np.sort(np.unique(both, return_index=True)[1])]


def moved(score: np.ndarray, matched: Mapping[str, np.ndarray], rules: Sequence[Rule]) -> np.ndarray:
    """Return [M] scores after boosts and buries; a strength is a share of the distance between worst and best.

    Args:
        score: [M] of all candidates, higher is better.
        matched: [M] bool by rule name, which candidates a rule is about.
    """
    signs = {Act.BOOST: 1.0, Act.BURY: -1.0}
    strengths = [(rule, signs[rule.kind] * rule.number) for rule in rules if rule.kind in signs]
    if not strengths or not len(score):
        return score
    distance = float(score.max() - score.min()) or 1.0
    lift = np.zeros(len(score))
    for rule, strength in strengths:
        lift += strength * matched[rule.name]
    found: np.ndarray = score + distance * lift
    return found


def _places(rule: Rule, k: int) -> int:
    """Return for how many items of its own a rule has places on a slate of k."""
    if rule.kind is Act.PIN:
        return int(rule.number < k)
    if rule.kind is Act.FLOOR:
        return min(int(rule.number), k)
    return promoted(rule.number, k) if rule.kind is Act.PROMOTE else 0


def promoted(share: float, k: int) -> int:
    """Return how many of k places a share of them is."""
    return int(share * k + 1e-9)
