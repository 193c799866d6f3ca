"""Logs of 1, 10 and 100 million events: folded through files, then read once in training order; time and memory.

    python tests/benchmarks/proof_scale.py [home=var] [events=1000000,10000000,100000000] [people=1000000]
        [items=100000] [compare=10000000] [keep=false]

Each size is a log of its own, written batch by batch with numpy (people and items by power laws, as many of them at
every size, so that what grows, grows with the events), and each measurement a process of its own, so that peaks of
memory are its own: `peak_mib` is all that is resident, pages of mapped files included, which the system takes back when
it wants to; `peak_own_mib` is memory that only this process holds. The fold in memory stands beside the one through
files up to `compare` events; both must give the same pool. Logs and pools are removed afterwards unless keep=true.
Needs 15 GB of disk for 100 million events.
"""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record

from playbill.dataset.arrays import BLOCK, read_blocks, release
from playbill.dataset.dataset import Dataset, dataset_fingerprint, open_dataset, pools_of
from playbill.dataset.order import epoch_order
from playbill.dataset.settings import SplitKind, SplitSettings
from playbill.features.settings import FeatureSettings
from playbill.tables.folder import describe_folder
from playbill.tables.schema import CONTRACT, Column, EventKind, Kind

DEVICES = np.asarray(["phone", "desk", "tv"])
DAYS = 365
PEOPLE_AT_A_TIME = 4096
FEATURES = FeatureSettings(context=["hour", "weekday", "device"])
SPLIT = SplitSettings(kind=SplitKind.global_time)
KINDS = (EventKind(name="view"), EventKind(name="rate", low=1, high=5))


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    if "measure" in given:
        print(json.dumps(measure(Path(given["tables"]), given["measure"])))
        return 0
    home = Path(given.get("home", "var"))
    sizes = [int(n) for n in given.get("events", "1000000,10000000,100000000").split(",")]
    people, items = int(given.get("people", 1_000_000)), int(given.get("items", 100_000))
    compare = int(given.get("compare", 10_000_000))
    started = machine()
    figures: dict[str, Any] = {}
    for size in sizes:
        tables = home / "tables" / f"scale-{size}-{people}-{items}"
        seconds = -time.perf_counter()
        if not (tables / "tables.json").is_file():
            write_log(tables, size, people, items)
        seconds += time.perf_counter()
        found: dict[str, Any] = {"people": people, "items": items, "write_s": round(seconds, 1)}
        found["parquet_mib"] = round((tables / "events.parquet").stat().st_size / 2**20)
        shutil.rmtree(pools_of(tables) / dataset_fingerprint(tables, FEATURES, SPLIT), ignore_errors=True)
        roads = ["files", "epoch", *(["memory"] if size <= compare else [])]
        for road in roads:
            found[road] = apart(tables, road)
            print(f"{size:>11,} {road:7}", found[road], flush=True)
        if "memory" in roads:
            assert found["memory"]["pool"] == found["files"]["pool"], "the two folds differ"
        if given.get("keep") != "true":
            shutil.rmtree(tables)
            shutil.rmtree(pools_of(tables) / found["files"]["fingerprint"])
        figures[str(size)] = found
    print(f"written to {record('scale', figures, started)}")
    return 0


def apart(tables: Path, what: str) -> dict[str, Any]:
    """Return a measurement made in a process of its own."""
    command = [sys.executable, __file__, f"tables={tables}", f"measure={what}"]
    answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return answer


