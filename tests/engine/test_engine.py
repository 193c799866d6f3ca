"""The engine on real people: what a slate holds, that it can be replayed, and what it makes of odd requests."""

from __future__ import annotations

import dataclasses
import threading

import msgspec
import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from playbill.baselines.neighbours import read_neighbours, score_neighbours
from playbill.bundle.open import Bundle
from playbill.bundle.policy import Exploration, Policy, Surface
from playbill.dataset.dataset import Dataset, query_arrays
from playbill.engine.engine import Engine
from playbill.engine.profile import encode_people, people_of
from playbill.engine.retrieve import candidates_of
from playbill.engine.settings import EngineSettings
from playbill.engine.types import Request, Slate
from playbill.errors import BundleError, RequestError, StateError
from playbill.features.encoder import point_in_time
from playbill.features.spec import Encoding, Field, Side
from playbill.features.vocabulary import Vocabulary
from playbill.state.events import Event
from playbill.state.keys import id_key
from playbill.state.store import Store

AT = 889_000_000_000_000
QUOTAS = {"tower": 60, "item_knn": 30, "transitions": 30, "trending": 10, "popularity": 10}


@pytest.fixture
def engine(bundle: Bundle, store: Store) -> Engine:
    return Engine.open(_with(bundle, Surface(quotas=QUOTAS)), store)


def _with(bundle: Bundle, surface: Surface) -> Bundle:
    return dataclasses.replace(bundle, policy=Policy(surfaces={"slate": surface}))


def _same(one: Slate, other: Slate, but: tuple[str, ...] = ()) -> None:
    left, right = msgspec.to_builtins(one), msgspec.to_builtins(other)
    for name in ("latency_ms", *but):
        left.pop(name), right.pop(name)
    assert left == right


def _ids(slate: Slate) -> list[int]:
    return [item.item_id for item in slate.items]


def test_a_slate_is_what_graphs_and_tables_say_by_hand(engine: Engine, dataset: Dataset, store: Store) -> None:
    """Every score recomputed from the raw dataset, numpy and two bare graph runs; nothing of the engine takes part."""
    user = 196
    person = np.asarray([dataset.user_ids.index(user)])
    now = np.asarray([AT])
    start, end = point_in_time(dataset.pool, person, np.asarray([dataset.split.train_until_us]))
    arrays = query_arrays(dataset, person, start, end, now)
    path = engine.bundle.path
    tower = onnxruntime.InferenceSession(str(path / "query_tower.onnx"), providers=["CPUExecutionProvider"])
    ranker = onnxruntime.InferenceSession(str(path / "ranker.onnx"), providers=["CPUExecutionProvider"])
    table = np.load(path / "item_embeddings.npy")
    [query] = tower.run(["query"], {i.name: arrays[i.name] for i in tower.get_inputs()})
    cosine = table @ query[0]
    every = np.arange(dataset.spec.num_items + 1)
    interact, like = ranker.run(
        ["p_interact", "p_like"],
        {
            "history_value": arrays["history_value"],
            "cand_user": np.zeros(len(every), np.int64),
            "item_index": every,
            "item_release_year": dataset.item_arrays["item_release_year"],
            "retrieval_score": cosine,
        },
    )
    seen = dataset.pool.item[start[0] : end[0]]
    free = np.ones(len(every), bool)
    free[seen], free[0] = False, False
    history = seen[::-1]
    by = {
        "tower": cosine,
        "item_knn": score_neighbours(read_neighbours(path / "neighbours.npz"), history, len(every) - 1),
        "transitions": score_neighbours(read_neighbours(path / "transitions.npz"), history, len(every) - 1),
        "trending": np.load(path / "trending.npy"),
        "popularity": np.load(path / "popularity.npy"),
    }
    retriever: dict[int, str] = {}
    for name, scores in by.items():
        order = [i for i in np.argsort(-scores, kind="stable").tolist() if free[i] and i not in retriever]
        retriever |= dict.fromkeys(order[: QUOTAS[name]], name)
    utility = interact + 0.5 * like
    expected = sorted(retriever, key=lambda i: -utility[i])[:20]

    [slate] = engine.recommend([Request(user_id=user, request_id="r", at=AT)])
    assert slate.rung == "full" and slate.rung_reason == ""
    assert (slate.bundle, slate.state_version) == ("v1", store.version)
    assert slate.profile_version == store.profile(user).version and slate.at == AT
    assert slate.eligible_count == dataset.spec.num_items - len(set(seen.tolist()))
    ids = dataset.vocabularies["item"].values
    assert _ids(slate) == [ids[i - 1] for i in expected]
    for item, index in zip(slate.items, expected, strict=True):
        assert item.retriever == retriever[index]
        assert item.probabilities == pytest.approx({"interact": interact[index], "like": like[index]}, abs=1e-6)
        assert item.score == pytest.approx(utility[index], abs=1e-6)
        assert item.title == dataset.items["title"][index - 1] and item.propensity == 1.0
    assert [i.position for i in slate.items] == list(range(20))


