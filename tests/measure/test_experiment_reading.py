"""`playbill measure question=experiment` from tables to reading: order, words, guardrails, doubts, bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from playbill import cli
from playbill.errors import ConfigError, MeasureError
from playbill.measure.experiments.read import run
from playbill.measure.experiments.settings import Correction, ExperimentQuestion, Unit
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Reading, to_json, to_png, to_text
from playbill.tables.folder import write_folder
from playbill.tables.schema import CONTRACT, Column, EventKind, Kind

TIME = pa.timestamp("us", tz="UTC")
DAY = np.timedelta64(1, "D")
START = np.datetime64("2026-03-01", "us")
PEOPLE = 3000

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes decisions, events and users given as columns, and returns the folder."""

    def write(
        decisions: dict[str, Any],
        events: dict[str, Any],
        users: dict[str, Any] | None = None,
        declared: tuple[str, ...] = ("purchase", "latency_ms", "error"),
    ) -> Path:
        given = {"decisions": decisions, "events": events} | ({} if users is None else {"users": users})
        tables, columns = {}, {}
        for name, of_table in given.items():
            key = {"decisions": "decision_id", "events": "event_id", "users": "user_id"}[name]
            length = max(np.size(v) for v in of_table.values())
            of_table = {key: np.arange(length)} | {k: np.broadcast_to(v, length) for k, v in of_table.items()}
            tables[name] = pa.table({k: _column(k, v) for k, v in of_table.items()})
            known = {column.name: column for column in CONTRACT[name]}
            columns[name] = [known.get(k, Column(name=k, kind=Kind.NUMBER)) for k in of_table]
        kinds = [EventKind(name=event) for event in declared]
        write_folder(tmp_path / "shop", tables, source="test", columns=columns, events=kinds)
        return tmp_path / "shop"

    return write


def _column(name: str, values: np.ndarray) -> pa.Array:
    if name == "at":
        return pa.array(values.astype("datetime64[us]"), TIME)
    return pa.array(values.tolist() if values.dtype == object else values, from_pandas=True)


def assigned(arms: np.ndarray, **more: Any) -> dict[str, Any]:
    """One decision a person, persons 0, 1, ..., assigned on 1 March."""
    rows = {
        "request_id": "page",
        "kind": "experiment_arm",
        "chosen": arms,
        "at": START,
        "user_id": np.arange(len(arms)),
    }
    return rows | {"propensity": 1 / len(np.unique(arms.astype(str)))} | more


def halves(people: int = PEOPLE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.where(np.arange(people) % 2, "fast", "control"))


def requests(arms: np.ndarray, added_ms: float, seed: int = 1) -> dict[str, Any]:
    """One to seven requests a person, each with a latency that differs by person and by request."""
    draw = np.random.default_rng(seed)
    user = np.repeat(np.arange(len(arms)), draw.integers(1, 8, len(arms)))
    latency = 150 + draw.exponential(30, len(arms))[user] + draw.exponential(40, len(user))
    latency += np.where(arms[user] == "fast", added_ms, 0.0)
    return {"user_id": user, "event": "latency_ms", "at": START + DAY, "value": latency}


def together(*tables: dict[str, Any]) -> dict[str, Any]:
    """Return the rows of several event tables as one; a column that one of them lacks is null there."""
    sizes = [np.size(table["user_id"]) for table in tables]
    names = dict.fromkeys(name for table in tables for name in table)
    return {
        name: np.concatenate(
            [np.broadcast_to(table.get(name, np.nan), size) for table, size in zip(tables, sizes, strict=True)]
        )
        for name in names
    }


def ask(tables: Path, **question: Any) -> Reading:
    question = {"until": "2026-04-30"} | question
    return run(ExperimentQuestion(**question), tables, MeasureSettings())


