"""HTTP: `playbill serve` against bare uvicorn around the same engine, and the engine alone, in one run.

    python tests/benchmarks/bench_http.py home=var [seconds=6] [rounds=3]

Both servers run at once and take turns, cell by cell, so that a noisy machine is noisy to both. The client is a closed
loop over keep-alive connections in a process of its own, on the same cores; what it costs is measured beside. Latencies
are milliseconds from the request's first byte to the answer's last. Needs a published bundle and a loaded state.
"""

from __future__ import annotations

import json
import os
import random
import selectors
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record

CONNECTIONS = (1, 4, 16)
PLAIN_PORT = 18700
SERVE = {"port": 18710, "haproxy_stats_port": 18711, "haproxy_metrics_port": 18712, "proxy_port": 18713,
         "metrics_port": 18714, "figures_port": 18715, "replica_ports": 18800}  # fmt: skip
USERS, K = 943, 20
LATE_MS = 100.0  # the deadline of `playbill serve` where nobody says another
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def client(
    port: int, connections: int, seconds: float, seed: int, path: str = "/v1/recommend", people: str = ""
) -> dict[str, Any]:
    """Return what a closed loop over this many connections measured.

    Args:
        path: of the request; without a body where it is not /v1/recommend.
        people: file of the ids to ask about, json; empty: those of MovieLens-100K.
    """
    draw = random.Random(seed)
    ids = json.loads(Path(people).read_bytes()) if people else range(1, USERS + 1)
    bodies = [json.dumps({"user_id": draw.choice(ids), "k": K}).encode() for _ in range(512)]
    requests = [
        b"POST /v1/recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(body), body)
        for body in bodies
    ]
    if path != "/v1/recommend":
        requests = [b"GET %s HTTP/1.1\r\nhost: localhost\r\n\r\n" % path.encode()] * len(bodies)
    selector = selectors.DefaultSelector()
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    for number, sock in enumerate(sockets):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(sock, selectors.EVENT_READ, number)
    began: list[float] = [0.0] * connections
    buffers = [bytearray() for _ in sockets]
    latencies: list[float] = []
    failed = whole = turn = 0
    end = time.perf_counter() + seconds
    cpu = time.process_time()
    for number, sock in enumerate(sockets):
        began[number] = time.perf_counter()
        sock.sendall(requests[number])
    while (now := time.perf_counter()) < end:
        for key, _ in selector.select(1):
            number, sock = key.data, sockets[key.data]
            buffers[number] += sock.recv(1 << 18)
            head = buffers[number].find(b"\r\n\r\n")
            if head < 0:
                continue
            headers = bytes(buffers[number][:head]).lower()
            start = headers.index(b"content-length:") + 15
            length = int(headers[start:].split(b"\r\n", 1)[0])
            if len(buffers[number]) < head + 4 + length:
                continue
            now = time.perf_counter()
            latencies.append(now - began[number])
            failed += not headers.startswith(b"http/1.1 200")
            whole += b"x-playbill-rung: full" in headers and b"x-playbill-late:" not in headers
            buffers[number].clear()
            turn += 1
            began[number] = time.perf_counter()
            sock.sendall(requests[turn % len(requests)])
    cpu = time.process_time() - cpu
    for sock in sockets:
        sock.close()
    ms = np.asarray(latencies) * 1e3
    return {
        "requests": len(ms), "failed": failed, "late_share": float((ms > LATE_MS).mean()),
        "whole_share": whole / len(ms),
        "requests_per_s": len(ms) / seconds,
        "p50_ms": float(np.percentile(ms, 50)), "p99_ms": float(np.percentile(ms, 99)),
        "client_cpu_ms_per_request": cpu * 1e3 / len(ms),
    }  # fmt: skip


def cpu_s(processes: list[int]) -> float:
    """Return the processor seconds that these processes have used, children that ended left out."""
    used = 0.0
    for process in processes:
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        used += (int(fields[11]) + int(fields[12])) * TICK_S
    return used


def cell(port: int, connections: int, seconds: float, processes: list[int], seed: int) -> dict[str, Any]:
    """Return the client's figures, and the server's processor time a request."""
    before = cpu_s(processes)
    command = [sys.executable, __file__, "client", str(port), str(connections), str(seconds), str(seed)]
    figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    figures["server_cpu_ms_per_request"] = (cpu_s(processes) - before) * 1e3 / figures["requests"]
    return figures


