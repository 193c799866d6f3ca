"""The store's log as tables: every event and choice, in a form that measures read, and refuse when it was altered."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from playbill.cli import compose
from playbill.errors import MeasureError, StateError
from playbill.measure.off_policy.read import run as value
from playbill.measure.off_policy.settings import OffPolicyQuestion
from playbill.measure.opening import check_tables
from playbill.measure.settings import MeasureSettings
from playbill.state.decisions import Decision
from playbill.state.events import Declared, Event
from playbill.state.store import Store
from playbill.state.unload import run
from playbill.tables.schema import EventKind

AT = 1_700_000_000_000_000


@pytest.fixture
def asked(place: Path | str, tmp_path: Path) -> list[str]:
    """A home and its store, as a command line names them."""
    return [f"home={tmp_path}", f"state='{place}'"]


@pytest.fixture
def home(tmp_path: Path, place: Path | str) -> Path:
    """600 choices among three posters, the second clicked twice as often as the others."""
    rng = np.random.default_rng(0)
    with Store.open(place) as store:
        store.declare(Declared(events=[EventKind(name="click")], user_id_type="int64", item_id_type="int64"))
        chances = np.array([0.5, 0.2, 0.3])
        chosen = rng.choice(3, 600, p=chances)
        store.record(
            [
                Decision(
                    decision_id=f"r{n}:0:creative", request_id=f"r{n}", item_id=n % 9, chosen=10 + int(k),
                    propensity=float(chances[k]), eligible=[10, 11, 12], propensities=chances.tolist(), at=AT + n,
                    position=0, policy="p", bundle="b", user_id=n, session_id=n,
                )
                for n, k in enumerate(chosen.tolist())
            ]
        )  # fmt: skip
        clicked = np.flatnonzero(rng.random(600) < np.array([0.2, 0.4, 0.2])[chosen]).tolist()
        store.append(
            [
                Event(
                    event_id=n, event="click", user_id=n, at=AT + n + 60_000_000, decision_id=f"r{n}:0:creative",
                    creative_id=10 + int(chosen[n]) if n % 3 else str(10 + chosen[n]),
                    context={"hour": 3} if n % 2 else {},
                )
                for n in clicked
            ]
        )  # fmt: skip
    return tmp_path


def test_what_was_logged_can_be_measured(home: Path, asked: list[str]) -> None:
    settings = compose("unload", asked)
    run(settings)
    log = home / "log"
    decisions, events = pl.read_parquet(log / "decisions.parquet"), pl.read_parquet(log / "events.parquet")
    assert len(decisions) == 600 and set(events["decision_id"]) <= set(decisions["decision_id"])
    assert decisions["kind"].unique().to_list() == ["creative"] and decisions["eligible_count"].unique().to_list() == [
        3
    ]
    assert decisions["at"][0].timestamp() * 1e6 == AT and events["context"].null_count() < len(events)
    assert events.schema["creative_id"] == pl.Int64 and set(events["creative_id"]) <= {10, 11, 12}
    pl.DataFrame({"creative_id": [10, 11, 12], "kind": ["poster"] * 3}).write_parquet(log / "creatives.parquet")
    check_tables(log)
    question = OffPolicyQuestion(kind="creative", target="uniform", within_h=0, resamples=200)
    figures = [s for s in value(question, log, MeasureSettings()).statements if s.estimate is not None and s.low]
    assert any(s.low < (0.2 + 0.4 + 0.2) / 3 < s.high for s in figures)


def test_a_log_whose_policy_disagrees_with_its_propensities_is_refused(home: Path, asked: list[str]) -> None:
    run(compose("unload", asked))
    file = home / "log" / "decisions.parquet"
    pl.read_parquet(file).with_columns(propensity=pl.lit(0.9)).write_parquet(file)
    question = OffPolicyQuestion(kind="creative", target="greedy", within_h=0, resamples=200)
    with pytest.raises(
        MeasureError, match="must be the one that its list in decisions.context gives it; 600 of 600 rows"
    ):
        value(question, home / "log", MeasureSettings())


def test_ids_of_which_one_is_no_number_are_text(home: Path, asked: list[str], place: Path | str) -> None:
    with Store.open(place) as store:
        store.append([Event(event_id="x", event="click", user_id=1, creative_id="autumn")])
    run(compose("unload", asked))
    found = pl.read_parquet(home / "log" / "events.parquet")["creative_id"]
    assert found.dtype == pl.String and found[-1] == "autumn" and found[0] in ("10", "11", "12")


def test_it_is_written_again_when_something_was_stored(
    home: Path, asked: list[str], place: Path | str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = compose("unload", asked)
    run(settings)
    first = (home / "log" / "events.parquet").stat().st_ino
    run(settings)
    assert "up to date" in " ".join(capsys.readouterr().err.split())
    assert (home / "log" / "events.parquet").stat().st_ino == first
    with Store.open(place) as store:
        store.append([Event(event_id="new", event="click", user_id=1)])
    run(settings)
    assert "new" in pq.read_table(home / "log" / "events.parquet")["event_id"].to_pylist()


def test_a_store_of_which_nothing_is_known_is_refused(tmp_path: Path) -> None:
    Store.open(tmp_path / "state").close()
    with pytest.raises(StateError, match="knows no event names yet"):
        run(compose("unload", [f"home={tmp_path}"]))


DAY_US = 86_400_000_000


def rows(home: Path, table: str) -> pl.DataFrame:
    """What stands in all files of a table, as other tools read it."""
    return pl.read_parquet(home / "days" / table / "**" / "*.parquet", hive_partitioning=True)


def test_days_are_added_to_and_hold_what_one_file_would(
    home: Path, asked: list[str], place: Path | str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = compose("unload", [*asked, "by_day=true", "batch_rows=250"])
    run(settings)
    before = {p: p.stat().st_mtime_ns for p in (home / "days").glob("*/*/*.parquet")}
    assert len(before) == 4  # 600 decisions in three stretches, the events in one, all of 2023-11-14
    with Store.open(place) as store:
        clicks = [
            Event(event_id=f"late-{n}", event="click", user_id=n, at=AT + n * DAY_US, creative_id=10) for n in range(5)
        ]
        store.append(clicks)
    run(settings)
    assert "5 new events in 5 files, 0 new decisions" in " ".join(capsys.readouterr().err.split())
    run(settings)
    assert "0 new events in 0 files, 0 new decisions" in " ".join(capsys.readouterr().err.split())
    assert {p: p.stat().st_mtime_ns for p in before} == before  # what was there was not touched
    days = rows(home, "events")
    assert sorted(p.name for p in (home / "days" / "events").iterdir()) == [f"day=2023-11-{d}" for d in range(14, 19)]
    assert (days["day"] == days["at"].dt.date()).all()
    run(compose("unload", asked))
    for table, key in (("events", "event_id"), ("decisions", "decision_id")):
        whole = pl.read_parquet(home / "log" / f"{table}.parquet").sort(key)
        assert rows(home, table).drop("day").sort(key).equals(whole)


_UNLOAD = """
import sys
from pathlib import Path
from playbill.state.days import unload_days
from playbill.state.store import Store
with Store.open(sys.argv[1], readonly=True) as store:
    unload_days(store, Path(sys.argv[2]), int(sys.argv[3]))
