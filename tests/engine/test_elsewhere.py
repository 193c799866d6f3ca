"""An engine whose index and ranker stand elsewhere: the same slates, and what becomes of them when nobody answers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from playbill.bundle.open import Bundle
from playbill.engine import budget as budgets
from playbill.engine import clock as clocks
from playbill.engine.budget import Budget
from playbill.engine.elsewhere import Elsewhere
from playbill.engine.engine import Engine
from playbill.engine.runtime import Model, open_model
from playbill.engine.settings import EngineSettings
from playbill.engine.types import PageRequest, Request, Slate
from playbill.index.item_index import read_index
from playbill.index.shard import Shard, in_process
from playbill.index.split import split
from playbill.state.store import Store

PEOPLE = (196, 1, 405, 99_999)
PARTS = 4


class Far:
    """The bundle's own ranker behind a thread; it takes as long as the test says, by a clock of the test's own."""

    def __init__(self, model: Model) -> None:
        self.name, self.inputs, self.outputs, self.provider = model.name, model.inputs, model.outputs, model.provider
        self.device, self.slow_s, self.moment, self.calls = model.device, 0.0, 1_000.0, 0
        self._model, self._thread = model, ThreadPoolExecutor(4)

    def now(self) -> float:
        return self.moment

    def run(self, arrays: dict[str, np.ndarray], outputs: list[str], within_s: float | None = None) -> list[np.ndarray]:
        self.calls += 1
        if within_s is not None and self.slow_s > within_s:
            self.moment += within_s
            raise TimeoutError(f"no answer within {within_s * 1e3:.0f} ms")
        self.moment += self.slow_s
        return self._thread.submit(self._model.run, arrays, outputs).result()


@pytest.fixture
def far(bundle: Bundle) -> Far:
    return Far(open_model(bundle.file("ranker.onnx"), EngineSettings()))


@pytest.fixture
def shards(bundle: Bundle) -> list[Shard | None]:
    index = read_index(bundle.file("items.faiss"), np.asarray(bundle.array("item_embeddings")))
    return [Shard(split(index, part, PARTS)) for part in range(PARTS)]


def asked(**more: object) -> list[Request]:
    return [Request(user_id=user, k=12, request_id=f"r{user}", at=893286638000000, **more) for user in PEOPLE]


def same(slates: list[Slate], others: list[Slate]) -> None:
    for slate, other in zip(slates, others, strict=True):
        assert [i.item_id for i in slate.items] == [i.item_id for i in other.items]
        assert [i.score for i in slate.items] == pytest.approx([i.score for i in other.items], abs=1e-6)
        assert (slate.rung, slate.rung_reason) == (other.rung, other.rung_reason)


def test_the_same_slates(bundle: Bundle, store: Store, far: Far, shards: list[Shard | None]) -> None:
    here = Engine.open(bundle, store)
    there = Engine.open(bundle, store, elsewhere=Elsewhere(far, in_process(shards), PARTS))
    assert there.models() == here.models() and there.rungs == here.rungs and there.missing() == here.missing()
    assert far.calls == 0  # it need not answer yet
    told = {
        1: {"available": False},
        50: {"available": False},
        90_001: {"title": "Late (1998)", "categories": ["Drama"]},
    }
    store.set_items(told)
    for more in ({}, {"filter": "release_year < 1975"}, {"exclude": [100, 127, 258]}):
        same(there.recommend(asked(**more)), here.recommend(asked(**more)))
    similar = asked(surface="similar", item_id=100)
    same(there.recommend(similar), here.recommend(similar))
    page = [PageRequest(user_id=196, k=5, request_id="p", at=893286638000000)]
    [mine], [other] = there.pages(page)[0], here.pages(page)[0]
    assert [[i.item_id for i in s.items] for s in mine.shelves] == [[i.item_id for i in s.items] for s in other.shelves]
    assert far.calls > 0 and there.faults == {}


def test_a_part_that_is_away_is_named(bundle: Bundle, store: Store, shards: list[Shard | None]) -> None:
    engine = Engine.open(bundle, store, elsewhere=Elsewhere(None, in_process(shards), PARTS))
    kept, shards[1] = shards[1], None
    slates = engine.recommend(asked())
    assert all(s.rung == "full" and len(s.items) == 12 for s in slates[:3])
    assert all("found without index part 2 of 4: it is not there" in s.rung_reason for s in slates[:3])
    assert engine.missing() == {"index part 2 of 4": "it is not there"} and engine.describe()["index"] == "flat"
    shards[1] = kept
    assert all(s.rung_reason == "" for s in engine.recommend(asked())[:3]) and engine.missing() == {}


def test_without_any_part_the_rung_below_the_towers_answers(
    bundle: Bundle, store: Store, shards: list[Shard | None]
) -> None:
    engine = Engine.open(bundle, store, elsewhere=Elsewhere(None, in_process(shards), PARTS))
    shards[:] = [None] * PARTS
    [slate, *_] = engine.recommend(asked())
    assert slate.rung == "item_knn" and len(slate.items) == 12
    assert "none of 4 index parts answers: it is not there" in slate.rung_reason
    page = [PageRequest(user_id=196, k=5, request_id="p", at=893286638000000)]
    assert engine.pages(page)[0][0].shelves
    assert engine.recommend(asked(surface="similar", item_id=100))[0].items


def test_a_ranker_that_is_late_is_not_waited_for(
    bundle: Bundle, store: Store, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (budgets, clocks):
        monkeypatch.setattr(module, "now", far.now)
    engine = Engine.open(bundle, store, elsewhere=Elsewhere(far))

    def ask() -> Slate:
        return engine.decide(asked()[:1], Budget(100, engine.pace))[0][0]

    assert ask().rung == "full"
    far.slow_s = 1.0
    began, slate = far.moment, ask()
    assert slate.rung == "retrieval" and "the ranker failed: no answer within" in slate.rung_reason
    assert 0.05 < far.moment - began < 0.1  # what the steps behind it need was left
    # soon it is known to be slow, and is not even begun each time; when it is quick again that is found out
    before, slow = far.calls, [ask() for _ in range(30)]
    assert {s.rung for s in slow} == {"retrieval"} and 0 < far.calls - before < len(slow)
    assert any("no time left for the ranker" in s.rung_reason for s in slow)
    far.slow_s, rungs = 0.0, ["retrieval"]
    while rungs[-1] != "full" and len(rungs) < 100:
        rungs.append(ask().rung)
    assert rungs[-1] == "full"


def test_slates_that_are_made_in_several_threads(bundle: Bundle, store: Store, far: Far) -> None:
    engine = Engine.open(bundle, store, elsewhere=Elsewhere(far))
    alone = {user: engine.recommend([r])[0] for user, r in zip(PEOPLE, asked(), strict=True)}

    def one(turn: int) -> tuple[int, Slate, dict[str, float]]:
        request = asked()[turn % len(PEOPLE)]
        return PEOPLE[turn % len(PEOPLE)], engine.recommend([request])[0], engine.stage_ms

    with ThreadPoolExecutor(4) as threads:
        for user, slate, stages in threads.map(one, range(40)):
            same([slate], [alone[user]])
            # its own request's times, not another thread's
            assert sum(stages.values()) == pytest.approx(slate.latency_ms, abs=0.1)
