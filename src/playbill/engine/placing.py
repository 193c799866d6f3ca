"""Pins, caps, floors and promotions on one slate: who stands where, whom chance may not move, what was passed over.

Pins take their places. Then items are reserved for floors, then for promotions, best first and within the caps, each
with the last place that it may come to stand at; where its own rank brings it up earlier, it stands there. What is left
goes to the best of the others that caps allow. Nothing here is drawn: the same order gives the same slate.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from playbill.bundle.rules import Act, Rule
from playbill.engine.rules import promoted

PLACING = (Act.PIN, Act.CAP, Act.FLOOR, Act.PROMOTE)
Groups = Mapping[str, Sequence[Sequence[object]]]  # by cap, by candidate: the values that it counts for
_WHOLE = (None,)  # of a cap that counts all that it is about together


@dataclass(slots=True)
class Placed:
    """A slate after the rules.

    Attributes:
        chosen: [n] int64 candidates, n <= k; shorter where caps leave nothing.
        rest: [m] int64 the candidates that chance may put in their place, best first: none would break a cap, and
            neither would all of them together. Empty where nothing is left to chance.
        held: [n] bool, places at which chance must not change anything, as a rule put or keeps the item there.
        rules: by candidate, names of the rules that brought it to its place.
        removed: by rule, candidates that a cap passed over.
    """

    chosen: np.ndarray
    rest: np.ndarray
    held: np.ndarray
    rules: dict[int, list[str]]
    removed: Counter[str]


@dataclass(slots=True)
class _Caps:
    """What stands on the slate already, by cap and value; `keys` are those of the candidates that were asked about."""

    rules: list[Rule]
    matched: Mapping[str, list[bool]]
    groups: Groups
    counts: Counter[tuple[str, object]] = field(default_factory=Counter)
    keys: dict[int, list[tuple[Rule, tuple[str, object]]]] = field(default_factory=dict)

    def mine(self, candidate: int) -> list[tuple[Rule, tuple[str, object]]]:
        if candidate not in self.keys:
            self.keys[candidate] = [
                (rule, (rule.name, value))
                for rule in self.rules
                if self.matched[rule.name][candidate]
                for value in (self.groups[rule.name][candidate] if rule.by else _WHOLE)
            ]
        return self.keys[candidate]

    def against(self, candidate: int) -> Rule | None:
        """Return the first cap that has no room for a candidate."""
        for rule, key in self.mine(candidate):
            if self.counts[key] >= rule.number:
                return rule
        return None

    def add(self, candidate: int) -> None:
        for _, key in self.mine(candidate):
            self.counts[key] += 1

    def room(self, candidates: np.ndarray) -> np.ndarray:
        """Return the candidates that may be added, in turn; all of them together break no cap."""
        if not self.rules:
            return candidates
        found = []
        for candidate in candidates.tolist():
            if self.against(candidate) is None:
                self.add(candidate)
                found.append(candidate)
        return np.asarray(found, np.int64)


def place(
    order: np.ndarray,
    k: int,
    rules: Sequence[Rule],
    matched: Mapping[str, np.ndarray],
    groups: Groups,
    explores: bool = True,
) -> Placed:
    """Return the slate that rules make of an order.

    Args:
        order: [M] int64 candidates, best first.
        k: places, at least 1.
        rules: those that act; kinds other than PLACING do nothing here.
        matched: [M] bool by rule name, by candidate.
        groups: of caps with `by`, the values of that column, by candidate.
        explores: whether chance will ask for `rest`.
    """
    rules = [rule for rule in rules if rule.kind in PLACING]
    rank: list[int] = order.tolist()
    hits = {rule.name: matched[rule.name].tolist() for rule in rules}
    k = min(k, len(rank))
    caps = _Caps([r for r in rules if r.kind is Act.CAP], hits, groups)
    by_place: dict[int, int] = {}
    rules_of: dict[int, list[str]] = {}
    for rule in rules:
        if rule.kind is Act.PIN and rule.number < k:
            _pin(rule, rank, k, hits[rule.name], by_place, rules_of, caps)
    pinned = set(by_place.values())
    free = [position for position in range(k) if position not in by_place]
    reserved = _reserve(rules, rank, k, len(free), hits, pinned, caps)
    due = _due(reserved, free)
    removed: Counter[str] = Counter()
    chosen: list[int] = []
    held: list[bool] = []
    done = set(pinned)
    ahead = 0

    def best() -> int | None:
        """Return the best candidate that is not placed and may be, and pass over those that may not."""
        nonlocal ahead
        while ahead < len(rank):
            candidate = rank[ahead]
            if candidate not in done:
                if candidate in reserved:
                    return candidate
                cap = caps.against(candidate)
                if cap is None:
                    return candidate
                removed[cap.name] += 1
                done.add(candidate)  # caps only fill up
            ahead += 1
        return None

    for position in range(k):
        if position in by_place:
            candidate: int | None = by_place[position]
        else:
            candidate = best()
            wanted = due.get(position)
            if wanted is not None and wanted not in done and wanted != candidate:
                candidate = wanted
                rules_of.setdefault(wanted, []).extend(reserved[wanted][1])
        if candidate is None:  # caps allow nobody here; a later place may be pinned
            continue
        if candidate not in pinned and candidate not in reserved:
            caps.add(candidate)
        done.add(candidate)
        chosen.append(candidate)
        held.append(candidate in pinned or candidate in reserved)
    shown = np.asarray(chosen, np.int64)
    rest = caps.room(order[~np.isin(order, shown)]) if explores else order[:0]
    return Placed(shown, rest, np.asarray(held, bool), rules_of, removed)


def _pin(
    rule: Rule,
    rank: list[int],
    k: int,
    matched: list[bool],
    by_place: dict[int, int],
    rules_of: dict[int, list[str]],
    caps: _Caps,
) -> None:
    """Give the best matching item the pin's place, or the next free one."""
    taken = set(by_place.values())
    candidate = next((c for c in rank if matched[c] and c not in taken), None)
    position = next((p for p in range(int(rule.number), k) if p not in by_place), None)
    if candidate is not None and position is not None:
        by_place[position] = candidate
        rules_of[candidate] = [rule.name]
        caps.add(candidate)


