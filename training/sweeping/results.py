"""What a sweep leaves to be read: a table, trials.csv, best.yaml, and a plot of parallel coordinates."""

from __future__ import annotations

import csv
import io
import math
import shlex
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from playbill.fields import as_argument
from playbill.tables.files import write_atomic
from playbill.training.sweeping.journal import Journal, Trial
from playbill.training.sweeping.space import Dimension

_SHOWN = 20  # trials of the printed table


def ranked(journal: Journal) -> list[Trial]:
    """Return all trials, the best first, those without an epoch last."""
    return sorted(journal.trials, key=lambda t: (t.best is None or not t.ended, -(t.best or 0.0), t.number))


def write_results(folder: Path, journal: Journal, dimensions: Sequence[Dimension]) -> None:
    """Write trials.csv, best.yaml, parallel.png and index.html beside trials.json."""
    write_atomic(folder / "trials.csv", _csv(journal, dimensions).encode())
    picture = parallel_png(journal, dimensions)
    write_atomic(folder / "parallel.png", picture)
    write_atomic(folder / "index.html", _page(journal, dimensions, picture).encode())
    best = journal.best()
    if best is not None:
        write_atomic(folder / "best.yaml", _best_yaml(journal, best).encode())


def show(folder: Path, journal: Journal, dimensions: Sequence[Dimension]) -> None:
    """Print the table of the best trials and what to type next."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, title=f"{journal.name}: {journal.metric}", title_justify="left")
    for name in ("trial", *(d.key for d in dimensions), journal.metric, "epoch", "seconds", "how it ended"):
        grid.add_column(name, justify="left" if name == "how it ended" else "right", overflow="fold")
    for trial in ranked(journal)[:_SHOWN]:
        grid.add_row(*_cells(trial, dimensions), style="bold" if trial is journal.best() else None)
    console.print(grid)
    best = journal.best()
    if best is not None:
        console.print(f"best: playbill train {shlex.join(_to_type(best))}", markup=False, highlight=False)
        export = f"playbill export run={best.run} tables={journal.asked['tables']}"
        console.print(f"its run: {export}; all of it: {folder}", markup=False, highlight=False)


def parallel_png(journal: Journal, dimensions: Sequence[Dimension]) -> bytes:
    """Return the trials as lines over one axis for each dimension and one for the metric; the better, the darker."""
    # late: matplotlib takes half a second to import, and only the end of a sweep draws
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    trials = [t for t in reversed(ranked(journal)) if t.best is not None and t.ended]  # the best is drawn last
    figure = Figure(figsize=(max(6.0, 1.9 * (len(dimensions) + 1)), 4.6), layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(-0.25, len(dimensions) + 0.45)
    axes.set_ylim(-0.09, 1.08)
    reached = [t.best for t in trials if t.best is not None]
    low, high = (min(reached), max(reached)) if reached else (0.0, 1.0)
    for place, dimension in enumerate(dimensions):
        _axis(axes, place, dimension.key, [(height(dimension, v), _short(v)) for v in dimension.values])
    _axis(axes, len(dimensions), journal.metric, [(0.0, f"{low:.4f}"), (1.0, f"{high:.4f}")] if reached else [])
    for trial in trials:
        assert trial.best is not None
        good = (trial.best - low) / (high - low) if high > low else 1.0
        ys = [*(height(d, trial.values[d.key]) for d in dimensions), good]
        pale = 1 - good
        colour = (0.04 + 0.7 * pale, 0.43 + 0.36 * pale, 0.6 + 0.24 * pale)
        axes.plot(range(len(ys)), ys, color=colour, linewidth=2.4 if trial is journal.best() else 1.1)
    figure.suptitle(f"{journal.name}: {len(trials)} trials", fontsize=11)
    out = io.BytesIO()
    canvas.print_png(out, metadata={"Software": None})
    return out.getvalue()


def height(dimension: Dimension, value: Any) -> float:
    """Return where a value lies on its axis, 0 at the lowest and 1 at the highest; log ranges by their logarithm."""
    if dimension.kind == "choice":
        return dimension.values.index(value) / max(1, len(dimension.values) - 1)
    low, high = dimension.values
    if dimension.kind.startswith("log_"):
        low, high, value = math.log(low), math.log(high), math.log(value)
    return float((value - low) / (high - low))


def _axis(axes: Any, place: int, name: str, ticks: list[tuple[float, str]]) -> None:
    axes.axvline(place, ymin=0.08, ymax=0.93, color="#999999", linewidth=1)
    axes.text(place, 1.05, name, ha="center", fontsize=9)
    for y, text in ticks:
        axes.text(place + 0.03, y, text, fontsize=8, va="center", color="#333333")


def _cells(trial: Trial, dimensions: Sequence[Dimension]) -> list[str]:
    reached = "" if trial.best is None else f"{trial.best:.4f}"
    how = f"{trial.status}: {trial.reason}" if trial.reason else f"{trial.status} after {len(trial.curve)} epochs"
    values = [_short(trial.values[d.key]) for d in dimensions]
    return [str(trial.number), *values, reached, str(trial.epoch or ""), f"{trial.seconds:.0f}", how]


def _csv(journal: Journal, dimensions: Sequence[Dimension]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = [
        "trial",
        "run",
        *(d.key for d in dimensions),
        journal.metric,
        "epoch",
        "epochs",
        "seconds",
        "status",
        "reason",
    ]
    writer.writerow(head)
    for t in journal.trials:
        values = [t.values[d.key] for d in dimensions]
        reached = "" if t.best is None else t.best
        writer.writerow([t.number, t.run, *values, reached, t.epoch, len(t.curve), t.seconds, t.status, t.reason])
    return out.getvalue()


def _to_type(trial: Trial) -> list[str]:
    """Return the arguments that train it again anywhere: those of its place and of this machine left out."""
    return [a for a in trial.arguments if a.partition("=")[0] not in ("home", "run", "threads")]


def _best_yaml(journal: Journal, best: Trial) -> str:
    values = "\n".join(as_argument(k, v).replace("=", ": ", 1) for k, v in best.values.items())
    return (
        f"# the best of {len(journal.ended())} trials of sweep {journal.name}, run {best.run}: validation "
        f"{journal.metric} {best.best:.6f} after epoch {best.epoch}\n"
        f"# playbill train {shlex.join(_to_type(best))}\n{values}\n"
    )


def _page(journal: Journal, dimensions: Sequence[Dimension], picture: bytes) -> str:
    head = "".join(
        f"<th>{escape(n)}</th>"
        for n in ("trial", *(d.key for d in dimensions), journal.metric, "epoch", "seconds", "how it ended")
    )
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(c)}</td>" for c in _cells(t, dimensions)) + "</tr>" for t in ranked(journal)
    )
    style = "body{font:15px system-ui;margin:2em}td,th{padding:.2em .8em;text-align:left}img{max-width:100%}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Sweep {escape(journal.name)}</title><style>{style}</style></head>\n"
        f"<body><h1>Sweep {escape(journal.name)}</h1>\n"
        f'<p><img alt="trials as lines over their settings and {escape(journal.metric)}" '
        f'src="data:image/png;base64,{b64encode(picture).decode()}"></p>\n'
        f"<table><tr>{head}</tr>{rows}</table></body></html>\n"
    )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
