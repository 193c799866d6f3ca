"""Reasons are true: the item that is named, when taken away, moves the score most."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from playbill.baselines.ials import fit_ials, read_ials, write_ials
from playbill.baselines.neighbours import Neighbours, gather_evidence, read_neighbours, score_neighbours
from playbill.bundle.open import Bundle
from playbill.bundle.policy import Exploration, Policy, ReasonPolicy, Surface
from playbill.dataset.dataset import Dataset
from playbill.engine.drops import drops, ials_drops
from playbill.engine.engine import Engine
from playbill.engine.profile import encode_profiles
from playbill.engine.types import Request
from playbill.features.fold import Past, Profile
from playbill.features.leave_out import leave_out
from playbill.state.store import Store

USERS = [1, 13, 92, 196, 405, 655]


def test_drops_are_the_scores_without_each_item() -> None:
    dice = np.random.default_rng(3)
    num_items, decay = 40, 0.7
    lengths = dice.integers(0, 12, num_items + 1)
    lengths[0] = 0
    item = np.concatenate([dice.choice(np.arange(1, num_items + 1), n, replace=False) for n in lengths])
    table = Neighbours(
        indptr=np.concatenate([[0], np.cumsum(lengths)]),
        item=item.astype(np.int32),
        weight=dice.random(len(item)).astype(np.float32),
        decay=decay,
    )
    history = dice.permutation(np.arange(1, num_items + 1))[:15]
    items = dice.permutation(np.arange(1, num_items + 1))[:20]
    drop, score = drops(gather_evidence(table, history), decay, items, num_items)
    whole = score_neighbours(table, history, num_items)
    np.testing.assert_allclose(score, whole[items], atol=1e-6)
    for row in range(len(history)):
        without = score_neighbours(table, np.delete(history, row), num_items)
        np.testing.assert_allclose(drop[row], whole[items] - without[items], atol=1e-6)


def test_drops_of_ials_are_the_scores_without_each_item_but_for_a_little_ridge(
    dataset: Dataset, tmp_path: Path
) -> None:
    train = np.flatnonzero(dataset.split.part == 0)
    person, item, n = dataset.pool.person[train], dataset.pool.item[train], dataset.spec.num_items
    write_ials(tmp_path / "ials.npz", fit_ials(person, item, n, factors=16, rounds=4), 30)
    model = read_ials(tmp_path / "ials.npz")
    dice = np.random.default_rng(0)
    history, items = dice.permutation(np.unique(item))[:40], np.unique(item)[:200]
    drop, score = ials_drops(model, history, items)
    whole = model.item_factors[items] @ model.person(history[:30])
    assert drop.shape == (30, 200)
    np.testing.assert_allclose(score, whole, atol=1e-5)
    for row in range(30):
        without = model.item_factors[items] @ model.person(np.delete(history[:30], row))
        np.testing.assert_allclose(drop[row], whole - without, atol=2e-3 * np.abs(whole).max())


def test_a_history_without_an_item_is_encoded_as_if_it_had_never_been_there(bundle: Bundle, store: Store) -> None:
    past = store.profile(92).history[-40:]
    past.insert(30, Past("again", past[10].item_id, "rate", past[29].at, 3.0))  # one item twice
    now, spec = np.asarray([past[-1].at + 5]), bundle.spec

    def encoded(events: list[Past]) -> dict[str, np.ndarray]:
        people = [Profile(history=events)]
        return encode_profiles(people, [Request(at=int(now[0]))], now, spec, bundle.vocabularies)[1]

    ids = list(dict.fromkeys(event.item_id for event in past))
    ages = [past[-1].at - event.at for event in past]
    assert max(ages) > 0 and len(past) == 41 and len(ids) == 40
    left = leave_out(encoded(past), 0, bundle.vocabularies["item"].indices(ids))
    for row, gone in enumerate(ids):
        for name, array in encoded([event for event in past if event.item_id != gone]).items():
            np.testing.assert_allclose(left[name][row], array[0], atol=1e-6, err_msg=name)


@pytest.fixture
def engine(bundle: Bundle, store: Store) -> Engine:
    """One that names what its retrievers rest on, and asks no graph for more."""
    quotas = {"tower": 10, "item_knn": 10, "transitions": 10, "trending": 10, "popularity": 10}
    policy = Policy(surfaces={"slate": Surface(quotas=quotas)}, reasons=ReasonPolicy(tries=0))
    return Engine.open(dataclasses.replace(bundle, policy=policy), store)


def _history(engine: Engine, store: Store, user: int) -> list[int]:
    """Item ids as item-kNN reads them: newest first, at most 50."""
    return [past.item_id for past in reversed(store.profile(user).history)][:50]


def _liked(store: Store, user: int) -> set[int | str]:
    """Items that a person gave three stars of five or more, the newest time."""
    stars = {past.item_id: past.value for past in store.profile(user).history}
    return {item for item, value in stars.items() if value is None or value >= 3}


def test_because_names_the_item_without_which_the_score_falls_most(engine: Engine, store: Store) -> None:
    index = engine.catalogue.vocabulary.index
    checked = 0
    for user in USERS:
        [slate] = engine.recommend([Request(user_id=user, k=50)])
        ids = _history(engine, store, user)
        history, liked = np.asarray([index(i) for i in ids]), _liked(store, user)
        for item in slate.items:
            if item.retriever not in ("item_knn", "transitions"):
                continue
            if item.reason.kind != "because":  # nothing that was liked speaks for it
                assert item.reason.kind in ("popular", "catalogue")
                continue
            name = {"item_knn": "neighbours", "transitions": "transitions"}[item.retriever]
            table = read_neighbours(engine.bundle.path / f"{name}.npz")
            row = index(item.item_id)
            whole = score_neighbours(table, history, engine.catalogue.num_items)[row]
            falls = [
                whole - score_neighbours(table, np.delete(history, i), engine.catalogue.num_items)[row]
                for i in range(len(history))
            ]
            fact = item.reason.fact
            named = ids.index(fact["item_id"])  # it is in the history
            most = max(fall for fall, i in zip(falls, ids, strict=True) if i in liked)
            assert falls[named] == pytest.approx(most, abs=1e-6) and falls[named] > 0
            assert fact["share"] == pytest.approx(falls[named] / whole, abs=1e-4)
            past = next(p for p in store.profile(user).history if p.item_id == fact["item_id"])
            assert fact["event_id"] == past.event_id and fact["event"] == "rate"
            assert engine.catalogue.titles[index(fact["item_id"])] in item.reason.text
            checked += 1
    assert len(USERS) * 15 < checked <= len(USERS) * 20


def test_similar_names_the_nearest_item_of_the_history(engine: Engine, store: Store) -> None:
    index, vectors = engine.catalogue.vocabulary.index, np.load(engine.bundle.path / "item_embeddings.npy")
    checked = 0
    for user in USERS:
        [slate] = engine.recommend([Request(user_id=user, k=50)])
        ids, liked = _history(engine, store, user), _liked(store, user)
        for item in slate.items:
            if item.retriever == "tower" and item.reason.kind == "similar":
                cosines = vectors[[index(i) for i in ids]] @ vectors[index(item.item_id)]
                cosines[[i not in liked for i in ids]] = -1
                assert cosines[ids.index(item.reason.fact["item_id"])] == cosines.max()
                assert item.reason.fact["cosine"] == pytest.approx(cosines.max(), abs=1e-5)
                checked += 1
    assert checked > len(USERS) * 5


def test_popular_and_trending_are_so(engine: Engine) -> None:
    popular = np.load(engine.bundle.path / "popularity.npy")[1:]
    trending = np.load(engine.bundle.path / "trending.npy")[1:]
    index = engine.catalogue.vocabulary.index
    for item in engine.recommend([Request(k=400)])[0].items:
        row, reason = index(item.item_id) - 1, item.reason
        if item.retriever == "trending":
            assert reason.kind == "trending" and reason.fact["share"] == pytest.approx(trending[row] / trending.max())
            assert (trending > trending[row]).sum() < 10
        else:
            place = reason.fact["place"]
            assert (popular > popular[row]).sum() < place <= (popular >= popular[row]).sum()
            assert reason.kind == ("popular" if place <= len(popular) // 10 else "catalogue")


def test_what_chance_picked_is_called_so(bundle: Bundle, store: Store) -> None:
    surface = Surface(exploration=Exploration(epsilon=0.5, slots=20))
    engine = Engine.open(dataclasses.replace(bundle, policy=Policy(surfaces={"slate": surface})), store)
    plain = Engine.open(bundle, store)
    [slate], [greedy] = (e.recommend([Request(user_id=196, request_id="r", at=1)]) for e in (engine, plain))
    assert 1 < sum(i.reason.kind == "exploration" for i in slate.items) < 19
    for mine, theirs in zip(slate.items, greedy.items, strict=True):
        if mine.reason.kind == "exploration":
            assert mine.item_id not in [i.item_id for i in greedy.items] and mine.propensity < 0.01
            assert mine.reason.fact["propensity"] == mine.propensity
        else:
            assert mine.item_id == theirs.item_id and mine.propensity == 0.5


def test_nothing_far_away_is_called_near(bundle: Bundle, store: Store) -> None:
    """A list of the caller's own and a narrow filter hold items that are like nothing somebody chose."""
    engine = Engine.open(bundle, store)
    listed = [Request(user_id=u, surface="rerank", items=list(range(n, 1600, 40))) for n, u in enumerate(USERS, 1)]
    old = "release_year < 1940"
    narrow = [Request(user_id=u, item_id=n, surface="similar", filter=old, k=50) for n, u in enumerate(USERS, 1)]
    slates = engine.recommend([*listed, *narrow, Request(user_id=1, filter=old)])
    facts = [i.reason.fact["cosine"] for slate in slates for i in slate.items if "cosine" in i.reason.fact]
    said = {i.reason.kind for slate in slates for i in slate.items}
    assert len(facts) > 50 and min(facts) > 0 and {"taste", "similar", "popular", "catalogue"} <= said
