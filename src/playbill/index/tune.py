"""Tuning: the fastest way to search an index that still finds what exact search finds, measured on real queries.

A third of the queries says which items are hot (see `search`), a third chooses among settings, and the last says what
was reached. An approximate index that is no faster than exact search at the floor is given up for a flat one where the
kind was left open.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from playbill.errors import SearchError
from playbill.index.build import build_index
from playbill.index.filters import Eligible, exact_rows, prepare, top
from playbill.index.item_index import ItemIndex, routed, set_threads
from playbill.index.route import Route, Step
from playbill.index.search import search
from playbill.index.settings import IndexSettings, Kind

DEPTHS = (1, 2, 5, 10, 20, 50, 100)  # times recall_k: filters that leave a tenth look ten times as deep
WIDEST = 10  # times recall_k are asked for themselves; it is filters alone that look deeper
# of the items, at which exact search and the index are timed against each other
SHARES = (0.5, 0.35, 0.2, 0.15, 0.1, 0.05, 0.02)
NARROW = (0.1, 0.5)  # `narrow` is at least the one for recall, or what `exact_rows` are; at most the other for memory
HOT = (0, 1_000, 4_000)  # most hot items that are tried, as long as they are not more than a tenth of all
RESCORE = {Kind.flat: (1.0,), Kind.hnsw: (1.0,), Kind.ivf_sq8: (1.25,), Kind.ivf_pq: (2.0, 4.0, 10.0)}
Z95 = 1.645  # one-sided

_MASKS = 8  # draws of a filter, each for its part of the queries
_TIMED = 24  # queries of one timing
_ROUNDS = 3
_STRIDE = 4  # efforts, each a fifth more than the one before
_ROUNDING = 1e-6  # of a float32 product of unit vectors


class IndexReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a build reached; written to report/index.json.

    Attributes:
        effort: lists visited (ivf) or candidates kept (hnsw) by a search for `recall_k`; 0 where the kind has none.
        recall: mean share of the exact top `recall_k` that the index finds, 0..1, over `num_queries` that took no part
            in tuning (unless there were fewer than 30 in all); `recall_low` is its lower bound at 95 %.
        num_hot: items that every search compares with.
        tried: recall among the tuning queries by effort.
        steps, narrow, rescore: see `Route`.
        search_ms, exact_ms: median time of one query for `recall_k`, one thread, by this index and by exact search.
        filtered_ms: by share of eligible items, [by this index, exactly], where timed.
        given_up: why the kind that the size suggests was not kept.
    """

    kind: str
    num_items: int
    width: int
    num_lists: int
    effort: int
    rescore: float
    narrow: float
    num_hot: int
    steps: list[Step]
    recall_k: int
    recall: float
    recall_low: float
    recall_floor: float
    num_queries: int
    search_ms: float
    exact_ms: float
    build_s: float
    tried: dict[int, float]
    filtered_ms: dict[str, list[float]]
    given_up: str = ""


@dataclass(slots=True)
class _Sample:
    """Queries [Q, d], and the scores of their exact answers to the deepest depth, [Q, D] descending."""

    queries: np.ndarray
    truth: np.ndarray


def recall_of(index: ItemIndex, sample: _Sample, k: int, eligible: Eligible | None = None) -> np.ndarray:
    """Return [Q] float64, the share of each query's exact top k that the index finds, 0..1.

    What scores as the last of the exact answer does is as right as that one: items without content of their own have
    equal vectors.
    """
    found, _ = search(index, sample.queries, k, None, eligible)
    least = sample.truth[:, k - 1] - _ROUNDING
    return np.asarray([np.count_nonzero(got >= low) / k for got, low in zip(found, least, strict=True)])


def recall_at(index: ItemIndex, queries: np.ndarray, k: int) -> float:
    """Return the mean share of the exact top k that the index finds, 0..1, higher is better.

    Args:
        index: with the embeddings it was built from.
        queries: [B, d] float32.
        k: cut; the catalogue's size where that is smaller.
    """
    k = min(k, len(index))
    return float(recall_of(index, _truth(index, queries, k), k).mean())


