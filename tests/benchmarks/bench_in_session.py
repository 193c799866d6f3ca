"""In session: how long from an event to a slate that knows it, over HTTP and two replicas, and what five events change.

    python tests/benchmarks/bench_in_session.py home=var [people=60] [port=8077] [seed=0]

`home` holds a published bundle (`playbill demo home=var`). Starts `playbill serve` with two replicas on a copy of its
state, which nothing else writes to.

Each visit begins with what the person is shown. Then five events, one after the other, on items of one category that
stand below the first ten: after each, eight slates are asked for, so that both replicas answer. What counts as changed
are items of the new top ten that were not in the old one; none of the visit's own items had stood there.
"""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record

from playbill.bundle.open import open_bundle
from playbill.serving.load import bundle_path

ASKED = 8  # slates after each event
LIMIT_MS = 50.0


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    home, port, started = Path(given.get("home", "var")), int(given.get("port", "8077")), machine()
    rng = np.random.default_rng(int(given.get("seed", "0")))
    bundle = open_bundle(bundle_path(home, "current"))
    with tempfile.TemporaryDirectory(prefix="playbill-in-session-") as folder:
        copy = Path(folder)
        for name in ("bundles", "state"):
            shutil.copytree(home / name, copy / name)
        cli = [sys.executable, "-m", "playbill.cli", "serve", f"home={copy}", f"port={port}"]
        subprocess.run([*cli, "replicas=2", "detach=true"], check=True, stdout=subprocess.DEVNULL)
        try:
            figures = measure(port, bundle, rng, int(given.get("people", "60")))
        finally:
            subprocess.run([*cli, "stop=true"], check=True, stdout=subprocess.DEVNULL)
    print(json.dumps(figures, indent=1))
    print(f"written to {record('in-session', figures, started)}")
    return 0


def measure(port: int, bundle: Any, rng: np.random.Generator, people: int) -> dict[str, Any]:
    """Return the figures of some visits, by people whom the store knows and by visitors without an id."""
    genres = dict(zip(bundle.items["item_id"], bundle.items["categories"].to_list(), strict=True))
    event = bundle.spec.events[0].name
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    users = rng.permutation(943)[:people] + 1
    known_ms: list[float] = []
    asked_again = 0
    moved: dict[str, list[int]] = {"known": [], "anonymous": []}
    for visit, user in enumerate(users.tolist()):
        for kind, who in (("known", {"user_id": user}), ("anonymous", {"session_id": f"bench-{visit}"})):
            before = ask(line, who, 100)
            at = int(time.time() * 1e6)
            liked = chosen(before["items"], genres)
            for n, item in enumerate(liked):
                began = time.perf_counter()
                told = post(line, "/v1/events", {**who, "event": event, "item_id": item, "value": 5, "at": at + n})
                slate = ask(line, who, 10)
                while slate["state_version"] < told["state_version"]:
                    asked_again += 1
                    slate = ask(line, who, 10)
                known_ms.append((time.perf_counter() - began) * 1e3)
                for _ in range(ASKED):
                    asked_again += ask(line, who, 10)["state_version"] < told["state_version"]
            after = [i["item_id"] for i in ask(line, who, 10)["items"]]
            moved[kind].append(len(set(after) - {i["item_id"] for i in before["items"][:10]}))
    return {
        "visits": 2 * len(users),
        "events": len(known_ms),
        "slates_that_did_not_know": asked_again,
        "event_to_slate_ms": {f"p{q:g}": round(float(np.percentile(known_ms, q)), 2) for q in (50, 90, 99, 100)},
        "share_within_50_ms": round(float(np.mean(np.asarray(known_ms) < LIMIT_MS)), 4),
        "new_among_ten_after_five_events": {
            kind: {
                "mean": round(float(np.mean(n)), 2),
                "share_with_two_or_more": round(float(np.mean(np.asarray(n) >= 2)), 3),
            }
            for kind, n in moved.items()
        },
    }


def chosen(items: list[dict[str, Any]], genres: dict[Any, list[str]]) -> list[Any]:
    """Return five items of the most frequent category below the first ten places."""
    below = items[10:]
    names = [name for item in below for name in genres[item["item_id"]]]
    for name in sorted(set(names), key=lambda n: (-names.count(n), n)):
        mine = [item["item_id"] for item in below if name in genres[item["item_id"]]]
        if len(mine) >= 5:
            return mine[:5]
    return [item["item_id"] for item in below[:5]]


def ask(line: http.client.HTTPConnection, who: dict[str, Any], k: int) -> dict[str, Any]:
    return post(line, "/v1/recommend", {**who, "k": k})


def post(line: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> dict[str, Any]:
    line.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = line.getresponse()
    read = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status} {read[:300]!r}")
    found: dict[str, Any] = json.loads(read)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
