"""Layouts of a server under an open loop: what each answers at the same rates, and the highest that it keeps.

    python tests/benchmarks/bench_serving.py home=var [rates=50,100,200] [find=p99_ms:20] [duration_s=10] [rounds=1]
                                             [only=NAME,NAME]

Each layout is started, warmed, put under `playbill load` from a process of its own, searched for the highest rate that
keeps the percentile, put under twice that rate, and stopped; a round goes through all of them, so that a noisy machine
is noisy to each. The generator runs on the same cores: what it costs, and where it could not keep up, is measured
beside. Figures are medians over rounds; ratios are to bare uvicorn. Needs a published bundle and an ingested state.
(bench_http.py asks in a closed loop: how fast one caller after another is answered.)
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from bench_http import PLAIN_PORT, SERVE, cpu_s, wait_for
from record import machine, record

RIVAL = "uvicorn"
# settings of `playbill serve` by name: another layout is another line
LAYOUTS: dict[str, dict[str, Any]] = {
    "haproxy-x1": {"replicas": 1, "ingress": "haproxy"},
    "haproxy-x2": {"replicas": 2, "ingress": "haproxy"},
    "haproxy-x4": {"replicas": 4, "ingress": "haproxy"},
    "python-proxy-x2": {"replicas": 2, "ingress": "python"},
    # the ranker in a process of its own: what a hop costs, and what waiting for others to share a run does
    "composed-x1": {"replicas": 1, "ingress": "haproxy", "layout": "composed", "ranker.batch_wait_ms": 0},
    "composed-x2": {"replicas": 2, "ingress": "haproxy", "layout": "composed", "ranker.batch_wait_ms": 0},
    "composed-x2-wait": {"replicas": 2, "ingress": "haproxy", "layout": "composed", "ranker.batch_wait_ms": 2},
}


@contextmanager
def uvicorn(home: str) -> Iterator[tuple[int, list[int]]]:
    """Yield the port of a bare uvicorn around the same engine, and its process."""
    process = subprocess.Popen([sys.executable, "-m", "playbill.serving.plain", f"home={home}", f"port={PLAIN_PORT}"])
    try:
        wait_for(PLAIN_PORT)
        yield PLAIN_PORT, [process.pid]
    finally:
        process.terminate()
        process.wait()


@contextmanager
def serve(home: str, layout: dict[str, Any]) -> Iterator[tuple[int, list[int]]]:
    """Yield the port of `playbill serve`, and every process of it."""
    from playbill.serving import processes, running

    command = [sys.executable, "-m", "playbill.cli", "serve", f"home={home}"]
    settings = [f"{name}={value}" for name, value in {**SERVE, "drain_s": 1, **layout}.items()]
    try:
        subprocess.run([*command, *settings, "detach=true"], check=True)
        found = running.read(Path(home).absolute())
        assert found is not None
        yield SERVE["port"], processes.marked(found.mark)
    finally:
        subprocess.run([*command, "stop=true"], check=False)


def load(home: str, port: int, name: str, *given: str) -> dict[str, Any]:
    """Run `playbill load` and return its report."""
    command = [sys.executable, "-m", "playbill.cli", "load", f"home={home}", f"url=http://127.0.0.1:{port}"]
    subprocess.run([*command, f"name={name}", *given], check=True)
    report: dict[str, Any] = json.loads((Path(home) / "load" / name / "report.json").read_bytes())
    return report


def measure(home: str, port: int, processes: list[int], name: str, given: dict[str, str]) -> dict[str, Any]:
    """Return the figures of one layout in one round."""
    duration = f"duration_s={given['duration_s']}"
    load(home, port, f"{name}-warm", "rates=[50]", "duration_s=2", "warmup_s=0")
    before = cpu_s(processes)
    swept = load(home, port, name, f"rates=[{given['rates']}]", duration)
    used = cpu_s(processes) - before
    requests = sum(step["requests"] + step["warmup"] for step in swept["steps"])
    first = given["rates"].split(",")[0]
    searched = load(home, port, f"{name}-find", f"find={given['find']}", f"rates=[{first}]", duration)
    kept = float(searched["found"]["rate"] or first)
    [over] = load(home, port, f"{name}-over", f"rates=[{2 * kept:g}]", duration)["steps"]
    figures: dict[str, Any] = {
        "server_cpu_ms_per_request": used * 1e3 / requests,
        "kept_requests_per_s": searched["found"]["rate"] or 0.0,
        # twice what it keeps: whoever is let in is answered in time, the others are told when to come again
        "over_requests_per_s": 2 * kept,
        "over_admitted_p99_ms": over["latency"]["p99_ms"],
        "over_refused_share": _share(over, "429", "503"),
        "over_failed_share": 1 - _share(over, "200", "429", "503"),
    }
    for step in swept["steps"]:
        at = f"at_{step['rate']:g}"
        failed = step["requests"] - step["statuses"].get("200", 0)
        figures |= {f"{at}_{q}": step["latency"][q] for q in ("p50_ms", "p99_ms", "p99.9_ms")}
        figures |= {f"{at}_failed": failed, f"{at}_generator_late_p99_ms": step["lag"]["p99_ms"]}
        figures[f"{at}_generator_cpu_us"] = step["cpu_us"]
        for stage in ("engine", "total"):
            if stage in step["stages"]:
                figures[f"{at}_{stage}_p50_ms"] = step["stages"][stage]["p50_ms"]
    figures["generator_was_the_limit"] = searched["found"]["generator"]
    return figures


def _share(step: dict[str, Any], *statuses: str) -> float:
    return sum(step["statuses"].get(status, 0) for status in statuses) / step["requests"]


def middle(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians over rounds of what every round has; a flag is set where it was in any."""
    found: dict[str, Any] = {}
    for name in rounds[0]:
        values = [r[name] for r in rounds if r.get(name) is not None]
        if values:
            found[name] = any(values) if isinstance(values[0], bool) else round(statistics.median(values), 4)
    return found


