"""An index in parts, on real vectors: together they find what the whole finds, whatever changes meanwhile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from playbill.errors import SearchError
from playbill.index.build import build_index
from playbill.index.filters import exact
from playbill.index.item_index import ItemIndex, read_index, routed, set_threads, write_index
from playbill.index.live import live, ready, rebuild_due, search_live, with_items, without
from playbill.index.route import Route, Step
from playbill.index.settings import IndexSettings, Kind
from playbill.index.shard import Shard, in_process
from playbill.index.sharded import Ask, Patience, Send, Sharded, sharded
from playbill.index.split import item_of, number_in_part, part_of, rows_of, split
from playbill.index.tune import tune_index

KINDS = (Kind.flat, Kind.ivf_sq8, Kind.ivf_pq, Kind.hnsw)
K, FLOOR = 50, 0.95


@pytest.fixture(scope="module")
def whole(films, tmp_path_factory) -> dict[Kind, ItemIndex]:
    """Tuned, written and mapped again, as serving has them."""
    set_threads(1)
    found = {}
    for kind in KINDS:
        made = IndexSettings(kind=kind, links=16, recall_k=K, recall_floor=FLOOR, sample_queries=160, threads=1)
        index, _ = tune_index(build_index(films.items, np.arange(1, len(films.items)), made), films.queries, made)
        path = tmp_path_factory.mktemp(kind.value) / "items.faiss"
        write_index(index, path)
        found[kind] = read_index(path, films.items)
    return found


def parted(index: ItemIndex, parts: int) -> tuple[Sharded, list[Shard | None]]:
    shards: list[Shard | None] = [Shard(split(index, part, parts)) for part in range(parts)]
    return sharded(index, parts, in_process(shards)), shards


def same(one, other) -> None:
    """Both found the same, in the same order but for films of equal scores, which FAISS orders as it likes."""
    differ = total = 0
    for scores, others, items, ids in zip(*one[:1], *other[:1], *one[1:], *other[1:], strict=True):
        assert len(items) == len(ids) == len(set(items.tolist()))
        np.testing.assert_allclose(scores, others, atol=1e-6)
        differ, total = differ + np.count_nonzero(items != ids), total + len(items)
    assert differ <= 0.01 * total


def recall(films_items: np.ndarray, queries: np.ndarray, allowed: np.ndarray, found) -> float:
    best = exact(films_items, queries, K, allowed)[0]
    return float(np.mean([(got >= row[-1] - 1e-6).mean() for got, row in zip(found[0], best, strict=True)]))


@pytest.mark.parametrize("parts", [1, 3, 4, 7])
def test_every_item_is_in_one_part_under_a_number_of_its_own(parts):
    items = np.arange(1, 1_000)
    part, number = part_of(items, parts), number_in_part(items, parts)
    assert sorted(set(part.tolist())) == list(range(parts))
    for one in range(parts):
        mine = items[part == one]
        np.testing.assert_array_equal(number[part == one], np.arange(1, len(mine) + 1))
        np.testing.assert_array_equal(item_of(number[part == one], one, parts), mine)
        np.testing.assert_array_equal(rows_of(np.arange(1_000), one, parts), [0, *mine])


@pytest.mark.parametrize("parts", [1, 4, 7])
def test_exact_search_in_parts_is_exact_search(whole, films, parts):
    state, shards = parted(whole[Kind.flat], parts)
    assert sum(map(len, shards)) == len(state) == len(films.items) - 1
    one, queries = live(whole[Kind.flat]), films.queries[:60]
    same(search_live(state, queries, K), search_live(one, queries, K))
    seen = [np.random.default_rng(i).permutation(len(films.items) - 1)[: 40 * i] + 1 for i in range(len(queries))]
    same(search_live(state, queries, K, seen), search_live(one, queries, K, seen))
    for allowed in films.genres.values():
        same(search_live(state, queries, K, seen, allowed), search_live(one, queries, K, seen, allowed))
    few = np.zeros(len(films.items), bool)
    few[[3, 5, 700]] = True  # fewer than are wanted, in few of the parts
    [items] = search_live(state, queries[:1], K, None, few)[1]
    assert sorted(items.tolist()) == [3, 5, 700]


def test_without_equal_scores_not_an_item_differs():
    rng = np.random.default_rng(3)
    items, queries = (rng.normal(size=(n, 32)).astype(np.float32) for n in (6_001, 50))
    index = build_index(items, np.arange(1, len(items)), IndexSettings(kind=Kind.flat, threads=1))
    for parts in (2, 4, 5):
        state, _ = parted(index, parts)
        for got, expected in zip(
            search_live(state, queries, 200)[1], search_live(live(index), queries, 200)[1], strict=True
        ):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_an_approximate_index_keep_its_recall(whole, films, kind, parts):
    state, _ = parted(whole[kind], parts)
    one, queries = live(whole[kind]), films.queries[-100:]
    everything = np.ones(len(films.items), bool)
    together = recall(films.items, queries, everything, search_live(state, queries, K))
    alone = recall(films.items, queries, everything, search_live(one, queries, K))
    assert together >= FLOOR and together >= alone - (0.005 if kind is Kind.hnsw else 1e-9)
    for share in (0.6, 0.3, 0.05):
        allowed = np.random.default_rng(2).random(len(films.items)) < share
        assert recall(films.items, queries, allowed, search_live(state, queries, K, None, allowed)) >= FLOOR - 0.01
    for scores, items in zip(*search_live(state, queries, K), strict=True):
        assert len(set(items.tolist())) == K and (np.diff(scores) <= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_changes_are_told_to_the_part_that_holds_them(whole, films, kind):
    state, shards = parted(whole[kind], 4)
    one, size = live(whole[kind]), len(films.items)
    rng = np.random.default_rng(7)
    late = np.arange(size, size + 9)
    vectors = films.queries[:9] + 0.05 * rng.normal(size=(9, 64)).astype(np.float32)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    gone = np.concatenate([search_live(one, films.queries[:20], 5)[1][3], [17, 18]])

    def change(begin):
        grown = with_items(begin, late, vectors)
        replaced = with_items(grown, np.array([40]), vectors[:1])
        return without(replaced, np.concatenate([gone, late[:1]]))

    state, one = change(state), change(one)
    assert len(state) == len(one) and state.size == one.size and rebuild_due(state) == rebuild_due(one)
    queries = films.queries[:40]
    found, expected = search_live(state, queries, K), search_live(one, queries, K)
    if kind is Kind.flat:
        same(found, expected)
    assert all(not np.isin(row, [*gone, late[0]]).any() for row in found[1])
    for number, vector in zip(late[1:], vectors[1:], strict=True):
        assert search_live(state, vector[None], 1)[1][0].tolist() == [number]
    assert 40 in search_live(state, vectors[:1], 3)[1][0]
    allowed = np.ones(state.size, bool)
    allowed[late[1::2]] = False
    assert not any(np.isin(row, late[1::2]).any() for row in search_live(state, queries, K, None, allowed)[1])
    # one item more: the state of its part has another name, the others' stays
    after = without(state, np.array([100]))
    assert [a == b for a, b in zip(state.states, after.states, strict=True)] == [
        part != part_of(np.array([100]), 4)[0] for part in range(4)
    ]
    # all taken back is the part as it was built
    assert with_items(sharded(whole[kind], 4, state.send), np.empty(0, np.int64), np.empty((0, 64))).states == ("",) * 4


def test_a_part_that_is_lost_is_left_out_and_named(whole, films):
    state, shards = parted(whole[Kind.flat], 4)
    state = without(state, np.array([1, 2, 3, 4, 5]))
    queries, there = films.queries[:10], np.arange(len(films.items)) > 5
    kept, shards[2] = shards[2], None
    patience = Patience()
    rest = there & (part_of(np.arange(len(films.items)), 4) != 2)
    same(search_live(state, queries, K, patience=patience), [list(x) for x in exact(films.items, queries, K, rest)])
    assert patience.told() == "found without index part 3 of 4: it is not there"
    shards[2] = kept
    patience = Patience()
    same(search_live(state, queries, K, patience=patience), [list(x) for x in exact(films.items, queries, K, there)])
    assert patience.told() == ""
    shards[:] = [None] * 4
    with pytest.raises(SearchError, match="none of 4 index parts answers: it is not there"):
        search_live(state, queries, K)


def test_a_part_that_starts_anew_is_told_again(whole, films):
    index = whole[Kind.ivf_sq8]
    state, shards = parted(index, 2)
    state = ready(without(with_items(state, np.array([9_000]), films.queries[:1]), np.array([8])))
    before = search_live(state, films.queries[:5], 20)
    calls: list[list[bool]] = []

    def counted(send: Send) -> Send:
        def ask(asks, within_s):
            calls.append([one.told is not None for one in asks.values()])
            return send(asks, within_s)

        return ask

    object.__setattr__(state, "send", counted(in_process(shards)))
    same(search_live(state, films.queries[:5], 20), before)
    assert calls == [[False, False]]  # it was made ready
    shards[1] = Shard(split(index, 1, 2))
    same(search_live(state, films.queries[:5], 20), before)
    assert calls[1:] == [[False, False], [True]]


@pytest.mark.parametrize("kind", [Kind.ivf_sq8, Kind.ivf_pq])
def test_parts_are_asked_again_only_where_all_together_bring_too_few(whole, films, kind):
    """A part need not fill the whole answer by itself: it would look four times as far as the whole does."""
    index = routed(whole[kind], Route(steps=[Step(depth=10**9, effort=1)], rescore=2.0))
    state, shards = parted(index, 4)
    asked: list[bool] = []

    def send(asks, within_s):
        asked.extend(ask.fully for ask in asks.values())
        return in_process(shards)(asks, within_s)

    object.__setattr__(state, "send", send)
    [few] = search_live(state, films.queries[:1], 5)[1]
    assert asked == [False] * 4 and len(few) == 5
    # one list holds some 14 films: all that are wanted are there all the same, from parts that have more
    for wanted in (200, len(films.items) + 7):
        asked.clear()
        [many] = search_live(state, films.queries[:1], wanted)[1]
        assert len(set(many.tolist())) == min(wanted, len(index)) and any(asked)
    asked.clear()
    few_left = np.zeros(len(films.items), bool)
    few_left[:60] = True
    [left] = search_live(state, films.queries[:1], 200, None, few_left)[1]
    assert sorted(left.tolist()) == list(range(1, 60)) and not any(asked)  # that is all there is


def test_states_take_no_more_memory_than_they_may(whole, films):
    shard = Shard(split(whole[Kind.flat], 0, 2), memory_mb=1)
    state = sharded(whole[Kind.flat], 2, in_process([shard, Shard(split(whole[Kind.flat], 1, 2))]))
    for first in range(1, 400, 2):
        after = without(state, np.arange(first, first + 60))
        assert not np.isin(search_live(after, films.queries[:1], 20)[1][0], np.arange(first, first + 60)).any()
    assert 0 < shard._bytes <= 1_000_000 and 1 <= len(shard._states) < 200
    assert shard.answer(Ask("never told", films.queries[:1], 5)) is None


def test_what_cannot_be_split(whole):
    with pytest.raises(SearchError, match="no part 4 of 4"):
        split(whole[Kind.flat], 4, 4)
    with pytest.raises(SearchError, match="part 9000 of 10000 would hold none of"):
        split(whole[Kind.flat], 9_000, 10_000)


@pytest.mark.parametrize("kind", [Kind.ivf_sq8, Kind.ivf_pq])
def test_a_part_is_a_file_like_any_other(whole, films, kind, tmp_path: Path):
    part = split(whole[kind], 1, 3)
    write_index(part, tmp_path / "items.faiss")
    again = read_index(tmp_path / "items.faiss", part.embeddings)
    same(search_live(live(again), films.queries[:9], K), search_live(live(part), films.queries[:9], K))
    assert again.route == part.route
