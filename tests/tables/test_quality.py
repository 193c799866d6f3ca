"""Quality and sufficiency, counted by hand on small folders and checked on real ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from playbill.errors import ConfigError, TableError
from playbill.tables.folder import write_folder
from playbill.tables.quality import measure_quality
from playbill.tables.schema import CONTRACT, Column, Kind, arrow_type
from playbill.tables.settings import SufficiencySettings
from playbill.tables.sufficiency import RUNGS, measure_sufficiency, read_sufficiency

T0 = datetime(2024, 5, 1, tzinfo=UTC)


def folder(path: Path, **tables: dict[str, list[Any]]) -> Path:
    """Write tables with int64 ids and the types of the contract; other columns are flags."""
    arrow, columns = {}, {}
    for name, cells in tables.items():
        contract = {column.name: column for column in CONTRACT[name]}
        columns[name] = [contract.get(n, Column(name=n, kind=Kind.FLAG)) for n in cells]
        arrow[name] = pa.table({c.name: pa.array(cells[c.name], arrow_type(c.kind, pa.int64())) for c in columns[name]})
    write_folder(path, arrow, source="hand", columns=columns)
    return path


def minutes(*numbers: int) -> list[datetime]:
    return [T0 + timedelta(minutes=number) for number in numbers]


HAND = {
    "items": {"item_id": [1, 2, 3, 4], "title": ["a", None, "c", None]},
    "events": {
        "event_id": [1, 2, 3, 4, 5, 6, 7],
        #           1 twice at one moment, then again later; 2 once; a session alone
        "user_id": [1, 1, 1, 1, 2, None, None],
        "session_id": [None, None, None, None, 8, 9, 9],
        "event": ["view"] * 6 + ["open"],
        "at": minutes(0, 0, 5, 6, 7, 8, 9),
        "item_id": [1, 1, 1, 2, 1, 3, None],
    },
}


def test_quality_by_hand(tmp_path: Path) -> None:
    quality = measure_quality(folder(tmp_path / "a=b [1]", **HAND))  # a name that a glob or a hive would read
    assert quality.tables["items"].rows == 4 and quality.tables["items"].nulls == {"item_id": 0, "title": 2}
    assert quality.tables["events"].nulls["user_id"] == 2
    events = quality.events
    assert events is not None
    assert (events.people, events.sessions, events.items) == (2, 1, 3)
    # pairs (1,1) (1,2) (2,1) of 2 people and 3 items
    assert events.density == 3 / 6
    assert (events.first_at, events.last_at) == (T0, T0 + timedelta(minutes=9))
    assert events.per_user == {"p0": 1, "p25": 1, "p50": 4, "p75": 4, "p90": 4, "p99": 4, "p100": 4}
    assert events.per_item["p0"] == 1 and events.per_item["p100"] == 4
    assert events.anonymous_share == 2 / 7
    assert events.same_moment == 1
    assert events.repeats == 1
    assert events.cold_items == 1
    assert events.by_event == {"open": 1, "view": 6}


def test_quality_without_people_or_items(tmp_path: Path) -> None:
    path = folder(tmp_path / "t", events={"event_id": [1], "session_id": [3], "event": ["view"], "at": minutes(0)})
    events = measure_quality(path).events
    assert events is not None
    assert (events.people, events.sessions, events.items, events.density, events.cold_items) == (0, 1, 0, 0.0, 0)
    assert events.per_user == {} and events.anonymous_share == 1.0


def test_quality_of_an_empty_table(tmp_path: Path) -> None:
    empty = {"event_id": [], "user_id": [], "event": [], "at": [], "item_id": []}
    events = measure_quality(folder(tmp_path / "t", events=empty, items={"item_id": [1]})).events
    assert events is not None
    assert (events.people, events.first_at, events.cold_items, events.anonymous_share) == (0, None, 1, 0.0)


def test_quality_of_movielens(ml100k_tables: Path) -> None:
    events = measure_quality(ml100k_tables).events
    assert events is not None
    assert (events.people, events.items) == (943, 1682)
    assert round(events.density, 4) == 0.063  # as published
    assert events.per_user["p0"] == 20  # the publisher kept people with at least 20 ratings
    assert (events.cold_items, events.same_moment, events.repeats, events.anonymous_share) == (0, 0, 0, 0.0)


def world(count: int, people: int, *, items: int = 5) -> dict[str, dict[str, list[Any]]]:
    rows = range(count)
    return {
        "items": {"item_id": list(range(items))},
        "events": {
            "event_id": list(rows),
            "user_id": [row % people for row in rows],
            "event": ["view"] * count,
            "at": [T0] * count,
            "item_id": [row % items for row in rows],
        },
    }


def test_movielens_carries_towers_and_ranker(ml100k_tables: Path) -> None:
    sufficiency = read_sufficiency(ml100k_tables)
    assert tuple(sufficiency.rungs) == RUNGS
    assert sufficiency.carried() == ["popularity", "item_knn", "towers", "ranker"]
    assert sufficiency.rungs["towers"].have == 100_000


@pytest.mark.parametrize(
    ("count", "people", "carried"),
    [
        (0, 1, []),
        (1, 1, ["popularity"]),
        (99, 10, ["popularity"]),
        (100, 1, ["popularity"]),  # one person alone connects nothing
        (100, 10, ["popularity", "item_knn"]),
        (9_999, 500, ["popularity", "item_knn"]),
        (10_000, 49, ["popularity", "item_knn"]),
        (10_000, 50, ["popularity", "item_knn", "towers", "ranker"]),
    ],
)
def test_the_rungs_by_number_of_events(tmp_path: Path, count: int, people: int, carried: list[str]) -> None:
    path = folder(tmp_path / "t", **world(count, people))
    assert measure_sufficiency(path, SufficiencySettings()).carried() == carried


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path / "t", **world(9_000, 20))
    rung = measure_sufficiency(path, SufficiencySettings()).rungs["towers"]
    assert (rung.have, rung.need) == (9_000, 10_000)
    assert rung.missing == (
        "1,000 more events with a person and an item of the catalogue: 9,000 of 10,000; "
        "30 more people with such events: 20 of 50"
    )


def test_thresholds_are_settings(tmp_path: Path) -> None:
    path = folder(tmp_path / "t", **world(50, 10))
    settings = SufficiencySettings(towers_events=50, towers_people=10, item_knn_events=51)
    assert measure_sufficiency(path, settings).carried() == ["popularity", "towers"]
    with pytest.raises(ConfigError, match="sufficiency.uplift_people=-1"):
        SufficiencySettings(uplift_people=-1)


def test_only_people_who_allow_training_are_counted(tmp_path: Path) -> None:
    tables = world(200, 10)
    tables["users"] = {"user_id": list(range(10)), "consent_training": [True] * 3 + [False] * 3 + [None] * 4}
    rungs = measure_sufficiency(folder(tmp_path / "t", **tables), SufficiencySettings()).rungs
    assert rungs["popularity"].have == 60  # 3 people of 10, 20 events each


def test_events_of_items_outside_the_catalogue_do_not_count(tmp_path: Path) -> None:
    tables = world(100, 10)
    tables["items"] = {"item_id": [0]}
    assert measure_sufficiency(folder(tmp_path / "t", **tables), SufficiencySettings()).rungs["popularity"].have == 20


def test_decisions_carry_creatives_send_time_and_uplift(tmp_path: Path) -> None:
    kinds = ["creative"] * 30 + ["send_hour"] * 20 + ["experiment_arm"] * 40
    tables = world(100, 10)
    tables["decisions"] = {
        "decision_id": list(range(90)),
        "request_id": list(range(90)),
        "kind": kinds,
        "chosen": [row % 2 for row in range(90)],
        "at": [T0] * 90,
        "user_id": [row % 20 for row in range(90)],
        "propensity": [0.5] * 25 + [None] * 65,
    }
    path = folder(tmp_path / "t", **tables)
    rungs = measure_sufficiency(path, SufficiencySettings()).rungs
    assert [rungs[name].have for name in ("send_time", "uplift")] == [20, 20]
    assert "9,975 more logged creative choices with a propensity: 25 of 10,000" in rungs["creative_heads"].missing
    small = SufficiencySettings(
        **{"towers_people": 10, "ranker_events": 100, "creative_decisions": 25, "send_time_decisions": 20},
        uplift_people=20,
    )
    carried = measure_sufficiency(path, small).carried()
    assert carried == ["popularity", "item_knn", "ranker", "creative_heads", "send_time", "uplift"]
    tables["decisions"]["chosen"] = [0] * 90
    one_arm = measure_sufficiency(folder(tmp_path / "one", **tables), small).rungs["uplift"]
    assert not one_arm.carried and one_arm.missing == "1 more arms with people in them: 1 of 2"


def test_a_folder_without_a_report_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="write it with `playbill prepare force=true`"):
        read_sufficiency(tmp_path)
