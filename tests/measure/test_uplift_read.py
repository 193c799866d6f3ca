"""Uplift from tables: a real experiment, a small one by hand, scores of a file, and every kind of broken log."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from playbill.errors import ConfigError, MeasureError
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Reading, to_json, to_png, to_text
from playbill.measure.uplift.features import user_features
from playbill.measure.uplift.learners import folds
from playbill.measure.uplift.log import read_trial
from playbill.measure.uplift.read import run, uplift_reading
from playbill.measure.uplift.settings import HeldOut, LearnerKind, ModelKind, Outcome, UpliftQuestion
from playbill.measure.uplift.trial import Trial, make_trial
from playbill.tables.folder import write_folder
from playbill.tables.schema import Column, EventKind, Kind

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from proof_uplift import hillstrom_tables

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def hillstrom(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = shared_data / "hillstrom" / "hillstrom.parquet"
    if not source.is_file():
        pytest.skip(f"no {source}")
    return hillstrom_tables(source, tmp_path_factory.mktemp("hillstrom"))


def test_the_published_effects_of_the_mails_are_reproduced(hillstrom: Path) -> None:
    """Visits of 64,000 customers: .18276 (men's mail), .15140 (women's), .10617 (none)."""
    trial, warnings = read_trial(UpliftQuestion(experiment="mail", control="none", event="visit"), hillstrom)
    means = [trial.outcome[trial.arm == a].mean() for a in range(3)]
    assert trial.arms == ["none", "mens", "womens"] and not warnings
    assert np.bincount(trial.arm).tolist() == [21_306, 21_307, 21_387]
    assert means == pytest.approx([0.10617, 0.18276, 0.15140], abs=5e-6)
    assert [means[1] - means[0], means[2] - means[0]] == pytest.approx([0.0766, 0.0452], abs=5e-5)
    spend, _ = read_trial(UpliftQuestion(control="none", event="purchase", outcome=Outcome.SUM), hillstrom)
    assert [spend.outcome[spend.arm == a].mean() for a in range(3)] == pytest.approx([0.6528, 1.4226, 1.0772], abs=5e-5)


def test_targeting_thirty_percent_of_real_customers(hillstrom: Path) -> None:
    """A quick twin of proof_uplift.py: a linear learner; the figures stand there, here is what must hold of them."""
    question = UpliftQuestion(
        control="none",
        event="purchase",
        outcome=Outcome.SUM,
        learner=LearnerKind.T,
        model=ModelKind.LINEAR,
        cost={"mens": 0.1, "womens": 0.1},
        budget_share=0.3,
        resamples=100,
        held_out=HeldOut.CROSS,
    )
    reading = run(question, hillstrom, MeasureSettings())
    found = {s.name: s for s in reading.statements}
    gain = found["value, learned targeting - best single treatment at random"]
    against_all = found["value, learned targeting - best single treatment to all"]
    table = {row["rule"]: row for row in reading.tables["value by rule"]}
    assert table["learned targeting"]["people treated"] == pytest.approx(0.3, abs=1e-4)
    assert table["best single treatment to all"]["mens"] == 1
    for s in (gain, against_all):
        assert s.low is not None and s.high is not None and s.estimate is not None and s.low < s.estimate < s.high
        assert s.randomised and s.n == 64_000 and "doubly robust" in s.details
    worth = {rule: row["net value per person"] for rule, row in table.items()}
    assert gain.estimate == pytest.approx(worth["learned targeting"] - worth["best single treatment at random"])
    # most of what the mails bring is lost when 70 % of the customers get none: their effect is 0.77 for 0.10
    assert against_all.high < 0
    assert "less than best single treatment to all" in reading.verdict
    assert to_png(reading)[:4] == b"\x89PNG" and b"Qini" in to_json(reading) and "Qini" in to_text(reading)


def test_features_leave_out_what_is_protected(tmp_path: Path) -> None:
    tables = small(tmp_path)
    features, names, _ = user_features(tables, np.array([3, 21, 99]))
    assert names == ["age", "plan=gold", "plan=plain"]
    assert features[:2].tolist() == [[33.0, 1.0, 0.0], [51.0, 0.0, 1.0]]
    assert np.isnan(features[2, 0]) and features[2, 1:].tolist() == [0, 0]
    with pytest.raises(MeasureError, match="users.gender is protected"):
        user_features(tables, np.array([1]), ["gender"])
    with pytest.raises(MeasureError, match="users has no column 'agee'"):
        user_features(tables, np.array([1]), ["agee"])


def test_events_count_inside_the_window_alone(tmp_path: Path) -> None:
    tables = small(tmp_path)
    ask: dict[str, Any] = {"control": "none", "event": "buy", "window_h": 24}
    happened, warnings = read_trial(UpliftQuestion(**ask), tables)
    assert not warnings
    # person 1 buys at once and after 23 hours; 2 after 24 hours, which is too late; 3 before the assignment
    assert happened.outcome[:4].tolist() == [1, 0, 0, 1]
    assert read_trial(UpliftQuestion(outcome=Outcome.COUNT, **ask), tables)[0].outcome[:4].tolist() == [2, 0, 0, 1]
    assert read_trial(UpliftQuestion(outcome=Outcome.SUM, **ask), tables)[0].outcome[:4].tolist() == [5, 0, 0, 7]
    with pytest.raises(MeasureError, match=r"nobody was watched for 1000 hours \(longest 24\)"):
        read_trial(UpliftQuestion(**ask | {"window_h": 1000}), tables)


def test_people_whose_window_is_not_over_are_left_out_and_counted(tmp_path: Path) -> None:
    def late(rows: list[dict[str, Any]]) -> None:
        for row in rows[:10]:
            row["at"] = BEGAN + timedelta(hours=1)  # the log ends after 24 hours

    ask: dict[str, Any] = {"control": "none", "event": "buy", "window_h": 24}
    tables = small(tmp_path, late)
    trial, warnings = read_trial(UpliftQuestion(**ask), tables)
    assert trial.user_id.tolist() == list(range(11, 41)) and len(trial.outcome) == len(trial.arm) == 30
    assert warnings == ["10 of 40 people left out: the log ends before their 24 hours are over"]
    whole, warnings = read_trial(UpliftQuestion(until="2026-01-02T01:00", **ask), tables)
    assert len(whole) == 40 and not warnings


def test_scores_of_a_file(tmp_path: Path) -> None:
    tables = small(tmp_path)
    scores = pl.DataFrame({"user_id": range(40, 0, -1), "mail": np.linspace(0, 1, 40)})
    scores.write_csv(tmp_path / "scores.csv")
    question = UpliftQuestion(
        control="none", event="buy", window_h=24, scores=str(tmp_path / "scores.csv"), budget_share=0.5, resamples=100
    )
    reading = run(question, tables, MeasureSettings())
    assert "ranked by scores of scores.csv" in reading.title
    table = {row["rule"]: row for row in reading.tables["value by rule"]}
    assert table["learned targeting"]["people treated"] == 0.5
    scores.head(39).write_csv(tmp_path / "scores.csv")
    with pytest.raises(MeasureError, match="scores.csv.mail: everybody .* 1 of 40 rows break this, first row 0: 1"):
        run(question, tables, MeasureSettings())
    pl.concat([scores, scores.head(2)]).write_csv(tmp_path / "scores.csv")
    with pytest.raises(MeasureError, match="scores.csv.user_id: a person has one row of scores; 2 of 42 rows"):
        run(question, tables, MeasureSettings())
    scores.rename({"mail": "male"}).write_csv(tmp_path / "scores.csv")
    with pytest.raises(MeasureError, match="has no column mail; it has: user_id, male"):
        run(question, tables, MeasureSettings())


def _set(row: int, **change: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda rows: rows[row].update(change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set(3, propensity=0.0), r"decisions.propensity: .* 1 of 40 rows break this, first row 3: 0.0"),
        (_set(4, propensity=1.5), r"decisions.propensity: .* first row 4: 1.5"),
        (_set(5, propensity=None), r"decisions.propensity: .* first row 5: nothing"),
        (_set(6, propensity=0.4), r"decisions.propensity: one share for an arm; .* row 6: 0.4"),
        (_set(7, user_id=None, session_id="s"), r"decisions.user_id: everybody assigned needs an id; .* 1 of 40"),
        (
            _set(8, user_id=1),
            r"decisions.user_id: duplicate assignments: .* 2 of 40 rows break this, first row 0: 1, row 8: 1",
        ),
        (_set(9, user_id=1), r"decisions.user_id: one arm for each, .* first row 0: 1, row 9: 1"),
        (lambda rows: [r.update(chosen="mail") for r in rows], "no users in the control 'none'"),
        (lambda rows: [r.update(propensity=None) for r in rows], "without the planned shares of its arms"),
        (lambda rows: [r.update(propensity=0.4) for r in rows], "planned shares .* sum to 0.8, not 1"),
        (lambda rows: [r.update(kind="item") for r in rows], "decisions.kind: no row is an experiment_arm"),
        (_set(2, request_id="other"), "2 experiments in the log; .* other, spring"),
    ],
)
def test_a_broken_assignment_is_named(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(MeasureError, match=message):
        read_trial(UpliftQuestion(control="none", event="buy"), small(tmp_path, change))


def test_shares_of_the_question_stand_for_propensities(tmp_path: Path) -> None:
    tables = small(tmp_path, lambda rows: [r.update(propensity=None) for r in rows])
    question = UpliftQuestion(control="none", event="buy", window_h=24, shares={"none": 0.5, "mail": 0.5})
    trial, warnings = read_trial(question, tables)
    assert trial.share.tolist() == [0.5, 0.5] and not trial.logged and "declared by who asks" in warnings[0]
    reading = scored(trial, np.arange(40.0))
    assert not any(s.randomised for s in reading.statements) and "earns" in reading.verdict


def test_a_failed_sample_ratio_check_refuses_the_values() -> None:
    """Half each was planned and 35 % are mailed, which earns 0.05 a person: weighed by a half it would seem to lose."""
    draw = np.random.default_rng(0)
    arm = (draw.random(6000) < 0.35).astype(int)
    outcome = (draw.random(6000) < np.where(arm == 1, 0.15, 0.1)).astype(float)
    reading = scored(make_trial(["none", "mail"], arm, np.array([0.5, 0.5]), outcome), draw.random(6000))
    assert reading.verdict.startswith("DO NOT READ THE EFFECTS: SAMPLE RATIO: the arms' sizes contradict")
    assert reading.warnings[0].startswith("SAMPLE RATIO")
    assert not any(s.randomised for s in reading.statements)
    for s in reading.statements:
        assert s.refused.startswith("SAMPLE RATIO") if s.name.startswith("value") else s.estimate is not None
        assert s.refused or s.warnings[0].startswith("SAMPLE RATIO")
    assert all("net value per person" not in row for row in reading.tables["value by rule"])
    assert to_png(reading)[:4] == b"\x89PNG" and "earns" not in to_text(reading)
    # the same people where these sizes were planned
    sound = scored(make_trial(["none", "mail"], arm, np.array([0.65, 0.35]), outcome), draw.random(6000))
    (value,) = [s for s in sound.statements if s.name == "value, mail to all - nobody"]
    found = outcome[arm == 1].mean() - outcome[arm == 0].mean()
    assert value.randomised and value.estimate == pytest.approx(found, abs=0.002) and value.estimate > 0


def test_an_arm_of_one_person_has_no_interval() -> None:
    arm = np.array([0, 1, 2] + [0, 1] * 10)
    trial = make_trial(["none", "mail", "gift"], arm, np.array([0.45, 0.45, 0.1]), np.arange(23.0) % 3)
    reading = scored(trial, np.arange(23.0))
    found = {s.name: s for s in reading.statements}
    assert found["effect, gift - none"].refused == "an interval needs two people or more in both arms, got 1 and 11"
    assert found["effect, mail - none"].estimate is not None
    assert all(np.isfinite(s.low) for s in reading.statements if s.low is not None)


def scored(trial: Trial, score: np.ndarray) -> Reading:
    """Return the reading of a trial by a score that stands for the effect of every arm."""
    effect = np.zeros((len(trial), len(trial.arms)))
    effect[:, 1:] = score[:, None]
    question = UpliftQuestion(event="buy", resamples=100, budget_share=0.3, held_out=HeldOut.CROSS)
    return uplift_reading(question, trial, effect, folds(len(trial), 3, 0), MeasureSettings(), how="a score")


def test_a_question_that_does_not_fit_the_log(tmp_path: Path) -> None:
    tables = small(tmp_path)
    with pytest.raises(MeasureError, match="nobody did 'purchase'; there are: buy, free"):
        read_trial(UpliftQuestion(control="none"), tables)
    with pytest.raises(MeasureError, match=r"question.cost names letter"):
        read_trial(UpliftQuestion(control="none", event="buy", cost={"letter": 1.0}), tables)
    with pytest.raises(MeasureError, match="no experiment 'autumn'"):
        read_trial(UpliftQuestion(control="none", event="buy", experiment="autumn"), tables)
    with pytest.raises(
        MeasureError, match=r"events.value: every free needs a value .* 1 of 1 rows break this, first row 4: nothing"
    ):
        read_trial(UpliftQuestion(control="none", event="free", outcome=Outcome.SUM), tables)
    with pytest.raises(ConfigError, match=r"budget_share must lie in 0..1 and not be 0, got 0"):
        UpliftQuestion(budget_share=0)
    with pytest.raises(ConfigError, match=r"cost must be >= 0, got \{'mail': -1.0\}"):
        UpliftQuestion(cost={"mail": -1.0})


def small(folder: Path, change: Callable[[list[dict[str, Any]]], Any] = lambda rows: None) -> Path:
    """Write an experiment of 40 people, odd ones mailed, and one decision of another kind; return the folder."""
    users = [
        {"user_id": u, "age": 30.0 + u, "gender": "fm"[u % 2], "plan": "gold" if u < 20 else "plain"}
        for u in range(1, 41)
    ]
    decisions = [
        {
            "decision_id": u,
            "request_id": "spring",
            "kind": "experiment_arm",
            "chosen": "mail" if u % 2 else "none",
            "at": BEGAN,
            "user_id": u,
            "session_id": None,
            "propensity": 0.5,
        }
        for u in range(1, 41)
    ]
    change(decisions)
    decisions.append(dict(decisions[0]) | {"decision_id": 41, "request_id": "r", "kind": "item", "chosen": "9"})
    hours = [(1, 0, 2.0), (1, 23, 3.0), (2, 24, 4.0), (3, -1, 5.0), (4, 1, 7.0)]
    events = [
        {"event_id": i, "user_id": u, "event": "buy", "at": BEGAN + timedelta(hours=h), "value": v}
        for i, (u, h, v) in enumerate(hours)
    ]
    events[4:4] = [{"event_id": 99, "user_id": 2, "event": "free", "at": BEGAN, "value": None}]
    # others may buy too, so that both arms have some of each
    events += [
        {"event_id": 100 + u, "user_id": u, "event": "buy", "at": BEGAN + timedelta(hours=2), "value": 1.0}
        for u in range(11, 40, 3)
    ]
    tables = {
        name: pa.Table.from_pylist(rows, schema=schema)
        for name, rows, schema in (
            ("users", users, None),
            ("decisions", decisions, _DECISIONS),
            ("events", events, _EVENTS),
        )
    }
    kinds = {pa.float64(): Kind.NUMBER, pa.timestamp("us", tz="UTC"): Kind.TIME, pa.string(): Kind.TEXT}
    columns = {
        name: [
            Column(
                name=f.name,
                kind=Kind.ID if f.name.endswith("_id") else kinds[f.type],
                protected=f.name == "gender",
            )
            for f in table.schema
        ]
        for name, table in tables.items()
    }
    write_folder(folder / "tables", tables, source="t", columns=columns, events=[EventKind(name="buy")])
    return folder / "tables"


_AT = ("at", pa.timestamp("us", tz="UTC"))
_DECISIONS = pa.schema(
    [("decision_id", pa.int64()), ("request_id", pa.string()), ("kind", pa.string()), ("chosen", pa.string()), _AT]
    + [("user_id", pa.int64()), ("session_id", pa.string()), ("propensity", pa.float64())]
)
_EVENTS = pa.schema(
    [("event_id", pa.int64()), ("user_id", pa.int64()), ("event", pa.string()), _AT, ("value", pa.float64())]
)
