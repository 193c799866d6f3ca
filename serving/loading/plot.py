"""A picture of a sweep: latency against rate."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from playbill.serving.loading.step import Step

_LINES = (("p50_ms", "#0b6e99", "-", "o"), ("p99_ms", "#8a5a00", "--", "s"), ("p99.9_ms", "#8c2d4f", ":", "^"))


def latency_png(steps: Sequence[Step], title: str, limit_ms: float | None) -> bytes:
    """Return a PNG of three percentiles against the rate that was asked for, on a logarithmic scale.

    Hollow points are of steps in which something failed.

    Args:
        limit_ms: drawn as a line, where a search was made.
    """
    # late: matplotlib takes half a second to import
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    ordered = sorted((s for s in steps if s.latency["p50_ms"] is not None), key=lambda s: s.rate)
    for name, colour, line, mark in _LINES:
        axes.plot([s.rate for s in ordered], [s.latency[name] for s in ordered], line, color=colour, linewidth=1.5,
                  label=name.removesuffix("_ms"))  # fmt: skip
        for step in ordered:
            inside = colour if set(step.statuses) == {"200"} else "white"
            axes.plot(step.rate, step.latency[name], mark, color=colour, markerfacecolor=inside, markersize=6)
    if limit_ms is not None:
        axes.axhline(limit_ms, color="#888888", linewidth=0.8)
    axes.set_yscale("log")
    axes.set_xlabel("requests a second")
    axes.set_ylabel("milliseconds from the moment due")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    if ordered:
        axes.legend(frameon=False)
    return _png(canvas)


def _png(canvas: Any) -> bytes:
    out = io.BytesIO()
    canvas.print_png(out, metadata={"Software": None})
    return out.getvalue()
