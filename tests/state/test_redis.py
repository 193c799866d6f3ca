"""Redis as the shared store: what it refuses, how it fails and comes back, and that writers do not lose each other."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from playbill.errors import StateError
from playbill.state.events import Declared, Event
from playbill.state.settings import StoreSettings, state_place
from playbill.state.store import Store
from playbill.tables.schema import EventKind

DECLARED = Declared(events=[EventKind(name="view")], user_id_type="int64", item_id_type="int64")
QUICK = StoreSettings(redis_timeout_s=0.5, redis_read_timeout_s=0.2)


def view(event_id: int | str, user_id: int = 7, item_id: int = 1) -> Event:
    return Event(event_id=event_id, event="view", user_id=user_id, item_id=item_id, at=1)


def opened(url: str, settings: StoreSettings | None = None) -> Store:
    store = Store.open(url, settings=settings)
    store.declare(DECLARED)
    return store


_numbers = count()


@pytest.fixture
def url(redis_server: Any) -> str:
    return str(redis_server.url(f"redis-{next(_numbers)}"))


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("appendonly", "no", "appendonly is no: events are in memory alone; set it to yes"),
        ("appendfsync", "everysec", "acknowledged before they are on the disk; set it to always"),
        ("no-appendfsync-on-rewrite", "yes", "not synced while the log is rewritten"),
        ("maxmemory-policy", "allkeys-lru", "events are evicted; set it to noeviction"),
    ],
)
def test_a_server_that_would_lose_events_is_refused_unless_that_is_allowed(
    start_redis: Callable[..., Any], caplog: pytest.LogCaptureFixture, setting: str, value: str, said: str
) -> None:
    server = start_redis(f"--{setting}", value)
    with pytest.raises(StateError, match="would lose acknowledged events") as caught:
        Store.open(server.url())
    assert said in str(caught.value) and "store.redis_unsafe=true" in str(caught.value)
    with (
        caplog.at_level(logging.WARNING, "playbill.state"),
        opened(server.url(), StoreSettings(redis_unsafe=True)) as store,
    ):
        assert store.append([view(1)]) == [True]
    assert said in caplog.text


def test_a_server_that_does_not_tell_its_configuration_is_warned_of(
    start_redis: Callable[..., Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis()
    server.client().execute_command("ACL", "SETUSER", "shop", "on", ">secret", "~*", "+@all", "-config")
    url = server.url().replace("unix://", "unix://shop:secret@")
    with caplog.at_level(logging.WARNING, "playbill.state"), opened(url) as store:
        assert store.append([view(1)]) == [True]
        assert "secret" not in store.place and "shop:" not in store.place
    assert "does not tell its configuration" in caplog.text and len(caplog.records) == 1
    monkeypatch.setenv("PLAYBILL_REDIS_PASSWORD", "secret")
    with Store.open(url.replace(":secret", ""), readonly=True) as store:
        assert store.profile(7).num_events == 1


def test_who_is_not_let_in_is_told(start_redis: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    server = start_redis("--requirepass", "secret")
    for password in (None, "wrong"):
        if password:
            monkeypatch.setenv("PLAYBILL_REDIS_PASSWORD", password)
        with pytest.raises(StateError, match="refuses to let us in.*PLAYBILL_REDIS_PASSWORD"):
            Store.open(server.url())
    monkeypatch.setenv("PLAYBILL_REDIS_PASSWORD", "secret")
    Store.open(server.url()).close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0 cannot be reached"),
        ("unix:///nowhere/socket", "cannot be reached"),
        ("redis://127.0.0.1:1/shop", "expected the number of a database"),
        ("redis://127.0.0.1:1/0?prefix=a+b", "expected a prefix"),
        ("redis://u:p@127.0.0.1:1/0?colour=red", r"redis://127.0.0.1:1/0\?colour=red: an option of the URL"),
    ],
)
def test_a_url_that_leads_nowhere_says_so(redis_server: Any, url: str, said: str) -> None:
    with pytest.raises(StateError, match=said):
        Store.open(url)


def test_places() -> None:
    assert state_place("shop", None) == Path("shop/state").absolute()
    assert state_place("shop", "elsewhere") == Path("elsewhere").absolute()
    assert state_place("shop", "redis://host/0") == "redis://host/0"


def test_shops_share_a_server(redis_server: Any, url: str) -> None:
    with opened(url) as one, opened(url + "-b") as two:
        one.append([view(1)])
        assert two.profile(7) is None and two.append([view(1)]) == [True]
        one.set_items({1: {"available": False}})
        with two.view() as seen:
            assert seen.catalogue() == {}


def test_what_is_no_store_is_refused(redis_server: Any, url: str) -> None:
    client, prefix = redis_server.client(), url.partition("prefix=")[2]
    client.set(f"{prefix}:meta", "theirs")
    with pytest.raises(StateError, match="something else"):
        Store.open(url)
    client.delete(f"{prefix}:meta")
    client.lpush(f"{prefix}:log", "theirs")
    with pytest.raises(StateError, match=r"something else under \['.*:log'\]"):
        Store.open(url)
    client.delete(f"{prefix}:log")
    Store.open(url).close()
    client.hset(f"{prefix}:meta", "format", (99).to_bytes(8, "big"))
    with pytest.raises(StateError, match="format 99"):
        Store.open(url)


def test_a_replica_is_read_and_not_written(start_redis: Callable[..., Any], redis_server: Any) -> None:
    server = start_redis()
    with opened(server.url()) as store:
        store.append([view(1)])
        server.client().execute_command("REPLICAOF", "127.0.0.1", "1")  # a master that is away: it keeps what it has
        with pytest.raises(StateError, match=r"has become a replica.*nothing of this was stored"):
            store.append([view(2)])
        with pytest.raises(StateError, match="is a replica"):
            Store.open(server.url())
        with Store.open(server.url(), readonly=True) as reader:
            assert reader.profile(7).num_events == 1
        server.client().execute_command("REPLICAOF", "NO", "ONE")
        assert store.append([view(1), view(2)]) == [False, True]


def test_a_full_server_stores_nothing_of_a_delivery_and_goes_on_when_larger(start_redis: Callable[..., Any]) -> None:
    server = start_redis()
    with opened(server.url()) as store:
        store.append([view(1)])
        server.client().config_set("maxmemory", 1)
        with pytest.raises(StateError, match="is full.*maxmemory"):
            store.append([view(2), view(3)])
        assert store.profile(7).num_events == 1  # still readable
        server.client().config_set("maxmemory", 0)
        assert store.append([view(1), view(2), view(3)]) == [False, True, True]


def test_a_server_that_cannot_write_its_disk(start_redis: Callable[..., Any]) -> None:
    server = start_redis("--dbfilename", "taken")
    (server.folder / "taken").mkdir()  # no snapshot can take the place of a folder
    with opened(server.url()) as store:
        server.client().config_set("save", "3600 1")  # who asks for snapshots is refused writes while they fail
        server.client().bgsave()
        deadline = time.monotonic() + 30
        while server.client().info("persistence")["rdb_last_bgsave_status"] != "err" and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(StateError, match="cannot write its disk.*nothing of this was stored"):
            store.append([view(1)])
        server.client().config_set("stop-writes-on-bgsave-error", "no")
        assert store.append([view(1)]) == [True]


def test_killed_and_started_again_it_goes_on_by_itself(start_redis: Callable[..., Any]) -> None:
    server = start_redis()
    with opened(server.url(), QUICK) as store:
        assert store.append([view(1)]) == [True]
        server.kill()
        for call in (lambda: store.append([view(2)]), lambda: store.profile(7), lambda: store.version):
            with pytest.raises(StateError, match="cannot be reached"):
                call()
        server.start()
        assert store.append([view(1), view(2)]) == [False, True]
        assert store.profile(7).num_events == 2 and store.version == 2


def test_a_server_that_hangs_keeps_an_answer_waiting_once(
    start_redis: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_redis()
    with opened(server.url(), QUICK) as store:
        store.append([view(1)])
        os.kill(server.pid, signal.SIGSTOP)
        pid = server._process.pid
        try:
            with pytest.raises(StateError, match="does not answer in time"):
                store.profile(7)
            with monkeypatch.context() as patch, pytest.raises(StateError, match="does not answer in time"):
                patch.setattr(store._tables._server, "begin", None)  # the next one does not even ask
                store.profile(7)
            with pytest.raises(StateError, match="does not answer in time"):
                store.append([view(2)])
        finally:
            os.kill(pid, signal.SIGCONT)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                assert store.append([view(2)]) in ([True], [False])  # sent before, it may have arrived
                break
            except StateError:
                time.sleep(0.05)
        assert store.profile(7).num_events == 2


def test_a_server_that_is_known_to_hang_keeps_no_writer(start_redis: Callable[..., Any]) -> None:
    server = start_redis()
    # a writer that waited as long as it may would not be back before the test is given up
    with opened(server.url(), StoreSettings(redis_timeout_s=3600, redis_read_timeout_s=0.2)) as store:
        store.append([view(1)])
        os.kill(server.pid, signal.SIGSTOP)
        pid = server._process.pid
        try:
            with pytest.raises(StateError, match="does not answer in time"):
                store.profile(7)
            with pytest.raises(StateError, match="does not answer in time"):
                store.append([view(2)])
        finally:
            os.kill(pid, signal.SIGCONT)
        assert store.append([view(2)]) == [True]
        assert store.profile(7).num_events == 2


def test_what_one_request_needs_is_of_one_moment_and_one_round_trip(redis_server: Any, url: str) -> None:
    client = redis_server.client()
    with opened(url) as store:
        store.append([view(1), Event(event_id=2, event="view", session_id="s", item_id=3, at=2)])
        with store.view([(7, "s")]) as seen:
            asked = client.info("stats")["total_commands_processed"]
            store.append([view(3), view(4, user_id=8)])
            before = client.info("stats")["total_commands_processed"]
            assert (seen.version, seen.catalogue_version, seen.creatives_version, seen.learned_version) == (2, 0, 0, 0)
            assert seen.profile(7).num_events == 1 and seen.session("s").num_events == 1
            assert seen.shown(7, "s") == {} == seen.shown(None, "s") and seen.wishes(7, "s") is None
            assert client.info("stats")["total_commands_processed"] == before + 1 > asked  # the INFO itself
            assert seen.profile(8).num_events == 1  # was not named: read now, and newer
        assert store.profile(7).num_events == 2


def test_long_work_comes_through_beside_short(url: str) -> None:
    """A batch that takes longer than the pauses between others' commits would lose every race; it takes a turn."""
    with opened(url) as long, Store.open(url) as short:
        stop, stored = threading.Event(), count()

        def busy() -> None:
            while not stop.is_set():
                short.append([view(f"short-{next(stored)}", user_id=8)])

        writer = threading.Thread(target=busy)
        writer.start()
        try:
            tables, tries = long._tables, count(1)

            def slow(txn: Any) -> None:
                next(tries)
                time.sleep(0.1)
                txn.put("meta", b"slow", b"1")

            tables.write(slow, {})
        finally:
            stop.set()
            writer.join()
        assert long.meta(b"slow") == b"1" and next(tries) > 2  # it did lose some
        assert short.profile(8).num_events == next(stored) == short.version


