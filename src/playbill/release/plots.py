"""Pictures of an evaluation: each model's mean with its interval; probabilities against what happened."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from playbill.measure.calibration import Calibration
from playbill.release.report import Evaluation

# told apart without colour too: ours are filled, rivals hollow
_OURS, _RIVAL = "#0b6e99", "#8a5a00"


def evaluation_png(evaluation: Evaluation, slice_name: str = "all") -> bytes:
    """Return a PNG of ndcg, recall and hit rate at the longest cut-off, models from top to bottom as in the table."""
    # late: matplotlib takes half a second to import, and only this job draws
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    k = max(evaluation.ks)
    models = [m for m in evaluation.models if slice_name in m.slices]
    figure = Figure(figsize=(11, 1.4 + 0.38 * max(len(models), 1)), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    if not models:
        figure.text(0.5, 0.5, "nobody was held out: nothing to measure", ha="center")
        return png(canvas)
    panels = figure.subplots(1, 3, sharey=True)
    for axes, metric in zip(panels, ("ndcg", "recall", "hit_rate"), strict=True):
        _panel(axes, [(m.slices[slice_name].metrics[f"{metric}_at_{k}"], m.rival) for m in models])
        axes.set_title(f"{metric.replace('_', ' ')} at {k}", fontsize=10)
    panels[0].set_yticks(range(len(models)), [m.label for m in models])
    panels[0].invert_yaxis()
    figure.suptitle(
        f"{evaluation.tables}: {evaluation.users.get(slice_name, 0)} people, bundle {evaluation.bundle} "
        "(filled: ours, hollow: baselines)",
        fontsize=11,
    )
    return png(canvas)


def calibration_png(tasks: Sequence[Calibration]) -> bytes:
    """Return a PNG with a panel a task: share of events against mean probability of each tenth, on the diagonal if
    true."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(tasks), 4.4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        points = [t for t in task.tenths if t.ratio is not None and t.expected > 0]
        largest = 0.0
        for t in points:
            said, came = t.expected / t.rows, t.observed / t.rows
            reach = [r * said for r in (t.ratio.low, t.ratio.high)] if t.ratio is not None else [came, came]
            colour = _OURS if t.enough else "#999999"
            axes.plot([said, said], reach, color=colour, linewidth=1.5)
            axes.plot(said, came, "o", color=colour, markerfacecolor=colour if t.enough else "white", markersize=6)
            largest = max(largest, said, reach[1])
        axes.plot([0, largest], [0, largest], color="#888888", linewidth=0.8)
        axes.set_xlabel("mean probability")
        axes.set_ylabel("share that came true")
        axes.set_title(f"{task.task}: error {task.error.value:.4f} ({task.error_by_chance:.4f} by chance)", fontsize=10)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("probabilities against what happened, in tenths (hollow: too few events)", fontsize=11)
    return png(canvas)


def _panel(axes: Any, rows: list[tuple[Any, bool]]) -> None:
    for place, (interval, rival) in enumerate(rows):
        colour = _RIVAL if rival else _OURS
        axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=2)
        axes.plot(interval.value, place, "o", color=colour, markerfacecolor="white" if rival else colour, markersize=7)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)


def png(canvas: Any) -> bytes:
    """Return the bytes of a drawn figure."""
    out = io.BytesIO()
    # no date in the file: the same evaluation gives the same bytes
    canvas.print_png(out, metadata={"Software": None})
    return out.getvalue()
