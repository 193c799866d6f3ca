"""Exact search equals numpy; list indexes reach their floor; filters, padding, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.errors import ConfigError, SearchError
from playbill.index import search as index_search
from playbill.index.build import FLAT_LIMIT, SQ8_LIMIT, build_index, choose
from playbill.index.item_index import ItemIndex, read_index, routed, set_threads, write_index
from playbill.index.route import Route, Step
from playbill.index.search import exact, search
from playbill.index.settings import IndexSettings, Kind
from playbill.index.tune import recall_at, tune_index

NUM_ITEMS, WIDTH = 10_000, 32
KINDS = (Kind.flat, Kind.ivf_sq8, Kind.ivf_pq, Kind.hnsw)


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def clustered(num: int, seed: int, centres: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return unit(centres[rng.integers(len(centres), size=num)] + 0.5 * rng.normal(size=(num, centres.shape[1])))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    set_threads(1)


@pytest.fixture(scope="module")
def vectors() -> tuple[np.ndarray, np.ndarray]:
    centres = unit(np.random.default_rng(7).normal(size=(64, WIDTH)))
    items = clustered(NUM_ITEMS + 1, 1, centres)
    items[0] = 0
    return items, clustered(64, 2, centres)


def build(embeddings: np.ndarray, **changes: object) -> ItemIndex:
    return build_index(embeddings, np.arange(1, len(embeddings)), IndexSettings(threads=1, **changes))  # type: ignore[arg-type]  # test shorthand


@pytest.fixture(scope="module")
def indexes(vectors: tuple[np.ndarray, np.ndarray]) -> dict[Kind, ItemIndex]:
    items, queries = vectors
    found = {}
    for kind in KINDS:
        made = IndexSettings(kind=kind, num_lists=128, links=16, threads=1, recall_k=100, recall_floor=0.9)
        found[kind], _ = tune_index(build_index(items, np.arange(1, len(items)), made), queries, made)
    return found


def reference(items: np.ndarray, query: np.ndarray, k: int, allowed: np.ndarray) -> np.ndarray:
    scores = items.astype(np.float64) @ query.astype(np.float64)
    scores[~allowed] = -np.inf
    scores[0] = -np.inf
    return np.argsort(-scores, kind="stable")[: min(k, int(allowed[1:].sum()))]


def test_flat_gives_the_reference_in_order(indexes, vectors):
    items, queries = vectors
    scores, found = search(indexes[Kind.flat], queries, 50)
    for query, score, row in zip(queries, scores, found, strict=True):
        expected = reference(items, query, 50, np.ones(len(items), bool))
        assert row.tolist() == expected.tolist()
        np.testing.assert_allclose(score, items[expected] @ query, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "floor"),
    [
        (Kind.flat, 1.0),  # 1.0000 today
        (Kind.ivf_sq8, 0.9),  # at the least effort that tuning to 0.9 found
        (Kind.ivf_pq, 0.9),
        (Kind.hnsw, 0.9),
    ],
)
def test_recall_floor(indexes, vectors, kind, floor):
    assert recall_at(indexes[kind], vectors[1], 100) >= floor


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_mapped_index_answers_the_same(indexes, vectors, kind, tmp_path: Path):
    items, queries = vectors
    before = search(indexes[kind], queries, 20)
    write_index(indexes[kind], tmp_path / "items.faiss")
    mapped = read_index(tmp_path / "items.faiss", items)
    assert mapped.kind is kind and len(mapped) == NUM_ITEMS
    for _ in range(2):
        after = search(mapped, queries, 20)
        for old, new in zip(before[0] + before[1], after[0] + after[1], strict=True):
            np.testing.assert_array_equal(old, new)
    assert mapped.route == indexes[kind].route
    assert sorted(p.name for p in tmp_path.iterdir()) == ["items.faiss", "items.json"]


@pytest.mark.parametrize("kind", KINDS)
def test_exclusions_are_each_querys_own(indexes, vectors, kind):
    _, queries = vectors
    _, best = search(indexes[kind], queries, 300)
    # the first loses nothing, the second its best 3, the third its best 250, the others ids that do not exist
    exclude = [np.empty(0, np.int64), best[1][:3], best[2][:250]] + [np.array([10**9])] * (len(queries) - 3)
    _, found = search(indexes[kind], queries, 40, exclude)
    assert all(len(row) == 40 for row in found)
    assert not any(np.isin(row, out).any() for row, out in zip(found, exclude, strict=True))
    if kind is Kind.flat:  # the others look harder for more, so what they find depends on how much is asked for
        assert found[0].tolist() == best[0][:40].tolist()
        assert found[1].tolist() == best[1][3:43].tolist()
        assert found[2].tolist() == best[2][250:290].tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("share", "floor"), [(0.7, 0.9), (0.1, 1.0), (0.01, 1.0)])
def test_recall_inside_an_allow_list(indexes, vectors, kind, share, floor):
    # the floor that was tuned to holds inside filters as well; exact below `narrow`, which is at least a tenth
    items, queries = vectors
    allowed = np.random.default_rng(3).random(len(items)) < share
    _, found = search(indexes[kind], queries, 50, None, allowed)
    hits = []
    for query, row in zip(queries, found, strict=True):
        assert allowed[row].all() and (row > 0).all()
        hits.append(np.isin(reference(items, query, 50, allowed), row).mean())
    assert np.mean(hits) >= (1.0 if kind is Kind.flat else floor)


@pytest.mark.parametrize("kind", KINDS)
def test_short_answers_hold_no_padding(indexes, vectors, kind):
    items, queries = vectors
    allowed = np.zeros(len(items), bool)
    allowed[[0, 5, 9, 11]] = True  # 0 is the unknown item: never an answer
    _, found = search(indexes[kind], queries[:2], 10, [np.array([9]), np.array([], np.int64)], allowed)
    assert sorted(found[0].tolist()) == [5, 11] and sorted(found[1].tolist()) == [5, 9, 11]
    _, none = search(indexes[kind], queries[:1], 10, None, np.zeros(len(items), bool))
    assert none[0].tolist() == []


@pytest.mark.parametrize("kind", (Kind.ivf_sq8, Kind.ivf_pq))
def test_what_few_lists_cannot_fill_is_looked_for_in_more(indexes, vectors, kind, monkeypatch):
    items, queries = vectors
    narrow = routed(indexes[kind], Route(steps=[Step(depth=10**9, effort=1)]))
    best = exact(items, queries, 400, np.ones(len(items), bool))[1]
    with monkeypatch.context() as patch:
        patch.setattr(index_search, "exact_rows", None)  # a quarter of the lists holds 400 items: none is asked exactly
        _, found = search(narrow, queries, 400)
    assert all(len(set(row.tolist())) == 400 for row in found)
    # the first list, of some 80 items, could hold no more than a fifth of the nearest 400
    assert np.mean([np.isin(b, f).mean() for b, f in zip(best, found, strict=True)]) > 0.3
    # nearly everything is wanted: exact, in order, each once
    _, whole = search(narrow, queries[:2], len(items) - 5)
    reference = exact(items, queries[:2], len(items) - 5, np.ones(len(items), bool))[1]
    assert [row.tolist() for row in whole] == reference.tolist()


def test_k_beyond_the_catalogue_and_zero(vectors):
    index = build(vectors[0][:8])
    _, found = search(index, vectors[1][:3], 50)
    assert [sorted(row.tolist()) for row in found] == [list(range(1, 8))] * 3
    _, none = search(index, vectors[1][:3], 0)
    assert [row.tolist() for row in none] == [[], [], []]
    _, nobody = search(index, vectors[1][:0], 5)
    assert nobody == []


def test_a_part_of_the_catalogue(vectors):
    items, queries = vectors
    ids = np.arange(2, 2_000, 2)
    for kind in KINDS:
        index = build_index(items[:2_001], ids, IndexSettings(kind=kind, num_lists=8, threads=1))
        assert index.ids().tolist() == ids.tolist()
        narrow = np.zeros(2_001, bool)
        narrow[:101] = True
        _, found = search(index, queries, 60, None, narrow)
        assert all(sorted(row.tolist()) == list(range(2, 101, 2)) for row in found)
        assert recall_at(index, queries, 10) > 0.2


@given(
    scores=st.lists(st.lists(st.integers(0, 4), min_size=5, max_size=5), min_size=1, max_size=9),
    k=st.integers(1, 8),
)
@settings(max_examples=25, deadline=None)
def test_exact_search_keeps_the_lower_index_of_equal_scores(scores, k):
    items = np.concatenate([np.zeros((1, 5)), np.asarray(scores)]).astype(np.float32)
    allowed = np.ones(len(items), bool)
    best, found = exact(items, np.eye(5, dtype=np.float32), k, allowed)
    for query, score, row in zip(np.eye(5), best, found, strict=True):
        assert row.tolist() == reference(items, query, k, allowed).tolist()
        assert score.tolist() == sorted(score, reverse=True)


def test_what_is_refused(vectors, tmp_path: Path):
    items, queries = vectors
    with pytest.raises(SearchError, match="1 ids stand twice, first item_index 3"):
        build_index(items, np.array([1, 3, 3]), IndexSettings())
    with pytest.raises(SearchError, match=r"ids run from 0 to 2, embeddings have items 1\.\.10000"):
        build_index(items, np.array([0, 2]), IndexSettings())
    broken = items[:9].copy()
    broken[4, 0] = np.nan
    with pytest.raises(SearchError, match="1 item vectors are not finite, first item_index 4"):
        build(broken)
    index = build(items[:9])
    with pytest.raises(SearchError, match="vectors of 32 columns"):
        search(index, queries[:, :16], 5)
    with pytest.raises(SearchError, match="2 exclusion lists for 1 queries"):
        search(index, queries[:1], 5, [np.array([1])] * 2)
    with pytest.raises(SearchError, match=r"allowed must be bool \[9\]"):
        search(index, queries[:1], 5, None, np.ones(8, bool))
    with pytest.raises(SearchError, match="even width, got 31"):
        build_index(items[:50, :31].copy(), np.arange(1, 50), IndexSettings(kind=Kind.ivf_pq))
    never = IndexSettings(kind=Kind.ivf_pq, num_lists=8, recall_floor=1.0, recall_k=100, threads=1)
    with pytest.raises(SearchError, match=r"recall at 100 is 0\.\d+, the floor is 1\.0 \(ivf_pq, 10000 items"):
        tune_index(build_index(items, np.arange(1, len(items)), never), queries, never)
    with pytest.raises(SearchError, match="without queries"):
        tune_index(index, queries[:0], IndexSettings())
    with pytest.raises(ConfigError, match=r"recall_floor must be in 0\.\.1, got 1\.5"):
        IndexSettings(recall_floor=1.5)
    with pytest.raises(SearchError, match="no index at"):
        read_index(tmp_path / "items.faiss", items)
    (tmp_path / "items.faiss").write_bytes(b"not an index at all")
    with pytest.raises(SearchError, match="not a readable FAISS index"):
        read_index(tmp_path / "items.faiss", items)
    write_index(index, tmp_path / "items.faiss")
    with pytest.raises(SearchError, match="both must come from one export"):
        read_index(tmp_path / "items.faiss", items[:5])
    with pytest.raises(AttributeError):
        read_index(tmp_path / "items.faiss", items[:9]).add(queries)  # type: ignore[attr-defined]  # it must not exist


def test_kind_by_catalogue_size():
    sizes = (1, FLAT_LIMIT, FLAT_LIMIT + 1, SQ8_LIMIT, SQ8_LIMIT + 1)
    expected = [Kind.flat, Kind.flat, Kind.ivf_sq8, Kind.ivf_sq8, Kind.ivf_pq]
    assert [choose(n) for n in sizes] == expected


def test_a_route_that_cannot_be_is_refused(indexes, vectors, tmp_path: Path):
    write_index(indexes[Kind.ivf_sq8], tmp_path / "items.faiss")
    beside = tmp_path / "items.json"
    for text, told in (
        (b"{", "is not an index's route"),
        (b'{"version": 99}', "has version 99"),
        (b'{"narrow": 2.0}', "holds a route that cannot be"),
        (b'{"steps": [{"depth": 9, "effort": 0}]}', "holds a route that cannot be"),
    ):
        beside.write_bytes(text)
        with pytest.raises(SearchError, match=told):
            read_index(tmp_path / "items.faiss", vectors[0])
    beside.unlink()  # an index of an earlier version: searched with the defaults
    assert read_index(tmp_path / "items.faiss", vectors[0]).route == Route()
