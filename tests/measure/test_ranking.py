from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.errors import MeasureError
from playbill.measure.ranking import Targets, coverage, targets_from_pairs, user_metrics

Case = tuple[list[list[int]], list[set[int]], int, int]  # lists, targets, width, catalogue


def naive(lists: list[list[int]], targets: list[set[int]], k: int) -> dict[str, list[float]]:
    """The definitions of the module, one user and one place at a time."""
    out: dict[str, list[float]] = {m: [] for m in ("recall", "ndcg", "hit_rate", "mrr", "map")}
    for ranked, wanted in zip(lists, targets, strict=True):
        hit = [item in wanted for item in ranked[:k]]
        best = sum(1 / math.log2(p + 2) for p in range(min(k, len(wanted))))
        out["recall"].append(sum(hit) / len(wanted))
        out["hit_rate"].append(float(any(hit)))
        out["ndcg"].append(sum(1 / math.log2(p + 2) for p, h in enumerate(hit) if h) / best)
        out["mrr"].append(next((1 / (p + 1) for p, h in enumerate(hit) if h), 0.0))
        precisions = [sum(hit[: p + 1]) / (p + 1) for p, h in enumerate(hit) if h]
        out["map"].append(sum(precisions) / min(k, len(wanted)))
    return out


def padded(lists: list[list[int]], width: int) -> np.ndarray:
    return np.asarray([[*row, *[-1] * (width - len(row))] for row in lists], np.int64).reshape(len(lists), width)


def as_targets(targets: list[set[int]]) -> Targets:
    user = np.repeat(np.arange(len(targets)), [len(t) for t in targets])
    return targets_from_pairs(user, np.asarray([i for t in targets for i in t], np.int64), len(targets))


def test_the_case_in_the_docstring_by_hand() -> None:
    found = user_metrics(np.array([[7, 3, 9]]), as_targets([{3, 9, 4}]), [3], 10)
    second, third = 1 / math.log2(3), 1 / math.log2(4)
    assert found["recall_at_3"][0] == pytest.approx(2 / 3)
    assert found["hit_rate_at_3"][0] == 1.0
    assert found["mrr_at_3"][0] == 0.5
    assert found["map_at_3"][0] == pytest.approx((1 / 2 + 2 / 3) / 3)
    assert found["ndcg_at_3"][0] == pytest.approx((second + third) / (1 + second + third))


def test_a_user_without_a_list_scores_zero_and_still_counts() -> None:
    found = user_metrics(np.array([[1, 2], [-1, -1]]), as_targets([{1, 2}, {1}]), [1, 2], 5)
    for name, values in found.items():
        assert values[1] == 0.0, name
        assert values.shape == (2,)
    assert found["recall_at_2"].mean() == 0.5
    assert found["ndcg_at_1"][0] == 1.0
    assert found["recall_at_1"][0] == 0.5  # one of two, although only one fits


@st.composite
def cases(draw: st.DrawFn) -> Case:
    num_items = draw(st.integers(1, 30))
    width = draw(st.integers(1, 12))
    item = st.integers(1, num_items)
    users = draw(st.integers(1, 8))
    lists = [draw(st.lists(item, unique=True, max_size=min(width, num_items))) for _ in range(users)]
    targets = [draw(st.sets(item, min_size=1)) for _ in range(users)]
    return lists, targets, width, num_items


@given(cases(), st.data())
@settings(max_examples=150, deadline=None)
def test_equals_the_naive_reference(
    case: tuple[list[list[int]], list[set[int]], int, int], data: st.DataObject
) -> None:
    lists, targets, width, num_items = case
    k = data.draw(st.integers(1, width))
    recommended = padded(lists, width)
    found = user_metrics(recommended, as_targets(targets), [k], num_items)
    for name, expected in naive(lists, targets, k).items():
        np.testing.assert_allclose(found[f"{name}_at_{k}"], expected, rtol=1e-12, atol=0, err_msg=name)
    shown = {i for row in lists for i in row[:k]}
    assert coverage(recommended, k, num_items) == pytest.approx(len(shown) / num_items)


