"""Keys over a real socket: bare uvicorn in a process of its own, a home with keys, and what is left in its log."""

from __future__ import annotations

import http.client
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from playbill.serving import processes
from playbill.serving.http import Api
from playbill.serving.keys import Scope, add_key, keys_path, revoke_key
from playbill.serving.openapi import document
from playbill.serving.plain import make_api

EVENT = {"event": "rate", "user_id": 7, "item_id": 1, "value": 4}
BODIES = {
    "/v1/recommend": {"user_id": 7, "k": 2},
    "/v1/home": {"user_id": 7, "k": 2},
    "/v1/events": EVENT,
    "/v1/feedback": {"kind": "not_this_item", "user_id": 7, "item_id": 1},
    "/v1/preferences": {"user_id": 7, "preferences": []},
    "/v1/items": {"item_id": 7, "title": "Told"},
    "/v1/creatives": {"creative_id": 1},
}


@dataclass
class Plain:
    home: Path
    port: int
    log: Path
    keys: dict[str, str] = field(default_factory=dict)

    def ask(
        self, path: str, body: Any = None, headers: dict[str, str] | None = None, method: str = ""
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method or ("GET" if body is None else "POST"), path, data, headers or {})
            response = connection.getresponse()
            return response.status, json.loads(response.read()), response.headers
        finally:
            connection.close()

    def status(self, key: str, path: str = "/v1/recommend", body: Any = None) -> int:
        return self.ask(path, BODIES[path] if body is None else body, {"x-api-key": key})[0]


