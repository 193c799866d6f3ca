"""Recall against time, one panel a size and width: how much faster each index is at the recall that one wants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

COLOURS = {"flat": "#555555", "ivf_sq8": "#1f77b4", "ivf_pq": "#2ca02c", "hnsw": "#9467bd", "hnswlib": "#d62728"}
COLOURS |= {"usearch": "#ff7f0e"}


def plot(figures: dict[str, Any], path: Path) -> None:
    """Write the plot as png."""
    runs = figures["runs"]
    columns = min(len(runs), 3)
    rows = -(-len(runs) // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(5.2 * columns, 4.2 * rows), squeeze=False)
    for panel, run in zip(panels.flat, runs, strict=False):
        for row in [*run["ours"], *run["rivals"]]:
            if "missed" in row or row["kind"].startswith("auto"):
                continue
            points = sorted((p["p50_ms"], p["recall"]) for p in (row["curve"] or {"0": row}).values())
            panel.plot(*zip(*points, strict=True), "o-", ms=3, lw=1, label=row["kind"], color=COLOURS.get(row["kind"]))
            panel.plot(row["p50_ms"], row["recall"], "D", ms=6, color=COLOURS.get(row["kind"]))
        panel.axhline(figures["recall_floor"], color="#bbbbbb", lw=0.8, ls="--")
        panel.set_xscale("log")
        panel.set_title(f"{run['items']:,} items, width {run['width']}")
        panel.set_xlabel("median time of a query, ms, one thread")
        panel.set_ylabel(f"recall@{figures['k']}")
        panel.legend(fontsize=8)
    for panel in list(panels.flat)[len(runs) :]:
        panel.axis("off")
    figure.suptitle("Every index at all efforts; a diamond where tuning put it", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