@given(cases(), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_order_of_users_and_of_target_pairs_does_not_matter(case: Case, random: random.Random) -> None:
    lists, targets, width, num_items = case
    order = list(range(len(lists)))
    random.shuffle(order)
    straight = user_metrics(padded(lists, width), as_targets(targets), [width], num_items)
    turned = user_metrics(
        padded([lists[i] for i in order], width), as_targets(targets).take(np.asarray(order)), [width], num_items
    )
    for name, values in straight.items():
        # numpy adds a row's gains in another order when the row stands elsewhere: equal but for the last bit
        np.testing.assert_allclose(values[order], turned[name], rtol=1e-14, atol=0)


def test_pairs_that_stand_twice_count_once() -> None:
    targets = targets_from_pairs(np.array([2, 0, 2, 2]), np.array([5, 1, 5, 3]), 3)
    assert targets.indptr.tolist() == [0, 1, 1, 3]
    assert targets.item.tolist() == [1, 3, 5]
    assert targets.take(np.array([2, 0])).item.tolist() == [3, 5, 1]


GOOD = np.array([[1, 2, 3], [4, 5, -1]])
TARGETS = as_targets([{1}, {5, 6}])


@pytest.mark.parametrize(
    ("recommended", "targets", "ks", "says"),
    [
        (np.array([[1.0, 2.0], [3.0, np.nan]]), TARGETS, [1], "row 1: expected integers"),
        (np.array([[1.0, 2.0], [3.0, 4.0]]), TARGETS, [1], "dtype float64"),
        (np.array([1, 2, 3]), TARGETS, [1], r"\[users, k\], got shape \(3,\)"),
        (np.array([[1, 2], [3, 3]]), TARGETS, [1], "row 1: an item stands twice"),
        (np.array([[1, 2], [-1, 3]]), TARGETS, [1], "row 1: -1 may stand only at the end"),
        (np.array([[1, 2], [3, 11]]), TARGETS, [1], r"row 1: an item is outside 1\.\.10"),
        (np.array([[0, 2], [3, 4]]), TARGETS, [1], r"row 0: an item is outside 1\.\.10"),
        (np.array([[1, 2], [3, -2]]), TARGETS, [1], "row 1: an item is outside"),
        (GOOD[:1], TARGETS, [1], "recommended has 1 users"),
        (GOOD, TARGETS, [4], r"1\.\.3"),
        (GOOD, TARGETS, [0], r"1\.\.3"),
        (GOOD, TARGETS, [], r"1\.\.3"),
        (GOOD, as_targets([{1}, set()]), [1], "row 1: the user has no targets"),
        (GOOD, as_targets([{1}, {11}]), [1], "row 1: target 11 is outside"),
        (GOOD, Targets(np.array([0, 1, 3]), np.array([1, 5, 5])), [1], "row 1: a target stands twice"),
        (GOOD, Targets(np.array([0, 2, 1]), np.array([1, 5, 5])), [1], "must rise from 0"),
    ],
)
def test_bad_input_is_refused_and_the_row_named(
    recommended: np.ndarray, targets: Targets, ks: list[int], says: str
) -> None:
    with pytest.raises(MeasureError, match=says):
        user_metrics(recommended, targets, ks, 10)


def test_a_pair_with_a_user_out_of_range_is_named() -> None:
    with pytest.raises(MeasureError, match=r"row 1: user is outside 0\.\.1"):
        targets_from_pairs(np.array([0, 2]), np.array([1, 1]), 2)


def test_a_hundred_thousand_users_fit_in_memory_and_score_what_chance_gives() -> None:
    rng = np.random.default_rng(0)
    users, num_items = 100_000, 50_000
    recommended = (rng.integers(num_items, size=(users, 1)) + np.arange(100) * 7) % num_items + 1
    targets = targets_from_pairs(np.repeat(np.arange(users), 10), rng.integers(1, num_items + 1, users * 10), users)
    found = user_metrics(recommended, targets, [10, 100], num_items)
    assert found["recall_at_100"].mean() == pytest.approx(100 / num_items, rel=0.1)
    assert found["recall_at_10"].mean() == pytest.approx(10 / num_items, rel=0.3)
