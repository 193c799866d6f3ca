from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from playbill.dataset.boundary import boundary_queries, history_items, rows_before
from playbill.dataset.dataset import Dataset, dataset_fingerprint, examples, item_counts, open_dataset, query_arrays
from playbill.dataset.settings import SplitKind, SplitSettings
from playbill.errors import ConfigError
from playbill.features.encoder import Arrays, encode_queries
from playbill.features.settings import FeatureSettings

MakeTables = Callable[..., Path]
LAST = SplitSettings(kind=SplitKind.leave_last_out)
ITEMS = [{"item_id": i, "categories": [f"c{i % 3}"]} for i in range(1, 7)]


def _event(event_id: int, user_id: Any, item_id: int, at: int, **more: Any) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "user_id": user_id,
        "item_id": item_id,
        "event": "rate",
        "at": at,
        "value": 4.0,
    } | more


@pytest.fixture
def small(make_tables: MakeTables) -> Path:
    events = [
        _event(1, 7, 1, 10),
        _event(3, 7, 2, 20),
        _event(2, 7, 3, 20),
        _event(4, 8, 4, 30),
        _event(5, 7, 4, 40),
        _event(6, 8, 1, 50),
        _event(7, 8, 2, 60),
        _event(8, 7, 99, 70),  # an item that no table knows
        _event(9, 8, 2, 80),
        _event(10, 9, 5, 90),
    ]
    return make_tables(users=[{"user_id": u} for u in (9, 7, 8, 6)], items=ITEMS, events=events)


def _rows(dataset: Dataset, part: str, **more: Any) -> list[tuple[Any, int, list[int]]]:
    """(user, item to predict, items known, newest last) of each row."""
    rows = examples(dataset, part, **more)
    item = dataset.pool.item
    return [
        (dataset.user_ids[p], int(item[t]), item[s:e].tolist())
        for p, t, s, e in zip(rows.person, rows.target_row, rows.start, rows.end, strict=True)
    ]


def test_global_time_rows_know_what_came_strictly_before(small: Path) -> None:
    dataset = open_dataset(small, FeatureSettings(), SplitSettings(train=0.5, valid=0.2))
    assert (dataset.split.train_until_us, dataset.split.valid_until_us) == (50, 70)
    assert dataset.user_ids == [9, 7, 8, 6]
    # events of one moment: by event id, as the fold has them, and blind to each other
    assert _rows(dataset, "train") == [(7, 1, []), (7, 3, [1]), (7, 2, [1]), (7, 4, [1, 3, 2]), (8, 4, [])]
    assert _rows(dataset, "valid") == [(8, 1, [4]), (8, 2, [4, 1])]
    # the unknown item is no target, though it stays in histories
    assert _rows(dataset, "test") == [(9, 5, []), (8, 2, [4, 1, 2])]
    assert _rows(dataset, "train", min_history=1) == [(7, 3, [1]), (7, 2, [1]), (7, 4, [1, 3, 2])]
    assert examples(dataset, "test").now.tolist() == [90, 80]
    assert item_counts(dataset).tolist() == [0, 1, 1, 1, 2, 0, 0]


def test_leave_last_out_rows_know_what_came_before_in_order(small: Path) -> None:
    dataset = open_dataset(small, FeatureSettings(), LAST)
    # of person 7 the unknown item comes last and tests nothing
    assert _rows(dataset, "test") == [(8, 2, [4, 1, 2])]
    assert _rows(dataset, "valid") == [(7, 4, [1, 2, 3]), (8, 2, [4, 1])]
    # events of one moment: as the table has them, whatever their ids
    assert _rows(dataset, "train") == [(9, 5, []), (7, 1, []), (7, 2, [1]), (7, 3, [1, 2]), (8, 4, []), (8, 1, [4])]


