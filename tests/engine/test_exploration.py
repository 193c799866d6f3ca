"""Exploration on items: weighted draws against chance itself, cold items, and strength by surface and request."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest

from playbill.bundle.open import Bundle
from playbill.bundle.policy import Exploration, Policy, Surface, check_policy, read_policy
from playbill.engine.compose import explore, inclusion
from playbill.engine.engine import Engine
from playbill.engine.types import Request, decode_request
from playbill.errors import BundleError, RequestError
from playbill.state.store import Store

DAY = 86_400_000_000
AT = 900_000_000_000_000  # in the summer of 1998
NEW = 100_001


def test_chances_to_be_drawn_by_hand() -> None:
    # 2 of weights 6, 1, 1: 2 x 6 / 8 is more than sure, so the others share what is left
    assert inclusion(np.asarray([6.0, 1.0, 1.0]), 2).tolist() == [1.0, 0.5, 0.5]
    assert inclusion(np.asarray([2.0, 1.0, 1.0]), 1).tolist() == [0.5, 0.25, 0.25]
    assert inclusion(np.asarray([9.0, 1e-3, 4.0]), 3).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("epsilon", "slots", "weight"),
    [(0.4, 3, [5, 1, 1, 1, 5, 1]), (1.0, 2, [100, 1, 1, 1]), (0.6, 1, [3, 1, 1]), (0.5, 4, [2, 1])],
)
def test_weighted_propensities_are_the_frequencies_of_chance(epsilon: float, slots: int, weight: list[float]) -> None:
    k, rounds = 4, 3_000
    order = np.arange(k + len(weight))[::-1].copy()  # candidate numbers are not places
    weights = np.ones(len(order))
    weights[order[k:]] = weight
    shown = np.zeros((k, len(order)))
    said = np.full((k, len(order)), np.nan)
    for i in range(rounds):
        slate, propensity, drawn = explore(order, k, epsilon, slots, 7, str(i), weights)
        assert len(set(slate.tolist())) == k
        assert (drawn == (slate != order[:k])).all()
        places = np.arange(k)
        shown[places, slate] += 1
        before = said[places, slate]
        assert (np.isnan(before) | (before == propensity)).all()  # the same in every world
        said[places, slate] = propensity
    expected = np.nan_to_num(said)
    np.testing.assert_allclose(expected.sum(1), 1.0)  # all that could be shown at a position was, and adds up
    error = np.sqrt(expected * (1 - expected) / rounds)
    assert (np.abs(shown / rounds - expected) <= 4.5 * error + 1e-12).all()
    explored = min(slots, k, len(weight))
    chance = inclusion(np.asarray(weight, float), explored)
    np.testing.assert_allclose(expected[k - 1, order[k:]], epsilon * chance / explored)


def test_even_weights_draw_what_no_weights_draw() -> None:
    order = np.arange(30)
    for i in range(50):
        plain = explore(order, 10, 0.5, 5, 3, str(i))
        even = explore(order, 10, 0.5, 5, 3, str(i), np.full(30, 2.0))
        assert all((a == b).all() for a, b in zip(plain, even, strict=True))


def with_policy(bundle: Bundle, exploration: Exploration, **quotas: int) -> Bundle:
    surface = Surface(exploration=exploration, quotas=Surface().quotas | quotas)
    quiet = Surface(exploration=Exploration(epsilon=0.0))
    return dataclasses.replace(bundle, policy=check_policy(Policy(surfaces={"slate": surface, "quiet": quiet})))


def test_strength_by_surface_and_request_and_never_below_the_floor(bundle: Bundle, store: Store) -> None:
    exploration = Exploration(epsilon=0.3, floor=0.1, slots=0, share=0.25)
    engine = Engine.open(with_policy(bundle, exploration), store)

    def chances(**asked: object) -> list[float]:
        """Return by position the propensity of the item that the policy itself would choose."""
        found = np.full(10, np.nan)
        for i in range(60):
            [slate] = engine.recommend([Request(user_id=1, k=10, request_id=str(i), at=AT, **asked)])  # type: ignore[arg-type]  # fields by name
            for item in slate.items:
                if item.reason.kind != "exploration":
                    found[item.position] = item.propensity
        return np.nan_to_num(found).tolist()

    # a quarter of ten, rounded up, is three places
    assert chances() == pytest.approx([1.0] * 7 + [0.7] * 3)
    assert chances(exploration=0.6) == pytest.approx([1.0] * 7 + [0.4] * 3)
    assert chances(exploration=0.0) == pytest.approx([1.0] * 7 + [0.9] * 3)
    assert chances(exploration=1.0) == pytest.approx([1.0] * 7 + [0.0] * 3)  # never the policy's own
    assert chances(surface="quiet") == [1.0] * 10
    with pytest.raises(RequestError, match="exploration"):
        decode_request(b'{"exploration": 1.5}')


def test_cold_items_are_drawn_as_often_as_said_until_they_are_old(bundle: Bundle, store: Store) -> None:
    exploration = Exploration(epsilon=0.5, slots=4, cold_boost=20.0, cold_days=10.0)
    engine = Engine.open(with_policy(bundle, exploration, new=5), store)
    genre = bundle.vocabularies["item_categories"].values[3]
    dates = {NEW: AT - 2 * DAY, NEW + 1: "1998-07-08T16:00:00Z", NEW + 2: AT - 30 * DAY, NEW + 3: AT + DAY}
    store.set_items(
        {i: {"title": f"film {i}", "categories": [genre], "published_at": date} for i, date in dates.items()}
    )
    rounds, places, said = 800, 10, {}
    shown = {item_id: 0 for item_id in dates}
    # the same person at one moment: only chance tells the slates apart
    slates = engine.recommend([Request(user_id=1, k=places, request_id=str(i), at=AT) for i in range(rounds)])
    for slate in slates:
        for item in slate.items:
            if item.item_id in shown and item.reason.kind == "exploration":
                shown[item.item_id] += 1
                said.setdefault(item.item_id, set()).add(item.propensity)
    assert set(said) >= {NEW, NEW + 1}
    for item_id in (NEW, NEW + 1):
        [propensity] = said[item_id]
        expected = 4 * propensity * rounds  # at any of four places
        assert abs(shown[item_id] - expected) < 4.5 * np.sqrt(expected)
        others = {i.propensity for s in slates for i in s.items if i.reason.kind == "exploration"} - {propensity}
        assert others and propensity == pytest.approx(20 * max(others))
    # thirty days old, or not out yet: cold no longer, and proposed by nobody because it is new
    assert all(p < min(said[NEW]) for i in (NEW + 2, NEW + 3) for p in said.get(i, ()))
    assert all(i.retriever != "new" for s in slates for i in s.items if i.item_id in (NEW + 2, NEW + 3))


def test_what_a_policy_may_say_of_exploration() -> None:
    for wrong, why in [
        ({"epsilon": 0.1, "floor": 0.2}, r"floor must lie in 0\.\.epsilon \(0\.1\), got 0\.2"),
        ({"epsilon": 0.1, "floor": 0.1, "slots": 0}, "no position may be drawn"),
        ({"share": 1.5}, "share in 0..1"),
        ({"cold_boost": 0.5}, "cold_boost >= 1"),
    ]:
        with pytest.raises(BundleError, match=why):
            check_policy(Policy(surfaces={"slate": Surface(exploration=Exploration(**wrong))}))
    # a policy written before these fields were there
    old = read_policy(msgspec.json.encode({"surfaces": {"slate": {"exploration": {"epsilon": 0.2, "slots": 3}}}}))
    assert old.surface("slate").exploration.strength(None) == 0.2
    assert old.surface("slate").exploration.places(20) == 3
