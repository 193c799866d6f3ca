"""Order of rows, cut histories, weights, and the ranker's negatives."""

from __future__ import annotations

import math

import numpy as np
import pytest

from playbill.dataset.dataset import Examples
from playbill.errors import ConfigError, TrainingError
from playbill.features.fold import EventPool
from playbill.training.batches import order
from playbill.training.batches.rows import (
    before_absences,
    cut_histories,
    earlier_and_later,
    recency_weights,
    share_within_visits,
)
from playbill.training.ranking.sampling import Touched, candidates_of, list_offset
from playbill.training.retrieval.data import forget

DAY_US = 86_400_000_000


def rows(now_days: list[float]) -> Examples:
    n = len(now_days)
    now = (np.asarray(now_days) * DAY_US).astype(np.int64)
    zeros = np.zeros(n, np.int64)
    return Examples(person=zeros, target_row=np.arange(n), start=zeros, end=np.arange(n), now=now)


def test_an_epoch_reads_every_row_once_and_the_next_in_another_order() -> None:
    first = np.concatenate([order.step_rows(12, 4, seed=3, epoch=0, step=s) for s in range(3)])
    second = np.concatenate([order.step_rows(12, 4, seed=3, epoch=1, step=s) for s in range(3)])
    assert sorted(first) == sorted(second) == list(range(12))
    assert list(first) != list(second)


def test_a_step_does_not_depend_on_the_steps_before() -> None:
    expected = order.step_rows(12, 4, seed=3, epoch=1, step=2)
    order.step_rows(12, 4, seed=9, epoch=0, step=0)
    np.testing.assert_array_equal(order.step_rows(12, 4, seed=3, epoch=1, step=2), expected)
    one, other = (order.generator(1, 2, 3, purpose).random(4) for purpose in (order.UNKNOWN, order.NEGATIVES))
    assert not np.array_equal(one, other)


def test_batch_rows() -> None:
    assert order.batch_rows(1000, 256, processes=2) == 256
    assert order.batch_rows(101, 256, processes=2) == 100
    with pytest.raises(ConfigError, match="multiple of the 3 processes, got 256"):
        order.batch_rows(1000, 256, processes=3)
    with pytest.raises(ConfigError, match="1 training rows are too few for 2"):
        order.batch_rows(1, 256, processes=2)


def test_rows_are_asked_as_if_the_person_were_away() -> None:
    at = (np.asarray([0.0, 0.1, 0.2, 5.0, 5.1, 9.0]) * DAY_US).astype(np.int64)
    zeros = np.zeros(6, np.int64)
    pool = EventPool(zeros + 1, zeros + 1, zeros.astype(np.float32), at, zeros, np.asarray([0, 6]), np.arange(6))
    whole = rows([0.0, 0.1, 0.2, 5.0, 5.1, 9.0])
    assert before_absences(pool, whole, 0.0, 0.1, order.generator(1, 0, 0, order.CUTS)) is whole
    found = before_absences(pool, whole, 1.0, 1e-9, order.generator(1, 0, 0, order.CUTS))
    assert found.target_row.tolist() == [3, 4, 5] and found.end.tolist() == [3, 3, 5]
    assert share_within_visits(0.02, 0.0) == 1 and share_within_visits(0.02, 0.5) == 0.02
    assert share_within_visits(0.02, 0.05) == pytest.approx(0.5)


def test_cut_histories_keeps_the_older_end() -> None:
    whole = rows([0.0] * 50)
    draw = order.generator(1, 0, 0, order.CUTS)
    cut = cut_histories(whole, stale=1.0, empty=0.0, draw=draw)
    assert (cut.start == whole.start).all() and (cut.end <= whole.end).all() and (cut.end >= cut.start).all()
    assert len(set((whole.end - cut.end)[25:])) > 5
    assert (cut_histories(whole, 0.0, 0.0, draw).end == whole.end).all()
    assert (cut_histories(whole, 0.0, 1.0, draw).end == whole.start).all()