def measure(tables: Path, what: str) -> dict[str, Any]:
    """Return events a second and peaks of memory of one road: files, memory, or an epoch over the kept pool."""
    own = OwnMemory()
    before_mib = own.peak_mib()
    began, cpu = time.perf_counter(), time.process_time()
    dataset = open_dataset(tables, FEATURES, SPLIT, stream_above_events=2**62 if what == "memory" else 0)
    seconds = time.perf_counter() - began
    figures: dict[str, Any] = {}
    if what == "epoch":
        figures["open_s"] = round(seconds, 2)
        began, cpu = time.perf_counter(), time.process_time()
        read_epoch(dataset)
        seconds = time.perf_counter() - began
    figures |= {
        "seconds": round(seconds, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "events_per_s": round(dataset.counts.rows / seconds),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "peak_own_mib": own.peak_mib(),
        "start_own_mib": before_mib,
    }
    if what != "epoch":
        figures |= {"fingerprint": dataset.fingerprint, "pool": digest(dataset), "kept": dataset.counts.events}
    return figures


def read_epoch(dataset: Dataset) -> float:
    """Read every event once in the order of an epoch, as a trainer of sequences does; return a sum of what was read."""
    pool, total = dataset.pool, 0.0
    order = epoch_order(pool.offsets, seed=1, epoch=0)
    for start in range(0, len(order), PEOPLE_AT_A_TIME):
        people = order[start : start + PEOPLE_AT_A_TIME]
        first, lengths = pool.offsets[people], pool.offsets[people + 1] - pool.offsets[people]
        rows = np.repeat(first - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        for array in (pool.item, pool.code, pool.value, pool.at, dataset.context_arrays["context_device"]):
            total += float(array[rows].sum())
            release(array)
    return total


def digest(dataset: Dataset) -> str:
    """Return a hash of all arrays of the pool and its split."""
    hashed = hashlib.sha256()
    pool = dataset.pool
    for array in (pool.item, pool.code, pool.value, pool.at, pool.person, dataset.split.part, pool.source_row):
        for block in read_blocks(array):
            hashed.update(np.ascontiguousarray(block).data)
    return hashed.hexdigest()


def write_log(path: Path, events: int, people: int, items: int) -> None:
    """Write tables of a made-up service, events in order of time, in bounded memory."""
    path.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(events)
    schema = pa.schema(
        [
            ("event_id", pa.int64()),
            ("user_id", pa.int64()),
            ("event", pa.string()),
            ("at", pa.timestamp("us", tz="UTC")),
            ("item_id", pa.int64()),
            ("value", pa.float64()),
            ("device", pa.string()),
        ]
    )
    step_us = DAYS * 86_400_000_000 / events
    with pq.ParquetWriter(path / "events.parquet", schema, compression="zstd") as writer:
        for start in range(0, events, BLOCK):
            n = min(BLOCK, events - start)
            number = start + np.arange(n)
            rated = draw.random(n) < 0.2
            value = np.where(rated, draw.integers(1, 6, n), np.nan)
            columns = [
                pa.array(number * 7),
                pa.array(scattered(power_law(draw, n, people), people)),
                pa.array(np.where(rated, "rate", "view")),
                pa.array((number * step_us + draw.random(n) * 60e6).astype(np.int64)).cast(schema.field("at").type),
                # a few name items that the table does not know
                pa.array(scattered(power_law(draw, n, items + items // 500), items + items // 500)),
                pa.array(value, mask=np.isnan(value)),
                pa.array(DEVICES[draw.integers(0, 3, n)]),
            ]
            writer.write_table(pa.table(columns, schema=schema))
    users = pa.table({"user_id": np.arange(people), "plan": np.asarray(["free", "plus"])[np.arange(people) % 2]})
    shelf = pa.table({"item_id": np.arange(items), "provider": pa.array([f"p{i % 50}" for i in range(items)])})
    pq.write_table(users, path / "users.parquet")
    pq.write_table(shelf, path / "items.parquet")
    known = {c.name: c for c in CONTRACT["events"]}
    columns_of = {
        "users": [Column(name="user_id", kind=Kind.ID), Column(name="plan", kind=Kind.TEXT)],
        "items": [Column(name="item_id", kind=Kind.ID), Column(name="provider", kind=Kind.TEXT)],
        "events": [known[name] for name in schema.names],
    }
    describe_folder(path, source=path.name, columns=columns_of, events=KINDS)


def power_law(draw: np.random.Generator, n: int, size: int) -> np.ndarray:
    """Return [n] int64 ranks 0..size-1 whose frequency falls about as 1 / (rank + 10)."""
    return np.minimum(((size / 10 + 1) ** draw.random(n) - 1) * 10, size - 1).astype(np.int64)


def scattered(rank: np.ndarray, size: int) -> np.ndarray:
    """Return ids 0..size-1 for ranks, so that popular ids stand anywhere: multiplied by a number prime to the size."""
    factor = int(size * 0.618)
    while np.gcd(factor, size) != 1:
        factor += 1
    return rank * factor % size


class OwnMemory:
    """The largest memory that this process had to itself, sampled fifty times a second."""

    def __init__(self) -> None:
        self._peak = self._now()
        threading.Thread(target=self._watch, daemon=True).start()

    def peak_mib(self) -> int:
        self._peak = max(self._peak, self._now())
        return round(self._peak / 1024)

    def _watch(self) -> None:
        while True:
            self._peak = max(self._peak, self._now())
            time.sleep(0.02)

    def _now(self) -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1])
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