def main(arguments: list[str]) -> None:
    """Measure, print and record."""
    given = {"home": "var", "rates": "50,100,200", "find": "p99_ms:20", "duration_s": "10", "rounds": "1", "only": ""}
    given |= dict(a.split("=", 1) for a in arguments)
    home, only = given["home"], [n for n in given["only"].split(",") if n]
    names = [n for n in (RIVAL, *LAYOUTS) if n == RIVAL or not only or n in only]
    started = machine()
    cells: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for turn in range(int(given["rounds"])):
        for name in names:
            with uvicorn(home) if name == RIVAL else serve(home, LAYOUTS[name]) as (port, processes):
                cells[name].append(measure(home, port, processes, f"bench-{name}-{turn}", given))
    rows = {name: middle(found) for name, found in cells.items()}
    rates = [f"{float(rate):g}" for rate in given["rates"].split(",")]
    columns = [f"at_{rate}_{q}" for rate in rates for q in ("p50_ms", "p99_ms")]
    columns += ["kept_requests_per_s", "over_admitted_p99_ms", "over_refused_share", "over_failed_share"]
    columns += ["server_cpu_ms_per_request"]
    print(f"{'layout':18}", *(f"{c.replace('_requests_per_s', '/s').replace('_per_request', ''):>16}" for c in columns))
    for name, row in rows.items():
        print(f"{name:18}", *(f"{row[c]:>16.2f}" if c in row else f"{'-':>16}" for c in columns))
    ratios = {
        name: {c: round(row[c] / rows[RIVAL][c], 2) for c in columns if row.get(c) and rows[RIVAL].get(c)}
        for name, row in rows.items()
        if name != RIVAL
    }
    for name, ratio in ratios.items():
        print(f"{name} / {RIVAL}:", ratio)
    figures = {"rows": rows, "over_uvicorn": ratios, **{n: given[n] for n in ("rates", "find", "duration_s", "rounds")}}
    print(record("serving", figures, started))


if __name__ == "__main__":
    main(sys.argv[1:])
