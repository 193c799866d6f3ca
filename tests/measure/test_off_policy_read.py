"""From tables to a reading: rewards and their windows, target policies, features, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from playbill.errors import ConfigError, MeasureError
from playbill.measure.off_policy.read import run
from playbill.measure.off_policy.rounds import read_rounds
from playbill.measure.off_policy.settings import Model, OffPolicyQuestion, RewardOf, SlatePropensities, Unit
from playbill.measure.off_policy.targets import log_of
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Reading, to_json
from playbill.tables.folder import write_folder
from playbill.tables.schema import Column, EventKind, Kind

HOUR_US = 3_600_000_000
KINDS = {"kind": Kind.TEXT, "event": Kind.TEXT, "policy": Kind.TEXT, "context": Kind.TEXT, "at": Kind.TIME}
KINDS |= {"position": Kind.NUMBER, "propensity": Kind.NUMBER, "value": Kind.NUMBER, "eligible_count": Kind.NUMBER}
KINDS |= {"plan": Kind.TEXT, "age": Kind.NUMBER, "group": Kind.TEXT}


@pytest.fixture
def tables_of(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes decisions, events and users given as rows; `at` is in hours."""

    def write(decisions: list[dict[str, Any]], events: list[dict[str, Any]], users: Any = None) -> Path:
        given = {"decisions": decisions, "events": events, "users": users or [{"user_id": 1}]}
        tables, columns = {}, {}
        for name, rows in given.items():
            table = pa.Table.from_pylist(rows)
            if "at" in table.column_names:
                at = pa.array(np.round(np.array(table["at"].to_pylist()) * HOUR_US).astype(np.int64))
                index = table.column_names.index("at")
                table = table.set_column(index, "at", at.cast(pa.timestamp("us", tz="UTC")))
            tables[name] = table
            columns[name] = [
                Column(name=c, kind=KINDS.get(c, Kind.ID), protected=c == "group") for c in table.column_names
            ]
        write_folder(tmp_path / "tables", tables, source="test", columns=columns, events=[EventKind(name="click")])
        return tmp_path / "tables"

    return write


def decision(number: int, chosen: str, propensity: float | None, **more: Any) -> dict[str, Any]:
    base = {"decision_id": number, "request_id": number, "kind": "item", "chosen": chosen, "at": 0.0, "user_id": number}
    return (
        base | {"position": 0.0, "propensity": propensity, "policy": "p", "eligible_count": 2.0, "context": None} | more
    )


def event(number: int, of: int | None, at: float, name: str = "click", value: float | None = None) -> dict[str, Any]:
    return {"event_id": number, "user_id": of or 0, "event": name, "at": at, "decision_id": of, "value": value}


def question(**changed: Any) -> OffPolicyQuestion:
    return OffPolicyQuestion(**{"within_h": 10.0, "resamples": 200, "least_effective": 1.0} | changed)


def test_rewards_follow_their_decision_within_the_window(tables_of: Callable[..., Path]) -> None:
    tables = tables_of(
        [*(decision(n, "a", 0.5, at=float(n)) for n in (1, 2, 3, 4)), decision(5, "x", None, kind="creative", at=9.0)],
        [
            event(1, 1, 1.0, value=2.0),  # at once
            event(2, 1, 9.0, value=4.0),  # again
            event(3, 2, 12.5),  # half an hour too late
            event(4, 3, 2.5),  # before the decision
            event(5, 4, 9.0, "play", 0.5),  # another event
            event(6, None, 4.0),  # of no decision
            event(7, 5, 9.5),  # of a decision of another kind
            event(8, None, 13.0, "visit"),  # the log ends here: decision 4 at hour 4 has had 9 hours of 10
        ],
    )
    found = read_rounds(tables, question())
    assert found.decision_id.to_list() == [1, 2, 3]
    assert found.reward.tolist() == [1, 0, 0]
    assert found.notes == [
        "1 of 4 decisions of the last 10 hours are left out: their events may still come",
        "1 click events come before their decision and were not counted",
    ]
    assert read_rounds(tables, question(reward=RewardOf.COUNT, reward_high=9)).reward.tolist() == [2, 0, 0]
    assert read_rounds(tables, question(within_h=0)).reward.tolist() == [1, 1, 0, 0]
    played = read_rounds(tables, question(reward_event="play", reward=RewardOf.SUM, within_h=0, reward_high=1))
    assert played.reward.tolist() == [0, 0, 0, 0.5] and (played.reward_low, played.reward_high) == (0, 1)
    assert read_rounds(tables, question(reward=RewardOf.COUNT)).reward_high == np.inf
    assert read_rounds(tables, question(kind="item", policy="p")).reward.tolist() == [1, 0, 0]


