"""The real server in the composed layout, its index in parts: Ray Serve, a ranker deployment, and actors, on this CPU.

Started once, in processes of its own. Slates are those of the engine in one process; what is killed is done without, as
slates say, until it is back.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from playbill.bundle.open import open_bundle
from playbill.bundle.write import publish
from playbill.engine.engine import Engine
from playbill.engine.types import Request
from playbill.serving import processes, running
from playbill.state.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PARTS = 4
PEOPLE = (1, 7, 196, 405, 943, 4242)


@dataclass
class Server:
    home: Path
    port: int
    mark: str


@pytest.fixture(scope="module")
def server(home: Path, free_ports: Callable[[int], list[int]], replica_ports: Callable[[], int]) -> Iterator[Server]:
    port, stats, metrics, proxy, own, figures = free_ports(6)
    arguments = [
        "serve", f"home={home}", f"port={port}", f"haproxy_stats_port={stats}", f"haproxy_metrics_port={metrics}",
        f"proxy_port={proxy}", f"metrics_port={own}", f"figures_port={figures}",
        f"replica_ports={replica_ports()}",
        "drain_s=1", "replicas=1", "layout=composed", "ranker.batch=4", "ranker.batch_wait_ms=20",
        "ranker.provider=auto", f"shards={PARTS}", "deadline_ms=3000",
    ]  # fmt: skip
    output = home / "output.txt"
    with output.open("w") as file:
        owner = subprocess.Popen([sys.executable, "-m", "playbill.cli", *arguments], stderr=file, stdout=file)
    try:
        started = processes.wait_until(lambda: "stop it with" in output.read_text() or owner.poll() is not None, 180)
        told = " ".join(output.read_text().split())
        assert started and "1 replicas behind HAProxy, 1 of the ranker, the index in 4 parts" in told, told
        found = running.read(home)
        assert found is not None
        yield Server(home, port, found.mark)
    finally:
        if owner.poll() is None:
            owner.send_signal(signal.SIGINT)
            owner.wait(60)


def ask(server: Server, path: str, body: Any = None, **headers: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(
            "GET" if body is None else "POST", path, data, {k.replace("_", "-"): v for k, v in headers.items()}
        )
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def asked(user: int) -> dict[str, Any]:
    return {"user_id": user, "k": 15, "request_id": f"r{user}", "at": 893286638000000}


def workers(server: Server, name: str) -> list[int]:
    """Return the processes of this server that Ray calls by a name, such as `IndexPart`."""
    found = []
    for process in processes.marked(server.mark):
        try:
            title = Path(f"/proc/{process}/cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(f"ray::{name}".encode()):
            found.append(process)
    return found


def expected(server: Server) -> list[Any]:
    bundle = open_bundle(server.home / "bundles" / ask(server, "/v1/health")[1]["bundle"])
    with Store.open(server.home / "state", readonly=True) as store:
        return Engine.open(bundle, store).recommend([Request(**asked(user)) for user in PEOPLE])


def test_slates_are_those_of_the_fused_layout(server: Server) -> None:
    assert len(workers(server, "IndexPart")) == PARTS and len(workers(server, "ServeReplica:playbill:Ranker")) == 1
    health = ask(server, "/v1/health")[1]
    assert health["missing"] == {} and health["models"]["ranker"] == {
        "provider": "CPUExecutionProvider",
        "device": "cpu",
    }
    for user, slate in zip(PEOPLE, expected(server), strict=True):
        served = ask(server, "/v1/recommend", asked(user))[1]
        assert (served["rung"], served["rung_reason"]) == (slate.rung, slate.rung_reason)
        assert [i["item_id"] for i in served["items"]] == [i.item_id for i in slate.items]
        assert [i["score"] for i in served["items"]] == pytest.approx([i.score for i in slate.items], abs=1e-5)


def test_rankers_and_parts_listen_on_loopback_alone(
    server: Server, doors: Callable[[list[int]], tuple[set[str], list[str]]]
) -> None:
    listening, outside = doors(processes.marked(server.mark))
    assert len(listening) > 10 and outside == []


def test_requests_that_come_together_share_a_run_and_are_told_apart(server: Server) -> None:
    slates = dict(zip(PEOPLE, expected(server), strict=True))
    users = [random.Random(1).choice(PEOPLE) for _ in range(60)]
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda user: ask(server, "/v1/recommend", asked(user)), users))
    for user, (status, served) in zip(users, answers, strict=True):
        assert status == 200 and served["rung"] == slates[user].rung, served
        assert [i["item_id"] for i in served["items"]] == [i.item_id for i in slates[user].items]


def test_filters_changes_and_pages_go_to_the_parts(server: Server) -> None:
    first = ask(server, "/v1/recommend", asked(196))[1]["items"][0]["item_id"]
    assert ask(server, "/v1/items", {"item_id": first, "available": False})[0] == 200
    try:
        after = ask(server, "/v1/recommend", asked(196))[1]
        assert first not in [i["item_id"] for i in after["items"]] and after["rung"] == "full"
        narrow = ask(server, "/v1/recommend", {**asked(196), "filter": "release_year < 1960"})[1]
        assert len(narrow["items"]) == 15 and narrow["rung_reason"] == ""
        status, page = ask(server, "/v1/home", {"user_id": 196, "k": 5})
        assert status == 200 and len(page["shelves"]) > 1
        alike = ask(server, "/v1/recommend", {"surface": "similar", "item_id": first, "k": 5})[1]
        assert len(alike["items"]) == 5
    finally:
        assert ask(server, "/v1/items", {"item_id": first, "available": None})[0] == 200


def test_a_part_that_dies_is_done_without_until_it_is_back(server: Server) -> None:
    victim = workers(server, "IndexPart")[0]
    os.kill(victim, signal.SIGKILL)
    reasons: list[str] = []

    def hurt() -> bool:
        status, served = ask(server, "/v1/recommend", asked(196))
        assert status == 200 and len(served["items"]) == 15 and served["rung"] == "full", served
        reasons.append(served["rung_reason"])
        return "found without index part" in reasons[-1]

    assert processes.wait_until(hurt, 20, every_s=0.01), reasons
    missing = ask(server, "/v1/health")[1]["missing"]
    assert len(missing) <= 1 and all(name.startswith("index part ") for name in missing)
    assert processes.wait_until(lambda: not hurt(), 60), reasons[-1]
    assert ask(server, "/v1/health")[1]["missing"] == {} and len(workers(server, "IndexPart")) == PARTS


def test_without_the_ranker_slates_stand_on_the_rung_below_until_it_is_back(server: Server) -> None:
    [victim] = workers(server, "ServeReplica:playbill:Ranker")
    os.kill(victim, signal.SIGSTOP)  # it hangs: nothing says that it is gone
    try:
        status, served = ask(server, "/v1/recommend", asked(196), x_playbill_deadline_ms="300")
        assert status == 200 and served["rung"] == "retrieval" and len(served["items"]) == 15
        assert "the ranker failed: no answer within" in served["rung_reason"]
    finally:
        os.kill(victim, signal.SIGCONT)
    os.kill(victim, signal.SIGKILL)
    statuses = [ask(server, "/v1/recommend", asked(user), x_playbill_deadline_ms="500")[0] for user in PEOPLE]
    assert statuses == [200] * len(PEOPLE)
    back = lambda: ask(server, "/v1/recommend", asked(196))[1]["rung"] == "full"  # noqa: E731
    assert processes.wait_until(back, 60)


def test_a_swap_reaches_ranker_and_parts_before_requests_do(server: Server, versions: list[str]) -> None:
    before = ask(server, "/v1/health")[1]["bundle"]
    publish(server.home / "bundles", versions[1])  # baselines alone: no ranker, no index
    seen = []
    assert processes.wait_until(lambda: ask(server, "/v1/health")[1]["bundle"] == versions[1], 60)
    assert ask(server, "/v1/recommend", asked(196))[1]["rung"] == "item_knn"
    publish(server.home / "bundles", before)

    def swapped() -> bool:
        status, served = ask(server, "/v1/recommend", asked(196))
        seen.append((status, served["bundle"], served["rung"]))
        return served["bundle"] == before

    assert processes.wait_until(swapped, 60)
    assert {status for status, _, _ in seen} == {200} and seen[-1][2] == "full"