@pytest.mark.parametrize(
    ("added_ms", "outcome"), [(30.0, "fail"), (0.0, "pass"), (5.0, "pass"), (-30.0, "pass"), (10.0, "undecided")]
)
def test_an_arm_that_adds_30_ms_fails_its_latency_guardrail(write: Write, added_ms: float, outcome: str) -> None:
    arms = halves()
    reading = ask(write(assigned(arms), requests(arms, added_ms)))
    (row,) = [r for r in reading.tables["guardrails"] if r["guardrail"] == "latency"]
    assert (row["outcome"], row["limit"], row["of"]) == (outcome, 10.0, "ms")
    assert row["low"] < added_ms < row["high"] and row["high"] - row["low"] < 10
    assert (f"guardrails {outcome}: latency of fast" in reading.verdict) == (outcome != "pass")
    said = next(s for s in reading.statements if s.name.startswith("latency"))
    assert any(f"guardrail latency of fast: {outcome.upper()}" in w for w in said.warnings) == (outcome != "pass")
    # errors are declared and none happened: that is no gap in the log, and no interval either
    errors = next(s for s in reading.statements if s.name.startswith("error_rate"))
    assert "nobody differs" in errors.refused
    assert "error_rate" not in {r["metric"] for r in reading.tables["declared, not in this log"]}


def test_every_effect_says_all_that_is_asked_of_it(write: Write) -> None:
    arms = halves()
    # the same requests a week before, so earlier and later values differ by the arm alone
    events = together(requests(arms, 30.0), {**requests(arms, 0.0), "at": START - 7 * DAY})
    reading = ask(write(assigned(arms), events), only=["latency", "conversion"])
    (row,) = reading.tables["intent to treat"]
    assert list(row) == [
        *("metric", "arm", "control_figure", "arm_figure", "difference", "low", "high", "standard_error", "relative"),
        *("relative_low", "relative_high", "p", "q", "n_arm", "n_control", "cuped_variance_reduction", "unit"),
    ]
    assert row["relative"] == pytest.approx(row["difference"] / row["control_figure"])
    assert row["relative_low"] < row["relative"] < row["relative_high"]
    assert row["n_arm"] == row["n_control"] == PEOPLE // 2 and row["q"] == row["p"] < 1e-6
    assert row["cuped_variance_reduction"] > 0.99
    assert row["difference"] == pytest.approx(30, abs=0.5)
    assert "CUPED, variance -100.0%, p < 1e-99" in reading.statements[0].method
    plain = ask(write(assigned(arms), events), only=["latency"], pre_days=0.0).tables["intent to treat"][0]
    assert plain["cuped_variance_reduction"] is None and plain["standard_error"] > 5 * row["standard_error"]


def test_intent_to_treat_stands_first_and_per_protocol_beside_it(write: Write) -> None:
    arms = halves()
    draw = np.random.default_rng(5)
    met = np.flatnonzero(draw.random(PEOPLE) < 0.5)
    buys = np.flatnonzero(draw.random(PEOPLE) < np.where(arms == "fast", 0.3, 0.2))
    events = together(
        {"user_id": met, "event": "exposure", "at": START + DAY},
        {"user_id": buys, "event": "purchase", "at": START + 2 * DAY},
    )
    reading = ask(write(assigned(arms), events), only=["conversion", "time_to_purchase"])
    names = [s.name for s in reading.statements]
    assert names == [
        "conversion, lift of fast over control (intent to treat)",
        "time_to_purchase, lift of fast over control (intent to treat)",
        "conversion, difference of fast over control (per protocol)",
        "time_to_purchase, difference of fast over control (per protocol)",
    ]
    assert [s.randomised for s in reading.statements] == [True, True, False, False]
    assert all("NOT RANDOMISED" in s.warnings[0] for s in reading.statements[2:])
    assert reading.statements[2].n == len(met) and reading.statements[0].n == PEOPLE
    assert [row["exposed"] for row in reading.tables["exposed"]] == [
        int((arms[met] == arm).sum()) for arm in ("control", "fast")
    ]
    # those who met it: the same figures as if they alone had been assigned
    alone = np.isin(np.arange(PEOPLE), met)
    rates = [np.isin(buys, met[arms[met] == arm]).sum() / (alone & (arms == arm)).sum() for arm in ("fast", "control")]
    assert reading.statements[2].estimate == pytest.approx(rates[0] - rates[1])