def test_a_column_surface_is_the_requests_own(engine: Engine, store: Store) -> None:
    """What the log says under `surface` a request says by asking for one, unless its context says otherwise."""
    column = Field(name="surface", side=Side.CONTEXT, encoding=Encoding.CATEGORY, size=3)
    spec = msgspec.structs.replace(engine.bundle.spec, fields=[*engine.bundle.spec.fields, column])
    words = dict(engine.bundle.vocabularies) | {column.array: Vocabulary(["home", "mail"])}
    asked = [Request(surface="mail"), Request(surface="mail", context={"surface": "home"}), Request(surface="else")]
    with store.view() as view:
        people = people_of(asked, view, spec)
    assert encode_people(people, asked, np.zeros(3, np.int64), spec, words).arrays[column.array].tolist() == [2, 1, 0]


def test_item_knn_scores_as_its_baseline(engine: Engine, store: Store) -> None:
    """What was tuned offline is what is served, also for long histories: the newest 50 items count."""
    user = 405
    ids = [past.item_id for past in reversed(store.profile(user).history)]
    assert len(ids) > 100
    vocabulary, num_items = engine.catalogue.vocabulary, engine.catalogue.num_items
    spec = msgspec.structs.replace(engine.bundle.spec, history_length=120)
    with store.view() as view:
        people = people_of([Request(user_id=user)], view, spec)
    history = encode_people(people, [Request()], np.zeros(1, np.int64), spec, engine.bundle.vocabularies).newest(0)[0]
    assert len(history) == 120
    blocked = np.zeros(num_items + 1, bool)
    found = candidates_of(
        engine.catalogue, engine.catalogue.offer(0, {}), history[:0], blocked, 20, QUOTAS, engine.parts.tables, history
    )
    for name, table in engine.parts.tables.items():
        scores = score_neighbours(table, vocabulary.indices(ids), num_items)
        np.testing.assert_allclose(found.scores[name], (scores / scores.max())[found.item], atol=1e-6)


def test_every_retriever_gets_its_word(engine: Engine) -> None:
    slates = engine.recommend([Request(user_id=u, request_id=str(u), at=AT, k=140) for u in (1, 13, 196, 405)])
    for slate in slates:
        names = [item.retriever for item in slate.items]
        assert {name: names.count(name) for name in QUOTAS} == QUOTAS


def test_replay_gives_the_same_slate(engine: Engine, bundle: Bundle, store: Store) -> None:
    policy = Policy(surfaces={"slate": Surface(exploration=Exploration(epsilon=0.5, slots=10))})
    exploring = Engine.open(dataclasses.replace(bundle, policy=policy), store)
    again = Engine.open(dataclasses.replace(bundle, policy=policy), store)
    request = Request(user_id=196, request_id="once", at=AT)
    [first] = exploring.recommend([request])
    _same(first, exploring.recommend([request])[0])
    _same(first, again.recommend([request])[0])
    store.append([Event(event_id="other", event="rate", user_id=1, item_id=1682, value=1)])  # somebody else's
    _same(first, again.recommend([request])[0], but=("state_version",))
    [other] = exploring.recommend([msgspec.structs.replace(request, request_id="twice")])
    assert _ids(other) != _ids(first)


