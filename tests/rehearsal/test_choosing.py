"""What a shop remembers of its log, and how lists follow from it; the oracle beside a search over everything."""

from __future__ import annotations

import numpy as np
import pytest

from playbill.cli import compose
from playbill.rehearsal.choosing import fit, scores_of, top
from playbill.rehearsal.memory import Memory
from playbill.rehearsal.rounds import best_slate, slate_utility
from playbill.world.build import World, build
from playbill.world.respond import utility

DAY = 86_400_000_000


@pytest.fixture(scope="module")
def world() -> World:
    settings = compose("rehearse", ["world=fitted", "size=tiny", "size.people=40", "size.items=30"])
    return build(settings.world, settings.size, 5)


@pytest.fixture
def memory() -> Memory:
    # persons 0 and 1 of segment 0, person 2 of segment 1, person 3 never logs in
    found = Memory.empty(np.array([0, 0, 1, 1]), np.array([False, False, False, True]), 5)
    #         0 clicks 1 then 2, 1 clicks 1, 2 clicks 4, somebody unknown clicks 4 twice
    person, item = np.array([0, 0, 1, 2, -1, -1]), np.array([1, 2, 1, 4, 4, 4])
    found.absorb(person, item, np.arange(6) * DAY)
    return found


def scores(name: str, memory: Memory, person: list[int]) -> np.ndarray:
    fitted = fit(name, memory, 5, 10 * DAY, 0)
    return np.broadcast_to(
        scores_of(name, memory, np.array(person), fitted, np.zeros((len(person), 5))), (len(person), 5)
    )


def test_bestsellers_count_everybody(memory: Memory) -> None:
    assert memory.clicks.tolist() == [0, 2, 1, 0, 3]
    assert scores("bestsellers", memory, [0, 3]).tolist() == [[0, 2, 1, 0, 3]] * 2


def test_a_segment_has_a_list_of_its_own(memory: Memory) -> None:
    lists = top(scores("segments", memory, [0, 2, 3]), np.ones((3, 5), bool), 3)
    # segment 0: item 1 twice, item 2 once, then 4 by all clicks; segment 1: item 4, then 1 and 2 by all clicks
    # those who never log in have a segment of their own: item 4 twice, then 1 and 2
    assert lists.tolist() == [[1, 2, 4], [4, 1, 2], [4, 1, 2]]


def test_seen_is_only_held_against_who_is_known(memory: Memory) -> None:
    assert np.argwhere(memory.seen).tolist() == [[0, 1], [0, 2], [1, 1], [2, 4]]


def test_histories_are_of_known_people_and_oldest_first(memory: Memory) -> None:
    indptr, item = memory.histories(np.array([2, 3, 0]))
    assert indptr.tolist() == [0, 1, 1, 3]
    assert item.tolist() == [5, 2, 3]  # item_index is the row plus one


def test_what_came_next_comes_first(memory: Memory) -> None:
    found = scores("item_knn", memory, [1, 3])
    assert found[0].argmax() == 2  # person 1 clicked item 1, after which person 0 clicked item 2
    assert found[1].argmax() == 4  # nothing is known of person 3: the bestseller


def test_trending_forgets() -> None:
    found = Memory.empty(np.array([0]), np.array([True]), 3)
    found.absorb(np.full(5, -1), np.array([0, 0, 0, 1, 1]), np.array([0, 0, 0, 14, 14]) * DAY)
    # three clicks 14 days earlier weigh 3 / 4 of one, at a half-life of 7 days
    fitted = fit("trending", found, 3, 15 * DAY, 0)
    assert scores_of("trending", found, np.array([0]), fitted, np.zeros((1, 3))).argmax() == 1


def test_top_leaves_places_empty() -> None:
    open_to = np.array([[True, False, True, False], [True, True, True, True]])
    found = top(np.array([[1.0, 9.0, 2.0, 9.0]]).repeat(2, 0), open_to, 3)
    assert found.tolist() == [[2, 0, -1], [1, 3, 2]]  # equal scores: the lower row first


def test_the_best_slate_beats_every_other(world: World) -> None:
    rng = np.random.default_rng(0)
    person, hour, device = np.arange(12), rng.integers(0, 24, 12), rng.integers(0, 2, 12)
    open_to = rng.random((12, 30)) < 0.4
    open_to[:, :3] = True
    item, creative = best_slate(world, person, hour, device, 3, 3, open_to)
    assert np.take_along_axis(open_to, item, 1).all()
    best = slate_utility(world, person, item, creative, hour, device, 3)
    first = world.creatives.first
    for n in range(12):
        # all items and creatives at place 0: the best slate's first place is the largest of them
        worth = {
            (i, c): float(utility(world, person[n], i, c, 0, hour[n], device[n], 3))
            for i in np.flatnonzero(open_to[n])
            for c in range(first[i], first[i + 1])
        }
        assert worth[item[n, 0], creative[n, 0]] == pytest.approx(max(worth.values()), rel=1e-5)
        some = rng.permutation(np.flatnonzero(open_to[n]))[:3][None, :]
        other = slate_utility(world, person[n : n + 1], some, first[some], hour[n : n + 1], device[n : n + 1], 3)
        assert other[0] <= best[n] * (1 + 1e-6)


def test_a_person_who_may_be_shown_little_gets_a_short_slate(world: World) -> None:
    open_to = np.zeros((2, 30), bool)
    open_to[0, [4, 7]] = True
    open_to[1, :9] = True
    item, creative = best_slate(world, np.array([0, 1]), np.array([9, 9]), np.array([0, 0]), 0, 4, open_to)
    assert set(item[0]) == {4, 7, -1} and (item[0, 2:] == -1).all() and (creative[0, 2:] == -1).all()
    assert (item[1] >= 0).all()
