"""What each process of a server has counted, in a file each, so that any of them can tell the sum.

    <folder>/<pid>-<began>.json     written anew every second; that of a process which ended stays, so sums never fall

Figures come and go with the server: files are replaced without waiting for the disk.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from playbill.serving.figures.counts import Buckets, Labels, Values
from playbill.serving.figures.drift import Shown, psi
from playbill.serving.figures.names import FIGURES, Together
from playbill.serving.processes import began_at

FOLDER = "PLAYBILL_FIGURES"  # environment: where the processes of one server on one machine put their snapshots


class Snapshot(msgspec.Struct, kw_only=True):
    """One process at one moment.

    Attributes:
        pid, began: which process: its id, and when the kernel started it, which tells it from a later one of that id.
        gauges: left out of the sum once the process has ended, and so is `shown`.
        shown: the last scores that were shown, by rung.
    """

    pid: int
    began: str
    counters: list[tuple[str, Labels, float]] = []
    histograms: list[tuple[str, Labels, Buckets]] = []
    gauges: list[tuple[str, Labels, float]] = []
    shown: dict[str, Shown] = {}


class Sum(msgspec.Struct, kw_only=True):
    """All processes of a server."""

    counters: Values = {}
    histograms: dict[tuple[str, Labels], Buckets] = {}
    gauges: Values = {}


_decode = msgspec.json.Decoder(Snapshot).decode


def write(folder: Path, snapshot: Snapshot) -> None:
    """Put a process' snapshot in place of its last one."""
    path = folder / f"{snapshot.pid}-{snapshot.began}.json"
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(snapshot))
    os.replace(fresh, path)


def read(folder: Path) -> list[Snapshot]:
    """Return the last snapshots of all processes, of those that ended too."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(_decode(path.read_bytes()))
        except (OSError, msgspec.MsgspecError):  # of another version of Playbill, or just removed
            continue
    return found


def add_up(snapshots: Sequence[Snapshot]) -> Sum:
    """Return what all processes amount to."""
    total = Sum()
    gauges: dict[tuple[str, Labels], list[float]] = {}
    shown: dict[str, list[Shown]] = {}
    living = 0
    for snapshot in snapshots:
        for name, labels, value in snapshot.counters:
            total.counters[name, labels] = total.counters.get((name, labels), 0) + value
        for name, labels, buckets in snapshot.histograms:
            before = total.histograms.get((name, labels))
            total.histograms[name, labels] = buckets if before is None else _added(before, buckets)
        if began_at(snapshot.pid) != snapshot.began:
            continue
        living += 1
        for name, labels, value in snapshot.gauges:
            gauges.setdefault((name, labels), []).append(value)
        for rung, mine in snapshot.shown.items():
            shown.setdefault(rung, []).append(mine)
    total.gauges = {key: _one(FIGURES[key[0]].together, values) for key, values in gauges.items() if key[0] in FIGURES}
    total.gauges["processes", ()] = living
    for rung, every in shown.items():
        index, scores = psi(every)
        total.gauges["score_drift_scores", (rung,)] = scores
        if index is not None:
            total.gauges["score_drift", (rung,)] = index
    return total


def _added(one: Buckets, other: Buckets) -> Buckets:
    return Buckets([a + b for a, b in zip(one.counts, other.counts, strict=True)], one.total + other.total)


def _one(together: Together, values: list[float]) -> float:
    match together:
        case Together.MOST:
            return max(values)
        case Together.LEAST:
            return min(values)
        case Together.MEAN:
            return sum(values) / len(values)
    return sum(values)
