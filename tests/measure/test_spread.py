from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from playbill.errors import MeasureError
from playbill.measure.ranking import targets_from_pairs, user_metrics
from playbill.measure.spread import (
    catalogue_influence,
    diversity,
    effective_items,
    exposures,
    gini,
    novelty,
    self_information,
)

LISTS = np.array([[7, 3, -1], [3, 1, 2], [-1, -1, -1]])


def naive_gini(counts: list[int]) -> float:
    """Mean difference over all ordered pairs of items, over twice the mean."""
    n, total = len(counts), sum(counts)
    return sum(abs(a - b) for a in counts for b in counts) / (2 * n * total) if total else 0.0


def test_the_case_in_the_docstring_by_hand() -> None:
    known = np.zeros(7)
    known[6], known[2] = 3, 0  # with one person more: 4 of 8, 1 of 8
    found = novelty(LISTS[:1], 2, self_information(known, 7))
    assert found[0] == pytest.approx((1 + 3) / 2)
    assert naive_gini([0, 0, 0, 4]) == gini(np.array([0, 0, 0, 4])) == 0.75
    assert effective_items(np.array([5, 5, 0])) == pytest.approx(10 * 9 / (5 * 4 * 2))


def test_lists_without_items_have_no_novelty_and_lists_of_one_no_diversity() -> None:
    vectors = np.eye(7)
    assert np.isnan(novelty(LISTS, 3, np.ones(7))).tolist() == [False, False, True]
    assert np.isnan(diversity(LISTS, 1, vectors)).all()
    assert diversity(LISTS, 3, vectors)[:2].tolist() == [1.0, 1.0]
    assert exposures(LISTS, 2, 7).tolist() == [1, 0, 2, 0, 0, 0, 1]


def test_diversity_of_category_sets_is_one_minus_their_overlap() -> None:
    categories = [{"a", "b"}, {"a"}, {"c"}, set()]
    vectors = np.array([["abc"[j] in c for j in range(3)] for c in categories], float)
    pairs = [1 - len(a & b) / math.sqrt(len(a) * len(b)) if a and b else 1.0 for a, b in combinations(categories, 2)]
    for form in (vectors, sparse.csr_array(vectors)):
        assert diversity(np.array([[1, 2, 3, 4]]), 4, form)[0] == pytest.approx(np.mean(pairs))


@st.composite
def lists(draw: st.DrawFn) -> tuple[list[list[int]], int, int]:
    num_items = draw(st.integers(1, 12))
    width = draw(st.integers(1, 6))
    item = st.integers(1, num_items)
    return draw(st.lists(st.lists(item, unique=True, max_size=width), min_size=1, max_size=8)), num_items, width


def padded(rows: list[list[int]], width: int) -> np.ndarray:
    return np.asarray([[*row, *[-1] * (width - len(row))] for row in rows], np.int64).reshape(len(rows), width)


@given(lists(), st.data())
@settings(max_examples=50, deadline=None)
def test_equals_the_naive_reference(case: tuple[list[list[int]], int, int], data: st.DataObject) -> None:
    rows, num_items, width = case
    k = data.draw(st.integers(1, width))
    recommended = padded(rows, width)
    draw = np.random.default_rng(len(rows))
    vectors, information = draw.normal(size=(num_items, 3)), draw.random(num_items)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    shown = [sum(i in row[:k] for row in rows) for i in range(1, num_items + 1)]
    assert exposures(recommended, k, num_items).tolist() == shown
    assert gini(np.asarray(shown)) == pytest.approx(naive_gini(shown), abs=1e-12)
    for row, bits, far in zip(
        rows, novelty(recommended, k, information), diversity(recommended, k, vectors), strict=True
    ):
        top = [i - 1 for i in row[:k]]
        assert np.isnan(bits) if not top else bits == pytest.approx(np.mean([information[i] for i in top]))
        pairs = [1 - float(unit[a] @ unit[b]) for a, b in combinations(top, 2)]
        assert np.isnan(far) if not pairs else far == pytest.approx(np.mean(pairs), abs=1e-9)


