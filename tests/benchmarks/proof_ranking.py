"""Ranking metrics of 100,000 people with lists of 100: every metric, intervals, a paired comparison; beside a rival.

    python tests/benchmarks/proof_ranking.py [people=100000] [sample=2000] [data=../shared/data]

The rival is what one would write first: scikit-learn's `ndcg_score` and set operations, one person at a time, on a
sample of the same lists; its time is scaled to all people. Its figures must equal ours. Time is that of the processor,
in seconds of one thread, so that what the machine does besides does not count; the clock's stands beside it. Where
MovieLens-1M is there, the same on real people: two simple recommenders, compared in pairs.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record

from playbill.measure.bootstrap import compare, intervals
from playbill.measure.ranking import Targets, coverage, targets_from_pairs, user_metrics
from playbill.measure.spread import catalogue_influence, diversity, exposures, gini, novelty, self_information

ITEMS, K, TARGETS = 20_000, 100, 10
KS = [10, 100]


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    people, sample = int(given.get("people", 100_000)), int(given.get("sample", 2_000))
    data = Path(given.get("data", os.environ.get("PLAYBILL_SHARED_DATA", "../shared/data")))
    started = machine()
    figures: dict[str, Any] = {"people": people, "items": ITEMS, "list_length": K, "ks": KS, "resamples": 2000}
    figures |= at_size(people, sample)
    if (data / "ml-1m" / "interactions.parquet").is_file():
        figures["ml-1m"] = on_movielens(data / "ml-1m")
    for name, found in figures.items():
        print(f"{name:22}", found)
    print(f"written to {record('ranking', figures, started)}")
    return 0


def at_size(people: int, sample: int) -> dict[str, Any]:
    """Return seconds of each part, the peak of memory, and the rival's time for as many people."""
    draw = np.random.default_rng(0)
    ours, theirs, targets, vectors = shop(draw, people)
    information = self_information(exposures(ours, K, ITEMS), people)
    before_mib = _peak_mib()
    took: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = call()
        took[name] = round(time.process_time() - began, 3)
        return result

    clock = time.perf_counter()
    first = timed("recall, ndcg, hit rate, mrr, map", lambda: user_metrics(ours, targets, KS, ITEMS))
    timed("coverage and gini", lambda: [(coverage(ours, k, ITEMS), gini(exposures(ours, k, ITEMS))) for k in KS])
    timed(
        "their intervals", lambda: catalogue_influence(np.repeat(np.arange(people), K), ours.ravel() - 1, people, ITEMS)
    )
    timed("novelty", lambda: [novelty(ours, k, information) for k in KS])
    timed("diversity", lambda: [diversity(ours, k, vectors) for k in KS])
    timed("intervals, 2000 resamples", lambda: intervals(first))
    second = user_metrics(theirs, targets, KS, ITEMS)
    timed("paired, 2000 resamples", lambda: compare(first, second))
    clock_s = time.perf_counter() - clock
    rival_s, far = rival(ours[:sample], targets.take(np.arange(sample)), first)
    return {
        "processor_s": took,
        "whole_processor_s": round(sum(took.values()), 2),
        "whole_clock_s": round(clock_s, 2),
        "added_memory_mib": round(_peak_mib() - before_mib),
        "rival_processor_s": round(rival_s * people / sample, 1),
        "rival_sample": sample,
        "rival_metrics": "recall, hit rate, mrr, map by sets and ndcg by scikit-learn, at 10 and 100",
        "rival_over_ours": round(rival_s * people / sample / took["recall, ndcg, hit rate, mrr, map"], 1),
        "largest_difference": far,
    }


