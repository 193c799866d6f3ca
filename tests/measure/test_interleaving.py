"""Team-draft interleaving: lists made by both rankers, fair to both, and what clicks on them say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from playbill.errors import ConfigError, MeasureError
from playbill.measure.interleaving.read import run
from playbill.measure.interleaving.settings import InterleavingQuestion, TeamColumn
from playbill.measure.interleaving.team_draft import (
    NOBODY,
    OURS,
    THEIRS,
    coin,
    interleave,
    preference,
    winners,
)
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import to_text
from playbill.tables.folder import write_folder
from playbill.tables.schema import CONTRACT, arrow_type

FEW = settings(max_examples=50, deadline=None)
LISTS = st.lists(st.integers(0, 12), max_size=10, unique=True)


@FEW
@given(ours=LISTS, theirs=LISTS, k=st.integers(1, 12), seed=st.integers(0, 5), request_id=st.text(max_size=4))
def test_a_list_is_a_team_draft(ours: list[int], theirs: list[int], k: int, seed: int, request_id: str) -> None:
    if not ours and not theirs:
        return
    made = interleave(ours, theirs, k, seed=seed, request_id=request_id)
    items, teams = made.items, made.teams
    assert len(items) == len(teams) == min(k, len(set(ours) | set(theirs))) and len(set(items)) == len(items)
    for place, (item, team) in enumerate(zip(items, teams, strict=True)):
        if team == NOBODY:
            # one of the two has nothing left to place, so nobody competes any more
            assert not set(ours) - set(items[:place]) or not set(theirs) - set(items[:place])
            assert set(teams[place:]) == {NOBODY}
            continue
        ranker = (ours, theirs)[team]
        assert item == next(i for i in ranker if i not in items[:place]), "not its best item left"
        placed = teams[: place + 1]
        assert abs(placed.count(OURS) - placed.count(THEIRS)) <= 1
    shorter = interleave(ours, theirs, max(1, k - 3), seed=seed, request_id=request_id)
    assert shorter.items == items[: len(shorter.items)] and shorter.teams == teams[: len(shorter.teams)]


def test_by_hand() -> None:
    """The example of the paper's algorithm: who wins the coin places its best, the other its best of the rest."""
    ours, theirs = ["a", "b", "c", "d"], ["b", "e", "a", "f"]
    first = {coin(0, r, 0): r for r in range(20)}
    made = interleave(ours, theirs, 2, seed=0, request_id=first[OURS])
    assert (made.items, made.teams) == (["a", "b"], [OURS, THEIRS])
    made = interleave(ours, theirs, 2, seed=0, request_id=first[THEIRS])
    assert (made.items, made.teams) == (["b", "a"], [THEIRS, OURS])


@pytest.mark.parametrize("ids", [range(4000), [f"r{i}" for i in range(4000)]])
def test_the_coin_is_fair_and_rounds_are_independent(ids: range | list[str]) -> None:
    tossed = np.array([[coin(7, r, turn) for turn in range(3)] for r in ids])
    assert all(binomtest(int(n), len(tossed)).pvalue > 0.001 for n in tossed.sum(0))
    assert np.abs(np.corrcoef(tossed.T)[np.triu_indices(3, 1)]).max() < 4 / np.sqrt(len(tossed))
    assert (tossed[:, 0] != [coin(8, r, 0) for r in ids]).mean() == pytest.approx(0.5, abs=0.04)


