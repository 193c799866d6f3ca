"""What a reading of lists says beside its figures, and the lists that it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from playbill.errors import ConfigError, MeasureError
from playbill.measure.lists.read import run
from playbill.measure.lists.settings import Per, RankingQuestion
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Reading, Statement
from playbill.tables.folder import write_folder
from playbill.tables.schema import Column, Kind

K = 4


def ask(folder: Path, **fields: Any) -> Reading:
    return run(RankingQuestion(**({"ks": [K], "resamples": 200} | fields)), folder, MeasureSettings())


def named(reading: Reading) -> dict[str, Statement]:
    return {s.name: s for s in reading.statements}


def served(folder: Path, answers: int) -> Path:
    """Write 20 people's lists of i0..i3; `answers` of them play i0 from it, all find and play i3; 5 are sessions."""
    time = pa.timestamp("us", tz="UTC")
    people = [n if n < 15 else None for n in range(20)]
    sessions = [None if n < 15 else f"s{n}" for n in range(20)]
    decisions = pa.table(
        {
            "decision_id": [f"{n}/{p}" for n in range(20) for p in range(4)],
            "request_id": [f"r{n}" for n in range(20) for _ in range(4)],
            "kind": ["item"] * 80,
            "chosen": [f"i{p}" for _ in range(20) for p in range(4)],
            "at": pa.array([0] * 80, time),
            "user_id": pa.array([n for n in people for _ in range(4)], pa.int64()),
            "session_id": [s for s in sessions for _ in range(4)],
            "position": pa.array([p for _ in range(20) for p in range(4)], pa.float64()),
        }
    )
    # what a click in another list answers says nothing about this one
    rows = [(n, "i0", f"{n}/0", "play") for n in range(answers)] + [(n, "i3", None, "play") for n in range(20)]
    rows += [(n, "i2", f"{19 - n}/2", "view") for n in range(5)]
    events = pa.table(
        {
            "event_id": range(len(rows)),
            "event": [event for *_, event in rows],
            "at": pa.array(range(1, len(rows) + 1), time),
            "item_id": [item for _, item, _, _ in rows],
            "decision_id": pa.array([of for _, _, of, _ in rows], pa.string()),
            "user_id": pa.array([people[n] for n, *_ in rows], pa.int64()),
            "session_id": pa.array([sessions[n] for n, *_ in rows], pa.string()),
        }
    )
    tables = {"events": events, "decisions": decisions, "items": pa.table({"item_id": [f"i{n}" for n in range(9)]})}
    kinds = {"at": Kind.TIME, "position": Kind.NUMBER}
    declared = {n: [Column(name=c, kind=kinds.get(c, Kind.TEXT)) for c in t.column_names] for n, t in tables.items()}
    write_folder(folder, tables, source="served", columns=declared)
    return folder


def test_the_share_of_targets_that_answer_the_very_list_is_said(tmp_path: Path) -> None:
    folder = served(tmp_path / "served", answers=15)
    says = " ".join(ask(folder).warnings)
    # five people answer with one target of three, ten with one of two, five with none
    assert "decisions: 33.3% of the mean person's targets answer the very list" in says and "off_policy" not in says
    assert "37.5% of the mean person's targets" in " ".join(ask(folder, events=["play"]).warnings)  # 15 with one of two
    reading = ask(folder)
    assumed = {s.name: "people would have done the same whatever lists they had seen" in s.assumptions
               for s in reading.statements}  # fmt: skip
    assert assumed[f"recall at {K}"] and not assumed[f"coverage at {K}"]
    rows = {"user_id": [n for n in range(15) for _ in range(2)], "position": [0, 1] * 15, "item_id": ["i3", "i5"] * 15}
    pq.write_table(pa.table(rows | {"at": pa.array([0] * 30, pa.timestamp("us"))}), tmp_path / "unserved.parquet")
    compared = ask(folder, versus=str(tmp_path / "unserved.parquet")).warnings
    assert len([w for w in compared if "the comparison favours what was served" in w]) == 1
    assert not any("answer the very" in w for w in ask(served(tmp_path / "none", answers=0)).warnings)


def test_without_decision_ids_that_share_is_not_known(shop: tuple[Any, Path]) -> None:
    assert any("how many targets answer the very list" in w for w in ask(shop[1]).warnings)


def test_sessions_are_not_called_people(tmp_path: Path) -> None:
    reading = ask(served(tmp_path / "served", answers=15))
    s = named(reading)[f"recall at {K}"]
    assert (s.n, s.of, s.method) == (20, "people or sessions", "bootstrap over people or sessions")
    assert reading.warnings[0].startswith("counted are 15 people and 5 sessions: ")
    alone = named(ask(served(tmp_path / "b", answers=15), events=["view"]))[f"recall at {K}"]
    assert (alone.n, alone.of) == (5, "people")