def test_a_failed_sample_ratio_check_is_loud_and_is_never_a_lift(write: Write) -> None:
    arms = np.array(["control"] * 1000 + ["fast"] * 1300)  # half each was planned
    reading = ask(write(assigned(arms), requests(arms, 30.0)))
    assert reading.verdict.startswith("DO NOT READ THE EFFECTS: SAMPLE RATIO: the arms' sizes contradict")
    assert reading.warnings[0].startswith("SAMPLE RATIO") and "control 1,000 of 0.5 planned" in reading.warnings[0]
    assert not any(s.randomised for s in reading.statements)
    assert all(s.warnings[0].startswith("SAMPLE RATIO") for s in reading.statements)
    assert "lift" not in to_text(reading).lower()
    # the same people where these sizes were planned
    planned = np.where(arms == "fast", 1300 / 2300, 1000 / 2300)
    sound = ask(write(assigned(arms, propensity=planned), requests(arms, 30.0)))
    assert sound.statements[0].randomised and "lift" in sound.statements[0].name and not sound.warnings


def test_without_planned_shares_nothing_shows_that_arms_were_random(write: Write) -> None:
    arms = halves()
    decisions = assigned(arms)
    del decisions["propensity"]
    reading = ask(write(decisions, requests(arms, 30.0)))
    assert "does not tell the planned shares" in reading.warnings[0]
    assert "lift" not in to_text(reading).lower() and not any(s.randomised for s in reading.statements)
    given = ask(write(decisions, requests(arms, 30.0)), shares={"control": 0.5, "fast": 0.5})
    # declared by who asks: the sizes can be held against them, and that the arms were drawn is not shown
    assert given.tables["arms"][0]["sample_ratio_p"] == 1 and not any(s.randomised for s in given.statements)
    assert "declared by who asks" in given.warnings[0] and "difference of fast" in given.statements[0].name


def test_people_who_chose_their_arm_are_no_lift_on_request(write: Write) -> None:
    arms = np.where(np.random.default_rng(3).random(PEOPLE) < 0.3, "fast", "control")
    seen = {"control": 0.7, "fast": 0.3}
    chose = {"control": 0.5, "fast": 0.5}
    for logged in (None, chose):
        propensity = np.nan if logged is None else np.vectorize(logged.get)(arms)
        reading = ask(write(assigned(arms, propensity=propensity), requests(arms, 30.0)), shares=seen)
        assert not any(s.randomised for s in reading.statements) and "lift" not in to_text(reading).lower()
        assert "declared by who asks" in reading.warnings[0]
    # the log tells the same, of everybody and not of these arms alone: 0.35 and 0.15 stand as 0.7 and 0.3
    drawn = assigned(arms, propensity=np.where(arms == "fast", 0.15, 0.35))
    assert ask(write(drawn, requests(arms, 30.0)), shares=seen).statements[0].randomised


def test_metrics_that_the_log_cannot_tell_are_listed(write: Write) -> None:
    arms = halves()
    reading = ask(write(assigned(arms), requests(arms, 0.0)))
    lacks = {row["metric"]: row["lacks"] for row in reading.tables["declared, not in this log"]}
    assert lacks["click_through"] == "events of name click, column events.decision_id, decisions of kind item"
    assert lacks["feature_adoption"] == "events of name feature_use"
    told = {s.name.partition(",")[0] for s in reading.statements}
    from playbill.measure.experiments.metrics import declared

    assert told | set(lacks) == set(declared()) and not told & set(lacks)
    nothing = ask(write(assigned(arms), requests(arms, 0.0)), only=["feature_adoption"])
    assert nothing.statements == [] and nothing.verdict == "no effect could be told"