def visits(
    people: int, ours_noise: float, theirs_noise: float, seed: int, lists_each: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Return person and winner of each list: people click what they like, less the lower it stands."""
    draw = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), lists_each)
    credit = np.zeros((len(person), 2), np.int64)
    for row in range(len(person)):
        liking = draw.normal(size=20)
        ours, theirs = (np.argsort(-(liking + noise * draw.normal(size=20))) for noise in (ours_noise, theirs_noise))
        made = interleave(ours.tolist(), theirs.tolist(), 6, seed=seed, request_id=row)
        chance = 0.6 / (1 + np.exp(-liking[made.items])) * 0.8 ** np.arange(6)
        clicked = draw.random(6) < chance
        credit[row] = [(clicked & (np.array(made.teams) == team)).sum() for team in (OURS, THEIRS)]
    return person, winners(credit[:, 0], credit[:, 1])


def test_equal_rankers_are_called_different_no_more_often_than_chance() -> None:
    """Unbiased: over 60 experiments with two rankers of one kind, the mean preference is 0 and few tests are fooled."""
    found = [preference(*visits(60, 1.0, 1.0, seed), resamples=200) for seed in range(60)]
    delta = np.array([f.delta for f in found])
    assert abs(delta.mean()) < 3.5 * delta.std() / np.sqrt(len(delta))
    assert binomtest(sum(f.p_value < 0.05 for f in found), len(found), 0.05, alternative="greater").pvalue > 0.001
    assert sum(f.low <= 0 <= f.high for f in found) >= 50  # 57 expected


def test_the_better_ranker_wins() -> None:
    found = preference(*visits(250, 0.3, 3.0, seed=1))
    assert found.p_value < 0.01 and found.low > 0 and found.people_ours > found.people_theirs
    mirrored = preference(*visits(250, 3.0, 0.3, seed=1))
    assert mirrored.high < 0


def test_a_preference_by_hand() -> None:
    """Three people: 2 wins and a tie, 1 loss, 1 win and 1 loss; (3 + 0.5) / 6 - 0.5 = 1/12."""
    person, winner = np.array([0, 0, 0, 1, 2, 2]), winners([2, 1, 0, 0, 3, 0], [0, 0, 0, 1, 1, 1])
    found = preference(person, winner, resamples=100)
    assert winner.tolist() == [1, 1, 0, -1, 1, -1]
    assert found.delta == pytest.approx(1 / 12)
    assert (found.won, found.lost, found.tied) == (3, 2, 1)
    assert (found.people_ours, found.people_theirs, found.share, found.p_value) == (1, 1, 0.5, 1.0)


def write(folder: Path, decisions: list[dict[str, Any]], events: list[dict[str, Any]]) -> Path:
    """Write the two tables, people and items with int64 ids, the rest strings."""
    tables, columns = {}, {}
    for name, rows in (("decisions", decisions), ("events", events)):
        columns[name] = [c for c in CONTRACT[name] if any(c.name in row for row in rows)]
        ids = {"user_id": pa.int64()}
        tables[name] = pa.table(
            {
                c.name: pa.array([r.get(c.name) for r in rows], arrow_type(c.kind, ids.get(c.name, pa.string())))
                for c in columns[name]
            }
        )
    write_folder(folder, tables, source="test", columns=columns)
    return folder


def log(people: int = 40) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Two lists a person of 4 places each; people click whatever the tower placed, and the first place of the rest."""
    at = datetime(2026, 3, 1, tzinfo=UTC)
    decisions, events = [], []
    for request in range(2 * people):
        made = interleave([f"a{i}" for i in range(4)], [f"b{i}" for i in range(4)], 4, seed=0, request_id=request)
        for position, (item, team) in enumerate(zip(made.items, made.teams, strict=True)):
            placed = {
                "decision_id": f"{request}/{position}", "request_id": str(request), "kind": "item", "chosen": item,
                "at": at, "user_id": request // 2, "position": position, "arm": ("tower", "item_knn")[team],
            }  # fmt: skip
            decisions.append(placed)
            if team == OURS or position == 0:
                click = {"event": "click", "at": at, "user_id": request // 2, "decision_id": placed["decision_id"]}
                events += [click | {"event_id": f"{request}/{position}/{n}"} for n in range(1 + position)]
    return decisions, events


def read(folder: Path, **fields: Any) -> Any:
    return run(InterleavingQuestion(**fields), folder, MeasureSettings())


def test_a_log_is_read(tmp_path: Path) -> None:
    decisions, events = log()
    alone = {
        "decision_id": "x",
        "request_id": "alone",
        "kind": "item",
        "chosen": "a0",
        "at": decisions[0]["at"],
        "position": 0,
        "arm": "tower",
    }
    events.append({"event_id": "e", "event": "click", "at": decisions[0]["at"], "decision_id": "elsewhere"})
    folder = write(tmp_path, [*decisions, alone], events)
    reading = read(folder, ours="tower")
    wins, prefer = reading.statements
    # the tower has 2 clicks a list, the other 1 or 0: every list is won, however often one item was clicked
    assert (wins.estimate, wins.low, wins.high, wins.n) == (0.5, 0.5, 0.5, 40) and wins.randomised
    assert prefer.estimate == 1 and prefer.details["p_value"] == pytest.approx(2**-39)
    first = [row["first_places"] for row in reading.tables["rankers"]]
    assert sum(first) == 80 and binomtest(first[0], 80).pvalue > 0.001
    assert [row["credited"] for row in reading.tables["rankers"]] == [160, first[1]]
    text = to_text(reading)
    assert "People prefer tower to item_knn" in text and "lift" not in text
    assert "1 lists hold items of one" in text and "1 clicked decisions are not among" in text
    assert read(folder).statements[0].name == "preference for item_knn over tower"
    assert read(folder).statements[0].estimate == -0.5


def test_the_policy_column_serves_too(tmp_path: Path) -> None:
    decisions, events = log(5)
    decisions = [{("policy" if k == "arm" else k): v for k, v in d.items()} for d in decisions]
    folder = write(tmp_path, decisions, events)
    assert read(folder, ours="tower", team_column=TeamColumn.policy).statements[0].estimate == 0.5


def test_sessions_and_requests_are_not_called_people(tmp_path: Path) -> None:
    decisions, events = log()
    named = [d if d["user_id"] < 30 else d | {"user_id": None, "session_id": f"s{d['user_id']}"} for d in decisions]
    reading = read(write(tmp_path / "sessions", named, events), ours="tower")
    assert [(s.n, s.of) for s in reading.statements] == [
        (40, "people or sessions"),
        (40, "people or sessions with a preference"),
    ]
    assert reading.warnings[0].startswith("counted are 30 people and 10 sessions: who comes back without signing in")
    assert "80 lists of 40 people or sessions" in reading.title
    nameless = [{k: v for k, v in d.items() if k != "user_id"} for d in decisions]
    reading = read(write(tmp_path / "nameless", nameless, events), ours="tower")
    assert (reading.statements[0].n, reading.statements[0].of) == (80, "requests")
    assert reading.warnings[0].startswith("counted are 80 requests: ") and "people," not in reading.verdict


def test_a_click_before_its_decision_earns_nothing(tmp_path: Path) -> None:
    """Every tower's click made early but those on first places, which earn credit by a second click in time."""
    decisions, events = log()
    early = [e | {"at": e["at"] - timedelta(seconds=1), "event_id": f"early {e['event_id']}"} for e in events]
    first = [e for e in events if e["decision_id"].endswith("/0")]
    reading = read(write(tmp_path, decisions, early + first), ours="tower")
    assert f"{len(early)} clicks are left out: they come before the decision" in " ".join(reading.warnings)
    credited, places = ([row[key] for row in reading.tables["rankers"]] for key in ("credited", "first_places"))
    assert credited == places and sum(places) == 80
    assert not any("left out: they come before" in w for w in read(write(tmp_path / "b", decisions, events)).warnings)


def test_a_broken_coin_is_seen(tmp_path: Path) -> None:
    decisions, events = log()
    for d in decisions:
        d["arm"] = ("tower", "item_knn")[d["position"] % 2]
    reading = read(write(tmp_path, decisions, events), ours="tower")
    assert not reading.statements[0].randomised and "too often for a fair coin" in reading.warnings[0]


def test_bad_logs_are_refused(tmp_path: Path) -> None:
    decisions, events = log(3)
    cases: list[tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any], str]] = [
        (decisions, events, {"ours": "towr"}, "decisions.arm: no ranker 'towr'; nearest is 'tower'"),
        (decisions, events, {"event": "klick"}, "events.event: no 'klick'; there are: click"),
        (decisions, events, {"kind": "shelf"}, "decisions.kind: no 'shelf'; there are: item"),
        (decisions + decisions[:2], events, {}, "decisions.position: .* 4 of 26 rows break this, first row 0: 0.0"),
        (
            [*decisions, decisions[0] | {"arm": "third", "position": 9, "decision_id": "y"}],
            events,
            {},
            "3 rankers in the log",
        ),
        ([d | {"arm": "tower"} for d in decisions], events, {"ours": "tower"}, "1 rankers in the log"),
        (decisions, [e | {"decision_id": None} for e in events], {}, "no column decision_id|empty in all"),
        (
            [d | {"position": None} for d in decisions[:1]] + decisions[1:],
            events,
            {},
            "decisions.position: a placement",
        ),
        (
            [decisions[1] | {"decision_id": decisions[0]["decision_id"]}, decisions[0]],
            events,
            {},
            "decisions.decision_id",
        ),
        ([d | {"request_id": d["decision_id"]} for d in decisions], events, {}, "no list holds items of both"),
    ]
    for i, (chosen, happened, fields, says) in enumerate(cases):
        with pytest.raises(MeasureError, match=says):
            read(write(tmp_path / str(i), chosen, happened), **fields)


def test_bad_arguments_are_refused() -> None:
    for ours, k in (([], 3), (["a"], 0)):
        with pytest.raises(MeasureError, match="k must be >= 1 and one list must hold items"):
            interleave(ours, [], k, seed=0, request_id=1)
    with pytest.raises(MeasureError, match="no lists"):
        preference(np.zeros(0, int), np.zeros(0, int))
    for fields in ({"ours": "a", "theirs": "a"}, {"resamples": 10}, {"event": ""}):
        with pytest.raises(ConfigError):
            InterleavingQuestion(**fields)
