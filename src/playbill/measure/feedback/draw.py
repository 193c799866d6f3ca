"""A picture of a loop: one panel a measure, along the rounds, with the alarm where it was raised."""

from __future__ import annotations

import io
from typing import Any

from playbill.measure.feedback.rounds import alarm_round
from playbill.measure.statement import Reading

_TITLES = {
    "reached_items": "reached items",
    "effective_items": "effective items",
    "coverage": "coverage (reached share of the catalogue)",
    "evenness": "evenness (1 - gini)",
    "diversity": "intra-list diversity",
}


def rounds_png(reading: Reading) -> bytes:
    """Return a PNG of the table `rounds` of a reading by `read_rounds`: lines, intervals where there are any, alarm."""
    # late: matplotlib takes half a second to import, and only drawing needs it
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = reading.tables["rounds"]
    measures = [name for name in _TITLES if name in rows[0]]
    figure = Figure(figsize=(10, 1.2 + 2.2 * len(measures)), layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)  # its print_png has no types
    number = range(len(rows))
    raised = alarm_round(reading)
    for axes, name in zip(figure.subplots(len(measures), 1, sharex=True, squeeze=False)[:, 0], measures, strict=True):
        axes.plot(number, [row[name] for row in rows], "o-", color="#0b6e99", markersize=4)
        if f"{name}_low" in rows[0]:
            low, high = ([row[f"{name}_{end}"] for row in rows] for end in ("low", "high"))
            axes.fill_between(number, low, high, color="#0b6e99", alpha=0.15, linewidth=0)
        if raised is not None:
            axes.axvline(raised, color="#a03030", linestyle="--", linewidth=1)
        axes.set_title(_TITLES[name], fontsize=10, loc="left")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    few = [n for n in number if n % max(1, len(rows) // 12) == 0]
    axes.set_xticks(few, [rows[n]["round"] for n in few], fontsize=8, rotation=30 if len(rows[0]["round"]) > 6 else 0)
    axes.set_xlabel("round" if raised is None else "round (dashed: the alarm)")
    figure.suptitle(reading.title, fontsize=11)
    out = io.BytesIO()
    canvas.print_png(out, metadata={"Software": None})  # the same reading gives the same bytes
    return out.getvalue()
