"""What people ask for over HTTP: durable, heard by the next answer of every replica, seen and taken back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from playbill.errors import StateError
from playbill.serving.http import Api
from playbill.serving.openapi import document
from playbill.serving.plain import make_api

USER = 196


@pytest.fixture(scope="module")
def api(home: Path) -> Iterator[Api]:
    made = make_api(str(home))
    yield made
    made.close()
    made.store.close()


def call(api: Api, method: str, path: str, body: Any = None) -> httpx.Response:
    async def once() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
            return await client.request(method, path, content=None if body is None else json.dumps(body))

    return asyncio.run(once())


def told(api: Api, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """The answer, which is as the document says."""
    response = call(api, method, path, body)
    assert response.status_code == 200, response.text
    spec = document()
    operation = spec["paths"][path.partition("?")[0]][method.lower()]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(response.json(), {**schema, "components": spec["components"]})
    return response.json()


def slate(api: Api, **fields: Any) -> dict[str, Any]:
    return told(api, "POST", "/v1/recommend", {"k": 10, "user_id": USER, "request_id": "r", **fields})


def ids(answer: dict[str, Any]) -> list[int]:
    return [item["item_id"] for item in answer["items"]]


def say(api: Api, kind: str, **fields: Any) -> dict[str, Any]:
    return told(api, "POST", "/v1/feedback", {"kind": kind, "user_id": USER, **fields})


def test_feedback_is_heard_by_the_next_slate_and_can_be_seen_and_taken_back(api: Api) -> None:
    before = slate(api)
    first, second = ids(before)[:2]
    noted = say(api, "not_this_item", item_id=first)
    assert noted["new"] and noted["kind"] == "not_this_item" and noted["state_version"] > before["state_version"]
    after = slate(api)
    assert ids(after)[:9] == ids(before)[1:] and after["state_version"] >= noted["state_version"]
    assert after["removed"] == [{"rule": "asked: not this item", "items": 1}]
    assert say(api, "not_this_item", item_id=str(first))["new"] is False
    say(api, "less_like_this", item_id=second)
    assert ids(slate(api))[0] != second
    kept = told(api, "GET", f"/v1/preferences?user_id={USER}")
    titles = {item["item_id"]: item["title"] for item in before["items"]}
    assert [(i["item_id"], i["title"]) for i in kept["hidden"]] == [(first, titles[first])]
    assert [(i["item_id"], i["left"]) for i in kept["less"]] == [(second, 1.0)] and kept["user_id"] == USER
    for kind, item in (("not_this_item", first), ("less_like_this", second)):
        assert say(api, kind, item_id=item, take_back=True)["new"]
    assert ids(slate(api)) == ids(before)


def test_a_forgotten_event_is_as_if_it_had_never_come(api: Api) -> None:
    before = slate(api, user_id=22)
    event = {"event_id": "f-22", "event": "rate", "user_id": 22, "item_id": ids(before)[0], "value": 5}
    told(api, "POST", "/v1/events", event)
    assert ids(slate(api, user_id=22)) != ids(before)
    assert say(api, "forget_event", user_id=22, event_id="f-22")["new"]
    assert ids(slate(api, user_id=22)) == ids(before)
    assert told(api, "POST", "/v1/events", event)["new"] == 0 and ids(slate(api, user_id=22)) == ids(before)
    assert say(api, "forget_event", user_id=22, event_id="f-22")["new"] is False
    assert "f-22" not in [e.event_id for *_, e in api.store.events()]


def test_what_is_declared_stands_in_reasons_and_in_what_was_left_out(api: Api) -> None:
    wanted = [
        {"kind": "more", "categories": ["Film-Noir", "Western"]},
        {"kind": "never", "categories": ["Comedy"]},
        {"kind": "less", "where": "release_year < 1960"},
    ]
    kept = told(api, "PUT", "/v1/preferences", {"user_id": USER, "preferences": wanted})
    assert [p["kind"] for p in kept["preferences"]] == ["more", "never", "less"]
    genres = dict(zip(*(api.now()[0].items[c].to_list() for c in ("item_id", "categories")), strict=True))
    about = [sum(bool(set(p["categories"]) & set(g)) for g in genres.values()) for p in wanted[:2]]
    assert [p["items"] for p in kept["preferences"][:2]] == about and kept["preferences"][2]["items"] > 0
    after = slate(api, k=20)
    declared = [i for i in after["items"] if i["reason"]["kind"] == "declared"]
    assert declared and not any("Comedy" in genres[i] for i in ids(after))
    for item in declared:
        both = [c for c in ("Film-Noir", "Western") if c in genres[item["item_id"]]]
        assert item["reason"]["text"] == f"Because you asked for more {' and '.join(both)}"
        assert item["reason"]["fact"] == {"asked": "more", "categories": both}
    assert "asked: never Comedy" in [r["rule"] for r in after["removed"]]
    page = told(api, "POST", "/v1/home", {"user_id": USER, "k": 6})
    assert not any("Comedy" in genres[i["item_id"]] for shelf in page["shelves"] for i in shelf["items"])
    assert told(api, "PUT", "/v1/preferences", {"user_id": USER, "preferences": []})["preferences"] == []
    assert "removed" not in slate(api, k=20)


def test_a_misspelt_category_and_a_context_that_nothing_reads_are_named(api: Api) -> None:
    misspelt, well = ({"kind": "more", "categories": names} for names in (["Horor", "War"], ["War"]))
    [kept] = told(api, "PUT", "/v1/preferences", {"user_id": USER, "preferences": [misspelt]})["preferences"]
    assert kept["reason"] == "no item is of 'Horor', nearest is 'Horror'" and kept["items"] > 0
    [kept] = told(api, "PUT", "/v1/preferences", {"user_id": USER, "preferences": [well]})["preferences"]
    assert kept["reason"] == ""
    context = {"devise": "tv", "locale": "de"}
    assert slate(api, context=context)["unread_context"] == ["devise"]
    home = told(api, "POST", "/v1/home", {"user_id": USER, "k": 4, "request_id": "h", "context": context})
    assert home["unread_context"] == ["devise"] and "unread_context" not in slate(api)


def test_visitors_say_what_they_want_by_their_session_alone(api: Api) -> None:
    visit = {"session_id": "visit-1"}
    told(api, "PUT", "/v1/preferences", {**visit, "preferences": [{"kind": "never", "categories": ["Drama"]}]})
    first = ids(told(api, "POST", "/v1/recommend", {**visit, "k": 5}))[0]
    told(api, "POST", "/v1/feedback", {**visit, "kind": "not_this_item", "item_id": first})
    after = told(api, "POST", "/v1/recommend", {**visit, "k": 5})
    assert first not in ids(after) and len(after["removed"]) == 2
    assert told(api, "GET", "/v1/preferences?session_id=visit-1")["hidden"][0]["item_id"] == first
    number = {"session_id": 77, "kind": "not_this_item", "item_id": first}  # an address does not tell 77 from "77"
    told(api, "POST", "/v1/feedback", number)
    assert len(told(api, "GET", "/v1/preferences?session_id=77")["hidden"]) == 1
    dropped = told(api, "DELETE", "/v1/preferences?session_id=visit-1")
    assert dropped["hidden"] == dropped["preferences"] == []
    assert "removed" not in told(api, "POST", "/v1/recommend", {**visit, "k": 5})
    say(api, "not_this_item", item_id=first)
    told(api, "DELETE", f"/v1/preferences?user_id={USER}")
    assert list(api.store.every_wish())[0].session_id == 77 and len(list(api.store.every_wish())) == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "field", "reason"),
    [
        ("POST", "/v1/feedback", {"kind": "not_this_item", "item_id": 1}, "user_id", "got neither"),
        ("PUT", "/v1/preferences", {"preferences": []}, "user_id", "got neither"),
        ("GET", "/v1/preferences", None, "user_id", "got neither"),
        ("DELETE", "/v1/preferences?user=7", None, "user", "no such parameter"),
        ("GET", "/v1/preferences?user_id=x", None, "user_id", "expected an int64 id"),
        ("GET", "/v1/preferences?user_id=1&user_id=2", None, "user_id", "expected one id"),
        ("POST", "/v1/feedback", {"kind": "hate", "user_id": 1}, "kind",
         "Invalid enum value 'hate': expected one of less_like_this, not_this_item, forget_event"),
        ("PUT", "/v1/preferences", {"user_id": 1, "preferences": [{"kind": "love"}]}, "preferences[0].kind",
         "Invalid enum value 'love': expected one of more, less, never"),
        ("POST", "/v1/feedback", {"kind": "not_this_item", "user_id": 1}, "item_id", "expected an id, got none"),
        ("POST", "/v1/feedback", {"kind": "forget_event", "user_id": 1, "item_id": 1}, "item_id", "takes none"),
        ("POST", "/v1/feedback", {"kind": "forget_event", "user_id": 1}, "event_id", "expected an id, got none"),
        ("POST", "/v1/feedback", {"kind": "forget_event", "user_id": 1, "event_id": "no"}, "event_id",
         "this person has no event 'no'"),
        ("POST", "/v1/feedback", {"kind": "forget_event", "user_id": 1, "event_id": 1, "take_back": True}, "take_back",
         "cannot be brought back"),
        ("POST", "/v1/feedback", {"kind": "less_like_this", "user_id": 1, "item_id": 99_999}, "item_id",
         "neither the bundle nor the store has an item"),
        ("PUT", "/v1/preferences", {"user_id": 1, "preferences": [{"kind": "more"}]}, "preferences[0]", "got neither"),
        ("PUT", "/v1/preferences", {"user_id": 1, "preferences": [{"kind": "less", "where": "pryce < 3"}]},
         "preferences[0].where", "no column 'pryce'"),
        ("PUT", "/v1/preferences", {"user_id": 1, "preferences": [{"kind": "less", "where": "release_year > 1"}] * 6},
         "preferences[5].where", "at most 5 conditions"),
    ],
)  # fmt: skip
def test_mistakes_are_named(api: Api, method: str, path: str, body: Any, field: str, reason: str) -> None:
    before = api.store.version
    response = call(api, method, path, body)
    assert response.status_code == 422 and response.json()["field"] == field and reason in response.json()["reason"]
    assert api.store.version == before


def test_what_cannot_be_written_is_not_acknowledged(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise StateError("the disk is full")

    monkeypatch.setattr(api.store, "_commit_with_others", full)
    body = {"kind": "not_this_item", "user_id": USER, "item_id": 1}
    assert call(api, "POST", "/v1/feedback", body).status_code == 503
    assert call(api, "PUT", "/v1/preferences", {"user_id": USER, "preferences": []}).status_code == 503


def test_a_route_of_several_methods_names_them(api: Api) -> None:
    response = call(api, "POST", "/v1/preferences", {})
    assert response.status_code == 405 and response.headers["allow"] == "GET, PUT, DELETE"