def test_a_batch_gives_what_single_requests_give(engine: Engine, bundle: Bundle, store: Store) -> None:
    from playbill.engine.settings import EngineSettings

    requests = [Request(user_id=u, request_id=str(u), at=AT, k=10 + u % 7) for u in range(1, 120)]
    requests += [Request(request_id="anonymous", at=AT), Request(user_id=10**6, request_id="unknown", at=AT)]
    small = Engine.open(engine.bundle, store, EngineSettings(batch_rows=17, rank_rows=400))
    for many, cut, request in zip(engine.recommend(requests), small.recommend(requests), requests, strict=True):
        [one] = engine.recommend([request])
        for slate in (many, cut):
            assert (slate.rung, slate.request_id, slate.user_id) == (one.rung, one.request_id, one.user_id)
            np.testing.assert_allclose([i.score for i in slate.items], [i.score for i in one.items], atol=1e-5)
            gaps = -np.diff([i.score for i in one.items])
            if (gaps > 1e-5).all():
                assert _ids(slate) == _ids(one)


def test_an_event_changes_the_next_answer(engine: Engine, store: Store) -> None:
    request = Request(user_id=196, request_id="r", at=AT)
    [before] = engine.recommend([request])
    top = before.items[0].item_id
    store.append([Event(event_id="new", event="rate", user_id=196, item_id=top, value=5)])
    [after] = engine.recommend([request])
    assert top not in _ids(after) and after.items != before.items
    assert after.profile_version == before.profile_version + 1 and after.state_version == before.state_version + 1
    assert after.eligible_count == before.eligible_count - 1


def test_a_visitor_without_a_name_becomes_somebody_by_what_they_do(engine: Engine, store: Store) -> None:
    request = Request(session_id="visit", request_id="r", at=AT)
    [before] = engine.recommend([request])
    assert before.rung == "popularity" and "nobody known" in before.rung_reason and before.profile_version == 0
    assert {i.retriever for i in before.items} == {"trending", "popularity"}
    store.append([Event(event_id="e", event="rate", session_id="visit", item_id=50, value=5)])
    [after] = engine.recommend([request])
    assert after.rung == "full" and after.profile_version == 1 and 50 not in _ids(after)
    # a person nobody knew brings the visit along
    [named] = engine.recommend([msgspec.structs.replace(request, user_id=10**6)])
    assert named.rung == "full" and _ids(named) == _ids(after)


def test_a_known_person_without_a_past(engine: Engine, store: Store) -> None:
    store.set_features({5000: {"age": 30}})
    [slate] = engine.recommend([Request(user_id=5000, request_id="r")])
    assert slate.rung == "popularity" and slate.rung_reason == "no history yet" and len(slate.items) == 20


def test_a_history_of_items_that_the_bundle_does_not_know(engine: Engine, store: Store) -> None:
    events = [Event(event_id=f"n{i}", event="rate", user_id=6000, item_id=10**7 + i, value=4) for i in range(30)]
    store.append(events)
    [slate] = engine.recommend([Request(user_id=6000, request_id="r", at=AT)])
    assert len(slate.items) == 20 and slate.eligible_count == 1682
    assert {i.reason.kind for i in slate.items} <= {"taste", "trending", "popular", "catalogue"}


def test_more_than_there_is(engine: Engine) -> None:
    for request in (
        Request(user_id=196, k=1000),
        Request(k=1000),
        Request(user_id=196, k=1000, exclude=list(range(1, 1600))),
    ):
        [slate] = engine.recommend([request])
        assert len(slate.items) == min(1000, slate.eligible_count) == len(set(_ids(slate)))
        assert not set(request.exclude) & set(_ids(slate))
        scores = [i.score for i in slate.items]
        assert scores == sorted(scores, reverse=True)
    [nothing] = engine.recommend([Request(user_id=196, k=5, exclude=list(range(1, 1683)))])
    assert nothing.items == [] and nothing.eligible_count == 0 and nothing.rung == "full"
    [nothing] = engine.recommend([Request(k=5, exclude=list(range(1, 1683)))])
    assert nothing.items == [] and nothing.rung == "popularity"


def test_what_is_sold_out_is_not_shown(engine: Engine, store: Store) -> None:
    request = Request(user_id=196, request_id="r", at=AT)
    [before] = engine.recommend([request])
    gone = _ids(before)[:7]
    store.set_items({i: {"available": False} for i in [*gone, 10**9]})
    [after] = engine.recommend([request])
    assert not set(gone) & set(_ids(after)) and after.eligible_count == before.eligible_count - 7
    assert _ids(after)[:13] == _ids(before)[7:]
    store.set_items({gone[0]: {"available": True}})
    assert _ids(engine.recommend([request])[0])[0] == gone[0]


