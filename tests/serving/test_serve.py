"""The real server: Ray Serve behind HAProxy, two replicas, over a socket. Started once, in a process of its own."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from playbill.bundle.manifest import State
from playbill.bundle.open import open_bundle
from playbill.bundle.write import describe, seal, set_state
from playbill.engine.engine import Engine
from playbill.engine.types import Request
from playbill.serving import processes, running
from playbill.serving.keys import Scope, add_key, keys_path, revoke_key
from playbill.serving.loading.open_loop import send_all
from playbill.state.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
Doors = Callable[[list[int]], tuple[set[str], list[str]]]


@dataclass
class Server:
    home: Path
    arguments: list[str]
    port: int
    figures_port: int
    owner: subprocess.Popen[bytes]
    mark: str


def playbill(*arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "playbill.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)


@pytest.fixture(scope="module")
def server(home: Path, free_ports: Any, replica_ports: Any) -> Iterator[Server]:
    port, stats, metrics, proxy, own, figures = free_ports(6)
    arguments = [
        "serve", f"home={home}", f"port={port}", f"haproxy_stats_port={stats}", f"haproxy_metrics_port={metrics}",
        f"proxy_port={proxy}", f"metrics_port={own}", f"figures_port={figures}",
        "watch.log=json", f"replica_ports={replica_ports()}",
        "drain_s=1",
    ]  # fmt: skip
    output = home / "output.txt"
    with output.open("w") as file:
        owner = subprocess.Popen([sys.executable, "-m", "playbill.cli", *arguments], stderr=file, stdout=file)
    try:
        started = processes.wait_until(lambda: "stop it with" in output.read_text() or owner.poll() is not None, 120)
        assert started and "2 replicas behind HAProxy" in output.read_text(), output.read_text()
        found = running.read(home)
        assert found is not None
        yield Server(home, arguments, port, figures, owner, found.mark)
    finally:
        if owner.poll() is None:
            owner.send_signal(signal.SIGINT)
            owner.wait(60)


def ask(
    server: Server,
    path: str,
    body: Any = None,
    connection: http.client.HTTPConnection | None = None,
    headers: dict[str, str] | None = None,
) -> Any:
    own = connection or http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        own.request("GET" if body is None else "POST", path, data, headers or {})
        response = own.getresponse()
        return response.status, json.loads(response.read())
    finally:
        if connection is None:
            own.close()


def replicas(server: Server, at_least: int = 2) -> set[str]:
    found: set[str] = set()
    until = time.monotonic() + 30  # the ingress may know of one alone for a moment
    while time.monotonic() < until:
        found.add(ask(server, "/v1/health")[1]["replica"])
        if len(found) >= at_least:
            break
    return found


def test_asking_finds_the_server_of_its_home(server: Server) -> None:
    asked = playbill("ask", f"home={server.home}", "user_id=196", "k=2", "as_json=true")
    assert asked.returncode == 0 and len(json.loads(asked.stdout)["items"]) == 2, asked.stderr


def test_two_replicas_answer_from_the_published_bundle(server: Server, versions: list[str]) -> None:
    status, health = ask(server, "/v1/health")
    assert status == 200 and health["bundle"] == versions[0]
    assert len(replicas(server)) == 2


def test_slates_are_those_of_the_engine_in_process(server: Server) -> None:
    store = Store.open(server.home / "state", readonly=True)
    engine = Engine.open(open_bundle(server.home / "bundles" / ask(server, "/v1/health")[1]["bundle"]), store)
    asked = [Request(user_id=u, k=15, request_id=f"r{u}", at=893286638000000) for u in (1, 196, 405, 4242)]
    for request, slate in zip(asked, engine.recommend(asked), strict=True):
        body = {"user_id": request.user_id, "k": 15, "request_id": request.request_id, "at": request.at}
        served = ask(server, "/v1/recommend", body)[1]
        assert [i["item_id"] for i in served["items"]] == [i.item_id for i in slate.items]
        assert [i["score"] for i in served["items"]] == pytest.approx([i.score for i in slate.items])
    store.close()


def test_an_event_is_known_to_every_replica(server: Server) -> None:
    before = ask(server, "/v1/recommend", {"user_id": 50, "k": 10})[1]
    first = before["items"][0]["item_id"]
    status, receipt = ask(server, "/v1/events", {"event": "rate", "user_id": 50, "item_id": first, "value": 5})
    assert status == 200 and receipt["new"] == 1
    # each request on its own connection, so that the ingress turns to either replica
    slates = [ask(server, "/v1/recommend", {"user_id": 50, "k": 10})[1] for _ in range(40)]
    assert all(first not in [i["item_id"] for i in s["items"]] for s in slates)
    assert all(s["state_version"] >= receipt["state_version"] for s in slates)


def test_acknowledged_events_survive_the_death_of_every_replica(server: Server) -> None:
    sent = [{"event_id": f"crash-{n}", "event": "rate", "user_id": 60, "item_id": n + 1, "value": 3} for n in range(20)]
    for event in sent:
        assert ask(server, "/v1/events", event)[0] == 200
    before = replicas(server)
    for pid in processes.marked(server.mark):
        if Path(f"/proc/{pid}/comm").read_text().startswith("ray::ServeRepli"):
            os.kill(pid, signal.SIGKILL)
    with Store.open(server.home / "state", readonly=True) as store:
        stored = {event.event_id for _, _, event in store.events(after=store.version - 30)}
    assert {e["event_id"] for e in sent} <= stored
    # both are replaced, and go on from the same state
    assert processes.wait_until(lambda: fresh(server) and not fresh(server) & before, 60, every_s=0.5)
    assert processes.wait_until(lambda: len(fresh(server)) == 2, 60, every_s=0.5)
    assert all(not e["new"] for e in ask(server, "/v1/events", {"events": sent})[1]["events"])


def fresh(server: Server) -> set[str]:
    """Replicas that answer now, where some may not."""
    found = set()
    for _ in range(20):
        try:
            status, health = ask(server, "/v1/health")
        except (OSError, ValueError, http.client.HTTPException):
            continue
        if status == 200:
            found.add(health["replica"])
    return found


@pytest.mark.parametrize("size", [300_000, 20_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_oversize_body_is_a_413_through_the_ingress_too(server: Server, size: int, chunked: bool) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    parts = (b"x" * 10_000 for _ in range(size // 10_000))
    connection.request("POST", "/v1/recommend", parts if chunked else b"x" * size, encode_chunked=chunked,
                       headers={"transfer-encoding": "chunked"} if chunked else {})  # fmt: skip
    response = connection.getresponse()
    assert response.status == 413 and json.loads(response.read())["error"] == "too_large"
    connection.close()


def test_broken_requests_over_the_socket_never_fail_the_server(server: Server) -> None:
    draw = random.Random(7)
    good = b'{"user_id": 196, "k": 5, "exclude": [1, 2], "context": {"hour": 3}}'
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    for path in ("/v1/recommend", "/v1/events"):
        for _ in range(60):
            broken = bytearray(good)
            for _ in range(draw.randint(1, 4)):
                broken[draw.randrange(len(broken))] = draw.randrange(256)
            status, answer = ask(server, path, bytes(broken[: draw.randint(0, len(broken))]), connection)
            assert status == 200 or 400 <= status < 500, (status, broken)
            assert status == 200 or answer["reason"]
    connection.close()
    for raw in (b"GET\r\n\r\n", b"\x00" * 100, b"POST /v1/recommend HTTP/1.1\r\ncontent-length: 5\r\n\r\nab"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as plain:
            plain.sendall(raw)
            plain.shutdown(socket.SHUT_WR)
            answer = plain.recv(200)
            assert not answer.startswith(b"HTTP/1.1 5"), answer
    assert ask(server, "/v1/recommend", {"user_id": 196})[0] == 200


def test_callers_that_never_end_their_request_keep_nobody_waiting(server: Server) -> None:
    head = b"POST /v1/recommend HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 40\r\n\r\n"
    silent = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(60)]
    try:
        for line in silent:
            line.sendall(head + b'{"user_id":')
        time.sleep(0.3)
        for _ in range(20):  # sooner than the server gives up on the others: each of those would keep a place
            own = http.client.HTTPConnection("127.0.0.1", server.port, timeout=3)
            assert ask(server, "/v1/recommend", {"user_id": 196, "k": 2}, own)[0] == 200
            own.close()
    finally:
        for line in silent:
            line.close()


def test_more_than_can_be_answered_is_told_to_come_again_and_the_rest_is_answered(server: Server) -> None:
    body = json.dumps({"user_id": 196, "k": 20}).encode()
    payload = b"POST /v1/recommend HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    at_once = array("d", [0.0] * 400)
    sent = send_all(("127.0.0.1", server.port), [payload] * 400, at_once, connections=400, timeout_s=60)
    counts = Counter(sent.status)
    assert set(counts) == {200, 503}, counts
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as late:  # who was refused comes again
        late.sendall(payload)
        assert late.recv(15) == b"HTTP/1.1 200 OK"


def test_a_swap_under_load_fails_no_request_and_keeps_the_replicas(server: Server, versions: list[str]) -> None:
    before = replicas(server)
    stop = threading.Event()
    seen: Counter[tuple[int, str]] = Counter()
    faults: list[BaseException] = []

    def load() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        while not stop.is_set():
            try:
                status, slate = ask(server, "/v1/recommend", {"user_id": 196, "k": 5}, connection)
                seen[status, slate.get("bundle", "")] += 1
            except (OSError, http.client.HTTPException, ValueError) as fault:
                faults.append(fault)
                break
        connection.close()

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    swapped = playbill(*server.arguments, f"bundle={versions[1]}")
    time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join()
    assert swapped.returncode == 0 and f"swapped from {versions[0]}" in swapped.stderr, swapped.stderr
    assert not faults
    assert set(seen) == {(200, versions[0]), (200, versions[1])}
    assert replicas(server) == before  # reconfigured in place
    assert ask(server, "/v1/bundle")[1]["version"] == versions[1]


def test_a_damaged_bundle_is_refused_and_the_other_answers_on(server: Server, versions: list[str]) -> None:
    answering = ask(server, "/v1/health")[1]["bundle"]
    good = server.home / "bundles" / versions[0]
    spoilt = server.home / "bundles" / "spoilt"
    shutil.copytree(good, spoilt)
    data = bytearray((spoilt / "popularity.npy").read_bytes())
    data[-1] ^= 1
    (spoilt / "popularity.npy").write_bytes(data)
    refused = playbill(*server.arguments, "bundle=spoilt")
    assert refused.returncode == 1 and "popularity.npy" in refused.stderr, refused.stderr
    missing = playbill(*server.arguments, "bundle=nowhere")
    assert missing.returncode == 1 and versions[0] in missing.stderr
    # one that turns bad between the check and the load: the replicas keep what they have and say so
    found = running.read(server.home)
    assert found is not None
    with pytest.raises(Exception, match="spoilt.*answers on"):
        running.swap(server.home, found, "spoilt", pinned=True)
    shutil.rmtree(spoilt)
    assert {ask(server, "/v1/recommend", {})[1]["bundle"] for _ in range(10)} == {answering}
    # and the one that answers is again the one that a replica would start with
    assert processes.wait_until(
        lambda: all(ask(server, "/v1/health")[1]["failed_bundle"] is None for _ in range(9)), 60
    )


def test_serving_again_says_that_it_runs_and_follows_what_is_published(server: Server, versions: list[str]) -> None:
    assert playbill(*server.arguments, f"bundle={versions[1]}").returncode == 0
    followed = playbill(*server.arguments)  # `current` is the first version, and the second one answers
    assert followed.returncode == 0 and f"swapped from {versions[1]}" in followed.stderr
    began = time.monotonic()
    again = playbill(*server.arguments)
    assert again.returncode == 0 and "runs already" in again.stderr
    assert time.monotonic() - began < 5
    other = playbill(*server.arguments, "replicas=3")
    assert other.returncode == 2 and "replicas 2 -> 3" in other.stderr and "stop=true" in other.stderr


def test_a_withdrawn_approval_is_gone_from_every_replica(
    server: Server, versions: list[str], add_creatives: Callable[..., None]
) -> None:
    folder = server.home / "bundles" / "posters"
    shutil.copytree(server.home / "bundles" / versions[1], folder)
    manifest = open_bundle(server.home / "bundles" / versions[1], verify=False).manifest
    (folder / "manifest.json").unlink()
    describe(folder, msgspec.structs.replace(manifest, version="posters"))
    add_creatives(folder)
    for state in (State.EVALUATED, State.GATED):
        set_state(folder, state)
    seal(folder)
    assert playbill(*server.arguments, "bundle=posters").returncode == 0

    def shown(session: str) -> list[dict[str, Any]]:
        # each request on its own connection, so that the ingress turns to either replica
        bodies = [{"k": 1, "session_id": f"{session}-{n}", "context": {"locale": "fr"}} for n in range(40)]
        return [ask(server, "/v1/recommend", body)[1] for body in bodies]

    first = shown("before")[0]["items"][0]["creative_id"]
    status, noted = ask(server, "/v1/creatives", {"creative_id": first, "withdrawn": True})
    assert status == 200 and noted["creatives"] == [{"creative_id": first, "withdrawn": True}]
    after = shown("after")
    assert all(slate["state_version"] >= noted["state_version"] for slate in after)
    assert {slate["items"][0]["creative_id"] for slate in after} & {first, None} == set()
    with Store.open(server.home / "state", readonly=True) as store, store.view() as view:
        assert view.creatives()[first] == {"withdrawn": True}
    assert ask(server, "/v1/creatives", {"creative_id": 4, "withdrawn": True})[0] == 422
    assert ask(server, "/v1/creatives", {"creative_id": first, "withdrawn": False})[0] == 200
    assert first in {slate["items"][0]["creative_id"] for slate in shown("back")}  # one of three: missed by chance 1e-7
    assert playbill(*server.arguments).returncode == 0  # back to what is published


def test_a_taken_port_is_refused_by_name(server: Server, tmp_path: Path) -> None:
    shutil.copytree(server.home / "bundles", tmp_path / "bundles")
    refused = playbill(*server.arguments, f"home={tmp_path}")
    assert refused.returncode == 1 and f"port {server.port} is taken" in refused.stderr


def test_figures_are_exported(server: Server) -> None:
    def figures() -> str:
        connection = http.client.HTTPConnection("127.0.0.1", server.figures_port, timeout=5)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    wanted = (
        'playbill_latency_seconds_bucket', 'stage="engine"', 'rung="full"', 'playbill_answers_total',
        'playbill_model_device', 'playbill_requests_total', 'playbill_processes 2.0',
        'status="413"', 'route="/v1/events"',
    )  # fmt: skip
    assert processes.wait_until(lambda: all(w in figures() for w in wanted), 30, every_s=1), [
        w for w in wanted if w not in figures()
    ]


def test_each_request_is_a_line_of_json_whoever_answered_it(server: Server) -> None:
    names = {f"watched-{n}" for n in range(40)}
    for name in sorted(names):
        assert ask(server, "/v1/recommend", {"user_id": 196}, headers={"x-request-id": name})[0] == 200
    output = server.home / "output.txt"

    def lines() -> list[Any]:
        return [json.loads(line) for line in output.read_text().splitlines() if line.startswith("{")]

    assert processes.wait_until(lambda: names <= {line.get("request_id") for line in lines()}, 10)
    mine = [line for line in lines() if line.get("request_id") in names]
    assert len(mine) == len(names) and len({line["process"] for line in mine}) == 2
    assert {line["route"] for line in mine} == {"/v1/recommend"} and "full" in {line["rung"] for line in mine}
    assert any("wait" in line["stages_ms"] for line in mine)


def test_the_figures_of_ray_and_haproxy_that_the_dashboard_shows_are_there(server: Server) -> None:
    dashboard = Path(__file__).resolve().parents[2] / "docker/grafana/dashboards/playbill.json"
    named = set(re.findall(r"\b(?:haproxy|ray)_\w+", dashboard.read_text()))
    assert len(named) >= 2
    ports = [int(a.partition("=")[2]) for a in server.arguments if a.startswith(("metrics_port", "haproxy_metrics"))]

    def told() -> set[str]:
        found = set()
        for port in ports:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                found |= set(re.findall(r"^(\w+)", answer.read().decode(), re.MULTILINE))
        return found

    assert processes.wait_until(lambda: not named - told(), 30, every_s=1), named - told()


def test_nothing_listens_on_another_address_than_loopback(server: Server, doors: Doors) -> None:
    listening, outside = doors([server.owner.pid, *processes.marked(server.mark)])
    assert len(listening) > 10 and f"0100007F:{server.port:04X}" in listening
    assert outside == []


def test_nothing_of_a_person_is_in_any_log_of_the_server(
    server: Server, send_marked: Callable[..., list[int]], marks_in: Callable[..., list[str]]
) -> None:
    logs = {server.home / "output.txt"}
    for pid in processes.marked(server.mark):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        logs |= {Path(found) / "logs" for found in re.findall(r"/[\w/.-]*/session_\d[\w-]+", command)}
    assert len(logs) == 2, logs
    own = {"x-api-key": "pb_" + "5ca1ab1e" * 7}  # asks for nothing here, and is in no log either
    statuses = send_marked(lambda path, body, headers: ask(server, path, body, headers=headers)[0], own)
    assert statuses.count(200) >= 5 and max(statuses) < 500, statuses
    assert not marks_in(*logs, secrets=["5ca1ab1e"])
    assert sum(file.stat().st_size for log in logs for file in log.rglob("*")) > 10_000
    assert marks_in(server.home / "state")


def test_keys_hold_on_every_replica(server: Server, versions: list[str]) -> None:
    """From here on the server has keys: what it says of itself to its owner goes on."""
    path = keys_path(server.home)

    def statuses(key: str, route: str = "/v1/recommend") -> set[int]:
        # each request on its own connection, so that the ingress turns to either replica
        body = None if route == "/v1/bundle" else {"k": 1}
        return {ask(server, route, body, headers={"authorization": f"Bearer {key}"})[0] for _ in range(30)}

    def seconds_until(wanted: set[int], key: str) -> float:
        began = time.monotonic()
        while ask(server, "/v1/recommend", {"k": 1}, headers={"x-api-key": key})[0] not in wanted:
            assert time.monotonic() - began < 10
        return time.monotonic() - began

    _, shop = add_key(path, "shop", [Scope.recommend], None, None)
    _, admin = add_key(path, "admin", [Scope.admin], None, None)
    time.sleep(0.8)
    assert statuses(shop) == {200} and statuses("") == {401} and statuses(admin) == {403}
    assert statuses(shop, "/v1/bundle") == {403} and statuses(admin, "/v1/bundle") == {200}
    assert {tuple(ask(server, "/v1/health")[1]) for _ in range(10)} == {("status",)}
    seen = {ask(server, "/v1/health", headers={"x-api-key": admin})[1]["replica"] for _ in range(40)}
    assert len(seen) == 2
    revoke_key(path, "shop")
    time.sleep(0.8)
    assert statuses(shop) == {401}
    assert playbill(*server.arguments, f"bundle={versions[1]}").returncode == 0
    swapped = playbill(*server.arguments)
    assert swapped.returncode == 0 and f"swapped from {versions[1]}" in swapped.stderr, swapped.stderr
    assert stat.S_IMODE((server.home / "serve.json").stat().st_mode) == 0o600
    # each of two replicas lets through half of the rate, and half of the burst at once
    _, slow = add_key(path, "slow", [Scope.recommend], 2, 6)
    seconds_until({200, 429}, slow)
    time.sleep(3.2)  # both have read it, and have all of their tokens
    began = time.monotonic()
    found = [ask(server, "/v1/recommend", {"k": 1}, headers={"x-api-key": slow})[0] for _ in range(40)]
    took = time.monotonic() - began
    assert set(found) == {200, 429} and 3 <= found.count(200) <= 6 + 2 * took + 1, (found, took)


def descendants(process: int) -> set[int]:
    """Processes that it started, and those that they started."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and processes.lives(int(folder.name)):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found, size = {process}, 0
    while size < len(found):
        size = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found - {process}


