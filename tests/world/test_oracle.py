"""The oracle's slate is the best there is: no other choice of items, creatives and places has a higher utility."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from playbill.world.build import World, build, items_there
from playbill.world.oracle import best_creative, oracle_slate
from playbill.world.parameters import Catalogue, Clicks, Parameters, Switches, Unfairness
from playbill.world.respond import utility
from playbill.world.settings import Size

DAY = 12


def make(size: Size | None = None, **given: Any) -> World:
    return build(Parameters(**given), size or Size(people=60, items=40), seed=3)


def value(world: World, person: int, items: Any, creatives: Any, hour: int = 20, device: int = 1) -> float:
    """Return the expected true utility of one slate."""
    places = np.arange(len(items))
    people = np.full(len(items), person)
    return float(
        utility(world, people, np.array(items), np.array(creatives), places, np.array(hour), np.array(device), DAY)
        .astype(np.float64)
        .sum()
    )


def test_no_slate_is_better_by_trying_them_all() -> None:
    """Every ordered choice of 2 of 5 items and every creative of each, with a place in the middle that is seen most."""
    world = make(
        Size(people=8, items=5),
        clicks=Clicks(examination=[0.4, 0.9]),
        catalogue=Catalogue(new_share=0, creatives_min=2, creatives_max=3),
    )
    items, creatives = oracle_slate(world, np.arange(8), 20, 1, DAY, 2)
    of = [range(a, b) for a, b in itertools.pairwise(world.creatives.first.tolist())]
    for person in range(8):
        best = max(
            value(world, person, pair, chosen)
            for pair in itertools.permutations(range(5), 2)
            for chosen in itertools.product(*(of[i] for i in pair))
        )
        assert value(world, person, items[person], creatives[person]) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("switch", ["taste", "title", "image", "hour", "device", "position", "drift"])
def test_the_best_items_in_order_whatever_is_switched_off(switch: str) -> None:
    world = make(switches=Switches(**{switch: False}))
    people = np.arange(60)
    hours, devices = people % 24, people % 3
    items, creatives = oracle_slate(world, people, hours, devices, DAY, 6)
    there = np.arange(items_there(world, DAY))
    grid = np.broadcast_to(there, (60, len(there)))
    creative = best_creative(world, people[:, None], grid, DAY)
    zero = np.array(0)
    single = utility(world, people[:, None], grid, creative, zero, hours[:, None], devices[:, None], DAY)
    expected = -np.sort(-single, axis=1)[:, :6]
    got = utility(world, people[:, None], items, creatives, zero, hours[:, None], devices[:, None], DAY)
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    np.testing.assert_array_equal(world.creatives.item[creatives], items)
    assert all(len(set(row)) == 6 for row in items.tolist())


def test_the_best_creative_is_the_best_of_the_items_own() -> None:
    world = make()
    people, items = np.arange(60)[:, None], np.arange(40)
    chosen = best_creative(world, people, items, DAY)
    zero = np.array(0)
    for person, item in itertools.product(range(0, 60, 7), range(0, 40, 3)):
        own = np.arange(world.creatives.first[item], world.creatives.first[item + 1])
        p = utility(world, np.array(person), np.array(item), own, zero, zero, zero, DAY)
        assert chosen[person, item] in own
        assert p[chosen[person, item] - own[0]] == p.max()


def test_only_available_items_are_shown() -> None:
    world = make(catalogue=Catalogue(new_share=0.8))
    items, _ = oracle_slate(world, np.arange(60), 9, 0, 2, 3)
    assert world.items.published_day[items].max() <= 2
    allowed = np.zeros(40, bool)
    allowed[[3, 17, 39]] = True
    items, _ = oracle_slate(world, np.arange(60), 9, 0, 2, 3, allowed)
    assert (np.sort(items, axis=1) == [3, 17, 39]).all()
    with pytest.raises(ValueError, match=r"k must lie in 1..3, the number of available items, got 4"):
        oracle_slate(world, np.arange(60), 9, 0, 2, 4, allowed)


def test_people_in_parts_get_the_same_slates(monkeypatch: pytest.MonkeyPatch) -> None:
    world = make()
    whole = oracle_slate(world, np.arange(60), 9, 0, DAY, 5)
    monkeypatch.setattr("playbill.world.oracle._CELLS", 7 * len(world.creatives.item))
    parts = oracle_slate(world, np.arange(60), 9, 0, DAY, 5)
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_array_equal(whole[1], parts[1])


def test_a_disparity_against_a_group_leaves_its_slates_alone() -> None:
    fair, unfair = make(), make(unfairness=Unfairness(relative=0.5))
    np.testing.assert_array_equal(
        oracle_slate(fair, np.arange(60), 9, 0, DAY, 5)[0], oracle_slate(unfair, np.arange(60), 9, 0, DAY, 5)[0]
    )


def test_the_oracle_beats_the_bestsellers() -> None:
    world = make(Size(people=300, items=200))
    items, creatives = oracle_slate(world, np.arange(300), 20, 1, DAY, 6)
    best = np.argsort(-world.items.attraction[: items_there(world, DAY)])[:6]
    first = world.creatives.first[best]
    oracle = sum(value(world, p, items[p], creatives[p]) for p in range(300))
    same = sum(value(world, p, best, first) for p in range(300))
    assert oracle > 2 * same
