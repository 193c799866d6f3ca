"""The HTTP interface in process: the ASGI application over a real engine, store and bundle."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from playbill.engine.budget import Budget, Pace
from playbill.engine.types import Request as Asked
from playbill.errors import ProviderError, StateError
from playbill.serving import load
from playbill.serving.http import Api
from playbill.serving.openapi import document
from playbill.serving.plain import make_api

LIMIT = 256 * 1024


@pytest.fixture(scope="module")
def api(home: Path) -> Iterator[Api]:
    made = make_api(str(home))
    yield made
    made.close()
    made._store.close()


def call(api: Api, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> httpx.Response:
    async def once() -> httpx.Response:
        # raise_app_exceptions: an exception that leaves the application is a failure of ours, never an answer
        transport = httpx.ASGITransport(api, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            content = body if body is None or isinstance(body, bytes | AsyncIterator) else json.dumps(body).encode()
            return await client.request(method, path, content=content, headers=headers)

    return asyncio.run(once())


def recommend(api: Api, **fields: Any) -> dict[str, Any]:
    response = call(api, "POST", "/v1/recommend", fields)
    assert response.status_code == 200, response.text
    return response.json()


def items(slate: dict[str, Any]) -> list[int]:
    return [item["item_id"] for item in slate["items"]]


def check_against(name: str, answer: Any) -> None:
    """Hold an answer against the schema that the OpenAPI document gives for it."""
    schemas = document()["components"]["schemas"]
    jsonschema.validate(answer, {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}})


def test_a_known_person_gets_a_slate_of_unseen_items(api: Api, home: Path, versions: list[str]) -> None:
    slate = recommend(api, user_id=196, k=10)
    check_against("Slate", slate)
    profile = api._store.profile(196)
    assert profile is not None and profile.num_events > 0
    assert len(items(slate)) == len(set(items(slate))) == 10
    assert not set(items(slate)) & set(profile.seen)
    assert slate["bundle"] == versions[0] and slate["rung"] == "full"
    assert all(item["title"] and item["reason"]["text"] for item in slate["items"])
    assert all(set(item["probabilities"]) == {"interact", "like"} for item in slate["items"])


def test_stage_times_are_told_to_those_who_ask(api: Api) -> None:
    for body, status, stages in (({"user_id": 196}, 200, {"decode", "engine", "encode", "total"}),
                                 ({"k": 0}, 422, {"total"})):  # fmt: skip
        assert "server-timing" not in call(api, "POST", "/v1/recommend", body).headers
        response = call(api, "POST", "/v1/recommend", body, {"x-playbill-timing": "1"})
        took = dict(entry.split(";dur=") for entry in response.headers["server-timing"].split(", "))
        assert response.status_code == status and stages <= set(took)
        assert all(0 <= float(ms) <= float(took["total"]) for ms in took.values())


def test_an_id_in_text_is_the_same_person(api: Api) -> None:
    asked = {"k": 5, "request_id": "same", "at": 893286638000000}
    assert items(recommend(api, user_id="196", **asked)) == items(recommend(api, user_id=196, **asked))


def test_a_visitor_is_answered_and_told_the_rung(api: Api) -> None:
    slate = recommend(api)
    assert slate["user_id"] is None and slate["rung"] == "popularity" and slate["rung_reason"]
    assert len(slate["items"]) == 20


def test_the_request_id_is_the_callers_or_made(api: Api) -> None:
    assert recommend(api, request_id="mine")["request_id"] == "mine"
    header = call(api, "POST", "/v1/recommend", {}, {"x-request-id": "from-header"})
    assert header.json()["request_id"] == "from-header"
    assert recommend(api)["request_id"] != recommend(api)["request_id"]


def test_an_event_changes_the_next_answer(api: Api) -> None:
    before = recommend(api, user_id=22, k=10)
    first = items(before)[0]
    event = {"event_id": "e-22", "event": "rate", "user_id": 22, "item_id": first, "value": 5}
    receipt = call(api, "POST", "/v1/events", event)
    assert receipt.status_code == 200
    check_against("Receipt", receipt.json())
    assert receipt.json()["events"] == [{"event_id": "e-22", "new": True}] and receipt.json()["new"] == 1
    after = recommend(api, user_id=22, k=10)
    assert first not in items(after)
    assert after["state_version"] >= receipt.json()["state_version"] > before["state_version"]
    assert after["profile_version"] == before["profile_version"] + 1


def test_an_event_delivered_twice_counts_once(api: Api) -> None:
    event = {"event_id": "twice", "event": "rate", "user_id": 23, "item_id": 1, "value": 4}
    first, second = (call(api, "POST", "/v1/events", event).json() for _ in range(2))
    assert [e["new"] for e in first["events"] + second["events"]] == [True, False]
    assert (first["new"], second["new"]) == (1, 0)
    assert first["state_version"] == second["state_version"]


def test_many_events_in_one_delivery_in_order_with_ids_made(api: Api) -> None:
    sent = [
        {"event": "rate", "user_id": 24, "item_id": 2, "value": 4},
        {"event_id": 7, "event": "rate", "session_id": "visit", "item_id": 3, "value": 2, "at": 893286638000000},
        {"event_id": 7, "event": "rate", "session_id": "visit", "item_id": 3, "value": 2},
    ]
    receipt = call(api, "POST", "/v1/events", {"events": sent}).json()
    assert [e["new"] for e in receipt["events"]] == [True, True, False]
    assert isinstance(receipt["events"][0]["event_id"], str) and receipt["events"][1]["event_id"] == 7
    slate = recommend(api, session_id="visit", k=3)
    assert slate["profile_version"] == 1 and slate["rung"] == "full"  # the visit has a profile of its own


def test_one_bad_event_refuses_the_whole_delivery(api: Api) -> None:
    good = {"event_id": "kept-out", "event": "rate", "user_id": 25, "item_id": 4, "value": 4}
    bad = call(api, "POST", "/v1/events", {"events": [good, {**good, "event_id": "x", "value": 9}]})
    assert (bad.status_code, bad.json()["field"]) == (422, "events[1].value")
    assert call(api, "POST", "/v1/events", good).json()["new"] == 1


def test_no_receipt_before_the_events_are_durable(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store returns from `append` after its flush (its own tests count it); the answer waits for that return."""
    durable, answered = threading.Event(), threading.Event()
    append = api._store.append

    def slow(events: Any) -> list[bool]:
        assert durable.wait(5)
        assert not answered.is_set()
        return append(events)

    monkeypatch.setattr(api._store, "append", slow)
    threading.Timer(0.2, durable.set).start()
    event = {"event": "rate", "user_id": 26, "item_id": 5, "value": 4}
    assert call(api, "POST", "/v1/events", event).status_code == 200
    answered.set()
    assert durable.is_set()


