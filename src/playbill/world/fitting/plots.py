"""The picture of a fit: each aggregate of a real log with the worlds beside it, and all distances in one panel."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from playbill.world.fitting.compare import Comparison
from playbill.world.fitting.estimate import Fit
from playbill.world.fitting.found import Sample

# told apart without colour too: by line and by marker
_STYLES = {
    "real": {"color": "#111111", "linestyle": "-", "linewidth": 2.2},
    "fitted": {"color": "#0b6e99", "linestyle": "-", "linewidth": 1.6},
    "easy": {"color": "#8a5a00", "linestyle": ":", "linewidth": 1.4},
    "hard": {"color": "#a23b72", "linestyle": "--", "linewidth": 1.4},
}
_MARKERS = {"fitted": "o", "easy": "^", "hard": "s"}
_COLUMNS = 4


def fit_png(fit: Fit) -> bytes:
    """Return a PNG: a panel for each comparison, one for the examination curve, one for the distances."""
    # late: matplotlib takes half a second to import, and only this job draws
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels: list[Any] = list(fit.comparisons)
    for log in fit.found.values():
        if "examination" in log.curves:
            panels.append(log.curves["examination"])
    if fit.comparisons:
        panels.append("distances")
    rows = max(-(-len(panels) // _COLUMNS), 1)
    figure = Figure(figsize=(4.2 * _COLUMNS, 3.1 * rows), layout="constrained", dpi=80)
    canvas = FigureCanvasAgg(figure)
    all_axes = np.atleast_1d(figure.subplots(rows, _COLUMNS)).ravel()
    for axes in all_axes[len(panels) :]:
        axes.set_visible(False)
    for axes, panel in zip(all_axes, panels, strict=False):
        if isinstance(panel, Comparison):
            shown = {name: samples[panel.name] for name, samples in fit.shown.items()}
            _sample(axes, panel, fit.found[panel.data].samples[panel.name], shown)
        elif isinstance(panel, dict):
            _examination(axes, panel)
        else:
            _distances(axes, fit.comparisons)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    if fit.comparisons:
        handles = [figure.add_artist(_line(name)) for name in _STYLES]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=10, frameon=False)
        for handle in handles:
            handle.remove()
    figure.suptitle("The simulated world beside the real logs its numbers come from", fontsize=13)
    out = io.BytesIO()
    # no date in the file: the same fit gives the same bytes
    canvas.print_png(out, metadata={"Software": None})  # type: ignore[no-untyped-call]  # matplotlib leaves it untyped
    return out.getvalue()


def _line(name: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([0], [0], label=name, marker=_MARKERS.get(name), markersize=5, **_STYLES[name])  # type: ignore[arg-type]  # a style is a mapping of any values


def _sample(axes: Any, comparison: Comparison, real: Sample, shown: dict[str, np.ndarray]) -> None:
    everything = {"real": real.values} | shown
    bins = min(v.shape[1] for v in everything.values()) if real.values.ndim == 2 else 0
    # the real log on top
    for name, values in reversed(everything.items()):
        if bins:
            share = values[:, :bins].sum(0) / values[:, :bins].sum()
            first = 1 if comparison.name == "stars" else 0
            axes.plot(np.arange(first, first + bins), share, **_STYLES[name])
            axes.set_ylabel("share", fontsize=8)
        elif comparison.distance == "kolmogorov-smirnov":
            axes.plot(np.sort(values), np.linspace(0, 1, len(values)), **_STYLES[name])
            axes.set_xlim(*np.quantile(real.values, [0.002, 0.998]) * 1.3)
            axes.set_ylabel("cumulative share", fontsize=8)
            axes.set_xlabel("log-odds less the mean of its test", fontsize=8)
        else:
            kept = np.sort(values[values > 0])[::-1]
            axes.plot(np.linspace(0, 1, len(kept)), kept / kept.mean(), **_STYLES[name])
            axes.set_yscale("log")
            axes.set_ylabel("value / mean", fontsize=8)
            axes.set_xlabel("rank, as a share", fontsize=8)
    if bins:
        axes.set_ylim(bottom=0)
    fitted = comparison.worlds.get("fitted")
    figures = f"{fitted:.3f}, noise {comparison.floor:.3f}" if fitted is not None else ""
    axes.set_title(f"{comparison.name} ({comparison.data})\n{comparison.distance} {figures}", fontsize=9)
    axes.tick_params(labelsize=8)


def _examination(axes: Any, curve: dict[str, np.ndarray]) -> None:
    places = np.arange(len(curve["curve"]))
    axes.fill_between(places, curve["low"], curve["high"], color="#0b6e99", alpha=0.2, linewidth=0)
    axes.plot(places, curve["curve"], label="fitted, 95 %", **_STYLES["fitted"])
    axes.plot(places, curve["unsmoothed"], ".", color="#111111", markersize=4, label="before smoothing")
    axes.plot(places, curve["confounded"], label="in the site's own order", **_STYLES["hard"])
    axes.legend(fontsize=8, frameon=False)
    axes.set_ylim(bottom=0)
    axes.set_title("examination by position, beside position 0\n(trivago-100k)", fontsize=9)
    axes.tick_params(labelsize=8)


def _distances(axes: Any, comparisons: list[Comparison]) -> None:
    for place, comparison in enumerate(comparisons):
        axes.plot([1e-3, comparison.floor], [place, place], color="#bbbbbb", linewidth=6, solid_capstyle="butt")
        for name, value in comparison.worlds.items():
            axes.plot(value, place, _MARKERS[name], color=_STYLES[name]["color"], markersize=6)
    axes.set_xscale("log")
    axes.set_xlim(left=5e-3)
    axes.set_yticks(range(len(comparisons)), [f"{c.name} ({c.data[:7]})" for c in comparisons], fontsize=7)
    axes.invert_yaxis()
    axes.set_title("distance to the real log\n(grey: between its own halves)", fontsize=9)
