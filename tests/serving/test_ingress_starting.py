"""HAProxy with Serve's own configuration, before it knows of replicas and when none is left: 503, never a 404."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from playbill.serving.ingress import environment, find_haproxy
from playbill.serving.processes import wait_until
from playbill.serving.settings import ServeSettings
from playbill.serving.waiting import ARRIVED


class Knows(http.server.BaseHTTPRequestHandler):
    """Answers health checks, and every path with a status of its own: 200 a replica, 404 Serve's own proxy, 0 a replica
    that ends without an answer."""

    status = 200

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if self.status:
            self._answer(self.status)

    def do_GET(self) -> None:
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def answering(status: int) -> Iterator[int]:
    handler = type("Answers", (Knows,), {"status": status})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


# in a process of its own: some of what Serve imports warns, and here warnings are errors
WRITE = """
import json, sys
import ray.serve
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

given = json.loads(sys.argv[1])
folder, backends = given["folder"], {}
if given["proxy"]:
    servers = [ServerConfig(name=f"replica{port}", host="127.0.0.1", port=port) for port in given["replicas"]]
    proxy = ServerConfig(name="proxy", host="127.0.0.1", port=given["proxy"])
    backends["http-playbill"] = BackendConfig(
        name="http-playbill", path_prefix="/", app_name="playbill", servers=servers, fallback_server=proxy
    )
config = HAProxyConfig(
    socket_path=folder + "/admin.sock",
    error_file_path=folder + "/500.http",
    server_state_base=folder,
    server_state_file=folder + "/state",
    http_options=HTTPOptions(host="127.0.0.1", port=given["port"]),
)
HAProxyApi(config, backends, folder + "/haproxy.cfg")._generate_config_file_internal()
"""


@contextmanager
def haproxy(folder: Path, ports: list[int], replicas: list[int], proxy: int = 0) -> Iterator[int]:
    """Run HAProxy by the configuration that Serve writes, started as `playbill serve` has it started.

    Args:
        proxy: port of Serve's own proxy; 0: Serve has said nothing of the application yet.
    """
    port, stats, metrics = ports
    settings = ServeSettings(port=port, haproxy_stats_port=stats, haproxy_metrics_port=metrics, deadline_ms=200)
    binary = find_haproxy(settings, Console())
    assert binary is not None
    variables = environment(settings, binary, folder)
    (folder / "500.http").write_text("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n")
    given = {"folder": str(folder), "port": port, "replicas": replicas, "proxy": proxy}
    subprocess.run([sys.executable, "-c", WRITE, json.dumps(given)], env={**os.environ, **variables}, check=True)
    program, config = variables["RAY_SERVE_HAPROXY_BINARY_PATH"], folder / "haproxy.cfg"
    with (folder / "said").open("w") as said:
        process = subprocess.Popen([program, "-db", "-f", config], stdout=said, stderr=said)
    try:
        up = wait_until(lambda: process.poll() is not None or status_of(port) is not None, 10)
        assert up and process.poll() is None, (folder / "said").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(10)


def said_to(port: int, request: bytes) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Return status, headers and problem that raw bytes are answered with."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as there:
        there.sendall(request)
        answer = http.client.HTTPResponse(there)
        answer.begin()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, json.loads(answer.read())


def status_of(port: int) -> tuple[int, str | None] | None:
    """Return what a slate is answered with, and when to come again; None where nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        given = {"content-type": "application/json", ARRIVED: str(time.time() * 1e3)}  # HAProxy says when itself
        connection.request("POST", "/v1/recommend", b'{"user_id": 1}', given)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("retry-after")
    except ConnectionError:
        return None
    finally:
        connection.close()


pytestmark = pytest.mark.timeout(60)


def test_before_it_knows_the_application_it_says_when_to_come_again(tmp_path: Path, free_ports: Any) -> None:
    with haproxy(tmp_path, free_ports(3), []) as port:
        assert status_of(port) == (503, "1")


def test_without_replicas_requests_do_not_go_to_a_proxy_that_knows_nothing(tmp_path: Path, free_ports: Any) -> None:
    with answering(404) as proxy, haproxy(tmp_path, free_ports(3), [], proxy) as port:
        assert {status_of(port) for _ in range(20)} == {(503, "1")}


