"""Whatever is sent, the answer is json, a mistake is a 4xx that says why, and nothing is ever a 5xx."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from playbill.engine.types import Request, decode_request
from playbill.errors import RequestError
from playbill.serving.http import Api
from playbill.serving.messages import SentEvent, decode_events
from playbill.serving.plain import make_api

# the examples differ from run to run; a failing one is printed with how to repeat it
bounded = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
ids = st.integers(-5, 2000) | st.integers() | st.text(max_size=300) | anything
filter_words = (
    "release_year categories title and or not in contains is null ( ) [ ] , < = 'Drama' 1995 1e999 true".split()
)
request_fields = {
    "user_id": ids,
    "session_id": ids,
    "request_id": st.text(max_size=140) | anything,
    "k": st.integers(-2, 1100) | anything,
    "surface": st.sampled_from(["slate", "home", ""]) | st.text(max_size=80),
    "context": st.dictionaries(st.sampled_from(["hour", "weekday", "device", "x"]), anything, max_size=4),
    "exclude": st.lists(ids, max_size=5) | anything,
    "filter": st.lists(st.sampled_from(filter_words) | st.text(max_size=8), max_size=12).map(" ".join) | anything,
    "at": st.integers(-5, 2**63) | anything,
}
event_fields = {
    "event_id": ids,
    "event": st.sampled_from(["rate", "click", ""]) | anything,
    "user_id": ids,
    "session_id": ids,
    "item_id": ids,
    "value": st.floats() | st.integers() | anything,
    "at": st.integers(-5, 2**63) | anything,
    "device": st.text(max_size=30) | anything,
    "context": st.dictionaries(st.text(max_size=10), anything, max_size=3) | anything,
}


def nearly(fields: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Objects with some of the fields, each right or wrong, and now and then one more."""
    more = st.dictionaries(st.text(max_size=12), anything, max_size=1)
    return st.builds(lambda a, b: {**b, **a}, st.fixed_dictionaries({}, optional=fields), more)


def bodies(objects: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    texts = objects.map(lambda o: json.dumps(o).encode())  # lets NaN, Infinity and lone surrogates through
    cut = st.builds(lambda b, n: b[:n], texts, st.integers(0, 200))
    flipped = st.builds(
        lambda b, n, x: b[: n % (len(b) or 1)] + bytes([x]) + b[n % (len(b) or 1) + 1 :],
        texts, st.integers(0, 500), st.integers(0, 255),
    )  # fmt: skip
    return texts | cut | flipped | st.binary(max_size=200)


requests = bodies(nearly(request_fields))
events = bodies(
    nearly(event_fields) | st.fixed_dictionaries({"events": st.lists(nearly(event_fields), max_size=3) | anything})
)


@bounded
@given(body=requests)
@example(body=b'{"context": {"a": 1e308, "b": -0.0, "": null}}')
def test_the_decoder_of_requests_gives_a_request_or_names_a_field(body: bytes) -> None:
    try:
        request = decode_request(body)
    except RequestError as error:
        assert error.field and error.reason
    else:
        assert msgspec.convert(msgspec.to_builtins(request), Request) == request


@bounded
@given(body=events)
def test_the_decoder_of_events_gives_events_or_names_a_field(body: bytes) -> None:
    try:
        found, _ = decode_events(body)
    except RequestError as error:
        assert error.field and error.reason
    else:
        assert found and all(e.event_id is not None for e in found)
        for event in found:
            again = msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=SentEvent)  # the store's own encoding
            assert again == event


@pytest.fixture(scope="module")
def api(home: Path) -> Iterator[Api]:
    made = make_api(str(home), max_body_bytes=64 * 1024)
    yield made
    made.close()
    made._store.close()


