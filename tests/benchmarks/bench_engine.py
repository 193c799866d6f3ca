"""The engine against the bare calls it makes: the same people, in turn, in one process and one run.

    python tests/benchmarks/bench_engine.py home=var [bundle=current] [state=<home>/state] [people=500] [rounds=5]

For every person the whole engine answers (profile from the store, retrieval, ranking, slate), and right after it the
query tower, the index search and the ranker are run once more, alone, on the very arrays that the engine gave them. The
ratio of the two is the price of everything around them: state, filters, item-kNN, policy, reasons.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record

from playbill.bundle.open import Bundle, open_bundle
from playbill.bundle.write import current
from playbill.engine import query as query_module
from playbill.engine.engine import Engine
from playbill.engine.runtime import Model
from playbill.engine.types import Request
from playbill.state.store import Store

K = 20


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    home = Path(given.get("home", "var"))
    started = machine()
    bundle = _bundle(home, given.get("bundle", "current"))
    rounds = int(given.get("rounds", 5))
    with Store.open(Path(given.get("state", home / "state")), readonly=True) as store:
        engine = Engine.open(bundle, store)
        people = _people(engine, store, int(given.get("people", 500)))
        figures = measure(engine, people, rounds)
    _print(figures, started)
    print(f"written to {record('engine', figures, started)}")
    return 0


def measure(engine: Engine, people: list[int | str], rounds: int) -> dict[str, Any]:
    """Return percentiles in milliseconds of the engine and of its bare calls, best round of each person.

    Each person is asked `rounds` times, the two taking turns; the smallest time of each counts, which leaves out what
    the machine did besides.
    """
    calls = _Calls(engine)
    whole = np.full((rounds, len(people)), np.inf)
    bare = np.full((rounds, len(people)), np.inf)
    stages: dict[str, list[float]] = {}
    candidates = []
    requests = [Request(user_id=p, request_id=str(p), k=K) for p in people]
    engine.recommend(requests[:20])
    for turn in range(rounds):
        for i, request in enumerate(requests):
            calls.seen.clear()
            began = time.perf_counter()
            [slate] = engine.recommend([request])
            whole[turn, i] = time.perf_counter() - began
            assert slate.rung == "full" and len(slate.items) == K, (slate.rung, slate.rung_reason)
            for stage, took_ms in engine.stage_ms.items():
                stages.setdefault(stage, []).append(took_ms)
            seen = list(calls.seen)
            began = time.perf_counter()
            for call, given in seen:
                call(*given)
            bare[turn, i] = time.perf_counter() - began
            candidates.append(len(calls.ranked))
    calls.close()
    began = time.perf_counter()
    engine.recommend(requests)
    batch_s = time.perf_counter() - began
    whole_ms, bare_ms = whole.min(0) * 1e3, bare.min(0) * 1e3
    every_ms = whole.ravel() * 1e3
    return {
        "bundle": engine.bundle.version,
        "items": engine.catalogue.num_items,
        "models": engine.models(),
        "index": engine.describe()["index"],
        "threads": engine.settings.threads,
        "k": K,
        "candidates_median": float(np.median(candidates)),
        "people": len(people),
        "rounds": rounds,
        "engine_ms": _percentiles(whole_ms),
        "bare_calls_ms": _percentiles(bare_ms),
        "ratio_p50": round(float(np.median(whole_ms) / np.median(bare_ms)), 2),
        "ratio_p99": round(float(np.percentile(whole_ms, 99) / np.percentile(bare_ms, 99)), 2),
        "engine_every_answer_ms": _percentiles(every_ms),
        "stages_ms_median": {stage: round(float(np.median(took)), 4) for stage, took in stages.items()},
        "batch_people_per_s": round(len(people) / batch_s, 1),
    }


class _Calls:
    """Notes the calls into ONNX Runtime and FAISS, as functions that can be called again with the same arguments."""

    def __init__(self, engine: Engine) -> None:
        self.seen: list[tuple[Any, tuple[Any, ...]]] = []
        self.ranked: np.ndarray = np.zeros(0)
        self._models = engine.parts.models
        self._sessions = [m.session for m in self._models]
        for model in self._models:
            model.session = _Session(self, model)
        self._search = query_module.search_tower
        query_module.search_tower = self._noted_search  # type: ignore[assignment]  # for the run of this benchmark

    def close(self) -> None:
        for model, session in zip(self._models, self._sessions, strict=True):
            model.session = session
        query_module.search_tower = self._search

    def _noted_search(
        self, query: np.ndarray, embeddings: np.ndarray, index: Any, quota: int, out: Any, ok: Any
    ) -> Any:
        found = self._search(query, embeddings, index, quota, out, ok)
        # the bare call: as many results as the filter of what was seen needs, and no filter
        bare = index.main.faiss_index
        wanted = min(quota + len(out[0]), bare.ntotal)
        self.seen.append((bare.search, (np.ascontiguousarray(query, np.float32), wanted)))
        return found


class _Session:
    def __init__(self, calls: _Calls, model: Model) -> None:
        self._calls, self._session, self._ranks = calls, model.session, model.name == "ranker"

    def run(self, outputs: list[str], arrays: dict[str, np.ndarray]) -> Any:
        self._calls.seen.append((self._session.run, (outputs, arrays)))
        if self._ranks:
            self._calls.ranked = arrays["item_index"]
        return self._session.run(outputs, arrays)


def _bundle(home: Path, version: str) -> Bundle:
    folder = home / "bundles"
    name = current(folder) if version == "current" else version
    if name is None:
        raise SystemExit(
            f"no bundle is published in {folder}; run `playbill demo home={home}`, or give bundle=<version>"
        )
    return open_bundle(folder / name, require_sealed=version == "current", verify=False)


def _people(engine: Engine, store: Store, most: int) -> list[int | str]:
    """Return people with a past, spread over the store."""
    found = sorted({e.user_id for _, _, e in store.events() if e.user_id is not None}, key=str)
    return [found[i] for i in np.linspace(0, len(found) - 1, min(most, len(found))).astype(int)]


def _percentiles(values: np.ndarray) -> dict[str, float]:
    return {name: round(float(np.percentile(values, q)), 4) for name, q in (("p50", 50), ("p95", 95), ("p99", 99))}


def _print(figures: dict[str, Any], started: dict[str, Any]) -> None:
    print(f"{started['cpu']}, {started['cores']} cores, load {started['load_before']} before")
    print(
        f"bundle {figures['bundle']}: {figures['items']} items, {figures['index']} index, "
        f"{figures['candidates_median']:.0f} candidates, {figures['people']} people x {figures['rounds']}"
    )
    for name in ("engine_ms", "bare_calls_ms", "engine_every_answer_ms"):
        print(f"{name:24}" + "  ".join(f"{k} {v:.3f}" for k, v in figures[name].items()))
    print(f"engine / bare calls     p50 {figures['ratio_p50']}  p99 {figures['ratio_p99']}")
    print("stages, median ms       " + "  ".join(f"{k} {v:.3f}" for k, v in figures["stages_ms_median"].items()))
    print(f"as one batch            {figures['batch_people_per_s']} people/s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
