"""Exposure: who met what was tested, when first, and whether the arm decided it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from playbill.errors import MeasureError
from playbill.measure.experiments.assignment import Assignment, read_assignment
from playbill.measure.experiments.settings import ExperimentQuestion
from playbill.measure.exposure import (
    NEVER,
    exposure_rows,
    exposure_warnings,
    read_exposure,
    triggered_ratio,
)
from playbill.tables.folder import write_folder
from playbill.tables.schema import CONTRACT, arrow_type

START = datetime(2026, 3, 1, tzinfo=UTC)


def write(folder: Path, **tables: list[dict[str, Any]]) -> Path:
    """Write rows of the contract's columns, people and items with int64 ids, the rest strings."""
    arrow, columns = {}, {}
    for name, rows in tables.items():
        columns[name] = [c for c in CONTRACT[name] if any(c.name in row for row in rows)]
        ids = {"user_id": pa.int64(), "item_id": pa.int64()}
        arrow[name] = pa.table(
            {
                c.name: pa.array([r.get(c.name) for r in rows], arrow_type(c.kind, ids.get(c.name, pa.string())))
                for c in columns[name]
            }
        )
    write_folder(folder, arrow, source="test", columns=columns)
    return folder


def assigned(arms: str, experiment: str = "button") -> list[dict[str, Any]]:
    """One person a letter: c for control, n for new, assigned an hour apart, person 0 first."""
    return [
        {
            "decision_id": f"{experiment}/{i}",
            "request_id": experiment,
            "kind": "experiment_arm",
            "chosen": {"c": "control", "n": "new"}[arm],
            "at": START + timedelta(hours=i),
            "user_id": i,
            "propensity": 0.5,
        }
        for i, arm in enumerate(arms)
    ]


def seen(user_id: int | None, hours: float, decision_id: str | None = None, event: str = "exposure") -> dict[str, Any]:
    return {
        "event_id": f"{user_id}-{hours}-{decision_id}",
        "user_id": user_id,
        "event": event,
        "at": START + timedelta(hours=hours),
        "decision_id": decision_id,
    }


def who(folder: Path) -> Assignment:
    return read_assignment(folder, ExperimentQuestion(experiment="button"))


def test_by_hand(tmp_path: Path) -> None:
    """Six people, assigned at hours 0..5; exposures before the assignment, of others and of nobody do not count."""
    folder = write(
        tmp_path,
        decisions=[*assigned("ccnncn"), *assigned("nnnncc", "another")],
        events=[
            seen(0, 3), seen(0, 2), seen(0, 9, event="click"),  # control, first after 2 hours
            seen(1, 0.5), seen(1, 5),  # control, early once, first after 4 hours
            seen(2, 2.0, "button/2"),  # new, at the very moment
            seen(3, 1),  # new, early and never again
            seen(4, 8, "another/4"),  # control, exposed to the other experiment
            seen(99, 4), seen(None, 4),
        ],
    )  # fmt: skip
    people = who(folder)
    found = read_exposure(folder, people, event="exposure")
    assert found.exposed.tolist() == [True, True, True, False, False, False]
    assert found.times.tolist() == [2, 1, 1, 0, 0, 0]
    assert ((found.first_us - people.at_us)[:3] / 3.6e9).tolist() == [2, 4, 0]
    assert (found.first_us[3:] == NEVER).all()
    assert (found.early, found.strangers, found.unnamed) == (2, 1, 1)
    assert exposure_rows(people, found) == [
        {"arm": "control", "assigned": 3, "exposed": 2, "exposed_share": 2 / 3, "median_hours_to_exposure": 3},
        {"arm": "new", "assigned": 3, "exposed": 1, "exposed_share": 1 / 3, "median_hours_to_exposure": 0},
    ]
    said = " ".join(exposure_warnings(people, found))
    assert "2 people were exposed before" in said and "1 people were exposed and never assigned" in said
    assert "1 exposures name no user_id" in said and "the treatment decides" not in said


def test_decisions_are_exposures_too(tmp_path: Path) -> None:
    slates = [
        {
            "decision_id": f"s{i}",
            "request_id": f"r{i}",
            "kind": "item",
            "chosen": "7",
            "user_id": i,
            "at": START + timedelta(days=1),
        }
        for i in (1, 2)
    ]
    folder = write(tmp_path, decisions=[*assigned("cncn"), *slates])
    assert read_exposure(folder, who(folder), decision="item").exposed.tolist() == [False, True, True, False]


def test_an_arm_that_decides_who_is_exposed_is_found(tmp_path: Path) -> None:
    """600 a side; the new page loads so slowly that a third of its people leave before the exposure is written."""
    draw = np.random.default_rng(0)
    arms = "cn" * 600
    reached = draw.random(len(arms)) < np.where(np.array(list(arms)) == "c", 0.9, 0.6)
    events = [seen(int(i), 2000) for i in np.flatnonzero(reached)]
    folder = write(tmp_path, decisions=assigned(arms), events=events)
    people = who(folder)
    found = read_exposure(folder, people, event="exposure")
    assert triggered_ratio(people, found).flagged
    assert "compare everybody assigned" in exposure_warnings(people, found)[0]
    fair = [seen(int(i), 2000) for i in np.flatnonzero(draw.random(len(arms)) < 0.75)]
    folder = write(tmp_path / "fair", decisions=assigned(arms), events=fair)
    assert exposure_warnings(people, read_exposure(folder, people, event="exposure")) == []


def test_bad_input_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, decisions=assigned("cn"), events=[seen(0, 1), seen(1, 2, event="click")])
    with pytest.raises(MeasureError, match="events.event: no 'expsure', .* there are: click, exposure"):
        read_exposure(folder, who(folder), event="expsure")
    for event, decision in (("", ""), ("exposure", "item")):
        with pytest.raises(MeasureError, match="give one of them"):
            read_exposure(folder, who(folder), event=event, decision=decision)
    broken = write(tmp_path / "b", decisions=assigned("cn"), events=[seen(0, 1), seen(1, 2) | {"at": None}])
    with pytest.raises(MeasureError, match="events.at: an exposure has a time; 1 of 2 rows break this, first row 1"):
        read_exposure(broken, who(broken), event="exposure")
