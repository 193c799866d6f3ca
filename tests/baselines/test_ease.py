from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.baselines.ease import count_pairs, ease_neighbours, fit_ease, score_ease, solve_ease
from playbill.baselines.neighbours import score_histories
from playbill.errors import ConfigError

NOTHING = np.zeros(0, np.int64)


def test_two_items_by_hand() -> None:
    # people: {1, 2}, {1, 2}, {1}; X'X = [[3, 2], [2, 2]], with l2 = 1: [[4, 2], [2, 3]], determinant 8
    # P = [[3, -2], [-2, 4]] / 8, so B[1, 2] = 2 / 4 and B[2, 1] = 2 / 3
    ease = fit_ease(np.asarray([0, 0, 1, 1, 2]), np.asarray([1, 2, 1, 2, 1]), 3, l2=1)
    assert ease.items.tolist() == [1, 2]
    np.testing.assert_allclose(ease.weights, [[0, 0.5], [2 / 3, 0]], rtol=1e-6)
    scores = score_ease(ease, np.asarray([0, 1, 3, 3, 5]), np.asarray([1, 1, 2, 3, 0]))
    assert scores.dtype == np.float32
    # nobody had item 3: it is scored 0 and tells nothing
    np.testing.assert_allclose(scores[:, 1:], [[0, 0.5, 0], [2 / 3, 0.5, 0], [0, 0, 0], [0, 0, 0]], rtol=1e-6)
    assert np.isneginf(scores[:, 0]).all()


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 6), max_size=8), min_size=1, max_size=8), st.sampled_from([0.5, 3.0, 100.0]))
def test_it_agrees_with_the_textbook(log: list[list[int]], l2: float) -> None:
    person = np.repeat(np.arange(len(log)), [len(items) for items in log])
    item = np.asarray([i for items in log for i in items], np.int64)
    had = np.zeros((len(log), 7))
    had[person, item] = 1
    had[:, 0] = 0
    inverse = np.linalg.inv(had.T @ had + l2 * np.eye(7))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    indptr = np.concatenate([[0], np.cumsum([len(items) for items in log])])
    scores = score_ease(fit_ease(person, item, 6, l2=l2), indptr, item)
    np.testing.assert_allclose(scores[:, 1:], (had @ weights)[:, 1:], atol=1e-5)


def test_a_slice_of_histories_scores_like_the_whole() -> None:
    rng = np.random.default_rng(0)
    person, item = rng.integers(0, 20, 200), rng.integers(1, 9, 200)
    ease = fit_ease(person, item, 8)
    indptr = np.asarray([0, 3, 7, 7, 12])
    whole = score_ease(ease, indptr, item[:12])
    np.testing.assert_array_equal(score_ease(ease, indptr[1:4], item[:12]), whole[1:3])


def test_edges() -> None:
    empty = fit_ease(NOTHING, NOTHING, 2)
    assert score_ease(empty, np.asarray([0, 1]), np.asarray([1])).tolist() == [[-np.inf, 0, 0]]
    one = fit_ease(np.asarray([5]), np.asarray([1]), 1)
    assert score_ease(one, np.asarray([0, 1]), np.asarray([1])).tolist() == [[-np.inf, 0]]
    assert score_ease(one, np.asarray([0]), NOTHING).shape == (0, 2)


def test_what_does_not_fit_is_refused_with_the_size() -> None:
    item = np.arange(1, 12)
    with pytest.raises(ConfigError, match="11 items would take 0 GB, at most 10 are allowed; leave EASE out"):
        fit_ease(item * 0, item, 11, max_items=10)
    with pytest.raises(ConfigError, match="l2 of EASE must be above 0, got 0"):
        fit_ease(NOTHING, NOTHING, 1, l2=0)
    # items that nobody had do not count
    fit_ease(item[:10] * 0, item[:10], 1_000_000, max_items=10)


def test_as_a_table_it_scores_the_same_and_cut_short_it_keeps_what_is_largest_in_size() -> None:
    rng = np.random.default_rng(1)
    person, item = rng.integers(0, 40, 300), rng.integers(1, 15, 300)
    ease = fit_ease(person, item, 16, l2=3)  # nobody had 15 or 16
    indptr = np.asarray([0, 5, 5, 20])
    had = np.concatenate([rng.permutation(14)[:5] + 1, rng.integers(0, 17, 15)])
    whole = ease_neighbours(ease, most=16, length=100)
    assert whole.decay == 0 and whole.length == 100 and (whole.weight < 0).any()
    np.testing.assert_allclose(
        score_histories(whole, indptr, had)[:, 1:], score_ease(ease, indptr, had)[:, 1:], atol=1e-5
    )
    newest = score_ease(ease, indptr, had, length=3)
    np.testing.assert_allclose(score_histories(whole, indptr, had, length=3)[:, 1:], newest[:, 1:], atol=1e-5)
    short = ease_neighbours(ease, most=4, length=100)
    positive = ease_neighbours(ease, most=4, length=100, signed=False)
    assert (np.diff(short.indptr)[ease.items] == 4).all() and (positive.weight > 0).all()
    for row, one in enumerate(ease.items.tolist()):
        mine = slice(short.indptr[one], short.indptr[one + 1])
        kept = np.sort(np.abs(short.weight[mine]))
        np.testing.assert_allclose(kept, np.sort(np.abs(ease.weights[row]))[-4:], rtol=1e-6)
        assert (np.diff(short.weight[mine]) <= 0).all()
        best = np.sort(ease.weights[row])[::-1][:4]
        theirs = positive.weight[positive.indptr[one] : positive.indptr[one + 1]]
        np.testing.assert_allclose(theirs, best[best > 0], rtol=1e-6)
    assert ease_neighbours(fit_ease(NOTHING, NOTHING, 2), 3, 10).indptr.tolist() == [0, 0, 0, 0]


def test_pairs_counted_once_serve_every_l2() -> None:
    rng = np.random.default_rng(2)
    person, item = rng.integers(0, 30, 200), rng.integers(0, 9, 200)
    pairs = count_pairs(person, item, 8)
    for l2 in (1.0, 50.0, 1.0):
        np.testing.assert_array_equal(solve_ease(pairs, l2).weights, fit_ease(person, item, 8, l2=l2).weights)