def test_ctrl_c_leaves_nothing_behind(server: Server) -> None:
    """Last: it ends the server."""
    everything = descendants(server.owner.pid)
    assert len(everything) > 8 and everything <= set(processes.marked(server.mark))
    server.owner.send_signal(signal.SIGINT)
    assert server.owner.wait(60) == 0
    assert processes.marked(server.mark) == []
    for name in ("port", "haproxy_stats_port", "haproxy_metrics_port", "proxy_port", "metrics_port", "figures_port"):
        port = next(int(a.partition("=")[2]) for a in server.arguments if a.startswith(f"{name}="))
        assert processes.port_is_free("127.0.0.1", port), name
    assert not (server.home / "serve.json").exists()
    # all that this file asked of two replicas is in the log, and answered again
    assert not list((server.home / "slates").glob("*.open"))
    replayed = playbill("replay", f"home={server.home}")
    assert replayed.returncode == 0 and "equal byte for byte" in replayed.stdout, replayed.stdout + replayed.stderr
    assert "no server runs" in playbill("serve", f"home={server.home}", "stop=true").stderr


def test_in_the_background_killed_and_started_again(home: Path, free_ports: Any, replica_ports: Any) -> None:
    names = ("port", "haproxy_stats_port", "haproxy_metrics_port", "proxy_port", "metrics_port", "figures_port")
    ports = free_ports(len(names))
    arguments = ["serve", f"home={home}", *(f"{n}={p}" for n, p in zip(names, ports, strict=True)),
                 f"replica_ports={replica_ports()}", "drain_s=1", "replicas=1"]  # fmt: skip
    began = playbill(*arguments, "detach=true")
    assert began.returncode == 0 and "1 replicas behind HAProxy" in began.stderr, began.stderr
    first = running.read(home)
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    again = playbill(*arguments, "detach=true")
    assert again.returncode == 0, again.stderr
    second = running.read(home)
    assert second is not None and second.pid != first.pid
    assert processes.marked(first.mark) == [] and not Path(first.scratch).exists()
    assert running.health(second.settings, second.key) is not None
    stopped = playbill("serve", f"home={home}", "stop=true")
    assert stopped.returncode == 0 and "stopped" in stopped.stderr
    assert processes.marked(second.mark) == [] and not processes.lives(second.pid)
