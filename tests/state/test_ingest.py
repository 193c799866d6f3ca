"""Filling the store from real tables: whole, in part, broken off, and again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from playbill.cli import compose
from playbill.errors import ConfigError, StateError
from playbill.state.events import Event
from playbill.state.ingest import ingest
from playbill.state.settings import IngestSettings, parse_moment
from playbill.state.store import Store

UNTIL = 884_000_000_000_000


def _ingest(tables: Path, store: Store, **settings: object) -> int | None:
    return ingest(tables, store, IngestSettings(**settings), Console(stderr=True))


def test_everything_of_everybody_is_there_and_a_second_time_reads_nothing(ml100k_tables: Path, tmp_path: Path) -> None:
    events = pq.read_table(ml100k_tables / "events.parquet")
    users = pq.read_table(ml100k_tables / "users.parquet").to_pylist()
    counts = Counter(events["user_id"].to_pylist())
    with Store.open(tmp_path / "state") as store:
        assert _ingest(ml100k_tables, store) == len(events)
        profiles = store.profiles([u["user_id"] for u in users])
        for user, profile in zip(users, profiles, strict=True):
            assert profile is not None
            assert profile.num_events == len(profile.seen) == counts[user["user_id"]]
            assert len(profile.history) == min(256, profile.num_events)
            assert [p.at for p in profile.history] == sorted(p.at for p in profile.history)
            assert profile.features == {k: v for k, v in user.items() if k != "user_id"}
        assert store.declared.user_id_type == "int64" and [k.name for k in store.declared.events] == ["rate"]
        version = store.version
        began = time.perf_counter()
        assert _ingest(ml100k_tables, store) is None
        assert time.perf_counter() - began < 1
        assert _ingest(ml100k_tables, store, force=True) == 0  # walks over all rows, finds each event known
        assert store.version == version and store.profiles([u["user_id"] for u in users]) == profiles


def test_live_events_stay_and_until_keeps_the_future_out(ml100k_tables: Path, tmp_path: Path) -> None:
    events = pq.read_table(ml100k_tables / "events.parquet")
    before = pc.sum(pc.less(events["at"].cast("int64"), UNTIL)).as_py()
    with Store.open(tmp_path / "state") as store:
        assert _ingest(ml100k_tables, store, until=str(UNTIL)) == before < len(events)
        assert max(e.at for _, _, e in store.events()) < UNTIL
        assert _ingest(ml100k_tables, store, until=str(UNTIL)) is None
        assert store.append([Event(event_id="live", event="rate", user_id=196, item_id=50, value=5)]) == [True]
        with pytest.raises(StateError, match="earlier"):
            _ingest(ml100k_tables, store, until=str(UNTIL - 1))
        assert _ingest(ml100k_tables, store) == len(events) - before
        assert [e.event_id for e in store.profile(196).history[-1:]] == ["live"]
        with pytest.raises(StateError, match="earlier"):
            _ingest(ml100k_tables, store, until=str(UNTIL))


def test_a_killed_run_goes_on_and_ends_the_same(ml100k_tables: Path, tmp_path: Path) -> None:
    home = ml100k_tables.parents[1]
    command = [sys.executable, "-m", "playbill.cli", "ingest", f"home={home}", f"state={tmp_path / 'killed'}"]
    command += ["batch_rows=500"]
    ingester = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    data = tmp_path / "killed" / "data.mdb"
    while ingester.poll() is None and not (data.is_file() and data.stat().st_size > 3_000_000):
        time.sleep(0.01)
    ingester.send_signal(signal.SIGKILL)
    assert ingester.wait() == -signal.SIGKILL, "it was over before it could be killed; make its batches smaller"
    with Store.open(tmp_path / "killed") as store:
        there = len(list(store.events()))
        assert 0 < there < 100_000
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Store.open(tmp_path / "killed") as killed, Store.open(tmp_path / "whole") as whole:
        assert _ingest(ml100k_tables, whole, batch_rows=7_000) == 100_000
        assert len(list(killed.events())) == 100_000
        for user in range(1, 944):
            mine, theirs = killed.profile(user), whole.profile(user)
            assert (mine.history, mine.features, mine.num_events) == (
                theirs.history,
                theirs.features,
                theirs.num_events,
            )
            assert mine.seen == theirs.seen


def test_other_tables_with_other_ids_are_refused(ml100k_tables: Path, tmp_path: Path) -> None:
    from playbill.state.events import Declared

    with Store.open(tmp_path / "state") as store:
        store.declare(Declared(events=[], user_id_type="string", item_id_type="string"))
        with pytest.raises(StateError, match="folder of its own"):
            _ingest(ml100k_tables, store)


def test_settings() -> None:
    settings = compose("ingest", ["until=1998-03-08T12:00:00", "store.keep=100"])
    assert settings.store.keep == 100 and settings.tables == "ml-100k"
    assert parse_moment(settings.until) == 889_358_400_000_000
    assert parse_moment("1998-03-08T12:00:00.000001+01:00") == 889_354_800_000_001
    assert parse_moment("889358400000000") == 889_358_400_000_000
    for wrong in ["until=yesterday", "batch_rows=0", "store.keep=0", "store.map_size_gb=-1", "store.keeep=3"]:
        with pytest.raises(ConfigError):
            compose("ingest", [wrong])
