"""How a rehearsal is shown: a table a round, a summary, and lines over the rounds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import msgspec

from playbill.rehearsal.rounds import Round

_PANELS = (
    ("utility", "true utility a visit"),
    ("regret", "regret against the oracle, a visit"),
    ("coverage", "catalogue coverage"),
    ("diversity", "intra-list diversity"),
)
# distinguishable without colour too: each policy has a marker of its own
_MARKERS = "osD^vP*X"


class Rehearsal(msgspec.Struct, kw_only=True):
    """`rounds.json`: all rounds of all policies, and what the feedback-loop alarm says of each policy.

    Attributes:
        alarms: by policy, the sentence of the alarm, empty where it is silent.
        warnings: what a reader must know.
    """

    name: str
    world: str
    size: str
    seed: int
    people: int
    items: int
    warmup_days: int
    round_days: int
    k: int
    level: float
    rounds: list[Round]
    alarms: dict[str, str] = {}
    warnings: list[str] = []


def rows(rounds: Sequence[Round], level: float) -> list[list[str]]:
    """Return the cells of one round's table, best utility first."""
    found = []
    for r in sorted(rounds, key=lambda r: -r.utility.value):
        found.append(
            [
                r.policy,
                f"{r.utility.value:.4f} [{r.utility.low:.4f}, {r.utility.high:.4f}]",
                f"{r.regret.value:.4f} [{r.regret.low:.4f}, {r.regret.high:.4f}]",
                f"{r.missed.value:.4f}",
                f"{r.clicks:.3f}",
                f"{r.coverage:.1%}",
                f"{r.diversity:.3f}",
                f"{r.gini:.3f}",
            ]
        )
    return found


HEAD = ("policy", "true utility a visit", "regret a visit", "missed", "clicks", "coverage", "diversity", "gini")


def to_text(rehearsal: Rehearsal) -> str:
    """Return every round's table as plain text, the alarms and the warnings."""
    numbers = sorted({r.round for r in rehearsal.rounds})
    parts = [head_text(rehearsal)]
    parts += [round_text([r for r in rehearsal.rounds if r.round == number], rehearsal.level) for number in numbers]
    return "\n".join([*parts, tail_text(rehearsal)]).rstrip() + "\n"


def head_text(rehearsal: Rehearsal) -> str:
    """Return what was rehearsed, in two lines."""
    return (
        f"{rehearsal.name}: {rehearsal.people:,} people, {rehearsal.items:,} items, world {rehearsal.world}, "
        f"seed {rehearsal.seed}, {rehearsal.warmup_days} days of log\n"
        f"rounds of {rehearsal.round_days} days, {rehearsal.k} items a visit; intervals of {rehearsal.level:.0%} "
        "over people\nutility: expected completed items; regret: against the oracle's own run; missed: against the "
        "best slate for the very visit\n"
    )


def round_text(some: Sequence[Round], level: float) -> str:
    """Return one round's table as plain text."""
    cells = [list(HEAD), *rows(some, level)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(HEAD))]
    lines = [f"round {some[0].round}: {some[0].visits:,} visits of {some[0].people:,} people"]
    lines += ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(lines) + "\n"


def tail_text(rehearsal: Rehearsal) -> str:
    """Return the alarms and the warnings, a line each."""
    lines = [f"{policy}: {text}" for policy, text in rehearsal.alarms.items() if text]
    return "\n".join([*lines, *(f"NOTE {text}" for text in rehearsal.warnings)])


def to_png(rehearsal: Rehearsal) -> bytes:
    """Return a PNG: utility and regret with intervals, coverage and diversity, a line a policy over the rounds."""
    # late: matplotlib takes half a second to import
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(12, 7.5), layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2).ravel()
    policies = list(dict.fromkeys(r.policy for r in rehearsal.rounds))
    for axes, (name, title) in zip(panels, _PANELS, strict=True):
        for place, policy in enumerate(policies):
            mine = [r for r in rehearsal.rounds if r.policy == policy]
            _line(axes, [r.round for r in mine], [getattr(r, name) for r in mine], policy, _MARKERS[place % 8])
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("round")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(fontsize=8, frameon=False)
    figure.suptitle(f"{rehearsal.name}: {rehearsal.people:,} people, {rehearsal.items:,} items", fontsize=11)
    out = io.BytesIO()
    canvas.print_png(out, metadata={"Software": None})  # the same rehearsal gives the same bytes
    return out.getvalue()


def _line(axes: Any, rounds: list[int], values: list[Any], label: str, marker: str) -> None:
    if values and hasattr(values[0], "low"):
        axes.fill_between(rounds, [v.low for v in values], [v.high for v in values], alpha=0.15)
        values = [v.value for v in values]
    axes.plot(rounds, values, marker=marker, label=label, linewidth=1.5, markersize=5)