def test_a_store_that_cannot_write_is_a_503_and_no_receipt(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(events: Any) -> list[bool]:
        raise StateError("redis://cache:6379 is full")

    monkeypatch.setattr(api._store, "append", full)
    response = call(api, "POST", "/v1/events", {"event": "rate", "user_id": 26, "item_id": 5})
    assert response.status_code == 503 and response.headers["retry-after"] == "1"
    problem = response.json()
    assert problem["error"] == "state" and "redis" not in response.text and "try again" in problem["reason"]
    assert "redis://cache:6379 is full" in caplog.text and problem["request_id"] in caplog.text


def test_the_event_loop_answers_while_events_are_written(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    append = api._store.append
    monkeypatch.setattr(api._store, "append", lambda events: release.wait(5) and append(events))

    async def both() -> None:
        transport = httpx.ASGITransport(api)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            event = {"event": "rate", "user_id": 27, "item_id": 5, "value": 3}
            writing = asyncio.create_task(client.post("/v1/events", json=event))
            await asyncio.sleep(0.05)
            assert (await client.post("/v1/recommend", json={"user_id": 27})).status_code == 200
            assert not writing.done()
            release.set()
            assert (await writing).status_code == 200

    asyncio.run(both())


BAD_BODIES: list[tuple[bytes, int, str]] = [
    (b"", 400, "body"),
    (b"{", 400, "body"),
    (b"nonsense", 400, "body"),
    (b"\xff\xfe", 400, "body"),
    (b'{"surface": "\xff"}', 400, "body"),
    (b'{"surface": "\\ud800"}', 400, "body"),
    (b'{"k": NaN}', 400, "body"),
    (b'{"k": Infinity}', 400, "body"),
    (b"[" * 100_000, 422, "body"),
    (b'{"context": ' + b'{"a": ' * 40_000, 422, "context[...]"),
    (b'{"exclude": ' + b"[" * 100_000, 422, "exclude[0]"),
    (b"null", 422, "body"),
    (b"[]", 422, "body"),
    (b'"text"', 422, "body"),
    (b'{"k": 0}', 422, "k"),
    (b'{"k": -3}', 422, "k"),
    (b'{"at": 4611686018427387904}', 422, "at"),  # the year 148,109
    (b'{"at": 4102444800000000}', 422, "at"),  # the year 2100
    (b'{"k": 1000001}', 422, "k"),
    (b'{"k": 1e400}', 422, "k"),
    (b'{"k": "ten"}', 422, "k"),
    (b'{"k": 2.5}', 422, "k"),
    (b'{"user_id": true}', 422, "user_id"),
    (b'{"user_id": 1.5}', 422, "user_id"),
    (b'{"user_id": {"$ne": 1}}', 422, "user_id"),
    (b'{"user_id": 123456789012345678901234567890}', 422, "user_id"),
    (b'{"user_id": "nobody"}', 422, "user_id"),  # MovieLens' ids are integers
    (b'{"user": 1}', 422, "user"),
    (b'{"exclude": 5}', 422, "exclude"),
    (b'{"exclude": ["a"]}', 422, "exclude[0]"),
    (b'{"context": {"hour": [1]}}', 422, "context[...]"),
    (b'{"at": "yesterday"}', 422, "at"),
    (b'{"at": -1}', 422, "at"),
    (b'{"request_id": ""}', 422, "request_id"),
]


@pytest.mark.parametrize(("body", "status", "field"), BAD_BODIES, ids=[repr(b[:30]) for b, _, _ in BAD_BODIES])
def test_a_bad_request_is_refused_by_field(api: Api, body: bytes, status: int, field: str) -> None:
    response = call(api, "POST", "/v1/recommend", body)
    problem = response.json()
    check_against("Problem", problem)
    assert (response.status_code, problem["field"]) == (status, field)
    assert problem["reason"] and problem["request_id"]


@pytest.mark.parametrize("days", [-10_000, -1, 0.01, 300])
def test_a_slate_may_be_asked_for_the_past_and_a_year_ahead(api: Api, days: float) -> None:
    at = time.time_ns() // 1000 + round(days * 86_400_000_000)
    answer = call(api, "POST", "/v1/recommend", {"user_id": 1, "at": at})
    assert answer.status_code == 200 and answer.json()["at"] == at


BAD_EVENTS: list[tuple[Any, int, str]] = [
    ({}, 422, "event"),
    ({"events": []}, 422, "events"),
    ({"events": {}}, 422, "events"),
    ({"events": [{"event": "rate"}]}, 422, "events[0].user_id"),
    ({"event": "rate", "user_id": 1, "item_id": 1, "value": 6}, 422, "value"),
    ({"event": "flight", "user_id": 1}, 422, "event"),
    ({"event": "rate", "user_id": 1, "item_id": "abc"}, 422, "item_id"),
    ({"event": "rate", "user_id": 1, "stars": 5}, 422, "stars"),
    ({"event": "rate", "user_id": 1, "context": {"n": 10**30}}, 422, "context[...]"),
    ({"events": [{"event": "rate", "user_id": 1}], "more": 1}, 422, "more"),
    ({"events": [{"event": "rate", "user_id": 1}] * 1001}, 422, "events"),
    ([{"event": "rate", "user_id": 1}], 422, "body"),
    (b'{"event": "rate", "user_id": 1, "device": "\\udc00"}', 400, "body"),
    (b'{"event": "rate", "value": NaN}', 400, "body"),
]


@pytest.mark.parametrize(("body", "status", "field"), BAD_EVENTS, ids=[str(b)[:40] for b, _, _ in BAD_EVENTS])
def test_a_bad_event_is_refused_by_field(api: Api, body: Any, status: int, field: str) -> None:
    before = api._store.version
    response = call(api, "POST", "/v1/events", body)
    assert (response.status_code, response.json()["field"]) == (status, field), response.text
    assert api._store.version == before


def test_a_body_over_the_limit_is_refused_by_its_declared_length(api: Api) -> None:
    response = call(api, "POST", "/v1/recommend", b"x" * (LIMIT + 1))
    assert (response.status_code, response.json()["error"]) == (413, "too_large")


def test_a_body_over_the_limit_is_refused_while_it_streams(api: Api) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 64 * 1024
            assert read < 4 * LIMIT, "read on after the refusal"
            yield b" " * 64 * 1024

    response = call(api, "POST", "/v1/recommend", endless())
    assert response.status_code == 413


def test_a_body_of_just_the_limit_is_read(api: Api) -> None:
    body = b'{"k": 1}'
    assert call(api, "POST", "/v1/recommend", body + b" " * (LIMIT - len(body))).status_code == 200


def test_a_compressed_body_is_refused(api: Api) -> None:
    assert call(api, "POST", "/v1/recommend", b"{}", {"content-encoding": "gzip"}).status_code == 415


def test_unknown_paths_and_wrong_methods(api: Api) -> None:
    for path in ("/", "/v1", "/v1/recommend/", "/v2/recommend", "/v1/" + "x" * 5000):
        response = call(api, "GET", path)
        assert (response.status_code, response.json()["error"]) == (404, "not_found")
    wrong = call(api, "GET", "/v1/recommend")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert call(api, "DELETE", "/v1/health").headers["allow"] == "GET"
    assert call(api, "HEAD", "/v1/health").status_code == 200


def test_health_and_bundle_say_what_answers(api: Api, home: Path, versions: list[str]) -> None:
    health = call(api, "GET", "/v1/health").json()
    check_against("Health", health)
    assert health["bundle"] == versions[0] and health["rungs"] == ["full", "retrieval", "item_knn", "popularity"]
    assert set(health["models"]) == {"query_tower", "ranker"}
    assert {m["provider"] for m in health["models"].values()} <= {"CPUExecutionProvider", "CUDAExecutionProvider"}
    assert health["state_version"] == api._store.version
    bundle = call(api, "GET", "/v1/bundle").json()
    check_against("BundleSummary", bundle)
    assert bundle["num_items"] == 1682 and bundle["rungs"]["towers"]["carried"]
    assert not bundle["rungs"]["uplift"]["carried"] and bundle["rungs"]["uplift"]["missing"]


def test_the_openapi_document_is_valid_and_served(api: Api) -> None:
    served = call(api, "GET", "/v1/openapi.json").json()
    OpenAPIV31SpecValidator(served).validate()
    assert served == document()
    assert set(served["paths"]) == {route for route in api._routes}
    request = served["components"]["schemas"]["Request"]
    assert request["properties"]["k"]["maximum"] == 1000 and request["additionalProperties"] is False


def test_a_swap_changes_every_later_answer_and_no_earlier_one(api: Api, home: Path, versions: list[str]) -> None:
    first, second = versions
    before = recommend(api, user_id=196)
    api.use(*load.open_engine(load.bundle_path(home, second), api._store))
    after = recommend(api, user_id=196)
    api.use(*load.open_engine(load.bundle_path(home, first), api._store))
    assert (before["bundle"], after["bundle"]) == (first, second)
    assert (before["rung"], after["rung"]) == ("full", "item_knn")
    assert after["rung_reason"].startswith("the bundle carries no towers")
    assert recommend(api, k=30)["bundle"] == first


def test_without_a_bundle_it_is_starting(api: Api) -> None:
    empty = Api(api._store)
    assert not empty.ready
    assert call(empty, "POST", "/v1/recommend", {}).status_code == 503
    assert call(empty, "GET", "/v1/health").status_code == 503
    empty.close()


def test_what_is_noted_of_a_request(api: Api, home: Path) -> None:
    watched = Api(api._store)
    watched.use(*load.open_engine(load.bundle_path(home, "current"), api._store))
    call(watched, "POST", "/v1/recommend", {"user_id": 196})
    call(watched, "GET", "/somewhere")
    counters, histograms = watched.watch.counts.so_far()
    assert counters["requests", ("/v1/recommend", "200")] == counters["requests", ("unknown", "404")] == 1
    assert counters["answers", ("slate", "full")] == counters["refusals", ("unknown", "not_found")] == 1
    took = {stage: found for (_, (route, stage, _)), found in histograms.items() if route == "/v1/recommend"}
    assert {"decode", "engine", "encode", "total", "retrieve", "rank"} <= set(took)
    assert took["total"].total >= took["engine"].total > 0 and watched.watch.in_progress == 0
    watched.close()


def test_a_required_gpu_that_is_not_there_is_refused(api: Api, home: Path) -> None:
    import onnxruntime as ort

    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this runtime offers CUDA")
    with pytest.raises(ProviderError, match="a GPU is required"):
        load.open_engine(load.bundle_path(home, "current"), api._store, require_gpu=True)


@pytest.mark.parametrize(("ago_ms", "status"), [(0, 200), (150, 503), (-5_000, 200), (3_600_000, 200)])
def test_a_deadline_counts_from_the_arrival_that_the_ingress_notes(api: Api, ago_ms: int, status: int) -> None:
    """A moment that has not come yet, or lies far back, is no moment that an ingress could have noted."""
    arrived = str(round(time.time() * 1e3) - ago_ms)
    headers = {"x-playbill-arrived": arrived, "x-playbill-deadline-ms": "100"}
    answer = call(api, "POST", "/v1/recommend", {"user_id": 1}, headers)
    assert answer.status_code == status
    if status == 503:
        assert answer.headers["retry-after"] == "1" and "waited 1" in answer.json()["reason"]


def test_an_answer_says_which_steps_it_had_no_time_for(api: Api) -> None:
    whole = call(api, "POST", "/v1/recommend", {"user_id": 1}, {"x-playbill-deadline-ms": "60000"})
    assert "x-playbill-late" not in whole.headers
    api.engine().pace.took("rank", 1e9)
    hurried = call(api, "POST", "/v1/recommend", {"user_id": 1}, {"x-playbill-deadline-ms": "60000"})
    assert "rank" in hurried.headers["x-playbill-late"].split(", ") and hurried.headers["x-playbill-rung"] != "full"


def test_what_a_request_waited_before_it_came_counts_against_its_deadline(api: Api) -> None:
    scope: dict[str, Any] = {"headers": [], "method": "POST"}
    slate = api.engine().recommend([Asked(user_id=1)])[0]
    for waited, missed in ((70.0, 0), (90.0, 1)):
        api.watch.began()
        api.watch.answered(scope, slate, Budget(100.0, Pace()))
        before = api.watch.counts.so_far()[0].get(("deadline_misses", ("answer",)), 0)
        api.watch.finished(scope, "/v1/recommend", 200, {"total": 20.0, "wait": waited})
        assert api.watch.counts.so_far()[0].get(("deadline_misses", ("answer",)), 0) - before == missed


@pytest.mark.parametrize("noted", ["", "soon", "-5", "9" * 40])
def test_what_is_no_arrival_counts_as_none(api: Api, noted: str) -> None:
    headers = {"x-playbill-arrived": noted, "x-playbill-deadline-ms": "100"}
    assert call(api, "POST", "/v1/recommend", {"user_id": 1}, headers).status_code == 200


def test_who_waits_for_a_turn_until_too_little_is_left_is_told_to_come_again(api: Api) -> None:
    async def asked() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url="http://test") as client:
            async with api.turns, api.turns:  # two slates are in the works
                asking = [
                    asyncio.create_task(
                        client.post("/v1/recommend", json={"user_id": 1}, headers={"x-playbill-deadline-ms": given})
                    )
                    for given in ("60000", "50")
                ]
                hurried = await asking[1]  # though nobody's turn has ended
                assert not asking[0].done()
            return [await asking[0], hurried]

    patient, hurried = asyncio.run(asked())
    assert patient.status_code == 200 and hurried.status_code == 503
    assert hurried.headers["retry-after"] == "1" and hurried.json()["error"] == "overloaded"
