"""Items that the bundle does not know: told to the store, and on the next slate, near their like."""

from __future__ import annotations

import dataclasses
import math
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pyarrow as pa
import pytest

from playbill.bundle.onnx_file import read_onnx
from playbill.bundle.open import Bundle, open_bundle
from playbill.bundle.policy import Policy, ReasonPolicy, Surface
from playbill.engine.catalogue import newest_first
from playbill.engine.engine import Engine
from playbill.engine.fresh import FreshItems, encode_items
from playbill.engine.settings import EngineSettings
from playbill.engine.types import Request, Slate
from playbill.features.spec import PAD, Encoding, Field, Side
from playbill.features.text import encode_texts, learn_words
from playbill.state.events import Event
from playbill.state.store import Store

AT = 889_000_000_000_000
NEW = 10_001  # of no film
USER = 196
EVERYTHING = Surface(weights={"tower": 1.0}, quotas={"tower": 2_000})

# the id's own vector for known films, the sum of its genres' vectors for others
ITEM_TOWER = """
    <ir_version: 10, opset_import: ["": 20]>
    item_tower (int64[N] item_index, int64[N, W] item_categories) => (float[N, 16] embedding)
        <float[M, 16] table, float[G, 16] genres> {
        zero = Constant <value = int64 {0}> ()
        axis = Constant <value = int64[1] {1}> ()
        last = Constant <value = int64[1] {-1}> ()
        own = Gather (table, item_index)
        known = Max (item_categories, zero)
        vectors = Gather (genres, known)
        there = Greater (item_categories, zero)
        mask = Cast <to = 1> (there)
        masks = Unsqueeze (mask, last)
        kept = Mul (vectors, masks)
        content = ReduceSum <keepdims = 0> (kept, axis)
        unknown = Equal (item_index, zero)
        share = Cast <to = 1> (unknown)
        shares = Unsqueeze (share, last)
        told = Mul (content, shares)
        both = Add (own, told)
        embedding = LpNormalization <axis = 1, p = 2> (both)
    }"""


@pytest.fixture(scope="module")
def genre_vectors(whole_bundle: Path) -> np.ndarray:
    """[G, 16] float32, the mean of each genre's film vectors; row 0 is the unknown genre."""
    opened = open_bundle(whole_bundle, require_sealed=False, verify=False)
    table, genres = np.load(whole_bundle / "item_embeddings.npy"), opened.item_arrays["item_categories"]
    rows = [table[(genres == g).any(1)].mean(0) for g in range(1, genres.max() + 1)]
    return np.concatenate([np.zeros((1, 16)), rows]).astype(np.float32)