def test_a_cut_off_of_one_has_no_diversity(shop: tuple[Any, Path]) -> None:
    for versus in ("", "decisions:policy=a"):
        names = [s.name for s in ask(shop[1], ks=[1, K], versus=versus).statements]
        assert any(n.startswith(f"diversity at {K}") for n in names) and "recall at 1" in " ".join(names)
        assert not any(n.startswith("diversity at 1") for n in names)


def test_cut_offs_reach_as_far_as_the_lists(shop: tuple[Any, Path]) -> None:
    """The longest list of the shop holds six; without a cut-off that is where it is cut."""
    for ks in ([7], [4, 1_000_000_000]):
        with pytest.raises(
            MeasureError, match=rf"the longest list holds 6 items, so there is no cut-off at \[{ks[-1]}"
        ):
            ask(shop[1], ks=ks)
    assert "ndcg at 6" in named(ask(shop[1], ks=[]))


def test_bad_lists_are_refused(shop: tuple[Any, Path], tmp_path: Path) -> None:
    made, folder = shop

    def lists(**columns: Any) -> str:
        pq.write_table(pa.table(columns), tmp_path / "lists.parquet")
        return str(tmp_path / "lists.parquet")

    def refused(says: str, **fields: Any) -> None:
        with pytest.raises(MeasureError, match=says):
            ask(folder, **({"split": "1970-01-05"} | fields))

    good: dict[str, Any] = {"user_id": [1, 1, 2], "item_id": ["i1", "i2", "i1"], "position": [0, 1, 0]}
    refused(
        r"\.item: an item stands once in a list; 2 of 3 rows", lists=lists(**good | {"item_id": ["i1", "i1", "i2"]})
    )
    refused(r"\.position: a place holds one item; 2 of 3", lists=lists(**good | {"position": [1, 1, 0]}))
    refused(
        r"\.position: .* >= 0; 1 of 3 rows break this, first row 2: None",
        lists=lists(**good | {"position": [0, 1, None]}),
    )
    refused(r"\.position: .* first row 0: nan", lists=lists(**good | {"position": [math.nan, 1.0, 0.0]}))
    refused(
        r"\.item: an item that was shown must be .* 1 of 3 rows", lists=lists(**good | {"item_id": ["x", "i1", "i2"]})
    )
    refused(r"\.user_id: .* 1 of 3 rows have neither, first row 1", lists=lists(**good | {"user_id": [1, None, 2]}))
    refused("has neither user_id nor session_id", lists=lists(item_id=["i1"], position=[0]))
    refused("has no column position; lists are", lists=lists(user_id=[1], item_id=["i1"]))
    refused("has no column at, so question.split", lists=lists(**good), split="")
    refused("a list stands in one row; 2 of 2", lists=lists(user_id=[1, 1], item_ids=[["i1"], ["i2"]]))
    refused(r"\.item_ids holds one String a row", lists=lists(user_id=[1, 2], item_ids=["i1", "i2"]))
    refused("no lists at", lists=str(tmp_path / "nothing"))
    refused("nobody did anything after their list", lists=lists(**good), split="1999-01-01", ks=[2])
    refused(r"decisions\.policy is never 'z' .* it is: a, b", lists="decisions:policy=z")
    refused("is not decisions:COLUMN=VALUE with a column of: decision_id", lists="decisions:nothing=1")
    refused("no list was made at or after", lists="decisions", split="1999-01-01")
    refused("no list was made before", lists="decisions", split="1960-01-01", per=Per.PERSON)
    refused(r"events\.event is never click; it is: buy, view", events=["click"])
    refused("items has no column 'colour' to slice by; it has: item_id, categories", slices=["items.colour"])
    with pytest.raises(MeasureError, match=r"must be \[25, width\]"):
        np.save(tmp_path / "v.npy", np.ones((3, 2)))
        ask(folder, vectors=str(tmp_path / "v.npy"))
    with pytest.raises(MeasureError, match=r"question.vectors=.*v.npy must hold numbers, got dtype <U"):
        np.save(tmp_path / "v.npy", np.full((25, 2), "x"))
        ask(folder, vectors=str(tmp_path / "v.npy"))
    for fields in (
        {"ks": [0]},
        {"slices": ["country"]},
        {"slice_metrics": ["auc"]},
        {"per": Per.PERSON},
        {"head_share": 1},
    ):
        with pytest.raises(ConfigError):
            RankingQuestion(**fields)
    with pytest.raises(ConfigError, match="question.split='soon' is not a moment"):
        ask(folder, split="soon")


def test_the_command_line_prints_and_writes_it(shop: tuple[Any, Path], tmp_path: Path, capsys: Any) -> None:
    from playbill.cli import main

    arguments = ["measure", "question=ranking", f"tables={shop[1]}", f"home={tmp_path}", "question.ks=[2,4]"]
    assert main([*arguments, "question.resamples=100"]) == 0
    printed = capsys.readouterr().out
    assert "ndcg at 4" in printed and "new people" in printed
    written = tmp_path / "measure" / "shop-ranking"
    assert {p.name for p in written.iterdir()} == {"reading.json", "reading.txt", "reading.png"}
