"""What every reading of a log returns: statements with an interval, what they rest on, and what speaks against them.

A `Statement` is one figure. A `Reading` is the answer to one question: its statements in order, further tables, and
the same thing as json, as text and as a picture.

The word *lift* means a difference that a treatment caused. It may stand in a statement only where the arms were drawn
at random and the log shows it (`randomised=True`); everything else is called a difference.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from playbill.errors import MeasureError

_LIFT = re.compile(r"\blift", re.IGNORECASE)


class Statement(msgspec.Struct, kw_only=True):
    """One figure and what it is worth.

    Attributes:
        name: what was measured, such as "value of bts" or "conversion, mens - none".
        estimate: the figure; None where it was refused.
        low, high: the interval; None where there is none.
        level: nominal coverage of the interval, such as 0.95.
        n: independent units behind the figure (people, requests, tests: `of` says which).
        of: what is counted in `n`.
        unit: of estimate, low and high.
        method: how, with its source where it comes from a paper.
        randomised: the arms compared were drawn at random, and the log shows it.
        assumptions: what must hold for the interval to mean what it says.
        warnings: what speaks against it in this log.
        refused: why there is no estimate; empty where there is one.
        details: further figures by name (standard error, effective sample size, p value, ...).
    """

    name: str
    estimate: float | None
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    n: int
    of: str = "people"
    unit: str = ""
    method: str
    randomised: bool = False
    assumptions: list[str] = []
    warnings: list[str] = []
    refused: str = ""
    details: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if (self.estimate is None) != bool(self.refused):
            raise MeasureError(f"{self.name}: a statement has an estimate, or says why it was refused, and never both")
        words = (self.name, self.unit, self.method, *self.assumptions, *self.warnings)
        if not self.randomised and any(_LIFT.search(text) for text in words):
            raise MeasureError(
                f"{self.name}: 'lift' claims a cause, and this comparison was not randomised; call it a difference"
            )


class Reading(msgspec.Struct, kw_only=True):
    """The answer to one question about a log.

    Attributes:
        title: the question in a line.
        statements: in the order in which they should be read.
        tables: further rows by name, each a list of flat mappings with the same keys.
        verdict: the sentence to remember; empty where the statements speak for themselves.
        warnings: what concerns the log as a whole.
    """

    title: str
    statements: list[Statement]
    tables: dict[str, list[dict[str, Any]]] = {}
    verdict: str = ""
    warnings: list[str] = []


def to_json(reading: Reading) -> bytes:
    """Return the reading as indented json; numbers that are not finite become null."""
    return msgspec.json.format(msgspec.json.encode(_plain(msgspec.to_builtins(reading, enc_hook=_of_numpy))), indent=2)


def to_text(reading: Reading) -> str:
    """Return the reading as text: a line a statement, then what it assumes and what speaks against it."""
    lines = [reading.title, "=" * len(reading.title)]
    if reading.verdict:
        lines += [reading.verdict, ""]
    lines += [f"WARNING {w}" for w in reading.warnings]
    width = max((len(s.name) for s in reading.statements), default=0)
    for s in reading.statements:
        lines.append(f"{s.name:<{width}}  {_figure(s)}  (n = {s.n:,} {s.of}; {s.method})")
        lines += [f"{'':<{width}}  ! {w}" for w in s.warnings]
    assumed = dict.fromkeys(a for s in reading.statements for a in s.assumptions)
    if assumed:
        lines += ["", "Assumed:", *(f"  - {a}" for a in assumed)]
    for name, rows in reading.tables.items():
        lines += ["", *_table(name, rows)]
    return "\n".join(lines) + "\n"


def to_png(reading: Reading) -> bytes:
    """Return a PNG: one line a statement with its interval, those of one unit in one panel; refused ones are named."""
    # late: matplotlib takes half a second to import, and only drawing needs it
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    units = list(dict.fromkeys(s.unit for s in reading.statements))
    groups = [[s for s in reading.statements if s.unit == unit] for unit in units]
    figure = Figure(figsize=(10, 1.2 + 0.42 * sum(len(g) + 1.6 for g in groups)), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    if not groups:
        figure.text(0.5, 0.5, "nothing was measured", ha="center")
        return _png(canvas)
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=[len(g) + 1.6 for g in groups])[:, 0]
    for axes, unit, group in zip(panels, units, groups, strict=True):
        for row, s in enumerate(group):
            if s.estimate is None:
                axes.annotate("refused", (0.02, row), xycoords=("axes fraction", "data"), va="center", color="#a03030")
                continue
            if s.low is not None and s.high is not None:
                axes.plot([s.low, s.high], [row, row], color="#0b6e99", linewidth=2)
            axes.plot(s.estimate, row, "o", color="#0b6e99", markersize=6)
        axes.set_yticks(range(len(group)), [s.name for s in group])
        axes.set_ylim(len(group) - 0.4, -0.6)
        axes.axvline(0, color="#888888", linewidth=0.8)
        axes.grid(axis="x", alpha=0.3)
        axes.set_xlabel(unit)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(reading.title, fontsize=11)
    return _png(canvas)


def refuse_rows(table: str, column: str, bad: np.ndarray, values: Any, why: str) -> None:
    """Raise MeasureError naming table, column, how many rows are bad and the first of them; does nothing without any.

    Args:
        bad: [N] bool.
        values: [N] what stands in the column.
        why: what was expected, such as "a propensity must lie in (0, 1]".
    """
    rows = np.flatnonzero(np.asarray(bad))
    if len(rows):
        first = ", ".join(f"row {row}: {np.asarray(values, object)[row]!r}" for row in rows[:5])
        raise MeasureError(f"{table}.{column}: {why}; {len(rows):,} of {len(bad):,} rows break this, first {first}")


def _figure(s: Statement) -> str:
    if s.estimate is None:
        return f"refused: {s.refused}"
    interval = "" if s.low is None or s.high is None else f" [{s.low:.5g}, {s.high:.5g}]"
    unit = f" {s.unit}" if s.unit else ""
    return f"{s.estimate:.5g}{interval}{unit}"


def _table(name: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    if not rows:
        return [name, "  (empty)"]
    head = list(rows[0])
    cells = [head, *([_cell(row.get(key)) for key in head] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return [name, *("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)]


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def _of_numpy(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"a reading holds numbers, texts and lists, got {type(value).__name__}: {value!r}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _png(canvas: Any) -> bytes:
    out = io.BytesIO()
    canvas.print_png(out, metadata={"Software": None})  # the same reading gives the same bytes
    return out.getvalue()