def test_people_whose_window_is_not_over_are_left_out_and_counted(write: Write) -> None:
    arms = halves()
    at = np.where(np.arange(PEOPLE) < 1000, START, START + 20 * DAY)
    tables = write(assigned(arms, at=at), requests(arms, 0.0))
    said = ask(tables, until="2026-03-25", only=["latency"]).statements[0]
    assert said.n == 1000
    assert "2,000 people left out: the log ends before their 14 days are over" in said.warnings
    early = ask(tables, until="2026-03-10", only=["latency"]).statements[0]
    assert early.estimate is None and "nobody was watched for 14 days" in early.refused
    assert ask(tables, until="2026-03-25", only=["latency"], window_days=4.0).statements[0].n == PEOPLE
    # without a word on it, the log ends with its last row: here the assignments of day 20
    assert ask(tables, until="", only=["latency"]).statements[0].n == 1000


def test_households_assigned_as_a_whole_need_errors_by_household(write: Write) -> None:
    draw = np.random.default_rng(8)
    home = np.repeat(np.arange(300), draw.integers(1, 8, 300))
    arms = np.where(home % 2, "fast", "control")
    spent = np.exp(draw.normal(2, 1, 300))[home]
    events = {"user_id": np.arange(len(home)), "event": "purchase", "at": START + DAY, "value": spent}
    tables = write(assigned(arms), events, {"user_id": np.arange(len(home)), "household": home.astype(float)})
    by_person = ask(tables, only=["revenue_per_visitor"]).tables["intent to treat"][0]
    reading = ask(tables, only=["revenue_per_visitor"], cluster="household")
    by_home = reading.tables["intent to treat"][0]
    assert by_home["difference"] == pytest.approx(by_person["difference"])
    assert by_home["standard_error"] > 1.7 * by_person["standard_error"]
    # the sample ratio is that of households, which were drawn: 150 each, while the people are not half and half
    assert [row["clusters"] for row in reading.tables["arms"]] == [150, 150]
    assert reading.tables["arms"][0]["sample_ratio_p"] == 1
    with pytest.raises(MeasureError, match=r"users.household: everybody assigned needs a cluster.*1 of .*row 3: 3"):
        ask(
            write(assigned(arms), events, {"user_id": np.delete(np.arange(len(home)), 3), "household": 1.0}),
            cluster="household",
        )


def test_a_reading_that_may_be_repeated_is_wider(write: Write) -> None:
    arms = halves()
    tables = write(assigned(arms), requests(arms, 5.0))
    once = ask(tables, only=["latency"]).statements[0]
    ever = ask(tables, only=["latency"], sequential=True, planned_people=2 * PEOPLE).statements[0]
    assert ever.estimate == once.estimate and ever.low < once.low < once.high < ever.high
    assert "always valid" in ever.method
    # nine to one, and 90 people in the smaller arm: its variance is not known yet, so no look may stop the test
    arms = np.where(np.arange(900) % 10, "control", "fast")
    decisions = assigned(arms, propensity=np.where(arms == "fast", 0.1, 0.9))
    early = ask(write(decisions, requests(arms, 50.0)), only=["latency"], sequential=True, planned_people=2000)
    assert early.tables["intent to treat"][0]["p"] == 1 and "0 of 1 effects found" in early.verdict
    assert (early.statements[0].low, early.statements[0].high) == (-np.inf, np.inf)
    assert any("90 people in an arm: a reading that may be repeated" in w for w in early.statements[0].warnings)
    assert early.tables["guardrails"][0]["outcome"] == "undecided"
    assert to_png(early).startswith(b"\x89PNG") and b'"low": null' in to_json(early)
    with pytest.raises(ConfigError, match="sequential=true needs planned_people"):
        ExperimentQuestion(sequential=True)


