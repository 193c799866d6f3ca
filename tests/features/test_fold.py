from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from playbill.features.fold import Past, Profile, fold, fold_profiles, fold_table, map_values, tie_keys
from playbill.features.spec import EventCode, FeatureSpec
from playbill.features.vocabulary import Vocabulary

SPEC = FeatureSpec(
    user_id_type="int64",
    item_id_type="int64",
    history_length=3,
    events=[EventCode(name="rate", code=1, middle=3, scale=0.5), EventCode(name="view", code=2)],
    fields=[],
    num_items=3,
    vocabularies={},
)


def _past(event_id: int | str, at: int, item: int = 10, event: str = "rate", value: float | None = 4.0) -> Past:
    return Past(event_id=event_id, item_id=item, event=event, at=at, value=value)


def test_events_are_ordered_by_time_then_id_and_cut_to_the_newest() -> None:
    profile = fold(Profile(), [_past(3, 5), _past(1, 9), _past(2, 5), _past(4, 1)], SPEC, keep=3)
    assert [e.event_id for e in profile.history] == [2, 3, 1]
    assert (profile.num_events, profile.version) == (4, 1)


def test_a_late_event_takes_its_place_and_one_older_than_the_history_none() -> None:
    profile = fold(Profile(), [_past(1, 10), _past(2, 20), _past(3, 30)], SPEC, keep=3)
    profile = fold(profile, [_past(4, 15, item=11)], SPEC, keep=3)
    assert [e.event_id for e in profile.history] == [4, 2, 3]
    profile = fold(profile, [_past(5, 1, item=12)], SPEC, keep=3)
    assert [e.event_id for e in profile.history] == [4, 2, 3]
    # out of the history, but never to be recommended again
    assert profile.seen == [10, 11, 12]


def test_a_second_delivery_changes_nothing() -> None:
    first = fold(Profile(), [_past("a", 1), _past("b", 2)], SPEC, keep=5)
    assert fold(first, [_past("b", 2), _past("a", 1)], SPEC, keep=5) is first
    assert fold(first, [], SPEC, keep=5) is first
    # contradicting deliveries: the earlier moment counts, whichever arrives first
    one = fold(first, [_past("c", 9), _past("c", 7)], SPEC, keep=5)
    other = fold(fold(first, [_past("c", 7)], SPEC, keep=5), [_past("c", 9)], SPEC, keep=5)
    assert [(e.event_id, e.at) for e in one.history] == [("a", 1), ("b", 2), ("c", 7)]
    assert one.history == other.history


def test_events_outside_the_spec_leave_no_trace() -> None:
    profile = fold(Profile(), [_past(1, 1, event="impression")], SPEC, keep=5)
    assert profile == Profile()


def test_the_given_profile_stays_as_it_was() -> None:
    profile = Profile(user_id=1, history=[_past(1, 1)], seen=[10], num_events=1)
    fold(profile, [_past(2, 2, item=11)], SPEC, keep=5)
    assert (len(profile.history), profile.seen, profile.num_events, profile.version) == (1, [10], 1, 0)


IDS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(st.characters(exclude_categories=["Cs"]), max_size=4))


@given(st.lists(IDS, unique=True), st.data())
def test_tie_keys_order_any_subset_alike(ids: list[int | str], data: st.DataObject) -> None:
    subset = [i for i in ids if data.draw(st.booleans())]
    rank = dict(zip(ids, tie_keys(ids).tolist(), strict=True))
    assert len(set(rank.values())) == len(ids)
    assert sorted(subset, key=rank.__getitem__) == [
        i for _, i in sorted(zip(tie_keys(subset).tolist(), subset, strict=True), key=lambda pair: pair[0])
    ]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4)))
def test_tie_keys_of_a_column_and_of_a_list_agree(ids: list[str]) -> None:
    # code point order in Python, UTF-8 bytes in Arrow; trailing zero characters must not vanish
    np.testing.assert_array_equal(tie_keys(pa.array(ids, pa.string())).argsort(), tie_keys(ids).argsort())
    column = tie_keys(pa.chunked_array([ids[:1], ids[1:]], pa.string()))
    assert len(set(column.tolist())) == len(set(ids))


def test_ints_sort_before_strings() -> None:
    assert tie_keys(["b", 10, "a", -1]).argsort().tolist() == [3, 1, 2, 0]
    assert tie_keys([5, 2**62, -(2**62)]).argsort().tolist() == [2, 0, 1]


def test_a_table_folds_into_a_pool_person_by_person() -> None:
    events = pa.table(
        {
            "event_id": pa.array(["e1", "e2", "e3", "e4", "e5", "e6", "e2"]),
            "item_id": pa.array([20, 10, 30, None, 10, 99, 10]),
            "event": ["rate", "view", "rate", "view", "buy", "rate", "view"],
            "at": pa.array([30, 10, 20, 5, 6, 40, 10], pa.timestamp("us", tz="UTC")),
            "value": pa.array([5.0, None, 1.0, None, None, float("inf"), None]),
        }
    )
    person = np.asarray([1, 1, 0, 1, 1, 1, 1])
    pool = fold_table(events, person, 3, SPEC, Vocabulary([10, 20, 30]))
    # e4 has no item, buy is not in the spec, e2 was delivered twice, item 99 is unknown
    assert pool.source_row.tolist() == [2, 1, 0, 5]
    assert pool.item.tolist() == [3, 1, 2, 0]
    assert pool.code.tolist() == [1, 2, 1, 1]
    assert pool.value.tolist() == [-1.0, 0.0, 1.0, 0.0]
    assert pool.at.tolist() == [20, 10, 30, 40]
    assert pool.offsets.tolist() == [0, 1, 4, 4]


def test_negative_people_are_left_out() -> None:
    events = pa.table(
        {
            "event_id": pa.array([1, 2]),
            "item_id": pa.array([10, 10]),
            "event": ["rate", "rate"],
            "at": pa.array([1, 2], pa.timestamp("us", tz="UTC")),
        }
    )
    pool = fold_table(events, np.asarray([-1, 0]), 1, SPEC, Vocabulary([10]))
    assert pool.source_row.tolist() == [1]
    assert pool.value.tolist() == [0.0]
    nobody = fold_table(events, np.asarray([-1, -1]), 2, SPEC, Vocabulary([10]))
    assert len(nobody) == 0 and nobody.offsets.tolist() == [0, 0, 0]


def test_profiles_of_another_spec_lose_what_this_one_does_not_know() -> None:
    profiles = [
        Profile(history=[_past(1, 1, event="buy"), _past(2, 2, item=30, value=None)]),
        Profile(),
        Profile(history=[_past(3, 3, item=77, event="view")]),
    ]
    pool = fold_profiles(profiles, SPEC, Vocabulary([10, 20, 30]))
    assert pool.offsets.tolist() == [0, 1, 1, 2]
    assert (pool.item.tolist(), pool.code.tolist(), pool.person.tolist()) == ([3, 0], [1, 2], [0, 2])


def test_values_are_mapped_and_absurd_ones_stay_finite() -> None:
    mapped = map_values(np.asarray([1.0, 5.0, np.nan, np.inf, 1e300, 7.0]), np.asarray([1, 1, 1, 1, 1, 2]), SPEC)
    assert mapped.dtype == np.float32
    assert mapped.tolist() == [-1.0, 1.0, 0.0, 0.0, 1e6, 7.0]