def shop(draw: np.random.Generator, people: int) -> tuple[np.ndarray, np.ndarray, Targets, np.ndarray]:
    """Return lists of two recommenders [U, 100], targets, and item vectors [N, 64]."""
    lists = []
    for _ in range(2):
        steps = draw.integers(1, 2 * ITEMS // K - 1, size=(people, K)).cumsum(1)
        lists.append((draw.integers(ITEMS, size=(people, 1)) + steps) % ITEMS + 1)
        assert steps.max() < ITEMS * 2
    # a walk may come round: those lists start anew from a plain order
    for rows in lists:
        twice = (np.diff(np.sort(rows, axis=1), axis=1) == 0).any(1)
        rows[twice] = (draw.integers(ITEMS, size=(twice.sum(), 1)) + np.arange(K) * 7) % ITEMS + 1
    user = np.repeat(np.arange(people), TARGETS)
    item = draw.integers(1, ITEMS + 1, len(user))
    hit = draw.random(len(user)) < 0.2  # a fifth of the targets stand in the list
    item[hit] = lists[0][user[hit], draw.integers(0, K, hit.sum())]
    return lists[0], lists[1], targets_from_pairs(user, item, people), draw.normal(size=(ITEMS, 64))


def rival(lists: np.ndarray, targets: Targets, ours: dict[str, np.ndarray]) -> tuple[float, float]:
    """Return the processor seconds of a loop over people, and how far its figures lie from ours at most."""
    from sklearn.metrics import ndcg_score

    began = time.process_time()
    found: dict[str, list[float]] = {name: [] for name in ours}
    score = -np.arange(K, dtype=np.float64)
    for u, ranked in enumerate(lists):
        wanted = set(targets.item[targets.indptr[u] : targets.indptr[u + 1]].tolist())
        hit = np.array([i in wanted for i in ranked.tolist()], np.float64)
        # the targets that are not in the list stand behind it, else the best list would be too short
        relevant = np.concatenate([hit, np.ones(len(wanted) - int(hit.sum()))])
        order = np.concatenate([score, np.full(len(relevant) - K, -1e6)])
        for k in KS:
            top = hit[:k]
            places = np.flatnonzero(top)
            found[f"recall_at_{k}"].append(top.sum() / len(wanted))
            found[f"hit_rate_at_{k}"].append(float(len(places) > 0))
            found[f"mrr_at_{k}"].append(1 / (places[0] + 1) if len(places) else 0.0)
            precision = np.cumsum(top)[places] / (places + 1)
            found[f"map_at_{k}"].append(precision.sum() / min(k, len(wanted)))
            found[f"ndcg_at_{k}"].append(ndcg_score(relevant[None], order[None], k=k))
    took = time.process_time() - began
    return took, max(float(np.abs(np.asarray(v) - ours[n][: len(v)]).max()) for n, v in found.items())


def on_movielens(folder: Path) -> dict[str, Any]:
    """Return metrics of popularity and of the favourites of people alike, leave-last-out, paired: 6,040 people."""
    import pyarrow.parquet as pq
    from scipy import sparse

    rows = pq.read_table(folder / "interactions.parquet", columns=["user_id", "item_id", "order"]).to_pandas()
    rows = rows.sort_values(["user_id", "order"])
    user, item = (np.unique(rows[c], return_inverse=True)[1] for c in ("user_id", "item_id"))
    people, items = int(user.max()) + 1, int(item.max()) + 1
    last = np.append(user[1:] != user[:-1], True)
    seen = sparse.csr_array((np.ones((~last).sum()), (user[~last], item[~last])), shape=(people, items))
    targets = targets_from_pairs(user[last], item[last] + 1, people)
    known = np.asarray(seen.sum(0)).ravel()
    cosine = seen / np.maximum(np.sqrt(known), 1)
    scores = {"popularity": np.tile(known, (people, 1)), "item-kNN": (seen @ (cosine.T @ cosine)).toarray()}
    lists = {}
    for name, score in scores.items():
        score[seen.nonzero()] = -np.inf
        lists[name] = np.argsort(-score, axis=1, kind="stable")[:, :10] + 1
    found = {name: user_metrics(rows, targets, [10], items) for name, rows in lists.items()}
    information = self_information(known, people)
    figures: dict[str, Any] = {}
    for name, top in lists.items():
        means = intervals(found[name] | {"novelty_at_10": novelty(top, 10, information)})
        figures[name] = {m: [round(x, 4) for x in (i.value, i.low, i.high)] for m, i in means.items()}
        figures[name] |= {"coverage_at_10": coverage(top, 10, items), "gini_at_10": gini(exposures(top, 10, items))}
    paired = compare(found["item-kNN"], found["popularity"])
    figures["item-kNN - popularity"] = {m: [round(x, 4) for x in (i.value, i.low, i.high)] for m, i in paired.items()}
    return figures


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
