"""What `playbill blend` says: the struct behind report.json, the table, and the picture."""

from __future__ import annotations

import io
from typing import Any

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from playbill.blend.judge import FormReport, Judged
from playbill.blend.scores import Learned
from playbill.measure.bootstrap import Interval

_OURS, _MEMBER = "#0b6e99", "#8a5a00"


class MemberReport(msgspec.Struct, kw_only=True):
    """One member: what it is, and what it had learned from when it was asked about each part."""

    name: str
    about: str
    learned: dict[str, Learned]


class BlendReport(msgspec.Struct, kw_only=True):
    """`report.json` of a blend.

    Attributes:
        fingerprint: over tables, bundle, saved scores and settings; equal: nothing is left to do.
        judged: on the fold, by weights fitted on other people.
        test: members and `blend` on the test part, which took no part in any choice; compared with the member that was
            best on the fold. Empty where a member has no scores for it.
        weights: by member and feature.
        said: the verdict.
    """

    fingerprint: str
    name: str
    tables: str
    split: str
    metric: str
    ks: list[int]
    fold: str
    judged: Judged
    test_people: int
    test: list[FormReport]
    members: list[MemberReport]
    weights: dict[str, dict[str, float]]
    depth: int
    said: str
    notes: list[str] = []
    seconds: float = 0.0


def show(report: BlendReport, console: Console) -> None:
    """Print the tables of a blend and its verdict."""
    judged = report.judged
    console.print(
        _table(report, f"{report.fold} part, {judged.people} people with a history", judged.members, judged.forms)
    )
    if report.test:
        members = [r for r in report.test if r.name != "blend"]
        ours = [r for r in report.test if r.name == "blend"]
        console.print(_table(report, f"test part, {report.test_people} people with a history", members, ours))
    for member in report.members:
        console.print(f"  {member.name}: {member.about}", style="dim", markup=False, highlight=False)
    console.print(
        f"  {judged.proposed:.1%} of what people went on to do stands in the first {report.depth} of some member",
        style="dim",
        markup=False,
        highlight=False,
    )
    for note in report.notes:
        console.print(f"  {note}", style="dim", markup=False, highlight=False)
    console.print(report.said, style="bold" if judged.better else "bold red", markup=False, highlight=False)


def blend_png(report: BlendReport) -> bytes:
    """Return a PNG of members (hollow) and blends (filled) on both parts, with their intervals."""
    # late: matplotlib takes half a second to import, and only this job draws
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    judged = report.judged
    panels = [(f"{report.fold} part, weights of other people", [*judged.members, *judged.forms], len(judged.members))]
    if report.test:
        panels.append(("test part", report.test, len(report.test) - 1))
    tallest = max(len(rows) for _, rows, _ in panels)
    figure = Figure(figsize=(6.5 * len(panels), 1.6 + 0.36 * tallest), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for axes, (title, rows, members) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for place, row in enumerate(rows):
            interval, ours = row.metrics[report.metric], place >= members
            colour = _OURS if ours else _MEMBER
            axes.plot([interval.low, interval.high], [place, place], color=colour, linewidth=2)
            axes.plot(interval.value, place, "o", color=colour, markerfacecolor=colour if ours else "white")
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(f"{report.metric}, {title}", fontsize=10)
    figure.suptitle(f"blend {report.name} of {report.tables} (filled: blends, hollow: members)", fontsize=11)
    return _png(canvas)


def _png(canvas: Any) -> bytes:
    out = io.BytesIO()
    # no date in the file: the same report gives the same bytes
    canvas.print_png(out, metadata={"Software": None})
    return out.getvalue()


def _table(report: BlendReport, title: str, members: list[FormReport], forms: list[FormReport]) -> Table:
    judged, k = report.judged, int(report.metric.rpartition("_at_")[2])
    grid = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for name in ("", f"hit rate at {k}", f"ndcg at {k}", f"{report.metric} less {judged.best_member}"):
        grid.add_column(name)
    for row in [*members, *forms]:
        used = row.name in (judged.chosen, "blend")
        grid.add_row(
            row.name,
            _cell(row.metrics[f"hit_rate_at_{k}"]),
            _cell(row.metrics[f"ndcg_at_{k}"]),
            "" if row.name == judged.best_member else _cell(row.less_best[report.metric], "+.4f"),
            style="bold" if used else None,
        )
    return grid


def _cell(interval: Interval, form: str = ".4f") -> str:
    return f"{interval.value:{form}} [{interval.low:{form}} {interval.high:{form}}]"
