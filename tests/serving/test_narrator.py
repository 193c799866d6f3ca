"""Reasons in a model's words: over a real endpoint, honest, lying, silent, down or full of nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from playbill.cli import main
from playbill.serving.http import Api
from playbill.serving.openapi import document
from playbill.serving.plain import make_api
from playbill.serving.processes import wait_until
from playbill.words.settings import EndpointSettings

USER, KEY = 196, "a-key-of-the-endpoint"


@pytest.fixture
def begin(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], Api]]:
    monkeypatch.setenv("MODEL_KEY", KEY)
    made: list[Api] = []

    def start(model: Any) -> Api:
        url = f"http://127.0.0.1:{model if isinstance(model, int) else model.server_port}/v1"
        narrator = EndpointSettings(url=url, model="small", key_from="MODEL_KEY")
        made.append(make_api(str(home), narrator=narrator))
        return made[-1]

    yield start
    for api in made:
        api.close()
        api.store.close()


def slate(api: Api, **fields: Any) -> list[dict[str, Any]]:
    async def once() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
            body = {"k": 10, "user_id": USER, "request_id": "r", "at": 893_286_638_000_000, **fields}
            return await client.post("/v1/recommend", json=body)

    response = asyncio.run(once())
    assert response.status_code == 200, response.text
    spec = document()
    schema = spec["paths"]["/v1/recommend"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(response.json(), {**schema, "components": spec["components"]})
    items: list[dict[str, Any]] = response.json()["items"]
    return items


def counted(api: Api, name: str) -> dict[tuple[str, ...], float]:
    return {labels: value for (n, labels), value in api.watch.counts.so_far()[0].items() if n == name}


def test_an_answer_goes_out_at_once_and_the_next_one_is_phrased(chat_model: Any, begin: Callable[[Any], Api]) -> None:
    chat_model.free.clear()  # whoever waited for it would wait half a minute
    api = begin(chat_model)
    first = slate(api)
    assert not any("phrased" in item["reason"] for item in first)
    chat_model.free.set()
    assert wait_until(lambda: any("phrased" in item["reason"] for item in slate(api)), 30)
    second = slate(api)
    assert [item["item_id"] for item in second] == [item["item_id"] for item in first]
    phrased = 0
    for before, after in zip(first, second, strict=True):
        assert after["reason"]["fact"] == before["reason"]["fact"]
        if "phrased" in after["reason"] and before["reason"]["kind"] == "because":
            title = before["reason"]["text"].partition(" you ")[2].partition(" ")[2]
            assert title in after["reason"]["text"] and after["reason"]["text"] != before["reason"]["text"]
            phrased += 1
    assert phrased
    # what went over the wire is the fact, and neither the person nor what they watched
    titles = [item["reason"]["text"].partition(" you ")[2].partition(" ")[2] for item in first]
    for path, headers, body in chat_model.asked:
        assert path == "/v1/chat/completions" and headers["authorization"] == f"Bearer {KEY}"
        text = body.decode()
        assert str(USER) not in text and not any(title and title in text for title in titles)
    assert len({body for _, _, body in chat_model.asked}) == len(chat_model.asked)  # each fact was asked about once


@pytest.mark.parametrize(
    "said",
    [
        "You will love this, as everybody does\nBecause you watched {named} ten times\nBuy {named} today",
        "",
        (500, b"no"),
        (200, b"{"),
        (200, b'{"choices": []}'),
        (302, b""),
    ],
)
def test_what_is_not_held_up_is_dropped_and_the_engines_words_stand(
    said: Any, chat_model: Any, begin: Callable[[Any], Api]
) -> None:
    chat_model.say = lambda _: said
    api = begin(chat_model)
    first = slate(api)
    assert wait_until(lambda: counted(api, "narrator_calls"), 30)
    assert [item["reason"] for item in slate(api)] == [item["reason"] for item in first]
    if isinstance(said, str) and said:
        assert wait_until(lambda: sum(counted(api, "narrator_sentences").values()) >= 3, 30)
        assert ("kept",) not in counted(api, "narrator_sentences")
    else:
        assert counted(api, "narrator_calls").keys() == {("failed",)}


def test_a_model_that_is_down_changes_nothing(
    begin: Callable[[Any], Api], free_ports: Callable[[int], list[int]]
) -> None:
    api = begin(free_ports(1)[0])
    first = slate(api)
    assert wait_until(lambda: counted(api, "narrator_calls") == {("failed",): 1.0}, 30)
    assert [item["reason"] for item in slate(api)] == [item["reason"] for item in first]


def test_a_server_says_at_its_start_that_the_key_is_missing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["narrator.url=https://models.example/v1", "narrator.model=m", "narrator.key_from=NO_SUCH_KEY"]
    assert main(["serve", f"home={home}", *given]) == 2
    assert "key_from: the environment has no such variable" in " ".join(capsys.readouterr().err.split())
