"""Creatives over HTTP and in a batch: a sealed bundle with a head, a real store, and clicks that come back."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import pyarrow as pa
import pytest

from playbill.bundle.write import current
from playbill.engine.engine import Engine
from playbill.serving import load
from playbill.serving.http import Api
from playbill.serving.openapi import document
from playbill.serving.parts import Plan
from playbill.serving.plain import make_api
from playbill.serving.slates import SlateWriter, batch_request
from playbill.state.store import Store

AT = 893_300_000_000_000


@pytest.fixture(scope="module")
def home(creative_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("creative") / "home"
    shutil.copytree(creative_home, path)
    return path


@pytest.fixture
def api(home: Path) -> Iterator[Api]:
    made = make_api(str(home))
    yield made
    made.close()
    made._store.close()


def call(api: Api, path: str, body: dict[str, Any]) -> httpx.Response:
    async def once() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
            return await client.post(path, content=json.dumps(body).encode())

    return asyncio.run(once())


def get(api: Api, path: str) -> dict[str, Any]:
    async def once() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
            return await client.get(path)

    response = asyncio.run(once())
    assert response.status_code == 200, response.text
    return response.json()


def post(api: Api, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = call(api, path, body)
    assert response.status_code == 200, response.text
    return response.json()


def test_what_is_shown_is_recorded_before_it_is_answered_and_ratings_teach(api: Api) -> None:
    slate = post(api, "/v1/recommend", {"user_id": 1, "session_id": "v", "request_id": "first", "at": AT, "k": 5})
    schemas = document()["components"]["schemas"]
    jsonschema.validate(slate, {"$ref": "#/components/schemas/Slate", "components": {"schemas": schemas}})
    store = api._store
    recorded = {d.decision_id: d for _, d in store.decisions()}
    for item in slate["items"]:
        made = recorded[item["decision_id"]]
        assert (made.chosen, made.propensity) == (item["creative_id"], item["creative_propensity"])
        assert 0 < item["creative_propensity"] < 1 and made.user_id == 1 and made.session_id == "v"
    again = post(api, "/v1/recommend", {"user_id": 1, "session_id": "v", "request_id": "second", "at": AT, "k": 5})
    assert [i["creative_id"] for i in again["items"]] == [i["creative_id"] for i in slate["items"]]
    assert {i["creative_propensity"] for i in again["items"]} == {1.0}
    with store.view() as view:
        before = view.learned("head-1")
    item = slate["items"][0]
    event = {
        "event": "rate", "user_id": 1, "item_id": item["item_id"], "creative_id": item["creative_id"], "value": 5,
        "decision_id": item["decision_id"], "at": AT + 1,
    }  # fmt: skip
    receipt = post(api, "/v1/events", event)
    with store.view() as view:
        after = view.learned("head-1")
        assert view.version == receipt["state_version"] >= after.version > before.version
    assert (before.impressions, before.rewards, after.rewards) == (5, 0, 1)
    next_one = post(api, "/v1/recommend", {"request_id": "third", "at": AT, "k": 1})
    [made] = [d for _, d in store.decisions() if d.request_id == "third"]
    assert made.learned == after.version and next_one["state_version"] >= after.version


def test_a_store_that_takes_nothing_does_not_stop_answers(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Store.open(home / "state", readonly=True) as store:
        bundle, engine = load.open_engine(load.bundle_path(home, "current"), store)
        api = Api(store)
        api.use(bundle, engine)
        slate = post(api, "/v1/recommend", {"request_id": "lost", "at": AT, "k": 3})
        assert all(item["creative_id"] is not None for item in slate["items"])
        assert engine.faults["decisions"] == 1 and "opened read-only" in caplog.text
        api.close()


def test_a_withdrawn_approval_is_gone_from_the_next_answer(api: Api) -> None:
    asked = {"request_id": "w1", "session_id": "w", "at": AT, "k": 3}
    item = post(api, "/v1/recommend", asked)["items"][0]
    api._store.set_creatives({item["creative_id"]: {"status": "withdrawn"}})
    after = post(api, "/v1/recommend", {**asked, "request_id": "w2"})["items"][0]
    assert after["item_id"] == item["item_id"] and after["creative_id"] not in (None, item["creative_id"])


def shown(api: Api, name: str, film: int) -> list[int]:
    """The posters of a film that visitors of 20 sessions get: always the same, for draws are keyed by session."""
    asked = [{"request_id": f"{name}-{n}", "session_id": f"{name}-{n}", "at": AT, "k": 1} for n in range(20)]
    slates = [post(api, "/v1/recommend", body) for body in asked]
    assert {slate["items"][0]["item_id"] for slate in slates} == {film}
    return [slate["items"][0]["creative_id"] for slate in slates]


def test_approvals_are_withdrawn_and_given_back_over_http(api: Api) -> None:
    film = post(api, "/v1/recommend", {"request_id": "a", "at": AT, "k": 1})["items"][0]["item_id"]
    before = shown(api, "before", film)
    first = max(set(before), key=before.count)  # what most of them get
    other = 10 if first > 20 else 50
    assert len(set(before)) > 1
    body = {"creatives": [{"creative_id": str(first), "withdrawn": True}, {"creative_id": other, "withdrawn": True}]}
    noted = post(api, "/v1/creatives", body)
    schemas = document()["components"]["schemas"]
    jsonschema.validate(noted, {"$ref": "#/components/schemas/Noted", "components": {"schemas": schemas}})
    assert noted["creatives"] == [{"creative_id": i, "withdrawn": True} for i in (first, other)]
    assert first not in shown(api, "withdrawn", film)
    with api._store.view() as view:
        assert view.creatives()[first] == view.creatives()[other] == {"withdrawn": True}
        assert view.version >= noted["state_version"]
    post(api, "/v1/creatives", {"creative_id": first, "withdrawn": False})
    assert first in shown(api, "back", film)
    # what was not approved before is not approved by taking back that it was withdrawn
    api._store.set_creatives({first: {"status": "draft"}})
    for withdrawn in (True, False):
        post(api, "/v1/creatives", {"creative_id": first, "withdrawn": withdrawn})
    assert first not in shown(api, "draft", film)
    api._store.set_creatives({first: {"status": "approved"}})
    post(api, "/v1/creatives", {"creative_id": other, "withdrawn": False})


def test_a_creative_that_comes_with_its_item_is_shown_and_withdrawn(api: Api) -> None:
    film = post(api, "/v1/recommend", {"request_id": "a", "at": AT, "k": 1})["items"][0]["item_id"]
    before = set(shown(api, "old", film))
    late = 9_000_001
    mine = [{"creative_id": i, "status": "draft"} for i in before]
    new = {"creative_id": str(late), "kind": "poster", "uri": "late.jpg", "status": "approved"}
    body = {"item_id": film, "creatives": [new, *mine]}
    noted = post(api, "/v1/items", body)
    schemas = document()["components"]["schemas"]
    jsonschema.validate(noted, {"$ref": "#/components/schemas/ItemsNoted", "components": {"schemas": schemas}})
    [item] = noted["items"]
    assert item["change"] == "unchanged" and item["shown"]  # of itself nothing was said
    changed = [{"creative_id": i, "change": "changed"} for i in before]
    assert item["creatives"] == [{"creative_id": late, "change": "new"}, *changed]
    assert late in shown(api, "late", film) and not before & set(shown(api, "late", film))
    posters = {c["creative_id"]: c for c in get(api, f"/v1/items/{film}")["creatives"]}
    assert posters[late]["uri"] == "late.jpg" and {posters[i]["status"] for i in before} == {"draft"}
    [item] = post(api, "/v1/items", body)["items"]
    assert {creative["change"] for creative in item["creatives"]} == {"unchanged"}
    [item] = post(api, "/v1/items", {"item_id": film, "creatives": [{"creative_id": late, "withdrawn": True}]})["items"]
    assert item["creatives"] == [{"creative_id": late, "change": "withdrawn"}]
    back = [{"creative_id": i, "status": None} for i in before]
    post(api, "/v1/items", {"item_id": film, "creatives": back})
    assert late not in shown(api, "gone", film)
    other = 1 if film != 1 else 2
    for creative, field, said in (
        ({"creative_id": late}, "creatives[0].creative_id", f"creative {late} belongs to item {film}"),
        ({"creative_id": late + 1, "item_id": film}, "creatives[0].item_id", f"expected {other}, got {film}"),
        ({"creative_id": late + 1, "stats": "approved"}, "creatives[0].stats", "did you mean status?"),
        ({"creative_id": late + 1, "approved_until": "soon"}, "creatives[0].approved_until", "expected a time"),
        ({"uri": "x"}, "creatives[0].creative_id", "missing"),
    ):
        answer = call(api, "/v1/items", {"item_id": other, "creatives": [creative]})
        assert answer.status_code == 422 and answer.json()["field"] == field and said in answer.json()["reason"]


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"creative_id": 77_777_777, "withdrawn": True}, "creative_id", "nor the store has a creative 77777777"),
        ({"creative_id": "poster", "withdrawn": True}, "creative_id", "expected an int64 id, got 'poster'"),
        ({"creative_id": 10}, "withdrawn", "missing"),
        ({"creative_id": 10, "withdrawn": "yes"}, "withdrawn", "bool"),
        ({"creatives": []}, "creatives", "length"),
        (
            {"creatives": [{"creative_id": 10, "withdrawn": True}, {"creative_id": 4, "withdrawn": True}]},
            "creatives[1].creative_id",
            "has a creative 4",
        ),
    ],
)
def test_approvals_that_cannot_be_noted_name_the_field(api: Api, body: Any, field: str, said: str) -> None:
    with api._store.view() as view:
        before = view.creatives_version
    answer = call(api, "/v1/creatives", body)
    assert answer.status_code == 422 and answer.json()["field"] == field and said in answer.json()["reason"]
    with api._store.view() as view:
        assert view.creatives_version == before  # none of several


def test_a_bundle_without_creatives_withdraws_none(home: Path, versions: list[str]) -> None:
    with Store.open(home / "state") as store:
        api = Api(store)
        api.use(*load.open_engine(load.bundle_path(home, versions[1]), store))
        answer = call(api, "/v1/creatives", {"creative_id": 10, "withdrawn": True})
        assert answer.status_code == 422 and "has no creatives" in answer.json()["reason"]
        api.close()


def test_a_batch_carries_creatives_and_their_probabilities(home: Path, tmp_path: Path) -> None:
    """The same slates as the engine's, and nothing is recorded: nobody has seen them yet."""
    version = current(home / "bundles")
    assert version is not None
    plan = Plan(
        run="run", asked="a", name="all", bundle=version, k=6, surface="slate", at=AT, state_version=0, num_users=3,
        shard_users=3,
    )  # fmt: skip
    users = [1, 2, 405]
    writer = SlateWriter(str(home), str(tmp_path), plan, require_gpu=False)
    before = writer._engine.store.version
    writer({"part": 0, "user_ids": users})
    rows = pa.parquet.read_table(tmp_path / "part-00000.parquet")
    expected = writer._engine.recommend([batch_request(plan, user) for user in users])
    assert rows["creative_ids"].to_pylist() == [[i.creative_id for i in s.items] for s in expected]
    assert rows["creative_propensities"].to_pylist() == [[i.creative_propensity for i in s.items] for s in expected]
    assert (np.concatenate(rows["creative_propensities"].to_pylist()) < 1).all()
    assert writer._engine.store.version == before
    writer._engine.store.close()


def test_a_bundle_of_baselines_has_no_such_columns(sealed_home: Path, versions: list[str], tmp_path: Path) -> None:
    plan = Plan(
        run="run", asked="a", name="all", bundle=versions[0], k=6, surface="slate", at=AT, state_version=0,
        num_users=1, shard_users=1,
    )  # fmt: skip
    writer = SlateWriter(str(sealed_home), str(tmp_path), plan, require_gpu=False)
    writer({"part": 0, "user_ids": [1]})
    writer._engine.store.close()
    assert not [n for n in pa.parquet.read_schema(tmp_path / "part-00000.parquet").names if n.startswith("creative")]


def test_health_names_the_head_that_runs(api: Api, home: Path) -> None:
    engine: Engine = api.engine()
    assert engine.models()["creative_head"] == {"provider": "CPUExecutionProvider", "device": "cpu"}
    assert isinstance(engine.store, Store) and engine.describe()["creatives"]["creatives"] > 6_000
