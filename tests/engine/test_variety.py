"""Diversity, mixes, damping and depth: by hand on a few items, and through the engine on real people."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest

from playbill.bundle.open import Bundle
from playbill.bundle.policy import Damping, Mix, Policy, Surface, check_policy
from playbill.engine.depth import LEAST, PLACES, Depth
from playbill.engine.engine import Engine
from playbill.engine.types import Request, Slate
from playbill.engine.variety import divergence, order_by_score, wanted_mix
from playbill.errors import BundleError
from playbill.state.store import Store

AT = 889_000_000_000_000  # 1998-03-04
REAL = (1, 13, 83, 172, 196, 265)


def slates(bundle: Bundle, store: Store, surface: Surface, k: int = 20, at: int = AT) -> list[Slate]:
    bundle = dataclasses.replace(bundle, policy=check_policy(Policy(surfaces={"slate": surface})))
    return Engine.open(bundle, store).recommend([Request(user_id=u, request_id=str(u), k=k, at=at) for u in REAL])


def test_a_mix_takes_the_second_of_a_kind_behind_the_first_of_another() -> None:
    """History: half a, half b. By score alone the list is a a b; the mix puts b second, as it halves the divergence."""
    wanted = wanted_mix([["a"], ["b"]], [["a"], ["a"], ["b"]], 0.5)
    assert wanted is not None
    score, item = np.array([1.0, 0.9, 0.8]), np.array([1, 2, 3])
    assert order_by_score(score, item, 3, 0.0, None, wanted).tolist() == [0, 2, 1]
    weak = dataclasses.replace(wanted, strength=0.05)
    assert order_by_score(score, item, 3, 0.0, None, weak).tolist() == [0, 1, 2]


def test_divergence_is_that_of_kullback_and_leibler() -> None:
    share = np.array([0.5, 0.5])
    [even, lean] = divergence(share, np.array([[0.5, 0.5], [1.0, 0.0]]))
    smooth = 0.99 * np.array([1.0, 0.0]) + 0.01 * share
    assert even == pytest.approx(0) and lean == pytest.approx(float((share * np.log(share / smooth)).sum()))


def test_an_item_of_several_values_counts_a_part_for_each() -> None:
    wanted = wanted_mix([["a", "b"], ["a"]], [["a", "c"], []], 1.0)
    assert wanted is not None
    assert wanted.share.tolist() == pytest.approx([0.75, 0.25]) and wanted.of.tolist() == [[0.5, 0.0], [0.0, 0.0]]
    assert wanted_mix([[], []], [["a"]], 1.0) is None


def test_lists_come_nearer_to_the_mix_of_the_history(bundle: Bundle, store: Store) -> None:
    genres = dict(zip(bundle.items["item_id"], bundle.items["categories"].to_list(), strict=True))

    def distance(found: list[Slate]) -> float:
        far = []
        for user_id, slate in zip(REAL, found, strict=True):
            profile = store.profile(user_id)
            assert profile is not None
            past = [genres[i] for i in dict.fromkeys(e.item_id for e in reversed(profile.history[-50:]))]
            mix = wanted_mix(past, [genres[i.item_id] for i in slate.items], 1.0)
            assert mix is not None
            far.append(float(divergence(mix.share, mix.of.mean(0))))
        return float(np.mean(far))

    far = [distance(slates(bundle, store, Surface(mix=Mix(strength=s)))) for s in (0.0, 0.3, 0.8)]
    assert far[0] > far[1] > 2 * far[2]


def test_what_is_well_known_stands_lower_and_what_is_new_higher(bundle: Bundle, store: Store) -> None:
    plain, damped = slates(bundle, store, Surface()), slates(bundle, store, Surface(damping=Damping(popularity=0.5)))
    engine = Engine.open(bundle, store)

    def place(found: list[Slate]) -> float:
        return float(
            np.mean([engine.catalogue.place[engine.catalogue.index(i.item_id)] for s in found for i in s.items])
        )

    assert place(damped) > 1.5 * place(plain)
    assert [s.items for s in slates(bundle, store, Surface(damping=Damping()))] == [s.items for s in plain]
    # nothing here has a date but what is noted as come out now
    store.set_items({200_000: {"title": "New", "categories": ["Drama"], "published_at": AT - 1}})
    quotas = {"tower": 200, "item_knn": 100, "new": 20, "popularity": 50}
    fresh = Surface(quotas=quotas, damping=Damping(freshness=1.0, half_life_days=1.0))
    assert all(200_000 in {i.item_id for i in s.items} for s in slates(bundle, store, fresh))
    old = slates(bundle, store, fresh, at=AT + 20 * 86_400_000_000)
    assert not any(200_000 in {i.item_id for i in s.items} for s in old)


@pytest.mark.parametrize(
    ("surface", "said"),
    [
        (Surface(mix=Mix(strength=1.1)), "mix.strength must be in 0..1"),
        (Surface(diversity=0.8, mix=Mix(strength=0.3)), "with diversity"),
        (Surface(damping=Damping(popularity=2.0)), "popularity and freshness in 0..1"),
        (Surface(damping=Damping(half_life_days=0.0)), "half_life_days must be above 0"),
    ],
)
def test_a_policy_of_variety_is_checked(surface: Surface, said: str) -> None:
    with pytest.raises(BundleError, match=said):
        check_policy(Policy(surfaces={"slate": surface}))


def test_depth_is_the_mean_overlap_of_two_peoples_lists() -> None:
    depth, dice = Depth(), np.random.default_rng(0)
    lists = [dice.permutation(30)[:PLACES].tolist() for _ in range(LEAST)]
    for person, items in enumerate(lists):
        assert depth.shared() is None
        depth.note(person, dice.permutation(30).tolist())  # replaced by what is shown later
        depth.note(person, [*items, 99])  # the eleventh place does not count
    pairs = [len(set(a) & set(b)) / PLACES for i, a in enumerate(lists) for b in lists[:i]]
    assert depth.shared() == pytest.approx(float(np.mean(pairs)))
    for person in range(1000, 2000):
        depth.note(person, list(range(PLACES)))
    assert depth.shared() == pytest.approx(1.0)  # the last 500 alone


def test_the_log_says_once_when_most_people_get_the_same_list(
    bundle: Bundle, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    people = [e for e in range(1, 400) if (p := store.profile(e)) is not None and p.history][: LEAST + 10]
    # what was seen is not shown again, so even the most popular differ a little: nothing is hidden here
    never: dict[str, float | None] = {}
    flat = Policy(surfaces={"slate": Surface(weights={"popularity": 1.0}, suppression=never), "own": Surface()})
    engine = Engine.open(dataclasses.replace(bundle, policy=flat), store)
    for surface in ("slate", "own"):
        engine.recommend([Request(user_id=u, surface=surface) for u in people])
    shared = engine.depths.shared()
    assert shared["slate"] == pytest.approx(1.0) and shared["own"] < 0.6
    engine.depths.shared()
    assert [r.message for r in caplog.records if "share" in r.message] == [
        "surface slate: two people share 100 % of their lists on average"
    ]


def test_what_a_policy_leaves_out_is_left_out_of_its_json() -> None:
    assert b"mix" not in msgspec.json.encode(Surface()) and b"damping" not in msgspec.json.encode(Surface())