def test_without_consent_a_person_is_anonymous(engine: Engine, store: Store) -> None:
    asking = dataclasses.replace(
        engine.bundle, spec=msgspec.structs.replace(engine.bundle.spec, purposes=["marketing", "personalisation"])
    )
    engine = Engine.open(asking, store)
    request = Request(user_id=196, request_id="r", at=AT)
    [anonymous] = engine.recommend([Request(request_id="r", at=AT)])
    for flags in (
        {},
        {"consent_personalisation": None},
        {"consent_personalisation": "false"},
        {"consent_marketing": True},
    ):
        store.set_features({196: flags})
        [slate] = engine.recommend([request])
        assert slate.rung == "popularity" and "no consent" in slate.rung_reason and slate.profile_version == 0
        assert [i.item_id for i in slate.items] == _ids(anonymous)  # what they have seen is not used either
    store.set_features({196: {"consent_personalisation": True}})
    assert engine.recommend([request])[0].rung == "full"
    # a visit under a name that said no is not a way round
    store.append([Event(event_id="v", event="rate", session_id="visit", item_id=1, value=3)])
    assert "no consent" in engine.recommend([Request(session_id="visit")])[0].rung_reason
    assert "no consent" in engine.recommend([Request(session_id="visit", user_id=1)])[0].rung_reason


def test_ids_take_the_type_of_the_tables(engine: Engine) -> None:
    [number] = engine.recommend([Request(user_id=196, request_id="r", at=AT, exclude=[4])])
    [text] = engine.recommend([Request(user_id="196", request_id="r", at=AT, exclude=["4"])])
    _same(number, text)
    assert text.user_id == 196
    for field, wrong in {
        "user_id": {"user_id": "ada"},
        "exclude[1]": {"exclude": [1, "x"]},
        "k": {"k": 0},
        "at": {"at": -1},
        "context[...]": {"context": {"device": [1]}},
        "request_id": {"request_id": ""},
    }.items():
        with pytest.raises(RequestError) as caught:
            engine.recommend([Request(), Request(**wrong)])
        assert caught.value.field == field


def test_a_surface_that_nobody_knows_is_refused_and_the_nearest_named(engine: Engine) -> None:
    with pytest.raises(RequestError, match=r"no surface 'similiar'; did you mean similar\? there are: home, rerank, s"):
        engine.recommend([Request(user_id=196, surface="similiar")])


def test_a_surface_that_the_models_alone_know_is_answered_as_slate(bundle: Bundle, store: Store) -> None:
    words = {**bundle.vocabularies, "context_surface": Vocabulary(["basket"])}
    [slate] = Engine.open(dataclasses.replace(bundle, vocabularies=words), store).recommend(
        [Request(user_id=196, surface="basket")]
    )
    assert slate.surface == "slate" and len(slate.items) == 20


def test_surfaces_weigh_tasks_as_they_say(bundle: Bundle, store: Store) -> None:
    surfaces = {"slate": Surface(), "liked": Surface(weights={"like": 1.0}), "near": Surface(weights={"tower": 1.0})}
    engine = Engine.open(dataclasses.replace(bundle, policy=Policy(surfaces=surfaces)), store)
    [liked] = engine.recommend([Request(user_id=196, surface="liked", at=AT)])
    assert [i.score for i in liked.items] == [i.probabilities["like"] for i in liked.items]
    [near] = engine.recommend([Request(user_id=196, surface="near", at=AT)])
    assert all(i.retriever == "tower" for i in near.items) and near.surface == "near"
    with pytest.raises(BundleError, match=r"\['finish'\].*interact"):
        Engine.open(_with(bundle, Surface(weights={"finish": 1.0})), store)


def test_context_and_odd_profiles_never_stop_an_answer(engine: Engine, store: Store) -> None:
    store.set_features({196: {"timezone": "Europe/Amsterdam", "age": [1, {"x": 2}]}, 1: {"timezone": "Nowhere"}})
    requests = [
        Request(user_id=196, context={"device": "tv", "hour": None, "weekday": True}),
        Request(user_id=1, context={"hour": 25}),
        Request(user_id=13, at=0),
        Request(user_id=13, at=2**62),
    ]
    for slate in engine.recommend(requests):
        assert slate.rung == "full" and len(slate.items) == 20
    assert not engine.faults


