"""A written file is run: by Serve's own command on a Ray of this machine, over a real Redis. Not on a cluster."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from playbill.bundle.open import open_bundle
from playbill.cli import compose, main
from playbill.engine.engine import Engine
from playbill.engine.types import Request
from playbill.serving import processes
from playbill.serving.ingress import environment
from playbill.serving.keys import Scope, add_key, keys_path
from playbill.state.ingest import run as ingest
from playbill.state.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
HANDSHAKE = (
    b"GET /v1/health HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
)


def raw(port: int, sent: bytes) -> bytes:
    """Return what is answered to some bytes, up to the end of the connection or two seconds of silence."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(sent)
        connection.settimeout(2)
        try:
            while got := connection.recv(65536):
                said += got
        except TimeoutError:
            pass
    return said


def test_serve_runs_what_was_written(
    home: Path, start_redis: Callable[..., Any], free_ports: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = start_redis().url("shop")
    ingest(compose("ingest", [f"home={home}", f"state='{state}'"]))
    port, proxy, first = free_ports(3)
    given = [
        "state='redis://store:6379/0'", f"port={port}", f"proxy_port={proxy}", f"replica_ports={first}",
        # Ray hands out the two cores that there are at least: one to answer, one to rank
        "ingress=python", "replicas=1", "layout=composed", "deadline_ms=3000", "drain_s=1", f"cluster.home={home}",
    ]  # fmt: skip
    path = tmp_path / "serve.yaml"
    assert main(["serve", "emit=serve_config", f"to={path}", *given]) == 0
    config = yaml.safe_load(path.read_text())
    # what differs here: nobody else is to reach it, and the store is reached by a socket
    config["http_options"]["host"] = "127.0.0.1"
    config["applications"][0]["args"]["state"] = state
    path.write_text(yaml.safe_dump(config))
    _, key = add_key(keys_path(home), "test", [Scope.recommend, Scope.admin], None, None)

    def ask(where: str, body: Any = None, sent: str = key) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            headers = {"x-api-key": sent} if sent else {}
            connection.request("POST" if body else "GET", where, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError):
            return 0, None
        finally:
            connection.close()

    for name, value in environment(compose("serve", given), None, tmp_path).items():
        monkeypatch.setenv(name, value)
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    monkeypatch.setenv("PLAYBILL_OWNER", "")
    mark = processes.mark()
    with (tmp_path / "output.txt").open("w") as output:
        owner = subprocess.Popen(
            [sys.executable, "-m", "ray.serve.scripts", "run", str(path)],
            env={**os.environ, **token}, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        up = processes.wait_until(lambda: ask("/v1/health")[0] == 200 or owner.poll() is not None, 150)
        assert up and owner.poll() is None, (tmp_path / "output.txt").read_text()[-3000:]
        health = ask("/v1/health")[1]
        assert health["missing"] == {} and health["models"]["ranker"]["device"] == "cpu"
        assert ask("/v1/recommend", {"user_id": 196}, sent="")[0] == 401  # a cluster asks for keys
        with Store.open(state, readonly=True) as store:
            engine = Engine.open(open_bundle(home / "bundles" / health["bundle"]), store)
            body = {"user_id": 196, "k": 10, "request_id": "r", "at": 893286638000000}
            [slate] = engine.recommend([Request(**body)])
        status, served = ask("/v1/recommend", body)
        assert status == 200 and served["rung"] == slate.rung == "full" and served["rung_reason"] == ""
        assert [i["item_id"] for i in served["items"]] == [i.item_id for i in slate.items]
        # Serve's own proxy fails on a handshake before a replica is asked
        for asked in (HANDSHAKE, HANDSHAKE.replace(b"version: 13", b"version: 1"), HANDSHAKE.replace(b"-key", b"-no")):
            said = raw(port, asked)
            assert said.startswith(b"HTTP/1.1 400 "), said
        said = raw(port, HANDSHAKE)
        assert b"there are no websockets here" in said and b'"error":"malformed"' in said, said
        assert ask("/v1/health")[0] == 200
    finally:
        owner.send_signal(signal.SIGINT)
        try:
            owner.wait(180)  # Ray ends a cluster at its leisure where the machine is busy
        finally:
            processes.end(mark, patience_s=5)
            owner.wait(30)
