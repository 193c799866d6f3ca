"""Windows and steps: every event is learned once an epoch, from what was known before it and never from later."""

from __future__ import annotations

import numpy as np
import pytest

from playbill.features.fold import EventPool
from playbill.training.batches import order
from playbill.training.retrieval.packing import START, earlier, epoch_windows, pack, ranges, step_of

LENGTHS = [1, 2, 7, 8, 9, 25, 0, 60]


def pool(at: np.ndarray | None = None) -> EventPool:
    person = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    size = len(person)
    return EventPool(
        item=np.arange(1, size + 1),
        code=np.ones(size, np.int64),
        value=np.zeros(size, np.float32),
        at=np.arange(size) if at is None else at,
        person=person,
        offsets=np.concatenate([[0], np.cumsum(LENGTHS)]),
        source_row=np.arange(size),
    )


@pytest.mark.parametrize("seed", range(6))
def test_windows_learn_every_event_once_and_read_no_more_than_their_length(seed: int) -> None:
    given = pool()
    windows = epoch_windows(given.offsets[:-1], given.offsets[1:], 8, np.random.default_rng(seed))
    learned = ranges(windows.target_low, windows.target_high - windows.target_low)
    assert sorted(learned) == list(range(len(given)))
    read = windows.high - windows.low
    assert read.max() <= 8 and read.min() >= 1
    person = given.person[windows.low]
    assert (given.person[windows.high - 1] == person).all() and (given.person[windows.target_high - 1] == person).all()
    # what is learned follows something that is read, or begins the history
    begins = windows.target_low == windows.low
    assert (windows.low[begins] == given.offsets[person[begins]]).all()
    assert (windows.target_low[~begins] > windows.low[~begins]).all()
    # a piece of a long history has something to look back on, also where little is left to learn
    assert (read[windows.low > given.offsets[person]] >= 4).all()


def test_windows_end_where_learning_ends_and_differ_from_epoch_to_epoch() -> None:
    given = pool()
    end = given.offsets[:-1] + np.asarray(LENGTHS) // 2
    one, other = (epoch_windows(given.offsets[:-1], end, 8, np.random.default_rng(seed)) for seed in (1, 2))
    for windows in (one, other):
        learned = ranges(windows.target_low, windows.target_high - windows.target_low)
        assert sorted(learned) == sorted(ranges(given.offsets[:-1], np.asarray(LENGTHS) // 2))
        assert (windows.high <= end[given.person[windows.low]]).all()
    assert not np.array_equal(one.low, other.low)


def test_steps_hold_every_window_once_and_about_as_many_events() -> None:
    given = pool()
    windows = epoch_windows(given.offsets[:-1], given.offsets[1:], 8, np.random.default_rng(0))
    given_order = np.random.default_rng(3).permutation(len(windows))
    mixed, begins = step_of(windows, 4, given_order)
    np.testing.assert_array_equal(mixed, given_order)
    assert sorted(mixed) == list(range(len(windows))) and begins[0] == 0 and begins[-1] == len(windows)
    events = np.add.reduceat((windows.high - windows.low)[mixed], begins[:-1])
    assert np.abs(events - events.mean()).max() <= 8


def test_the_next_event_is_learned_from_all_before_it() -> None:
    given = pool()
    windows = epoch_windows(given.offsets[:-1], given.offsets[1:], 100, np.random.default_rng(0))
    packed = pack(given, windows, strict=False, stale=0.0, empty=0.0, rng=np.random.default_rng(0))
    first = np.isin(packed.target_row, given.offsets[:-1])
    assert packed.possible.all() and (packed.state[first] == START).all()
    np.testing.assert_array_equal(packed.rows[packed.state[~first]], packed.target_row[~first] - 1)


@pytest.mark.parametrize("stale", [0.0, 0.5, 1.0])
def test_nothing_is_learned_from_its_own_moment_or_later(stale: float) -> None:
    rng = np.random.default_rng(5)
    at = np.concatenate([np.sort(rng.integers(0, max(n // 3, 1), n)) for n in LENGTHS])  # many events a moment
    given = pool(at)
    windows = epoch_windows(given.offsets[:-1], given.offsets[1:], 8, rng)
    packed = pack(given, windows, strict=True, stale=stale, empty=0.1, rng=rng)
    known = packed.possible & (packed.state != START)
    state = packed.rows[packed.state[known]]
    assert known.sum() > 20
    assert (at[state] < at[packed.target_row[known]]).all()
    assert (given.person[state] == given.person[packed.target_row[known]]).all()
    # a window of nothing but the event's own moment has no state for it
    impossible = packed.target_row[~packed.possible]
    assert (earlier(at, impossible, impossible - 8) < impossible - 1).all()


def test_shares_of_stale_and_empty_states() -> None:
    lengths = np.full(3000, 30)
    person = np.repeat(np.arange(3000), lengths)
    size = len(person)
    given = EventPool(
        item=np.ones(size, np.int64),
        code=np.ones(size, np.int64),
        value=np.zeros(size, np.float32),
        at=np.arange(size),
        person=person,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        source_row=np.arange(size),
    )
    windows = epoch_windows(given.offsets[:-1], given.offsets[1:], 64, np.random.default_rng(0))
    packed = pack(given, windows, False, 0.6, 0.2, order.generator(1, 0, 0, order.CUTS))
    place = packed.target_row % 30
    late = place == 29
    state = np.where(packed.state == START, -1, packed.rows[np.maximum(packed.state, 0)] % 30)
    # of the last events a fifth is learned from nothing, and of the others an even draw reaches the start at times too
    assert (state[late] == -1).mean() == pytest.approx(0.2 + 0.8 * 0.6 / 30, abs=0.025)
    assert (state[late] == 28).mean() == pytest.approx(0.8 * (0.4 + 0.6 / 30), abs=0.03)
    assert len(np.unique(state[late])) > 25
    assert (packed.state[place == 0] == START).all() and packed.possible.all()


def test_what_follows_an_absence_is_learned_from_before_it() -> None:
    place = np.arange(sum(LENGTHS)) - np.repeat(np.cumsum(LENGTHS) - LENGTHS, LENGTHS)
    given = pool(at=10 * (place // 4) + place % 4)  # visits of four events, then six moments of nothing
    windows = epoch_windows(given.offsets[:-1], given.offsets[1:], 60, np.random.default_rng(0))
    packed = pack(given, windows, True, 0.0, 0.0, np.random.default_rng(0), away_us=4)
    visit = place // 4
    away = visit[packed.target_row] > 0
    newest = packed.rows[packed.state[away]]
    assert (visit[newest] == visit[packed.target_row[away]] - 1).all() and (place[newest] % 4 == 3).all()
    within = ~away & (packed.state != START)
    assert (packed.rows[packed.state[within]] == packed.target_row[within] - 1).all()
    assert packed.possible[packed.state != START].all()
    fewer = pack(given, windows, True, 0.0, 0.0, np.random.default_rng(0), away_us=4, visit_share=0.2)
    assert fewer.possible[away].all() and 0 < fewer.possible[~away].mean() < 0.6


def test_earlier() -> None:
    at = np.asarray([1, 1, 2, 5, 5, 5, 9])
    rows = np.arange(7)
    np.testing.assert_array_equal(earlier(at, rows, np.zeros(7, np.int64)), [-1, -1, 1, 2, 2, 2, 5])
    np.testing.assert_array_equal(earlier(at, np.asarray([4, 6]), np.asarray([3, 4])), [2, 5])