def test_a_dead_replica_s_requests_go_to_the_other_one(tmp_path: Path, free_ports: Any) -> None:
    dead, *ports = free_ports(4)
    with answering(404) as proxy, answering(200) as alive:
        with haproxy(tmp_path, ports, [dead, alive], proxy) as port:
            assert {status_of(port) for _ in range(20)} == {(200, None)}


def test_what_it_refuses_itself_has_a_request_id_as_all_else(tmp_path: Path, free_ports: Any) -> None:
    ask = b"POST /v1/recommend HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n%s\r\n{}"
    with haproxy(tmp_path, free_ports(3), []) as port:
        found = [said_to(port, ask % b"") for _ in range(2)]
        ids = [problem["request_id"] for _, _, problem in found]
        assert len(set(ids)) == 2 and all(re.fullmatch("[0-9a-f-]{36}", each) for each in ids)
        assert [headers["x-request-id"] for _, headers, _ in found] == ids
        assert {problem["error"] for _, _, problem in found} == {"starting"}
        for given in ('my"own', "é", "a" * 200):
            _, headers, problem = said_to(port, ask % f"x-request-id: {given}\r\n".encode())
            assert (problem["request_id"] == given) == (given == 'my"own') and headers["x-request-id"]
    with answering(404) as proxy, haproxy(tmp_path, free_ports(3), [], proxy) as port:
        status, headers, problem = said_to(port, ask % b"x-request-id: mine\r\n")
        assert status == 503 and headers["retry-after"] == "1" and problem["error"] == "overloaded"
        assert problem["request_id"] == headers["x-request-id"] == "mine"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (b"OPTIONS * HTTP/1.1\r\nhost: x", "begins with /"),
        (b"CONNECT x:80 HTTP/1.1\r\nhost: x", "begins with /"),
        (b"GET /v1/health HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n"
         b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13", "no websockets"),
    ],
)  # fmt: skip
def test_what_is_no_request_of_ours_is_the_callers_mistake(
    tmp_path: Path, free_ports: Any, asked: bytes, said: str
) -> None:
    with answering(404) as proxy, answering(200) as replica:
        with haproxy(tmp_path, free_ports(3), [replica], proxy) as port:
            status, _, problem = said_to(port, asked + b"\r\n\r\n")
            assert status == 400 and said in problem["reason"] and problem["error"] == "malformed"
            assert status_of(port) == (200, None)


REPLICA = """
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        time.sleep(0.005)
        self.said(503 if 1e3 * time.time() - float(self.headers[sys.argv[2]]) > 500 else 200)

    def do_GET(self):
        self.said(200)

    def said(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answers).serve_forever()
"""


def test_another_replica_is_asked_before_the_deadline_of_a_request_is_over(tmp_path: Path, free_ports: Any) -> None:
    """Of one that dies with requests in hand. HAProxy would wait a second before it turns to the other."""
    *replicas, one, two, three = free_ports(5)
    running = [subprocess.Popen([sys.executable, "-c", REPLICA, str(port), ARRIVED]) for port in replicas]
    found: list[Any] = []
    over = threading.Event()

    def ask(port: int) -> None:
        while not over.is_set():
            found.append(status_of(port))

    try:
        assert wait_until(lambda: all(status_of(port) is not None for port in replicas), 10)
        with answering(404) as proxy, haproxy(tmp_path, [one, two, three], replicas, proxy) as port:
            callers = [threading.Thread(target=ask, args=(port,)) for _ in range(4)]
            for caller in callers:
                caller.start()
            assert wait_until(lambda: len(found) > 100, 10)
            running[0].kill()
            before = len(found)
            assert wait_until(lambda: len(found) > before + 200, 20)
            over.set()
            for caller in callers:
                caller.join()
        assert set(found) == {(200, None)}
    finally:
        over.set()
        for process in running:
            process.kill()
            process.wait()


def test_events_that_a_dying_replica_had_in_hand_are_to_be_sent_again(tmp_path: Path, free_ports: Any) -> None:
    """Not by HAProxy, which does not know whether they were stored; and not as a fault of the server's."""
    one, two, three = free_ports(3)
    ask = b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
    with answering(404) as proxy, answering(0) as dying:
        with haproxy(tmp_path, [one, two, three], [dying], proxy) as port:
            status, headers, problem = said_to(port, ask)
    assert status == 502 and headers["retry-after"] == "1" and problem["error"] == "broken_off"
    assert problem["request_id"] == headers["x-request-id"] and "event_id" in problem["reason"]