def start(home: Path, port: int, *arguments: str) -> tuple[subprocess.Popen[bytes], Path]:
    log = home / f"plain-{port}.log"
    command = [sys.executable, "-m", "playbill.serving.plain", f"home={home}", f"port={port}", *arguments]
    with log.open("wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=output), log


def answers(server: Plain) -> bool:
    try:
        return server.ask("/v1/health")[0] in (200, 503)
    except OSError:
        return False


@pytest.fixture(scope="module")
def server(home: Path, free_ports: Callable[[int], list[int]]) -> Iterator[Plain]:
    path = keys_path(home)
    keys = {scope.value: add_key(path, scope.value, [scope], None, None)[1] for scope in Scope}
    keys["shop"] = add_key(path, "shop", [Scope.recommend, Scope.events], None, None)[1]
    keys["slow"] = add_key(path, "slow", [Scope.recommend], 2, 3)[1]
    [port] = free_ports(1)
    process, log = start(home, port)
    made = Plain(home, port, log, keys)
    try:
        assert processes.wait_until(lambda: answers(made) or process.poll() is not None, 60), log.read_text()
        assert process.poll() is None, log.read_text()
        yield made
    finally:
        process.terminate()
        process.wait(20)


def test_every_route_asks_for_what_its_document_says(server: Plain) -> None:
    routes = [(p, m, operation) for p, methods in document()["paths"].items() for m, operation in methods.items()]
    for path, method, operation in routes:
        body = BODIES[path] if method in ("post", "put") else None
        named = any(parameter["in"] == "query" for parameter in operation["parameters"])
        path, method = path.format(item_id=7) + ("?user_id=7" if named else ""), method.upper()
        schemes: dict[str, list[str]] = {}
        for one in operation["security"]:
            schemes |= one
        needed = operation["security"] and {} not in operation["security"]
        assert server.ask(path, body, method=method)[0] == (401 if needed else 200), path
        for scope in Scope:
            for name in ("bearer", "api_key"):
                key = server.keys[scope.value]
                headers = {"Authorization": f"Bearer {key}"} if name == "bearer" else {"X-API-Key": key}
                status, answer, _ = server.ask(path, body, headers, method)
                if needed and scope.value not in schemes[name]:
                    assert (status, answer["error"]) == (403, "forbidden"), (path, scope)
                    assert schemes[name][0] in answer["reason"]
                else:  # creatives: the bundle has none, which is said to those who may ask
                    assert status == (422 if path == "/v1/creatives" else 200), (path, scope, answer)


def test_the_schemes_of_the_document_are_those_that_work() -> None:
    schemes = document()["components"]["securitySchemes"]
    assert schemes["bearer"]["scheme"] == "bearer" and schemes["api_key"]["name"] == "X-API-Key"
    for methods in document()["paths"].values():
        for operation in methods.values():
            for one in operation["security"]:
                assert set(one) <= set(schemes)
            limited = bool(operation["security"]) and {} not in operation["security"]
            assert (
                {"401", "403", "429"} <= set(operation["responses"]) if limited else "403" not in operation["responses"]
            )


def test_a_refusal_has_the_form_of_every_other(server: Plain) -> None:
    status, answer, headers = server.ask("/v1/recommend", {}, {"x-request-id": "mine-1"})
    assert status == 401 and set(answer) == {"error", "field", "reason", "request_id"}
    assert answer["error"] == "unauthorized" and answer["field"] == "authorization"
    assert answer["request_id"] == "mine-1" == headers["x-request-id"]
    assert headers["www-authenticate"].startswith("Bearer")
    _, answer, headers = server.ask("/v1/recommend", {})
    assert answer["request_id"] == headers["x-request-id"] != "mine-1"


def test_what_is_nearly_a_key_is_none(server: Plain) -> None:
    good, other = server.keys["shop"], server.keys["recommend"]
    flipped = good[:-1] + ("A" if good[-1] != "A" else "B")
    nearly = [
        flipped,
        good[:-1],
        good + "A",
        good.upper(),
        other[:16] + good[16:],
        "pb_000000000000_" + good[16:],
        "",
        "pb_",
    ]
    for key in nearly:
        assert server.status(key) == 401, key
        assert server.ask("/v1/health", None, {"x-api-key": key})[0] == 401  # a wrong key is told wherever it is shown
    for given in (f"Basic {good}", good, f"Bearer{good}", "Bearer", f"Token {good}"):
        assert server.ask("/v1/recommend", {}, {"authorization": given})[0] == 401, given
    assert server.ask(f"/v1/recommend?key={good}", {})[0] == 401  # addresses end up in logs
    assert server.ask("/v1/recommend", {}, {"authorization": f"bearer  {good}"})[0] == 200
    assert server.ask("/v1/recommend", {}, {"authorization": "Basic eDp5", "x-api-key": good})[0] == 200
    assert server.ask("/v1/recommend", {}, {"authorization": f"Bearer {good}", "x-api-key": "pb_"})[0] == 401


def test_without_a_key_nothing_of_a_body_is_looked_at(server: Plain) -> None:
    for body in (b"{", b"x" * 3_000_000, b'{"k": 0}'):
        assert server.ask("/v1/recommend", body)[0] == 401
    before = server.ask("/v1/health", None, {"x-api-key": server.keys["admin"]})[1]["state_version"]
    assert server.ask("/v1/events", EVENT)[0] == 401 and server.status(server.keys["recommend"], "/v1/events") == 403
    assert server.ask("/v1/health", None, {"x-api-key": server.keys["admin"]})[1]["state_version"] == before


def test_health_tells_strangers_that_it_is_well_and_no_more(server: Plain) -> None:
    for headers in ({}, {"x-api-key": server.keys["shop"]}):
        assert server.ask("/v1/health", None, headers)[:2] == (200, {"status": "ok"})
    full = server.ask("/v1/health", None, {"x-api-key": server.keys["admin"]})[1]
    assert {"bundle", "models", "faults", "replica"} <= set(full)


def test_a_key_with_a_rate_is_told_when_to_come_again_and_others_are_not(server: Plain) -> None:
    """rate 2, burst 3."""
    slow = server.keys["slow"]
    began = time.monotonic()
    found = [server.ask("/v1/recommend", {"k": 1}, {"x-api-key": slow}) for _ in range(12)]
    took = time.monotonic() - began
    passed = [status for status, _, _ in found].count(200)
    assert 3 <= passed <= 3 + 2 * took and passed < 12, (passed, took)
    status, answer, headers = next(f for f in found if f[0] != 200)
    assert (status, answer["error"], headers["retry-after"]) == (429, "too_many_requests", "1")
    assert "slow" in answer["reason"] and answer["request_id"]
    assert server.status(server.keys["shop"]) == 200
    time.sleep(1.05)
    assert server.status(slow) == 200


def seconds_until(done: Callable[[], bool]) -> float:
    began = time.monotonic()
    assert processes.wait_until(done, 10, every_s=0.01)
    return time.monotonic() - began


@pytest.mark.parametrize("turn", range(4))
def test_a_key_made_or_revoked_counts_within_a_second(server: Plain, turn: int) -> None:
    path = keys_path(server.home)
    _, text = add_key(path, f"turn-{turn}", [Scope.recommend], None, None)
    assert seconds_until(lambda: server.status(text) == 200) < 1
    revoke_key(path, f"turn-{turn}")
    assert seconds_until(lambda: server.status(text) == 401) < 1
    assert server.status(server.keys["shop"]) == 200
    assert "was revoked at 20" in server.ask("/v1/recommend", {}, {"x-api-key": text})[1]["reason"]


def test_a_connection_that_stays_open_loses_its_key_as_well(server: Plain) -> None:
    path = keys_path(server.home)
    _, text = add_key(path, "kept", [Scope.recommend], None, None)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)

    def status() -> int:
        connection.request("POST", "/v1/recommend", b"{}", {"x-api-key": text})
        response = connection.getresponse()
        response.read()
        return response.status

    seconds_until(lambda: status() == 200)
    revoke_key(path, "kept")
    assert seconds_until(lambda: status() == 401) < 1
    connection.close()


