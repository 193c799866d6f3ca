"""An index in parts: the same answers as the whole, what a call of a part takes, and what many parts would.

    python tests/benchmarks/proof_shards.py home=var [items=1000000] [width=64] [parts=4] [requests=2000] [kind=auto]
        [world=100000] [people=N] [days=N] [epochs=N]

Vectors are those of towers trained on a simulated service of 100,000 items, and a sampling around them above that size
(see proof_index.py). The index is tuned, split, and asked in three ways, on one thread each: whole, its parts in this
process, and its parts as actors of the server behind Ray: one call at a time, and all parts at once. From the single
calls the time of 4 to 256 parts is simulated, with and without hedged requests (shard_tails.py). Memory is measured as
bytes an item by kind of index.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from proof_index import FLOOR, REAL, K, _recall, _size_mib, _vectors
from record import RESULTS, machine, record
from shard_tails import FAN_OUT, beside, plot, simulate
from world_embeddings import embeddings

from playbill.index.build import build_index
from playbill.index.filters import exact
from playbill.index.item_index import ItemIndex, read_index, set_threads, write_index
from playbill.index.live import live, search_live
from playbill.index.search import Found
from playbill.index.settings import IndexSettings, Kind
from playbill.index.shard import Shard, in_process
from playbill.index.sharded import Ask, sharded
from playbill.index.split import merge, split
from playbill.index.tune import tune_index

WARM = 50


def main(arguments: list[str]) -> int:
    """Measure, simulate, print, plot and record."""
    given = dict(a.split("=", 1) for a in arguments)
    home, started = Path(given.get("home", "var")), machine()
    size, width, parts = int(given.get("items", 1_000_000)), int(given.get("width", 64)), int(given.get("parts", 4))
    requests = int(given.get("requests", 2_000))
    world = {name: int(given[name]) for name in ("people", "days", "epochs") if name in given}
    folder = embeddings(home, int(given.get("world", REAL)), width, **world)
    items, asked = np.load(folder / "items.npy"), np.load(folder / "queries.npy")
    asked = np.ascontiguousarray(asked[np.random.default_rng(0).permutation(len(asked))])
    items = _vectors(items, size)
    queries, tuning = asked[: min(300, len(asked) // 3)], asked[len(asked) // 3 :]
    made = IndexSettings(kind=Kind(given.get("kind", "auto")), recall_floor=FLOOR, sample_queries=768, threads=0)
    set_threads(0)
    index, report = tune_index(build_index(items, np.arange(1, len(items)), made), tuning, made)
    set_threads(1)
    truth = exact(items, queries, K, np.ones(len(items), bool))[0]
    whole, shards = live(index), []
    began = time.perf_counter()
    for part in range(parts):
        shards.append(Shard(split(index, part, parts)))
    split_s = time.perf_counter() - began
    state = sharded(index, parts, in_process(shards))
    figures: dict[str, Any] = {
        "items": size, "width": int(items.shape[1]), "kind": index.kind.value, "effort": report.effort, "parts": parts,
        "k": K, "recall_floor": FLOOR, "split_s": round(split_s, 2),
        "whole": _asked(lambda q: search_live(whole, q, K), queries, truth, requests),
        "parts_in_one_process": _asked(lambda q: search_live(state, q, K), queries, truth, requests),
        "one_part": _asked(lambda q: shards[0].answer(Ask("", q, K)), queries, None, requests),
        "bytes_an_item": _memory(index, items),
        "merge_ms": {str(n): round(ms, 4) for n, ms in _merging(state, queries).items()},
    }  # fmt: skip
    print(f"{size:,} items as {index.kind.value}: whole {figures['whole']}")
    print(
        f"{parts} parts in one process {figures['parts_in_one_process']}; one of them {figures['one_part']}", flush=True
    )
    calls, at_once = _actors(home, index, parts, queries, requests)
    figures["actors"] = {
        "requests": len(calls),
        "one_call": dict(zip(("p50_ms", "p95_ms", "p99_ms"), _three(calls.ravel()), strict=True)),
        "all_parts_at_once_on_these_cores": beside(calls.ravel(), at_once),
    }
    merge_ms = {int(n): ms for n, ms in figures["merge_ms"].items()}
    figures["fan_out"] = simulate(calls.ravel(), merge_ms)
    print(f"actors: {figures['actors']}")
    for row in figures["fan_out"]:
        print(row, flush=True)
    name = "shards" if size == 1_000_000 else f"shards-{size}"
    title = (
        f"parts of {size // parts:,} items ({index.kind.value}), recall@{K} >= {FLOOR}; simulated from measured calls"
    )
    plot(figures["fan_out"], title, RESULTS / f"{name}_tails.png")
    print(f"written to {record(name, figures, started)}")
    return 0


def _asked(search: Any, queries: np.ndarray, truth: np.ndarray | None, requests: int) -> dict[str, float]:
    """Return percentiles of the time of one query at a time, and the recall where the truth is given."""
    took = np.empty(requests)
    for i in range(-WARM, requests):
        began = time.perf_counter()
        search(queries[[i % len(queries)]])
        if i >= 0:
            took[i] = (time.perf_counter() - began) * 1e3
    row = dict(zip(("p50_ms", "p95_ms", "p99_ms"), _three(took), strict=True))
    if truth is not None:
        row["recall"] = _recall([search(query[None])[0][0] for query in queries], truth)
    return row


def _merging(state: Any, queries: np.ndarray) -> dict[int, float]:
    """Return the median time of merging what so many parts found, ms."""
    scores, found = search_live(state, queries[:1], K)
    some: Found = (scores, found)
    took = {}
    for parts in FAN_OUT:
        times = []
        for _ in range(50):
            began = time.perf_counter()
            merge([some] * parts, K)
            times.append((time.perf_counter() - began) * 1e3)
        took[parts] = float(np.median(times))
    return took


def _memory(index: ItemIndex, items: np.ndarray) -> dict[str, float]:
    """Return bytes an item of each kind of index, as its file holds them, and of the exact vectors beside it."""
    some = items[: min(len(items), 100_001)]
    found = {"exact vectors": 4.0 * items.shape[1], "a mask of the eligible": 1 / 8}
    for kind in (Kind.ivf_sq8, Kind.ivf_pq, Kind.hnsw, Kind.flat):
        links = {"links": 16} if kind is Kind.hnsw else {}
        built = build_index(some, np.arange(1, len(some)), IndexSettings(kind=kind, threads=0, **links))
        found[kind.value] = round(_size_mib(built) * 2**20 / (len(some) - 1), 1)
    found[f"{index.kind.value} of all"] = round(_size_mib(index) * 2**20 / (len(items) - 1), 1)
    set_threads(1)
    return found


def _actors(
    home: Path, index: ItemIndex, parts: int, queries: np.ndarray, requests: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return times of calls of Ray actors, [requests, parts] ms: one call at a time, and all parts asked at once."""
    from playbill.serving.ray_local import local_ray

    place = home / "proof_shards"
    place.mkdir(parents=True, exist_ok=True)
    write_index(index, place / "items.faiss")
    np.save(place / "items.npy", index.embeddings)
    with local_ray(parts + 1, 100, {"RAY_BACKEND_LOG_LEVEL": "fatal"}):
        import ray

        from playbill.serving.shards import IndexPart

        class Part(IndexPart):
            """The server's own actor, opened from files that are no bundle's."""

            def open(self, version: str) -> int:
                set_threads(1)
                folder = Path(version)
                whole = read_index(folder / "items.faiss", np.load(folder / "items.npy", mmap_mode="r"))
                self._shards[version] = Shard(split(whole, self._part, self._parts))
                return len(self._shards[version])

        actors = [ray.remote(Part).options(num_cpus=1).remote("", part, parts) for part in range(parts)]
        version = str(place.absolute())
        held = ray.get([actor.open.remote(version) for actor in actors])
        assert sum(held) == len(index), held
        alone, took = np.empty((requests, parts)), np.empty((requests, parts))
        for i in range(-WARM, requests):
            ask = Ask("", queries[[i % len(queries)]], K)
            for part, actor in enumerate(actors):
                began = time.perf_counter()
                ray.get(actor.search.remote(version, ask))
                alone[i, part] = (time.perf_counter() - began) * 1e3  # warming up comes first, and is written over
            began = time.perf_counter()
            waiting = {actor.search.remote(version, ask): part for part, actor in enumerate(actors)}
            while waiting:
                [done, *_], _ = ray.wait(list(waiting), num_returns=1)
                ray.get(done)
                part = waiting.pop(done)
                took[i, part] = (time.perf_counter() - began) * 1e3
    return alone, took


def _three(ms: np.ndarray) -> list[float]:
    return [round(float(p), 3) for p in np.percentile(ms, [50, 95, 99])]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
