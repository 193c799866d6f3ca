"""Tasks and their labels: what a log says of them, worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from playbill.dataset.dataset import Dataset, Examples, open_dataset
from playbill.dataset.impressions import has_impressions, read_impressions
from playbill.dataset.labels import row_labels
from playbill.dataset.settings import SplitSettings
from playbill.dataset.tasks import Task, check_for_events, check_tasks
from playbill.errors import ConfigError, TableError
from playbill.features.settings import FeatureSettings
from playbill.tables.schema import EventKind

DAY_US = 86_400_000_000
HOUR_US = DAY_US // 24
EVENTS = [EventKind(name=n) for n in ("click", "purchase", "visit")] + [EventKind(name="play", low=0, high=1)]
MakeTables = Callable[..., Path]


def event(number: int, user: int, name: str, at: int, item: int | None, **more: Any) -> dict[str, Any]:
    row = {"event_id": number, "user_id": user, "event": name, "at": at, "item_id": item}
    return row | {"value": None, "decision_id": None} | more


def decision(number: int, request: str, at: int, chosen: int, position: int, **more: Any) -> dict[str, Any]:
    row = {"decision_id": number, "request_id": request, "kind": "item", "chosen": str(chosen), "at": at}
    return row | {"user_id": 1, "session_id": None, "position": float(position), "context": None} | more


ITEMS = [{"item_id": n, "price": float(n)} for n in (1, 2, 3)]
# the log ends at day 20; person 1 sees two slates, person 2 one
SHOWN = [
    decision(10, "a", 2 * DAY_US, 1, 0, context='{"device": "tv"}'),
    decision(11, "a", 2 * DAY_US, 2, 1),
    decision(12, "a", 2 * DAY_US, 100, 0, kind="creative"),  # the picture of item 1
    decision(20, "b", 8 * DAY_US, 3, 0, context='{"device": "phone"}'),
    decision(30, "c", 9 * DAY_US, 2, 0, user_id=2),
    decision(31, "c", 9 * DAY_US, 9, 1, user_id=2),  # no such item
]
LOG = [
    event(1, 1, "visit", DAY_US, None),
    event(2, 1, "click", 2 * DAY_US + HOUR_US, 1, decision_id=12, device="tv"),
    event(3, 1, "play", 2 * DAY_US + 2 * HOUR_US, 1, value=0.9, decision_id=10),
    event(4, 1, "purchase", 7 * DAY_US, 1, decision_id=10),
    event(5, 1, "click", 8 * DAY_US + HOUR_US, 3, decision_id=20, device="phone"),
    event(6, 2, "click", 9 * DAY_US + HOUR_US, 2, decision_id=30, device="tv"),
    event(7, 2, "play", 9 * DAY_US + 2 * HOUR_US, 2, value=0.2, decision_id=30),
    event(8, 2, "visit", 15 * DAY_US, None),
]
TASKS = [
    Task(name="click", events=["click"]),
    Task(name="finish", parent="click", events=["play"], threshold=0.8),
    Task(name="buy", parent="click", events=["purchase"], within_days=3),
    Task(name="back", parent="click", returns=True, within_days=7),
]


@pytest.fixture
def opened(make_tables: MakeTables) -> Callable[..., tuple[Path, Dataset]]:
    def make(log: list[dict[str, Any]] = LOG, shown: list[dict[str, Any]] = SHOWN) -> tuple[Path, Dataset]:
        import pyarrow as pa

        from playbill.tables.folder import describe_folder, read_folder
        from playbill.tables.schema import CONTRACT

        filled = [{"device": None} | row for row in log]
        path = make_tables(events=filled, items=ITEMS, users=[{"user_id": 1}, {"user_id": 2}], declared=EVENTS)
        if shown:
            import pyarrow.parquet as pq

            arrow = pa.Table.from_pylist(shown)
            at = arrow["at"].cast(pa.timestamp("us", tz="UTC"))
            arrow = arrow.set_column(arrow.column_names.index("at"), "at", at)
            arrow = arrow.set_column(
                arrow.column_names.index("session_id"), "session_id", arrow["session_id"].cast(pa.int64())
            )
            pq.write_table(arrow, path / "decisions.parquet")
            before = read_folder(path)
            known = {c.name: c for c in CONTRACT["decisions"]}
            columns = before.columns | {"decisions": [known[n] for n in arrow.column_names]}
            describe_folder(path, source="x", columns=columns, events=before.events)
        features = FeatureSettings(history_length=4, context=["device"])
        return path, open_dataset(path, features, SplitSettings(train=0.98, valid=0.01))

    return make


def test_impressions_with_what_came_of_them(opened) -> None:
    path, dataset = opened()
    assert has_impressions(path)
    shown = read_impressions(path, dataset, TASKS, 0, 20 * DAY_US, most=10)
    assert shown.person.tolist() == [0, 0, 1] and (shown.now // DAY_US).tolist() == [2, 8, 9]
    assert shown.item.tolist() == [[1, 2], [3, 0], [2, 0]]
    assert shown.there.tolist() == [[True, True], [True, False], [True, True]]
    assert shown.position.tolist() == [[0, 1], [0, 0], [0, 1]]
    click, finish, buy, back = np.moveaxis(shown.label, -1, 0)
    # the click names the picture at the first place: it is the item's
    assert click.tolist() == [[1, 0], [1, 0], [1, 0]]
    assert finish.tolist() == [[1, 0], [0, 0], [0, 0]]
    assert buy.tolist() == [[0, 0], [0, 0], [0, 0]], "five days after is beyond three"
    # after day 2 person 1 comes on day 7; after day 8 never again; person 2 comes on day 15, six days after day 9
    assert back.tolist() == [[1, 1], [0, 0], [1, 1]]
    known = np.moveaxis(shown.known, -1, 0)
    assert known[0].tolist() == [[1, 1], [1, 0], [1, 1]], "what is not there counts for nothing"
    assert known[1].tolist() == [[1, 0], [0, 0], [1, 0]], "a click without a play says nothing of finishing"
    assert (
        shown.context["context_device"].tolist()
        == dataset.vocabularies["context_device"].indices(["tv", "phone", None]).tolist()
    )


def test_nothing_beyond_the_end_is_looked_at(opened) -> None:
    path, dataset = opened()
    shown = read_impressions(path, dataset, TASKS, 0, 9 * DAY_US + 90 * HOUR_US // 60, most=10)
    _, finish, buy, back = np.moveaxis(shown.known, -1, 0)
    assert finish[2].tolist() == [0, 0], "the play comes after the end"
    assert buy.tolist() == [[1, 1], [0, 0], [0, 0]] and back.tolist() == [[1, 1], [0, 0], [0, 0]]
    assert len(read_impressions(path, dataset, TASKS, 0, 20 * DAY_US, most=1)) == 1
    assert len(read_impressions(path, dataset, TASKS, 8 * DAY_US, 9 * DAY_US, most=10)) == 1
    assert len(read_impressions(path, dataset, TASKS, 30 * DAY_US, 40 * DAY_US, most=10)) == 0


def test_without_names_an_event_answers_the_newest_impression_of_its_item(opened) -> None:
    again = [*SHOWN, decision(40, "d", 2 * DAY_US + 30 * HOUR_US // 60, 1, 3)]
    path, dataset = opened([{**row, "decision_id": None} for row in LOG], again)
    shown = read_impressions(path, dataset, TASKS[:1], 0, 20 * DAY_US, most=10)
    # the second slate shows item 1 half an hour before the click
    assert shown.label[..., 0].tolist() == [[0, 0], [1, 0], [1, 0], [1, 0]]
    assert shown.position[1].tolist() == [3, 0]
    wide = Task(name="buy", parent="click", events=["purchase"], within_days=6)
    shown = read_impressions(path, dataset, [*TASKS[:1], wide], 0, 20 * DAY_US, most=10)
    assert shown.label[..., 1].tolist() == [[0, 0], [1, 0], [0, 0], [0, 0]]


def test_somebody_unknown_counts_and_somebody_without_consent_does_not(opened) -> None:
    path, dataset = opened(shown=[*SHOWN, decision(50, "e", 10 * DAY_US, 1, 0, user_id=None, session_id=77)])
    shown = read_impressions(path, dataset, TASKS, 0, 20 * DAY_US, most=10)
    assert shown.person.tolist() == [0, 0, 1, -1] and shown.known[3, 0].tolist() == [1, 0, 1, 0]
    dataset.spec.purposes.append("training")
    assert read_impressions(path, dataset, TASKS, 0, 20 * DAY_US, most=10).person.tolist() == [0, 0, 1]


def test_ids_of_two_types_are_refused(opened) -> None:
    path, dataset = opened(shown=[{**row, "decision_id": str(row["decision_id"])} for row in SHOWN])
    with pytest.raises(TableError, match=r"events.decision_id is Int64 and decisions.decision_id is String"):
        read_impressions(path, dataset, TASKS, 0, 20 * DAY_US, most=10)


def test_decisions_without_requests_are_refused(opened) -> None:
    path, dataset = opened(shown=[{n: v for n, v in row.items() if n != "request_id"} for row in SHOWN])
    with pytest.raises(TableError, match="decisions in .* have no column request_id"):
        read_impressions(path, dataset, TASKS, 0, 20 * DAY_US, most=10)


def test_labels_of_events(opened) -> None:
    path, dataset = opened(shown=[])
    assert not has_impressions(path)
    names = [e.name for e in sorted(dataset.spec.events, key=lambda e: e.code)]
    rows = np.arange(len(dataset.pool))
    asked = [names[code - 1] for code in dataset.pool.code]
    assert asked == ["click", "play", "purchase", "click", "click", "play"]
    own = Examples(dataset.pool.person, rows, rows, rows, dataset.pool.at)
    label, known = row_labels(path, dataset, own, TASKS, 20 * DAY_US)
    assert label[:, 0].tolist() == known[:, 0].tolist() == [1, 0, 0, 1, 1, 0], "a play is no click, and teaches none"
    assert label[:, 1].tolist() == [0, 1, 0, 0, 0, 0] and known[:, 1].tolist() == [0, 1, 0, 0, 0, 1]
    # the purchase on day 7 is within three days of itself alone
    assert label[:, 2].tolist() == [0, 0, 1, 0, 0, 0] and known[:, 2].tolist() == [1, 1, 1, 1, 1, 1]
    assert label[:, 3].tolist() == [1, 1, 1, 0, 1, 1]
    _, known = row_labels(path, dataset, own, TASKS, 15 * DAY_US)
    assert known[:, 3].tolist() == [1, 1, 1, 0, 0, 0], "whose week is not over says nothing yet"
    with pytest.raises(ConfigError, match=r"task 'x' names the events \['buy'\]; the tables have: click, purchase"):
        row_labels(path, dataset, own, [Task(name="x", events=["buy"])], DAY_US)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([], "model.tasks is empty"),
        ([{"name": "a"}, {"name": "a"}], "names 'a' twice"),
        ([{"name": "a"}, {"name": "b", "parent": "c"}], "parent 'c', which does not stand before it"),
        ([{"name": "a", "weight": 0.0}], "the first task, 'a', decides the order"),
        ([{"name": "Like"}], "small letters"),
        ([{"name": "a", "weight": -1.0}], "weight must be >= 0, got -1"),
        ([{"name": "a", "within_days": 0.0}], "within_days must be > 0"),
        ([{"name": "a"}, {"name": "b", "returns": True}], "0 <= after_days < within_days"),
        ([{"name": "a"}, {"name": "b", "returns": True, "within_days": 7, "threshold": 1.0}], "has no part"),
    ],
)
def test_tasks_that_cannot_be(tasks: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_tasks([Task(**task) for task in tasks])


def test_single_events_cannot_be_two_things() -> None:
    with pytest.raises(
        ConfigError, match=r"'finish' can never come true: .* both play and, as its parent 'click' asks"
    ):
        check_for_events(TASKS)
    within = Task(name="finish", parent="click", events=["play"], threshold=0.8, within_days=1)
    check_for_events([TASKS[0], within, *TASKS[2:]])
    check_for_events([Task(name="interact"), Task(name="like", parent="interact", threshold=4.0)])
