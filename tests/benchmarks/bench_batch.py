"""Batch: `playbill batch` against a plain loop over the same engine that writes the same files, in one run.

    python tests/benchmarks/bench_batch.py home=var [copies=10]

The audience are the people of MovieLens-100K, each `copies` times over with the same events under an id of its own, so
that the start of Ray does not hide the scoring. Needs a published bundle and its tables.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record

from playbill.serving import load, parts
from playbill.serving.slates import SlateWriter
from playbill.state.events import Event
from playbill.state.store import Store
from playbill.tables.folder import read_table

SHARD_USERS = 256
STEP = 1_000_000  # between a person's id and that of the first copy


def multiply(home: Path, original: Path, tables: str, copies: int) -> int:
    """Make a home whose state knows every person `copies` times; return how many people that is."""
    shutil.copytree(original / "bundles", home / "bundles")
    shutil.copytree(original / "state", home / "state")
    users = read_table(original / "tables" / tables, "users", ["user_id"])["user_id"]
    names = ["event_id", "event", "user_id", "item_id", "at", "value"]
    events = read_table(original / "tables" / tables, "events", names)
    events = events.set_column(4, "at", events["at"].cast(pa.int64())).to_pylist()
    with Store.open(home / "state") as store:
        for copy in range(1, copies):
            copied = [
                Event(**{**e, "event_id": e["event_id"] + copy * 10**9, "user_id": e["user_id"] + copy * STEP})
                for e in events
            ]
            store.import_events(copied, {})
    everybody = pa.chunked_array([pc.add(users, copy * STEP) for copy in range(copies)])
    pq.write_table(pa.table({"user_id": everybody}), home / "audience.parquet")
    return len(everybody)


def plain_loop(home: Path) -> float:
    """Score everybody in one process, part after part; return the seconds without the opening of the bundle."""
    users = pq.read_table(home / "audience.parquet")["user_id"].combine_chunks()
    plan = parts.make_plan(
        name="loop", bundle=load.bundle_path(home, "current").name, k=20, surface="slate",
        at=time.time_ns() // 1000, state_version=0, users=users, shard_users=SHARD_USERS,
    )  # fmt: skip
    folder = home / "batch" / "loop"
    parts.begin(folder, plan)
    writer = SlateWriter(str(home), str(folder), plan, False)
    began = time.perf_counter()
    for row in parts.split(users, plan, range(plan.num_parts)):
        writer(row)
    parts.finish(folder, plan)
    return time.perf_counter() - began


def ray_data(home: Path, workers: int) -> dict[str, float]:
    """Run the job; return its seconds in all, and those between its first and its last part."""
    name = f"ray-{workers}"
    command = [
        sys.executable, "-m", "playbill.cli", "batch", f"home={home}", f"audience={home}/audience.parquet",
        f"name={name}", f"workers={workers}", f"shard_users={SHARD_USERS}",
    ]  # fmt: skip
    began = time.perf_counter()
    subprocess.run(command, check=True)
    whole = time.perf_counter() - began
    written = sorted(p.stat().st_mtime for p in (home / "batch" / name).glob("part-*"))
    # the first part of each worker started at an unknown moment, so those parts are left out
    return {
        "whole_s": whole,
        "steady_users_per_s": (len(written) - workers) * SHARD_USERS / (written[-1] - written[workers - 1]),
    }


def main(arguments: list[str]) -> None:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    copies = int(given.get("copies", "10"))
    started = machine()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        users = multiply(home, Path(given.get("home", "var")), given.get("tables", "ml-100k"), copies)
        loop_s = plain_loop(home)
        figures: dict[str, Any] = {"users": users, "k": 20, "loop_s": loop_s, "loop_users_per_s": users / loop_s}
        for workers in (1, 2):
            found = ray_data(home, workers)
            figures[f"ray_data_{workers}"] = {
                **found,
                "users_per_s_start_included": users / found["whole_s"],
                "steady_over_loop": found["steady_users_per_s"] * loop_s / users,
                "whole_over_loop": loop_s / found["whole_s"],
            }
        success = parts.read_success(home / "batch" / "ray-2")
        figures["rungs"] = success.rungs if success else {}
    print(f"plain loop: {figures['loop_users_per_s']:.0f} users/s")
    for workers in (1, 2):
        f = figures[f"ray_data_{workers}"]
        print(
            f"Ray Data, {workers} workers: {f['steady_users_per_s']:.0f} users/s ({f['steady_over_loop']:.2f} x), "
            f"start included {f['users_per_s_start_included']:.0f} users/s ({f['whole_over_loop']:.2f} x)"
        )
    print(record("batch", figures, started))


if __name__ == "__main__":
    main(sys.argv[1:])
