"""How long a search waits for the slowest of many parts: by simulation from the times that parts really took.

A request asks S parts and is answered when the last one is; so at 100 parts everybody meets what one in a hundred calls
of a part takes. With a second copy of each part, a call that has not come back after the time that all but a few take
is put to the copy as well, and the first answer counts (a hedged request: Dean and Barroso, "The Tail at Scale", 2013).

Calls are drawn, each by itself, from those measured one at a time: parts with cores of their own, and no network
between them. The time for merging comes on top, as measured by S. No queue is simulated: load brings waiting on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FAN_OUT = (4, 8, 16, 32, 64, 128, 256)
DRAWS = 20_000
HEDGED_AFTER = (95.0, 99.0)  # percentiles of a call


def simulate(calls_ms: np.ndarray, merge_ms: Mapping[int, float], seed: int = 0) -> list[dict[str, Any]]:
    """Return, by number of parts, percentiles of the time of a request, plain and hedged.

    Args:
        calls_ms: [M] measured times of single calls, ms.
        merge_ms: time for merging, by number of parts.
    """
    rng, found = np.random.default_rng(seed), []
    for parts in FAN_OUT:
        first = _drawn(calls_ms, parts, rng)
        row: dict[str, Any] = {"parts": parts, "merge_ms": round(merge_ms[parts], 4)}
        row["plain"] = _percentiles(first.max(1) + merge_ms[parts])
        for percent in HEDGED_AFTER:
            after = float(np.percentile(calls_ms, percent))
            second = after + _drawn(calls_ms, parts, rng)
            late = first > after
            answered = np.where(late, np.minimum(first, second), first)
            row[f"hedged_after_p{percent:g}"] = {
                "after_ms": round(after, 3),
                **_percentiles(answered.max(1) + merge_ms[parts]),
                "calls_more": round(float(late.mean()), 4),
            }
        found.append(row)
    return found


def beside(calls_ms: np.ndarray, at_once_ms: np.ndarray) -> dict[str, Any]:
    """Return what requests to several parts took where these share the cores of one machine, beside the simulation.

    Args:
        calls_ms: [M] times of single calls, ms.
        at_once_ms: [R, S] times of the calls of R requests that asked S parts at once, ms.
    """
    drawn = _drawn(calls_ms, at_once_ms.shape[1], np.random.default_rng(1))
    return {"measured": _percentiles(at_once_ms.max(1)), "simulated": _percentiles(drawn.max(1))}


def _drawn(calls_ms: np.ndarray, parts: int, rng: np.random.Generator) -> np.ndarray:
    """Return [DRAWS, parts] calls, each of them a measured one."""
    return calls_ms[rng.integers(0, len(calls_ms), (DRAWS, parts))]


def _percentiles(ms: np.ndarray) -> dict[str, float]:
    p50, p99 = np.percentile(ms, [50, 99])
    return {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}


def plot(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Write p50 and p99 against the number of parts as png."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panel = plt.subplots(figsize=(7.2, 4.4))
    parts = [row["parts"] for row in rows]
    names = ["plain", *(f"hedged_after_p{percent:g}" for percent in HEDGED_AFTER)]
    for name, colour in zip(names, ("#d62728", "#1f77b4", "#2ca02c"), strict=True):
        for percentile, style in (("p50_ms", "--"), ("p99_ms", "-")):
            label = f"{name.replace('_', ' ')}, {percentile.removesuffix('_ms')}"
            panel.plot(
                parts, [row[name][percentile] for row in rows], style, marker="o", ms=3, color=colour, label=label
            )
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xticks(parts, [str(p) for p in parts])
    panel.set_xlabel("parts that a request asks")
    panel.set_ylabel("ms until the last has answered")
    panel.set_title(title, fontsize=10)
    panel.grid(alpha=0.3, which="both")
    panel.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