def test_an_order_column_orders_and_drops(make_tables: MakeTables) -> None:
    places = [2, 0, None, 1, 3]
    events = [_event(i, 7, i + 1, at=i, place=p) for i, p in enumerate(places)]
    tables = make_tables(items=ITEMS, events=events)
    dataset = open_dataset(
        tables, FeatureSettings(), SplitSettings(kind=SplitKind.leave_last_out, order_column="place")
    )
    assert _rows(dataset, "test") == [(7, 5, [2, 4, 1])]
    assert _rows(dataset, "valid") == [(7, 1, [2, 4])]
    assert dataset.pool.source_row.tolist() == [1, 3, 0, 4]
    for column, message in (("nowhere", "is not in the events table; it has: event_id"), ("event", "must be numeric")):
        with pytest.raises(ConfigError, match=message):
            open_dataset(tables, FeatureSettings(), replace(LAST, order_column=column))


def test_boundary_queries_ask_everybody_at_the_boundary(small: Path) -> None:
    dataset = open_dataset(small, FeatureSettings(), SplitSettings(train=0.4, valid=0.2))
    queries = boundary_queries(dataset, "test")
    assert dataset.split.valid_until_us == 60
    assert [dataset.user_ids[p] for p in queries.person] == [9, 8]
    assert queries.now.tolist() == [60, 60]
    # person 8 takes item 2 twice: one target
    assert queries.target_indptr.tolist() == [0, 1, 2] and queries.target_item.tolist() == [5, 2]
    assert queries.seen_indptr.tolist() == [0, 0, 2] and queries.seen_item.tolist() == [4, 1]
    valid = boundary_queries(dataset, "valid")
    assert [dataset.user_ids[p] for p in valid.person] == [7, 8]
    assert valid.seen_item.tolist() == [1, 3, 2, 4] and valid.target_item.tolist() == [4, 1]
    assert dataset.pool.at[rows_before(dataset, "valid")].max() < dataset.split.train_until_us
    with pytest.raises(ConfigError, match="nothing comes before train"):
        boundary_queries(dataset, "train")


def test_boundary_queries_of_leave_last_out_are_its_rows(small: Path) -> None:
    dataset = open_dataset(small, FeatureSettings(), LAST)
    queries, rows = boundary_queries(dataset, "valid"), examples(dataset, "valid")
    for name in ("person", "start", "end", "now"):
        np.testing.assert_array_equal(getattr(queries, name), getattr(rows, name))
    assert queries.target_item.tolist() == dataset.pool.item[rows.target_row].tolist()


def test_histories_leave_out_unknown_items(small: Path) -> None:
    pool = open_dataset(small, FeatureSettings(), LAST).pool
    indptr, item = history_items(pool, pool.offsets[:-1], pool.offsets[1:])
    assert indptr.tolist() == [0, 1, 5, 9, 9]
    assert item.tolist() == [5, 1, 2, 3, 4, 4, 1, 2, 2]


def test_people_without_consent_are_not_there(make_tables: MakeTables) -> None:
    users = [
        {"user_id": 1, "consent_training": True, "consent_marketing": False},
        {"user_id": 2, "consent_training": False, "consent_marketing": True},
        {"user_id": 3, "consent_training": None, "consent_marketing": True},
    ]
    events = [_event(10 * u + k, u, k, at=10 * k + u, session_id="s") for u in (1, 2, 3, 4) for k in (1, 2, 3)]
    events.append(_event(99, None, 4, at=5, session_id="anonymous"))
    for split in (SplitSettings(), LAST):
        tables = make_tables(users=users, items=ITEMS, events=events, name=split.kind.value)
        dataset = open_dataset(tables, FeatureSettings(), split)
        assert dataset.user_ids == [1]
        assert len(dataset.pool) == 3
        for part in ("train", "valid", "test"):
            assert {user for user, _, _ in _rows(dataset, part)} <= {1}
        assert item_counts(dataset).sum() <= 3


def test_without_the_column_everybody_is_there_sessions_too(make_tables: MakeTables) -> None:
    events = [
        _event(1, 5, 1, at=1, session_id="x"),
        _event(2, None, 2, at=2, session_id="x"),
        _event(3, None, 3, at=3, session_id="y"),
        _event(4, None, 4, at=4, session_id="x"),
        _event(5, None, 4, at=4, session_id=None),
    ]
    users = [{"user_id": 6, "consent_marketing": False}]
    dataset = open_dataset(
        make_tables(users=users, items=ITEMS, events=events), FeatureSettings(), SplitSettings(train=1, valid=0)
    )
    assert dataset.people.user_ids == [6, 5, None, None]
    assert dataset.people.session_ids == [None, None, "x", "y"]
    assert dataset.people.users_row.tolist() == [0, -1, -1, -1]
    assert dataset.user_columns["user_id"] == [6, None, None, None]
    # an event of a known user belongs to the user, not to the session
    assert _rows(dataset, "train") == [(5, 1, []), (None, 2, []), (None, 4, [2]), (None, 3, [])]


