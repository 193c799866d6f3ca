"""What each objective of one bundle buys by the truth: the other task's gain against clicks lost, a panel a world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

DRAWN = {"finish": "#0b6e99", "drawn_7": "#8a5a00"}


def plot(figures: dict[str, Any], path: Path) -> None:
    """Write the plot as png. Args: figures: of proof_objectives, by world."""
    figure, panels = plt.subplots(1, len(figures), figsize=(5.5 * len(figures), 4.2), squeeze=False)
    for panel, (world, found) in zip(panels[0], figures.items(), strict=True):
        for name, colour in DRAWN.items():
            truth = found["sweeps"][name]["truth"]
            start = [truth[task]["value"][0] for task in ("click", name)]
            x, y = (
                100 * np.asarray(truth[task]["gain"]) / first
                for task, first in zip(("click", name), start, strict=True)
            )
            reach = [np.abs(a[:, 1:].T - a[:, 0]) for a in (x, y)]
            panel.errorbar(x[:, 0], y[:, 0], yerr=reach[1], xerr=reach[0], fmt="o-", color=colour, label=name, ms=4)
        panel.axhline(0, color="#888888", lw=0.8)
        panel.axvline(0, color="#888888", lw=0.8)
        panel.set_title(f"{world}: from clicks, in four steps", fontsize=10)
        panel.set_xlabel("clicks, % more than at the start")
        panel.grid(alpha=0.3)
    panels[0, 0].set_ylabel("the objective's own task, % more")
    panels[0, 0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
