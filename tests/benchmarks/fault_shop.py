"""A real server and real callers, for `proof_faults.py`: who asks, what becomes of it, what is left in the store."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
from array import array
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from playbill.serving import processes, running
from playbill.serving.loading.connection import WITHOUT_STATUS
from playbill.serving.loading.open_loop import Sent, send_all
from playbill.state.store import Store

PORTS = {
    "port": 18910, "haproxy_stats_port": 18911, "haproxy_metrics_port": 18912, "proxy_port": 18913,
    "metrics_port": 18914, "figures_port": 18915, "replica_ports": 19000,
}  # fmt: skip
USERS, ITEMS, EVENTS_SHARE, TIMEOUT_S = 943, 1682, 0.2, 10.0


class Shop:
    """`playbill serve` with two replicas behind HAProxy, in a home whose bundles are another's."""

    def __init__(self, source: Path, folder: Path, state: str | None = None, env: dict[str, str] | None = None) -> None:
        """Copy the home without its state and start the server.

        Args:
            source: home with a published bundle.
            state: where the store is; None: in the copy.
            env: on top of this process's environment.
        """
        self.home = folder / "home"
        self.home.mkdir()
        for name in ("bundles", "tables"):
            shutil.copytree(source / name, self.home / name)
        self.state = state or str(self.home / "state")
        self._env = {**os.environ, **(env or {})}
        self._playbill("ingest", f"state='{self.state}'", timed=False)
        given = {**PORTS, "drain_s": 1, "replicas": 2, "max_queued": 256, "detach": "true", "state": f"'{self.state}'"}
        self._playbill("serve", *(f"{name}={value}" for name, value in given.items()))
        found = running.read(self.home)
        assert found is not None
        self.mark = found.mark

    def _playbill(self, *arguments: str, timed: bool = True) -> None:
        command = [sys.executable, "-m", "playbill.cli", arguments[0], f"home={self.home}", *arguments[1:]]
        subprocess.run(command, check=True, env=self._env if timed else None)

    def close(self) -> None:
        """Stop the server."""
        self._playbill("serve", "stop=true")

    def pids(self, title: str) -> list[int]:
        """Return the processes of this server whose program begins with a name, such as `ray::ServeReplica`."""
        found = []
        for pid in processes.marked(self.mark):
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if Path(line.split("\0")[0]).name.startswith(title):
                found.append(pid)
        return sorted(found)


def callers(name: str, rate: float, seconds: float, seed: int) -> tuple[list[bytes], array[float], list[str]]:
    """Return requests as bytes, the seconds at which they are due, and each event's id (empty: it asks for a slate)."""
    draws, dice = np.random.default_rng(seed), random.Random(seed)
    due = np.sort(draws.uniform(0, seconds, max(int(draws.poisson(rate * seconds)), 1)))
    payloads, ids = [], []
    for n in range(len(due)):
        person = dice.randint(1, USERS)
        if dice.random() < EVENTS_SHARE:
            ids.append(f"{name}-{n}")
            event = {"event_id": ids[-1], "event": "rate", "user_id": person, "item_id": dice.randint(1, ITEMS)}
            payloads.append(post("/v1/events", {**event, "value": dice.randint(1, 5)}))
        else:
            ids.append("")
            payloads.append(post("/v1/recommend", {"user_id": person, "k": 20}))
    return payloads, array("d", due.tolist()), ids


def post(path: str, body: Any) -> bytes:
    """Return a request as it goes over the wire; a body of bytes goes as it is."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(data)}"
    return head.encode() + b"\r\n\r\n" + data


def under_load(
    name: str, rate: float, seconds: float, seed: int, fault: Callable[[threading.Event], Any], at_s: float
) -> tuple[dict[str, Any], list[str]]:
    """Send requests for so long while a fault happens; return what became of them, and the ids that were acknowledged.

    Args:
        fault: called once the load has gone on for `at_s`; given what is set when the load ends.
    """
    payloads, due, ids = callers(name, rate, seconds, seed)
    over = threading.Event()
    told: list[dict[str, Any]] = []
    sent: list[Sent] = []
    sender = threading.Thread(
        target=lambda: sent.append(
            send_all(("127.0.0.1", PORTS["port"]), payloads, due, connections=256, timeout_s=TIMEOUT_S)
        )
    )
    sender.start()
    over.wait(at_s)
    causes = threading.Thread(target=lambda: told.append(fault(over) or {}))
    causes.start()
    sender.join()
    over.set()
    causes.join()
    if not told:
        raise RuntimeError(f"{name} did not happen: see the trace above")
    return {**figures(sent[0], ids, at_s), **told[0]}, acknowledged(sent[0], ids)


def figures(sent: Sent, ids: list[str], at_s: float) -> dict[str, Any]:
    """Return counts by status and the latencies before and after the fault, of slates and of events."""
    status, due, done = (np.asarray(a) for a in (sent.status, sent.due, sent.done))
    event = np.asarray([bool(i) for i in ids])
    began = due.min()
    found: dict[str, Any] = {}
    for kind, mine in (("slates", ~event), ("events", event)):
        bad = mine & (status != 200)
        took_ms = (done - due)[mine & (status == 200)] * 1e3
        late = mine & (due - began >= at_s) & (status == 200)
        found[kind] = {
            "sent": int(mine.sum()),
            "failed": int(bad.sum()),
            "by_status": {WITHOUT_STATUS.get(s, str(s)): n for s, n in sorted(Counter(status[bad].tolist()).items())},
            "last_failure_after_s": round(float((due[bad] - began).max() - at_s), 2) if bad.any() else None,
            "p50_ms": round(float(np.percentile(took_ms, 50)), 2) if len(took_ms) else None,
            "p99_ms": round(float(np.percentile(took_ms, 99)), 2) if len(took_ms) else None,
            "worst_after_ms": round(float((done - due)[late].max() * 1e3), 1) if late.any() else None,
        }
    rungs = Counter(r.decode() for r, e, s in zip(sent.rung, event, status, strict=True) if not e and s == 200)
    found["rungs"] = dict(rungs.most_common())
    return found


def acknowledged(sent: Sent, ids: list[str]) -> list[str]:
    """Return the ids of the events that were answered 200."""
    return [i for i, status in zip(ids, sent.status, strict=True) if i and status == 200]


def kept(state: str, told: list[str]) -> dict[str, int]:
    """Return how many of the acknowledged events the store holds, how many it lost, and how many stand there twice."""
    with Store.open(state, readonly=True) as store:
        counts = Counter(event.event_id for _, _, event in store.events())
    return {
        "acknowledged": len(told),
        "lost": sum(counts[i] == 0 for i in told),
        "twice": sum(n > 1 for i, n in counts.items()),
    }
