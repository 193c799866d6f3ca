"""Two servers over one Redis: what one is told the other knows; without Redis they answer on, and take no events."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from playbill.cli import compose
from playbill.state.ingest import run as ingest
from playbill.state.store import Store


@pytest.fixture(scope="module")
def redis_server(start_redis: Callable[..., Any]) -> Any:
    """One of this file's own: it is killed."""
    return start_redis()


@pytest.fixture(scope="module")
def ports(sealed_home: Path, free_ports: Any, redis_server: Any) -> Iterator[list[int]]:
    """Two servers of one home, whose state is on Redis."""
    state = redis_server.url("shop")
    ingest(compose("ingest", [f"home={sealed_home}", f"state='{state}'"]))
    ports = free_ports(2)
    command = [sys.executable, "-m", "playbill.serving.plain", f"home={sealed_home}", f"state={state}"]
    servers = [subprocess.Popen([*command, f"port={port}"], env=os.environ) for port in ports]
    try:
        for port in ports:
            _wait(port)
        yield ports
    finally:
        for server in servers:
            server.terminate()
            server.wait()


def ask(port: int, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST" if body else "GET", path, json.dumps(body) if body else None)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def _wait(port: int) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            if ask(port, "/v1/health")[0] == 200:
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, f"no server on port {port}"
        time.sleep(0.1)


def test_what_one_server_is_told_the_other_knows(ports: list[int]) -> None:
    one, two = ports
    before = ask(two, "/v1/recommend", {"user_id": 196, "k": 5, "request_id": "r"})[1]
    assert before["rung"] == "full" and before["state_version"] > 100_000
    item = before["items"][0]["item_id"]
    status, receipt = ask(one, "/v1/events", {"event": "rate", "user_id": 196, "item_id": item, "value": 5})
    assert status == 200 and receipt["new"] == 1
    after = ask(two, "/v1/recommend", {"user_id": 196, "k": 5, "request_id": "r"})[1]
    assert after["state_version"] == receipt["state_version"] and after["profile_version"] > before["profile_version"]
    assert item not in [i["item_id"] for i in after["items"]]  # seen now
    hidden = after["items"][0]["item_id"]
    status, noted = ask(two, "/v1/feedback", {"kind": "not_this_item", "user_id": 196, "item_id": hidden})
    assert status == 200 and noted["new"]
    third = ask(one, "/v1/recommend", {"user_id": 196, "k": 5, "request_id": "r"})[1]
    assert third["state_version"] == noted["state_version"]
    assert [i["item_id"] for i in third["items"]][:4] == [i["item_id"] for i in after["items"]][1:]
    event = receipt["events"][0]["event_id"]
    assert ask(one, "/v1/feedback", {"kind": "forget_event", "user_id": 196, "event_id": event})[0] == 200
    fourth = ask(two, "/v1/recommend", {"user_id": 196, "k": 5, "request_id": "r"})[1]
    usual = [i["item_id"] for i in before["items"] if i["item_id"] != hidden]
    assert [i["item_id"] for i in fourth["items"]][: len(usual)] == usual


def test_without_redis_answers_go_on_and_events_are_refused_until_it_is_back(
    ports: list[int], redis_server: Any
) -> None:
    one, two = ports
    event = {"event": "rate", "user_id": 196, "item_id": 1, "value": 4, "event_id": "during"}
    before = {port: ask(port, "/v1/health")[1]["faults"].get("state", 0) for port in ports}
    redis_server.kill()
    try:
        for port in ports:
            for user in (196, 22):
                status, slate = ask(port, "/v1/recommend", {"user_id": user, "k": 5})
                assert status == 200 and slate["rung"] == "popularity" and len(slate["items"]) == 5
                assert "the store cannot be read" in slate["rung_reason"] and slate["profile_version"] == 0
            status, problem = ask(port, "/v1/events", event)
            assert status == 503 and problem["error"] == "state" and "cannot be read or written" in problem["reason"]
            health = ask(port, "/v1/health")[1]
            assert health["status"].startswith("no state") and health["state_version"] is None
            assert health["faults"]["state"] - before[port] == 2
    finally:
        redis_server.start()
    _until(lambda: ask(one, "/v1/recommend", {"user_id": 196, "k": 5})[1]["rung"] == "full")
    assert ask(one, "/v1/events", event)[1]["new"] == 1
    _until(lambda: ask(two, "/v1/recommend", {"user_id": 196, "k": 5})[1]["rung"] == "full")
    assert ask(two, "/v1/events", event)[1]["new"] == 0
    assert ask(two, "/v1/health")[1]["status"] == "ok"
    with Store.open(redis_server.url("shop"), readonly=True) as store:
        assert store.profile(196).history[-1].event_id == "during"


def _until(there: Any) -> None:
    """Wait until it has noticed that Redis is back."""
    deadline = time.monotonic() + 30
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.1)
