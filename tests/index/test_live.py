"""A live index answers as one that was built anew, while items come and go and others search."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import playbill.index.live as live_module
from playbill.errors import SearchError
from playbill.index.build import build_index
from playbill.index.filters import exact
from playbill.index.item_index import ItemIndex, read_index, set_threads, write_index
from playbill.index.live import LiveIndex, live, rebuild_due, search_live, with_items, without
from playbill.index.settings import IndexSettings, Kind
from playbill.index.tune import tune_index

BUILT = 3_000  # films of the built index; the others come later


@pytest.fixture(scope="module", params=[Kind.flat, Kind.ivf_sq8])
def main(request, films, tmp_path_factory: pytest.TempPathFactory) -> ItemIndex:
    """A mapped index, to which FAISS would abort the process if anything were added."""
    set_threads(1)
    made = IndexSettings(kind=request.param, threads=1, recall_k=50, sample_queries=80)
    embeddings = films.items[: BUILT + 1]
    index, _ = tune_index(build_index(embeddings, np.arange(1, BUILT + 1), made), films.queries, made)
    path = tmp_path_factory.mktemp("index") / "items.faiss"
    write_index(index, path)
    return read_index(path, embeddings)


def truth(state: LiveIndex, films, there: np.ndarray, queries: np.ndarray, k: int) -> list[np.ndarray]:
    """Return what exact search over everything finds, scores only: equal vectors are as good."""
    return list(exact(films.items, queries, k, there)[0])


def same_answer(state: LiveIndex, films, there: np.ndarray, k: int = 40, floor: float = 0.9) -> None:
    scores, items = search_live(state, films.queries[:60], k)
    best = truth(state, films, there, films.queries[:60], k)
    for score, item, expected in zip(scores, items, best, strict=True):
        assert there[item].all() and len(set(item.tolist())) == len(item) == len(expected)
        assert (np.diff(score) <= 0).all()
        if state.main.kind is Kind.flat:
            np.testing.assert_allclose(score, expected, atol=1e-6)
    share = np.mean([(s >= e[-1] - 1e-6).mean() for s, e in zip(scores, best, strict=True)])
    assert share >= (1.0 if state.main.kind is Kind.flat else floor)


def test_fresh_and_removed_items_as_in_a_rebuilt_index(main, films):
    state = live(main)
    there = np.zeros(len(films.items), bool)
    there[1 : BUILT + 1] = True
    same_answer(state, films, there)
    fresh = np.arange(BUILT + 1, len(films.items))
    state = with_items(state, fresh[::-1], films.items[fresh[::-1]])  # in any order
    there[fresh] = True
    same_answer(state, films, there)
    gone = np.random.default_rng(2).choice(np.arange(1, len(films.items)), 600, replace=False)
    state = without(state, gone)
    there[gone] = False
    same_answer(state, films, there)
    assert len(state) == there.sum() and state.version == 2
    back = gone[:300]  # removed items can come back, built ones among them
    state = with_items(state, back, films.items[back])
    there[back] = True
    same_answer(state, films, there)
    rebuilt = build_index(films.items, np.flatnonzero(there), IndexSettings(kind=Kind.flat, threads=1))
    if main.kind is Kind.flat:
        for old, new in zip(
            search_live(live(rebuilt), films.queries, 30)[0], search_live(state, films.queries, 30)[0], strict=True
        ):
            np.testing.assert_allclose(old, new, atol=1e-6)


def test_a_replaced_item_is_found_by_its_new_vector_alone(main, films):
    query = films.queries[:1]
    best = int(search_live(live(main), query, 1)[1][0][0])
    state = with_items(live(main), np.array([best]), -films.items[[best]])
    assert best not in search_live(state, query, 500)[1][0]
    assert search_live(state, -query, 1)[1][0].tolist() == [best] and len(state) == BUILT
    again = with_items(state, np.array([best]), films.items[[best]])
    assert search_live(again, query, 1)[1][0].tolist() == [best] and len(again) == BUILT


def test_exclusions_and_filters_reach_fresh_items(main, films):
    ids = np.arange(BUILT + 1, BUILT + 201)
    state = with_items(live(main), ids, films.items[ids])
    queries = films.queries[:8]
    _, best = search_live(state, queries, 30)
    exclude = [row[::2] for row in best]
    _, left = search_live(state, queries, 15, exclude)
    for row, out, found in zip(best, exclude, left, strict=True):
        assert len(found) == 15 and not np.isin(found, out).any()
        if main.kind is Kind.flat:
            assert found.tolist()[: len(row) - len(out)] == row[1::2].tolist()
    allowed = np.zeros(state.size, bool)
    allowed[[0, 7, 11, BUILT + 5]] = True
    _, few = search_live(state, queries, 30, None, allowed)
    assert all(sorted(row.tolist()) == [7, 11, BUILT + 5] for row in few)
    _, fewer = search_live(state, queries[:2], 30, [np.array([BUILT + 5]), np.array([7])], allowed)
    assert [sorted(row.tolist()) for row in fewer] == [[7, 11], [11, BUILT + 5]]
    with pytest.raises(SearchError, match=rf"allowed must be bool \[{BUILT + 201}\] by item_index"):
        search_live(state, queries, 5, None, np.ones(BUILT + 1, bool))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 12), st.integers(0, 5)), max_size=12), st.integers(0, 15))
@settings(max_examples=25, deadline=None)
def test_any_history_of_changes_equals_its_outcome(changes, k):
    """Adds, replacements and removals in any order, with equal vectors on purpose: a plain dict says what is there."""
    wheel = np.eye(6, dtype=np.float32)
    built = np.concatenate([np.zeros((1, 6), np.float32), wheel, wheel])[:9]
    state = live(build_index(built, np.arange(1, 9), IndexSettings(kind=Kind.flat, threads=1)))
    outcome = {i: built[i] for i in range(1, 9)}
    for add, item, vector in changes:
        if add:
            state = with_items(state, np.array([item]), wheel[[vector]])
            outcome[item] = wheel[vector]
        else:
            state = without(state, np.array([item]))
            outcome.pop(item, None)
    assert len(state) == len(outcome)
    query = np.array([[6, 5, 4, 3, 2, 1]], np.float32)
    [scores], [items] = search_live(state, query, k)
    expected = sorted((-float(v @ query[0]), i) for i, v in outcome.items())
    assert scores.tolist() == [-score for score, _ in expected[:k]]
    assert all(float(outcome[i] @ query[0]) == score for score, i in zip(scores.tolist(), items.tolist(), strict=True))
    assert len(set(items.tolist())) == len(items)


def test_readers_see_whole_states_while_one_writes(main, films):
    """A block of films, built and fresh ones, is there with its new vectors or is gone: half a block would be torn."""
    block = np.arange(BUILT - 49, BUILT + 101)
    # built films of the block, fresh ones, all: of the first state, with the block, without it
    whole = {(50, 0, BUILT), (50, 100, BUILT + 100), (0, 0, BUILT - 50)}
    holder = [live(main)]
    stop, seen, wrong = threading.Event(), set(), []

    def read() -> None:
        try:
            while not stop.is_set() and not wrong:
                state = holder[0]
                [items] = search_live(state, films.items[[BUILT + 1]], state.size)[1]
                found = (int((np.abs(items - BUILT + 24.5) < 25).sum()), int((items > BUILT).sum()), len(items))
                if found not in whole or len(state) != len(items) or len(set(items.tolist())) != len(items):
                    wrong.append((state.version, found))
                seen.add((state.version, found))
        except Exception as error:  # told by the test, whose thread goes on
            wrong.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    # Each state stays until somebody has read it, and goes while they search again. A writer that never waits lets go
    # of the interpreter only inside its own calls: for minutes readers would meet the state before the same call.
    for turn in range(1, 61):
        while not wrong and holder[0].version not in {version for version, _ in seen.copy()}:
            time.sleep(1e-4)
        holder[0] = with_items(holder[0], block, films.items[block]) if turn % 2 else without(holder[0], block)
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong and {found for _, found in seen} == whole and len(seen) >= 60


def test_a_search_keeps_to_its_state_when_another_takes_its_place(main, films, monkeypatch: pytest.MonkeyPatch):
    """Between the built part of a search and its fresh one the next states are written, at their every step."""
    block = np.arange(BUILT - 49, BUILT + 101)
    query, state = films.queries[:4], with_items(live(main), block[::2], films.items[block[::2]])
    alone = search_live(state, query, state.size)
    plain, next_ones = live_module.search, []

    def interrupted(*args):
        found = plain(*args)
        next_ones[:] = [with_items(state, block, -films.items[block]), without(state, block)]
        return found

    monkeypatch.setattr(live_module, "search", interrupted)
    for old, new in zip(alone, search_live(state, query, state.size), strict=True):
        for before, now in zip(old, new, strict=True):
            np.testing.assert_array_equal(before, now)
    monkeypatch.undo()
    assert [len(one) for one in next_ones] == [BUILT + 100, BUILT - 50]
    for one in next_ones:
        assert [len(items) for items in search_live(one, query, one.size)[1]] == [len(one)] * 4


def test_it_says_when_to_build_anew(main, films):
    state = live(main)
    assert rebuild_due(state) == ""
    some = np.arange(BUILT + 1, BUILT + 302)
    assert rebuild_due(with_items(state, some[:300], films.items[some[:300]])) == ""
    due = rebuild_due(with_items(state, some, films.items[some]))
    assert due == "301 fresh items beside 3,000 built ones: export again"
    gone = without(with_items(state, some, films.items[some]), np.arange(1, 500))
    assert rebuild_due(gone) == "301 fresh and 499 removed items beside 3,000 built ones: export again"
    assert rebuild_due(gone, share=0.2) == ""


def test_what_is_refused(main, films, monkeypatch: pytest.MonkeyPatch):
    state, new = live(main), np.array([BUILT + 1])
    vector = films.items[new]
    broken = films.items[BUILT + 1 : BUILT + 3].copy()
    broken[1, 5] = np.inf
    for ids, vectors, told in (
        (new, vector[:, :32], r"vectors of shape \(1, 32\); expected \[M\] and \[M, 64\]"),
        (np.array([1, 2]), vector, r"\(2,\) ids and vectors of shape \(1, 64\)"),
        (np.array([0]), vector, "item_index must be at least 1, got 0; 0 is the unknown item"),
        (np.array([-3]), vector, "item_index must be at least 1, got -3"),
        (np.array([9, 9]), np.concatenate([vector, vector]), "1 ids stand twice, first item_index 9"),
        (np.array([7, 8]), broken, "1 item vectors are not finite, first item_index 8; nothing was added"),
    ):
        with pytest.raises(SearchError, match=told):
            with_items(state, ids, vectors)
    with pytest.raises(SearchError, match="holds vectors of 64 columns"):
        search_live(state, films.queries[:, :9], 5)
    monkeypatch.setattr("playbill.index.live.MOST_FRESH", 1)
    with pytest.raises(SearchError, match="2 fresh items, at most 1 are searched; build the index anew"):
        with_items(with_items(state, new, vector), new + 1, vector)
    # nothing to do is no new state
    assert without(state, np.array([0, -1, 10**9])) is state
    assert with_items(state, np.empty(0, np.int64), np.empty((0, 64), np.float32)) is state


def test_writing_is_quick_and_shows_at_once(main, films, tmp_path: Path):
    state = with_items(live(main), np.array([10**6]), films.queries[:1])
    assert search_live(state, films.queries[:1], 1)[1][0].tolist() == [10**6]
    assert search_live(live(main), films.queries[:1], 1)[1][0].tolist() != [10**6]  # older states stay as they were
