"""The reference request over HTTP, against the limit of its bare calls, in one run.

    python tests/benchmarks/bench_reference_http.py home=DIR [bundle=NEWEST] [seconds=8] [rounds=3] [people=200]

Needs the home of `reference_home.py`. The limit is that of `bench_reference.py`: the search and the graphs' runs of a
person, alone, in this process. Then `playbill serve` answers the same people, each with a whole slate, everything on:

- at one connection, one replica: p50 and p99 against the limit's p50;
- two replicas under 16 connections: answers a second against cores / (limit + processor time of a request that asks for
  nothing, `GET /v1/health`, through the same set-up). The client runs on the same cores, and its time is shown;
- two replicas under 48 connections, more than they can answer: how many are refused, and what the others get.

Serves from a copy of the home's bundles, where that bundle is the current one; the state is shared, and what
is shown is noted in it.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from bench_http import SERVE, cpu_s
from bench_reference import measure, newest, people_of
from record import machine, record

from playbill.bundle.open import open_bundle
from playbill.engine.engine import Engine
from playbill.serving import processes, running
from playbill.state.store import Store

PLAYBILL = [sys.executable, "-m", "playbill.cli"]
CLIENT = str(Path(__file__).parent / "bench_http.py")
PATHS = {"answer": "/v1/recommend", "nothing": "/v1/health"}


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    home = Path(given.get("home", "var")).absolute()
    seconds, rounds = float(given.get("seconds", 8)), int(given.get("rounds", 3))
    started, version = machine(), given.get("bundle") or newest(home / "bundles")
    with Store.open(home / "state", readonly=True) as store:
        bundle = open_bundle(home / "bundles" / version, require_sealed=False, verify=False)
        engine = Engine.open(bundle, store)
        people = people_of(store, engine, int(given.get("people", 200)))
        limits = measure(engine, people, 3, "slate")
    with tempfile.TemporaryDirectory() as scratch:
        served = Path(scratch)
        shutil.copytree(home / "bundles" / version, served / "bundles" / version, copy_function=os.link)
        forced = ["force=true", "reason=for timing alone"]
        subprocess.run([*PLAYBILL, "publish", f"home={served}", f"bundle={version}", *forced], check=True)
        (served / "people.json").write_text(json.dumps(people))
        one = _served(served, home / "state", 1, [("answer", 1)], seconds, rounds)
        two = _served(served, home / "state", 2, [("answer", 16), ("nothing", 16), ("answer", 48)], seconds, rounds)
    figures = _figures(limits, one["answer", 1], two["answer", 16], two["nothing", 16])
    figures |= {f"with_48_callers_{name}": value for name, value in _pressed(two["answer", 48], seconds).items()}
    for name, value in figures.items():
        print(f"{name:44} {value}")
    print(f"written to {record('reference_http', figures, started)}")
    return 0


def _served(
    home: Path, state: Path, replicas: int, asked: list[tuple[str, int]], seconds: float, rounds: int
) -> dict[tuple[str, int], dict[str, float]]:
    """Return the medians over rounds of what a server answered, by what was asked and connections."""
    settings = [f"{name}={port}" for name, port in SERVE.items()]
    command = [*PLAYBILL, "serve", f"home={home}"]
    try:
        subprocess.run(
            [*command, *settings, f"state={state}", f"replicas={replicas}", "drain_s=1", "detach=true"], check=True
        )
        found = running.read(home)
        assert found is not None
        ids = processes.marked(found.mark)
        _cell("answer", 4, 3, ids, home)
        cells: dict[tuple[str, int], list[dict[str, float]]] = {}
        for _ in range(rounds):
            for what, connections in asked:
                cells.setdefault((what, connections), []).append(_cell(what, connections, seconds, ids, home))
    finally:
        subprocess.run([*command, "stop=true"], check=False)
    return {
        key: {name: statistics.median(cell[name] for cell in mine) for name in mine[0]} for key, mine in cells.items()
    }


def _cell(what: str, connections: int, seconds: float, ids: list[int], home: Path) -> dict[str, float]:
    """Return the client's figures, and the server's processor time a request."""
    before = cpu_s(ids)
    people = str(home / "people.json")
    command = [sys.executable, CLIENT, "client", str(SERVE["port"]), str(connections), str(seconds), "1"]
    done = subprocess.run([*command, PATHS[what], people], stdout=subprocess.PIPE, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    figures["server_cpu_ms_per_request"] = (cpu_s(ids) - before) * 1e3 / figures["requests"]
    return figures


def _pressed(many: dict[str, float], seconds: float) -> dict[str, float]:
    """Return what became of more requests than can be answered; `late_share` and p99 are of refusals too."""
    return {
        "answered_per_s": (many["requests"] - many["failed"]) / seconds,
        "refused_share": many["failed"] / many["requests"],
        "whole_of_answered": many["whole_share"] * many["requests"] / max(many["requests"] - many["failed"], 1),
        "late_share": many["late_share"],
        "p99_ms": many["p99_ms"],
    }


def _figures(
    limits: dict[str, Any], one: dict[str, float], two: dict[str, float], nothing: dict[str, float]
) -> dict[str, Any]:
    cores = os.cpu_count() or 1
    found: dict[str, Any] = {
        "bundle": limits["bundle"],
        "engine_p50_ms": limits["engine_ms"]["p50"],
        "http_p50_ms": one["p50_ms"],
        "http_p99_ms": one["p99_ms"],
        "whole_share_at_one": one["whole_share"],  # of the best rung, with every step
        "whole_share_at_two": two["whole_share"],
        "two_replicas_per_s": two["requests_per_s"],
        "two_replicas_p99_ms": two["p99_ms"],
        "two_replicas_late_share": two["late_share"],
        "two_replicas_refused": two["failed"],
        "server_cpu_ms_per_answer": two["server_cpu_ms_per_request"],
        "server_cpu_ms_per_nothing": nothing["server_cpu_ms_per_request"],
        "client_cpu_ms_per_answer": two["client_cpu_ms_per_request"],
    }
    for name in ("limit", "limit_with_head", "limit_with_reasons"):
        limit = limits[f"{name}_ms"]["p50"]
        most = cores / (limit + nothing["server_cpu_ms_per_request"]) * 1e3
        found |= {
            f"{name}_ms": limit,
            f"http_p50_over_{name}": round(one["p50_ms"] / limit, 2),
            f"http_p99_over_{name}": round(one["p99_ms"] / limit, 2),
            f"two_replicas_of_cores_over_{name}": round(two["requests_per_s"] / most, 2),
        }
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
