"""The audit of tables: every measure by hand, groups of items, what is left out, and every kind of broken log."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from playbill.cli import compose
from playbill.errors import ConfigError, MeasureError
from playbill.measure.disparity.groups import read_groups
from playbill.measure.disparity.items import judge_items
from playbill.measure.disparity.read import run
from playbill.measure.disparity.settings import Correction, DisparityQuestion, Measure
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Reading, to_json, to_png, to_text
from playbill.tables.folder import write_folder
from playbill.tables.schema import Column, EventKind, Kind

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
PEOPLE = 200


def rows_of(reading: Reading) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["measure"], row["group"]): row for row in reading.tables["all comparisons"]}


def ask(tables: Path, **fields: Any) -> Reading:
    return run(DisparityQuestion(**{"min_people": 5, **fields}), tables, MeasureSettings())


def test_every_measure_of_a_log_by_hand(tmp_path: Path) -> None:
    """Women (odd ids) are shown 2 items a person, men 3; women click 1 of 4 decisions, men 1 of 2 ..."""
    tables = small(tmp_path)
    reading = ask(tables, reference={"gender": "m"}, position_weighted=False)
    found = rows_of(reading)
    expected = {
        "impressions a person": (2.0, 3.0),
        "click rate of item decisions": (0.25, 0.5),
        "share of offer decisions that made one": (0.2, 0.6),
        "mean price of items shown": (15.0, 20.0),
        "mean value of a purchase": (8.0, 10.0),
        "clicks a person": (0.5, 1.5),
    }
    for measure, (f, m) in expected.items():
        row = found[measure, "gender=f"]
        assert (row["figure"], row["its figure"], row["reference"]) == (pytest.approx(f), pytest.approx(m), "gender=m")
        assert row["finding"] == "differs" and row["ratio"] == pytest.approx(f / m)
    shares = {g: (row["figure"], row["its figure"]) for (_, g), row in found.items() if g.startswith("provider")}
    # 100 men see items 1, 2, 3, women 1, 2; provider north has items 1 and 4, south 2 and 3; item 4 comes a day later
    assert shares["provider=north"] == (pytest.approx(200 / 500), pytest.approx(1 / 3))
    assert shares["provider=south"] == (pytest.approx(300 / 500), pytest.approx(2 / 3))
    assert "comparisons differ (Holm over all of them, 4%: a margin, so that 5% holds" in reading.verdict
    assert "margin" not in ask(tables, reference={"gender": "m"}, false_alarms=0.05).verdict
    assert to_png(reading)[:4] == b"\x89PNG" and b"gender=f" in to_json(reading) and "gender=f" in to_text(reading)
    assert all(not s.randomised for s in reading.statements)


def test_people_and_items_are_corrected_together(tmp_path: Path) -> None:
    """Holm over everything judged: the first of m p values counts m times, whichever family it belongs to."""
    rows = [r for r in ask(small(tmp_path)).tables["all comparisons"] if r["p"] is not None]
    assert {"item_exposure"} < {r["measure"] for r in rows}
    ordered = sorted(rows, key=lambda r: r["p"])
    expected = 0.0
    for rank, row in enumerate(ordered):
        expected = max(expected, min(row["p"] * (len(rows) - rank), 1.0))
        assert row["p corrected"] == pytest.approx(expected)


def test_a_session_is_not_the_person_of_its_number(tmp_path: Path) -> None:
    def change(tables: dict[str, list[dict[str, Any]]]) -> None:
        for d in tables["decisions"]:
            if d["kind"] == "item" and d["user_id"] <= 30:
                d.update(user_id=None, session_id=str(d["user_id"] + 100))  # people 101 to 130 are there too

    found = rows_of(ask(small(tmp_path, change), measures=[Measure.ITEM_EXPOSURE]))
    assert found["item_exposure", "provider=north"]["people"] == PEOPLE

    def nobody(tables: dict[str, list[dict[str, Any]]]) -> None:
        tables["decisions"][7].update(user_id=None)

    with pytest.raises(MeasureError, match=r"a person or a session; 1 of 500 rows have neither, first row 7"):
        ask(small(tmp_path / "nobody", nobody), measures=[Measure.ITEM_EXPOSURE])


@pytest.mark.parametrize("slate", [1, 4])
def test_rare_groups_of_items_differ_by_chance_as_often_as_they_should(slate: int) -> None:
    """10 impressions expected; where everybody is shown a slate of the group or none of it, 40."""
    draw = np.random.default_rng(4)
    people, expected = 4000, 10 * slate
    weights = np.full(people, float(slate))
    fair = np.full(people, expected / people)
    shown = (draw.random((2000, people)) < 10 / people) * float(slate)
    question = DisparityQuestion()
    p = np.array([judge_items(question, "a", row, fair, weights, 0.95).p_value for row in shown])
    assert 0.03 <= (p < 0.05).mean() <= 0.065
    assert (p < 0.005).mean() <= 0.013  # of a Poisson count of 10, 0.008 lies so far out
    never = judge_items(question, "a", np.zeros(people), fair, weights, 0.95)
    assert never.p_value is not None and never.p_value > 1e-12


def test_exposure_by_position(tmp_path: Path) -> None:
    found = rows_of(
        ask(small(tmp_path), reference={"gender": "m"}, position_weighted=True, measures=[Measure.EXPOSURE])
    )
    row = found["position-weighted impressions a person", "gender=f"]
    assert row["figure"] == pytest.approx(1 + 1 / np.log2(3))
    assert row["its figure"] == pytest.approx(1 + 1 / np.log2(3) + 0.5)


def test_outcomes_count_inside_the_window_and_once(tmp_path: Path) -> None:
    narrow = rows_of(ask(small(tmp_path), reference={"gender": "m"}, measures=[Measure.OUTCOME], window_h=0.5))
    assert narrow["click rate of item decisions", "gender=f"]["figure"] == 0


def test_groups_intersections_references_and_cuts(tmp_path: Path) -> None:
    tables = small(tmp_path)
    user_id, families, _ = read_groups(
        DisparityQuestion(columns=["gender", "age"], cuts={"age": [30, 50]}, reference={"gender": "f"}), tables
    )
    assert len(user_id) == PEOPLE
    by_name = {f.name: f for f in families}
    assert list(by_name) == ["gender", "age", "gender & age"]
    assert by_name["gender"].groups[by_name["gender"].reference] == "gender=f"
    age = by_name["age"]
    counts = dict(zip(age.groups, np.bincount(age.code, minlength=3).tolist(), strict=True))
    assert counts == {"age=under 30": 60, "age=30 to 50": 100, "age=50 and over": 40}
    assert age.groups[age.reference] == "age=30 to 50"
    assert len(by_name["gender & age"].groups) == 6
    # nothing is named: the protected columns are taken
    assert [f.name for f in read_groups(DisparityQuestion(intersections=1), tables)[1]] == ["gender"]
    with pytest.raises(MeasureError, match="nobody is in the reference group gender=x; groups: gender=f, gender=m"):
        read_groups(DisparityQuestion(reference={"gender": "x"}), tables)
    with pytest.raises(MeasureError, match="users.age has 200 different values, .* give question.cuts"):
        read_groups(DisparityQuestion(columns=["age"]), tables)


def test_small_and_unknown_groups_are_named(tmp_path: Path) -> None:
    def change(tables: dict[str, list[dict[str, Any]]]) -> None:
        for user in tables["users"][:7]:
            user["gender"] = "x"
        for user in tables["users"][7:10]:
            user["gender"] = None

    reading = ask(small(tmp_path, change), min_people=50, measures=[Measure.EXPOSURE])
    row = rows_of(reading)["impressions a person", "gender=x"]
    assert row["finding"] == "7 people with an opportunity, fewer than 50" and row["p"] is None
    refused = [s for s in reading.statements if s.refused]
    assert [s.name for s in refused] == [f"impressions a person, gender=x - {row['reference']}"]
    assert reading.warnings == ["users.gender is empty for 3 of 200 people; they are in no group of it"]
    assert "1 could not be judged" in reading.verdict


def test_what_the_tables_lack_is_left_out_or_refused(tmp_path: Path) -> None:
    def change(tables: dict[str, list[dict[str, Any]]]) -> None:
        tables["decisions"] = [d for d in tables["decisions"] if d["kind"] == "offer"]

    tables = small(tmp_path, change)
    assert {m for m, _ in rows_of(ask(tables))} == {
        "share of offer decisions that made one",
        "mean value of a purchase",
        "clicks a person",
    }
    with pytest.raises(MeasureError, match="outcome cannot be measured: decisions.kind is never 'item'"):
        ask(tables, measures=[Measure.OUTCOME])
    with pytest.raises(MeasureError, match="item_exposure cannot be measured: items has no column maker"):
        ask(small(tmp_path / "again"), measures=[Measure.ITEM_EXPOSURE], item_column="maker")


def test_rows_of_people_without_an_account_are_counted(tmp_path: Path) -> None:
    def change(tables: dict[str, list[dict[str, Any]]]) -> None:
        for d in tables["decisions"][:4]:
            d.update(user_id=None, session_id="s")

    reading = ask(small(tmp_path, change), measures=[Measure.EXPOSURE])
    assert reading.warnings == ["4 of 500 impressions are of people without an account, who belong to no group"]


@pytest.mark.parametrize(
    ("table", "row", "change", "fields", "message"),
    [
        (
            "users",
            5,
            {"user_id": 1},
            {},
            r"users.user_id: a person has one row; 1 of 200 .* first row 5: 1",
        ),
        (
            "events",
            2,
            {"value": float("nan"), "event": "purchase"},
            {},
            r"events.value: .* first row 2: nan",
        ),
        ("events", 2, {"value": None, "event": "purchase"}, {}, r"events.value: .* first row 2: nothing"),
        ("items", 1, {"price": float("nan")}, {}, r"items.price: .* 1 of 4 rows break this, first row 1: nan"),
        ("items", 0, {"item_id": 77}, {}, r"decisions.chosen: an item shown must stand in items; 200 of 500 rows"),
        (
            "decisions",
            0,
            {"position": None},
            {"position_weighted": True},
            r"decisions.position: .* first row 0: nothing",
        ),
    ],
)
def test_broken_rows_are_named(
    tmp_path: Path, table: str, row: int, change: dict[str, Any], fields: dict[str, Any], message: str
) -> None:
    tables = small(tmp_path, lambda rows: rows[table][row].update(change))
    with pytest.raises(MeasureError, match=message):
        ask(tables, **fields)


def test_a_question_that_does_not_fit_the_log(tmp_path: Path) -> None:
    tables = small(tmp_path)
    with pytest.raises(MeasureError, match="users has no column gendr; it has: user_id, gender, age"):
        ask(tables, columns=["gendr"])
    empty = small(tmp_path / "empty", lambda rows: [u.update(gender=None) for u in rows["users"]])
    with pytest.raises(MeasureError, match="users.gender is empty in all 200 rows"):
        ask(empty)
    one = small(tmp_path / "one", lambda rows: [u.update(gender="f") for u in rows["users"]])
    with pytest.raises(MeasureError, match="no column among gender has two groups"):
        ask(one)
    with pytest.raises(ConfigError, match="cuts.age must be numbers that rise"):
        DisparityQuestion(cuts={"age": [50, 30]})


def test_the_command_line_reaches_every_choice(tmp_path: Path) -> None:
    settings = compose(
        "measure",
        [
            "question=disparity",
            "question.columns=[gender]",
            "question.measures=[EXPOSURE,OFFER]",
            "question.correction=BH",
            "+question.cuts={age: [30, 50]}",
        ],
    )
    assert settings.question.measures == [Measure.EXPOSURE, Measure.OFFER]
    assert settings.question.correction is Correction.BH and settings.question.cuts == {"age": [30, 50]}
    uplift = compose("measure", ["question=uplift", "+question.cost={mail: 0.1}", "question.learner=T"]).question
    assert uplift.cost == {"mail": 0.1} and uplift.learner.value == "t"


def small(folder: Path, change: Callable[[dict[str, list[dict[str, Any]]]], Any] = lambda tables: None) -> Path:
    """Write 100 women and 100 men, what they were shown and offered, and what they did; return the folder."""
    users = [
        {"user_id": u, "gender": "f" if u % 2 else "m", "age": 20.0 + ((u - 1) // 2 % 100) // 10 * 4 + u / 1000}
        for u in range(1, PEOPLE + 1)
    ]
    items = [
        {
            "item_id": i,
            "price": price,
            "provider": provider,
            "published_at": BEGAN + timedelta(days=1 if i == 4 else -9),
        }
        for i, price, provider in ((1, 10.0, "north"), (2, 20.0, "south"), (3, 30.0, "south"), (4, 40.0, "north"))
    ]
    decisions, offers, events = [], [], []
    for u in range(1, PEOPLE + 1):
        woman, rank = u % 2 == 1, (u - 1) // 2
        shown = 2 if woman else 3
        shared = {"request_id": u, "at": BEGAN, "user_id": u, "session_id": None}
        for position in range(shown):
            d = 10 * u + position
            decisions.append(
                {"decision_id": d, "kind": "item", "chosen": str(position + 1), "position": 1.0 * position} | shared
            )
            # every fourth decision on women, every second on men
            if (2 * rank + position) % 4 == 0 if woman else (3 * rank + position) % 2 == 0:
                at = BEGAN + timedelta(hours=1)
                events += [{"user_id": u, "event": "click", "at": at, "decision_id": d, "value": None}]
        some = rank % 5 == 0 if woman else rank % 5 < 3
        offers.append(
            {"decision_id": 10 * u + 9, "kind": "offer", "chosen": "ten" if some else "none", "position": None} | shared
        )
        price = (8.0 if woman else 10.0) + (0.5 if rank % 2 else -0.5)
        bought = {"user_id": u, "event": "purchase", "at": BEGAN, "decision_id": None, "value": price}
        events.append(bought)
    # a second click on the same decision, and one long after it, change nothing
    events.append(dict(events[0]))
    events.append({"user_id": 2, "event": "look", "at": BEGAN + timedelta(days=9), "decision_id": 22, "value": None})
    tables = {"users": users, "items": items, "decisions": decisions + offers, "events": events}
    tables["events"] = [{"event_id": i} | e for i, e in enumerate(events)]
    del tables["events"][-2]  # the repeated click stays out of the count by person
    change(tables)
    arrow = {name: pa.Table.from_pylist(rows, schema=_SCHEMAS[name]) for name, rows in tables.items()}
    kinds = {pa.float64(): Kind.NUMBER, pa.timestamp("us", tz="UTC"): Kind.TIME, pa.string(): Kind.TEXT}
    columns = {
        name: [
            Column(name=f.name, kind=Kind.ID if f.name.endswith("_id") else kinds[f.type], protected=f.name == "gender")
            for f in table.schema
        ]
        for name, table in arrow.items()
    }
    write_folder(folder / "tables", arrow, source="t", columns=columns, events=[EventKind(name="click")])
    return folder / "tables"


_AT = ("at", pa.timestamp("us", tz="UTC"))
_ID, _TEXT, _NUMBER = pa.int64(), pa.string(), pa.float64()
_SCHEMAS = {
    "users": pa.schema([("user_id", _ID), ("gender", _TEXT), ("age", _NUMBER)]),
    "items": pa.schema([("item_id", _ID), ("price", _NUMBER), ("provider", _TEXT), ("published_at", _AT[1])]),
    "decisions": pa.schema(
        [("decision_id", _ID), ("request_id", _ID), ("kind", _TEXT), ("chosen", _TEXT), _AT]
        + [("user_id", _ID), ("session_id", _TEXT), ("position", _NUMBER)]
    ),
    "events": pa.schema(
        [("event_id", _ID), ("user_id", _ID), ("event", _TEXT), _AT, ("decision_id", _ID), ("value", _NUMBER)]
    ),
}
