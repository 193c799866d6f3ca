"""Head-room: what a jump of the load does before autoscaling has added a replica, and how long that takes.

    python tests/benchmarks/bench_head_room.py home=var [shares=0.3,0.5,0.7,0.9] [growth=1.6] [find=p99_ms:20]
                                               [window_s=30]

First the highest rate that one replica keeps is found. Then, for each share of it, a server of one replica that may
become two is put under that share, and the load grows at once by `growth`; during the first window a replica is added
where Serve sees need, the second shows what came of it. While a replica is missing, what exceeds the one's rate waits
or is refused, so the share that answers everything in the first window is how full replicas may be for such a jump: the
rest is head-room. Needs a published bundle, an ingested state, and two cores besides those of the generator for figures
that mean anything.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from bench_http import SERVE
from bench_serving import load, serve
from record import machine, record

GROWS = {
    "replicas": 1,
    "ingress": "haproxy",
    "autoscale.most_replicas": 2,
    "autoscale.ongoing": 0.6,
    "autoscale.up_after_s": 2,
}


class Counting:
    """Asks for health on new connections, and notes when which replica was first heard."""

    def __init__(self, port: int) -> None:
        self.first: dict[str, float] = {}
        self._port, self._stopped, self.began = port, threading.Event(), time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Counting:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(0.1):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/v1/health", timeout=2) as response:
                    replica = json.loads(response.read())["replica"]
            except OSError:
                continue
            self.first.setdefault(replica, time.monotonic() - self.began)


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = {"home": "var", "shares": "0.3,0.5,0.7,0.9", "growth": "1.6", "find": "p99_ms:20", "window_s": "30"}
    given |= dict(a.split("=", 1) for a in arguments)
    home, window, growth, started = given["home"], given["window_s"], float(given["growth"]), machine()
    with serve(home, {"replicas": 1, "ingress": "haproxy"}) as (port, _):
        load(home, port, "head-warm", "rates=[50]", "duration_s=3", "warmup_s=0")
        found = load(home, port, "head-find", f"find={given['find']}", "rates=[50]", "duration_s=5")["found"]
    kept = found["rate"]
    if not kept:
        print(f"one replica keeps {given['find']} at no rate; give another", file=sys.stderr)
        return 1
    print(f"one replica keeps {given['find']} up to {kept:.0f} requests a second")
    rows = [_jump(home, float(share), kept, growth, window) for share in given["shares"].split(",")]
    for row in rows:
        print(row, flush=True)
    figures = {"kept_requests_per_s": kept, "generator_was_the_limit": found["generator"], "rows": rows, **given}
    figures.pop("home")
    print(record("head-room", figures, started))
    return 0


def _jump(home: str, share: float, kept: float, growth: float, window: str) -> dict[str, Any]:
    """Return what the load's growth from this share of the kept rate did, before and after a replica was added."""
    before, after = share * kept, share * kept * growth
    with serve(home, GROWS) as (port, _):
        load(home, port, "head-before", f"rates=[{before:g}]", "duration_s=5", "warmup_s=2")
        with Counting(SERVE["port"]) as counted:
            rates = f"rates=[{after:g},{after * 1.001:g}]"
            steps = load(home, port, "head-jump", rates, f"duration_s={window}", "warmup_s=0")
    added = sorted(counted.first.values())[1:]
    row: dict[str, Any] = {
        "share": share,
        "from_requests_per_s": round(before, 1),
        "to_requests_per_s": round(after, 1),
        "to_share": round(share * growth, 3),
        "s_until_a_replica_was_added": round(added[0], 1) if added else None,
    }
    for name, step in zip(("first_window", "second_window"), steps["steps"], strict=True):
        answered = step["statuses"].get("200", 0)
        row[name] = {
            "not_answered": round(1 - answered / step["requests"], 4),
            "p50_ms": step["latency"]["p50_ms"],
            "p99_ms": step["latency"]["p99_ms"],
            "generator_late_p99_ms": step["lag"]["p99_ms"],
        }
    return row


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
