"""Places kept for items of which too little is known: who takes them, and at which price."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from playbill.baselines.popularity import write_scores
from playbill.bundle.open import Bundle, open_bundle
from playbill.bundle.policy import Newcomers, Policy, Surface, check_policy, write_policy
from playbill.engine.catalogue import open_catalogue
from playbill.engine.engine import Engine
from playbill.engine.newcomers import keep_places, newcomers_of, newcomers_order
from playbill.engine.types import Request
from playbill.errors import BundleError
from playbill.state.events import Event
from playbill.state.store import Store

AT = 900_000_000_000_000  # in the summer of 1998
NEW = 100_001


def with_newcomers(bundle: Bundle, **asked: object) -> Bundle:
    surface = Surface(newcomers=Newcomers(**asked))  # type: ignore[arg-type]  # fields by name
    return dataclasses.replace(bundle, policy=check_policy(Policy(surfaces={"slate": surface})))


def test_places_by_hand() -> None:
    order = np.asarray([4, 2, 0, 1, 3, 5])
    # 2 stands among the first four already; 5 takes the last place that is free, and what stood there comes behind
    kept, brought = keep_places(order, np.asarray([2, 5]), 4)
    assert kept.tolist() == [4, 2, 0, 5, 1, 3] and brought.tolist() == [5]
    # one who stands in the last place on its own keeps it
    kept, brought = keep_places(order, np.asarray([1, 5]), 4)
    assert kept.tolist() == [4, 2, 1, 5, 0, 3] and brought.tolist() == [5]
    assert keep_places(order, np.asarray([2, 0]), 4)[0] is order


def test_the_newest_come_first_and_of_those_what_is_chosen_lately(bundle: Bundle) -> None:
    catalogue = open_catalogue(bundle, None)
    count = catalogue.num_items
    catalogue.events = np.full(count + 1, 99.0, np.float32)
    catalogue.events[[5, 6, 7, 8, 9]] = [10, 0, 3, 11, 1]
    catalogue.lately = np.zeros(count + 1, np.float32)
    catalogue.lately[[6, 7]] = [0.5, 2.0]
    years = np.full(count, 1990.0)
    years[[4, 5, 6, 7]] = [1997, 1996, 1996, 1998]
    items = bundle.items.with_columns(pl.Series("year", years), pl.Series("gap", np.where(years > 1996, years, np.nan)))
    offer = catalogue.offer(0, {})
    order = newcomers_order(Newcomers(slots=2, by="year"), items, catalogue, offer)
    assert order.tolist() == [5, 7, 6, 9]  # 8 is the newest, and well known
    assert newcomers_order(Newcomers(slots=2, by="gap"), items, catalogue, offer).tolist() == [5]
    blocked = np.zeros(count + 1, bool)
    blocked[5] = True
    assert newcomers_of(order, 2, blocked, catalogue, AT).tolist() == [7, 6]
    catalogue.published[7] = AT + 1  # still to come
    assert newcomers_of(order, 2, blocked, catalogue, AT).tolist() == [6, 9]
    gone = catalogue.offer(1, {catalogue.ids[6]: {"available": False}})
    assert newcomers_order(Newcomers(slots=2, by="year"), items, catalogue, gone).tolist() == [5, 7, 9]


def test_slates_keep_their_places_and_change_nowhere_else(bundle: Bundle, store: Store) -> None:
    usual, keeping = (
        Engine.open(bundle, store),
        Engine.open(with_newcomers(bundle, slots=3, events=4, by="release_year"), store),
    )
    request = Request(user_id=1, k=10, request_id="r", at=AT)
    [before], [after] = usual.recommend([request]), keeping.recommend([request])
    known = keeping.catalogue.events
    few = [known[keeping.catalogue.index(i.item_id)] <= 4 for i in after.items]
    assert sum(few) == 3 and len({i.item_id for i in after.items}) == 10
    assert [i.item_id for i in after.items[:7]] == [i.item_id for i in before.items[:7]]
    brought = after.items[7:]
    assert all(i.retriever == "new" and i.reason.kind == "new" and i.propensity == 1 for i in brought)
    index = [keeping.catalogue.index(i.item_id) for i in brought]
    assert [i.reason.fact for i in brought] == [{"events": known[i]} for i in index]
    years = bundle.items["release_year"].to_numpy()[np.asarray(index) - 1]
    assert (np.diff(years) <= 0).all()
    # whatever the person has seen is none for them
    store.append([Event(event_id="e", event="rate", user_id=1, item_id=brought[0].item_id, value=4, at=AT - 5)])
    [then] = keeping.recommend([request])
    assert brought[0].item_id not in [i.item_id for i in then.items]
    assert [i.retriever for i in then.items[7:]] == ["new"] * 3


def test_an_item_that_came_after_the_bundle_is_a_newcomer(bundle: Bundle, store: Store) -> None:
    engine = Engine.open(with_newcomers(bundle, slots=1), store)
    ask = Request(user_id=1, k=10, request_id="r", at=AT)
    assert NEW not in [i.item_id for s in engine.recommend([ask]) for i in s.items]
    genre = bundle.vocabularies["item_categories"].values[3]
    store.set_items({NEW: {"title": "film", "categories": [genre], "published_at": AT - 1}})
    [slate] = engine.recommend([ask])
    assert slate.items[-1].item_id == NEW
    [early] = engine.recommend([Request(user_id=1, k=10, request_id="r", at=AT - 2)])
    assert NEW not in [i.item_id for i in early.items]


def test_what_a_policy_may_say_of_newcomers(whole_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"surfaces\.slate\.newcomers needs slots and events >= 0"):
        check_policy(Policy(surfaces={"slate": Surface(newcomers=Newcomers(slots=-1))}))
    path = tmp_path / "bundles" / whole_bundle.name
    shutil.copytree(whole_bundle, path)
    odd = Policy(surfaces={"slate": Surface(newcomers=Newcomers(slots=1, by="title"))})
    (path / "policy.json").write_bytes(write_policy(odd))
    with pytest.raises(BundleError, match=r"newcomers\.by is 'title', expected a number or a time .* release_year"):
        open_bundle(path, require_sealed=False, verify=False)
    (path / "policy.json").write_bytes(write_policy(Policy()))
    write_scores(path / "lately.npy", np.zeros(3, np.float32))
    with pytest.raises(BundleError, match=r"lately\.npy: 3 rows"):
        open_bundle(path, require_sealed=False, verify=False)