def test_units_are_people_else_sessions_else_requests(tables_of: Callable[..., Path]) -> None:
    rows = [
        decision(1, "a", 0.5, user_id=7, session_id=70, request_id=1),
        decision(2, "a", 0.5, user_id=7, session_id=71, request_id=2),
        decision(3, "b", 0.5, user_id=None, session_id=7, request_id=3),
        decision(4, "b", 0.5, user_id=None, session_id=7, request_id=3, position=1.0),
    ]
    tables = tables_of(rows, [event(1, 1, 1.0)])
    people = read_rounds(tables, question(within_h=0))
    assert people.unit[0] == people.unit[1] != people.unit[2] == people.unit[3] and people.units_are == "people"
    assert len(set(read_rounds(tables, question(within_h=0, unit=Unit.REQUEST)).unit)) == 3
    assert len(set(read_rounds(tables, question(within_h=0, unit=Unit.DECISION)).unit)) == 4
    assert people.position.tolist() == [0, 0, 0, 1]


def test_an_event_that_names_the_item_is_the_reward_of_its_artwork_too(tables_of: Callable[..., Path]) -> None:
    rows = [
        decision(1, "a", 0.5, request_id=1, position=0.0),
        decision(2, "b", 0.5, request_id=1, position=1.0),
        decision(3, "art of a", 0.5, request_id=1, position=0.0, kind="creative"),
        decision(4, "art of b", 0.5, request_id=1, position=1.0, kind="creative"),
        decision(5, "7 h", 0.5, request_id=2, position=None, kind="send_hour"),
        decision(6, "hello", 0.5, request_id=2, position=None, kind="subject"),
    ]
    tables = tables_of(rows, [event(1, 2, 1.0), event(2, 4, 2.0), event(3, 6, 1.0, "open"), event(4, 9, 1.0)])
    creative = read_rounds(tables, question(within_h=0, kind="creative", reward=RewardOf.COUNT))
    assert creative.reward.tolist() == [0, 2]  # one through the item, one named itself
    hours = read_rounds(tables, question(within_h=0, kind="send_hour", reward_event="open"))
    assert hours.reward.tolist() == [1]
    with pytest.raises(MeasureError, match=r"none of the open events that name a decision \(1\).*they name .* subject"):
        read_rounds(tables, question(within_h=0, kind="item", reward_event="open"))
    # two artworks at one place: an event that names the item is of neither, and the other places keep theirs
    both = [decision(7, "other art of a", 0.5, request_id=1, position=0.0, kind="creative")]
    tables = tables_of([*rows, *both], [event(1, 1, 1.0), event(2, 2, 1.0), event(3, 7, 1.0)])
    found = read_rounds(tables, question(within_h=0, kind="creative"))
    assert found.reward.tolist() == [0, 1, 1]
    assert any("1 click events name a decision of another kind at one of 1 places" in note for note in found.notes)
    # without positions nobody knows which of a slate's artworks was meant
    blurred = tables_of([row | {"position": None} for row in rows], [event(1, 2, 1.0), event(2, 4, 1.0)])
    assert read_rounds(blurred, question(within_h=0, kind="creative")).reward.tolist() == [0, 1]


def listed(*eligible: Any, **more: Any) -> str:
    return json.dumps({"eligible": list(eligible), **more})


def test_built_in_targets(tables_of: Callable[..., Path]) -> None:
    tables = tables_of(
        [
            decision(1, "a", 0.5, eligible_count=4.0, context=listed("a", "b", "c", "d")),
            decision(2, "2", 0.25, context=listed(1, 2, propensities=[0.75, 0.25])),
        ],
        [event(1, 1, 1.0)],
    )
    rounds = read_rounds(tables, question(within_h=0))
    uniform = log_of(rounds, question())
    assert uniform.target.tolist() == [0.25, 0.5]
    assert uniform.choices is not None and uniform.choices.logging is None  # one decision lacks its propensities
    assert log_of(rounds, question(target="logged")).weight().tolist() == [1, 1]
    every = read_rounds(tables, question(within_h=0, every_action_eligible=True))
    assert every.actions == ["a", "2"] and every.eligible is not None
    assert log_of(every, question()).target.tolist() == [0.5, 0.5]


