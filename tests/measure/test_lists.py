from __future__ import annotations

import math
from collections import defaultdict
from itertools import combinations
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
from playbill.measure.statement import Reading, Statement, to_text
from playbill.tables.folder import read_table, write_folder
from playbill.tables.schema import Column, Kind

DAY_US = 86_400_000_000
K = 4


def naive(lists: dict[str, list[list[Any]]], targets: dict[str, list[set[Any]]], k: int) -> dict[str, dict[str, float]]:
    """Mean over each person's lists that have targets, one list and one place at a time: {metric: {person: value}}."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for who, ranked in lists.items():
        rows = defaultdict(list)
        for items, wanted in zip(ranked, targets[who], strict=True):
            if not wanted:
                continue
            hit = [i in wanted for i in items[:k]] + [False] * (k - len(items))
            gains = [1 / math.log2(p + 2) for p in range(k)]
            rows["recall"].append(sum(hit) / len(wanted))
            rows["hit_rate"].append(float(any(hit)))
            rows["ndcg"].append(
                sum(g for g, h in zip(gains, hit, strict=True) if h) / sum(gains[: min(k, len(wanted))])
            )
            rows["mrr"].append(1 / (hit.index(True) + 1) if any(hit) else 0.0)
            rows["map"].append(sum(sum(hit[: p + 1]) / (p + 1) for p in range(k) if hit[p]) / min(k, len(wanted)))
        for metric, values in rows.items():
            found[metric][who] = sum(values) / len(values)
    return found


class Shop:
    """A small random shop: rows as Python values, and the same written as tables."""

    def __init__(self, seed: int) -> None:
        draw = np.random.default_rng(seed)
        self.items = [f"i{n}" for n in range(25)]
        self.categories = {i: sorted({"abc"[draw.integers(3)], "abc"[draw.integers(3)]}) for i in self.items}
        self.country = {n: "de" if n % 3 else "fr" for n in range(40)}
        self.events, self.decisions = [], []
        for who in range(40):
            for _ in range(int(draw.integers(0, 12))):
                at = int(draw.integers(0, 20 * DAY_US))
                self.events.append((who, "view" if draw.random() < 0.7 else "buy", at, self.items[draw.integers(25)]))
            for request in range(int(draw.integers(0, 4))):
                at = int(draw.integers(0, 20 * DAY_US))
                for position, item in enumerate(draw.permutation(25)[: draw.integers(1, 7)]):
                    policy = "a" if request % 2 else "b"
                    self.decisions.append((f"{who}/{request}", who, at, position, self.items[item], policy))
        self.events.append((39, "view", 5, "i0"))

    def write(self, folder: Path) -> Path:
        time = pa.timestamp("us", tz="UTC")
        who, event, at, item = zip(*self.events, strict=True)
        events = {
            "event_id": range(len(who)),
            "user_id": who,
            "event": event,
            "at": pa.array(at, time),
            "item_id": item,
        }
        request, user, at, position, item, policy = zip(*self.decisions, strict=True)
        decisions = {
            "decision_id": range(len(user)), "request_id": request, "kind": ["item"] * len(user), "chosen": item,
            "at": pa.array(at, time), "user_id": user, "position": pa.array(position, pa.float64()), "policy": policy,
        }  # fmt: skip
        items = {"item_id": self.items, "categories": [self.categories[i] for i in self.items]}
        users = {"user_id": list(self.country), "country": list(self.country.values())}
        tables = {
            name: pa.table(columns)
            for name, columns in (("events", events), ("decisions", decisions), ("items", items), ("users", users))
        }
        kinds = {"at": Kind.TIME, "categories": Kind.CATEGORIES, "position": Kind.NUMBER}
        declared = {
            n: [Column(name=c, kind=kinds.get(c, Kind.TEXT)) for c in t.column_names] for n, t in tables.items()
        }
        write_folder(folder, tables, source="shop", columns=declared)
        return folder

    def lists(self, low: int = 0, policy: str = "") -> dict[tuple[int, str], tuple[int, list[str]]]:
        """Return {(person, request): (at, items in order)}."""
        found: dict[tuple[int, str], tuple[int, list[str]]] = {}
        for request, who, at, _, item, of in self.decisions:
            if at >= low and policy in ("", of):
                found.setdefault((who, request), (at, []))[1].append(item)
        return found

    def targets(self, who: int, at: int, window_us: float = math.inf, unseen: bool = False) -> set[str]:
        mine = [(when, item) for person, _, when, item in self.events if person == who]
        before = {item for when, item in mine if when <= at}
        return {item for when, item in mine if at < when <= at + window_us and not (unseen and item in before)}


@pytest.fixture
def shop(tmp_path: Path) -> tuple[Shop, Path]:
    made = Shop(1)
    return made, made.write(tmp_path / "shop")


def ask(folder: Path, **fields: Any) -> Reading:
    return run(RankingQuestion(**({"ks": [K], "resamples": 200} | fields)), folder, MeasureSettings())


def named(reading: Reading) -> dict[str, Statement]:
    return {s.name: s for s in reading.statements}


def expected(
    shop: Shop, lists: dict[tuple[int, str], tuple[int, list[str]]], **how: Any
) -> dict[str, dict[str, float]]:
    ranked, targets = defaultdict(list), defaultdict(list)
    for (who, _), (at, items) in lists.items():
        ranked[str(who)].append(items)
        targets[str(who)].append(shop.targets(who, at, **how))
    return naive(ranked, targets, K)


@pytest.mark.parametrize(
    "how", [{}, {"window_us": 3 * DAY_US}, {"unseen": True}, {"window_us": 6 * DAY_US, "unseen": True}]
)
def test_every_metric_equals_the_reference_on_requests(shop: tuple[Shop, Path], how: dict[str, Any]) -> None:
    made, folder = shop
    reading = ask(folder, window_days=how.get("window_us", 0) / DAY_US, unseen=how.get("unseen", False))
    found = named(reading)
    for metric, people in expected(made, made.lists(), **how).items():
        s = found[f"{metric.replace('_', ' ')} at {K}"]
        assert s.n == len(people)
        assert s.estimate == pytest.approx(np.mean(list(people.values()))), metric
        assert s.low is not None and s.high is not None and s.low <= s.estimate <= s.high
    shown = [item for _, items in made.lists().values() for item in items[:K]]
    assert found[f"coverage at {K}"].estimate == pytest.approx(len(set(shown)) / 25)
    assert found[f"coverage at {K}"].details == {"items": len(set(shown))}
    counts = [shown.count(i) for i in made.items]
    differences = sum(abs(a - b) for a in counts for b in counts) / (2 * 25 * sum(counts))
    assert found[f"gini at {K}"].estimate == pytest.approx(differences)


def test_novelty_and_diversity_equal_the_reference(shop: tuple[Shop, Path]) -> None:
    made, folder = shop
    split = 8 * DAY_US
    found = named(ask(folder, split="1970-01-09"))
    lists = made.lists(low=split)
    past = [(who, item) for who, _, at, item in made.events if at <= split]
    people = len({who for who, _ in past})
    bits = {i: -math.log2((len({w for w, x in past if x == i}) + 1) / (people + 1)) for i in made.items}
    novelty, far = defaultdict(list), defaultdict(list)
    for (who, _), (_, items) in lists.items():
        novelty[who].append(np.mean([bits[i] for i in items[:K]]))
        pairs = [
            1
            - len({*made.categories[a]} & {*made.categories[b]})
            / math.sqrt(len(made.categories[a]) * len(made.categories[b]))
            for a, b in combinations(items[:K], 2)
        ]
        if pairs:
            far[who].append(np.mean(pairs))
    for name, values in (("novelty", novelty), ("diversity", far)):
        s = found[f"{name} at {K}"]
        assert s.estimate == pytest.approx(np.mean([np.mean(v) for v in values.values()])), name
        assert s.n == len(values)
    assert found[f"novelty at {K}"].unit == "bits"


def test_a_log_without_a_past_has_no_novelty_and_nobody_new(tmp_path: Path) -> None:
    made = Shop(2)
    made.events = [(who, event, at + 30 * DAY_US, item) for who, event, at, item in made.events]
    reading = ask(made.write(tmp_path / "young"))
    assert not any(s.name.startswith("novelty") for s in reading.statements)
    assert [row["slice"] for row in reading.tables["slices"]] == ["everybody"]
    assert "question.split=MOMENT" in reading.warnings[0]


def test_each_persons_last_list_before_the_split(shop: tuple[Shop, Path]) -> None:
    made, folder = shop
    split = 10 * DAY_US
    last: dict[int, tuple[int, list[str]]] = {}
    for (who, _), (at, items) in made.lists().items():
        if at <= split and at >= last.get(who, (0, []))[0]:
            last[who] = (at, items)
    reading = ask(folder, per=Per.PERSON, split="1970-01-11")
    people = expected(made, {(who, ""): (split, items) for who, (_, items) in last.items()})
    assert named(reading)[f"ndcg at {K}"].estimate == pytest.approx(np.mean(list(people["ndcg"].values())))
    silent = {who for who, _, at, _ in made.events if at > split} - set(last)
    assert silent and f"{len(silent)} people who did something had no list" in " ".join(reading.warnings)
    counted = named(ask(folder, per=Per.PERSON, split="1970-01-11", silence=True))[f"ndcg at {K}"]
    assert counted.estimate == pytest.approx(sum(people["ndcg"].values()) / (len(people["ndcg"]) + len(silent)))


def test_slices_equal_the_reference(shop: tuple[Shop, Path]) -> None:
    made, folder = shop
    split = 8 * DAY_US
    reading = ask(folder, split="1970-01-09", slices=["users.country", "items.categories"], known_events=2)
    rows = {row["slice"]: row for row in reading.tables["slices"]}
    lists = made.lists(low=split)
    whole = expected(made, lists)
    past = [(who, item) for who, _, at, item in made.events if at <= split]
    new = {str(w) for w in made.country if sum(who == w for who, _ in past) < 2}
    groups = {
        "everybody": set(whole["recall"]),
        "new people": new,
        "known people": {str(w) for w in made.country} - new,
        "users.country=fr": {str(w) for w, c in made.country.items() if c == "fr"},
    }
    for label, group in groups.items():
        values = [v for who, v in whole["recall"].items() if who in group]
        assert rows[label]["people"] == len(values), label
        assert rows[label][f"recall_at_{K}"] == pytest.approx(np.mean(values)), label
    number = {i: sum(x == i for _, x in past) for i in made.items}
    order, head, held = sorted(made.items, key=lambda i: (-number[i], int(i[1:]))), set(), 0
    for item in order:
        if held >= 0.5 * len(past):
            break
        head.add(item)
        held += number[item]
    parts = {
        "head": head,
        "tail": set(made.items) - head,
        "new items": {i for i in made.items if number[i] < 2},
        "items.categories=a": {i for i in made.items if "a" in made.categories[i]},
    }
    for label, part in parts.items():
        ranked, targets = defaultdict(list), defaultdict(list)
        for (who, _), (at, items) in lists.items():
            ranked[str(who)].append(items)
            targets[str(who)].append(made.targets(who, at) & part)
        values = naive(ranked, targets, K)
        for metric in ("recall", "ndcg"):
            assert rows[label][f"{metric}_at_{K}"] == pytest.approx(np.mean(list(values[metric].values()))), label


def test_two_sources_are_compared_on_the_same_people(shop: tuple[Shop, Path]) -> None:
    made, folder = shop
    reading = ask(folder, lists="decisions:policy=a", versus="decisions:policy=b")
    a, b = (expected(made, made.lists(policy=p)) for p in "ab")
    both = sorted(set(a["ndcg"]) & set(b["ndcg"]))
    s = named(reading)[f"ndcg at {K}, decisions:policy=a - decisions:policy=b"]
    assert s.n == len(both) and s.unit == "difference in share"
    assert s.estimate == pytest.approx(np.mean([a["ndcg"][w] - b["ndcg"][w] for w in both]))
    assert "lists of one source only" in s.warnings[0]
    assert "lists" in reading.tables["slices"][0]
    twice = ask(folder, versus="decisions")
    same = [s for s in twice.statements if s.unit.startswith("difference")]
    assert len(same) == 9 and all((s.estimate, s.low, s.high) == (0, 0, 0) for s in same)
    assert "decisions - decisions" in to_text(twice)


def test_files_of_lists_read_as_the_decisions_do(shop: tuple[Shop, Path], tmp_path: Path) -> None:
    """The long form in any order, and that of `playbill batch`, a list a row in several parts."""
    made, folder = shop
    last = {who: (at, items) for (who, _), (at, items) in made.lists().items()}
    rows = [(who, item, p, at) for who, (at, items) in last.items() for p, item in enumerate(items)]
    rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    time = pa.timestamp("us", tz="UTC")
    who, item, position, at = zip(*rows, strict=True)
    pq.write_table(
        pa.table({"user_id": who, "item_id": item, "position": position, "at": pa.array(at, time)}),
        tmp_path / "long.parquet",
    )
    (tmp_path / "batch").mkdir()
    people = list(last)
    for part in range(2):
        mine = people[part::2]
        columns = {
            "user_id": mine,
            "request_id": [f"r{w}" for w in mine],
            "item_ids": [last[w][1] for w in mine],
            "at": pa.array([last[w][0] for w in mine], time),
        }
        pq.write_table(pa.table(columns), tmp_path / "batch" / f"part-{part:05}.parquet")
    (tmp_path / "batch" / "_SUCCESS").write_text("{}")
    long = named(ask(folder, lists=str(tmp_path / "long.parquet")))
    batch = named(ask(folder, lists=str(tmp_path / "batch")))
    people_ = expected(made, {(w, ""): last[w] for w in last})
    assert long[f"map at {K}"].estimate == pytest.approx(np.mean(list(people_["map"].values())))
    assert [s.estimate for s in long.values()] == [s.estimate for s in batch.values()]
    split = named(ask(folder, lists=str(tmp_path / "batch"), split="1970-01-05"))
    moved = expected(made, {(w, ""): (4 * DAY_US, items) for w, (_, items) in last.items()})
    assert split[f"mrr at {K}"].estimate == pytest.approx(np.mean(list(moved["mrr"].values())))


def test_real_lists_on_movielens(ml100k_tables: Path, tmp_path: Path) -> None:
    """The films that most people rated before 1998-03-01, unseen, against what each person rated after it."""
    ratings = read_table(ml100k_tables, "events", ["user_id", "item_id", "at"]).to_pylist()
    items = read_table(ml100k_tables, "items", ["item_id"])["item_id"].to_pylist()
    split = "1998-03-01"
    past, future = defaultdict(set), defaultdict(set)
    for row in ratings:
        (future if row["at"].isoformat() > split else past)[row["user_id"]].add(row["item_id"])
    number: dict[Any, int] = defaultdict(int)
    for seen in past.values():
        for item in seen:
            number[item] += 1
    popular = sorted(items, key=lambda i: (-number[i], str(i)))
    lists = {who: [i for i in popular if i not in past[who]][:10] for who in future}
    rows = [(who, item, p) for who, ranked in lists.items() for p, item in enumerate(ranked)]
    who, item, position = zip(*rows, strict=True)
    pq.write_table(pa.table({"user_id": who, "item_id": item, "position": position}), tmp_path / "popular.parquet")
    found = named(ask(ml100k_tables, lists=str(tmp_path / "popular.parquet"), split=split, ks=[10], unseen=True))
    ranked = {str(w): [lists[w]] for w in lists}
    wanted = {str(w): [future[w] - past[w]] for w in lists}
    for metric, people in naive(ranked, wanted, 10).items():
        s = found[f"{metric.replace('_', ' ')} at 10"]
        assert s.estimate == pytest.approx(np.mean(list(people.values()))), metric
        assert s.n == len(people) > 100
    assert found["gini at 10"].estimate > 0.9


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


def test_without_decision_ids_that_share_is_not_known(shop: tuple[Shop, Path]) -> None:
    assert any("how many targets answer the very list" in w for w in ask(shop[1]).warnings)


def test_sessions_are_not_called_people(tmp_path: Path) -> None:
    reading = ask(served(tmp_path / "served", answers=15))
    s = named(reading)[f"recall at {K}"]
    assert (s.n, s.of, s.method) == (20, "people or sessions", "bootstrap over people or sessions")
    assert reading.warnings[0].startswith("counted are 15 people and 5 sessions: ")
    alone = named(ask(served(tmp_path / "b", answers=15), events=["view"]))[f"recall at {K}"]
    assert (alone.n, alone.of) == (5, "people")


def test_a_cut_off_of_one_has_no_diversity(shop: tuple[Shop, Path]) -> None:
    for versus in ("", "decisions:policy=a"):
        names = [s.name for s in ask(shop[1], ks=[1, K], versus=versus).statements]
        assert any(n.startswith(f"diversity at {K}") for n in names) and "recall at 1" in " ".join(names)
        assert not any(n.startswith("diversity at 1") for n in names)


def test_cut_offs_reach_as_far_as_the_lists(shop: tuple[Shop, Path]) -> None:
    """The longest list of the shop holds six; without a cut-off that is where it is cut."""
    for ks in ([7], [4, 1_000_000_000]):
        with pytest.raises(
            MeasureError, match=rf"the longest list holds 6 items, so there is no cut-off at \[{ks[-1]}"
        ):
            ask(shop[1], ks=ks)
    assert "ndcg at 6" in named(ask(shop[1], ks=[]))


def test_bad_lists_are_refused(shop: tuple[Shop, Path], tmp_path: Path) -> None:
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


def test_the_command_line_prints_and_writes_it(shop: tuple[Shop, Path], tmp_path: Path, capsys: Any) -> None:
    from playbill.cli import main

    arguments = ["measure", "question=ranking", f"tables={shop[1]}", f"home={tmp_path}", "question.ks=[2,4]"]
    assert main([*arguments, "question.resamples=100"]) == 0
    printed = capsys.readouterr().out
    assert "ndcg at 4" in printed and "new people" in printed
    written = tmp_path / "measure" / "shop-ranking"
    assert {p.name for p in written.iterdir()} == {"reading.json", "reading.txt", "reading.png"}