def tune_index(
    index: ItemIndex, queries: np.ndarray, settings: IndexSettings, build_s: float = 0.0
) -> tuple[ItemIndex, IndexReport]:
    """Return the index with the fastest route that reaches the recall floor, and what was measured.

    Args:
        index: fresh from `build_index`.
        queries: [Q, d] float32, as real as possible: query-tower answers; a seeded sample of them is used.
        settings: kind, floor, k, sample.
        build_s: seconds the build took, for the report.
    Raises:
        SearchError: the floor is missed however hard the index looks, or there is no query to measure with.
    """
    if not len(queries):
        raise SearchError("recall cannot be measured without queries; give query-tower answers of the training part")
    start = time.monotonic()
    set_threads(settings.threads)
    rows = np.random.default_rng(settings.seed).permutation(len(queries))[: settings.sample_queries]
    third = len(rows) // 3 if len(rows) >= 30 else 0
    k = min(settings.recall_k, len(index))
    least = min(NARROW[0], settings.exact_rows / len(index))
    depths = [k * times for times in DEPTHS if times * least <= 1 + _ROUNDING and k * times <= len(index)] or [k]
    flat_already = index.kind is Kind.flat
    asked = [depth for depth in depths if depth <= WIDEST * k]
    chosen = _truth(index, queries[rows[2 * third :]], k if flat_already else asked[-1])
    held_out = _truth(index, queries[rows[:third]], k) if third else chosen
    hot = [] if flat_already else _hot(index, queries[rows[third : 2 * third]], k)
    tuned, tried, given_up = _tuned(index, chosen, settings, depths, hot)
    one, all_rows = chosen.queries[:_TIMED], index.ids()
    set_threads(1)
    search_ms = _median_ms(tuned, one, k)
    exact_ms = search_ms
    if tuned.kind is not Kind.flat:
        flat = build_index(index.embeddings, all_rows, replace(settings, kind=Kind.flat, threads=1))
        exact_ms = _median_ms(flat, one, k)
        if not given_up and settings.kind is Kind.auto and search_ms >= exact_ms:
            given_up = f"{tuned.kind.value} takes {search_ms:.3f} ms to reach the floor, exact search {exact_ms:.3f} ms"
        if given_up:
            tuned, tried, search_ms = flat, {0: 1.0}, exact_ms
    tuned, filtered_ms = _narrowed(tuned, one, k, least)
    set_threads(settings.threads)
    recall = recall_of(tuned, held_out, k)
    low = float(recall.mean() - Z95 * recall.std() / max(1, len(recall)) ** 0.5)
    if recall.mean() < settings.recall_floor:
        raise SearchError(_missed(tuned, float(recall.mean()), settings))
    lists = tuned.faiss_index.nlist if tuned.kind in (Kind.ivf_sq8, Kind.ivf_pq) else 0
    return tuned, IndexReport(
        kind=tuned.kind.value,
        num_items=len(index),
        width=index.width,
        num_lists=lists,
        effort=tuned.route.steps[0].effort if tuned.route.steps else 0,
        rescore=tuned.route.rescore,
        num_hot=len(tuned.route.hot),
        narrow=tuned.route.narrow,
        steps=tuned.route.steps,
        recall_k=k,
        recall=float(recall.mean()),
        recall_low=max(0.0, low),
        recall_floor=settings.recall_floor,
        num_queries=len(recall),
        search_ms=round(search_ms, 4),
        exact_ms=round(exact_ms, 4),
        build_s=round(build_s + time.monotonic() - start, 3),
        tried=tried,
        filtered_ms=filtered_ms,
        given_up=given_up,
    )


