"""Deadlines: each step made slow in turn, on a clock of the test's own, and what the slates say of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from playbill.bundle.open import Bundle
from playbill.engine import budget as budgets
from playbill.engine import clock as clocks
from playbill.engine import engine as engines
from playbill.engine.budget import SHARES, Budget, Pace
from playbill.engine.engine import Engine
from playbill.engine.types import Request, Slate
from playbill.state.store import Store

LIMIT = 100.0
KNOWN = Request(user_id=196, request_id="r", k=10)


class Clock:
    """Time that stands still unless a step is slow."""

    def __init__(self) -> None:
        self.moment = 1_000.0

    def __call__(self) -> float:
        return self.moment

    def slow(self, call: Callable[..., Any], ms: float) -> Callable[..., Any]:
        def slowed(*args: Any, **named: Any) -> Any:
            self.moment += ms / 1e3
            return call(*args, **named)

        return slowed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (budgets, clocks):
        monkeypatch.setattr(module, "now", clock)
    return clock


@pytest.fixture
def engine(bundle: Bundle, store: Store) -> Engine:
    engine = Engine.open(bundle, store)
    engine.pace = Pace()  # on the test's clock nothing was learned yet
    return engine


def ask(engine: Engine, clock: Clock, limit: float = LIMIT) -> tuple[Slate, float]:
    """Return a slate and the milliseconds that it took by the test's clock."""
    began = clock()
    [slate], _ = engine.decide([KNOWN], Budget(limit, engine.pace))
    return slate, (clock() - began) * 1e3


def test_a_quick_answer_stands_on_the_best_rung(engine: Engine, clock: Clock) -> None:
    for _ in range(3):
        slate, _ = ask(engine, clock, limit=1.0)
        assert slate.rung == "full" and not slate.rung_reason


def test_the_first_answer_after_a_start_stands_on_the_best_rung(bundle: Bundle, store: Store) -> None:
    engine = Engine.open(bundle, store)
    assert all(engine.pace.expected(step) is not None for step in ("profile", "tower and index", "retrieve", "rank"))
    # most of the time was lost in front of it; of steps that never ran each would be taken to need its share
    [slate], _ = engine.decide([KNOWN], Budget(10_000.0, engine.pace, spent_ms=3_000.0))
    assert slate.rung == "full" and not slate.rung_reason and engine.slates == {"full": 1}


@pytest.mark.parametrize(
    ("step", "function", "rung", "said"),
    [
        ("tower and index", "query_rows", "item_knn", "query tower"),
        ("retrieve", "propose", "popularity", "personal"),
        ("rank", "rank_rows", "retrieval", "ranker"),
    ],
)
def test_a_step_that_became_slow_is_passed_over_from_the_next_request_on_and_tried_again(
    engine: Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch, step: str, function: str, rung: str, said: str
) -> None:
    right = getattr(engines, function)
    slow = clock.slow(right, 2.5 * LIMIT)

    def slowed(rows: Any, *args: Any) -> Any:
        """Slow for whom the step is for; those below its rung pass through it and cost nothing."""
        mine = rows if isinstance(rows, list) else [rows]
        reached = {"query_rows": ("full", "retrieval"), "propose": ("full", "retrieval", "item_knn")}
        return (slow if any(r.rung in reached.get(function, ("full",)) for r in mine) else right)(rows, *args)

    monkeypatch.setattr(engines, function, slowed)
    first, took = ask(engine, clock)
    assert took > LIMIT and len(first.items) == 10  # nothing told that it would be slow
    second, took = ask(engine, clock)
    assert took <= LIMIT and second.rung == rung and said in second.rung_reason and len(second.items) == 10
    monkeypatch.setattr(engines, function, right)
    rungs = [ask(engine, clock)[0].rung for _ in range(10)]
    assert rungs[-1] == "full", (step, rungs)


def test_a_slow_store_leaves_no_time_for_models(engine: Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(engine, clock)
    monkeypatch.setattr(engines, "people_of", clock.slow(engines.people_of, 99.9))
    for step in ("tower and index", "retrieve", "rank"):
        engine.pace.took(step, 5.0)
    slate, took = ask(engine, clock)
    assert took <= LIMIT and slate.rung == "popularity" and len(slate.items) == 10
    assert "query tower" in slate.rung_reason and "personal" in slate.rung_reason


def test_time_that_was_spent_in_a_queue_counts(engine: Engine, clock: Clock) -> None:
    for step in SHARES:
        engine.pace.took(step, 2.0)
    [slate], _ = engine.decide([KNOWN], Budget(LIMIT, engine.pace, spent_ms=95.0))
    assert slate.rung != "full" and "no time left" in slate.rung_reason
    [slate], _ = engine.decide([KNOWN], Budget(LIMIT, engine.pace, spent_ms=10.0))
    assert slate.rung == "full"


def test_a_ranker_that_takes_more_than_its_share_runs_while_there_is_time() -> None:
    pace = Pace()
    for step, ms in {"rank": 60.0, "compose and explain": 1.0, "creative": 1.0}.items():
        pace.took(step, ms)
    assert Budget(LIMIT, pace).allows("rank") and not Budget(LIMIT, pace, spent_ms=50).allows("rank")


def test_a_slow_step_behind_takes_no_more_than_its_share_from_those_before() -> None:
    pace = Pace()
    for step in SHARES:
        pace.took(step, 1.0)
    for _ in range(20):
        pace.took("rank", 10_000.0)
    assert Budget(LIMIT, pace).allows("tower and index") and not Budget(LIMIT, pace).allows("rank")