def test_popularity_and_greedy_learn_on_the_other_half(tables_of: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    n = 2000
    chosen, clicked = rng.integers(3, size=n), rng.random(n)
    rate = np.array([0.1, 0.2, 0.6])
    rows = [
        decision(i + 1, "abc"[chosen[i]], 1 / 3, user_id=i, context=listed("a", "b", "c", propensities=[1 / 3] * 3))
        for i in range(n)
    ]
    tables = tables_of(rows, [event(i, i + 1, 1.0) for i in range(n) if clicked[i] < rate[chosen[i]]])
    rounds = read_rounds(tables, question(within_h=0))
    greedy = log_of(rounds, question(target="greedy", greedy_epsilon=0.3))
    by_name = {name: greedy.target[chosen == k].mean() for k, name in enumerate("abc")}
    assert by_name == pytest.approx({"a": 0.1, "b": 0.1, "c": 0.8})
    popular = log_of(rounds, question(target="popularity"))
    # as often as clicks: 0.1 : 0.2 : 0.6, from about 330 rounds each
    assert popular.target[chosen == 2].mean() == pytest.approx(6 / 9, abs=0.05)
    assert len(np.unique(popular.target[chosen == 2])) == 2  # one policy a half
    reading = run(question(within_h=0, target="greedy", greedy_epsilon=0.3), tables, MeasureSettings())
    values = figures(reading)
    assert values["value of greedy, DR"] == pytest.approx(0.8 * 0.6 + 0.1 * 0.3, abs=0.08)
    assert "better" in reading.verdict
    # learned and judged on the same rewards, pure noise looks like skill; here it does not
    noise = read_rounds(tables, question(within_h=0))
    means = []
    for seed in range(40):
        noise.reward = (np.random.default_rng(seed).random(n) < 0.1).astype(float)
        noise.action = np.random.default_rng([seed, 1]).integers(3, size=n)
        log = log_of(noise_listed(noise), question(target="greedy", greedy_epsilon=0.0), seed=seed)
        means.append(float((log.weight() * log.reward).mean()))
    assert np.mean(means) == pytest.approx(0.1, abs=3 * np.std(means) / np.sqrt(40))


def noise_listed(rounds: Any) -> Any:
    assert rounds.eligible is not None
    rounds.eligible.action = np.tile(np.arange(3), len(rounds.reward))
    return rounds


def figures(reading: Reading) -> dict[str, float | None]:
    return {s.name: s.estimate for s in reading.statements}


def write_target(path: Path, **columns: Any) -> Path:
    pl.DataFrame(columns).write_parquet(path)
    return path


def test_a_target_from_a_file_by_hand(tables_of: Callable[..., Path], tmp_path: Path) -> None:
    rows = [decision(n, "ab"[n % 2], 0.5) for n in range(1, 5)]
    tables = tables_of(rows, [event(1, 1, 1.0), event(2, 2, 1.0)])
    # decisions 1 and 3 chose b, 2 and 4 chose a; weights 1.6, 0.4, 1.6, 0.4, rewards 1, 1, 0, 0
    target = write_target(tmp_path / "new.parquet", decision_id=[4, 3, 2, 1], probability=[0.2, 0.8, 0.2, 0.8])
    reading = run(question(target=str(target), within_h=0), tables, MeasureSettings())
    values = figures(reading)
    assert values["value of new, IPS"] == pytest.approx((1.6 + 0.4) / 4)
    assert values["value of new, SNIPS"] == pytest.approx(2.0 / 4.0)
    assert values["value of the logging policy"] == 0.5
    assert values["value of new, DR"] is None  # needs the other actions' probabilities too
    full = write_target(
        tmp_path / "full.parquet",
        decision_id=[1, 2, 3, 4],
        probability=[0.8, 0.2, 0.8, 0.2],
        actions=[["a", "b"]] * 4,
        probabilities=[[0.2, 0.8]] * 4,
        logging=[[0.5, 0.5]] * 4,
    )
    asked = question(target=str(full), within_h=0, model=Model.MEANS, folds=4)
    reading = run(asked, tables, MeasureSettings())
    # folds of one: each is predicted by the three others, drawn to their mean by ten rounds
    # 1: others a: 1, 0 b: 0, mean 1/3: q(a) = (1 + 10/3) / 12, q(b) = (10/3) / 11
    others = {1: (1 / 3, 1, 2, 0, 1), 2: (1 / 3, 0, 1, 1, 2), 3: (2 / 3, 1, 2, 1, 1), 4: (2 / 3, 1, 1, 1, 2)}
    terms = []
    for number, (mean, won_a, of_a, won_b, of_b) in others.items():
        q = {"a": (won_a + 10 * mean) / (of_a + 10), "b": (won_b + 10 * mean) / (of_b + 10)}
        own, weight, reward = ("b", 1.6, float(number == 1)) if number % 2 else ("a", 0.4, float(number == 2))
        terms.append(0.2 * q["a"] + 0.8 * q["b"] + weight * (reward - q[own]))
    assert figures(reading)["value of full, DR"] == pytest.approx(np.mean(terms))


def test_slates_stand_beside_single_positions(tables_of: Callable[..., Path]) -> None:
    rng = np.random.default_rng(1)
    rows, events = [], []
    for i in range(600):
        for k in range(2):
            number, chosen = 2 * i + k, rng.integers(2)
            lists = listed(f"a{k}", f"b{k}", propensities=[0.5, 0.5])
            rows.append(
                decision(
                    number, "ab"[chosen] + str(k), 0.5, request_id=i, user_id=i // 2, position=float(k), context=lists
                )
            )
            if rng.random() < 0.2 + 0.3 * chosen:
                events.append(event(number, number, 1.0))
    tables = tables_of(rows, events)
    declared = SlatePropensities.INDEPENDENT
    asked = question(
        within_h=0, target="uniform", least_effective=50.0, model=Model.LIGHTGBM, slate_propensities=declared
    )
    reading = run(asked, tables, MeasureSettings())
    values = figures(reading)
    assert values["value of uniform's slate, independent"] == pytest.approx(2 * (values["value of uniform, IPS"] or 0))
    assert values["value of uniform's slate, cascade"] == pytest.approx(values["value of uniform's slate, independent"])
    assert {row["position"] for row in reading.tables["by position"]} == {0, 1}
    independent = next(s for s in reading.statements if s.name == "value of uniform's slate, independent")
    assert independent.unit == "click rate per slate" and independent.n == 300
    assert any("depends on the action at that position alone" in a for a in independent.assumptions)
    no_slates = run(question(within_h=0, slates=False), tables, MeasureSettings())
    assert not any("slate" in s.name for s in no_slates.statements)


def test_models_see_declared_features_and_never_protected_ones(tables_of: Callable[..., Path]) -> None:
    users = [{"user_id": n, "plan": "ab"[n % 2], "age": float(n) if n > 2 else None, "group": "x"} for n in range(1, 7)]
    rows = [decision(n, "a", 0.5, context=json.dumps({"hour": n, "device": "tv"})) for n in range(1, 7)]
    tables = tables_of(rows, [event(1, 1, 1.0)], users)
    names = ["plan", "age", "context.hour", "context.device"]
    found = read_rounds(tables, question(within_h=0, features=names)).features
    assert found is not None and found.shape == (6, 5)
    assert sorted(found[:, :2].sum(0).tolist()) == [3, 3]
    assert found[:, 2].tolist() == [4.5, 4.5, 3, 4, 5, 6]  # the mean of the known where it is missing
    assert found[:, 3].tolist() == [1, 2, 3, 4, 5, 6] and found[:, 4].tolist() == [1] * 6
    with pytest.raises(MeasureError, match=r"users\.group may not be a model's input"):
        read_rounds(tables, question(within_h=0, features=["group"]))
    with pytest.raises(MeasureError, match="decisions.context: no row has 'weather'"):
        read_rounds(tables, question(within_h=0, features=["context.weather"]))


def good() -> list[dict[str, Any]]:
    return [decision(n, "ab"[n % 2], 0.5) for n in range(1, 5)]


@pytest.mark.parametrize(
    ("rows", "asked", "says"),
    [
        ([*good(), decision(5, "a", None)], {}, r"decisions\.propensity: .*\(0, 1\].*1 of 5 rows.*row 4: .*nan"),
        ([*good(), decision(5, "a", 0.0)], {}, r"decisions\.propensity: .*1 of 5 rows.*row 4: .*0\.0"),
        ([*good(), decision(5, "a", 1.01)], {}, r"decisions\.propensity: .*1 of 5 rows.*row 4: .*1\.01"),
        ([*good(), decision(4, "a", 0.5)], {}, r"decisions\.decision_id: .*stands once; 2 of 5 rows.*row 3: .*4"),
        (good(), {"kind": "offer"}, r"decisions\.kind: no decision of kind offer; there are: item"),
        (good(), {"policy": "q"}, r"decisions\.policy: no decision by 'q'; there are: p"),
        (good(), {"reward_event": "open"}, r"events\.event: no event 'open'; there are: click, play"),
        (good(), {"reward": RewardOf.SUM, "reward_event": "play"}, r"events\.value: .*1 of 2 rows.*row 1: .*nan"),
        (good(), {"within_h": 10.0}, r"decisions\.at: no decision lies 10 hours before the end of the log"),
        (good(), {"target": "greedy"}, "needs the eligible actions of every decision"),
        ([*good(), decision(5, "a", 0.5, eligible_count=0.0)], {}, r"decisions\.eligible_count: .*1 of 5 rows"),
        ([decision(1, "c", 0.5, context=listed("a", "b"))], {}, r"decisions\.context: .*once.*1 of 1 rows.*row 0: 'c'"),
        ([decision(1, "a", 0.5, context="{")], {}, r"decisions\.context: row 0 is not a json object"),
        (
            [decision(1, "a", 0.5, context=listed("a", "b", propensities=[1.0]))],
            {},
            r"decisions\.context: row 0 has 1 propensities for 2 eligible actions",
        ),
        (
            [decision(1, "a", 0.5, context=listed("a", "b", propensities=[0.5, 0.6]))],
            {},
            r"decisions\.context: the propensities of a decision must sum to 1; 1 of 1 rows.*1\.1",
        ),
    ],
)
def test_bad_tables(tables_of: Callable[..., Path], rows: list[dict[str, Any]], asked: Any, says: str) -> None:
    tables = tables_of(rows, [event(1, 1, 1.0), event(2, 2, 1.0, "play")])
    with pytest.raises(MeasureError, match=says):
        run(question(**{"within_h": 0.0} | asked), tables, MeasureSettings())


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"decision_id": [1, 2, 3]}, "has no column probability; it has: decision_id"),
        (
            {"decision_id": [1, 2, 3], "probability": [0.5] * 3},
            r"decisions\.decision_id: .*no probability.*1 of 4 rows",
        ),
        ({"decision_id": [1, 2, 3, 3], "probability": [0.5] * 4}, r"decision_id: .*stands once; 2 of 4 rows"),
        (
            {"decision_id": [1, 2, 3, 4], "probability": [0.5, 1.5, None, 0.5]},
            r"probability: .*2 of 4 rows.*row 1: .*1\.5",
        ),
        ({"decision_id": ["1"], "probability": [0.5]}, "is String, decisions.decision_id is Int64"),
        (
            {
                "decision_id": [1, 2, 3, 4],
                "probability": [0.5] * 4,
                "actions": [["a", "b"]] * 4,
                "probabilities": [[0.5, 0.5]] * 3 + [[0.5, 0.4]],
            },
            r"choices\.target: a round's probabilities must sum to 1; 1 of 4 rows.*row 3: .*0\.9",
        ),
        (
            {
                "decision_id": [1, 2, 3, 4],
                "probability": [0.5] * 4,
                "actions": [["a", "b"]] * 4,
                "probabilities": [[0.5, 0.5]] * 3 + [[1.0]],
            },
            r"probabilities: .*lists of one length; 1 of 4 rows.*row 3",
        ),
        (
            {
                "decision_id": [1, 2, 3, 4],
                "probability": [0.5] * 4,
                "actions": [["a", "c"]] * 4,
                "probabilities": [[0.5, 0.5]] * 4,
            },
            r"new\.parquet\.actions: the chosen action must stand once.*2 of 4 rows.*row 0: 'b'",
        ),
    ],
)
def test_bad_targets(tables_of: Callable[..., Path], tmp_path: Path, columns: Any, says: str) -> None:
    tables = tables_of(good(), [event(1, 1, 1.0)])
    target = write_target(tmp_path / "new.parquet", **columns)
    with pytest.raises(MeasureError, match=says):
        run(question(target=str(target), within_h=0), tables, MeasureSettings())
    with pytest.raises(MeasureError, match="no target at .*other.parquet"):
        run(question(target=str(tmp_path / "other.parquet"), within_h=0), tables, MeasureSettings())


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"target": "best"}, "target must be one of logged, uniform, popularity, greedy or the path"),
        ({"kind": "items"}, "kind must be one of item, .*got 'items'"),
        ({"greedy_epsilon": 1.5}, r"greedy_epsilon must lie in 0\.\.1, got 1\.5"),
        ({"clip": -1.0}, r"clip must be a number from 0 to 1e9, got -1\.0"),
        ({"reward": RewardOf.SUM, "reward_low": 2.0, "reward_high": 1.0}, "reward_high must exceed reward_low"),
        ({"reward_high": 5.0}, "reward=ANY lies in 0..1"),
        ({"folds": 1}, "folds must be >= 2"),
    ],
)
def test_bad_settings(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        question(**changed)


def test_a_reading_is_json_too(tables_of: Callable[..., Path]) -> None:
    tables = tables_of(good(), [event(1, 1, 1.0)])
    decoded = json.loads(to_json(run(question(within_h=0), tables, MeasureSettings())))
    assert decoded["statements"][0]["estimate"] == 0.25
    assert "overlap" in decoded["tables"]