@pytest.fixture(scope="module")
def content_bundle(whole_bundle: Path, genre_vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    import onnx
    from onnx import numpy_helper

    path = tmp_path_factory.mktemp("content") / "v1"
    shutil.copytree(whole_bundle, path)
    weights = {"table": np.load(path / "item_embeddings.npy"), "genres": genre_vectors}
    model = onnx.parser.parse_model(ITEM_TOWER)
    del model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.checker.check_model(model, full_check=True)
    (path / "item_tower.onnx").write_bytes(model.SerializeToString())
    assert read_onnx(path / "item_tower.onnx").signature.inputs.keys() == {"item_index", "item_categories"}
    opened = open_bundle(path, require_sealed=False, verify=False)
    return dataclasses.replace(opened, policy=Policy(surfaces={"slate": EVERYTHING}))


@pytest.fixture
def engine(content_bundle: Bundle, store: Store) -> Engine:
    policy = msgspec.structs.replace(content_bundle.policy, reasons=ReasonPolicy(tries=0))  # reasons name what is near
    return Engine.open(dataclasses.replace(content_bundle, policy=policy), store)


OTHERS = list(range(751, 1683))  # left out, so that all the rest fits on one slate


def answer(engine: Engine, user_id: int = USER, exclude: tuple[int, ...] = ()) -> Slate:
    """Return the order of everything that may be shown."""
    [slate] = engine.recommend([Request(user_id=user_id, request_id="r", at=AT, k=1_000, exclude=[*OTHERS, *exclude])])
    return slate


def ids(slate: Slate) -> list[int | str]:
    return [item.item_id for item in slate.items]


def genres_of(bundle: Bundle, *numbers: int) -> list[str]:
    return [bundle.vocabularies["item_categories"].values[n - 1] for n in numbers]


def test_a_fresh_film_stands_where_its_genres_put_it(engine: Engine, store: Store, genre_vectors: np.ndarray) -> None:
    before = answer(engine)
    assert NEW not in ids(before) and engine.describe()["fresh_items"] == 0
    row = {"title": "Late Arrival (1998)", "categories": genres_of(engine.bundle, 3, 5), "release_year": 1998.0}
    store.set_items({NEW: row})
    after = answer(engine)
    [film] = [item for item in after.items if item.item_id == NEW]
    vector = genre_vectors[3] + genre_vectors[5]
    vector /= np.linalg.norm(vector)
    query = _query(engine)
    assert film.score == pytest.approx(float(vector @ query), abs=1e-5)
    scores = {item.item_id: item.score for item in after.items}
    assert [item.item_id for item in after.items] == sorted(scores, key=lambda i: -scores[i])
    assert (film.title, film.retriever, film.propensity) == ("Late Arrival (1998)", "tower", 1.0)
    # its reason is a fact: of all films in the history the nearest by cosine
    assert film.reason.kind == "similar"
    told = engine.catalogue.vocabulary.index(film.reason.fact["item_id"])
    history = [engine.catalogue.vocabulary.index(past.item_id) for past in store.profile(USER).history]
    table = np.load(engine.bundle.path / "item_embeddings.npy")
    assert table[told] @ vector == pytest.approx((table[history] @ vector).max(), abs=1e-5)
    # nothing else moved
    assert set(ids(after)) == {*ids(before), NEW} and after.eligible_count == before.eligible_count + 1
    others = [item.score for item in after.items if item.item_id != NEW]
    np.testing.assert_allclose(
        others, [item.score for item in before.items], atol=1e-6
    )  # some films have equal vectors
    assert engine.describe()["fresh_items"] == 1 and engine.describe()["rebuild_due"] == ""


def test_the_whole_road_ranks_it_as_an_unknown_film(content_bundle: Bundle, store: Store) -> None:
    bundle = dataclasses.replace(content_bundle, policy=Policy(surfaces={"slate": Surface(quotas={"tower": 2_000})}))
    engine = Engine.open(bundle, store)
    store.set_items({NEW: {"categories": genres_of(bundle, 3), "release_year": 1998}})
    slate = answer(engine)
    [film] = [item for item in slate.items if item.item_id == NEW]
    assert slate.rung == "full" and film.title is None and not engine.faults
    year = next(f for f in bundle.spec.fields if f.name == "release_year")
    rows = {
        "history_value": np.zeros((1, 50), np.float32),
        "cand_user": np.zeros(1, np.int64),
        "item_index": np.zeros(1, np.int64),
        "item_release_year": np.array([(1998 - year.mean) / year.std], np.float32),
        "retrieval_score": np.array([_cosine(engine, content_bundle, 3)], np.float32),
    }
    graph = onnxruntime.InferenceSession(str(bundle.path / "ranker.onnx"))
    [interact] = graph.run(["p_interact"], rows)  # `interact` does not read the history's values
    assert film.probabilities["interact"] == pytest.approx(float(interact[0]), abs=1e-6)


def test_seen_excluded_gone_and_back(engine: Engine, store: Store) -> None:
    rows = {NEW + i: {"title": f"film {i}", "categories": genres_of(engine.bundle, 1 + i)} for i in range(4)}
    store.set_items(rows)
    assert set(rows) <= set(ids(answer(engine)))
    assert NEW not in ids(answer(engine, exclude=(NEW, 10**9)))
    store.append([Event(event_id="e", event="rate", user_id=USER, item_id=NEW + 1, value=5.0, at=AT - 1)])
    assert NEW + 1 not in ids(answer(engine))
    store.set_items({NEW + 2: {"available": False}})
    gone = answer(engine)
    assert not {NEW + 1, NEW + 2} & set(ids(gone)) and {NEW, NEW + 3} <= set(ids(gone))
    store.set_items({NEW + 2: {"available": True}})
    assert NEW + 2 in ids(answer(engine))
    # a change of content moves it
    score = {i.item_id: i.score for i in answer(engine).items}[NEW]
    store.set_items({NEW: {"categories": genres_of(engine.bundle, 9)}})
    assert {i.item_id: i.score for i in answer(engine).items}[NEW] != score


def test_another_process_answers_alike(content_bundle: Bundle, engine: Engine, store: Store) -> None:
    """Also where two fresh films are equal in content, and came in another order than their ids have."""
    for item_id in (NEW + 5, NEW, NEW + 3):
        store.set_items({item_id: {"categories": genres_of(content_bundle, 4)}})
        answer(engine)
    mine, other = answer(engine), answer(Engine.open(content_bundle, store))
    assert ids(mine) == ids(other)
    assert [i for i in ids(mine) if i >= NEW] == [NEW, NEW + 3, NEW + 5]


@pytest.mark.parametrize("lost", [("items.faiss",), ("query_tower.onnx",)])
def test_lower_rungs_show_it_too(content_bundle: Bundle, store: Store, tmp_path: Path, lost: tuple[str, ...]) -> None:
    path = tmp_path / "bundles" / "v1"
    shutil.copytree(content_bundle.path, path)
    bundle = dataclasses.replace(content_bundle, path=path)
    for name in lost:
        (path / name).unlink()
    engine = Engine.open(bundle, store)
    store.set_items({NEW: {"title": "Late Arrival", "categories": genres_of(bundle, 3)}})
    slate = answer(engine)
    [film] = [item for item in slate.items if item.item_id == NEW]
    if "query_tower.onnx" in lost:  # nobody chose it yet: the last by popularity
        assert (film.retriever, film.position) == ("popularity", len(slate.items) - 1)
    else:
        assert film.retriever == "tower" and film.score == pytest.approx(_cosine(engine, bundle, 3), abs=1e-5)


def test_rows_that_are_no_items(engine: Engine, store: Store) -> None:
    odd: dict[int | str, dict[str, Any]] = {
        NEW: {"available": True},  # says nothing of itself: an item of another bundle
        NEW + 1: {},
        NEW + 2: {"shelf": "B7"},  # nothing that the model reads
        NEW + 3: {"title": None, "categories": None},
        "10005": {"title": "a text as id where ids are numbers"},
    }
    store.set_items(odd)
    slate = answer(engine)
    assert not {*odd, 10_005} & set(ids(slate)) and engine.describe()["fresh_items"] == 0 and not engine.faults


def test_values_that_make_no_sense(engine: Engine, store: Store) -> None:
    genre = genres_of(engine.bundle, 2)
    bad: dict[int | str, dict[str, Any]] = {
        NEW: {"title": 7, "categories": genre, "release_year": "late"},
        NEW + 1: {"title": "x" * 10_000, "categories": genre, "release_year": float("nan")},
        NEW + 2: {"title": "unknown genre", "categories": [*genre, "Opera", None, 3]},
        NEW + 3: {"title": "one genre, not its letters", "categories": genre[0]},
    }
    store.set_items(bad)
    slate = answer(engine)
    found = {i.item_id: i for i in slate.items if i.item_id in bad}
    assert set(found) == set(bad) and found[NEW].title is None and not engine.faults
    assert len({round(item.score, 6) for item in found.values()}) == 1


def test_a_vector_that_is_not_finite_is_not_shown_and_counted(
    content_bundle: Bundle, store: Store, tmp_path: Path, genre_vectors: np.ndarray
) -> None:
    import onnx
    from onnx import numpy_helper

    path = tmp_path / "bundles" / "v1"
    shutil.copytree(content_bundle.path, path)
    model = onnx.load(path / "item_tower.onnx")
    broken = genre_vectors.copy()
    broken[3] = np.nan
    for place, array in enumerate(model.graph.initializer):
        if array.name == "genres":
            model.graph.initializer[place].CopyFrom(numpy_helper.from_array(broken, "genres"))
    onnx.save(model, path / "item_tower.onnx")
    engine = Engine.open(dataclasses.replace(content_bundle, path=path), store)
    store.set_items(
        {NEW: {"categories": genres_of(content_bundle, 3)}, NEW + 1: {"categories": genres_of(content_bundle, 4)}}
    )
    slate = answer(engine)
    assert NEW not in ids(slate) and NEW + 1 in ids(slate)
    assert engine.describe()["fresh_refused"] == {"its vector is not finite": 1}
    (path / "item_tower.onnx").unlink()
    store.set_items({NEW + 2: {"categories": genres_of(content_bundle, 4)}})
    without = Engine.open(dataclasses.replace(content_bundle, path=path), store)
    assert not {NEW, NEW + 1, NEW + 2} & set(ids(answer(without)))
    [(reason, count)] = without.describe()["fresh_refused"].items()
    assert reason.startswith("item_tower.onnx does not answer: item_tower.onnx: not in bundle v1") and count == 3


def test_many_at_once_while_people_ask(engine: Engine, store: Store) -> None:
    """Every slate is of one catalogue: k films, each once, each known; at the end all fresh ones can be shown."""
    stop, wrong = threading.Event(), []
    titles = {NEW + i: f"film {i}" for i in range(60)}

    def ask(user: int) -> None:
        while not stop.is_set():
            slate = answer(engine, user_id=user)
            found = [i for i in slate.items if i.item_id in titles]
            whole = len(set(ids(slate))) == len(slate.items) == slate.eligible_count
            if not whole or slate.rung != "full" or any(i.title != titles[i.item_id] for i in found):
                wrong.append(slate)

    people = [threading.Thread(target=ask, args=(user,)) for user in (USER, 1)]
    for person in people:
        person.start()
    for item_id, title in titles.items():
        store.set_items({item_id: {"title": title, "categories": genres_of(engine.bundle, 1 + item_id % 9)}})
        if item_id % 3 == 0:
            store.set_items({item_id - 1: {"available": False}})
    stop.set()
    for person in people:
        person.join()
    assert not wrong and not engine.faults
    gone = {i - 1 for i in titles if i % 3 == 0}
    assert set(titles) - gone == set(ids(answer(engine))) & set(titles)


def test_many_fresh_items_call_for_an_export(engine: Engine, store: Store) -> None:
    store.set_items({NEW + i: {"categories": genres_of(engine.bundle, 1 + i % 9)} for i in range(200)})
    slate = answer(engine)
    assert len([i for i in ids(slate) if i >= NEW]) == 200
    assert engine.describe()["rebuild_due"] == "200 fresh items beside 1,682 built ones: export again"


def test_what_was_there_answers_while_somebody_follows_the_store(engine: Engine, store: Store) -> None:
    """And names a version at which nothing of what it does not know was there."""
    told = store.version
    engine.stocking.follow(store)
    store.set_items({NEW: {"title": "Late Arrival", "categories": genres_of(engine.bundle, 3)}})
    engine.stocking._trusted_until = math.inf  # as if no time passed
    before = answer(engine)
    # of the catalogue it knows what it knew, and so much it says: not that it knows nothing of the store
    assert NEW not in ids(before) and before.state_version == told > 0
    engine.stocking.follow(store)
    after = answer(engine)
    assert NEW in ids(after) and after.state_version == store.version > told
    store.set_items({NEW: {"withdrawn": True}})
    engine.stocking._trusted_until = 0.0  # whoever followed it has stopped
    assert NEW not in ids(answer(engine))
    fresh = Engine.open(engine.bundle, store)
    assert fresh.stocking.now.offer.version == store.version  # before it was asked anything


def test_a_catalogue_that_cannot_be_made_leaves_the_one_before(
    engine: Engine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("playbill.index.live.MOST_FRESH", 3)
    store.set_items({NEW: {"title": "one", "categories": genres_of(engine.bundle, 3)}})
    assert NEW in ids(answer(engine))
    store.set_items({NEW + i: {"title": "more", "categories": genres_of(engine.bundle, 3)} for i in range(9)})
    for _ in range(3):
        slate = answer(engine)
        assert NEW in ids(slate) and NEW + 1 not in ids(slate) and slate.state_version < store.version
    assert engine.faults["catalogue"] == 1  # tried once for each version, not for each request
    store.set_items({NEW + i: {"title": None, "categories": None} for i in range(2, 9)})
    assert NEW + 1 in ids(answer(engine))


def test_texts_of_a_fresh_film_are_read(bundle: Bundle) -> None:
    words = learn_words(pa.array(bundle.items["title"].to_list()), 4)
    field = Field(name="words", side=Side.ITEM, encoding=Encoding.VECTOR, width=4, columns=["title", "text"])
    spec = msgspec.structs.replace(bundle.spec, fields=[*bundle.spec.fields, field])
    texts = dataclasses.replace(bundle, spec=spec, vocabularies={**bundle.vocabularies, "item_words": words})
    row = {"title": "The Love", "text": "of the Dead"}
    [vector] = encode_items([row], texts)["item_words"]
    np.testing.assert_allclose(vector, encode_texts(pa.array(["The Love of the Dead"]), words, 4)[0], rtol=1e-6)
    assert np.abs(vector).sum() > 0
    assert FreshItems(texts, EngineSettings()).among({NEW: {"text": "only that"}, NEW + 1: {"price": 3}}) == {
        NEW: {"text": "only that"}
    }


def test_dates_and_titles_of_known_films_change(engine: Engine, store: Store) -> None:
    stock = engine.stocking.now
    store.set_items({1: {"title": "Renamed", "published_at": AT}, 2: {"published_at": "1998-01-01T00:00:00Z"}})
    store.set_items({NEW + i: {"title": "new", "published_at": AT + i % 2} for i in range(4)})
    [film] = [item for item in answer(engine).items if item.item_id == 1]
    assert film.title == "Renamed" and stock.catalogue.titles[1] != "Renamed"
    catalogue = engine.stocking.now.catalogue
    assert np.array_equal(catalogue.newest_order, newest_first(catalogue.published))
    ends = [catalogue.index(i) for i in (NEW + 1, NEW + 3, 1, NEW, NEW + 2, 2)]
    assert catalogue.newest_order[:6].tolist() == ends
    store.set_items({1: {"title": None, "published_at": None}})
    assert engine.catalogue.titles[1] in [item.title for item in answer(engine).items]


def _query(engine: Engine) -> np.ndarray:
    seen: list[np.ndarray] = []
    tower = engine.parts.query_tower
    assert tower is not None
    run: Callable[..., Any] = tower.session.run

    class Noted:
        def run(self, outputs: list[str], arrays: dict[str, np.ndarray]) -> Any:
            answers = run(outputs, arrays)
            seen.append(answers[0][0])
            return answers

    session, tower.session = tower.session, Noted()
    answer(engine)
    tower.session = session
    return seen[0]


def _cosine(engine: Engine, bundle: Bundle, genre: int) -> float:
    tower = onnxruntime.InferenceSession(str(bundle.path / "item_tower.onnx"))
    width = bundle.item_arrays["item_categories"].shape[1]
    row = np.full((1, width), PAD, np.int64)
    row[0, 0] = genre
    [vector] = tower.run(["embedding"], {"item_index": np.zeros(1, np.int64), "item_categories": row})[0]
    return float(vector @ _query(engine))


def test_describe_is_plain_json(engine: Engine) -> None:
    assert msgspec.json.decode(msgspec.json.encode(engine.describe()))["fresh_items"] == 0
