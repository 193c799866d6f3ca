"""Filters on real vectors: what comes back is what exact search inside the filter finds, whatever the filter leaves."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from playbill.errors import SearchError
from playbill.index.build import build_index
from playbill.index.filters import exact, prepare
from playbill.index.item_index import ItemIndex, routed, set_threads
from playbill.index.route import Route, Step
from playbill.index.search import search
from playbill.index.settings import IndexSettings, Kind
from playbill.index.tune import IndexReport, recall_at, tune_index

KINDS = (Kind.flat, Kind.ivf_sq8, Kind.ivf_pq, Kind.hnsw)
K = 50
FLOOR = 0.95


@pytest.fixture(scope="module")
def tuned(films) -> dict[Kind, tuple[ItemIndex, IndexReport]]:
    set_threads(1)
    found = {}
    for kind in KINDS:
        made = IndexSettings(kind=kind, links=16, recall_k=K, recall_floor=FLOOR, sample_queries=160, threads=1)
        index = build_index(films.items, np.arange(1, len(films.items)), made)
        found[kind] = tune_index(index, films.queries, made)
    return found


def inside(index: ItemIndex, films, allowed: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return [B] the share of the exact answer inside the filter that the index finds; equal vectors are as good."""
    scores, found = search(index, queries, K, None, prepare(index, allowed))
    truth = exact(films.items, queries, K, allowed)[0]
    assert all(allowed[row].all() and len(set(row)) == truth.shape[1] for row in found)
    return np.asarray([(score >= best[-1] - 1e-6).mean() for best, score in zip(truth, scores, strict=True)])


@pytest.mark.parametrize("kind", KINDS)
def test_tuning_reaches_the_floor_on_people_that_it_did_not_see(tuned, kind):
    index, report = tuned[kind]
    assert report.kind == kind.value and report.recall >= FLOOR and report.num_queries == 53
    assert report.recall_low <= report.recall and report.recall_low > FLOOR - 0.03
    if kind is Kind.flat:
        assert report.recall == 1.0 and report.steps == []
    else:
        efforts = [step.effort for step in report.steps]
        assert efforts == sorted(efforts) and report.effort == efforts[0] and index.route.steps == report.steps
        assert 0.1 <= report.narrow <= 0.5 and report.search_ms > 0 < report.exact_ms


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.5, 0.2, 0.1, 0.01, 0.001])
def test_recall_inside_a_random_filter(tuned, films, kind, share):
    # below `narrow` the search is exact; above it the effort was tuned for the depth
    index, report = tuned[kind]
    allowed = np.random.default_rng(3).random(len(films.items)) < share
    recall = inside(index, films, allowed, films.queries[-100:])
    if kind is Kind.flat or share < report.narrow:
        assert recall.min() == 1.0
    else:
        assert recall.mean() >= FLOOR - 0.01  # 0.96 to 0.99 today


def test_a_filter_is_routed_by_how_many_items_it_leaves(films):
    """A tenth of many items is much to search exactly, so there the floor is tuned for smaller shares as well."""
    few, many = (
        IndexSettings(
            kind=Kind.ivf_sq8, recall_k=20, recall_floor=FLOOR, exact_rows=rows, sample_queries=160, threads=1
        )
        for rows in (100, 100_000)
    )
    index = build_index(films.items, np.arange(1, len(films.items)), few)
    (tuned, by_count), (_, by_share) = (tune_index(index, films.queries, made) for made in (few, many))
    least = 100 / len(index)
    assert by_share.narrow >= 0.1 and {step.depth for step in by_share.steps} <= {20, 40, 100, 200}
    assert least <= by_count.narrow and by_count.steps[-1].depth > 200
    # what decides is time, measured here as well; but never below where recall was seen to hold
    unhindered = routed(tuned, msgspec.structs.replace(tuned.route, narrow=0.0))
    deepest = unhindered.route.steps[-1].depth
    for share in (0.08, 0.05, 20 / deepest):
        allowed = np.random.default_rng(6).random(len(films.items)) < share
        scores = search(unhindered, films.queries[-100:], 20, None, prepare(unhindered, allowed))[0]
        best = exact(films.items, films.queries[-100:], 20, allowed)[0]
        recall = np.mean([(got >= row[-1] - 1e-6).mean() for got, row in zip(scores, best, strict=True)])
        assert recall >= FLOOR - 0.02, (share, recall)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("genre", ["Drama", "Comedy", "Horror", "Western"])
def test_recall_inside_a_genre(tuned, films, kind, genre):
    """Films of a genre lie together, which no random filter imitates."""
    recall = inside(tuned[kind][0], films, films.genres[genre], films.queries[-100:])
    assert recall.mean() >= (1.0 if kind is Kind.flat else FLOOR - 0.01)