def test_query_arrays_are_those_of_the_encoder(make_tables: MakeTables) -> None:
    users = [
        {"user_id": 1, "city": "Rome", "timezone": "Asia/Tokyo"},
        {"user_id": 2, "city": "Rome", "timezone": None},
        {"user_id": 3, "city": None, "timezone": "Mars"},
    ]
    device = ["phone", "desk", None]
    events = [
        _event(10 * u + k, u, k, at=3_600_000_000 * (7 * k + u), device=device[(u + k) % 3], score=float(k))
        for u in (1, 2, 3)
        for k in (1, 2, 3, 4)
    ]
    tables = make_tables(users=users, items=ITEMS, events=events)
    dataset = open_dataset(
        tables, FeatureSettings(user=["city"], context=["weekday", "device", "score"]), SplitSettings()
    )
    rows = examples(dataset, "train")
    got = query_arrays(dataset, rows.person, rows.start, rows.end, rows.now, rows.target_row)
    source = [events[r] for r in dataset.pool.source_row[rows.target_row]]
    expected = encode_queries(
        dataset.pool,
        rows.start,
        rows.end,
        rows.now,
        {name: [users[p][name] for p in rows.person] for name in ("city", "timezone")},
        {name: [e[name] for e in source] for name in ("device", "score")},
        dataset.spec,
        dataset.vocabularies,
    )
    _same(got, expected)
    assert len(set(got["context_device"])) == 3
    without = query_arrays(dataset, rows.person, rows.start, rows.end, rows.now)
    assert not without["context_device"].any() and without.keys() == got.keys()


def test_items_stand_by_their_index(small: Path) -> None:
    dataset = open_dataset(small, FeatureSettings(), SplitSettings())
    assert dataset.items.columns == ["item_index", "item_id", "categories"]
    assert dataset.items["item_index"].to_list() == [1, 2, 3, 4, 5, 6]
    assert dataset.item_arrays["item_categories"].shape == (7, 1)
    assert dataset.item_arrays["item_categories"][0].tolist() == [-1]
    words = dataset.vocabularies["item_categories"]
    for row in dataset.items.iter_rows(named=True):
        assert dataset.item_arrays["item_categories"][row["item_index"]].tolist() == [words.index(row["categories"][0])]


def test_the_fingerprint_knows_tables_and_settings(small: Path, make_tables: MakeTables) -> None:
    other = make_tables(items=ITEMS, events=[_event(1, 1, 1, 1)], name="other")
    prints = [
        dataset_fingerprint(*args)
        for args in (
            (small, FeatureSettings(), SplitSettings()),
            (small, FeatureSettings(history_length=7), SplitSettings()),
            (small, FeatureSettings(), SplitSettings(train=0.7)),
            (small, FeatureSettings(), LAST),
            (other, FeatureSettings(), SplitSettings()),
        )
    ]
    assert len(set(prints)) == 5
    assert open_dataset(small, FeatureSettings(), SplitSettings()).fingerprint == prints[0]


@pytest.mark.parametrize("split", [SplitSettings(), LAST], ids=["global", "last"])
def test_tables_without_events_are_an_empty_dataset(make_tables: MakeTables, split: SplitSettings) -> None:
    # one event by somebody who may not be learned from
    users = [{"user_id": 1, "consent_training": False}]
    tables = make_tables(users=users, items=ITEMS, events=[_event(1, 1, 1, 1)])
    dataset = open_dataset(tables, FeatureSettings(), split)
    assert [len(examples(dataset, part)) for part in ("train", "valid", "test")] == [0, 0, 0]
    assert len(boundary_queries(dataset, "test")) == 0
    assert item_counts(dataset).sum() == 0


