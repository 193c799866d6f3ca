"""A small random shop whose lists are also read the slow way: one list, one place at a time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from playbill.tables.folder import write_folder
from playbill.tables.schema import Column, Kind

DAY_US = 86_400_000_000


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

    def expected(
        self, lists: dict[tuple[int, str], tuple[int, list[str]]], k: int, **how: Any
    ) -> dict[str, dict[str, float]]:
        """Return what the reference finds of these lists, cut at k, against what was done after each."""
        ranked, targets = defaultdict(list), defaultdict(list)
        for (who, _), (at, items) in lists.items():
            ranked[str(who)].append(items)
            targets[str(who)].append(self.targets(who, at, **how))
        return naive(ranked, targets, k)


@pytest.fixture
def shop(tmp_path: Path) -> tuple[Shop, Path]:
    """The shop of seed 1 and its folder of tables."""
    made = Shop(1)
    return made, made.write(tmp_path / "shop")


@pytest.fixture
def make_shop() -> type[Shop]:
    return Shop


@pytest.fixture
def reference() -> Callable[..., dict[str, dict[str, float]]]:
    """The naive reading of lists."""
    return naive