def send(api: Api, method: str, path: str, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> Any:
    """Speak ASGI to the application as a server would; return the status and the decoded answer."""
    sent: list[dict[str, Any]] = []
    parts = [body[: len(body) // 2], body[len(body) // 2 :]]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def keep(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(errors="replace"), "query_string": b"", "root_path": "", "scheme": "http",
        "headers": headers or [(b"host", b"test")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    asyncio.run(api(scope, receive, keep))  # type: ignore[arg-type]
    assert [m["type"] for m in sent] == ["http.response.start", "http.response.body"]
    return sent[0]["status"], json.loads(sent[1]["body"])


def check(status: int, answer: Any) -> None:
    assert status == 200 or 400 <= status < 500, (status, answer)
    if status != 200:
        assert set(answer) == {"error", "field", "reason", "request_id"} and answer["reason"]


@bounded
@given(body=requests)
def test_recommend_never_fails(api: Api, body: bytes) -> None:
    check(*send(api, "POST", "/v1/recommend", body))


@bounded
@given(body=events)
def test_events_never_fail(api: Api, body: bytes) -> None:
    check(*send(api, "POST", "/v1/events", body))


item_fields = {
    "item_id": st.integers(1, 2000) | ids,
    "available": st.booleans() | anything,
    "withdrawn": st.none() | anything,
    "title": st.text(max_size=30) | anything,
    "categories": st.lists(st.sampled_from(["Drama", "Opera"]) | anything, max_size=3) | anything,
    "release_year": st.floats() | st.integers() | anything,
    "published_at": st.datetimes().map(str) | st.integers() | anything,
    "creatives": st.lists(anything, max_size=2) | anything,
}
items = bodies(nearly(item_fields) | st.fixed_dictionaries({"items": st.lists(nearly(item_fields), max_size=3)}))


@bounded
@given(body=items)
@example(body=b'{"item_id": 7, "title": "\\ud800"}')
@example(body=b'{"item_id": 7, "release_year": 1e999}')
def test_items_never_fail(api: Api, body: bytes) -> None:
    check(*send(api, "POST", "/v1/items", body))


feedback_fields = {
    "kind": st.sampled_from(["less_like_this", "not_this_item", "forget_event"]) | anything,
    "user_id": ids,
    "session_id": ids,
    "item_id": st.integers(1, 2000) | ids,
    "event_id": ids,
    "take_back": st.booleans() | anything,
}
preference_fields = {
    "kind": st.sampled_from(["more", "less", "never"]) | anything,
    "categories": st.lists(st.sampled_from(["Drama", "O'pera", ""]) | anything, max_size=3) | anything,
    "where": st.lists(st.sampled_from(filter_words) | st.text(max_size=8), max_size=8).map(" ".join) | anything,
}
preferences_fields = {
    "user_id": ids,
    "session_id": ids,
    "preferences": st.lists(nearly(preference_fields), max_size=3) | anything,
}


@bounded
@given(body=bodies(nearly(feedback_fields)))
@example(body=b'{"kind": "not_this_item", "session_id": "\\ud800", "item_id": 7}')
def test_feedback_never_fails(api: Api, body: bytes) -> None:
    check(*send(api, "POST", "/v1/feedback", body))


@bounded
@given(body=bodies(nearly(preferences_fields)))
@example(body=b'{"user_id": 7, "preferences": [{"kind": "never", "categories": ["\\ud800"]}]}')
def test_preferences_never_fail(api: Api, body: bytes) -> None:
    check(*send(api, "PUT", "/v1/preferences", body))


@bounded
@given(query=st.text(max_size=60) | ids.map(lambda i: f"user_id={i}") | ids.map(lambda i: f"session_id={i}"),
       method=st.sampled_from(["GET", "DELETE"]))  # fmt: skip
def test_what_is_kept_never_fails(api: Api, query: str, method: str) -> None:
    check(*send(api, method, f"/v1/preferences?{query}", b""))


@bounded
@given(name=ids.map(str))
def test_what_is_known_of_an_item_never_fails(api: Api, name: str) -> None:
    check(*send(api, "GET", f"/v1/items/{name}", b""))


@bounded
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"]),
    path=st.sampled_from(["/v1/health", "/v1/bundle", "/v1/recommend", "/v1/creatives", "/v1/items"])
    | st.text(max_size=50).map(lambda t: "/" + t),
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"content-length", b"content-encoding", b"x-request-id", b"content-type", b"expect"]),
            st.binary(max_size=40),
        ),
        max_size=4,
    ),
)
@example(method="POST", path="/v1/recommend", headers=[(b"content-length", b"9" * 40)])
@example(method="POST", path="/v1/recommend", headers=[(b"content-length", "\u0663".encode())])
def test_paths_methods_and_headers_never_fail(api: Api, method: str, path: str, headers: Any) -> None:
    check(*send(api, method, path, b"{}", headers))


def test_people_are_answered_after_all_that(api: Api) -> None:
    """What the store took in meanwhile must not spoil anybody's profile."""
    for user in (1, 2, 196, 943, 1500):
        status, slate = send(api, "POST", "/v1/recommend", json.dumps({"user_id": user}).encode())
        assert status == 200 and len(slate["items"]) == 20
    assert not dict(api.engine().faults)
