"""The store's log as tables: every event and choice, in a form that measures read, and refuse when it was altered."""

from __future__ import annotations

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
def home(tmp_path: Path) -> Path:
    """600 choices among three posters, the second clicked twice as often as the others."""
    rng = np.random.default_rng(0)
    with Store.open(tmp_path / "state") as store:
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


def test_what_was_logged_can_be_measured(home: Path) -> None:
    settings = compose("unload", [f"home={home}"])
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


def test_a_log_whose_policy_disagrees_with_its_propensities_is_refused(home: Path) -> None:
    run(compose("unload", [f"home={home}"]))
    file = home / "log" / "decisions.parquet"
    pl.read_parquet(file).with_columns(propensity=pl.lit(0.9)).write_parquet(file)
    question = OffPolicyQuestion(kind="creative", target="greedy", within_h=0, resamples=200)
    with pytest.raises(
        MeasureError, match="must be the one that its list in decisions.context gives it; 600 of 600 rows"
    ):
        value(question, home / "log", MeasureSettings())


def test_ids_of_which_one_is_no_number_are_text(home: Path) -> None:
    with Store.open(home / "state") as store:
        store.append([Event(event_id="x", event="click", user_id=1, creative_id="autumn")])
    run(compose("unload", [f"home={home}"]))
    found = pl.read_parquet(home / "log" / "events.parquet")["creative_id"]
    assert found.dtype == pl.String and found[-1] == "autumn" and found[0] in ("10", "11", "12")


def test_it_is_written_again_when_something_was_stored(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = compose("unload", [f"home={home}"])
    run(settings)
    first = (home / "log" / "events.parquet").stat().st_ino
    run(settings)
    assert "up to date" in " ".join(capsys.readouterr().err.split())
    assert (home / "log" / "events.parquet").stat().st_ino == first
    with Store.open(home / "state") as store:
        store.append([Event(event_id="new", event="click", user_id=1)])
    run(settings)
    assert "new" in pq.read_table(home / "log" / "events.parquet")["event_id"].to_pylist()


def test_a_store_of_which_nothing_is_known_is_refused(tmp_path: Path) -> None:
    Store.open(tmp_path / "state").close()
    with pytest.raises(StateError, match="knows no event names yet"):
        run(compose("unload", [f"home={tmp_path}"]))
