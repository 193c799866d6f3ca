"""The store: what it takes, what it refuses, what it gives back, and to whom."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import lmdb
import pytest

from playbill.errors import RequestError, StateError
from playbill.state.events import Declared, Event
from playbill.state.settings import StoreSettings
from playbill.state.store import Store
from playbill.tables.schema import EventKind

DECLARED = Declared(
    events=[EventKind(name="rate", unit="stars", low=1, high=5), EventKind(name="view"), EventKind(name="search")],
    user_id_type="int64",
    item_id_type="string",
)


def rate(event_id: int | str, user_id: int | None = 7, item_id: str | None = "a", at: int = 1_000, value: float = 4):
    return Event(event_id=event_id, event="rate", user_id=user_id, item_id=item_id, at=at, value=value)


@pytest.fixture
def store(place: Path | str):
    with Store.open(place) as opened:
        opened.declare(DECLARED)
        yield opened


def test_events_become_a_profile_and_a_log(store: Store) -> None:
    before = store.version
    assert store.append([rate(1, at=2_000), rate("1", item_id="b", at=1_000), rate(2, user_id=8)]) == [True] * 3
    profile = store.profile(7)
    assert profile is not None and profile.user_id == 7
    assert [(p.event_id, p.item_id) for p in profile.history] == [("1", "b"), (1, "a")]  # oldest first
    assert profile.seen == ["a", "b"] and profile.num_events == 2 and profile.version == 1
    assert store.profile(9) is None
    assert [p and p.user_id for p in store.profiles([8, 9])] == [8, None]
    assert store.version == before + 3
    assert [(s, e.event_id) for s, _, e in store.events()] == [(before + 1, 1), (before + 2, "1"), (before + 3, 2)]
    assert [s for s, _, _ in store.events(after=before + 2)] == [before + 3]


def test_ids_that_look_alike_stay_apart(place: Path | str) -> None:
    with Store.open(place) as store:
        store.declare(Declared(events=[EventKind(name="view")], user_id_type="string", item_id_type="int64"))
        store.append([Event(event_id=1, event="view", session_id=196, item_id=1)])
        store.append([Event(event_id="1", event="view", session_id="196", item_id="2")])
        assert [p.item_id for p in store.session(196).history] == [1]
        assert [p.item_id for p in store.session("196").history] == [2]  # item ids take the declared type
        assert len(list(store.events())) == 2


def test_columns_are_read_without_what_people_did(store: Store) -> None:
    store.append([rate(1), rate(2, user_id=8)])
    store.set_features({7: {"consent_marketing": False, "age": 30}, 6: {"age": 20}})
    assert store.features([7, 8, 9, 6]) == [{"consent_marketing": False, "age": 30}, {}, {}, {"age": 20}]


def test_a_second_delivery_changes_nothing(store: Store) -> None:
    assert store.append([rate(1), rate(1), rate(2, item_id="b")]) == [True, False, True]
    profile, version = store.profile(7), store.version
    assert store.append([rate(2, item_id="c", at=5), rate(1)]) == [False, False]
    assert store.profile(7) == profile and store.version == version


def test_sessions_have_profiles_and_a_named_person_owns_the_event(store: Store) -> None:
    store.append([Event(event_id=1, event="view", session_id="s", item_id="a")])
    store.append([Event(event_id=2, event="view", session_id="s", user_id=7, item_id="b")])
    assert [p.item_id for p in store.session("s").history] == ["a"]
    assert store.session("s").user_id is None
    assert [p.item_id for p in store.profile(7).history] == ["b"]


def test_events_without_an_item_are_logged_only(store: Store) -> None:
    store.append([Event(event_id=1, event="search", user_id=7)])
    assert store.profile(7) is None and len(list(store.events())) == 1


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (Event(event_id=1, event="rate", item_id="a"), "events[1].user_id"),
        (Event(event_id=1, event="buy", user_id=7), "events[1].event"),
        (rate(1, value=6), "events[1].value"),
        (rate(1, value=float("nan")), "events[1].value"),
        (Event(event_id=1, event="view", user_id=7, value=float("inf")), "events[1].value"),
        (Event(event_id=1, event="view", user_id="seven"), "events[1].user_id"),
        (Event(event_id=1, event="view", user_id="007"), "events[1].user_id"),
        (Event(event_id=1, event="view", user_id=str(2**63)), "events[1].user_id"),
    ],
)
def test_one_invalid_event_and_none_is_written(store: Store, event: Event, field: str) -> None:
    version = store.version
    with pytest.raises(RequestError) as caught:
        store.append([rate(99), event])
    assert caught.value.field == field
    assert store.version == version and store.profile(7) is None
    assert store.append([rate(99)]) == [True]  # its id was not used up


def test_text_ids_take_the_declared_type(store: Store) -> None:
    store.append([Event(event_id=1, event="view", user_id="7", item_id=3)])
    assert [p.item_id for p in store.profile(7).history] == ["3"]


def test_the_future_is_cut_and_a_missing_time_is_now(store: Store) -> None:
    before = time.time_ns() // 1000
    store.append([rate(1, at=before + 3_600_000_000), Event(event_id=2, event="view", user_id=8, item_id="a")])
    after = time.time_ns() // 1000
    skew = int(store.settings.max_skew_s * 1e6)
    assert before + skew <= store.profile(7).history[0].at <= after + skew
    assert before <= store.profile(8).history[0].at <= after


def test_only_the_newest_of_each_event_name_are_kept(place: Path | str) -> None:
    with Store.open(place, settings=StoreSettings(keep=3, seen=4)) as store:
        store.declare(DECLARED)
        store.append([rate(i, item_id=f"r{i}", at=i) for i in range(5)])
        views = [Event(event_id=f"v{i}", event="view", user_id=7, item_id=f"v{i}", at=100 + i) for i in range(10)]
        for view in views:
            store.append([view])
        profile = store.profile(7)
        assert [p.item_id for p in profile.history] == ["r2", "r3", "r4", "v7", "v8", "v9"]
        assert profile.seen == ["v6", "v7", "v8", "v9"] and profile.num_events == 15
        store.append([rate(50, item_id="late", at=0)])  # older than all that is kept: known, and in no history
        assert [p.item_id for p in store.profile(7).history][:1] == ["r2"]
        assert store.append([rate(50, item_id="late", at=0)]) == [False]


def test_features_and_catalogue(store: Store) -> None:
    store.set_features({7: {"consent_personalisation": False, "city": "Utrecht"}})
    store.append([rate(1)])
    store.set_features({7: {"consent_personalisation": True}})
    profile = store.profile(7)
    assert profile.features == {"consent_personalisation": True, "city": "Utrecht"}
    assert len(profile.history) == 1 and profile.version == 3
    version = store.version
    store.set_features({7: {"city": "Utrecht"}})
    assert store.version == version and store.profile(7) == profile
    store.set_items({"a": {"available": False}, 5: {"available": False}})
    store.set_items({"a": {"price": 3.0}})
    with store.view() as view:
        assert view.catalogue() == {"a": {"available": False, "price": 3.0}, 5: {"available": False}}
        assert view.catalogue_version == view.version == version + 3
        assert view.items(["b", "a"]) == {"b": None, "a": {"available": False, "price": 3.0}}


def test_what_is_told_of_items_is_taken_back_and_told_twice_changes_nothing(store: Store) -> None:
    store.set_items({"a": {"price": 3.0, "title": "A"}}, {7: {"item_id": "a", "locale": "de"}})
    with store.view() as view:
        before = view.version
        assert view.catalogue_version == before - 1 and view.creatives_version == before  # one commit
        assert view.creatives_of([7, 8]) == {7: {"item_id": "a", "locale": "de"}, 8: None}
    store.set_items({"a": {"price": 3.0}}, {7: {"locale": "de"}})
    assert store.version == before
    store.set_items({"a": {"price": None}}, {7: {"locale": None}})
    with store.view() as view:
        assert view.items(["a"]) == {"a": {"title": "A"}} and view.creatives_of([7]) == {7: {"item_id": "a"}}
        assert (view.catalogue_version, view.version) == (before + 1, before + 2)


def test_long_ids_are_ids(store: Store) -> None:
    long = "é" * 256
    store.append([Event(event_id=long, event="view", session_id=long, item_id="a")])
    assert store.append([Event(event_id=long, event="view", session_id=long, item_id="a")]) == [False]
    assert store.session(long).num_events == 1 and store.session(long[:-1]) is None


def test_a_store_without_declarations_says_what_to_do(place: Path | str) -> None:
    with Store.open(place) as store, pytest.raises(StateError, match="playbill ingest"):
        store.append([rate(1)])


def test_declarations_add_up_and_types_may_not_change(store: Store) -> None:
    store.declare(Declared(events=[EventKind(name="buy")], user_id_type="int64", item_id_type="string"))
    assert [k.name for k in store.declared.events] == ["rate", "view", "search", "buy"]
    with pytest.raises(StateError, match="user_id_type"):
        store.declare(Declared(events=[], user_id_type="string", item_id_type="string"))


def test_full_store_says_how_and_goes_on_when_larger(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with Store.open(path, settings=StoreSettings(map_size_gb=0.0005)) as store:
        store.declare(DECLARED)
        stored = 0
        with pytest.raises(StateError, match=r"map_size_gb"):
            for stored in range(100_000):  # counts what was acknowledged before the error
                store.append([rate(stored, item_id="x" * 200)])
        assert len(list(store.events())) == stored
        assert store.profile(7).num_events == stored  # still readable
    with Store.open(path, settings=StoreSettings(map_size_gb=0.01)) as store:
        assert store.append([rate(stored - 1), rate(stored, item_id="x" * 200)]) == [False, True]


_FULL_DISK = """
import resource, sys
from playbill.errors import StateError
from playbill.state.events import Event
from playbill.state.store import Store
store = Store.open(sys.argv[1])
stored = 0
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))  # the kernel refuses longer files, as a full disk does
try:
    for stored in range(100_000):
        store.append([Event(event_id=stored, event="rate", user_id=7, item_id="x" * 200, at=stored)])
