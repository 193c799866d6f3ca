"""Lists of many people at once, held against the slates that the engine answers one by one."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from playbill.bundle.open import Bundle, open_bundle
from playbill.bundle.policy import Exploration, Policy, Surface
from playbill.creative.choice import CreativePolicy
from playbill.engine import bulk as bulk_module
from playbill.engine.bulk import Ask, Bulk, Lists
from playbill.engine.engine import Engine
from playbill.engine.nearest import best_of
from playbill.engine.types import Request
from playbill.errors import RequestError
from playbill.state.store import Store
from playbill.state.wishes import Mark, Wish

AT = 889_000_000_000_000
PEOPLE = list(range(1, 400))
MAIL = Surface(
    weights={"interact": 1.0, "like": 0.5, "popularity": 0.1},
    quotas={"tower": 60},
    exploration=Exploration(epsilon=0.5, slots=3),
    creatives=CreativePolicy(floor=0.1),
)


@pytest.fixture(scope="module")
def with_creatives(
    whole_bundle: Path, add_creatives: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("bulk") / whole_bundle.name
    shutil.copytree(whole_bundle, path)
    add_creatives(path, reward="click")
    return path


@pytest.fixture
def mail_bundle(with_creatives: Path) -> Bundle:
    return _with(open_bundle(with_creatives, require_sealed=False, verify=False), MAIL)


@pytest.fixture
def engine(mail_bundle: Bundle, store: Store) -> Engine:
    return Engine.open(mail_bundle, store)


def _with(bundle: Bundle, surface: Surface) -> Bundle:
    return dataclasses.replace(bundle, policy=Policy(seed=3, surfaces={"slate": Surface(), "mail": surface}))


def _requests(people: list[int], **fields: Any) -> list[Request]:
    return [Request(**({"user_id": p, "request_id": f"a{p}", "surface": "mail", "at": AT} | fields)) for p in people]


def _ask(people: list[int], k: int, key: str = "a", filter_: str | None = None) -> Ask:
    return Ask(k=k, request_ids=[f"{key}{p}" for p in people], filter=filter_)


def _ids(found: Lists, row: int, which: int = 0) -> list[Any]:
    return [found.stock.catalogue.ids[index] for index in found.lists[which].item[row].tolist()]


def test_a_list_is_the_slate_that_the_engine_answers(engine: Engine) -> None:
    """Items, scores, propensities and creatives of 399 people, three of them unknown to the store."""
    people = [*PEOPLE, 10_001, 10_002, 10_003]
    found = Bulk(engine).lists_of(_requests(people), [_ask(people, 12)])
    slates = engine.recommend(_requests(people, k=12))
    assert found.done.all() and found.rung[-3:] == ["popularity"] * 3 and found.rung.count("full") > 200
    drawn = twins = 0
    for row, slate in enumerate(slates):
        assert found.rung[row] == slate.rung
        mine = found.lists[0]
        if _ids(found, row) != [item.item_id for item in slate.items]:
            twins += 1  # a few films have the same vector, and two ways to add up differ in the last bit
            continue
        np.testing.assert_allclose(mine.score[row], [item.score for item in slate.items], rtol=1e-5)
        assert mine.propensity[row].tolist() == [item.propensity for item in slate.items]
        shown = [found.creative_ids[c] for c in mine.creative[row].tolist()]
        assert shown == [item.creative_id for item in slate.items]
        expected = [item.creative_propensity for item in slate.items]
        np.testing.assert_allclose(mine.creative_propensity[row], expected, rtol=1e-5)
        assert (mine.creatives[row] >= 3).all()
        assert mine.eligible[row] == (60 if slate.rung == "full" else slate.eligible_count)
        drawn += int((mine.propensity[row] < 0.5).sum())
    assert drawn > 100 and twins <= 4
    assert engine.faults == {}


def test_the_next_list_takes_the_best_that_is_left_and_meets_its_condition(engine: Engine) -> None:
    late = "release_year >= 1990"
    asked = [_ask(PEOPLE, 5), _ask(PEOPLE, 4, "b", late), _ask(PEOPLE, 6, "c")]
    found = Bulk(engine).lists_of(_requests(PEOPLE), asked)
    years = dict(zip(engine.bundle.items["item_id"], engine.bundle.items["release_year"], strict=True))
    assert found.done.sum() > 200
    for row in np.flatnonzero(found.done).tolist():
        lists = [_ids(found, row, which) for which in range(3)]
        assert len({item for mine in lists for item in mine}) == 15
        assert all(years[item] >= 1990 for item in lists[1])
        if found.rung[row] != "full":
            continue
        first, third = found.lists[0].score[row], found.lists[2].score[row]
        assert (np.diff(first[:2]) <= 0).all() and (np.diff(third[:3]) <= 0).all()  # chance has the last three places
    none = Bulk(engine).lists_of(_requests(PEOPLE), [_ask(PEOPLE, 5), _ask(PEOPLE, 4, "b", "release_year < 1900")])
    assert not none.done.any()  # left to `Engine.decide`, which asks for candidates that meet it


def test_what_is_left_out_was_seen_or_cannot_be_had_stands_on_none(engine: Engine, store: Store) -> None:
    bulk = Bulk(engine)
    before = bulk.lists_of(_requests(PEOPLE), [_ask(PEOPLE, 10)])
    gone = [int(i) for i in np.unique(before.lists[0].item[before.done])[:40]]
    ids = before.stock.catalogue.ids
    store.set_items({ids[index]: {"available": False} for index in gone[:20]})
    found = bulk.lists_of(_requests(PEOPLE, exclude=[ids[index] for index in gone[20:]]), [_ask(PEOPLE, 10)])
    assert found.done.sum() == before.done.sum()
    assert not np.isin(found.lists[0].item[found.done], gone).any()
    with store.view() as view:
        for row in np.flatnonzero(found.done).tolist():
            profile = view.profile(PEOPLE[row])
            assert profile is not None and not set(_ids(found, row)) & set(profile.seen)


def test_who_asked_for_something_is_left_to_the_engine(engine: Engine, store: Store) -> None:
    bulk = Bulk(engine)
    before = bulk.lists_of(_requests(PEOPLE), [_ask(PEOPLE, 5)])
    mine = int(np.flatnonzero(before.done)[0])
    store.tell(Wish(user_id=PEOPLE[mine], mark=Mark.LESS, item_id=50, at=AT))
    after = bulk.lists_of(_requests(PEOPLE), [_ask(PEOPLE, 5)])
    others = np.delete(np.arange(len(PEOPLE)), mine)
    assert not after.done[mine] and (after.done[others] == before.done[others]).all()


def test_the_index_serves_where_the_catalogue_is_large(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    by_matrix = Bulk(engine).lists_of(_requests(PEOPLE), [_ask(PEOPLE, 10)])
    monkeypatch.setattr(bulk_module, "MATRIX_ITEMS", 100)
    by_index = Bulk(engine).lists_of(_requests(PEOPLE), [_ask(PEOPLE, 10)])
    assert (by_index.done == by_matrix.done).all()
    assert (by_index.lists[0].item == by_matrix.lists[0].item).mean() > 0.998  # but for films with the same vector


@pytest.mark.parametrize(
    ("surface", "why"),
    [
        (Surface(), "candidates come from item_knn, transitions, trending, popularity, not from the tower alone"),
        (Surface(quotas={"tower": 50}, diversity=0.2), "it has diversity"),
        (Surface(quotas={"tower": 50}, exploration=Exploration(cold_boost=2)), "it has draws that favour cold items"),
    ],
)
def test_a_surface_that_wants_more_is_said_to(mail_bundle: Bundle, store: Store, surface: Surface, why: str) -> None:
    bulk = Bulk(Engine.open(_with(mail_bundle, surface), store))
    assert bulk.unfit("mail") == why


def test_a_filter_that_cannot_be_understood_is_refused(engine: Engine) -> None:
    with pytest.raises(RequestError, match="no column"):
        Bulk(engine).lists_of(_requests([1]), [_ask([1], 3, filter_="colour = 'red'")])


@pytest.mark.parametrize("most", [1, 7, 100, 300])
def test_the_best_are_the_best(most: int) -> None:
    """Against a full order, with rows that a sample misleads: ties, holes, and everything good in one place."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(40, 3_000)).astype(np.float32)
    scores[0] = 0
    scores[1, ::16] = 9  # the sample sees nothing else
    scores[2, 1::16] = 9  # the sample sees none of it
    scores[3, 400:] = -np.inf
    scores[4] = np.round(scores[4])
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :most]
    np.testing.assert_array_equal(best_of(scores, most), expected)
