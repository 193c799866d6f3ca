"""What being watched costs a request: figures, and the slate log, on the thread that answers.

Slates are asked of the whole ASGI application in one process, over no socket, with and without each; the same people in
the same order, in turns, so that all meet the same moments of the machine. What threads beside it
take is in `process_cpu_us`.
`python tests/benchmarks/bench_watching.py home=var [rounds=5] [requests=2000]`; the home holds a published bundle.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record

from playbill.serving import load
from playbill.serving.figures.counts import Counts
from playbill.serving.http import Api
from playbill.serving.slatelog.settings import SlateLogSettings
from playbill.serving.slatelog.writer import SlateLog
from playbill.state.store import Store

WAYS = ("bare", "figures", "figures and slate log")


class Deaf:
    """A watch that notes nothing."""

    slate_log, tellers = None, ()

    def began(self, *_: Any) -> None: ...
    def refused(self, *_: Any) -> None: ...
    def answered(self, *_: Any) -> None: ...
    def finished(self, *_: Any) -> None: ...


def ask(api: Api, bodies: list[bytes]) -> np.ndarray:
    """Return [N] microseconds of CPU of the answering thread for each request, from its arrival to its last byte."""
    took = np.zeros(len(bodies))

    async def every() -> None:
        for n, body in enumerate(bodies):
            scope = {"type": "http", "method": "POST", "path": "/v1/recommend", "headers": [], "query_string": b""}

            async def receive(body: bytes = body) -> dict[str, Any]:
                return {"type": "http.request", "body": body, "more_body": False}

            async def send(message: Any) -> None: ...

            began = time.thread_time()
            await api(scope, receive, send)
            took[n] = (time.thread_time() - began) * 1e6

    asyncio.run(every())
    return took


def main(arguments: list[str]) -> None:
    given = {"home": "var", "rounds": "5", "requests": "2000"} | dict(a.split("=", 1) for a in arguments)
    started, home = machine(), given["home"]
    rng = np.random.default_rng(0)
    bodies = [b'{"user_id": %d, "k": 20}' % user for user in rng.integers(1, 900, int(given["requests"]))]
    took: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
    cpu: dict[str, list[float]] = {way: [] for way in WAYS}
    with Store.open(Path(home) / "state", readonly=True) as store, tempfile.TemporaryDirectory() as folder:
        api = Api(store)
        api.use(*load.open_engine(load.bundle_path(home, "current"), store))
        watch = api.watch
        ask(api, bodies[:200])
        log = SlateLog(folder, "bench", SlateLogSettings(), Counts())
        log.start()
        for _ in range(int(given["rounds"])):
            for way in WAYS:
                api.watch = Deaf() if way == "bare" else watch  # type: ignore[assignment]
                store.noting = way == WAYS[2]
                watch.slate_log = log if store.noting else None
                before = time.process_time()
                took[way].append(ask(api, bodies))
                while log.waiting:
                    time.sleep(0.01)
                cpu[way].append((time.process_time() - before) / len(bodies) * 1e6)
        size = log.size_bytes
        log.stop()
        compressed = log.size_bytes
        api.close()
    # of each request the quickest of its rounds: whatever else the machine does only adds
    best = {way: np.min(rounds, axis=0) for way, rounds in took.items()}
    slates = len(bodies) * int(given["rounds"])
    figures = {
        "requests": len(bodies),
        "rounds": int(given["rounds"]),
        "thread_p50_us": {way: round(float(np.median(us)), 1) for way, us in best.items()},
        "more_than_bare_us": {
            way: round(float(np.median(best[way] - best["bare"])), 1) for way in WAYS[1:]
        },
        "process_cpu_us": {way: round(min(us), 1) for way, us in cpu.items()},
        "slate_bytes": round(size / slates),
        "slate_bytes_compressed": round(compressed / slates),
    }  # fmt: skip
    print(figures)
    print(record("watching", figures, started))


if __name__ == "__main__":
    main(sys.argv[1:])
