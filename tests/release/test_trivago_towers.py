"""Towers for trivago's lists: none is asked about a list that it learned from, and none knows what came later."""

from __future__ import annotations

import numpy as np

from playbill.features.shown_lists import ShownLists, Touches
from playbill.release.trivago_tables import asked_at, first_of_runs, moments, split_at
from playbill.release.trivago_towers import FOLDS, WHOLE, deal, order_by_tower, tower_numbers

# two sessions: pictures of 7, of 8, then in one second pictures of 7 twice and the click on it; a click on 8
TOUCHES = Touches(
    session=np.array([0, 0, 0, 0, 0, 1]),
    item=np.array([7, 8, 7, 7, 7, 8]),
    kind=np.array([0, 0, 0, 0, 1, 1]),
    order=np.array([0, 1, 2, 3, 4, 9]),
    at=np.array([10, 12, 15, 15, 15, 15]),
)


def lists_at(order: list[int], at: list[int], session: list[int]) -> ShownLists:
    item = np.tile([7, 8, -1], (len(order), 1))
    return ShownLists(
        np.array(session), np.array(order), np.array(at), item, np.ones(item.shape), np.zeros(len(order), np.int64)
    )


def test_events_of_one_second_keep_their_order_and_a_click_does_not_know_itself() -> None:
    assert moments(TOUCHES).tolist() == [10_000_000, 12_000_000, 15_000_000, 15_000_001, 15_000_002, 15_000_000]
    shuffled = np.array([5, 3, 0, 4, 2, 1])
    mixed = Touches(*(getattr(TOUCHES, name)[shuffled] for name in ("session", "item", "kind", "order", "at")))
    assert (moments(mixed) == moments(TOUCHES)[shuffled]).all()
    assert asked_at(lists_at([4, 9], [15, 15], [0, 1]), mixed).tolist() == [15_000_002, 15_000_000]
    # the second picture of 7 repeats the first; the click on it does not
    assert mixed.order[first_of_runs(mixed)].tolist() == [0, 1, 2, 4, 9]
    split = split_at(np.array([1, 2, 3, 4, 5]), 4, 5)
    assert (split.train, split.valid) == (0.6, 0.2)


def test_no_tower_is_asked_about_lists_that_it_learned_from() -> None:
    rng = np.random.default_rng(5)
    n, until = 600, 700
    at = rng.integers(0, 1000, n)
    session = rng.integers(0, 40, n)
    touches = Touches(session, rng.integers(0, 9, n), rng.integers(0, 2, n), rng.permutation(n), at)
    clicks = np.flatnonzero(touches.kind == 1)
    lists = lists_at(touches.order[clicks].tolist(), at[clicks].tolist(), session[clicks].tolist())
    towers = deal(lists, touches, until)
    rows, asked = towers.pop(WHOLE)
    assert sorted(rows) == sorted(first_of_runs(touches)) and len(asked) == len(lists) and len(towers) == FOLDS
    times = np.zeros(len(lists), int)
    for learned, own in towers.values():
        times[own] += 1
        assert len(own) and (lists.at[own] < until).all()
        early = touches.at[learned] < until
        assert early.any() and not np.isin(touches.session[learned][early], lists.session[own]).any()
        # what came later is nobody's lesson: it stays, so that all tables hold the same validation part
        assert set(learned[~early]) == {row for row in rows if touches.at[row] >= until}
    assert (times == (lists.at < until)).all()


def test_scores_are_seen_beside_their_own_list() -> None:
    scores = np.array([[3.0, 1.0, 9.0], [0.5, 0.7, 0.6]], np.float32)
    there = np.array([[True, True, False], [True, True, True]])
    found = tower_numbers(scores, np.array([4, 0]), there)
    # the third place is empty: mean 2, deviation 1
    assert np.allclose(found[0], [[1, 0, 0], [-1, np.log(2), 2], [0, 0, 0]]) and not found[1].any()
    assert np.allclose(tower_numbers(7 * scores + 3, np.array([4, 4]), there)[0], found[0])
    assert order_by_tower(scores, np.array([4, 0])).tolist() == [[3.0, 1.0, 9.0], [0.0, -1.0, -2.0]]