def engine_alone(home: str) -> dict[str, float]:
    """Return the time of the engine's own calls, one request each, and of its batches of 16."""
    from playbill.engine.types import Request
    from playbill.serving import load
    from playbill.state.store import Store

    with Store.open(Path(home) / "state", readonly=True) as store:
        _, engine = load.open_engine(load.bundle_path(home, "current"), store)
        draw = random.Random(0)
        took = []
        for number in range(2200):
            request = Request(user_id=draw.randint(1, USERS), k=K)
            began = time.perf_counter()
            engine.recommend([request])
            if number >= 200:
                took.append((time.perf_counter() - began) * 1e3)
    return {"p50_ms": float(np.percentile(took, 50)), "p99_ms": float(np.percentile(took, 99))}


def wait_for(port: int) -> dict[str, Any]:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/health", timeout=2) as response:
                return json.loads(response.read())
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing answers on port {port}")


def median(cells: list[dict[str, Any]]) -> dict[str, float]:
    return {name: round(statistics.median(c[name] for c in cells), 4) for name in cells[0]}


def main(arguments: list[str]) -> None:
    """Measure, print and record."""
    from playbill.serving import processes, running

    given = dict(a.split("=", 1) for a in arguments)
    home, seconds, rounds = given.get("home", "var"), float(given.get("seconds", "6")), int(given.get("rounds", "3"))
    started = machine()
    alone = engine_alone(home)
    settings = [f"{name}={port}" for name, port in SERVE.items()]
    playbill = [sys.executable, "-m", "playbill.cli", "serve", f"home={home}"]
    plain = subprocess.Popen([sys.executable, "-m", "playbill.serving.plain", f"home={home}", f"port={PLAIN_PORT}"])
    try:
        subprocess.run([*playbill, *settings, "drain_s=1", "detach=true"], check=True)
        found = running.read(Path(home).absolute())
        assert found is not None
        health = wait_for(PLAIN_PORT)
        servers = {
            "uvicorn, 1 process": (PLAIN_PORT, [plain.pid]),
            "playbill serve, 2 replicas": (SERVE["port"], processes.marked(found.mark)),
        }
        for port, ids in servers.values():  # warm-up: caches, and connections between HAProxy and the replicas
            cell(port, 4, 2, ids, 0)
        cells: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for turn in range(rounds):
            for connections in CONNECTIONS:
                for name, (port, ids) in servers.items():
                    cells.setdefault((name, connections), []).append(cell(port, connections, seconds, ids, turn))
    finally:
        plain.terminate()
        plain.wait()
        subprocess.run([*playbill, "stop=true"], check=False)
    rows = [{"server": name, "connections": c, **median(found)} for (name, c), found in cells.items()]
    print(f"engine alone, one request at a time: p50 {alone['p50_ms']:.2f} ms, p99 {alone['p99_ms']:.2f} ms")
    columns = ("p50_ms", "p99_ms", "requests_per_s", "server_cpu_ms_per_request", "client_cpu_ms_per_request", "failed")
    print(f"{'server':28}{'connections':>12}", *(f"{c.replace('_per_request', ''):>14}" for c in columns))
    for r in rows:
        print(f"{r['server']:28}{r['connections']:>12}", *(f"{r[c]:>14.2f}" for c in columns))
    ratios = {
        str(c): {
            "p50": round(cells_of(rows, "playbill", c)["p50_ms"] / cells_of(rows, "uvicorn", c)["p50_ms"], 2),
            "requests_per_s": round(
                cells_of(rows, "playbill", c)["requests_per_s"] / cells_of(rows, "uvicorn", c)["requests_per_s"], 2
            ),
        }
        for c in CONNECTIONS
    }
    print("playbill serve / uvicorn, by connections:", ratios)
    figures = {
        "engine_alone": alone, "rows": rows, "serve_over_uvicorn": ratios, "rungs": health["rungs"],
        "k": K, "users": USERS, "seconds_a_cell": seconds, "rounds": rounds,
    }  # fmt: skip
    print(record("http", figures, started))


def cells_of(rows: list[dict[str, Any]], name: str, connections: int) -> dict[str, Any]:
    return next(r for r in rows if r["server"].startswith(name) and r["connections"] == connections)


if __name__ == "__main__":
    if sys.argv[1:2] == ["client"]:
        port, connections, seconds, seed = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
        print(json.dumps(client(port, connections, seconds, seed, *sys.argv[6:])))
    else:
        main(sys.argv[1:])
