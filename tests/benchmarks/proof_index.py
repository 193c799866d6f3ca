"""The index on real embeddings, beside hnswlib and usearch, in one run and on one thread.

    python tests/benchmarks/proof_index.py home=var [sizes=10000,100000,1000000] [widths=64,128] [queries=300]
        [kinds=auto,flat,ivf_sq8,ivf_pq,hnsw] [rivals=hnswlib,usearch] [graph_limit=1000000] [threads=0]
        [people=N] [days=N] [epochs=N] [name=index]

Ten million items, without rivals: name=index-10m sizes=10000000 widths=64 kinds=auto rivals= (30 minutes on a core).

Vectors are those of towers trained on a simulated service of 100,000 items (world_embeddings.py makes and keeps them):
an even draw of them below that size, and a sampling around them above it, whose likeness to real ones is measured on a
held-out size and printed first (scaled_vectors.py). Every index, ours and the rivals', is tuned on one part of the real
queries to the least effort with recall@200 >= 0.95 and measured on others. The best of three rounds counts for each
query. `pip install hnswlib usearch` brings the rivals; one that is not installed is left out, and the result says so.

Also measured: filters (500 items left out; 50, 20, 10, 1 and 0.1 % eligible, drawn evenly), changes (1 % fresh, 1 %
removed, and how long until the next search shows them), and recall against time at all efforts, for the plot.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from index_fresh import fresh_items
from index_plot import plot
from index_rivals import RIVALS, Rival
from record import RESULTS, commit, machine, record
from scaled_vectors import likeness, scaled
from world_embeddings import embeddings

from playbill.errors import SearchError
from playbill.index.build import build_index
from playbill.index.filters import exact, prepare
from playbill.index.item_index import ItemIndex, route_path, routed, set_threads, write_index
from playbill.index.live import live, search_live, with_items, without
from playbill.index.route import Step
from playbill.index.search import search
from playbill.index.settings import IndexSettings, Kind
from playbill.index.tune import tune_index
from playbill.tables.files import write_atomic

REAL = 100_000
K = 200
FLOOR = 0.95
SHARES = (0.5, 0.2, 0.1, 0.01, 0.001)
ROUNDS = 3
SEEN = 500


def main(arguments: list[str]) -> int:
    """Measure, print, plot and record."""
    given = dict(a.split("=", 1) for a in arguments)
    home, started = Path(given.get("home", "var")), machine()
    sizes = [int(s) for s in given.get("sizes", "10000,100000,1000000").split(",")]
    kinds = [Kind(k) for k in given.get("kinds", "auto,flat,ivf_sq8,ivf_pq,hnsw").split(",")]
    rivals = [r for r in given.get("rivals", "hnswlib,usearch").split(",") if r]
    world = {name: int(given[name]) for name in ("people", "days", "epochs") if name in given}
    figures: dict[str, Any] = {"k": K, "recall_floor": FLOOR, "threads_of_a_search": 1, "likeness": {}, "runs": []}
    print(f"{started['cpu']}, {started['cores']} cores, load {started['load_before']} before", flush=True)
    for width in [int(w) for w in given.get("widths", "64,128").split(",")]:
        folder = embeddings(home, REAL, width, **world)
        items, asked = np.load(folder / "items.npy"), np.load(folder / "queries.npy")
        asked = asked[np.random.default_rng(0).permutation(len(asked))]
        if max(sizes) > REAL:
            set_threads(0)
            figures["likeness"][str(width)] = likeness(items, asked)
            for name, told in figures["likeness"][str(width)].items():
                print(f"width {width}, {name}: {told}", flush=True)
        if (folder / "bundle").is_file():
            told = fresh_items(Path((folder / "bundle").read_text().strip()))
            figures.setdefault("fresh_items_in_the_engine", {})[str(width)] = told
            for row in told:
                print(f"width {width}, new items in the engine: {row}", flush=True)
        for size in sizes:
            vectors = _vectors(items, size)
            limit = int(given.get("graph_limit", 1_000_000))
            mine = [k for k in kinds if size <= limit or k is not Kind.hnsw]
            theirs = [RIVALS[r] for r in rivals if size <= limit]
            queries = int(given.get("queries", 300))
            count = min(queries, len(asked) // 3)
            kept = home / "proof_index" / f"{width}-{size}-{_hash(vectors, mine, theirs, count, given)}.json"
            if not kept.is_file():  # a run that was stopped goes on with the next size
                run = measure(vectors, asked, mine, theirs, count, int(given.get("threads", 0)))
                write_atomic(kept, json.dumps(run).encode())
            figures["runs"].append(json.loads(kept.read_bytes()))
            print_run(figures["runs"][-1])
    name = given.get("name", "index")
    path = record(name, figures, started)
    plot(figures, RESULTS / f"{name}_recall.png")
    print(f"written to {path}")
    return 0


def _hash(vectors: np.ndarray, kinds: list[Kind], rivals: list[Rival], count: int, given: dict[str, str]) -> str:
    """Return what tells one measurement from another: vectors, code, who is measured, and how often."""
    asked = [[k.value for k in kinds], [r.name for r in rivals], count, given.get("threads", "0"), commit()]
    return hashlib.sha256(vectors[:1000].tobytes() + json.dumps(asked).encode()).hexdigest()[:12]


def measure(
    items: np.ndarray, asked: np.ndarray, kinds: list[Kind], rivals: list[Rival], count: int, threads: int
) -> dict[str, Any]:
    """Return what each index reaches on one set of vectors.

    Args:
        items: [N + 1, d]; `asked` [Q, d], of which the first `count` measure and the others tune.
        threads: of builds; 0 = all cores. Searches have one.
    """
    queries, tuning = np.ascontiguousarray(asked[:count]), np.ascontiguousarray(asked[count:])
    everything = np.ones(len(items), bool)
    set_threads(threads)
    truth = exact(items, queries, SEEN + K, everything)
    seen = truth[1][:, :SEEN]  # the worst case: just what is nearest was seen
    rng = np.random.default_rng(3)
    masks = {share: rng.random(len(items)) < share for share in SHARES}
    inside = {share: exact(items, queries, K, mask)[0] for share, mask in masks.items()}
    found = []
    for kind in kinds:
        began = time.perf_counter()
        made = IndexSettings(kind=kind, recall_floor=FLOOR, sample_queries=768, threads=threads)
        built = build_index(items, np.arange(1, len(items)), made)
        build_s = time.perf_counter() - began
        set_threads(1)
        try:
            index, report = tune_index(built, tuning, replace(made, threads=1))
        except SearchError as error:
            found.append({"kind": kind.value, "missed": str(error)})
            continue
        set_threads(1)
        row: dict[str, Any] = {
            "kind": kind.value if kind is not Kind.auto else f"auto: {index.kind.value}",
            "build_s": round(build_s, 2),
            "tune_s": report.build_s,
            "mib": round(_size_mib(index), 1),
            "effort": report.effort,
            "hot": report.num_hot,
            "rescore": report.rescore,
            "narrow": report.narrow,
            "given_up": report.given_up,
            **_timed(lambda q, index=index: search(index, q, K)[0][0], queries, truth[0], len(index)),
            "recall_at_100": _recall([search(index, q[None], 100)[0][0] for q in queries], truth[0][:, :100]),
            "recall_of_items_that_are_not_hot": _tail(index, queries, truth[1][:, :K]),
        }
        left = [seen[[i]] for i in range(count)]
        row["exclude_500"] = _timed_each(
            lambda i, index=index, left=left: search(index, queries[[i]], K, left[i])[0][0], truth[0][:, SEEN:]
        )
        row["filters"] = {}
        for share, mask in masks.items():
            ready = prepare(index, mask)
            row["filters"][f"{share:g}"] = _timed(
                lambda q, index=index, ready=ready: search(index, q, K, None, ready)[0][0],
                queries,
                inside[share],
                int(mask[1:].sum()),
            )
        row["a_mask_of_10_percent_not_prepared"] = _timed(
            lambda q, index=index: search(index, q, K, None, masks[0.1])[0][0], queries, inside[0.1], len(index)
        )
        row["changes"] = _changes(index, queries)
        row["curve"] = _curve(index, queries, truth[0])
        found.append(row)
        print(f"  {row['kind']}: {row['p50_ms']} ms at {row['recall']}", flush=True)
    others = [_rival(rival, items, tuning[:300], queries, truth[0], seen, masks, inside) for rival in rivals]
    return {"items": len(items) - 1, "width": items.shape[1], "queries": count, "ours": found, "rivals": others}


def _rival(
    rival: Rival,
    items: np.ndarray,
    tuning: np.ndarray,
    queries: np.ndarray,
    truth: np.ndarray,
    seen: np.ndarray,
    masks: dict[float, np.ndarray],
    inside: dict[float, np.ndarray],
) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        index = rival(items)
    except ImportError as error:
        return {"kind": rival.name, "missed": f"not installed ({error})"}
    row: dict[str, Any] = {
        "kind": rival.name,
        "version": index.version,
        "build_s": round(time.perf_counter() - began, 2),
    }
    row["mib"] = round(index.size_bytes() / 2**20, 1)

    def answer(query: np.ndarray, effort: int, mask: np.ndarray | None = None, extra: int = 0) -> np.ndarray:
        ids = index.search(query[0], K + extra, effort, mask)
        scores: np.ndarray = items[ids] @ query[0]
        return scores

    best = exact(items, tuning, K, np.ones(len(items), bool))[0]
    efforts = [K, 250, 320, 400, 500, 640, 800, 1_000, 1_300, 1_600, 2_000, 2_600, 3_200, 4_000, 6_400, 12_800]
    tried = {}
    for effort in [e for e in efforts if e < len(items)]:
        tried[effort] = _recall([answer(q[None], effort) for q in tuning], best)
        if tried[effort] >= FLOOR:
            break
    effort = max(tried)
    row |= {"effort": effort, "tried": tried, "reaches_the_floor": tried[effort] >= FLOOR}
    row |= _timed(lambda q: answer(q, effort), queries, truth, len(items))
    row["recall_at_100"] = _recall([items[index.search(q, 100, effort)] @ q for q in queries], truth[:, :100])

    def without_seen(i: int) -> np.ndarray:
        ids = index.search(queries[i], K + SEEN, max(effort, K + SEEN))
        ids = ids[~np.isin(ids, seen[i])][:K]
        scores: np.ndarray = items[ids] @ queries[i]
        return scores

    row["exclude_500"] = _timed_each(without_seen, truth[:, SEEN:], len(queries))
    if index.filters:
        few = queries[:20]  # a Python call an item it meets
        row["filters"] = {
            f"{share:g}": _timed(lambda q, m=mask: answer(q, effort, m), few, inside[share][:20], int(mask[1:].sum()))
            for share, mask in masks.items()
        }
    else:
        row["filters"] = "offers none in Python"
    row["curve"] = {
        str(e): {
            **_timed(lambda q, e=e: answer(q, e), queries[:100], truth[:100], len(items)),
        }
        for e in sorted({K, 400, 800, 1_600, *tried})
        if e < len(items)
    }
    print(f"  {rival.name}: {row['p50_ms']} ms at {row['recall']}", flush=True)
    return row


def _changes(index: ItemIndex, queries: np.ndarray) -> dict[str, Any]:
    """Return times and recall with 1 % of fresh items and 1 % of tombstones, and how long a change takes to show."""
    size, rng = len(index.embeddings), np.random.default_rng(4)
    count = max(1, size // 100)
    fresh = scaled_like(index.embeddings, count, rng)
    gone = rng.permutation(size - 1)[:count] + 1
    state = without(with_items(live(index), np.arange(size, size + count), fresh), gone)
    began = time.perf_counter()
    newer = with_items(state, np.array([size + count]), queries[:1])
    [first] = search_live(newer, queries[:1], 1)[1]
    shown_s = time.perf_counter() - began
    assert first.tolist() == [size + count], "the fresh item is its own nearest"
    began = time.perf_counter()
    last = without(newer, np.array([size + count]))
    [after] = search_live(last, queries[:1], 1)[1]
    gone_s = time.perf_counter() - began
    assert after.tolist() != [size + count]
    whole, there = np.concatenate([index.embeddings, fresh]), np.ones(size + count, bool)
    there[gone] = False
    return {
        "fresh": count,
        "removed": count,
        "ms_until_a_fresh_item_shows": round(shown_s * 1e3, 2),
        "ms_until_a_removed_item_is_gone": round(gone_s * 1e3, 2),
        **_timed(lambda q: search_live(state, q, K)[0][0], queries, exact(whole, queries, K, there)[0], size),
    }


def scaled_like(items: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return [count, d] vectors near random items."""
    near = items[rng.integers(1, len(items), count)] + rng.normal(size=(count, items.shape[1])) * 0.03
    found: np.ndarray = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    return found