"""


def _unloader(home: Path, place: Path | str, batch_rows: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _UNLOAD, str(place), str(home / "days"), str(batch_rows)])


def test_a_killed_run_is_gone_on_with_and_no_row_stands_twice(home: Path, asked: list[str], place: Path | str) -> None:
    for _ in range(2):
        there = len(list((home / "days").glob("*/*/*.parquet")))
        ran = _unloader(home, place, 7)
        while ran.poll() is None and len(list((home / "days").glob("*/*/*.parquet"))) < there + 3:
            time.sleep(0.005)
        ran.kill()
        assert ran.wait() == -9, "it was over before it could be killed; make its batches smaller"
    run(compose("unload", [*asked, "by_day=true", "batch_rows=100"]))
    run(compose("unload", asked))
    for table, key in (("events", "event_id"), ("decisions", "decision_id")):
        found = rows(home, table)
        assert len(found) == found[key].n_unique()
        assert found.drop("day").sort(key).equals(pl.read_parquet(home / "log" / f"{table}.parquet").sort(key))


def test_a_writer_goes_on_while_days_are_added(home: Path, asked: list[str], place: Path | str) -> None:
    with Store.open(place) as store:
        sent = 0
        ran = _unloader(home, place, 20)
        while ran.poll() is None:
            store.append([Event(event_id=f"meanwhile-{sent}", event="click", user_id=1, at=AT + sent * DAY_US // 9)])
            sent += 1
        assert ran.returncode == 0
    run(compose("unload", [*asked, "by_day=true"]))
    found = rows(home, "events").filter(pl.col("event_id").str.starts_with("meanwhile-"))
    assert sorted(found["event_id"], key=lambda i: int(i[10:])) == [f"meanwhile-{n}" for n in range(sent)]


def test_days_of_another_store_and_ids_of_another_kind_are_refused_until_all_is_written_again(
    home: Path, asked: list[str], place: Path | str, new_place: Callable[[], Path | str]
) -> None:
    settings = compose("unload", [*asked, "by_day=true"])
    run(settings)
    with Store.open(place) as store:
        store.append([Event(event_id="x", event="click", user_id=1, at=AT, creative_id="autumn")])
    with pytest.raises(StateError, match="has numbers as creative_id.*force=true"):
        run(settings)
    run(compose("unload", [*asked, "by_day=true", "force=true"]))
    assert rows(home, "events").schema["creative_id"] == pl.String and "x" in rows(home, "events")["event_id"]
    with Store.open(new_place()) as other:
        other.declare(Declared(events=[EventKind(name="click")], user_id_type="int64", item_id_type="int64"))
        other.append([Event(event_id=n, event="click", user_id=1) for n in range(2_000)])
    with pytest.raises(StateError, match="written from another store.*force=true"):
        run(compose("unload", [asked[0], f"state='{other.path}'", "by_day=true"]))