def _tuned(
    index: ItemIndex, sample: _Sample, settings: IndexSettings, depths: list[int], hot: list[list[int]]
) -> tuple[ItemIndex, dict[int, float], str]:
    """Return the index with its steps, the recall by effort at the first depth, and why it is given up, if it is."""
    if index.kind is Kind.flat:
        return index, {0: float(recall_of(index, sample, depths[0]).mean())}, ""
    best: tuple[float, ItemIndex, dict[int, float]] | None = None
    worst, first = 0.0, depths[0]
    for some, rescore in itertools.product([[], *hot], RESCORE[index.kind]):
        base = Route(rescore=rescore, hot=some)
        tried: dict[int, float] = {}
        effort = _least_effort(index, sample, settings.recall_floor, first, base, tried)
        worst = max([worst, *tried.values()])
        if effort is None:
            continue
        tuned = routed(index, msgspec.structs.replace(base, steps=[Step(depth=first, effort=effort)]))
        set_threads(1)
        took_ms = _median_ms(tuned, sample.queries[:_TIMED], first)
        set_threads(settings.threads)
        if best is None or took_ms < best[0]:
            best = took_ms, tuned, tried
    if best is None:
        if settings.kind is not Kind.auto:
            raise SearchError(_missed(index, worst, settings))
        return index, {}, f"{index.kind.value} stays at recall {worst:.4f}, however hard it looks"
    route = best[1].route
    for depth in depths[1:]:
        # what a filter leaves lies as deep, but is fewer: a search for k of it is not short as one for `depth` is
        filtered = _filtered(index, sample.queries, first, first / depth)
        wide = sample if depth <= sample.truth.shape[1] else None
        effort = _least_effort(index, wide, settings.recall_floor, depth, route, {}, route.steps[-1].effort, filtered)
        if effort is None:  # beyond, effort grows in proportion to depth
            break
        route = msgspec.structs.replace(route, steps=[*route.steps, Step(depth=depth, effort=effort)])
    return routed(index, route), best[2], ""


