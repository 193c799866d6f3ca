"""Raw events on both sides: a table folded at once, and a stream of late, repeated deliveries folded piece by piece.

At every moment of every stream the arrays that training would see and those that serving would see are equal, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.dataset.dataset import open_dataset, query_arrays
from playbill.dataset.settings import SplitSettings
from playbill.features.encoder import Arrays, encode_queries, point_in_time
from playbill.features.fold import Past, Profile, fold, fold_profiles, fold_table
from playbill.features.settings import FeatureSettings
from playbill.features.spec import Encoding, EventCode, FeatureSpec, Field, Side
from playbill.features.vocabulary import Vocabulary
from playbill.tables.folder import read_table

ITEMS = Vocabulary(["a", "b", "c", "d"])
USERS = {
    "city": ["Rome", None, "Atlantis"],
    "age": [30.0, None, 61.0],
    "tags": [["x", "y"], [], None],
    "timezone": ["Asia/Tokyo", None, "America/New_York"],
}
VOCABULARIES = {"item": ITEMS, "user_city": Vocabulary(["Rome", "Oslo"]), "user_tags": Vocabulary(["y", "x"])}
SPEC = FeatureSpec(
    user_id_type="int64",
    item_id_type="string",
    history_length=4,
    events=[EventCode(name="rate", code=1, middle=3.0, scale=0.3), EventCode(name="view", code=2, scale=0.1)],
    fields=[
        Field(name="city", side=Side.USER, encoding=Encoding.CATEGORY, size=3),
        Field(name="tags", side=Side.USER, encoding=Encoding.CATEGORIES, size=3, width=2),
        Field(name="age", side=Side.USER, encoding=Encoding.NUMBER, mean=41.3, std=7.7),
        Field(name="device", side=Side.CONTEXT, encoding=Encoding.CATEGORY, size=1),
        Field(name="hour", side=Side.CONTEXT, encoding=Encoding.CYCLE, size=24),
        Field(name="weekday", side=Side.CONTEXT, encoding=Encoding.CYCLE, size=7),
    ],
    num_items=4,
    vocabularies={},
)
WORDS = {**VOCABULARIES, "context_device": Vocabulary([])}
HOUR_US = 3_600_000_000


@dataclass
class Raw:
    """One row as it was sent."""

    person: int
    past: Past


def _offline(sent: Sequence[Raw], now: int, spec: FeatureSpec = SPEC) -> Arrays:
    ids = [r.past.event_id for r in sent]
    events = pa.table(
        {
            "event_id": pa.array(ids, pa.int64() if all(type(i) is int for i in ids) else pa.string()),
            "item_id": pa.array([r.past.item_id for r in sent], pa.string()),
            "event": pa.array([r.past.event for r in sent], pa.string()),
            "at": pa.array([r.past.at for r in sent], pa.timestamp("us", tz="UTC")),
            "value": pa.array([r.past.value for r in sent], pa.float64()),
        }
    )
    pool = fold_table(events, np.asarray([r.person for r in sent], np.int64), 3, spec, ITEMS)
    moments = np.full(3, now)
    span = point_in_time(pool, np.arange(3), moments)
    return encode_queries(pool, *span, moments, USERS, {}, spec, WORDS)


def _online(stored: Sequence[bytes], now: int, spec: FeatureSpec = SPEC) -> Arrays:
    profiles = [msgspec.msgpack.decode(b, type=Profile) for b in stored]
    pool = fold_profiles(profiles, spec, ITEMS)
    moments = np.full(3, now)
    span = point_in_time(pool, np.arange(3), moments)
    users = {name: [p.features.get(name) for p in profiles] for name in USERS}
    return encode_queries(pool, *span, moments, users, {}, spec, WORDS)


def _same(offline: Arrays, online: Arrays) -> None:
    assert offline.keys() == online.keys()
    for name, expected in offline.items():
        assert online[name].dtype == expected.dtype, name
        np.testing.assert_array_equal(online[name], expected, err_msg=name)


@st.composite
def streams(draw: st.DrawFn) -> list[list[Raw]]:
    """Chunks of deliveries: any order, events repeated, times tied, values missing, names and items unknown."""
    some_id = draw(st.sampled_from([st.integers(-5, 40), st.text("aB~0é\x00", max_size=3)]))
    ids = draw(st.lists(some_id, unique=True, min_size=1, max_size=14))
    events = [
        Raw(
            draw(st.integers(0, 2)),
            Past(
                event_id=event_id,
                item_id=draw(st.sampled_from(["a", "b", "c", "d", "gone"])),
                event=draw(st.sampled_from(["rate", "rate", "view", "impression"])),
                at=draw(st.one_of(st.integers(0, 5), st.integers(0, 5000).map(lambda h: h * HOUR_US))),
                value=draw(st.one_of(st.none(), st.floats(1, 5))),
            ),
        )
        for event_id in ids
    ]
    order = draw(st.permutations(events + draw(st.lists(st.sampled_from(events), max_size=8))))
    chunks, rest = [], list(order)
    while rest:
        size = draw(st.integers(1, 5))
        chunks.append(rest[:size])
        rest = rest[size:]
    return chunks


@settings(max_examples=150, deadline=None)
@given(streams(), st.lists(st.integers(0, 5001).map(lambda h: h * HOUR_US + 3), max_size=3), st.integers(0, 3))
def test_any_stream_gives_the_same_arrays_at_every_moment(
    chunks: list[list[Raw]], moments: list[int], spare: int
) -> None:
    features: list[dict[str, Any]] = [{name: column[p] for name, column in USERS.items()} for p in range(3)]
    blank = [msgspec.msgpack.encode(Profile(user_id=p, features=features[p])) for p in range(3)]
    short, long = list(blank), list(blank)
    sent: list[Raw] = []
    for chunk in chunks:
        sent += chunk
        for person in {r.person for r in chunk}:
            new = [r.past for r in chunk if r.person == person]
            for stored, keep in ((short, SPEC.history_length + spare), (long, 1000)):
                before = msgspec.msgpack.decode(stored[person], type=Profile)
                stored[person] = msgspec.msgpack.encode(fold(before, new, SPEC, keep))
        after_all = max(r.past.at for r in sent) + 1
        # the shortest profile that is allowed answers for the present, one that keeps everything for any moment
        _same(_offline(sent, after_all), _online(short, after_all))
        for now in moments:
            _same(_offline(sent, now), _online(long, now))


@settings(max_examples=50, deadline=None)
@given(streams())
def test_one_by_one_ends_like_all_at_once(chunks: list[list[Raw]]) -> None:
    events = [r.past for chunk in chunks for r in chunk]
    once = fold(Profile(), events, SPEC, keep=1000)
    steps = Profile()
    for event in events:
        steps = fold(steps, [event], SPEC, keep=1000)
    assert (steps.history, steps.seen, steps.num_events) == (once.history, once.seen, once.num_events)


def test_real_people_look_the_same_from_both_sides(ml100k_tables: Path) -> None:
    dataset = open_dataset(ml100k_tables, FeatureSettings(lift_protected=True), SplitSettings())
    spec, items = dataset.spec, dataset.vocabularies["item"]
    generator = np.random.default_rng(0)
    people = generator.choice(len(dataset.people), 60, replace=False)
    raw: dict[Any, list[Past]] = {dataset.user_ids[p]: [] for p in people}
    events = read_table(ml100k_tables, "events", ["user_id", "event_id", "item_id", "event", "at", "value"])
    events = events.set_column(4, "at", events["at"].cast(pa.int64()))
    for user_id, *rest in zip(*(column.to_pylist() for column in events.columns), strict=True):
        if user_id in raw:
            raw[user_id].append(Past(*rest))

    profiles = [
        Profile(user_id=dataset.user_ids[p], features={n: c[p] for n, c in dataset.user_columns.items()})
        for p in people
    ]
    for moment in np.quantile(dataset.pool.at, [0.3, 0.6, 0.9, 1.0]).astype(np.int64):
        for i, profile in enumerate(profiles):
            # everything so far: most of it delivered before, in no order, in pieces
            history = raw[profile.user_id]
            order = [k for k in generator.permutation(len(history)) if history[k].at <= moment]
            for piece in np.array_split(order, 5):
                profile = fold(profile, [history[k] for k in piece.astype(int)], spec, keep=spec.history_length)
                profile = msgspec.msgpack.decode(msgspec.msgpack.encode(profile), type=Profile)
            profiles[i] = profile
        now = np.full(len(people), moment + 1)
        pool = fold_profiles(profiles, spec, items)
        users = {n: [p.features[n] for p in profiles] for n in dataset.user_columns}
        span = point_in_time(pool, np.arange(len(people)), now)
        online = encode_queries(pool, *span, now, users, {}, spec, dataset.vocabularies)
        offline = query_arrays(dataset, people, *point_in_time(dataset.pool, people, now), now)
        _same(offline, online)
        assert (offline["history_item"] > 0).any()
