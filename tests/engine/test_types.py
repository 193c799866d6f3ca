"""Requests and events from json: what is wrong is named by field, and nothing else is raised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbill.engine.types import Request, decode_events, decode_request, validate
from playbill.errors import RequestError


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"\xff\xfe", "body"),
        (b"[" * 100_000, "body"),
        (b'{"k": 0}', "k"),
        (b'{"k": 1001}', "k"),
        (b'{"k": "20"}', "k"),
        (b'{"k": 2.5}', "k"),
        (b'{"kk": 1}', "kk"),
        (b'{"user_id": true}', "user_id"),
        (b'{"user_id": 1.5}', "user_id"),
        (b'{"user_id": 99999999999999999999}', "user_id"),
        (b'{"user_id": ""}', "user_id"),
        (b'{"user_id": {"$gt": 0}}', "user_id"),
        (b'{"exclude": [1, null]}', "exclude[1]"),
        (b'{"exclude": 3}', "exclude"),
        (b'{"context": {"device": [1]}}', "context[...]"),
        (b'{"at": -5}', "at"),
        (b'{"request_id": "' + b"x" * 129 + b'"}', "request_id"),
        (b'{"user_id": "\\ud800"}', "body"),
    ],
)
def test_bad_requests(body: bytes, field: str) -> None:
    with pytest.raises(RequestError) as caught:
        decode_request(body)
    assert caught.value.field == field and caught.value.reason


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"events": []}', "events"),
        (b"{}", "events"),
        (b'{"events": [{"event": "rate"}]}', "events[0].event_id"),
        (b'{"events": [{"event_id": 1, "event": "rate"}, {"event_id": 2}]}', "events[1].event"),
        (b'{"events": [{"event_id": 1, "event": "rate", "rating": 3}]}', "events[0].rating"),
        (b'{"events": [{"event_id": 1, "event": "rate", "value": "5"}]}', "events[0].value"),
        (b'{"events": [{"event_id": 1, "event": "rate", "at": "now"}]}', "events[0].at"),
    ],
)
def test_bad_events(body: bytes, field: str) -> None:
    with pytest.raises(RequestError) as caught:
        decode_events(body)
    assert caught.value.field == field


def test_good_ones() -> None:
    request = decode_request(b'{"user_id": "196", "session_id": 5, "k": 3, "context": {"a": null, "b": 1.5}}')
    assert validate(request, "int64", "string").user_id == 196
    assert validate(request, "string", "string").user_id == "196"
    assert validate(Request(user_id=196), "string", "string").user_id == "196"
    [event] = decode_events(b'{"events": [{"event_id": "a", "event": "rate", "user_id": 1, "value": 4}]}')
    assert event.value == 4.0 and event.at is None


def test_requests_that_were_never_json_are_checked_too() -> None:
    for wrong in (
        Request(k=0),
        Request(user_id=1.5),
        Request(context={"a": object()}),
        Request(exclude=["x"] * 10_001),
    ):
        with pytest.raises(RequestError):
            validate(wrong, "int64", "int64")


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_body_raises_anything_else(body: bytes) -> None:
    for decode in (decode_request, decode_events):
        try:
            decode(body)
        except RequestError:
            pass