@given(lists(), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_bounds_and_the_order_of_people(case: tuple[list[list[int]], int, int], random: object) -> None:
    rows, num_items, width = case
    recommended = padded(rows, width)
    categories = np.random.default_rng(0).integers(0, 2, size=(num_items, 4))
    far = diversity(recommended, width, categories)
    assert np.all((far[~np.isnan(far)] >= 0) & (far[~np.isnan(far)] <= 1))
    assert 0 <= gini(exposures(recommended, width, num_items)) < 1
    turned = recommended[::-1]
    np.testing.assert_allclose(diversity(turned, width, categories)[::-1], far)
    assert gini(exposures(turned, width, num_items)) == gini(exposures(recommended, width, num_items))


@given(st.lists(st.integers(1, 15), unique=True, min_size=1, max_size=10), st.sets(st.integers(1, 15), min_size=1))
@settings(max_examples=50, deadline=None)
def test_recall_and_hit_rate_rise_with_k_and_a_perfect_list_scores_one(ranked: list[int], wanted: set[int]) -> None:
    targets = targets_from_pairs(np.zeros(len(wanted), np.int64), np.asarray(sorted(wanted)), 1)
    ks = list(range(1, len(ranked) + 1))
    found = user_metrics(np.array([ranked]), targets, ks, 15)
    assert all(0 <= v[0] <= 1 + 1e-12 for v in found.values())
    for metric in ("recall", "hit_rate"):
        assert np.all(np.diff([found[f"{metric}_at_{k}"][0] for k in ks]) >= 0)
    best = user_metrics(np.array([sorted(wanted)]), targets, [len(wanted)], 15)
    assert all(v[0] == pytest.approx(1) for v in best.values())
    with pytest.raises(MeasureError, match="an item stands twice in a list"):
        user_metrics(np.array([[*ranked, ranked[0]]]), targets, [1], 15)


def test_ndcg_equals_that_of_scikit_learn() -> None:
    from sklearn.metrics import ndcg_score

    draw = np.random.default_rng(1)
    users, items, k = 60, 40, 10
    score = draw.random((users, items))
    relevant = draw.random((users, items)) < 0.1
    relevant[~relevant.any(1), 0] = True
    recommended = np.argsort(-score, axis=1)[:, :k] + 1
    user, item = np.nonzero(relevant)
    found = user_metrics(recommended, targets_from_pairs(user, item + 1, users), [k], items)[f"ndcg_at_{k}"]
    each = [ndcg_score(r[None].astype(float), s[None], k=k) for r, s in zip(relevant, score, strict=True)]
    np.testing.assert_allclose(found, each, rtol=1e-12)


def test_errors_of_coverage_and_gini_are_what_other_people_would_vary_by() -> None:
    """200 samples of 150 people, against the median of the errors that each sample states of itself."""
    draw = np.random.default_rng(2)
    attraction = np.log(1 / np.arange(1, 201))
    stated, values = [], []
    for _ in range(200):
        lists = np.argpartition(-(attraction + draw.gumbel(size=(150, 200))), 5, axis=1)[:, :5]
        found = catalogue_influence(np.repeat(np.arange(150), 5), lists.ravel(), 150, 200)
        values.append([found["coverage"][0], found["gini"][0]])
        stated.append([np.sqrt(((f - f.mean()) ** 2).sum()) for _, f in found.values()])
    ratio = np.median(stated, axis=0) / np.std(values, axis=0)
    assert 1.0 <= ratio[0] < 1.6, ratio  # the jackknife of a number of kinds errs on the wide side
    assert 0.85 < ratio[1] < 1.15, ratio


def test_contributions_are_those_of_leaving_each_person_out() -> None:
    draw = np.random.default_rng(3)
    lists = np.argsort(draw.random((12, 30)), axis=1)[:, :3]
    found = catalogue_influence(np.repeat(np.arange(12), 3), lists.ravel(), 12, 30)
    for person in range(12):
        left = np.bincount(np.delete(lists, person, axis=0).ravel(), minlength=30)
        assert found["coverage"][0] - found["coverage"][1][person] == pytest.approx((left > 0).mean())
        assert found["gini"][0] - found["gini"][1][person] == pytest.approx(gini(left))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: gini(np.array([1, -1])), "row 1: -1"),
        (lambda: gini(np.array([np.nan])), "row 0: nan"),
        (lambda: effective_items(np.ones((2, 2))), r"got shape \(2, 2\)"),
        (lambda: self_information(np.array([3]), 2), "known by 3 people, and there are 2"),
        (lambda: novelty(LISTS, 4, np.ones(7)), r"1\.\.3"),
        (lambda: novelty(LISTS, 3, np.ones(6)), r"outside 1\.\.6"),
        (lambda: diversity(LISTS, 3, np.full((7, 2), np.nan)), "finite numbers"),
        (lambda: diversity(LISTS, 3, np.ones(7)), r"\[items, width\]"),
    ],
)
def test_bad_input_is_refused(call: object, says: str) -> None:
    with pytest.raises(MeasureError, match=says):
        call()  # type: ignore[operator]  # a parametrised lambda