def _reserve(
    rules: Sequence[Rule],
    rank: list[int],
    k: int,
    free: int,
    matched: Mapping[str, list[bool]],
    pinned: set[int],
    caps: _Caps,
) -> dict[int, tuple[int, list[str]]]:
    """Return by candidate the last position that it may come to stand at, and the rules that want it."""
    reserved: dict[int, tuple[int, list[str]]] = {}
    for kind in (Act.FLOOR, Act.PROMOTE):
        for rule in rules:
            if rule.kind is not kind:
                continue
            mine = matched[rule.name]
            had = sum(mine[c] for c in pinned)
            need = (int(rule.number) if kind is Act.FLOOR else promoted(rule.number, k)) - had
            found = 0
            for candidate in rank:
                if found >= need:
                    break
                if not mine[candidate] or candidate in pinned:
                    continue
                if candidate not in reserved:
                    if len(reserved) == free or caps.against(candidate) is not None:
                        continue
                    caps.add(candidate)
                last = k - 1 if kind is Act.FLOOR else math.ceil((had + found + 1) / rule.number - 1e-9) - 1
                before, names = reserved.get(candidate, (k - 1, []))
                reserved[candidate] = min(before, last), [*names, rule.name]
                found += 1
    return reserved


def _due(reserved: Mapping[int, tuple[int, list[str]]], free: list[int]) -> dict[int, int]:
    """Return by position the reserved item that stands there unless it stood earlier: each as late as it may."""
    places, late = list(free), []
    due: dict[int, int] = {}
    # the worse ranked of one deadline stand behind the better: `reserved` is in the order of the rank within each rule
    for candidate, (last, _) in sorted(reversed(list(reserved.items())), key=lambda item: -item[1][0]):
        place = next((p for p in reversed(places) if p <= last), None)
        if place is None:
            late.append(candidate)
            continue
        places.remove(place)
        due[place] = candidate
    for candidate in reversed(late):  # pins stand where it should: the next place that is left
        due[places.pop(0)] = candidate
    return due