def test_keys_that_cannot_be_read_close_the_server_until_they_can(server: Plain) -> None:
    path = keys_path(server.home)
    good = path.read_bytes()
    try:
        path.write_bytes(good[: len(good) // 2])
        assert seconds_until(lambda: server.status(server.keys["shop"]) == 503) < 1
        status, answer, headers = server.ask("/v1/recommend", {})
        assert (status, answer["error"], headers["retry-after"]) == (503, "keys", "1")
        assert str(path) not in answer["reason"] and str(path) in server.log.read_text()
        path.unlink()
        time.sleep(0.6)
        assert server.ask("/v1/recommend", {})[0] == 503
    finally:
        path.write_bytes(good)
        path.chmod(0o600)
    assert seconds_until(lambda: server.status(server.keys["shop"]) == 200) < 1


def test_a_server_without_keys_is_open_until_the_first_is_made(
    tmp_path: Path, server: Plain, free_ports: Callable[[int], list[int]]
) -> None:
    home = tmp_path / "open"
    home.mkdir()
    for name in ("bundles", "state"):
        (home / name).symlink_to(server.home / name)
    [port] = free_ports(1)
    refused, log = start(home, port, "host=0.0.0.0")
    assert refused.wait(60) == 1 and "playbill keys add" in log.read_text() and "insecure=true" in log.read_text()
    for arguments in ([], ["host=0.0.0.0", "insecure=true"]):
        process, log = start(home, port, *arguments)
        try:
            plain = Plain(home, port, log)
            assert processes.wait_until(lambda: answers(plain) or process.poll() is not None, 60), log.read_text()  # noqa: B023
            assert process.poll() is None, log.read_text()
            assert plain.ask("/v1/recommend", {"k": 1})[0] == 200
            assert "bundle" in plain.ask("/v1/health")[1]
            assert plain.status("any") == 200  # a client may be set up with a key before the server is
            assert ("ask about anybody" in log.read_text()) == bool(arguments)
            _, text = add_key(keys_path(home), "first", [Scope.recommend], None, None)
            assert seconds_until(lambda: plain.ask("/v1/recommend", {})[0] == 401) < 1  # noqa: B023
            assert plain.status(text) == 200
        finally:
            process.terminate()
            process.wait(20)
        keys_path(home).unlink()


def test_asking_takes_a_key(server: Plain) -> None:
    def ask(*arguments: str, key: str = "") -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "playbill.cli",
            "ask",
            "k=1",
            f"url=http://127.0.0.1:{server.port}",
            *arguments,
        ]
        env = {**os.environ, "PLAYBILL_KEY": key}
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)

    shop = server.keys["shop"]
    assert ask(key=shop).returncode == 0
    assert ask(f"key={shop}", key="pb_wrong").returncode == 0
    for done in (ask(), ask(key=server.keys["events"]), ask("key='two words'")):
        assert done.returncode != 0 and shop not in done.stderr
    assert "401" in ask().stderr and "PLAYBILL_KEY" in ask().stderr
    assert "403" in ask(key=server.keys["events"]).stderr and "scope recommend" in ask(key=server.keys["events"]).stderr


MARK = "jane.roe@example.org"


def test_nothing_of_a_person_is_in_the_log(
    server: Plain, send_marked: Callable[..., list[int]], marks_in: Callable[..., list[str]]
) -> None:
    _, text = add_key(keys_path(server.home), "marked", [Scope.recommend, Scope.events, Scope.items], None, None)
    seconds_until(lambda: server.status(text) == 200)
    statuses = send_marked(lambda *sent: server.ask(*sent)[0], {"x-api-key": text})
    assert statuses.count(200) == 5 and set(statuses) == {200, 400, 401, 404, 415, 422}, statuses
    assert server.log.stat().st_size  # the keys that could not be read: something is in it
    assert not marks_in(server.log, secrets=[*server.keys.values(), text])
    assert marks_in(server.home / "state")  # the scanner does find what was stored


@pytest.mark.parametrize("path", ["/v1/recommend", "/v1/events"])
def test_an_error_nobody_thought_of_is_logged_by_place_and_not_by_its_words(
    path: str, home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    import httpx

    for name in ("bundles", "state"):
        (tmp_path / name).symlink_to(home / name)
    api: Api = make_api(str(tmp_path))

    def broken(*_: Any) -> Any:
        try:
            return {}[MARK]
        except KeyError as error:
            raise RuntimeError(f"no {MARK}") from error

    monkeypatch.setattr(api._store, "append", broken)
    monkeypatch.setattr(type(api.engine()), "decide", broken)

    async def once() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
            return await client.post(path, json=BODIES[path], headers={"x-request-id": "find-me"})

    with caplog.at_level(logging.DEBUG):
        answer = asyncio.run(once())
    assert answer.status_code == 500 and MARK not in answer.text
    assert MARK not in caplog.text
    for told in ("find-me", "RuntimeError", "KeyError", "in broken", path):
        assert told in caplog.text
    api.close()
    api._store.close()
