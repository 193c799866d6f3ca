"""report/index.html: all reports of a bundle on one page that needs nothing else, not even a network."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from playbill.measure.bootstrap import Interval
from playbill.release.gate_report import GateReport
from playbill.release.report import Evaluation

# these come first and in this order; any other report follows under its own file name
_TITLES = {
    "gate": "Gate: may it go out",
    "evaluation": "Evaluation on held-out time",
    "calibration": "Calibration: do probabilities come true",
    "variety": "Variety: what it costs",
    "value": "Value on the logged decisions",
    "disparity": "Disparity: are lists as good for every group",
    "latency": "Latency on a fixed set of requests",
    "sufficiency": "Sufficiency: what the data can carry",
    "quality": "Quality of the data",
    "parity": "Parity: exported graphs against the models they came from",
    "index": "Index: nearest items against exact search",
}

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #8884; }
table { border-collapse: collapse; margin: .6rem 0; font-size: .9rem; }
th, td { text-align: left; padding: .2rem .7rem .2rem 0; vertical-align: top; border-bottom: 1px solid #8883; }
td.n { font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.ours td:first-child { font-weight: 600; }
.passed { color: #1a7f37; font-weight: 600; } .failed { color: #cf222e; font-weight: 600; }
.refused { color: #9a6700; font-weight: 600; }
.scroll { overflow-x: auto; } img { max-width: 100%; background: white; } details { margin: .4rem 0; }
"""


def write_page(bundle: str, report: Path) -> str:
    """Return the page over every json file of a bundle's report folder.

    Args:
        bundle: its version, for the title.
        report: the folder; `evaluation.png` and `calibration.png` are embedded when they are there.
    """
    found = {path.stem: path for path in sorted(report.glob("*.json"))}
    order = [name for name in _TITLES if name in found] + [name for name in found if name not in _TITLES]
    sections = "".join(
        f'<h2 id="{escape(name)}">{escape(_TITLES.get(name, name))}</h2>\n{_section(name, found[name], report)}'
        for name in order
    )
    links = " · ".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in order)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Bundle {escape(bundle)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>Bundle {escape(bundle)}</h1><p>{links}</p>\n{sections}</body></html>\n"
    )


def _section(name: str, path: Path, report: Path) -> str:
    data = path.read_bytes()
    if name == "evaluation":
        drawn = report / "evaluation.png"
        return _evaluation(msgspec.json.decode(data, type=Evaluation), drawn.read_bytes() if drawn.is_file() else b"")
    if name == "gate":
        return _gate(msgspec.json.decode(data, type=GateReport))
    if name == "calibration":
        drawn = report / "calibration.png"
        picture = drawn.read_bytes() if drawn.is_file() else b""
        return _picture("probabilities against what happened", picture) + _value(msgspec.json.decode(data))
    if name == "variety":
        drawn = report / "variety.png"
        picture = drawn.read_bytes() if drawn.is_file() else b""
        return _picture("utility against diversity", picture) + _value(msgspec.json.decode(data))
    return _value(msgspec.json.decode(data))


def _evaluation(evaluation: Evaluation, picture: bytes) -> str:
    parts = [_value(evaluation.protocol), _picture("means and intervals of each model", picture)]
    for slice_name, users in evaluation.users.items():
        for k in evaluation.ks:
            parts.append(_figures(evaluation, slice_name, k, users))
    rows = "".join(
        f"<tr{_ours(m.rival)}><td>{escape(m.label)}</td><td>{escape(m.about)}</td>"
        f"<td>{escape(', '.join(f'{n} {rung}' for rung, n in m.rungs.items()))}</td></tr>"
        for m in evaluation.models
    )
    parts.append(f"<table><tr><th>model</th><th>what it is</th><th>answers by rung</th></tr>{rows}</table>")
    parts += [f"<p>{escape(note)}</p>" for note in evaluation.notes]
    return "\n".join(parts) + "\n"


def _picture(about: str, png: bytes) -> str:
    encoded = base64.b64encode(png).decode()
    return f'<p><img alt="{about}" src="data:image/png;base64,{encoded}"></p>' if png else ""


def _figures(evaluation: Evaluation, slice_name: str, k: int, users: int) -> str:
    names = ("ndcg", "recall", "hit_rate", "mrr", "map")
    head = "".join(f"<th>{n.replace('_', ' ')}</th>" for n in names)
    rows = []
    for model in evaluation.models:
        figures = model.slices.get(slice_name)
        if figures is None:
            continue
        cells = "".join(f'<td class="n">{_interval(figures.metrics[f"{n}_at_{k}"])}</td>' for n in names)
        difference = figures.against_best.get(f"ndcg_at_{k}")
        shown = "" if difference is None else _interval(difference, signed=True)
        rows.append(
            f'<tr{_ours(model.rival)}><td>{escape(model.label)}</td>{cells}<td class="n">{figures.coverage[k]:.3f}</td>'
            f'<td class="n">{shown}</td></tr>'
        )
    opened = " open" if slice_name == "all" else ""
    return (
        f"<details{opened}><summary>{escape(slice_name)}: {users} people, first {k} places"
        f'</summary><div class="scroll"><table><tr><th>model</th>{head}<th>coverage</th>'
        f"<th>ndcg less {escape(evaluation.best_rival or 'best')}</th></tr>{''.join(rows)}</table></div></details>"
    )


def _gate(gate: GateReport) -> str:
    rows = "".join(
        f"<tr><td>{escape(r.name)}</td><td>{escape(r.rule)}</td><td>{escape(r.found)}</td>"
        f'<td class="{escape(r.verdict)}">{escape(r.verdict)}</td></tr>'
        for r in gate.rules
    )
    verdict = "passed" if gate.passed else "failed"
    head = "<tr><th>rule</th><th>asks</th><th>found</th><th>verdict</th></tr>"
    style = ' class="failed"' if gate.loosened() else ""
    by = f"<p{style}>rules: {escape(gate.by())}</p>"
    return f'<p class="{verdict}">{verdict}</p>{by}<table>{head}{rows}</table>\n'


def _value(value: Any) -> str:
    """Return any json value as nested tables: a list of objects is one table with a row each."""
    if isinstance(value, dict):
        rows = "".join(f"<tr><th>{escape(str(k))}</th><td>{_value(v)}</td></tr>" for k, v in value.items())
        return f"<table>{rows}</table>" if rows else "none"
    if isinstance(value, list):
        if value and all(isinstance(v, dict) for v in value):
            keys = list(dict.fromkeys(k for v in value for k in v))
            head = "".join(f"<th>{escape(str(k))}</th>" for k in keys)
            rows = "".join("<tr>" + "".join(f"<td>{_value(v.get(k))}</td>" for k in keys) + "</tr>" for v in value)
            return f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'
        return ", ".join(_value(v) for v in value) or "none"
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return escape(str(value))


def _interval(interval: Interval, signed: bool = False) -> str:
    form = "+.4f" if signed else ".4f"
    return f"{interval.value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def _ours(rival: bool) -> str:
    return "" if rival else ' class="ours"'
