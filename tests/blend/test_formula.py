"""The formula by hand, and what it must not depend on: scale, company, and who else is asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.blend.formula import FEATURES, blended, candidates, order, owed
from playbill.blend.lists import Lists, best_items, from_arrays, join
from playbill.blend.model import Blend, apply, single, weights_of

ITEMS = 9


def lists_of(*rows: list[tuple[int, float]]) -> Lists:
    return from_arrays(
        [np.array([i for i, _ in row], int) for row in rows], [np.array([s for _, s in row]) for row in rows]
    )


def test_features_by_hand() -> None:
    first = lists_of([(4, 3.0), (2, 2.0), (7, 1.0)], [])
    second = lists_of([(2, 5.0)], [(1, 0.5), (3, 0.25)])
    found = candidates([first, second], FEATURES, ITEMS)
    assert found.indptr.tolist() == [0, 3, 5] and found.item.tolist() == [2, 4, 7, 1, 3]
    deviation = np.sqrt(2 / 3)  # of 3, 2, 1 round their mean of 2
    low, half = np.log(0.01), np.log(0.51)
    of_first = [
        [0, half, -np.log(2), 1, 1 / 62],
        [1 / deviation, np.log(1.01), 0, 1, 1 / 61],
        [-1 / deviation, low, -np.log(3), 1, 1 / 63],
    ]
    np.testing.assert_allclose(found.columns[:3, :5], of_first, rtol=1e-6)
    # the first member has no list for the second query, and no say
    assert not found.columns[3:, :5].any()
    # a list of one item has no scores to compare: only its rank speaks, and item 4 and 7 stand a place below its end
    np.testing.assert_allclose(found.columns[0, 5:], [0, 0, 0, 1, 1 / 61], rtol=1e-6)
    np.testing.assert_allclose(found.columns[1:3, 5:], [[0, 0, -np.log(2), 0, 0]] * 2, rtol=1e-6)
    # scores 0.5 and 0.25: one deviation above and below their mean
    np.testing.assert_allclose(found.columns[3:, 5:7], [[1, np.log(1.01)], [-1, low]], rtol=1e-6)


def test_what_an_item_owes_to_a_member_is_what_it_would_lose_off_its_list() -> None:
    first, second = lists_of([(4, 3.0), (2, 2.0), (7, 1.0)]), lists_of([(2, 5.0), (8, 4.0)])
    weights = np.array([0.5, 2.0, 1.0, -0.25])
    found = candidates([first, second], ["standard", "rank"], ITEMS)
    shares = owed(found, weights, 2)
    deviation = np.sqrt(2 / 3)
    # item 2: 0 and second place of the first, where off the list it would stand at -1 / deviation in the fourth
    assert found.item[0] == 2
    assert shares[0, 0] == pytest.approx(0.5 * (0 + 1 / deviation) + 2 * (np.log(4) - np.log(2)), rel=1e-6)
    assert shares[0, 1] == pytest.approx(1 * (1 + 1) - 0.25 * np.log(3), rel=1e-6)
    # item 4 stands on the first list alone
    assert found.item[1] == 4 and shares[1, 1] == 0


@st.composite
def members(draw: st.DrawFn) -> list[Lists]:
    number, queries = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    made = []
    for _ in range(number):
        rows = []
        for _ in range(queries):
            items = draw(st.lists(st.integers(1, ITEMS), unique=True, max_size=ITEMS))
            scores = draw(st.lists(st.integers(-8, 8), min_size=len(items), max_size=len(items)))
            rows.append([(i, float(s)) for i, s in zip(items, sorted(scores, reverse=True), strict=True)])
        made.append(lists_of(*rows))
    return made


@settings(max_examples=25, deadline=None)
@given(members(), st.floats(0.001, 1000), st.floats(-50, 50), st.integers(0, 2**32 - 1))
def test_stretched_and_shifted_scores_give_the_same_order(
    made: list[Lists], stretch: float, shift: float, seed: int
) -> None:
    weights = np.random.default_rng(seed).normal(size=len(made) * len(FEATURES))
    moved = [Lists(m.indptr, m.item, m.score * stretch + shift) for m in made]
    found, other = candidates(made, FEATURES, ITEMS), candidates(moved, FEATURES, ITEMS)
    np.testing.assert_allclose(found.columns, other.columns, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(blended(found, weights), blended(other, weights), rtol=1e-3, atol=1e-2)


@settings(max_examples=25, deadline=None)
@given(members(), st.integers(0, 2**32 - 1))
def test_a_query_is_answered_the_same_alone_and_in_company(made: list[Lists], seed: int) -> None:
    weights = np.random.default_rng(seed).normal(size=len(made) * len(FEATURES))
    together = candidates(made, FEATURES, ITEMS)
    ordered = order(together, blended(together, weights))
    for query in range(len(made[0])):
        alone = candidates([m.take(np.array([query])) for m in made], FEATURES, ITEMS)
        mine = order(alone, blended(alone, weights))
        rows = slice(ordered.indptr[query], ordered.indptr[query + 1])
        assert mine.item.tolist() == ordered.item[rows].tolist()
        assert mine.score.tolist() == ordered.score[rows].tolist()  # to the last bit


@settings(max_examples=25, deadline=None)
@given(members())
def test_a_blend_of_one_member_is_its_own_order(made: list[Lists]) -> None:
    only = apply(single("mine", "tower", 5), {"tower": made[0]}, ITEMS)
    expected = made[0].first(5)
    assert only.indptr.tolist() == expected.indptr.tolist() and only.item.tolist() == expected.item.tolist()


def test_equal_scores_keep_the_lower_item_first_in_lists_and_in_blends() -> None:
    scores = np.array([-np.inf, 2, 5, 5, 2, 2, 1, -np.inf, 0, 7.0])
    allowed = np.ones(10, bool)
    allowed[9] = False
    assert best_items(scores, allowed, 4).tolist() == [2, 3, 1, 4]  # also at the cut: 5 has the score of 1 and 4
    twins = apply(
        Blend(name="b", members=["a"], depth=9, features=["listed"], weights={"a": {"listed": 1.0}}),
        {"a": lists_of([(8, 3.0), (3, 2.0), (5, 1.0)])},
        ITEMS,
    )
    assert twins.item.tolist() == [3, 5, 8]


def test_weights_that_are_not_named_count_nothing() -> None:
    blend = Blend(name="b", members=["a", "b"], depth=3, features=["rank", "listed"], weights={"b": {"rank": 2.0}})
    assert weights_of(blend).tolist() == [0, 0, 2, 0]


def test_lists_are_taken_cut_and_joined() -> None:
    lists = lists_of([(1, 3.0), (2, 2.0)], [], [(5, 1.0)])
    taken = lists.take(np.array([2, 0, 2]))
    assert taken.indptr.tolist() == [0, 1, 3, 4] and taken.item.tolist() == [5, 1, 2, 5]
    assert lists.first(1).item.tolist() == [1, 5] and lists.first(1).indptr.tolist() == [0, 1, 1, 2]
    assert join([lists, taken]).indptr.tolist() == [0, 2, 2, 3, 4, 6, 7]