def test_false_discoveries_are_counted_over_metrics_and_arms(write: Write) -> None:
    draw = np.random.default_rng(9)
    arms = draw.permutation(np.array(["control", "a", "b", "c"])[np.arange(PEOPLE) % 4])
    buys = np.flatnonzero(draw.random(PEOPLE) < np.where(arms == "a", 0.35, 0.2))
    events = {"user_id": buys, "event": "purchase", "at": START + DAY, "value": draw.exponential(9, len(buys))}
    tables = write(assigned(arms), events)
    only = ["conversion", "revenue_per_visitor"]
    rows = ask(tables, only=only).tables["intent to treat"]
    assert [(r["metric"], r["arm"]) for r in rows] == [(m, a) for m in only for a in "abc"]
    from scipy.stats import false_discovery_control

    p = [r["p"] for r in rows]
    assert [r["q"] for r in rows] == pytest.approx(false_discovery_control(p))
    by = ask(tables, only=only, correction=Correction.by)
    assert [r["q"] for r in by.tables["intent to treat"]] == pytest.approx(false_discovery_control(p, method="by"))
    assert "2 of 6 effects found" in by.verdict and "conversion of a +0." in by.verdict


def test_visitors_without_a_name_are_assigned_by_session(write: Write) -> None:
    arms = halves()
    names = np.array([f"s{i}" for i in range(PEOPLE)], object)
    decisions = assigned(arms, session_id=names, user_id=np.full(PEOPLE, np.nan))
    events = {"session_id": names[:900], "user_id": np.full(900, np.nan), "event": "purchase", "at": START + DAY}
    said = ask(write(decisions, events), only=["conversion"], unit=Unit.session_id).statements[0]
    assert said.n == PEOPLE and said.details["arm"] == pytest.approx((arms[:900] == "fast").sum() / (PEOPLE / 2))
    with pytest.raises(MeasureError, match=r"decisions.user_id: everybody assigned needs an id.*3,000 of 3,000 rows"):
        ask(write(decisions, events))


def faulty(kind: str) -> dict[str, Any]:
    rows = assigned(halves(100))
    if kind == "twice":
        rows["user_id"][7], rows["chosen"][7] = rows["user_id"][3], rows["chosen"][3]
    elif kind == "both":
        rows["user_id"][7] = rows["user_id"][3]
        rows["chosen"][3], rows["chosen"][7] = "control", "fast"
    elif kind in ("zero", "missing", "above"):
        rows["propensity"] = np.full(100, 0.5)
        rows["propensity"][[2, 5]] = {"zero": 0.0, "missing": np.nan, "above": 1.5}[kind]
    elif kind == "changed":
        rows["propensity"] = np.where(np.arange(100) < 60, 0.5, 0.9)
    elif kind == "arm without people":
        rows["propensity"] = 1 / 3
    elif kind == "one arm":
        rows["chosen"] = np.full(100, "control")
    return rows


@pytest.mark.parametrize(
    ("kind", "question", "words"),
    [
        ("twice", {}, r"decisions.user_id: duplicate assignments.*2 of 100 rows break this, first row 3: 3, row 7: 3"),
        ("both", {}, r"decisions.user_id: one arm for each, and these are in two.*2 of 100 rows.*row 3: 3, row 7: 3"),
        (
            "zero",
            {},
            r"decisions.propensity: the planned share.*2 of 100 rows break this, first row 2: 0.0, row 5: 0.0",
        ),
        ("missing", {}, r"decisions.propensity: the planned share.*2 of 100 rows.*row 2: nothing, row 5: nothing"),
        ("above", {}, r"decisions.propensity: the planned share.*2 of 100 rows.*row 2: 1.5, row 5: 1.5"),
        ("changed", {}, r"decisions.propensity: one share for an arm.*100 of 100 rows.*row 0: 0.5"),
        ("arm without people", {}, r"decisions.propensity: the planned shares .* sum to 0.6667, not 1 .* has no users"),
        ("none", {"arms": ["control", "fast", "slow"]}, r"decisions.chosen: no users in arm slow; .*: control, fast"),
        ("none", {"arms": ["control"]}, r"arm fast is in the log and not among those named"),
        ("none", {"control": "contrl"}, r"no users in the control 'contrl'; nearest is 'control'; .*control, fast"),
        (
            "none",
            {"experiment": "pge"},
            r"decisions.request_id: no experiment 'pge'; nearest is 'page'; there are: page",
        ),
        ("one arm", {}, r"all 'control': an experiment has two arms or more"),
    ],
)
def test_a_broken_assignment_names_column_count_and_first_rows(
    write: Write, kind: str, question: dict[str, Any], words: str
) -> None:
    arms = halves(100)
    with pytest.raises(MeasureError, match=words):
        ask(write(faulty(kind), requests(arms, 0.0)), **question)