def _same(one: Arrays, other: Arrays) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype, name
        np.testing.assert_array_equal(array, other[name], err_msg=name)


EVENTS = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(0, 30), st.sampled_from(["rate", "view"])),
    min_size=2,
    max_size=25,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=EVENTS, later=EVENTS, data=st.data())
def test_no_row_sees_its_own_future(make_tables: MakeTables, rows: Any, later: Any, data: st.DataObject) -> None:
    """Whatever happens at or after a row's moment, the row's arrays stay as they are."""
    events = [_event(i, u, item, at, event=e) for i, (u, item, at, e) in enumerate(rows)]
    features, split = FeatureSettings(history_length=5), SplitSettings(train=1, valid=0)
    dataset = open_dataset(make_tables(items=ITEMS, events=events), features, split)
    rows_before_change = examples(dataset, "train")
    chosen = data.draw(st.integers(0, len(rows_before_change) - 1))
    person, now = rows_before_change.person[[chosen]], rows_before_change.now[[chosen]]
    user = dataset.user_ids[person[0]]
    before = query_arrays(dataset, person, rows_before_change.start[[chosen]], rows_before_change.end[[chosen]], now)

    # the future, planted: everything from this moment on is replaced by something else
    changed = [e for e in events if e["at"] < now[0]]
    changed += [_event(1000 + i, u, item, int(now[0]) + at, event=e) for i, (u, item, at, e) in enumerate(later)]
    changed.append(_event(5000, user, 1, int(now[0])))
    other = open_dataset(make_tables(items=ITEMS, events=changed), features, split)
    same_rows = examples(other, "train")
    mine = np.flatnonzero((np.asarray(other.user_ids)[same_rows.person] == user) & (same_rows.now == now[0]))
    assert len(mine)
    for row in mine:
        after = query_arrays(
            other, same_rows.person[[row]], same_rows.start[[row]], same_rows.end[[row]], same_rows.now[[row]]
        )
        _same(before, after)


def test_labels_planted_in_the_future_leak_into_no_input(make_tables: MakeTables) -> None:
    """Values, users and items of test time are extreme; nothing that a model reads before then may notice."""
    people = [{"user_id": u, "score": float(u)} for u in range(1, 21)]
    early = [
        _event(100 * u + k, u, 1 + (u + k) % 5, at=10 * k + u % 10, event="view")
        for u in range(1, 11)
        for k in range(8)
    ]
    plain = [e | {"value": float(e["item_id"])} for e in early]

    def late(value: float, item: int) -> list[dict[str, Any]]:
        return [_event(9000 + u, u, item, at=1000 + u, event="view", value=value) for u in range(1, 21)]

    split = SplitSettings(train=0.7, valid=0.1)
    opened = [
        open_dataset(
            make_tables(users=people, items=ITEMS, events=plain + tail, name=f"t{i}"), FeatureSettings(), split
        )
        for i, tail in enumerate((late(1.0, 6), late(1e6, 2)))
    ]
    one, other = opened
    assert one.spec.hash() == other.spec.hash()
    for part in ("train", "valid"):
        rows, same = examples(one, part), examples(other, part)
        assert len(rows) > 5 and rows.now.max() < 1000
        arrays = [query_arrays(d, r.person, r.start, r.end, r.now) for d, r in ((one, rows), (other, same))]
        _same(*arrays)
        np.testing.assert_array_equal(item_counts(one, part), item_counts(other, part))
    _same(one.item_arrays, other.item_arrays)
    assert item_counts(one, "test")[6] == 20 == item_counts(other, "test")[2]


def test_movielens_100k_splits_as_published(ml100k_tables: Path) -> None:
    dataset = open_dataset(ml100k_tables, FeatureSettings(), SplitSettings())
    queries = boundary_queries(dataset, "test")
    assert len(queries) == 166
    assert (queries.start == queries.end).sum() == 76
    assert len(queries.target_item) == 10_000
    last = open_dataset(ml100k_tables, FeatureSettings(), LAST)
    assert len(examples(last, "test")) == len(examples(last, "valid")) == 943
    assert len(last.pool) == 100_000 and last.spec.num_items == 1682
