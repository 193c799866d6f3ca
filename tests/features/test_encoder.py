from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbill.features.encoder import (
    DAY_US,
    HOUR_US,
    encode_fields,
    encode_history,
    encode_moment,
    encode_queries,
    offsets,
    point_in_time,
)
from playbill.features.fold import EventPool
from playbill.features.spec import Encoding, FeatureSpec, Field, Side
from playbill.features.vocabulary import Vocabulary


def _pool(lengths: list[int], at: list[int]) -> EventPool:
    count = len(at)
    return EventPool(
        item=np.arange(1, count + 1),
        code=np.ones(count, np.int64),
        value=np.arange(count, dtype=np.float32),
        at=np.asarray(at, np.int64),
        person=np.repeat(np.arange(len(lengths)), lengths),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        source_row=np.arange(count),
    )


def _spec(length: int, fields: list[Field] | None = None) -> FeatureSpec:
    return FeatureSpec(
        user_id_type="int64",
        item_id_type="int64",
        history_length=length,
        events=[],
        fields=fields or [],
        num_items=9,
        vocabularies={},
    )


def test_histories_are_newest_first_and_padded() -> None:
    pool = _pool([1, 3], [5, 0, DAY_US, 3 * DAY_US])
    arrays = encode_history(pool, np.asarray([0, 1, 1]), np.asarray([0, 4, 3]), _spec(2))
    assert arrays["history_item"].tolist() == [[-1, -1], [4, 3], [3, 2]]
    assert arrays["history_event"].tolist() == [[0, 0], [1, 1], [1, 1]]
    assert arrays["history_value"].tolist() == [[0, 0], [3, 2], [2, 1]]
    # two days before the newest, one day before the newest
    np.testing.assert_allclose(arrays["history_age"], [[0, 0], [0, np.log(3)], [0, np.log(2)]], rtol=1e-6)
    assert {a.dtype for a in arrays.values()} == {np.dtype(np.int64), np.dtype(np.float32)}


def test_an_empty_pool_gives_padding() -> None:
    nothing = np.zeros(2, np.int64)
    arrays = encode_history(_pool([0, 0], []), nothing, nothing, _spec(3))
    assert (arrays["history_item"] == -1).all() and arrays["history_item"].shape == (2, 3)
    assert not arrays["history_age"].any()


@given(st.lists(st.lists(st.integers(0, 8), max_size=6), min_size=1, max_size=4), st.lists(st.integers(-1, 9)))
def test_point_in_time_is_what_came_strictly_before(people: list[list[int]], moments: list[int]) -> None:
    pool = _pool([len(p) for p in people], [t for p in people for t in sorted(p)])
    person = np.asarray([i % len(people) for i in range(len(moments))], np.int64)
    start, end = point_in_time(pool, person, np.asarray(moments, np.int64))
    for row, now in enumerate(moments):
        assert start[row] == pool.offsets[person[row]]
        assert end[row] - start[row] == sum(t < now for t in people[person[row]])


def test_fields_encode_by_kind_and_forgive_whatever_a_request_brings() -> None:
    fields = [
        Field(name="city", side=Side.USER, encoding=Encoding.CATEGORY, size=3),
        Field(name="tags", side=Side.USER, encoding=Encoding.CATEGORIES, size=3, width=2),
        Field(name="age", side=Side.USER, encoding=Encoding.NUMBER, mean=40, std=10),
    ]
    words = {"user_city": Vocabulary(["Oslo", "Rome"]), "user_tags": Vocabulary(["a", "b"])}
    columns = {
        "city": ["Rome", None, "Paris", 7, [1]],
        "tags": [["b", "x", "a"], None, "a", 5, []],
        "age": [50, None, "30", "old", float("inf")],
    }
    arrays = encode_fields(columns, 5, fields, words)
    assert arrays["user_city"].tolist() == [2, 0, 0, 0, 0]
    assert arrays["user_tags"].tolist() == [[2, 0], [-1, -1], [1, -1], [-1, -1], [-1, -1]]
    assert arrays["user_age"].tolist() == [1, 0, -1, 0, 0]
    missing = encode_fields({}, 2, fields, words)
    assert missing["user_city"].tolist() == [0, 0]
    assert missing["user_tags"].tolist() == [[-1, -1], [-1, -1]]
    assert missing["user_age"].tolist() == [0, 0]


def test_numbers_are_the_same_from_lists_and_arrays() -> None:
    field = Field(name="x", side=Side.CONTEXT, encoding=Encoding.NUMBER, mean=0.1, std=3)
    values = [0.3, -7.25, 1e300, float("nan")]
    one = encode_fields({"x": values}, 4, [field], {})["context_x"]
    other = encode_fields({"x": np.asarray(values)}, 4, [field], {})["context_x"]
    np.testing.assert_array_equal(one, other)
    assert one.dtype == np.float32 and one[2] == 1e6 and one[3] == 0


def test_moments_are_local() -> None:
    fields = [
        Field(name="hour", side=Side.CONTEXT, encoding=Encoding.CYCLE, size=24),
        Field(name="weekday", side=Side.CONTEXT, encoding=Encoding.CYCLE, size=7),
    ]
    sunday_23h = int(datetime(2024, 3, 3, 23, 30, tzinfo=ZoneInfo("UTC")).timestamp()) * 1_000_000
    now = np.asarray([sunday_23h] * 3)
    arrays = encode_moment(now, np.asarray([0, 60, -24 * 60]), fields)
    assert arrays["context_hour"].tolist() == [23, 0, 23]
    assert arrays["context_weekday"].tolist() == [6, 0, 5]


@pytest.mark.parametrize("zone", ["Europe/Rome", "America/St_Johns", "Asia/Kolkata", "Australia/Lord_Howe", "UTC"])
def test_offsets_follow_daylight_saving(zone: str) -> None:
    now = np.arange(0, 400 * DAY_US, 7 * HOUR_US) + 1_700_000_000_000_000
    expected = [
        datetime.fromtimestamp(t / 1e6, ZoneInfo(zone)).utcoffset().total_seconds() // 60  # type: ignore[union-attr]  # aware
        for t in now
    ]
    assert offsets([zone] * len(now), now).tolist() == expected


def test_an_unknown_zone_is_utc() -> None:
    now = np.full(5, 1_700_000_000_000_000)
    assert offsets(["Mars/Base", None, "", "Asia/Kolkata", 5], now).tolist() == [0, 0, 0, 330, 0]  # type: ignore[list-item]  # as a bad profile would


@given(
    st.sampled_from(
        ["Europe/Rome", "America/St_Johns", "Asia/Kolkata", "+02:00", "Mars/Base", "", "/etc/passwd", "UTC"]
    ),
    st.integers(0, 2**62),
)
def test_one_moment_is_told_as_many_are(zone: str, now: int) -> None:
    alone = offsets([zone], np.asarray([now]))
    assert alone.tolist() == offsets([zone, zone], np.asarray([now, now]))[:1].tolist()


def test_queries_take_the_zone_from_the_person() -> None:
    spec = _spec(1, [Field(name="hour", side=Side.CONTEXT, encoding=Encoding.CYCLE, size=24)])
    noon = np.full(2, 12 * HOUR_US)
    zero = np.zeros(2, np.int64)
    people = {"timezone": ["Asia/Tokyo", None]}
    arrays = encode_queries(_pool([0, 0], []), zero, zero, noon, people, {}, spec, {})
    assert arrays["context_hour"].tolist() == [21, 12]
    given = encode_queries(_pool([0, 0], []), zero, zero, noon, people, {}, spec, {}, np.asarray([0, 60]))
    assert given["context_hour"].tolist() == [12, 13]