def test_values_that_are_not_numbers_are_refused(write: Write) -> None:
    arms = halves(100)
    events = requests(arms, 0.0)
    events["value"][[4, 9]] = np.nan
    with pytest.raises(MeasureError, match=r"events.value: .*2 of \d+ rows break this, first row 4: nothing, row 9"):
        ask(write(assigned(arms), events))
    events["value"][[4, 9]] = np.inf
    with pytest.raises(MeasureError, match=r"events.value: .*first row 4: inf, row 9: inf"):
        ask(write(assigned(arms), events))


def test_several_experiments_need_a_name(write: Write) -> None:
    arms = halves(200)
    decisions = assigned(arms[:100])
    two = {k: np.concatenate([np.broadcast_to(v, 100)] * 2) for k, v in decisions.items()}
    two["request_id"] = np.repeat(np.array(["page", "price"]), 100)
    tables = write(two, requests(arms[:100], 0.0))
    with pytest.raises(
        MeasureError, match="2 experiments in the log; choose one with question.experiment=NAME: page, "
    ):
        ask(tables)
    assert ask(tables, experiment="price", only=["latency"]).title == "Experiment price: fast against control"


def test_settings_refuse_what_cannot_be(write: Write) -> None:
    for given, words in (
        ({"shares": {"a": 0.5, "b": 0.6}}, "sum 1.1"),
        ({"shares": {"a": 0.0, "b": 1.0}}, "shares must lie in"),
        ({"pre_days": -1.0}, "pre_days must lie in"),
        ({"false_discovery_rate": 1.0}, "false_discovery_rate must lie between"),
        ({"control": ""}, "control must name"),
    ):
        with pytest.raises(ConfigError, match=words):
            ExperimentQuestion(**given)  # type: ignore[arg-type]  # wrong on purpose
    arms = halves(100)
    tables = write(assigned(arms), requests(arms, 0.0))
    with pytest.raises(ConfigError, match="question.until must be a time"):
        ask(tables, until="tomorrow")
    with pytest.raises(ConfigError, match=r"question.window_days=3: churn starts? counting after"):
        ask(tables, window_days=3.0)
    with pytest.raises(MeasureError, match=r"events.event: no 'seen', so nobody is known to be exposed"):
        ask(tables, exposure="seen")


def test_the_command_prints_and_writes_the_reading(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = halves()
    tables = write(assigned(arms), requests(arms, 30.0))
    line = ["measure", "question=experiment", f"tables={tables}", "question.experiment=page", f"home={tmp_path}"]
    assert cli.main([*line, "question.until='2026-04-30'"]) == 0
    out = capsys.readouterr().out
    assert "guardrails fail: latency of fast" in out and "latency, lift of fast over control" in out
    written = json.loads((tmp_path / "measure" / "shop-experiment" / "reading.json").read_text())
    assert written["tables"]["guardrails"][0]["outcome"] == "fail"
    assert (tmp_path / "measure" / "shop-experiment" / "reading.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main([*line, "question.control=contrl"]) == 1
    assert "nearest is 'control'" in capsys.readouterr().err
    assert cli.main([*line, "question.cluter=x"]) == 2
    assert "nearest is 'question.cluster'" in capsys.readouterr().err
