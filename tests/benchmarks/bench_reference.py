"""The reference request against its limit: the same people, in turn, in one process and one run.

    python tests/benchmarks/bench_reference.py home=DIR [bundle=NEWEST] [people=300] [rounds=7] [surface=slate]

Needs the home of `reference_home.py`: 100,000 items, width 64, 200 candidates from the index, a ranker of about 200,000
parameters, creatives by Thompson sampling, exploration, reasons, 20 results. Right after the engine has answered a
person, the very calls into FAISS and ONNX Runtime that it made are made once more, alone: the search with the engine's
own parameters, the graphs with bound buffers. That sum is the limit; what the engine takes beyond it is glue.

Three limits are shown: of retrieving and ranking (query tower, search, ranker), with the creative head's graph too, and
with the runs of tower and ranker that reasons ask for, which name what moves a score (`engine.falls`).
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record

from playbill.bundle.open import open_bundle
from playbill.engine.engine import Engine
from playbill.engine.runtime import Model
from playbill.engine.types import Request
from playbill.index import search as search_module
from playbill.state.store import Store

K = 20
AGAIN = "asked again"  # by reasons: without some items of the history


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    home = Path(given.get("home", "var"))
    started = machine()
    version = given.get("bundle") or newest(home / "bundles")
    bundle = open_bundle(home / "bundles" / version, require_sealed=False, verify=False)
    with Store.open(home / "state", readonly=True) as store:
        engine = Engine.open(bundle, store)
        people = people_of(store, engine, int(given.get("people", 300)))
        figures = measure(engine, people, int(given.get("rounds", 7)), given.get("surface", "slate"))
    show(figures)
    print(f"written to {record('reference', figures, started)}")
    return 0


def measure(engine: Engine, people: list[int | str], rounds: int, surface: str) -> dict[str, Any]:
    """Return milliseconds of the engine and of its bare calls, the best round of each person."""
    calls = Calls(engine)
    requests = [Request(user_id=p, session_id=f"visit-{p}", request_id=str(p), k=K, surface=surface) for p in people]
    shape = (rounds, len(people))
    whole, bare = np.full(shape, np.inf), {name: np.full(shape, np.inf) for name in (*Calls.NAMES, AGAIN)}
    stages: dict[str, np.ndarray] = {}
    for request in requests[:20]:
        engine.decide([request])
    kept, ranked = [], []
    for turn in range(rounds):
        for i, request in enumerate(requests):
            calls.seen.clear()
            before = len(calls.ranked)
            began = time.perf_counter()
            [slate], _ = engine.decide([request])
            whole[turn, i] = time.perf_counter() - began
            for stage, took_ms in engine.stage_ms.items():
                stages.setdefault(stage, np.full(shape, np.inf))[turn, i] = took_ms
            ranked += calls.ranked[before : before + 1]  # those behind it are what reasons ask
            if turn == 0:
                kept.append(slate.rung == "full" and len(slate.items) == K and "search" in {n for n, _ in calls.seen})
            met: set[str] = set()
            for name, call in list(calls.seen):
                ready = call()
                began = time.perf_counter()
                ready()
                took = time.perf_counter() - began
                if name not in met:
                    bare[name][turn, i] = took
                elif np.isfinite(bare[AGAIN][turn, i]):
                    bare[AGAIN][turn, i] += took
                else:
                    bare[AGAIN][turn, i] = took
                met.add(name)
    mine = np.flatnonzero(kept)
    if not len(mine):
        raise SystemExit("nobody got a full slate out of the index; see playbill ask")
    best = {name: np.where(np.isfinite(t), t, 0).min(0)[mine] * 1e3 for name, t in bare.items()}
    whole_ms = whole.min(0)[mine] * 1e3
    limit = best["query_tower"] + best["search"] + best["ranker"]
    head = limit + best["creative_head"]
    reasons = head + best[AGAIN]
    return {
        "bundle": engine.bundle.version,
        "surface": surface,
        "items": engine.catalogue.num_items,
        "index": engine.describe()["index"],
        "width": int(engine.parts.embeddings.shape[1]) if engine.parts.embeddings is not None else 0,
        "threads": engine.settings.threads,
        "candidates_median": float(np.median(ranked)),
        "creatives_scored_median": float(np.median(calls.headed)) if calls.headed else 0.0,
        "people": len(mine),
        "rounds": rounds,
        "engine_ms": percentiles(whole_ms),
        "limit_ms": percentiles(limit),
        "limit_with_head_ms": percentiles(head),
        "limit_with_reasons_ms": percentiles(reasons),
        "calls_ms_median": {name: round(float(np.median(took)), 4) for name, took in best.items()},
        "stages_ms_best": {s: round(float(np.median(took.min(0)[mine])), 4) for s, took in stages.items()},
        "ratio_p50": ratio(whole_ms, limit),
        "ratio_with_head_p50": ratio(whole_ms, head),
        "ratio_with_reasons_p50": ratio(whole_ms, reasons),
        "glue_ms_p50": round(float(np.median(whole_ms - reasons)), 3),
    }


class Calls:
    """Notes the calls into ONNX Runtime and FAISS, as functions that make them ready to be made again alone."""

    NAMES = ("query_tower", "search", "ranker", "creative_head")

    def __init__(self, engine: Engine) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.ranked: list[int] = []
        self.headed: list[int] = []
        for model in engine.parts.models:
            model.session = _Session(self, model)
        approximate, flat = search_module._approximate, search_module._flat

        def noted_approximate(index: Any, queries: np.ndarray, k: int, eligible: Any, effort: int) -> Any:
            wanted = min(round(index.route.rescore * k), len(index))
            params = search_module.parameters(index, effort, wanted, eligible)
            again = index.faiss_index.search
            self.seen.append(("search", lambda: lambda: again(queries, wanted, params=params)))
            return approximate(index, queries, k, eligible, effort)

        def noted_flat(index: Any, queries: np.ndarray, k: int, eligible: Any) -> Any:
            self.seen.append(("search", lambda: lambda: index.faiss_index.search(queries, k)))
            return flat(index, queries, k, eligible)

        search_module._approximate, search_module._flat = noted_approximate, noted_flat


class _Session:
    def __init__(self, calls: Calls, model: Model) -> None:
        self._calls, self._session, self._name = calls, model.session, model.name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, outputs: list[str], arrays: dict[str, np.ndarray]) -> Any:
        self._calls.seen.append((self._name, lambda: _bound(self._session, outputs, arrays)))
        counts = {"ranker": self._calls.ranked, "creative_head": self._calls.headed}.get(self._name)
        if counts is not None:
            counts.append(len(arrays["item_index"]))
        return self._session.run(outputs, arrays)


def _bound(session: Any, outputs: list[str], arrays: dict[str, np.ndarray]) -> Any:
    """Return the run alone, its buffers bound; run once, so that its outputs have theirs."""
    binding = session.io_binding()
    for name, array in arrays.items():
        binding.bind_cpu_input(name, np.ascontiguousarray(array))
    for name in outputs:
        binding.bind_output(name)
    return lambda: session.run_with_iobinding(binding)


def newest(folder: Path) -> str:
    """Return the bundle that was written last."""
    found = [path for path in folder.iterdir() if (path / "rungs.json").is_file()]
    return max(found, key=lambda path: path.stat().st_mtime).name


def percentiles(values: np.ndarray) -> dict[str, float]:
    return {name: round(float(np.percentile(values, q)), 4) for name, q in (("p50", 50), ("p95", 95), ("p99", 99))}


def ratio(whole: np.ndarray, limit: np.ndarray) -> float:
    return round(float(np.median(whole) / np.median(limit)), 3)


def people_of(store: Store, engine: Engine, most: int) -> list[int | str]:
    """Return people who get a whole slate on the best rung, spread over the first events of the store.

    Others, without consent or a past that counts, are answered with what is popular in a fifth of the time.
    """
    first = itertools.islice(store.events(), 200_000)
    found = sorted({event.user_id for _, _, event in first if event.user_id is not None}, key=str)
    order = np.random.default_rng(0).permutation(len(found)).tolist()
    slates = (engine.recommend([Request(user_id=found[i], k=K)])[0] for i in order)
    mine = (i for i, slate in zip(order, slates, strict=False) if slate.rung == "full" and len(slate.items) == K)
    return [found[i] for i in sorted(itertools.islice(mine, most))]


def show(figures: dict[str, Any]) -> None:
    print(
        f"bundle {figures['bundle']}, surface {figures['surface']}: {figures['items']:,} items of width "
        f"{figures['width']}, {figures['index']}, {figures['candidates_median']:.0f} candidates, "
        f"{figures['creatives_scored_median']:.0f} creatives, {figures['people']} people x {figures['rounds']}"
    )
    for name in ("engine_ms", "limit_ms", "limit_with_head_ms", "limit_with_reasons_ms"):
        print(f"{name:22}" + "  ".join(f"{k} {v:.3f}" for k, v in figures[name].items()))
    print("calls, median ms    " + "  ".join(f"{k} {v:.3f}" for k, v in figures["calls_ms_median"].items()))
    print("stages, median ms   " + "  ".join(f"{k} {v:.3f}" for k, v in figures["stages_ms_best"].items()))
    print(
        f"engine / limit p50 {figures['ratio_p50']}, with the head's graph {figures['ratio_with_head_p50']}, "
        f"with what reasons ask {figures['ratio_with_reasons_p50']}; "
        f"glue {figures['glue_ms_p50']} ms"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
