"""Filters on requests: every rung keeps to them, recall under them against exact search, what the store says since."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from playbill.bundle.open import Bundle, open_bundle
from playbill.bundle.policy import Policy, Surface
from playbill.engine.conditions import Conditions
from playbill.engine.engine import Engine
from playbill.engine.profile import encode_people, people_of
from playbill.engine.settings import EngineSettings
from playbill.engine.types import Request, Slate, decode_request
from playbill.errors import RequestError
from playbill.index.build import build_index
from playbill.index.filters import exact
from playbill.index.item_index import write_index
from playbill.index.settings import IndexSettings, Kind
from playbill.index.tune import tune_index
from playbill.state.store import Store

AT = 889_000_000_000_000
NEW = 100_001
K = 40
# from two thirds of the films to one in four hundred
FILTERS = {
    "release_year >= 1990": 0.7,
    "categories contains 'Drama'": 0.4,
    "not (categories contains 'Drama' or categories contains 'Comedy')": 0.35,
    "release_year < 1960 and categories contains 'Drama'": 0.03,
    "categories contains 'Film-Noir' or title in ['Toy Story (1995)', 'Vertigo (1958)']": 0.015,
}
REAL = [Request(user_id=u, request_id=f"r{u}", at=AT, k=K) for u in (1, 13, 83, 172, 196, 265, 351, 405, 530, 884)]


def ids(slate: Slate) -> list[int]:
    return [item.item_id for item in slate.items]


def allowed(bundle: Bundle, text: str) -> set[int]:
    """Return the items of a filter by plain Python over the table."""

    def says(row: dict) -> bool:
        year, genres, title = row["release_year"], row["categories"], row["title"]
        return {
            "release_year >= 1990": year is not None and year >= 1990,
            "categories contains 'Drama'": "Drama" in genres,
            "not (categories contains 'Drama' or categories contains 'Comedy')": not {"Drama", "Comedy"} & set(genres),
            "release_year < 1960 and categories contains 'Drama'": (year or 9999) < 1960 and "Drama" in genres,
            "categories contains 'Film-Noir' or title in ['Toy Story (1995)', 'Vertigo (1958)']": "Film-Noir" in genres
            or title in ("Toy Story (1995)", "Vertigo (1958)"),
        }[text]  # fmt: skip

    return {row["item_id"] for row in bundle.items.to_dicts() if says({**row, "categories": row["categories"] or []})}


@pytest.mark.parametrize("text", FILTERS)
@pytest.mark.parametrize("lost", [(), ("ranker.onnx",), ("ranker.onnx", "query_tower.onnx"), ("items.faiss",)])
def test_every_rung_shows_what_the_filter_says_and_as_much_as_there_is(
    bundle_without, store: Store, text: str, lost: tuple[str, ...]
) -> None:
    opened = bundle_without(*lost)
    engine = Engine.open(opened, store)
    mine = allowed(opened, text)
    assert 0.5 < len(mine) / len(opened.items) / FILTERS[text] < 1.5
    slates = engine.recommend([msgspec.structs.replace(r, filter=text) for r in (*REAL, Request(k=K, at=AT))])
    assert {s.rung for s in slates} == {engine.rungs[0], "popularity"}
    for slate in slates:
        profile = store.profile(slate.user_id) if slate.user_id else None
        left = mine - set(profile.seen if profile else ())
        assert set(ids(slate)) <= left and len(set(ids(slate))) == min(K, len(left))
        assert slate.eligible_count == len(left)


@pytest.mark.parametrize("kind", [Kind.flat, Kind.ivf_sq8, Kind.hnsw])
def test_recall_under_a_filter_beside_exact_search(
    whole_bundle: Path, loaded_store: Path, tmp_path: Path, kind: Kind
) -> None:
    path = tmp_path / "bundles" / whole_bundle.name
    shutil.copytree(whole_bundle, path)
    vectors = np.load(path / "item_embeddings.npy")
    settings = IndexSettings(kind=kind, links=16, recall_k=K, recall_floor=0.95, sample_queries=120, threads=1)
    index, _ = tune_index(build_index(vectors, np.arange(1, len(vectors)), settings), vectors[1::7], settings)
    write_index(index, path / "items.faiss")
    bundle = open_bundle(path, require_sealed=False, verify=False)
    near = Surface(weights={"tower": 1.0}, quotas={"tower": K})  # nothing but the index proposes
    policy = Policy(surfaces={"slate": near})
    with Store.open(loaded_store, readonly=True) as store:
        engine = Engine.open(dataclasses.replace(bundle, policy=policy), store)
        with store.view() as view:
            people = people_of(REAL, view, bundle.spec, 50)
        now = np.full(len(REAL), AT)
        tower = engine.parts.query_tower
        query = tower.run(encode_people(people, REAL, now, bundle.spec, bundle.vocabularies).arrays, ["query"])[0]
        for text in FILTERS:
            mask = np.zeros(len(vectors), bool)
            mask[engine.catalogue.indices(list(allowed(bundle, text)))] = True
            recalls = []
            asked = [msgspec.structs.replace(r, filter=text) for r in REAL]
            # alone and in a batch, which search in different ways
            for slates in (engine.recommend(asked), [engine.recommend([r])[0] for r in asked]):
                for slate, person, vector in zip(slates, people, query, strict=True):
                    free = mask.copy()
                    free[engine.catalogue.indices(person.profile.seen)] = False
                    best, _ = exact(vectors, vector[None], K, free)
                    towers = [item.score for item in slate.items if item.retriever == "tower"]
                    # an item as near as the last of the exact ones is as good
                    least = best[0, -1] - 1e-5
                    recalls.append(sum(score >= least for score in towers) / best.shape[1])
                    assert len(slate.items) == best.shape[1]
            # today: 1.0 for flat, and for all kinds below the share that is searched exactly; at worst .99 for lists
            assert np.mean(recalls) >= (0.999 if kind is Kind.flat else 0.95), (kind, text, np.mean(recalls))
            if mask.mean() < index.route.narrow:
                assert np.mean(recalls) >= 0.999


def test_a_batch_with_several_filters_gives_what_single_requests_give(bundle: Bundle, store: Store) -> None:
    engine = Engine.open(bundle, store)
    texts = [*FILTERS, None]
    many = [
        msgspec.structs.replace(r, filter=texts[(i + j) % len(texts)], request_id=f"{i}-{j}")
        for i, r in enumerate(REAL) for j in range(3)
    ]  # fmt: skip
    for slate, request in zip(engine.recommend(many), many, strict=True):
        [alone] = engine.recommend([request])
        assert slate.eligible_count == alone.eligible_count
        np.testing.assert_allclose([i.score for i in slate.items], [i.score for i in alone.items], atol=1e-5)
        if (-np.diff([i.score for i in alone.items]) > 1e-5).all():
            assert ids(slate) == ids(alone)


def test_what_leaves_nothing_and_what_excludes_besides(bundle: Bundle, store: Store) -> None:
    engine = Engine.open(bundle, store)
    [nothing] = engine.recommend([Request(user_id=196, filter="release_year > 3000")])
    assert nothing.items == [] and nothing.eligible_count == 0 and nothing.rung == "full"
    some = engine.recommend([Request(user_id=196, k=5, at=AT, filter="release_year < 1960")])[0]
    less = engine.recommend([Request(user_id=196, k=5, at=AT, filter="release_year < 1960", exclude=ids(some)[:2])])[0]
    assert ids(less)[:3] == ids(some)[2:] and less.eligible_count == some.eligible_count - 2


def test_what_the_store_says_of_items_counts_at_once(bundle: Bundle, store: Store) -> None:
    engine = Engine.open(bundle, store)
    noir = "categories contains 'Film-Noir' and release_year <= 1950"
    before = engine.recommend([Request(k=1000, filter=noir)])[0]
    changed = bundle.items["item_id"][0]
    assert changed not in ids(before) and 0 < len(before.items) < 20
    gone = ids(before)[0]
    store.set_items(
        {
            changed: {"categories": ["Film-Noir"], "release_year": 1950.0},
            NEW: {"title": "new", "categories": ["Film-Noir"], "release_year": 1950},
            NEW + 1: {"title": "no year", "categories": ["Film-Noir"]},
            gone: {"available": False},
            ids(before)[1]: {"release_year": "unknown"},  # of another kind: as if it were missing
        }
    )
    after = engine.recommend([Request(k=1000, filter=noir)])[0]
    assert set(ids(after)) == set(ids(before)[2:]) | {changed, NEW}
    [dated] = engine.recommend([Request(k=1000, filter="release_year is null", exclude=[1])])
    assert NEW + 1 in ids(dated) and ids(before)[1] in ids(dated)
    one = engine.recommend([Request(k=5, user_id=196, filter=f"item_id in [{NEW}, {changed}]")])[0]
    assert set(ids(one)) == {NEW, changed} - set(store.profile(196).seen)


def test_a_filter_asked_for_again_is_not_made_again_and_memory_is_bounded(bundle: Bundle, store: Store) -> None:
    engine = Engine.open(bundle, store)
    stock = engine._stock
    conditions = engine.conditions
    first = conditions.narrowed(stock, "release_year > 1990", ())
    assert conditions.narrowed(stock, "release_year > 1990", ()) is first
    assert conditions.narrowed(stock, None, ()).stock is stock
    small = Conditions(bundle, 1)
    for year in range(1_000, 1_400):
        small.narrowed(stock, f"release_year > {year}", ())
    kept = small._narrowed
    assert 1 < len(kept) < 400 and kept.bytes <= kept.most_bytes
    assert small._masks.bytes <= small._masks.most_bytes


def test_filters_are_ready_before_the_next_state_of_the_catalogue_answers(bundle: Bundle, store: Store) -> None:
    engine = Engine.open(bundle, store)
    old = "release_year < 1950"
    [before] = engine.recommend([Request(k=1000, filter=old)])
    store.set_items({ids(before)[0]: {"release_year": 1990}})
    engine.stocking.take_in(store)
    assert (store.version, old, ()) in engine.conditions._narrowed.keys()
    assert set(ids(engine.recommend([Request(k=1000, filter=old)])[0])) == set(ids(before)[1:])


def test_a_mistake_names_the_field_and_points_at_the_character(bundle: Bundle, store: Store) -> None:
    engine = Engine.open(bundle, store)
    with pytest.raises(RequestError) as caught:
        engine.recommend([Request(k=3), Request(filter="release_year > 1990 and genre = 'Drama'")])
    assert caught.value.field == "filter"
    told, shown, pointer = caught.value.reason.split("\n")
    assert told.startswith("character 25: no column 'genre'") and shown[pointer.index("^") :].startswith("genre")
    assert "item_index" not in told and "item_id, title, categories, release_year" in told
    for text in ("", "x" * 20_000):
        with pytest.raises(RequestError, match="filter: "):
            decode_request(msgspec.json.encode({"filter": text}))
        with pytest.raises(RequestError, match="filter: "):
            engine.recommend([Request(filter=text)])


def test_threads_may_ask_with_filters_at_once(bundle: Bundle, loaded_store: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with Store.open(loaded_store, readonly=True) as store:
        engine = Engine.open(bundle, store, EngineSettings(filter_cache_mb=1))
        asked = [msgspec.structs.replace(r, filter=text) for text in FILTERS for r in REAL]
        expected = [ids(engine.recommend([r])[0]) for r in asked]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda r: ids(engine.recommend([r])[0]), asked)) == expected
