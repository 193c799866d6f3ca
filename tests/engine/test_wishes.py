"""What people ask for acts on the very next request, on every surface and rung, and the answer says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from playbill.bundle.open import Bundle
from playbill.bundle.pages import Form
from playbill.bundle.policy import Exploration, Policy, Surface, WishPolicy, check_policy
from playbill.bundle.rules import Act, Rule
from playbill.engine.catalogue import DAY_US
from playbill.engine.engine import Engine
from playbill.engine.types import Page, Request, Slate
from playbill.engine.wishes import check_preferences, likeness
from playbill.errors import BundleError, RequestError
from playbill.state.store import Store
from playbill.state.wishes import Lean, Mark, Preference, Wish

AT = 889_000_000_000_000  # 1998-03-04
USER = 196
LOST = {  # files without which an engine answers from each rung
    "full": [],
    "retrieval": ["ranker.onnx"],
    "item_knn": ["ranker.onnx", "query_tower.onnx"],
    "popularity": ["ranker.onnx", "query_tower.onnx", "neighbours.npz", "transitions.npz"],
}


def ask(engine: Engine, user: int | None = USER, k: int = 20, **fields: object) -> Slate:
    return engine.recommend([Request(user_id=user, request_id="r", at=AT, k=k, **fields)])[0]  # type: ignore[arg-type]


def ids(slate: Slate) -> list[int]:
    return [item.item_id for item in slate.items]


def removed(answer: Slate | Page) -> dict[str, int]:
    return {} if isinstance(answer.removed, msgspec.UnsetType) else {r.rule: r.items for r in answer.removed}


def mark(store: Store, kind: Mark, item: int, at: int = AT, **more: object) -> bool:
    return store.tell(Wish(**{"user_id": USER, "mark": kind, "item_id": item, "at": at, **more}))  # type: ignore[arg-type]


def prefer(store: Store, *preferences: Preference, **who: object) -> None:
    assert store.tell(Wish(**{"user_id": USER, **who}, preferences=list(preferences)))  # type: ignore[arg-type]


def of(kind: Lean, *categories: str) -> Preference:
    return Preference(kind=kind, categories=list(categories))


@pytest.fixture
def engine(bundle: Bundle, store: Store) -> Engine:
    return Engine.open(bundle, store)


@pytest.fixture
def genres(bundle: Bundle) -> dict[int, list[str]]:
    return dict(zip(bundle.items["item_id"], bundle.items["categories"].to_list(), strict=True))


@pytest.mark.parametrize("rung", list(LOST))
def test_wishes_count_on_every_rung(
    rung: str, bundle_without: Callable[..., Bundle], store: Store, genres: dict[int, list[str]]
) -> None:
    bundle = dataclasses.replace(bundle_without(*LOST[rung]), policy=Policy(wishes=WishPolicy(more=0.6)))
    engine = Engine.open(bundle, store)
    before = ask(engine)
    assert before.rung == rung and not removed(before)
    mark(store, Mark.HIDDEN, ids(before)[0])
    assert ids(ask(engine))[:5] == ids(before)[1:6]  # the next request, with the places moved up
    assert removed(ask(engine)) == {"asked: not this item": 1}
    prefer(store, of(Lean.NEVER, "Drama"))
    after = ask(engine)
    assert len(after.items) == 20 and not any("Drama" in genres[i] for i in ids(after))
    assert removed(after)["asked: never Drama"] > 300 and after.eligible_count < before.eligible_count - 300
    prefer(store, of(Lean.MORE, "Western"))
    after = ask(engine)
    westerns = [i for i in after.items if "Western" in genres[i.item_id]]
    assert len(westerns) > sum("Western" in genres[i] for i in ids(before)) + 2 and after.rung == rung
    for item in westerns:
        assert item.reason.kind == "declared" and item.reason.text == "Because you asked for more Western"
        assert item.reason.fact == {"asked": "more", "categories": ["Western"]}
    assert all(i.reason.kind != "declared" for i in after.items if "Western" not in genres[i.item_id])


def test_less_like_an_item_lowers_by_likeness_and_fades(engine: Engine, store: Store) -> None:
    before = ask(engine, k=200)
    liked = before.items[0].item_id
    mark(store, Mark.LESS, liked)
    after = ask(engine, k=200)
    was, now = ({i.item_id: i.score for i in s.items} for s in (before, after))
    index, vectors = engine.catalogue.index, engine.catalogue.vectors
    cosines = {i: float(vectors[index(i)] @ vectors[index(liked)]) for i in was if i in now}
    whole = engine.recommend([Request(user_id=USER, request_id="r", at=AT, k=1000)])[0]
    fall = {i: was[i] - now[i] for i in cosines}
    distance = fall[liked] / WishPolicy().like if liked in fall else None
    assert len(whole.items) and distance is not None and distance > 0
    for item, cosine in cosines.items():
        assert fall[item] == pytest.approx(0.5 * distance * max(cosine, 0), abs=1e-5)
    assert liked not in ids(ask(engine, k=10))
    # some left the first places, but none of them was taken away: they were only lowered
    assert set(ids(before)[:20]) - set(ids(after)[:20]) and removed(ask(engine)) == {}
    # half of it after each half-life: what is told again is as fresh as then
    mark(store, Mark.LESS, liked, at=AT - 180 * DAY_US)
    older = {i.item_id: i.score for i in ask(engine, k=200).items}
    assert was[liked] - older[liked] == pytest.approx(fall[liked] / 2, rel=1e-6)
    assert mark(store, Mark.LESS, liked, taken_back=True) and ids(ask(engine, k=200)) == ids(before)


def test_without_towers_shared_categories_are_likeness(
    bundle_without: Callable[..., Bundle], store: Store, genres: dict[int, list[str]]
) -> None:
    engine = Engine.open(bundle_without(*LOST["item_knn"]), store)
    items, less = np.arange(1, 60), np.asarray([1, 50])
    found = likeness(less, items, engine.catalogue)
    name = engine.catalogue.ids
    for row, one in enumerate(less.tolist()):
        for column, other in enumerate(items.tolist()):
            a, b = set(genres[name[one]]), set(genres[name[other]])
            wanted = 1 if one == other else len(a & b) / (len(a) * len(b)) ** 0.5
            assert found[row, column] == pytest.approx(wanted, abs=1e-6)
    first = ids(ask(engine))[0]
    mark(store, Mark.LESS, first)
    assert ids(ask(engine))[0] != first


def test_preferences_move_both_ways_and_never_stands_above_every_rule(
    bundle: Bundle, store: Store, genres: dict[int, list[str]]
) -> None:
    pin = Rule(name="spring", kind=Act.PIN, where="categories contains 'Horror'", position=0)
    policy = Policy(rules=[pin], wishes=WishPolicy(more=1, less=1))
    engine = Engine.open(dataclasses.replace(bundle, policy=check_policy(policy)), store)
    before = ask(engine)
    assert "Horror" in genres[ids(before)[0]]
    prefer(store, of(Lean.LESS, "Drama"), Preference(kind=Lean.MORE, where="release_year < 1950"))
    after = ask(engine)
    years = dict(zip(bundle.items["item_id"], bundle.items["release_year"], strict=True))
    old = [i for i in after.items if years[i.item_id] is not None and years[i.item_id] < 1950]
    assert len(old) > 5 and all(i.reason.fact == {"asked": "more", "where": "release_year < 1950"} for i in old)
    assert sum("Drama" in genres[i] for i in ids(after)) < sum("Drama" in genres[i] for i in ids(before))
    assert removed(after) == {} and "Horror" in genres[ids(after)[0]]
    prefer(store, of(Lean.NEVER, "Horror", "War"), of(Lean.MORE, "Horror"))
    after = ask(engine)
    assert not any({"Horror", "War"} & set(genres[i]) for i in ids(after))
    assert removed(after)["asked: never Horror or War"] > 50


def test_every_surface_knows(engine: Engine, store: Store, genres: dict[int, list[str]]) -> None:
    anchor = 50
    asked = {
        "slate": {},
        "similar": {"surface": "similar", "item_id": anchor},
        "trending": {"surface": "trending"},
        "rerank": {"surface": "rerank", "items": [1, 50, 64, 98, 100, 127, 172, 181, 237, 286]},
    }
    for name, fields in asked.items():
        store.tell(Wish(user_id=USER, nothing=True))
        before = ask(engine, **fields)
        gone = ids(before)[0]
        mark(store, Mark.HIDDEN, gone)
        after = ask(engine, **fields)
        assert gone not in ids(after), name
        assert ids(after)[:5] == ids(before)[1:6] and removed(after)["asked: not this item"] >= 1, name
        if name == "rerank":
            assert after.not_ordered == [gone]
    store.tell(Wish(user_id=USER, nothing=True))
    request = Request(user_id=USER, request_id="r", at=AT, surface="home", k=6)
    [before], _ = engine.pages([request])
    shown = [item.item_id for shelf in before.shelves for item in shelf.items]
    shown = [i for i in shown if "Comedy" not in genres[i]]
    mark(store, Mark.HIDDEN, shown[0])
    prefer(store, of(Lean.NEVER, "Comedy"), of(Lean.MORE, "Western"))
    [after], _ = engine.pages([request])
    for shelf in after.shelves:
        assert shown[0] not in [i.item_id for i in shelf.items]
        assert not any("Comedy" in genres[i.item_id] for i in shelf.items)
    [mine] = [shelf for shelf in after.shelves if shelf.kind == "for_you"]
    assert any(i.reason.kind == "declared" for i in mine.items)
    assert {"asked: not this item", "asked: never Comedy"} <= set(removed(after))


def test_hidden_items_do_not_come_back_on_shelves_of_the_past(bundle: Bundle, store: Store) -> None:
    from playbill.bundle.pages import ShelfKind, ShelfPlan

    plans = [ShelfPlan(kind=ShelfKind.AGAIN, events=["rate"], days=1), ShelfPlan(kind=ShelfKind.FOR_YOU)]
    surfaces = {"slate": Surface(), "home": Surface(form=Form.HOME, shelves=plans)}
    engine = Engine.open(dataclasses.replace(bundle, policy=Policy(surfaces=surfaces)), store)
    request = Request(user_id=USER, request_id="r", at=AT, surface="home", k=6)
    [again] = [s for s in engine.pages([request])[0][0].shelves if s.kind == "again"]
    mark(store, Mark.HIDDEN, again.items[0].item_id)
    [after] = [s for s in engine.pages([request])[0][0].shelves if s.kind == "again"]
    assert again.items[0].item_id not in [i.item_id for i in after.items]


def test_strangers_visitors_and_those_without_consent_are_heard(
    engine: Engine, store: Store, genres: dict[int, list[str]]
) -> None:
    prefer(store, of(Lean.MORE, "Film-Noir"), of(Lean.NEVER, "Comedy"), user_id=None, session_id="visit")
    slate = ask(engine, None, session_id="visit")
    assert slate.rung == "popularity" and any(i.reason.kind == "declared" for i in slate.items)
    assert not any("Comedy" in genres[i] for i in ids(slate))
    assert any("Comedy" in genres[i] for i in ids(ask(engine, None, session_id="another")))
    prefer(store, of(Lean.NEVER, "Drama"), user_id=999_999)  # of whom nothing else is known
    assert not any("Drama" in genres[i] for i in ids(ask(engine, 999_999)))


def test_without_wishes_nothing_is_other_than_it_was(engine: Engine, store: Store) -> None:
    before = ask(engine)
    mark(store, Mark.HIDDEN, ids(before)[0], user_id=13)
    prefer(store, of(Lean.NEVER, "Drama"), user_id=13)
    after = ask(engine)
    after.latency_ms = before.latency_ms
    after.state_version = before.state_version
    assert after == before


def test_what_a_later_bundle_does_not_know_is_passed_over(bundle: Bundle, store: Store) -> None:
    prefer(store, Preference(kind=Lean.NEVER, where="release_year > 0"), of(Lean.NEVER, "Drama"))
    poor = dataclasses.replace(bundle, items=bundle.items.drop("release_year"))
    slate = ask(Engine.open(poor, store))
    assert list(removed(slate)) == ["asked: never Drama"] and len(slate.items) == 20


def test_chance_does_not_bring_back_what_is_not_wanted(
    bundle: Bundle, store: Store, genres: dict[int, list[str]]
) -> None:
    surface = Surface(exploration=Exploration(epsilon=1.0, slots=20))
    engine = Engine.open(dataclasses.replace(bundle, policy=Policy(surfaces={"slate": surface})), store)
    prefer(store, of(Lean.NEVER, "Drama", "Comedy"))
    for n in range(20):
        slate = engine.recommend([Request(user_id=USER, request_id=str(n), at=AT)])[0]
        assert not any({"Drama", "Comedy"} & set(genres[i]) for i in ids(slate))


def test_preferences_are_checked_with_their_place(engine: Engine) -> None:
    wrong = [
        (Preference(kind=Lean.MORE), r"preferences\[1\]: expected categories or a condition `where`, got neither"),
        (Preference(kind=Lean.MORE, categories=["x"], where="price < 3"), r"preferences\[1\]: .* got both"),
        (Preference(kind=Lean.LESS, where="pryce < 3"), r"preferences\[1\]\.where: .*no column 'pryce'"),
    ]
    for preference, match in wrong:
        with pytest.raises(RequestError, match=match):
            check_preferences([of(Lean.MORE, "Drama"), preference], engine.conditions)
    check_preferences([of(Lean.MORE, "Children's", "O'Neill or 'x'")], engine.conditions)
    with pytest.raises(BundleError, match=r"policy\.wishes needs more, less and like in 0\.\.10"):
        check_policy(Policy(wishes=WishPolicy(more=11)))
    with pytest.raises(BundleError, match=r"policy\.wishes\.half_life_days must be above 0"):
        check_policy(Policy(wishes=WishPolicy(half_life_days=0)))


def test_forgetting_an_event_changes_the_next_slate(engine: Engine, store: Store) -> None:
    profile = store.profile(USER)
    last = profile.history[-1]
    before = ask(engine)
    assert last.item_id not in ids(before)
    store.forget(USER, None, last.event_id)
    after = ask(engine)
    assert after.profile_version == before.profile_version + 1 and ids(after) != ids(before)
    assert last.event_id not in [i.reason.fact.get("event_id") for i in after.items]
    for past in profile.history[:-1]:
        store.forget(USER, None, past.event_id)
    bare, stranger = ask(engine), ask(engine, 999_999)
    assert bare.rung == "popularity" and "no history yet" in bare.rung_reason and ids(bare) == ids(stranger)
