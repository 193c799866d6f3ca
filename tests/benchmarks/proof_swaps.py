"""Bundles published under load: how many requests fail, which bundle answers when, and what a broken one does.

    python tests/benchmarks/proof_swaps.py home=var [swaps=20] [rate=60] [every_s=3]

A real `playbill serve` (two replicas behind HAProxy) follows what is published. While it is asked in an open loop, a
fifth of it events, two bundles are published in turn, `swaps` times; the seventh is a third one, of which a byte was
changed after it was published. Needs a home with the demo's published bundle and its training runs.
"""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from fault_shop import PORTS, Shop, kept, under_load
from record import machine, record

from playbill.bundle.manifest import State
from playbill.bundle.write import CURRENT, current, publish, seal, set_state
from playbill.tables.files import write_atomic

BROKEN_AT = 7


def main(arguments: list[str]) -> int:
    """Swap, print and record."""
    given = {"home": "var", "swaps": "20", "rate": "60", "every_s": "3"} | dict(a.split("=", 1) for a in arguments)
    started, source = machine(), Path(given["home"]).absolute()
    swaps, every_s = int(given["swaps"]), float(given["every_s"])
    with tempfile.TemporaryDirectory(prefix="pb-swaps-") as folder:
        shop = Shop(source, Path(folder))
        try:
            shutil.copytree(source / "runs", shop.home / "runs")
            bundles = shop.home / "bundles"
            first = current(bundles)
            assert first is not None
            other, spoilt = (made(shop.home, days) for days in (30, 60))
            taken: list[float] = []
            seen: Counter[str] = Counter()
            broken: dict[str, Any] = {}

            def publishing(over: threading.Event) -> dict[str, Any]:
                for n in range(1, swaps + 1):
                    if n == BROKEN_AT:
                        spoil(bundles / spoilt)
                        write_atomic(bundles / CURRENT, f"{spoilt}\n".encode())
                        over.wait(every_s)
                        broken.update(of_12_healths_say_so=said(lambda h: spoilt in (h["failed_bundle"] or "")))
                        continue
                    wanted = other if current(bundles) != other else first
                    publish(bundles, wanted)
                    began = time.monotonic()
                    while said(lambda h, wanted=wanted: h["bundle"] == wanted) < 12 and time.monotonic() < began + 30:
                        time.sleep(0.05)
                    taken.append(time.monotonic() - began)
                    seen[wanted] += 1
                    over.wait(max(0.0, every_s - (time.monotonic() - began)))
                return {}

            seconds = 5 + (swaps + 2) * every_s
            found, told = under_load("swaps", float(given["rate"]), seconds, 0, publishing, 5.0)
            figures = {
                **found,
                "swaps": swaps,
                "of_them_broken": 1,
                "published": dict(seen),
                "taken_up_after_s": {"median": sorted(taken)[len(taken) // 2], "worst": max(taken)},
                "broken": broken,
                "events_kept": kept(shop.state, told),
            }
        finally:
            shop.close()
    print(json.dumps(figures, indent=1))
    print(f"written to {record('swaps', figures, started)}")
    return 0


def made(home: Path, half_life_days: int) -> str:
    """Return the version of a bundle of the same runs that trends otherwise, sealed for this proof."""
    before = {path.name for path in (home / "bundles").iterdir()}
    command = [sys.executable, "-m", "playbill.cli", "export", f"home={home}", f"half_life_days={half_life_days}"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    [version] = {path.name for path in (home / "bundles").iterdir() if path.is_dir()} - before
    for state in (State.EVALUATED, State.GATED):
        set_state(home / "bundles" / version, state)
    seal(home / "bundles" / version)
    return version


def spoil(bundle: Path) -> None:
    """Change one byte of a sealed bundle."""
    data = bytearray((bundle / "popularity.npy").read_bytes())
    data[-1] ^= 1
    (bundle / "popularity.npy").write_bytes(data)


def said(true: Any) -> int:
    """Return how many of twelve answers of health meet a condition."""
    found = 0
    for _ in range(12):
        line = http.client.HTTPConnection("127.0.0.1", PORTS["port"], timeout=10)
        try:
            line.request("GET", "/v1/health")
            found += bool(true(json.loads(line.getresponse().read())))
        finally:
            line.close()
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
