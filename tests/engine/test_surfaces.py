"""What a surface may answer beside a slate: the like of an item, a list in order, what trends, a page of shelves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from playbill.baselines.near import fit_near, write_near
from playbill.bundle.open import Bundle
from playbill.bundle.pages import Form, ShelfKind, ShelfPlan
from playbill.bundle.policy import Exploration, Policy, Surface, check_policy
from playbill.bundle.rules import Act, Rule
from playbill.dataset.dataset import Dataset
from playbill.engine.engine import Engine
from playbill.engine.types import Page, Request, Slate
from playbill.errors import BundleError, RequestError
from playbill.state.events import Event
from playbill.state.store import Store
from playbill.tables.schema import EventKind

AT = 889_000_000_000_000  # 1998-03-04
REAL = (1, 13, 83, 172, 196, 265)
TOY_STORY = 1


def ids(slate: Slate) -> list[int]:
    return [item.item_id for item in slate.items]


def with_policy(bundle: Bundle, *rules: Rule, **surfaces: Surface) -> Bundle:
    policy = Policy(surfaces={"slate": Surface(), **surfaces}, rules=list(rules) or msgspec.UNSET)
    return dataclasses.replace(bundle, policy=check_policy(policy))


@pytest.fixture
def engine(bundle: Bundle, store: Store) -> Engine:
    return Engine.open(bundle, store)


def page_of(engine: Engine, user_id: int | None = 196, **fields: object) -> Page:
    request = Request(user_id=user_id, request_id="r", at=AT, surface="home", **{"k": 8, **fields})  # type: ignore[arg-type]
    return engine.pages([request])[0][0]


def test_what_is_like_an_item_is_the_same_for_anybody_and_says_what_it_is_like(engine: Engine) -> None:
    asked = [Request(user_id=u, item_id=TOY_STORY, surface="similar", k=10, at=AT) for u in (None, 999_999)]
    nobody, stranger = engine.recommend(asked)
    assert ids(nobody) == ids(stranger) and TOY_STORY not in ids(nobody) and len(ids(nobody)) == 10
    assert nobody.rung == "retrieval" and not nobody.rung_reason and nobody.surface == "similar"
    catalogue = engine.catalogue
    anchor = catalogue.index(TOY_STORY)
    for item in nobody.items:
        assert item.reason.kind in ("similar", "together") and item.reason.fact["item_id"] == TOY_STORY
        if item.reason.kind == "similar":
            cosine = catalogue.vectors[catalogue.index(item.item_id)] @ catalogue.vectors[anchor]
            assert item.reason.fact["cosine"] == pytest.approx(float(cosine), abs=1e-6) and item.retriever == "similar"
    assert any(item.reason.kind == "similar" for item in nobody.items)


def test_vectors_alone_give_the_exact_neighbours(bundle: Bundle, store: Store) -> None:
    near = Surface(form=Form.SIMILAR, weights={"similar": 1.0}, quotas={"tower": 200})
    engine = Engine.open(with_policy(bundle, near=near), store)
    slate = engine.recommend([Request(item_id=TOY_STORY, surface="near", k=10)])[0]
    vectors, anchor = engine.catalogue.vectors, engine.catalogue.index(TOY_STORY)
    cosine = vectors[1:] @ vectors[anchor]
    cosine[anchor - 1] = -np.inf
    best = np.argsort(-cosine, kind="stable")[:10] + 1
    assert ids(slate) == [engine.catalogue.ids[i] for i in best]


def test_what_is_like_an_item_leaves_out_what_somebody_has_seen(engine: Engine, store: Store) -> None:
    profile = store.profile(196)
    assert profile is not None
    slate = engine.recommend([Request(user_id=196, item_id=profile.history[-1].item_id, surface="similar")])[0]
    assert len(slate.items) == 20 and not set(ids(slate)) & set(profile.seen)


def test_an_item_that_nobody_knows_gets_what_is_popular_and_a_reason(engine: Engine) -> None:
    slate = engine.recommend([Request(item_id=123_456_789, surface="similar", k=5)])[0]
    assert len(slate.items) == 5 and slate.rung == "popularity" and slate.rung_reason == "the item is not known"


def test_without_towers_what_was_chosen_together_is_alike(bundle_without: Callable[..., Bundle], store: Store) -> None:
    engine = Engine.open(bundle_without("query_tower.onnx"), store)
    slate = engine.recommend([Request(item_id=TOY_STORY, surface="similar", k=10)])[0]
    assert slate.rung == "item_knn" and len(slate.items) == 10
    assert {item.reason.kind for item in slate.items} <= {"similar", "together", "popular", "catalogue"}
    assert slate.items[0].reason.fact["item_id"] == TOY_STORY


def test_an_objective_of_tasks_ranks_the_like_for_somebody_known(bundle: Bundle, store: Store) -> None:
    mine = Surface(form=Form.SIMILAR, weights={"interact": 1.0})
    engine = Engine.open(with_policy(bundle, mine=mine), store)
    known, nobody = engine.recommend(
        [Request(user_id=u, item_id=TOY_STORY, surface="mine", request_id="r") for u in (196, None)]
    )
    assert known.rung == "full" and nobody.rung == "retrieval" and "nobody known" in nobody.rung_reason
    scores = [item.probabilities["interact"] for item in known.items]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) > 1


def test_a_list_comes_back_in_the_rankers_order_whole_and_with_what_was_seen(engine: Engine, store: Store) -> None:
    profile = store.profile(196)
    assert profile is not None
    mine = [*profile.seen[:5], *[i for i in range(1, 60) if i not in profile.seen][:25]]
    slate = engine.recommend(
        [Request(user_id=196, items=[*mine, 987_654_321], surface="rerank", request_id="r", at=AT)]
    )[0]
    assert sorted(ids(slate)) == sorted(mine) and slate.not_ordered == [987_654_321] and slate.rung == "full"
    scores = [item.score for item in slate.items]
    assert scores == sorted(scores, reverse=True) and {item.retriever for item in slate.items} == {"list"}
    # as the slate would have ordered them
    whole = engine.recommend([Request(user_id=196, k=1000, request_id="r", at=AT)])[0]
    place = {item_id: n for n, item_id in enumerate(ids(whole))}
    shared = [item_id for item_id in ids(slate) if item_id in place]
    assert len(shared) > 5 and shared == sorted(shared, key=place.__getitem__)


def test_a_list_holds_what_may_be_shown_alone(bundle: Bundle, store: Store) -> None:
    block = Rule(name="no horror", kind=Act.BLOCK, where="categories contains 'Horror'")
    pin = Rule(name="first", kind=Act.PIN, where="item_id = 50", position=0)
    engine = Engine.open(with_policy(bundle, block, pin), store)
    rows = bundle.items.filter(bundle.items["categories"].list.contains("Horror"))["item_id"].to_list()[:3]
    store.set_items({2: {"available": False}})
    asked = Request(user_id=196, items=[1, 2, *rows, 3, 4], exclude=[3], surface="rerank", request_id="r")
    slate = engine.recommend([asked])[0]
    assert sorted(ids(slate)) == [1, 4] and slate.not_ordered == [
        2,
        *rows,
        3,
    ]  # and no rule brings in what is not on it


def test_what_trends_needs_nobody_and_hides_what_was_seen(engine: Engine, store: Store) -> None:
    nobody, known = engine.recommend([Request(user_id=u, surface="trending", k=15) for u in (None, 196)])
    order = [engine.catalogue.ids[i] for i in engine.catalogue.trending_order]
    profile = store.profile(196)
    assert profile is not None
    assert ids(nobody) == order[:15] and not nobody.rung_reason and nobody.rung == "popularity"
    assert ids(known) == [item_id for item_id in order if item_id not in profile.seen][:15]
    assert {item.reason.kind for item in (*nobody.items, *known.items)} == {"trending"}


def test_a_page_shows_no_item_twice_and_its_shelves_by_what_they_are_worth(engine: Engine, store: Store) -> None:
    for user_id in REAL:
        page = page_of(engine, user_id)
        profile = store.profile(user_id)
        assert profile is not None
        shown = [item.item_id for shelf in page.shelves for item in shelf.items]
        assert len(shown) == len(set(shown)) and not set(shown) & set(profile.seen)
        assert len(page.shelves) >= 4 and [s.position for s in page.shelves] == list(range(len(page.shelves)))
        worth = [shelf.expected_utility for shelf in page.shelves]
        assert worth == sorted(worth, reverse=True)
        for shelf in page.shelves:
            discount = 1 / np.log2(2 + np.arange(len(shelf.items)))
            best_first = np.sort([item.score for item in shelf.items])[::-1]
            assert shelf.expected_utility == pytest.approx(float(best_first @ discount), rel=1e-6)
            assert 3 <= len(shelf.items) <= 8 and [i.position for i in shelf.items] == list(range(len(shelf.items)))


def test_titles_of_shelves_are_true(engine: Engine, store: Store, bundle: Bundle) -> None:
    genres = dict(zip(bundle.items["item_id"], bundle.items["categories"].to_list(), strict=True))
    kinds = set()
    for user_id in REAL:
        profile = store.profile(user_id)
        assert profile is not None
        events = {event.event_id: event for event in profile.history}
        newest = list(dict.fromkeys(event.item_id for event in reversed(profile.history)))
        for shelf in page_of(engine, user_id).shelves:
            kinds.add(shelf.kind)
            if shelf.kind == "because":
                assert events[shelf.fact["event_id"]].item_id == shelf.fact["item_id"]
                assert engine.catalogue.titles[engine.catalogue.index(shelf.fact["item_id"])] in shelf.title
                assert all(i.reason.fact["item_id"] == shelf.fact["item_id"] for i in shelf.items if i.propensity == 1)
            if shelf.kind == "category":
                assert all(shelf.title in genres[item.item_id] for item in shelf.items)
                read = newest[: shelf.fact["of"]]
                counts = {g: sum(g in genres[i] for i in read) for g in {g for i in read for g in genres[i]}}
                assert shelf.fact["chosen"] == counts[shelf.title] >= sorted(counts.values())[-2]
            if shelf.kind == "trending":
                assert all(engine.catalogue.trending[engine.catalogue.index(i.item_id)] > 0 for i in shelf.items)
    assert {"for_you", "because", "category"} <= kinds


def test_a_page_for_nobody_has_shelves_that_need_no_past(engine: Engine) -> None:
    page = page_of(engine, None)
    assert {shelf.kind for shelf in page.shelves} <= {"for_you", "trending", "popular"} and page.rung == "popularity"
    assert page.shelves and {s.title for s in page.shelves if s.kind == "for_you"} <= {"Popular"}


def test_what_was_begun_is_continued_and_what_was_bought_is_offered_again(bundle: Bundle, store: Store) -> None:
    plans = [
        ShelfPlan(kind=ShelfKind.CONTINUE, events=["rate"], finished=["finish"], days=30, least=1),
        ShelfPlan(kind=ShelfKind.AGAIN, events=["buy"], days=10, least=1),
        ShelfPlan(kind=ShelfKind.FOR_YOU),
    ]
    declared = store.declared
    assert declared is not None
    more = [EventKind(name=name) for name in ("finish", "buy")]
    store.declare(msgspec.structs.replace(declared, events=[*declared.events, *more]))
    day = 86_400_000_000

    def did(event: str, item_id: int, ago: float) -> Event:
        value = 4.0 if event == "rate" else None
        return Event(event_id=f"{event}{item_id}", user_id=7_777, event=event, item_id=item_id, value=value,
                     at=AT - round(ago * day))  # fmt: skip

    store.append([did("rate", 10, 3), did("rate", 20, 2), did("finish", 10, 1), did("rate", 30, 60), did("rate", 40, 1),
                  did("buy", 50, 20), did("buy", 60, 5), did("buy", 70, 15)])  # fmt: skip
    engine = Engine.open(with_policy(bundle, home=Surface(form=Form.HOME, shelves=plans)), store)
    page = page_of(engine, 7_777)
    shelves = {shelf.kind: shelf for shelf in page.shelves}
    assert [i.item_id for i in shelves["continue"].items] == [40, 20]
    assert {i.item_id for i in shelves["again"].items} == {50, 70}
    assert [i.reason.fact["event_id"] for i in shelves["continue"].items] == ["rate40", "rate20"]
    assert not {10, 20, 30, 40, 50, 60, 70} & {i.item_id for i in shelves["for_you"].items}
    gone = page_of(engine, 7_777, exclude=[40, 50])
    assert not {40, 50} & {i.item_id for shelf in gone.shelves for i in shelf.items}


def test_filters_blocks_and_caps_hold_on_every_shelf(bundle: Bundle, store: Store) -> None:
    genres = dict(zip(bundle.items["item_id"], bundle.items["categories"].to_list(), strict=True))
    rules = [
        Rule(name="no drama", kind=Act.BLOCK, where="categories contains 'Drama'"),
        Rule(name="two", kind=Act.CAP, where="categories contains 'Comedy'", most=2),
    ]
    page = page_of(Engine.open(with_policy(bundle, *rules), store), filter="release_year < 1997")
    years = dict(zip(bundle.items["item_id"], bundle.items["release_year"].to_list(), strict=True))
    assert page.shelves
    for shelf in page.shelves:
        mine = [item.item_id for item in shelf.items]
        assert all(years[i] is not None and years[i] < 1997 and "Drama" not in genres[i] for i in mine)
        assert sum("Comedy" in genres[i] for i in mine) <= 2
    assert isinstance(page.removed, list) and {r.rule for r in page.removed} >= {"no drama"}


def test_chance_on_a_page_has_the_propensity_that_it_says(bundle: Bundle, store: Store) -> None:
    """Over many requests the items drawn stand where they do as often as their propensities say, and never twice."""
    surface = Surface(form=Form.HOME, exploration=Exploration(epsilon=0.5, slots=2))
    engine = Engine.open(with_policy(bundle, home=surface), store)
    asked = [Request(user_id=196, request_id=f"r{n}", at=AT, surface="home", k=5) for n in range(400)]
    pages = engine.pages(asked)[0]
    kept = drawn = 0
    chance: list[float] = []
    for page in pages:
        shown = [item.item_id for shelf in page.shelves for item in shelf.items]
        assert len(shown) == len(set(shown))
        for shelf in page.shelves:
            for item in shelf.items[-2:]:
                if item.reason.kind == "exploration":
                    drawn += 1
                    chance.append(item.propensity)
                elif item.propensity < 1:
                    kept += 1
                    assert item.propensity == pytest.approx(0.5)
    assert drawn and abs(drawn / (drawn + kept) - 0.5) < 4 * 0.5 / np.sqrt(drawn + kept)
    # what one shelf draws is uniform over its own spare items: their number is what the propensity says
    first = {s.title: {i.item_id for p in pages for t in p.shelves if t.title == s.title for i in t.items
                       if i.reason.kind == "exploration"} for s in pages[0].shelves}  # fmt: skip
    told = {s.title: {i.propensity for p in pages for t in p.shelves if t.title == s.title for i in t.items
                      if i.reason.kind == "exploration"} for s in pages[0].shelves}  # fmt: skip
    for title, propensities in told.items():
        assert len(propensities) <= 1
        for p in propensities:
            assert len(first[title]) <= round(0.5 / p)
    spare = [items for items in first.values() if items]
    assert sum(map(len, spare)) == len(set().union(*spare))  # a spare item is one shelf's alone


def test_shelves_keep_to_what_the_policy_says_of_them(bundle: Bundle, store: Store) -> None:
    plans = [ShelfPlan(kind=ShelfKind.POPULAR), ShelfPlan(kind=ShelfKind.BECAUSE, most=2, weight=100.0, least=5)]
    surface = Surface(form=Form.HOME, shelves=plans, most_shelves=2)
    page = page_of(Engine.open(with_policy(bundle, home=surface), store))
    assert [shelf.kind for shelf in page.shelves] == ["because", "because"]


@pytest.mark.parametrize(
    ("asked", "field", "said"),
    [
        ({"surface": "similar"}, "item_id", "expected its id, got none"),
        ({"surface": "rerank"}, "items", "expected their ids, got none"),
        ({"surface": "rerank", "items": [5, 6, 5]}, r"items\[2\]", r"5 as in items\[0\]"),
        ({"surface": "rerank", "items": [5, "six"]}, r"items\[1\]", "six"),
        ({"surface": "slate", "item_id": 5}, "item_id", "`similar` shows"),
        ({"surface": "trending", "items": [5]}, "items", "`rerank` puts"),
        ({"surface": "home"}, "surface", "POST /v1/home"),
    ],
)
def test_a_request_says_what_its_surface_needs(engine: Engine, asked: dict[str, object], field: str, said: str) -> None:
    with pytest.raises(RequestError, match=f"(?s){field}.*{said}"):
        engine.recommend([Request(**asked)])  # type: ignore[arg-type]


def test_a_slate_is_no_page(engine: Engine) -> None:
    with pytest.raises(RequestError, match="surface.*no page"):
        engine.pages([Request(surface="slate")])


@pytest.mark.parametrize(
    ("surfaces", "said"),
    [
        ({"slate": Surface(form=Form.HOME)}, "slate.form must be slate"),
        ({"x": Surface(shelves=[ShelfPlan(kind=ShelfKind.POPULAR)])}, "only a page has some"),
        ({"x": Surface(form=Form.HOME, shelves=[])}, "1 to 20 kinds"),
        ({"x": Surface(form=Form.HOME, shelves=[ShelfPlan(kind=ShelfKind.AGAIN)])}, "events is empty"),
        ({"x": Surface(form=Form.HOME, shelves=[ShelfPlan(kind=ShelfKind.POPULAR, most=2)])}, "most must be 1, got 2"),
        ({"x": Surface(form=Form.HOME, most_shelves=0)}, "most_shelves must be 1 to 50"),
    ],
)
def test_a_policy_of_pages_is_checked(surfaces: dict[str, Surface], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        check_policy(Policy(surfaces={"slate": Surface(), **surfaces}))


def test_what_is_trending_near_somebody(bundle_without: Callable[..., Bundle], dataset: Dataset, store: Store) -> None:
    """By occupation, for want of a better place: real people, and what those who share it rated."""
    bundle = bundle_without()
    train = np.flatnonzero(dataset.split.part == 0)
    person, item, at = dataset.pool.person[train], dataset.pool.item[train], dataset.pool.at[train]
    people = list(dataset.user_columns["occupation"])
    near = fit_near("occupation", people, person, item, at, dataset.spec.num_items, int(at.max()) + 1, 7.0)
    write_near(bundle.path / "near.npz", near)
    engine = Engine.open(
        with_policy(bundle, home=Surface(form=Form.HOME, shelves=[ShelfPlan(kind=ShelfKind.NEAR)])), store
    )
    store.set_features({196: {"occupation": "programmer"}})
    for user, place, context in (
        (196, "programmer", {}),
        (196, "student", {"occupation": "student"}),  # where the request comes from counts before where one lives
        (None, "student", {"occupation": "student"}),
    ):
        [shelf] = page_of(engine, user, context=context).shelves
        assert shelf.title == "Trending near you" and shelf.fact == {"column": "occupation", "value": place}
        items, share = near.of(place)
        known = dict(zip([bundle.items["item_id"][int(i) - 1] for i in items], share.tolist(), strict=True))
        for shown in shelf.items:
            assert shown.reason.kind == "near" and shown.reason.fact == {**shelf.fact, "share": known[shown.item_id]}
    assert page_of(engine, None).shelves == []  # nobody says where they are
    assert page_of(engine, None, context={"occupation": "astronaut"}).shelves == []
    (bundle.path / "near.npz").write_bytes(b"broken")
    broken = Engine.open(bundle, store)
    assert "holds no lists by place" in broken.parts.missing["near"] and page_of(broken).shelves


def test_what_a_cap_leaves_over_of_a_list_is_named(bundle: Bundle, store: Store) -> None:
    mine = bundle.items.filter(bundle.items["categories"].list.contains("Drama"))["item_id"].to_list()[:4]
    rule = Rule(name="one drama", kind=Act.CAP, where="categories contains 'Drama'", most=1)
    request = Request(user_id=999_999, items=mine, surface="rerank", at=AT)
    [slate] = Engine.open(with_policy(bundle, rule), store).recommend([request])
    assert len(slate.items) == 1 and slate.not_ordered == [i for i in mine if i != slate.items[0].item_id]


def test_each_surface_names_its_objective(engine: Engine) -> None:
    asked = [Request(user_id=196), Request(surface="trending"), Request(user_id=196, item_id=50, surface="similar")]
    first, trending, similar, nobody = (slate.objective for slate in engine.recommend([*asked, Request()]))
    assert first == engine.bundle.policy.surface("slate").weights
    assert trending == {"trending": 1.0, "popularity": 1e-6} and similar.keys() >= {"similar"} and first != nobody
    [page], _ = engine.pages([Request(user_id=196, surface="home")])
    assert page.objective == first