def _curve(index: ItemIndex, queries: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    if index.kind is Kind.flat:
        return {}
    efforts = (K, 400, 800, 1_600) if index.kind is Kind.hnsw else (1, 4, 16, 64, 128, 256, 512)
    found = {}
    for effort in sorted({*efforts, index.route.effort(K, 1.0, 1)}):
        one = routed(index, msgspec.structs.replace(index.route, steps=[Step(depth=10**9, effort=effort)]))
        found[str(effort)] = _timed(lambda q, one=one: search(one, q, K)[0][0], queries[:100], truth[:100], len(index))
    return found


def _tail(index: ItemIndex, queries: np.ndarray, best: np.ndarray) -> float | None:
    """Return the share of the exact answers outside the hot items that are found, None where nothing is hot."""
    if not index.route.hot:
        return None
    found = search(index, queries, K)[1]
    hits = total = 0
    for want, got in zip(best, found, strict=True):
        tail = want[~np.isin(want, index.route.hot)]
        hits, total = hits + int(np.isin(tail, got).sum()), total + len(tail)
    return round(hits / total, 4) if total else None


def _timed(run: Any, queries: np.ndarray, truth: np.ndarray, eligible: int) -> dict[str, float]:
    return _timed_each(lambda i: run(queries[[i]]), truth[:, :eligible], len(queries))


def _timed_each(run: Any, truth: np.ndarray, count: int | None = None) -> dict[str, float]:
    """Return recall and times of `run(i)`, which gives the scores of what it found for query i."""
    count = len(truth) if count is None else count
    best, answers = np.full(count, np.inf), [run(i) for i in range(count)]
    for _ in range(ROUNDS):
        for i in range(count):
            began = time.perf_counter()
            run(i)
            best[i] = min(best[i], time.perf_counter() - began)
    p50, p99 = np.percentile(best * 1e3, [50, 99])
    return {"recall": _recall(answers, truth[:, :K]), "p50_ms": round(float(p50), 4), "p99_ms": round(float(p99), 4)}


def _recall(answers: list[np.ndarray], truth: np.ndarray) -> float:
    """Return the mean share of the exact answer; what scores as its last does is as right."""
    if not truth.shape[1]:
        return 1.0
    least = truth[:, -1] - 1e-5
    hits = [np.count_nonzero(got >= low) / truth.shape[1] for got, low in zip(answers, least, strict=True)]
    return round(float(np.mean(np.minimum(hits, 1))), 4)


def _vectors(items: np.ndarray, size: int) -> np.ndarray:
    if size <= len(items) - 1:
        rows = np.sort(np.random.default_rng(1).permutation(len(items) - 1)[:size]) + 1
        return np.concatenate([items[:1], items[rows]])
    set_threads(0)
    return scaled(items, size)


def _size_mib(index: ItemIndex) -> float:
    """Return the size of the index's files; the exact vectors beside them are the bundle's and come on top."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.faiss"
        write_index(index, path)
        return (os.path.getsize(path) + os.path.getsize(route_path(path))) / 2**20


def print_run(run: dict[str, Any]) -> None:
    """Print one size as a table, times in milliseconds."""
    print(f"\n{run['items']:,} items, width {run['width']}, {run['queries']} queries, k {K}")
    heads = ("index", "recall", "@100", "p50", "p99", "build s", "MiB", "-500", "50 %", "10 %", "1 %", "1 % recall")
    print("".join(f"{h:>18}" if h == "index" else f"{h:>11}" for h in heads))
    for row in [*run["ours"], *run["rivals"]]:
        if "missed" in row:
            print(f"{row['kind']:>18}  {row['missed']}")
            continue
        shares = row["filters"] if isinstance(row["filters"], dict) else {}
        cells = [row["recall"], row["recall_at_100"], row["p50_ms"], row["p99_ms"], row["build_s"], row["mib"]]
        cells += [row["exclude_500"]["p50_ms"], *(shares.get(s, {}).get("p50_ms", "-") for s in ("0.5", "0.1", "0.01"))]
        cells.append(shares.get("0.01", {}).get("recall", "-"))
        print(f"{row['kind']:>18}" + "".join(f"{c:>11}" for c in cells), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
