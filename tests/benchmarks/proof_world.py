"""The simulated service at scale: how long it takes, how much memory, and whether grouping people changes a byte.

    python tests/benchmarks/proof_world.py [home=var] [size=shop] [days=0] [keep=false]

Every world is written by `playbill generate` in a process of its own, as a user would; wall time, processor time and
the peak memory of the whole process tree are taken from outside. In turn: tiny (from the call of `generate` to the
closed folder, five times), small, shop; twelve days of the shop with three groupings of people and numbers of threads,
whose files must be equal byte for byte; the same twelve days through `playbill prepare`, which must find no fault; and
a generation that is killed, which must leave no folder. `days=N` shortens the shop, for a look; 0 writes all of it.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record
from rich.console import Console
from rich.table import Table

from playbill.cli import compose
from playbill.tables.files import sha256_file
from playbill.tables.folder import read_folder

PLAYBILL = [sys.executable, "-m", "playbill.cli"]
LIMIT_S, LIMIT_GIB, LEAST_EVENTS, TINY_LIMIT_S = 600, 4.0, 40_000_000, 2.0
GROUPINGS = ((20_000, 3), (100_000, 2), (400_000, 1))  # people at once, threads
SOME_DAYS = 12


def main(arguments: list[str]) -> int:
    """Measure, print and record; return 1 when a bound is missed."""
    given = dict(a.split("=", 1) for a in arguments)
    home = Path(given.get("home", "var")) / "proof-world"
    size, days = given.get("size", "shop"), int(given.get("days", 0))
    started = machine()
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    large = frozen(home, size)
    figures: dict[str, Any] = {"tiny": tiny(home)}
    figures["small"] = written(home, "small", ["size=small"])
    figures["shop"] = written(home, "shop", [*large, *([f"size.days={days}"] if days else [])])
    figures["shop"]["days"] = days or "all"
    figures["shop_rows"] = read_back(home / "tables" / "shop")
    figures["grouping"] = groupings(home, large)
    figures["validation"] = validated(home)
    figures["killed"] = killed(home, large)
    figures["bounds"] = bounds(figures, whole=not days and size == "shop")
    show(figures)
    if given.get("keep", "false") != "true":
        shutil.rmtree(home)
    if not days and size == "shop":
        print(f"written to {record('world', figures, started)}")
    return 0 if all(figures["bounds"].values()) else 1


def frozen(home: Path, size: str) -> list[str]:
    """Return overrides that spell out world and size: presets may be edited while a long proof runs."""
    settings = compose("generate", [f"size={size}"])
    numbers = home / "parameters.yaml"
    numbers.write_bytes(msgspec.json.encode(settings.world))  # json is yaml, too
    spelt = [f"size.{f.name}={getattr(settings.size, f.name)}" for f in fields(settings.size)]
    return [f"size={size}", *spelt, f"parameters={numbers}"]


def tiny(home: Path) -> dict[str, Any]:
    """Return the seconds from the call of `generate` to the closed folder, of five runs in one fresh process."""
    code = (
        "import json, sys, time\n"
        "from playbill.cli import compose\n"
        "from playbill.world.build import build\n"
        "from playbill.world.generate import generate\n"
        "took = []\n"
        "for k in range(5):\n"
        "    settings = compose('generate', ['size=tiny', f'seed={k}'])\n"
        "    began = time.perf_counter()\n"
        "    world = build(settings.world, settings.size, settings.seed)\n"
        "    folder = generate(world, f'{sys.argv[1]}/tiny-{k}', settings)\n"
        "    took.append(round(time.perf_counter() - began, 3))\n"
        "print(json.dumps({'seconds': took, 'rows': folder.rows}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(home)], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def written(home: Path, name: str, overrides: list[str]) -> dict[str, Any]:
    """Write one world in a process of its own and return what it cost."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    command = [*PLAYBILL, "generate", f"home={home}", f"name={name}", *overrides]
    process = subprocess.Popen(command)
    peak = _Peak(process.pid)
    code = process.wait()
    wall_s = time.perf_counter() - began
    peak_gib = peak.stop()
    if code:
        raise SystemExit(f"{' '.join(command)} ended with {code}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    folder = home / "tables" / name
    rows = read_folder(folder).rows
    return {
        "command": " ".join(["playbill", "generate", *(o for o in overrides if "/" not in o)]),
        "wall_s": round(wall_s, 1),
        "cpu_s": round(cpu_s, 1),
        "load_after": round(os.getloadavg()[0], 2),
        "peak_gib": round(peak_gib, 2),
        "rows": rows,
        "events_per_s": round(rows["events"] / wall_s),
        "rows_per_s": round(sum(rows.values()) / wall_s),
        "gb_on_disk": round(sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e9, 3),
    }


class _Peak:
    """Samples the resident memory of a process and all its descendants, five times a second."""

    def __init__(self, pid: int) -> None:
        self._pid, self._most, self._over = pid, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Return the largest sum seen, GiB."""
        self._over.set()
        self._thread.join()
        return self._most

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            self._most = max(self._most, sum(map(_resident_gib, _tree(self._pid))))


def _tree(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(grandchild for child in children for grandchild in _tree(int(child)))]


def _resident_gib(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * resource.getpagesize() / 2**30


def read_back(folder: Path) -> dict[str, Any]:
    """Return what stands in the written tables, read in pieces: counts, order, lateness, propensities."""
    events = pl.scan_parquet(folder / "events.parquet")
    counts = dict(events.group_by("event").len().collect(engine="streaming").sort("event").iter_rows())
    file = pq.ParquetFile(folder / "events.parquet")
    last, ordered = -1, True
    for group in range(file.num_row_groups):
        at = file.read_row_group(group, columns=["at"])["at"].cast("int64").to_numpy()
        ordered = ordered and bool(at[0] >= last and np.all(np.diff(at) >= 0))
        last = int(at[-1])
    decisions = pl.read_parquet(
        folder / "decisions.parquet", columns=["decision_id", "kind", "propensity", "eligible_count", "at"]
    )
    kinds = {}
    for kind, rows in decisions.group_by("kind", maintain_order=True):
        excess = (1 / rows["propensity"] - rows["eligible_count"]).to_numpy()
        kinds[str(kind[0])] = {
            "rows": len(rows),
            "least_propensity": float(rows["propensity"].min() or 0),
            # an inverse propensity is worth the number of candidates on average: 0 within a few standard errors
            "inverse_propensity_minus_candidates": round(float(excess.mean()), 6),
            "standard_error": round(float(excess.std() / np.sqrt(len(rows))), 6),
        }
    answered = (
        events.filter(pl.col("decision_id").is_not_null())
        .select("decision_id", "at")
        .join(decisions.lazy().select("decision_id", pl.col("at").alias("decided")), on="decision_id", how="left")
        .collect(engine="streaming")
    )
    late_h = (answered["at"] - answered["decided"]).dt.total_seconds() / 3600
    return {
        "events_by_name": counts,
        "row_groups": file.num_row_groups,
        "ordered_by_time": ordered,
        "answers_to_decisions": len(answered),
        "answers_without_their_decision": answered["decided"].null_count(),
        "latest_answer_h": round(float(late_h.max() or 0), 2),  # type: ignore[arg-type]  # a float of this column
        "decisions_by_kind": kinds,
    }


def groupings(home: Path, large: list[str]) -> dict[str, Any]:
    """Write some days with several groupings of people; return whether all files agree, and the seconds of each."""
    found: dict[str, Any] = {"days": SOME_DAYS, "seconds": {}}
    digests = {}
    for chunk, threads in GROUPINGS:
        figures = written(
            home, f"by-{chunk}", [*large, f"size.days={SOME_DAYS}", f"chunk={chunk}", f"threads={threads}"]
        )
        folder = home / "tables" / f"by-{chunk}"
        files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
        digests[chunk] = {str(f.relative_to(folder)): sha256_file(f) for f in files}
        found["seconds"][f"{chunk} people, {threads} threads"] = {k: figures[k] for k in ("wall_s", "cpu_s")}
        found["rows"] = figures["rows"]
        found["files"] = len(files)
        if chunk != GROUPINGS[0][0]:
            shutil.rmtree(folder)
    found["equal"] = all(d == digests[GROUPINGS[0][0]] for d in digests.values())
    return found


def validated(home: Path) -> dict[str, Any]:
    """Put the written days through `playbill prepare` as anybody's files; return its verdict."""
    folder = home / "tables" / f"by-{GROUPINGS[0][0]}"
    command = [*PLAYBILL, "prepare", f"home={home}", "source=parquet", f"source.folder={folder}", "source.name=checked"]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    report = json.loads((home / "tables" / "checked" / "report" / "validation.json").read_bytes())
    rows = {name: r["rows_in"] for name, r in report["tables"].items()}
    kept = {name: r["rows_kept"] for name, r in report["tables"].items()}
    return {
        "rows": rows,
        "kept": kept,
        "faults": len(report["faults"]),
        "seconds": round(time.perf_counter() - began, 1),
    }


def killed(home: Path, large: list[str]) -> dict[str, Any]:
    """Kill a generation in the middle; return what it leaves, and what is left after the next one."""
    target = home / "tables" / "killed"
    command = [*PLAYBILL, "generate", f"home={home}", "name=killed", *large, "size.days=5"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    left: list[Path] = []
    while process.poll() is None and not left:
        time.sleep(0.05)
        left = list(target.parent.glob(".killed.*.tmp/events.parquet"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    stands = target.exists()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return {
        "killed_while_writing": bool(left),
        "folder_stood_after_the_kill": stands,
        "leavings_after_the_next_run": len(list(target.parent.glob(".killed.*.tmp"))),
        "rows_of_the_next_run": read_folder(target, verify=True).rows,
    }


def bounds(figures: dict[str, Any], *, whole: bool) -> dict[str, bool]:
    """Return which of the bounds hold."""
    shop, rows = figures["shop"], figures["shop_rows"]
    held = {
        f"tiny takes less than {TINY_LIMIT_S:g} s": max(figures["tiny"]["seconds"]) < TINY_LIMIT_S,
        "events stand in the order of time": rows["ordered_by_time"],
        "every answer finds its decision": rows["answers_without_their_decision"] == 0,
        "any grouping of people gives the same bytes": figures["grouping"]["equal"],
        "validation finds no fault": figures["validation"]["faults"] == 0,
        "a killed run leaves no folder": not figures["killed"]["folder_stood_after_the_kill"]
        and figures["killed"]["leavings_after_the_next_run"] == 0,
    }
    if whole:
        held |= {
            f"shop has {LEAST_EVENTS:,} events": shop["rows"]["events"] >= LEAST_EVENTS,
            f"shop takes at most {LIMIT_S} s": shop["wall_s"] <= LIMIT_S,
            f"shop takes at most {LIMIT_GIB:g} GiB": shop["peak_gib"] <= LIMIT_GIB,
        }
    return held


def show(figures: dict[str, Any]) -> None:
    """Print the figures."""
    console = Console(width=120)
    table = Table("world", "events", "decisions", "wall s", "cpu s", "peak GiB", "events/s", "GB")
    for name in ("small", "shop"):
        f = figures[name]
        numbers = (f["wall_s"], f["cpu_s"], f["peak_gib"], f"{f['events_per_s']:,}", f["gb_on_disk"])
        table.add_row(name, f"{f['rows']['events']:,}", f"{f['rows']['decisions']:,}", *map(str, numbers))
    console.print(table)
    console.print(f"tiny, five times: {figures['tiny']['seconds']} s")
    console.print({k: v for k, v in figures.items() if k not in ("small", "shop", "tiny", "bounds")})
    for bound, holds in figures["bounds"].items():
        console.print(f"{'holds ' if holds else 'MISSED'}  {bound}", style=None if holds else "bold red")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