def test_a_profile_that_cannot_be_read_or_encoded_lowers_its_own_slate_alone(bundle: Bundle, store: Store) -> None:
    engine = Engine.open(bundle, store)
    requests = [Request(user_id=u, request_id=str(u), at=AT) for u in (1, 13, 196)]
    good = engine.recommend(requests)
    assert [s.rung for s in good] == ["full"] * 3
    broken = store.profile(13)
    broken.history[-1].at = 2**63 + 1  # fits the store's format, and no int64
    store._tables.write(lambda txn: txn.put("profiles", id_key(13), msgspec.msgpack.encode(broken)), {})
    store._tables.write(lambda txn: txn.put("profiles", id_key(196), b"\xc1 no profile"), {})
    slates = engine.recommend(requests)
    _same(slates[0], good[0])
    assert [s.rung for s in slates] == ["full", "popularity", "popularity"]
    assert "cannot be encoded" in slates[1].rung_reason and "cannot be read" in slates[2].rung_reason
    assert all(len(s.items) == 20 for s in slates) and engine.describe()["faults"] == {"profile": 1}


def test_without_a_store_everybody_is_anonymous(bundle: Bundle) -> None:
    [slate] = Engine.open(bundle).recommend([Request(user_id=196)])
    assert slate.rung == "popularity" and slate.state_version == 0 and len(slate.items) == 20
    assert len(slate.request_id) == 32 and slate.at > 0


def test_an_empty_store_learns_what_the_bundle_reads(bundle: Bundle, tmp_path) -> None:
    with Store.open(tmp_path / "empty") as store:
        engine = Engine.open(bundle, store)
        assert store.append([Event(event_id=1, event="rate", user_id="77", item_id="50", value=5)]) == [True]
        assert engine.recommend([Request(user_id=77)])[0].rung == "full"


def test_threads_answer_at_once(engine: Engine) -> None:
    requests = [Request(user_id=u, request_id=str(u), at=AT) for u in range(1, 41)]
    expected = engine.recommend(requests)
    found: dict[int, Slate] = {}

    def answer(mine: list[Request]) -> None:
        for request in mine:
            found[request.user_id] = engine.recommend([request])[0]

    threads = [threading.Thread(target=answer, args=(requests[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for slate in expected:
        np.testing.assert_allclose(
            [i.score for i in found[slate.user_id].items], [i.score for i in slate.items], atol=1e-5
        )


_ID = st.one_of(st.integers(-5, 2000), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2000).map(str))
_REQUEST = st.builds(
    Request,
    user_id=st.one_of(st.none(), _ID),
    session_id=st.one_of(st.none(), _ID, st.text(min_size=1, max_size=20)),
    k=st.integers(1, 1000),
    surface=st.sampled_from(["slate", "trending"]),
    context=st.dictionaries(
        st.text(max_size=5), st.one_of(st.none(), st.text(max_size=5), st.floats(), st.integers(-(2**63), 2**63 - 1))
    ),
    exclude=st.lists(_ID, max_size=30),
    at=st.one_of(st.none(), st.integers(0, 2**62)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(_REQUEST, min_size=1, max_size=4))
def test_any_request_that_can_be_read_is_answered_in_full(engine: Engine, requests: list[Request]) -> None:
    for request, slate in zip(requests, engine.recommend(requests), strict=True):
        ids = _ids(slate)
        assert len(ids) == min(request.k, slate.eligible_count) == len(set(ids))
        assert not {str(i) for i in ids} & {str(i) for i in request.exclude}
        assert all(np.isfinite(i.score) for i in slate.items)
        msgspec.json.encode(slate)


def test_a_store_that_cannot_be_read_is_an_error_unless_answers_may_go_without(bundle: Bundle, store: Store) -> None:
    strict = Engine.open(bundle, store)
    online = Engine.open(bundle, store, EngineSettings(without_state=True))
    request = Request(user_id=196, k=5, request_id="r", at=1_000_000_000_000_000)
    [known] = online.recommend([request])
    store.set_items({known.items[0].item_id: {"available": False}})
    online.recommend([request])
    store.close()
    with pytest.raises(StateError, match="cannot read"):
        strict.recommend([request])
    [slate] = online.recommend([request])
    assert slate.rung == "popularity" and len(slate.items) == 5 and slate.profile_version == 0
    assert "the store cannot be read" in slate.rung_reason and online.faults["state"] == 1
    shown = online.recommend([msgspec.structs.replace(request, k=1_000)])[0].items
    assert known.items[0].item_id not in {i.item_id for i in shown}  # what was known of the stock last still holds
