"""Every shipped metric computed by hand from rows of the tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from playbill.errors import MeasureError
from playbill.measure.experiments.assignment import read_assignment
from playbill.measure.experiments.metrics import Metric, declared, parse
from playbill.measure.experiments.rows import lacking, read_rows
from playbill.measure.experiments.settings import ExperimentQuestion
from playbill.measure.experiments.values import Values, values_of
from playbill.tables.folder import write_folder
from playbill.tables.schema import CONTRACT, EventKind, arrow_type

START = datetime(2026, 3, 1, tzinfo=UTC)

# person, event, day after 1 March, value, session, decision; 10 and 11 are control, 12 is new, assigned on day 30;
# 13 is new, assigned on day 40. The log ends on day 60.
EVENTS: list[tuple[int, str, float, float | None, str | None, str | None]] = [
    (10, "purchase", 20, 7.0, "a", None),  # ten days before
    (10, "click", 30.0, None, "b", "slate-1"),  # at the very moment of the assignment: after it
    (10, "purchase", 31.5, 5.0, "b", None),
    (10, "purchase", 33, 2.5, "c", None),
    (10, "purchase", 44, 100.0, "d", None),  # on day 14: the window is over
    (10, "latency_ms", 32, 120.0, "b", None),
    (10, "latency_ms", 32.1, 80.0, "b", None),
    (11, "click", 36, None, None, None),  # answers no decision that is written
    (11, "exposure", 37, None, None, None),  # no visit of a second day
    (12, "click", 31, None, "e", "slate-2"),
    (12, "click", 31.1, None, "e", "slate-2"),
    (12, "latency_ms", 31, 300.0, "e", None),
    (12, "unsubscribe", 31.2, None, "e", None),
    (13, "purchase", 55, 9.0, "f", None),  # on day 15
    (99, "purchase", 31, 50.0, "g", None),  # nobody assigned
]
SHOWN = [(10, 30.5), (10, 31.5), (10, 29.0), (11, 37.0), (12, 30.9), (12, 43.9), (12, 44.1)]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    decisions: list[dict[str, Any]] = [
        {"request_id": "x", "kind": "experiment_arm", "chosen": arm, "at": at(day), "user_id": user, "propensity": 0.5}
        for user, arm, day in ((10, "control", 30), (11, "control", 30), (12, "new", 30), (13, "new", 40))
    ]
    decisions += [
        {"request_id": "s", "kind": "item", "chosen": "1", "at": at(day), "user_id": user} for user, day in SHOWN
    ]
    names = ("user_id", "event", "at", "value", "session_id", "decision_id")
    events = [dict(zip(names, row, strict=True)) | {"at": at(row[2])} for row in EVENTS]
    events.append({"user_id": 99, "event": "visit", "at": at(60)})
    rows = {
        "decisions": [{"decision_id": f"d{i}", **row} for i, row in enumerate(decisions)],
        "events": [{"event_id": str(i), **row} for i, row in enumerate(events)],
    }
    arrow, columns = {}, {}
    for name, of_table in rows.items():
        columns[name] = [c for c in CONTRACT[name] if any(c.name in row for row in of_table)]
        ids = {"user_id": pa.int64()}
        arrow[name] = pa.table(
            {
                c.name: pa.array([r.get(c.name) for r in of_table], arrow_type(c.kind, ids.get(c.name, pa.string())))
                for c in columns[name]
            }
        )
    folder = tmp_path_factory.mktemp("values") / "tables"
    # errors are declared and did not happen; feature_use is not declared
    write_folder(folder, arrow, source="test", columns=columns, events=[EventKind(name="error")])
    return folder


def at(day: float) -> datetime:
    return START + timedelta(days=day)


def of(
    tables: Path, name: str, pre_days: float = 28, metrics: dict[str, Metric] | None = None, until: str = ""
) -> Values:
    metric = (metrics or declared())[name]
    assignment = read_assignment(tables, ExperimentQuestion())
    rows = read_rows(tables, assignment, [metric], pre_days=pre_days, until=until, exposure="exposure")
    return values_of(metric, rows, assignment.at_us, pre_days=pre_days)


def test_the_assignment(tables: Path) -> None:
    assignment = read_assignment(tables, ExperimentQuestion())
    assert assignment.experiment == "x" and assignment.arms == ["control", "new"] and assignment.shares == [0.5, 0.5]
    assert assignment.ids.to_list() == [10, 11, 12, 13] and assignment.arm.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("name", "total", "per"),
    [
        # persons 10, 11, 12, 13
        ("conversion", [1, 0, 0, 0], None),
        ("revenue_per_visitor", [7.5, 0, 0, 0], None),
        # clicks that answer a decision; items shown on days 0 to 14
        ("click_through", [1, 0, 2, 0], [2, 1, 2, 0]),
        # person 10 came on days 0, 1, 2 and 3, 12 on one day; an exposure is no visit
        ("repeat_visit", [1, 0, 0, 0], None),
        # events that carry a session: 10 has one click, two purchases, two latencies in b and c; 12 four in e
        ("session_depth", [5, 0, 4, 0], [2, 0, 1, 0]),
        # of whom nothing is seen on days 14 to 28: 10 bought on day 14; the log ends on day 20 of person 13
        ("churn", [0, 1, 1], None),
        ("latency", [200, 0, 300, 0], [2, 0, 1, 0]),
        ("error_rate", [0, 0, 0, 0], [2, 0, 1, 0]),
        ("unsubscribes", [0, 0, 1, 0], None),
    ],
)
def test_a_shipped_metric_by_hand(tables: Path, name: str, total: list[float], per: list[float] | None) -> None:
    values = of(tables, name)
    assert values.total.tolist() == total
    assert (None if values.per is None else values.per.tolist()) == per
    assert values.people.tolist() == list(range(len(total))) and values.too_late == 4 - len(total)


def test_time_to_purchase_by_hand(tables: Path) -> None:
    values = of(tables, "time_to_purchase")
    # 10 bought after 1.5 days; the others were watched for 14 days and more
    assert values.total.tolist() == [1.5, 14, 14, 14]
    assert values.happened is not None and values.happened.tolist() == [True, False, False, False]
    # before: 28 days earlier is day 2, the purchase on day 20 came 18 days later; the others needed all 28
    assert values.earlier is not None and values.earlier.tolist() == [18, 28, 28, 28]


def test_a_person_who_is_not_watched_to_the_end_is_censored(tables: Path) -> None:
    long = parse(b"t: {kind: time, count: {events: [purchase]}, window_days: 25}", "here")
    values = of(tables, "t", metrics=long)
    # 13 was assigned on day 40 and the log ends on day 60: 20 days; it bought on day 15
    assert values.total.tolist() == [1.5, 25, 25, 15] and values.happened is not None
    assert values.happened.tolist() == [True, False, False, True]
    longer = parse(b"t: {kind: time, count: {events: [unsubscribe]}, window_days: 25}", "here")
    assert of(tables, "t", metrics=longer).total.tolist() == [25, 25, pytest.approx(1.2), 20]


def test_earlier_values_are_the_same_metric_before(tables: Path) -> None:
    earlier = of(tables, "revenue_per_visitor").earlier
    assert earlier is not None and earlier.tolist() == [7, 0, 0, 0]
    assert of(tables, "revenue_per_visitor", pre_days=9).earlier is None  # the purchase was ten days before
    assert of(tables, "revenue_per_visitor", pre_days=0).earlier is None
    # one item shown to 10 before, no click: the ratio is 0 for all, so there is nothing to adjust by
    assert of(tables, "click_through").earlier is None


def test_caps_and_windows_without_an_end(tables: Path) -> None:
    metrics = parse(
        b"capped: {kind: mean, count: {events: [purchase], take: value}, cap: 6}\n"
        b"all: {kind: mean, count: {events: [purchase], take: value}, window_days: null}\n"
        b"late: {kind: mean, count: {events: [purchase]}, from_days: 3, window_days: 20}\n",
        "here",
    )
    assert of(tables, "capped", metrics=metrics).total.tolist() == [6, 0, 0, 0]
    assert of(tables, "all", metrics=metrics).total.tolist() == [107.5, 0, 0, 9]
    assert of(tables, "late", metrics=metrics).total.tolist() == [2, 0, 0, 1]


def test_who_was_assigned_after_the_log_ended_was_never_watched(tables: Path) -> None:
    """With an end on day 35, person 13 of day 40 is in no figure: "did nothing" would be no observation."""
    metrics = parse(
        b"all: {kind: mean, count: {events: [purchase], take: value}, window_days: null}\n"
        b"t: {kind: time, count: {events: [purchase]}, window_days: 25}\n",
        "here",
    )
    for name, total in (("all", [7.5, 0, 0]), ("t", [1.5, 5, 5])):
        values = of(tables, name, metrics=metrics, until="2026-04-05")  # day 35
        assert values.people.tolist() == [0, 1, 2] and values.too_late == 1
        assert values.total.tolist() == total


def test_what_is_not_in_the_log_is_named(tables: Path) -> None:
    assert lacking(tables, declared(), "user_id") == {"feature_adoption": "events of name feature_use"}
    own = parse(b"m: {kind: ratio, count: {events: [play]}, per: {decisions: [offer]}}", "here")
    assert lacking(tables, own, "user_id") == {"m": "events of name play, decisions of kind offer"}
    shown = parse(b"m: {kind: mean, count: {decisions: [item], take: sessions}}", "here")
    assert lacking(tables, shown, "user_id") == {"m": "column decisions.session_id"}


def test_nobody_watched_for_the_window(tables: Path) -> None:
    with pytest.raises(MeasureError, match=r"nobody was watched for 40 days \(longest 30\); wait, or"):
        of(tables, "m", metrics=parse(b"m: {kind: mean, count: {events: [click]}, window_days: 40}", "here"))


def test_values_that_are_no_numbers_are_refused(tables: Path) -> None:
    clicks = parse(b"m: {kind: mean, count: {events: [click], take: value}}", "here")
    with pytest.raises(MeasureError) as caught:
        of(tables, "m", metrics=clicks)
    words = "events.value: a metric adds these up, so each must be a finite number; declare it with `take: count`, or "
    assert str(caught.value) == words + (
        "mend the log; 4 of 4 rows break this, first row 1: nothing, row 7: nothing, row 9: nothing, row 10: nothing"
    )


def test_figures_are_taken_from_the_values(tables: Path) -> None:
    values = of(tables, "click_through")
    arm = np.array([False, False, True, True])
    assert values.take(~arm).figure().value == pytest.approx(1 / 3)
    assert values.take(arm).figure().value == pytest.approx(2 / 2)