def _least_effort(
    index: ItemIndex,
    sample: _Sample | None,
    floor: float,
    depth: int,
    base: Route,
    tried: dict[int, float],
    at_least: int = 1,
    filtered: Sequence[tuple[_Sample, Eligible]] = (),
) -> int | None:
    """Return the smallest effort whose recall at this depth is, at 95 %, not below the floor; None where none is.

    Args:
        sample: None where nothing but filters looks so deep.
        filtered: of each filter that leaves what lies so deep, queries with their answers; recall holds there too.
    """
    efforts = [effort for effort in _efforts(index, depth) if effort >= at_least] or [at_least]

    def enough(place: int) -> bool:
        route = msgspec.structs.replace(base, steps=[Step(depth=depth, effort=efforts[place])])
        one = routed(index, route)
        if sample is not None:
            recall = recall_of(one, sample, depth)
            tried[efforts[place]] = float(recall.mean())
            if not _surely(recall, floor):
                return False
        # each filter by itself: what one leaves may hang on a few items that it lets through or not
        return all(recall_of(one, some, some.truth.shape[1], left).mean() >= floor for some, left in filtered)

    # recall grows with effort, and so does the time to measure it: up in strides of about twice, then back between
    low, high = 0, 0
    while not enough(high):
        if high == len(efforts) - 1:
            return None
        low, high = high + 1, min(high + _STRIDE, len(efforts) - 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return efforts[low]


def _surely(recall: np.ndarray, floor: float) -> bool:
    """Return whether the mean is, at 95 %, not below the floor."""
    return bool(recall.mean() - Z95 * recall.std() / len(recall) ** 0.5 >= floor)


def _filtered(index: ItemIndex, queries: np.ndarray, k: int, share: float) -> list[tuple[_Sample, Eligible]]:
    """Return filters that leave an even draw of `share` of the items, each with some queries and their exact top k."""
    rng, rows = np.random.default_rng(0), index.ids()
    unrouted = replace(index, route=msgspec.structs.replace(index.route, narrow=0.0))
    found = []
    for some in np.array_split(queries, _MASKS):
        allowed = rng.random(len(index.embeddings)) < share
        left = rows[allowed[rows]]
        if len(some) and len(left):
            best = exact_rows(index.embeddings, some, min(k, len(left)), left)[0]
            found.append((_Sample(some, best), prepare(unrouted, allowed)))
    return found


def _hot(index: ItemIndex, queries: np.ndarray, k: int) -> list[list[int]]:
    """Return sets of the items that stand in these queries' exact top k most often, ascending item_index each."""
    if not len(queries):
        return []
    items = exact_rows(index.embeddings, np.ascontiguousarray(queries, np.float32), k, index.ids())[1]
    wanted, counts = np.unique(items, return_counts=True)
    by_count = wanted[np.argsort(-counts, kind="stable")]
    sizes = {min(most, len(by_count)) for most in HOT if 0 < most <= len(index) // 10}
    return [np.sort(by_count[:size]).tolist() for size in sorted(sizes)]


def _efforts(index: ItemIndex, depth: int) -> list[int]:
    """Return what may be tried, ascending, each about a fifth more than the one before."""
    low, high = (
        (depth, min(10 * depth, max(depth, len(index)))) if index.kind is Kind.hnsw else (1, index.faiss_index.nlist)
    )
    steps = np.unique(np.round(low * 1.2 ** np.arange(0, 1 + np.log(high / low) / np.log(1.2))).astype(int))
    return [*(int(step) for step in steps if step < high), int(high)]


def _narrowed(index: ItemIndex, queries: np.ndarray, k: int, least: float) -> tuple[ItemIndex, dict[str, list[float]]]:
    """Return the index with the share below which exact search over the eligible rows is the faster, and the times.

    Args:
        least: it is not smaller than this, nor than where the floor was still held, among the nearest k / share.
    """
    if index.kind is Kind.flat:
        return index, {}
    rng = np.random.default_rng(0)
    steps = index.route.steps
    held = k / steps[-1].depth if steps else NARROW[0]
    # small catalogues have no depth for a tenth, and what a tenth of them is takes no time
    narrow, times = max(least, min(NARROW[0], held)), {}
    for share in [share for share in SHARES if share > narrow]:
        allowed = rng.random(len(index.embeddings)) < share
        by_index = prepare(replace(index, route=msgspec.structs.replace(index.route, narrow=0.0)), allowed)
        exactly = prepare(replace(index, route=msgspec.structs.replace(index.route, narrow=1.0)), allowed)
        ours = _median_ms(index, queries, k, by_index)
        exact_ms = _median_ms(index, queries, k, exactly)
        times[f"{share:g}"] = [round(ours, 4), round(exact_ms, 4)]
        if exact_ms <= ours:
            narrow = max(narrow, min(share, NARROW[1]))
    return replace(index, route=msgspec.structs.replace(index.route, narrow=narrow)), times


def _truth(index: ItemIndex, queries: np.ndarray, depth: int) -> _Sample:
    """Return the queries with the exact answer, a few at a time so that memory stays flat."""
    queries = np.ascontiguousarray(queries, np.float32)
    rows = index.ids()
    if depth * 20 > len(rows):  # one product, as cutting it in blocks would sort almost everything several times
        vectors = np.asarray(index.embeddings[rows], np.float32)
        blocks = (queries[low : low + 16] @ vectors.T for low in range(0, len(queries), 16))
        parts = [np.take_along_axis(scores, top(scores, depth), 1) for scores in blocks]
    else:
        parts = [exact_rows(index.embeddings, queries, depth, rows)[0]]
    return _Sample(queries, np.concatenate(parts))


def _median_ms(index: ItemIndex, queries: np.ndarray, k: int, eligible: Eligible | None = None) -> float:
    """Return the median over queries of the best of a few rounds, which leaves out what else the machine does."""
    best = np.full(len(queries), np.inf)
    for _ in range(_ROUNDS):
        for i in range(len(queries)):
            began = time.perf_counter()
            search(index, queries[i : i + 1], k, None, eligible)
            best[i] = min(best[i], time.perf_counter() - began)
    return float(np.median(best)) * 1e3


def _missed(index: ItemIndex, recall: float, settings: IndexSettings) -> str:
    return (
        f"recall at {settings.recall_k} is {recall:.4f}, the floor is {settings.recall_floor} ({index.kind.value}, "
        f"{len(index)} items, at the largest effort tried); take index.kind=flat or lower the floor"
    )