except StateError as error:
    print(error)
    print(stored, sum(1 for _ in store.events()))
"""


def test_full_disk_is_said_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s") as store:
        store.declare(DECLARED)
    ran = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path / "s")], capture_output=True, text=True, timeout=120
    )
    assert "disk" in ran.stdout, ran.stdout + ran.stderr
    stored, held = map(int, ran.stdout.splitlines()[-1].split())
    assert stored == held > 0
    with Store.open(tmp_path / "s") as store:
        assert [e.event_id for _, _, e in store.events()] == list(range(stored))
        assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StateError, match="is a file"):
        Store.open(tmp_path / "file")
    with pytest.raises(StateError, match="other files"):
        Store.open(tmp_path)
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "data.mdb").write_bytes(b"x" * 8192)
    with pytest.raises(StateError, match="not a store"):
        Store.open(tmp_path / "junk")
    with lmdb.open(str(tmp_path / "other")) as env, env.begin(write=True) as txn:
        txn.put(b"theirs", b"1")
    with pytest.raises(StateError, match="something else"):
        Store.open(tmp_path / "other")


def test_there_is_nothing_to_read_where_nothing_was_made(place: Path | str) -> None:
    with pytest.raises(StateError, match="playbill ingest"):
        Store.open(place, readonly=True)


def test_newer_format_is_refused(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s"):
        pass
    with lmdb.open(str(tmp_path / "s"), max_dbs=8) as env:
        meta = env.open_db(b"meta")
        with env.begin(db=meta, write=True) as txn:
            txn.put(b"format", (99).to_bytes(8, "big"))
    with pytest.raises(StateError, match="format 99"):
        Store.open(tmp_path / "s")


def test_a_folder_is_opened_once_in_a_process(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s"), pytest.raises(StateError, match="in this process already"):
        Store.open(tmp_path / "s")


def test_a_store_does_not_cross_a_fork(store: Store) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store.profile(7)
        except StateError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert b"after fork" in os.read(read, 1000)


def test_read_only_refuses_to_write(store: Store) -> None:
    store.append([rate(1)])
    store.close()
    with Store.open(store.path, readonly=True) as reader:
        assert reader.profile(7).num_events == 1
        with pytest.raises(StateError, match="read-only"):
            reader.append([rate(2)])


def test_threads_that_append_together_share_commits(store: Store) -> None:
    before = store.commits
    errors: list[Exception] = []

    def send(thread: int) -> None:
        try:
            for i in range(20):
                assert store.append([rate(f"{thread}-{i}", user_id=thread)]) == [True]
                assert store.profile(thread).num_events == i + 1  # durable and visible when append returns
        except Exception as error:  # handed to the main thread
            errors.append(error)

    threads = [threading.Thread(target=send, args=(t,)) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    commits = store.commits - before
    assert len(list(store.events())) == 160 and commits < 160