def test_recency_weights() -> None:
    # ages 0, 14 and 28 days at a half-life of 14: 1, 1/2, 1/4 of what lies above a floor of 0.2
    weight = recency_weights(rows([28, 14, 0]), half_life_days=14, floor=0.2)
    assert weight.mean() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(weight / weight[0], [1, 0.6, 0.4], rtol=1e-5)
    np.testing.assert_array_equal(recency_weights(rows([28, 0]), half_life_days=0, floor=0), [1, 1])


def test_earlier_and_later() -> None:
    given = rows([5, 1, 3, 2, 4])
    earlier, later = earlier_and_later(given, later_share=0.4, most=10)
    assert earlier.now.max() < later.now.min()
    assert list(earlier.target_row) == [1, 2, 3] and list(later.target_row) == [0, 4]
    _, newest = earlier_and_later(given, later_share=0.4, most=1)
    assert list(newest.target_row) == [0]
    with pytest.raises(TrainingError, match="later_share=0.01"):
        earlier_and_later(given, later_share=0.01, most=10)


def test_forget_draws_the_same_for_one_process_and_two() -> None:
    ids = np.arange(1, 2001).reshape(200, 10)
    whole = forget(ids, 0.3, order.generator(1, 0, 0, order.UNKNOWN), 0, 1)
    halves = [
        forget(ids[p * 100 : (p + 1) * 100], 0.3, order.generator(1, 0, 0, order.UNKNOWN), p, 2) for p in range(2)
    ]
    np.testing.assert_array_equal(whole, np.concatenate(halves))
    assert (whole == 0).mean() == pytest.approx(0.3, abs=0.03)
    padded = forget(np.full((50, 4), -1), 0.9, order.generator(1, 0, 0, order.UNKNOWN), 0, 1)
    assert (padded == -1).all()


@pytest.fixture
def touched() -> Touched:
    """Person 0 touched all of 1..20 but 3 and 7, person 1 nothing but 5 (twice)."""
    items = [i for i in range(1, 21) if i not in (3, 7)]
    return Touched(np.asarray([0] * 18 + [1, 1]), np.asarray([*items, 5, 5]), num_people=3, num_items=20)


def test_touched(touched: Touched) -> None:
    assert touched.holds(np.asarray([0, 0, 1, 2]), np.asarray([3, 4, 5, 5])).tolist() == [False, True, True, False]
    mask = touched.mask(np.asarray([1, 0, 2]))
    assert mask.sum(1).tolist() == [1, 18, 0]
    assert mask[0, 4] and not mask[1, 2] and not mask[1, 6]


def test_negatives_are_never_touched(touched: Touched) -> None:
    person = np.repeat([0, 1], 40)
    target = np.repeat([4, 5], 40)
    top = np.where((person == 0)[:, None], [[7, 3, 0]], [[1, 2, 0]])
    chosen, counts = candidates_of(target, person, top, touched, 4, 3, order.generator(1, 0, 0, order.NEGATIVES))
    assert chosen.shape == counts.shape == (80, 8)
    assert (chosen[:, 0] == target).all() and (counts[:, 0] == 1).all()
    held = touched.holds(person[:, None], chosen)
    assert not (held[:, 1:] & (counts[:, 1:] > 0)).any()
    uniform, hard = chosen[:, 1:5], chosen[:, 5:]
    assert set(uniform[40:].ravel()) == set(range(1, 21)) - {5}, "even draws reach the whole catalogue"
    assert set(hard[:40].ravel()) == {0, 3, 7} and (counts[:, 5:] == (hard > 0)).all()
    # 18 of 20 items are touched: a few draws find no negative in so many tries, and say so
    assert (counts[:40, 1:5] > 0).mean() > 0.4


def test_list_offset_makes_up_for_hard_negatives() -> None:
    """With the offset, odds learned from both kinds are those under uniform negatives alone."""
    num_items, pool, uniform, hard = 1682, 100, 4, 4
    assert list_offset(num_items, pool, uniform, hard) == pytest.approx(math.log(17.82))
    positive = 0.01  # probability of some item of the list
    negatives = uniform / num_items + hard / pool  # how often it is drawn as a negative, a row
    learned = math.log(positive / negatives) + list_offset(num_items, pool, uniform, hard)
    assert learned == pytest.approx(math.log(positive / (uniform / num_items)))
    assert list_offset(num_items, pool, uniform, 0) == 0