@pytest.mark.parametrize("kind", [Kind.ivf_sq8, Kind.hnsw])
def test_a_filter_where_the_index_does_not_look(tuned, films, kind):
    """The half of the films that are farthest from a query: lists and graphs find few of them, so it is done again."""
    index = tuned[kind][0]
    query = films.queries[:1]
    allowed = np.zeros(len(films.items), bool)
    allowed[np.argsort(films.items[1:] @ query[0])[: len(films.items) // 2] + 1] = True
    [found] = search(index, query, 1_000, None, allowed)[1]
    assert len(found) == 1_000 and allowed[found].all()


def test_a_prepared_filter_answers_as_its_mask(tuned, films):
    for index, _ in tuned.values():
        for share in (0.6, 0.05):
            allowed = np.random.default_rng(4).random(len(films.items)) < share
            ready = prepare(index, allowed)
            before = search(index, films.queries[:9], K, None, allowed)
            allowed[:] = False  # a prepared filter is a copy
            after = search(index, films.queries[:9], K, None, ready)
            for old, new in zip(before[0] + before[1], after[0] + after[1], strict=True):
                np.testing.assert_array_equal(old, new)


def test_scores_are_those_of_the_exact_vectors(tuned, films):
    for index, _ in tuned.values():
        scores, found = search(index, films.queries[:20], 30, [np.arange(5, 100)] * 20)
        for query, score, row in zip(films.queries, scores, found, strict=False):
            np.testing.assert_allclose(score, films.items[row] @ query, atol=1e-5)
            assert (np.diff(score) <= 1e-6).all()


def test_people_who_want_much_the_same_are_served_by_hot_items(films):
    """Towers trained on few events point everybody in nearly one direction: few items are near to anybody."""
    queries = films.queries + 8 * films.queries.mean(0)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    made = IndexSettings(kind=Kind.ivf_sq8, recall_k=50, threads=1, sample_queries=150)
    index = build_index(films.items, np.arange(1, len(films.items)), made)
    route = Route(steps=[Step(depth=50, effort=3)], rescore=1.25)
    hot = hottest(films.items, queries, 300)
    plain, with_hot = (
        recall_at(routed(index, r), queries[:100], 50) for r in (route, msgspec.structs.replace(route, hot=hot))
    )
    assert with_hot >= 0.95 > plain, (with_hot, plain)
    tuned, report = tune_index(index, queries, made)
    assert report.recall >= 0.95 and report.num_queries == 50
    assert report.num_hot == len(tuned.route.hot) <= len(films.items) // 10


def test_a_filter_that_lets_half_of_the_hot_items_through() -> None:
    """The others are looked for in lists that hold enough: as many as are wanted would be the second best of all."""
    rng, width = np.random.default_rng(0), 32

    def unit(x: np.ndarray) -> np.ndarray:
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    items = np.concatenate([np.zeros((1, width), np.float32), unit(rng.normal(size=(40_000, width)))])
    queries = unit(unit(rng.normal(size=(1, width))) + 0.03 * rng.normal(size=(300, width)))
    made = IndexSettings(kind=Kind.ivf_sq8, recall_k=50, threads=1, sample_queries=240)
    tuned, report = tune_index(build_index(items, np.arange(1, len(items)), made), queries[:240], made)
    assert report.recall >= 0.95 and report.num_hot > 0
    wide = routed(tuned, msgspec.structs.replace(tuned.route, narrow=0.0))
    for share in (0.7, 0.5, 0.5, 0.5, 0.35, 0.25):
        allowed = rng.random(len(items)) < share
        found = search(wide, queries[240:], 50, None, prepare(wide, allowed))[0]
        best = exact(items, queries[240:], 50, allowed)[0]
        assert np.mean([(f >= b[-1] - 1e-6).mean() for f, b in zip(found, best, strict=True)]) >= 0.95


def test_an_index_that_is_no_faster_than_exact_search_is_given_up(films):
    """Noise has no lists: the floor takes nearly all of them, and then some time on top."""
    rng = np.random.default_rng(1)
    items = rng.normal(size=(1_000, 64)).astype(np.float32)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    made = IndexSettings(kind=Kind.auto, recall_k=200, recall_floor=0.99, threads=1, sample_queries=29)
    index = build_index(items, np.arange(1, len(items)), IndexSettings(kind=Kind.ivf_sq8, threads=1))
    tuned, report = tune_index(index, rng.normal(size=(29, 64)), made)
    assert tuned.kind is Kind.flat and report.kind == "flat" and report.recall == 1.0 and "ivf_sq8" in report.given_up


def test_hot_items_respect_filters_and_exclusions(tuned, films):
    index = tuned[Kind.ivf_sq8][0]
    hot = routed(index, Route(steps=index.route.steps, rescore=1.25, hot=list(range(1, 400))))
    queries = films.queries[:20]
    allowed = np.ones(len(films.items), bool)
    allowed[1:400:2] = False
    [scores, found] = search(hot, queries, 60, [np.arange(2, 100, 2)] * 20, allowed)
    for row, score in zip(found, scores, strict=True):
        assert (
            len(row) == len(set(row.tolist())) == 60
            and allowed[row].all()
            and not np.isin(row, np.arange(2, 100, 2)).any()
        )
        assert (np.diff(score) <= 0).all()
    with pytest.raises(SearchError, match="the route names 1 hot items, not all of which are in the index"):
        routed(index, Route(hot=[len(films.items)]))


def hottest(items: np.ndarray, queries: np.ndarray, count: int) -> list[int]:
    best = exact(items, queries[100:], 50, np.ones(len(items), bool))[1]
    return sorted(np.argsort(-np.bincount(best.ravel(), minlength=len(items)))[:count].tolist())


def test_what_a_filter_must_be(tuned, films):
    index = tuned[Kind.ivf_sq8][0]
    for wrong in (np.ones(7, bool), np.ones(len(films.items)), np.ones((1, len(films.items)), bool)):
        with pytest.raises(SearchError, match=rf"allowed must be bool \[{len(films.items)}\] by item_index, got"):
            prepare(index, wrong)
    broken = films.queries[:2].copy()
    broken[0, 3] = np.nan
    found = search(index, broken, 5)[1]
    assert len(found[1]) == 5  # one person's broken vector leaves the others' answers as they are
