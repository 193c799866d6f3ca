"""Rules on one slate: by hand, and what holds of every slate that can be made."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.bundle.rules import Act, Rule
from playbill.engine.compose import explore
from playbill.engine.placing import Placed, place
from playbill.engine.rules import moved

ORDER = np.arange(12)
NEEDS = {Act.PIN: "position", Act.CAP: "most", Act.FLOOR: "least", Act.PROMOTE: "share"}


def rule(name: str, kind: Act, number: float, by: str = "") -> Rule:
    return Rule(name=name, kind=kind, where="x", by=by, **{NEEDS[kind]: number})


def ruled(k: int, *said: tuple[Rule, list[int]], groups: dict[str, list[list[object]]] | None = None) -> Placed:
    matched = {r.name: np.isin(ORDER, mine) for r, mine in said}
    return place(ORDER, k, [r for r, _ in said], matched, groups or {})


def test_a_pin_takes_its_place_and_the_next_where_that_is_taken() -> None:
    hero, other = rule("hero", Act.PIN, 1), rule("other", Act.PIN, 1)
    placed = ruled(5, (hero, [9, 10]), (other, [9, 3]))
    assert placed.chosen.tolist() == [0, 9, 3, 1, 2]  # 9 is taken, so the other pin stands for 3, one place down
    assert placed.held.tolist() == [False, True, True, False, False]
    assert placed.rules == {9: ["hero"], 3: ["other"]}
    assert placed.rest.tolist() == [4, 5, 6, 7, 8, 10, 11]
    assert ruled(5, (rule("deep", Act.PIN, 5), [9])).chosen.tolist() == [0, 1, 2, 3, 4]  # no such place
    assert ruled(3, (rule("last", Act.PIN, 2), [0])).chosen.tolist() == [1, 2, 0]  # down as well as up


def test_a_cap_passes_over_and_says_how_many() -> None:
    placed = ruled(5, (rule("cap", Act.CAP, 1), [0, 1, 2, 4, 11]))
    assert placed.chosen.tolist() == [0, 3, 5, 6, 7] and placed.removed == {"cap": 3}
    assert placed.rest.tolist() == [8, 9, 10]  # 11 would be one too many
    assert not placed.held.any() and placed.rules == {}
    nothing = ruled(5, (rule("cap", Act.CAP, 0), list(range(10))))
    assert nothing.chosen.tolist() == [10, 11]  # rather a short slate than a broken cap


def test_a_cap_by_column_counts_each_value() -> None:
    providers = [[p] for p in "aaabbbccc"] + [[], [], []]
    placed = ruled(6, (rule("one each", Act.CAP, 1, by="provider"), list(range(12))), groups={"one each": providers})
    assert placed.chosen.tolist() == [0, 3, 6, 9, 10, 11]  # what has no provider is of no cap
    genres = [["x", "y"], ["y"], ["x"], ["z"], ["z"], [], [], [], [], [], [], []]
    placed = ruled(3, (rule("one each", Act.CAP, 1, by="genre"), list(range(12))), groups={"one each": genres})
    assert placed.chosen.tolist() == [0, 3, 5] and placed.removed == {"one each": 3}


def test_a_floor_brings_up_the_best_and_a_promotion_spreads_them() -> None:
    placed = ruled(5, (rule("floor", Act.FLOOR, 2), [1, 8, 9]))
    assert placed.chosen.tolist() == [0, 1, 2, 3, 8] and placed.rules == {8: ["floor"]}
    assert placed.held.tolist() == [False, True, False, False, True]  # 1 stands on its own, and is needed all the same
    placed = ruled(10, (rule("fifth", Act.PROMOTE, 0.2), [6, 10, 11]))
    assert placed.chosen.tolist() == [0, 1, 2, 3, 6, 4, 5, 7, 8, 10] and placed.rules == {6: ["fifth"], 10: ["fifth"]}
    assert ruled(4, (rule("fifth", Act.PROMOTE, 0.2), [6])).chosen.tolist() == [0, 1, 2, 3]  # less than one place
    assert ruled(5, (rule("floor", Act.FLOOR, 3), [11])).chosen.tolist() == [0, 1, 2, 3, 11]  # there is one alone


def test_who_wins_where_rules_contradict_each_other() -> None:
    # a pin stays though the cap is full of it, and counts; the floor keeps to the cap
    said = (rule("pin", Act.PIN, 0), [11]), (rule("cap", Act.CAP, 1), [0, 10, 11]), (rule("floor", Act.FLOOR, 2), [10])
    for order in (said, said[::-1]):  # kinds come before places in the list
        placed = ruled(4, *order)
        assert placed.chosen.tolist() == [11, 1, 2, 3]
    # a floor takes the places that there are before a promotion does
    placed = ruled(2, (rule("half", Act.PROMOTE, 1.0), [9, 10]), (rule("floor", Act.FLOOR, 2), [6, 7]))
    assert placed.chosen.tolist() == [6, 7]
    # a floor whose item a cap would have let be taken by a better one has it kept
    groups = {"one each": [["a"], ["b"], ["b"], ["a"], *([[]] * 8)]}
    cap = rule("one each", Act.CAP, 1, by="provider")
    placed = ruled(3, (cap, list(range(12))), (rule("floor", Act.FLOOR, 1), [3]), groups=groups)
    assert placed.chosen.tolist() == [1, 3, 4] and placed.held.tolist() == [False, True, False]


def test_boosts_and_buries_by_hand() -> None:
    score = np.asarray([4.0, 3.0, 0.0])
    up = Rule(name="up", kind=Act.BOOST, where="x", strength=0.5)
    down = Rule(name="down", kind=Act.BURY, where="x", strength=0.25)
    marks = {"up": np.asarray([False, False, True]), "down": np.asarray([True, False, True])}
    assert moved(score, marks, [up, down]).tolist() == [3.0, 3.0, 1.0]
    assert moved(score - 10, marks, [up]).tolist() == [-6.0, -7.0, -8.0]  # the same below zero
    assert moved(np.ones(3), marks, [up]).tolist() == [1.0, 1.0, 1.5]
    assert moved(score, {}, []) is score


SOME = st.lists(st.booleans(), min_size=14, max_size=14)
RULES = st.lists(
    st.tuples(
        st.one_of(
            st.tuples(st.just(Act.PIN), st.integers(0, 8)),
            st.tuples(st.just(Act.CAP), st.integers(0, 4)),
            st.tuples(st.just(Act.FLOOR), st.integers(1, 6)),
            st.tuples(st.just(Act.PROMOTE), st.sampled_from([0.1, 0.2, 0.34, 0.5, 1.0])),
        ),
        SOME,
        st.booleans(),
    ),
    max_size=6,
)
VALUES = st.lists(st.lists(st.sampled_from("abc"), max_size=2, unique=True), min_size=14, max_size=14)


@settings(max_examples=500, deadline=None, database=None)
@given(said=RULES, values=VALUES, k=st.integers(1, 12), order=st.permutations(range(14)))
def test_what_holds_of_every_slate(said: list, values: list[list[object]], k: int, order: list[int]) -> None:
    rules = [
        rule(f"r{i}", kind, number, "column" if grouped and kind is Act.CAP else "")
        for i, ((kind, number), _, grouped) in enumerate(said)
    ]
    matched = {r.name: np.asarray(mine) for r, (_, mine, _) in zip(rules, said, strict=True)}
    groups = {r.name: values for r in rules if r.by}
    placed = place(np.asarray(order), k, rules, matched, groups)
    chosen, rest = placed.chosen.tolist(), placed.rest.tolist()
    assert len(chosen) == len(placed.held) <= k and len({*chosen, *rest}) == len(chosen) + len(rest)
    caps = [r for r in rules if r.kind is Act.CAP]
    assert caps or (len(chosen) == k and len(rest) == 14 - k)
    pins = [c for c in chosen if any(r.kind is Act.PIN and r.name in placed.rules.get(c, ()) for r in rules)]

    def counts(cap: Rule, shown: list[int]) -> Counter[object]:
        mine = [c for c in shown if matched[cap.name][c]]
        return Counter(v for c in mine for v in (groups[cap.name][c] if cap.by else ["all"]))

    for cap in caps:
        limit = {value: max(cap.number, n) for value, n in counts(cap, pins).items()}  # what pins alone bring stays
        # whatever of the rest chance puts into whichever free places, all of it at once included
        assert all(n <= limit.get(v, cap.number) for v, n in counts(cap, [*chosen, *rest]).items())
    if not caps:
        pinned = Counter()
        for r in rules:
            there = int(sum(matched[r.name][c] for c in chosen))
            if r.kind is Act.PIN and r.name in {n for names in placed.rules.values() for n in names}:
                pinned[r.name] = chosen.index(next(c for c in chosen if r.name in placed.rules.get(c, ())))
                assert pinned[r.name] >= r.number
        floors = [r for r in rules if r.kind is Act.FLOOR]
        if len(pins) + sum(r.number for r in floors) <= k:
            for r in floors:
                assert sum(matched[r.name][c] for c in chosen) >= min(r.number, int(matched[r.name].sum()))
            # and chance, which may empty every place that is not held, cannot break them
            for r in floors:
                held = [c for c, kept in zip(chosen, placed.held, strict=True) if kept]
                assert sum(matched[r.name][c] for c in held) >= min(r.number, int(matched[r.name].sum()))
        first = [r for r in rules if r.kind is Act.PROMOTE]
        if not pins and not floors and len(first) == 1:
            there, share = matched[first[0].name], first[0].number
            for n in range(1, k + 1):  # in every stretch from the top down
                assert sum(there[c] for c in chosen[:n]) >= min(int(share * n + 1e-9), int(there.sum()))
    if not rules:
        assert chosen == order[:k]
    # who is neither put nor kept by a rule stands in the order of the scores
    natural = [order.index(c) for c, kept in zip(chosen, placed.held, strict=True) if not kept]
    assert natural == sorted(natural)
    again = place(np.asarray(order), k, rules, matched, groups)
    assert again.chosen.tolist() == chosen and again.rules == placed.rules


def test_chance_leaves_held_places_alone_and_its_propensities_are_its_frequencies() -> None:
    cap, floor = rule("cap", Act.CAP, 2), rule("floor", Act.FLOOR, 2)
    said = (rule("pin", Act.PIN, 3), [11]), (cap, [0, 7, 8]), (floor, [4, 10])
    placed = ruled(5, *said)
    assert placed.chosen.tolist() == [0, 1, 4, 11, 10] and placed.held.tolist() == [False, False, True, True, True]
    order = np.concatenate([placed.chosen, placed.rest])
    assert placed.rest.tolist() == [2, 3, 5, 6, 7, 9]  # 8 beside 7 and 0 would be three
    rounds, shown, chances = 4_000, Counter(), {}
    for i in range(rounds):
        slate, propensity, drawn = explore(order, 5, 0.4, 3, 7, str(i), held=placed.held)
        assert slate[2:].tolist() == [4, 11, 10] and propensity[2:].tolist() == [1, 1, 1] and not drawn[2:].any()
        for position, (item, p) in enumerate(zip(slate.tolist(), propensity.tolist(), strict=True)):
            shown[position, item] += 1
            chances.setdefault((position, item), set()).add(p)
    for position in range(5):
        mine = {key: said for key, said in chances.items() if key[0] == position}
        assert all(len(said) == 1 for said in mine.values())
        assert sum(next(iter(said)) for said in mine.values()) == pytest.approx(1.0)
    for key, said in chances.items():
        [p] = said
        assert abs(shown[key] / rounds - p) <= 4.5 * np.sqrt(p * (1 - p) / rounds) + 1e-12
