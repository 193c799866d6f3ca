"""Regret over impressions, a row for each world: clicks known the same day, and up to three days late."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

# in the order of the legend; what a policy cannot know is drawn thin
DRAWN = {
    "random": ("#999999", 2.0),
    "single, live": ("#1f77b4", 2.0),
    "contextual": ("#d62728", 2.0),
    "single, truth": ("#1f77b4", 0.8),
    "informed": ("#2ca02c", 0.8),
}


def plot(figures: dict[str, Any], impressions: int, path: Path) -> None:
    """Write the plot as png. Args: figures by world; impressions of each, about."""
    kinds = ("live", "live, clicks late")
    worlds = [name for name in figures if isinstance(figures[name], dict) and kinds[0] in figures[name]]
    size = (10, 3.6 * len(worlds))
    figure, panels = plt.subplots(len(worlds), 2, figsize=size, squeeze=False, sharey="row", layout="constrained")
    for name, row in zip(worlds, panels, strict=True):
        for kind, panel in zip(kinds, row, strict=True):
            tenths = figures[name][kind]["everybody"]["by_tenth"]
            step = impressions / len(tenths["oracle"])
            at = step * np.arange(len(tenths["oracle"]) + 1)
            for policy, (colour, width) in DRAWN.items():
                lost = step * np.cumsum(np.subtract(tenths["oracle"], tenths[policy]))
                panel.plot(at, [0, *lost], color=colour, lw=width, label=policy)
            panel.set_title(f"{name}: {kind}", fontsize=10)
            panel.set_xlabel("impressions")
        row[0].set_ylabel("true utility lost to the oracle")
    panels[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