_WRITER = """
import sys
from playbill.state.events import Event
from playbill.state.store import Store
store = Store.open(sys.argv[1])
for i in range(40):
    store.append([Event(event_id=f"{sys.argv[2]}-{i}", event="view", user_id=7, item_id=i, at=i)])
"""


def test_processes_that_write_the_same_profile_lose_nothing(url: str) -> None:
    opened(url).close()
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, url, str(n)]) for n in range(3)]
    assert [w.wait(timeout=120) for w in writers] == [0, 0, 0]
    with Store.open(url, readonly=True) as store:
        assert [s for s, _, _ in store.events()] == list(range(1, 121)) and store.version == 120
        assert store.profile(7).num_events == 120 == len(store.profile(7).history)


def test_a_commit_whose_reply_is_lost_is_said_to_be_unknown(start_redis: Callable[..., Any]) -> None:
    server = start_redis()
    with opened(server.url(), QUICK) as store:

        def hang(txn: Any) -> None:
            txn.put("meta", b"note", b"1")
            os.kill(server._process.pid, signal.SIGSTOP)  # after it was read and before EXEC

        try:
            with pytest.raises(StateError, match="lost while it committed.*may be stored or not"):
                store._tables.write(hang, {})
        finally:
            os.kill(server._process.pid, signal.SIGCONT)
