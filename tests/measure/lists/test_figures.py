"""Every figure of lists equals the slow reading: on a random shop, and on real ratings."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from playbill.measure.lists.read import run
from playbill.measure.lists.settings import Per, RankingQuestion
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Reading, Statement, to_text
from playbill.tables.folder import read_table

DAY_US = 86_400_000_000
Reference = Callable[..., dict[str, dict[str, float]]]
K = 4


def ask(folder: Path, **fields: Any) -> Reading:
    return run(RankingQuestion(**({"ks": [K], "resamples": 200} | fields)), folder, MeasureSettings())


def named(reading: Reading) -> dict[str, Statement]:
    return {s.name: s for s in reading.statements}


@pytest.mark.parametrize(
    "how", [{}, {"window_us": 3 * DAY_US}, {"unseen": True}, {"window_us": 6 * DAY_US, "unseen": True}]
)
def test_every_metric_equals_the_reference_on_requests(shop: tuple[Any, Path], how: dict[str, Any]) -> None:
    made, folder = shop
    reading = ask(folder, window_days=how.get("window_us", 0) / DAY_US, unseen=how.get("unseen", False))
    found = named(reading)
    for metric, people in made.expected(made.lists(), K, **how).items():
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


def test_novelty_and_diversity_equal_the_reference(shop: tuple[Any, Path]) -> None:
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


def test_a_log_without_a_past_has_no_novelty_and_nobody_new(make_shop: Callable[[int], Any], tmp_path: Path) -> None:
    made = make_shop(2)
    made.events = [(who, event, at + 30 * DAY_US, item) for who, event, at, item in made.events]
    reading = ask(made.write(tmp_path / "young"))
    assert not any(s.name.startswith("novelty") for s in reading.statements)
    assert [row["slice"] for row in reading.tables["slices"]] == ["everybody"]
    assert "question.split=MOMENT" in reading.warnings[0]


def test_each_persons_last_list_before_the_split(shop: tuple[Any, Path]) -> None:
    made, folder = shop
    split = 10 * DAY_US
    last: dict[int, tuple[int, list[str]]] = {}
    for (who, _), (at, items) in made.lists().items():
        if at <= split and at >= last.get(who, (0, []))[0]:
            last[who] = (at, items)
    reading = ask(folder, per=Per.PERSON, split="1970-01-11")
    people = made.expected({(who, ""): (split, items) for who, (_, items) in last.items()}, K)
    assert named(reading)[f"ndcg at {K}"].estimate == pytest.approx(np.mean(list(people["ndcg"].values())))
    silent = {who for who, _, at, _ in made.events if at > split} - set(last)
    assert silent and f"{len(silent)} people who did something had no list" in " ".join(reading.warnings)
    counted = named(ask(folder, per=Per.PERSON, split="1970-01-11", silence=True))[f"ndcg at {K}"]
    assert counted.estimate == pytest.approx(sum(people["ndcg"].values()) / (len(people["ndcg"]) + len(silent)))


def test_slices_equal_the_reference(shop: tuple[Any, Path], reference: Reference) -> None:
    made, folder = shop
    split = 8 * DAY_US
    reading = ask(folder, split="1970-01-09", slices=["users.country", "items.categories"], known_events=2)
    rows = {row["slice"]: row for row in reading.tables["slices"]}
    lists = made.lists(low=split)
    whole = made.expected(lists, K)
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
        values = reference(ranked, targets, K)
        for metric in ("recall", "ndcg"):
            assert rows[label][f"{metric}_at_{K}"] == pytest.approx(np.mean(list(values[metric].values()))), label


def test_two_sources_are_compared_on_the_same_people(shop: tuple[Any, Path]) -> None:
    made, folder = shop
    reading = ask(folder, lists="decisions:policy=a", versus="decisions:policy=b")
    a, b = (made.expected(made.lists(policy=p), K) for p in "ab")
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


def test_files_of_lists_read_as_the_decisions_do(shop: tuple[Any, Path], tmp_path: Path) -> None:
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
    people_ = made.expected({(w, ""): last[w] for w in last}, K)
    assert long[f"map at {K}"].estimate == pytest.approx(np.mean(list(people_["map"].values())))
    assert [s.estimate for s in long.values()] == [s.estimate for s in batch.values()]
    split = named(ask(folder, lists=str(tmp_path / "batch"), split="1970-01-05"))
    moved = made.expected({(w, ""): (4 * DAY_US, items) for w, (_, items) in last.items()}, K)
    assert split[f"mrr at {K}"].estimate == pytest.approx(np.mean(list(moved["mrr"].values())))


def test_real_lists_on_movielens(ml100k_tables: Path, tmp_path: Path, reference: Reference) -> None:
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
    for metric, people in reference(ranked, wanted, 10).items():
        s = found[f"{metric.replace('_', ' ')} at 10"]
        assert s.estimate == pytest.approx(np.mean(list(people.values()))), metric
        assert s.n == len(people) > 100
    assert found["gini at 10"].estimate > 0.9
