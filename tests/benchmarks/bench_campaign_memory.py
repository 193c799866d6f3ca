"""Memory of a campaign's run by the size of its audience: does it stay the same from 100,000 to millions?

    python tests/benchmarks/bench_campaign_memory.py home=DIR [sizes=100000,400000,1600000] [workers=2]

Wants the home of `bench_campaign.py`. Its users are there over and over under new ids, of whom the store knows nothing
(they get what is popular); every thousandth is one of whom it does. Each run is a process of its own; what is measured
is the most that the driver and that any worker held at a time, without pages of files that others could have (PSS less
shared ones would hide what is theirs): RssAnon of /proc, ten times a second.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import polars as pl
from record import machine, record

from playbill.bundle.write import current
from playbill.campaign.brand import BrandRules
from playbill.campaign.copy_file import Copy, decide, propose, write_copy

BLOCKS = "campaign.blocks=[{name: hero, k: 4}, {name: picks, k: 6}, {name: more, k: 6}]"
TABLES = "reference"


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    home, started = Path(given.get("home", "var")).absolute(), machine()
    sizes = [int(size) for size in given.get("sizes", "100000,400000,1600000").split(",")]
    workers = given.get("workers", "2")
    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
            mine = _home(Path(scratch), home, size)
            rows.append({"recipients": size, **_run(mine, home, workers)})
            print(rows[-1])
    last = rows[-1]
    growth = (last["worker_mb"] / rows[0]["worker_mb"]) if rows[0]["worker_mb"] else None
    figures: dict[str, Any] = {"rows": rows, "worker_growth": growth, "workers": int(workers)}
    print(f"written to {record('campaign_memory', figures, started)}")
    return 0


def _home(scratch: Path, home: Path, size: int) -> Path:
    """Return a home with so many users, and all else of another."""
    tables = scratch / "tables" / TABLES
    shutil.copytree(home / "tables" / TABLES, tables, copy_function=os.link)
    users = pl.read_parquet(tables / "users.parquet")
    place = pl.int_range(size, eager=True)
    copies = users[(place % len(users))].with_columns(
        user_id=pl.when(place % 1000 == 0)
        .then(pl.col("user_id"))
        .otherwise(place + 10**9)
        .cast(users.schema["user_id"])
    )
    (tables / "users.parquet").unlink()
    copies.unique("user_id", maintain_order=True).write_parquet(tables / "users.parquet")
    for name in ("bundles", "state"):
        (scratch / name).symlink_to(home / name)
    path = scratch / "subjects.json"
    write_copy(path, Copy(facts=[], rules=BrandRules()))
    propose(path, ["What to see tonight", "Picked for your week"], "a")
    for name in ("v1", "v2"):
        decide(path, name, "ada", True)
    return scratch


def _run(home: Path, original: Path, workers: str) -> dict[str, Any]:
    """Return the most that driver and worker held, in MB, and how long the run took."""
    version = current(original / "bundles")
    times = original / "runs" / "reference-campaign"
    command = [
        sys.executable, "-m", "playbill.cli", "campaign", "run", f"home={home}", f"tables={TABLES}",
        "campaign.name=memory", BLOCKS, f"campaign.subjects={home}/subjects.json", f"send_times={times}",
        f"bundle={version}", f"workers={workers}", "campaign.caps=[]", "preview=0", "at=2026-11-20T12:00Z",
    ]  # fmt: skip
    began = time.monotonic()
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    driver = worker = 0
    while process.poll() is None:
        driver = max(driver, _anonymous(process.pid))
        worker = max([worker, *(_anonymous(pid) for pid in _workers(process.pid))])
        time.sleep(0.1)
    assert process.returncode == 0, f"the run ended with {process.returncode}"
    took_s = time.monotonic() - began
    return {"driver_mb": driver // 1024, "worker_mb": worker // 1024, "seconds": round(took_s, 1)}


def _workers(driver: int) -> list[int]:
    """Return the processes below the driver that decide shards: Ray names them after what they run."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != driver:
            try:
                name = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if name.startswith(b"ray::") and b"IDLE" not in name:
                found.append(int(folder.name))
    return found


def _anonymous(pid: int) -> int:
    """Return kB that a process holds for itself; 0 where it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
