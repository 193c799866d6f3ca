"""Tallies: the same numbers from a log summed up to a moment and from events as they come, and none of the future."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.dataset.dataset import Dataset, open_dataset
from playbill.dataset.settings import SplitSettings
from playbill.dataset.tallied import (
    item_numbers_at,
    rows_at,
    stale,
    tallies_until,
    tally_rows,
    tastes_of,
)
from playbill.errors import FeatureError
from playbill.features.encoder import DAY_US
from playbill.features.fold import Past, Profile, fold, fold_profiles
from playbill.features.person_tallies import Tastes, flags_of, person_names, person_numbers, person_sums
from playbill.features.settings import FeatureSettings
from playbill.features.tallies import ItemTallies, TallySpec, item_numbers, learn_tallies, sums_before
from playbill.features.tally_file import TallyBook, read_tallies, write_tallies
from playbill.tables.folder import read_table

HALF_LIVES = [2.0, 30.0]
LIKE = 0.5  # a four, on a scale of one to five that is mapped to -1..1


@pytest.fixture(scope="module")
def dataset(tiny_tables: Path) -> Dataset:
    return open_dataset(tiny_tables, FeatureSettings(history_length=30), SplitSettings())


@pytest.fixture(scope="module")
def book(dataset: Dataset) -> TallyBook:
    items = tallies_until(dataset, "valid", LIKE, HALF_LIVES)
    return TallyBook(items, tastes_of(dataset, items), dataset.spec.history_length, dataset.split.train_until_us)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_sums_before_are_sums_of_what_came_strictly_before(data: st.DataObject) -> None:
    size, asked = data.draw(st.integers(0, 30)), 10
    draw = np.random.default_rng(data.draw(st.integers(0, 1000)))
    key, at, added = draw.integers(0, 4, size), draw.integers(0, 9, size), draw.normal(size=(size, 2))
    asked_key, asked_at = draw.integers(0, 5, asked), draw.integers(-1, 11, asked)
    found = sums_before(key, at, added.copy(), asked_key, asked_at)
    for row in range(asked):
        mine = (key == asked_key[row]) & (at < asked_at[row])
        np.testing.assert_allclose(found[row], added[mine].sum(0), atol=1e-12)


def test_a_film_of_two_events_by_hand() -> None:
    day = np.asarray([0, 2], np.int64) * DAY_US
    tallies = learn_tallies(np.asarray([1, 2]), np.asarray([1.0, 0.0], np.float32), day, 2, 0.5, [2.0])
    # level of the log: mean 0.5, half of it likes, mean square 0.25. Item 1: one event, half above it, two days old
    tallies.add(np.asarray([1]), np.asarray([0.5], np.float32), day[1:])
    found = tallies.numbers(np.asarray([1]), np.asarray([4 * DAY_US]))[0]
    named = dict(zip(tallies.spec.item_names, found.tolist(), strict=True))
    assert named["log_count"] == pytest.approx(np.log(3))
    assert named["mean"] == pytest.approx((0.5 + 0) / (2 + 5))
    assert named["likes"] == pytest.approx((0.5 + 0.5) / (2 + 5))  # a half is a like too
    # the first event fell to a quarter in four days, the second to a half in two
    assert named["log_count_2d"] == pytest.approx(np.log(1 + 0.25 + 0.5))
    assert named["mean_2d"] == pytest.approx(0.25 * 0.5 / (0.75 + 5))


def test_running_and_as_of_are_the_same_numbers(dataset: Dataset, book: TallyBook) -> None:
    rows = rows_at(dataset, "test", running=True)
    pool = dataset.pool
    item = pool.item[rows.target_row]
    expected = item_numbers_at(dataset, book.items, item, rows.now)
    going = ItemTallies(book.items.spec, np.zeros_like(book.items.sums))
    order = np.argsort(pool.at, kind="stable")
    asked = np.argsort(rows.now, kind="stable")
    added = 0
    for row in asked[::7]:
        until = int(np.searchsorted(pool.at[order], rows.now[row]))
        new = order[added:until]
        going.add(pool.item[new], pool.value[new], pool.at[new])
        added = until
        found = going.numbers(item[row : row + 1], rows.now[row : row + 1])[0]
        np.testing.assert_allclose(found, expected[row], rtol=1e-5, atol=1e-6)


def test_frozen_tallies_are_those_that_a_model_is_handed_over_with(dataset: Dataset, book: TallyBook) -> None:
    rows = rows_at(dataset, "valid", running=False)
    item = dataset.pool.item[rows.target_row]
    found = item_numbers_at(dataset, book.items, item, rows.now)
    np.testing.assert_allclose(found, book.frozen()[item], rtol=1e-5, atol=1e-6)
    assert (rows.now == dataset.split.train_until_us).all()
    assert (dataset.split.part[np.maximum(rows.end - 1, 0)][rows.end > rows.start] == 0).all()


def test_nothing_of_the_future_changes_a_row(dataset: Dataset, book: TallyBook) -> None:
    rows = rows_at(dataset, "train", running=True)
    before = tally_rows(dataset, book.items, book.tastes, rows, book.length)
    pool = dataset.pool
    moment = int(np.quantile(pool.at, 0.5))
    values = pool.value.copy()
    try:
        pool.value[pool.at >= moment] *= -1
        after = tally_rows(dataset, book.items, book.tastes, rows, book.length)
    finally:
        pool.value[:] = values
    early = rows.now <= moment
    for name in ("item", "person", "pair"):
        np.testing.assert_array_equal(getattr(before, name)[early], getattr(after, name)[early])
        assert not np.array_equal(getattr(before, name)[~early], getattr(after, name)[~early])


def test_people_of_the_log_and_stored_profiles_look_the_same(
    tiny_tables: Path, dataset: Dataset, book: TallyBook
) -> None:
    """From raw events on both sides: folded as a table and tallied, and folded one by one into profiles."""
    spec, vocabulary = dataset.spec, dataset.vocabularies["item"]
    events = read_table(tiny_tables, "events").to_pylist()
    moment = dataset.split.valid_until_us
    rows = rows_at(dataset, "test", running=False)
    people = np.unique(rows.person)
    first = np.asarray([np.flatnonzero(rows.person == p)[0] for p in people])
    profiles = []
    for person in people:
        user = dataset.user_ids[int(person)]
        past = [
            Past(e["event_id"], e["item_id"], e["event"], int(e["at"].timestamp() * 1e6), e["value"])
            for e in events
            if e["user_id"] == user and e["at"].timestamp() * 1e6 < moment
        ]
        profiles.append(fold(Profile(user_id=user), past, spec, keep=100))
    pool = fold_profiles(profiles, spec, vocabulary)
    whose = np.arange(len(people))
    item = dataset.pool.item[rows.target_row[first]]
    online = book.arrays(pool, pool.offsets[:-1], pool.offsets[1:], whose, item)
    offline = book.arrays(dataset.pool, rows.start[first], rows.end[first], whose, item)
    assert online.keys() == offline.keys()
    for name, array in online.items():
        np.testing.assert_allclose(array, offline[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_tallies_of_people_are_means_over_their_newest_events(dataset: Dataset, book: TallyBook) -> None:
    pool, spec = dataset.pool, book.items.spec
    end = pool.offsets[1:]
    found = person_numbers(spec, person_sums(spec, book.tastes, pool, pool.offsets[:-1], end, book.length))
    names = person_names(spec)
    for person in range(0, len(end), 7):
        mine = np.arange(max(pool.offsets[person], end[person] - book.length), end[person])
        above = pool.value[mine] - spec.mean - book.tastes.base[pool.item[mine]]
        like = (pool.value[mine] >= LIKE) - spec.share
        assert found[person, names.index("log_count")] == pytest.approx(np.log1p(len(mine)), rel=1e-6)
        assert found[person, names.index("above")] == pytest.approx(above.sum() / (len(mine) + 3), abs=1e-5)
        assert found[person, names.index("likes_5_newest")] == pytest.approx(like[-5:].sum() / 8, abs=1e-5)


def test_stale_rows_know_nothing_after_one_moment(dataset: Dataset) -> None:
    rows = rows_at(dataset, "train", running=True)
    found, kept = stale(rows, np.random.default_rng(0))
    assert 0 < len(found) < len(rows) and (found.end <= rows.end[kept]).all()
    for person in np.unique(found.person)[:20]:
        mine = found.person == person
        assert len(np.unique(found.end[mine])) == 1 and (found.target_row[mine] >= found.end[mine]).all()


def test_categories_are_flags_and_unknown_has_none() -> None:
    flags = flags_of(np.asarray([[-1, -1], [2, 1], [0, 2]]), 3)
    np.testing.assert_array_equal(flags, [[0, 0], [1, 1], [0, 1]])


def test_tallies_are_read_back_and_broken_ones_are_refused(tmp_path: Path, book: TallyBook) -> None:
    write_tallies(tmp_path, book)
    again = read_tallies(tmp_path)
    assert again.items.spec == book.items.spec and (again.length, again.until_us) == (book.length, book.until_us)
    np.testing.assert_array_equal(again.items.sums, book.items.sums)
    np.testing.assert_array_equal(again.tastes.categories, book.tastes.categories)
    write_tallies(tmp_path, TallyBook(book.items, Tastes(book.tastes.base[:-1], book.tastes.categories), 5, 0))
    with pytest.raises(FeatureError, match="as many rows in all three"):
        read_tallies(tmp_path)
    (tmp_path / "tallies.json").write_text('{"format": 9, "length": 5, "spec": {}}')
    with pytest.raises(FeatureError, match="train the model again"):
        read_tallies(tmp_path)


def test_half_lives_that_float64_cannot_hold_are_refused() -> None:
    at = np.asarray([0, 1000 * DAY_US])
    with pytest.raises(FeatureError, match="half life of 0.5 days"):
        learn_tallies(np.asarray([1, 1]), np.zeros(2, np.float32), at, 1, 0.0, [0.5])
    with pytest.raises(FeatureError, match="no events to tally"):
        learn_tallies(np.zeros(0, int), np.zeros(0, np.float32), np.zeros(0, int), 1, 0.0, [])


def test_an_item_that_nobody_touched_stands_at_the_level_of_the_log() -> None:
    spec = TallySpec(like_at=0.5, mean=0.2, share=0.4, spread=0.25, half_lives_days=[1.0], origin_us=0, recent=[])
    found = item_numbers(spec, np.zeros((1, 7)), np.asarray([DAY_US]))[0]
    np.testing.assert_allclose(found, [0, 0, 0, 0.5, 0, 0, 0])
