"""What `playbill fit` leaves: parameters.yaml, fit.json, fit.txt, fit.png and a page that needs nothing else."""

from __future__ import annotations

import base64
import textwrap
from dataclasses import asdict, is_dataclass
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from playbill.world.fitting.estimate import Fit
from playbill.world.fitting.found import Estimate
from playbill.world.fitting.plots import fit_png
from playbill.world.parameters import field_names

DIGITS = 4
_NOT_NUMBERS = ("name", "fitted_from")

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 78rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #8884; }
table { border-collapse: collapse; margin: .6rem 0; font-size: .88rem; } .scroll { overflow-x: auto; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top; border-bottom: 1px solid #8883; }
img { max-width: 100%; background: white; } td.n { font-variant-numeric: tabular-nums; white-space: nowrap; }
"""


def write_report(fit: Fit, folder: Path, fingerprint: str) -> str:
    """Write all files into `folder`; return the text."""
    picture = fit_png(fit)
    text = fit_text(fit)
    (folder / "parameters.yaml").write_text(parameters_yaml(fit))
    # numpy's numbers are written as Python's
    encoded = msgspec.json.encode(as_json(fit, fingerprint), enc_hook=float)
    (folder / "fit.json").write_bytes(msgspec.json.format(encoded, indent=1))
    (folder / "fit.txt").write_text(text)
    (folder / "fit.png").write_bytes(picture)
    (folder / "index.html").write_text(_page(fit, picture))
    return text


def as_json(fit: Fit, fingerprint: str = "") -> dict[str, Any]:
    """Return the whole fit as plain values: numbers and aggregates, no row of any log."""
    return {
        "fingerprint": fingerprint,
        "logs": list(fit.found),
        "missing": fit.missing,
        "estimates": [asdict(e) for log in fit.found.values() for e in log.estimates],
        "set_by_simulated_moments": [asdict(r) for r in fit.reached],
        "distances": [asdict(c) for c in fit.comparisons],
        "assumed": assumed(fit),
        "notes": [f"{log.data}: {note}" for log in fit.found.values() for note in log.notes],
        "parameters": msgspec.to_builtins(fit.parameters),
    }


def assumed(fit: Fit) -> dict[str, Any]:
    """Return the parameters that no log sets, with the values they keep; switches are choices and not listed."""
    result = {}
    for name in field_names(fit.parameters):
        if name not in fit.fitted and name not in _NOT_NUMBERS and not name.startswith("switches."):
            value: Any = fit.parameters
            for part in name.split("."):
                value = getattr(value, part)
            result[name] = value
    return result


def parameters_yaml(fit: Fit) -> str:
    """Return the fitted numbers in the form of conf/world/*.yaml, each with the log and the figure it comes from."""
    from_log = {e.parameter: e for log in fit.found.values() for e in log.estimates if e.parameter}
    heading = (
        "A world whose numbers are estimated from real logs, where there are logs for them, by `playbill fit`. Its "
        "report says how, and how far a world with these numbers is from the logs. Intervals are of 95 %. What is not "
        "named keeps the default of src/playbill/world/parameters.py, which explains every number with the formulas."
    )
    lines = [
        *textwrap.wrap(heading, 118, initial_indent="# ", subsequent_indent="# "),
        "defaults:",
        "  - parameters_schema",
        "  - _self_",
        "",
        "name: fitted",
        f"fitted_from: [{', '.join(fit.found)}]",
    ]
    for room in ("population", "catalogue", "clicks", "outcomes", "purchases", "messages"):
        # in the order in which the dataclass explains them
        names = [n for n in field_names(getattr(fit.parameters, room)) if f"{room}.{n}" in from_log]
        if names:
            lines.append(f"{room}:")
        for name in names:
            estimate = from_log[f"{room}.{name}"]
            interval = "" if estimate.low is None else f" [{estimate.low:.4g}, {estimate.high:.4g}]"
            about = f"{estimate.data}: {estimate.name}{interval}, {estimate.n:,} {estimate.of}"
            lines += textwrap.wrap(about, 118, initial_indent="  # ", subsequent_indent="  #   ")
            lines += _yaml(name, getattr(getattr(fit.parameters, room), name))
    return "\n".join(lines) + "\n"


def fit_text(fit: Fit) -> str:
    """Return the report as text: estimates, distances, what is assumed."""
    lines = ["Numbers from real logs (95 % interval)", ""]
    for log in fit.found.values():
        lines.append(f"{log.data}")
        for e in log.estimates:
            lines.append(f"  {e.parameter or '-':34} {_value(e):32} {e.name} ({e.n:,} {e.of})")
        lines += [f"  note: {note}" for note in log.notes]
    if fit.missing:
        lines += ["", f"Not there, so nothing is fitted to it: {', '.join(fit.missing)}"]
    if fit.comparisons:
        worlds = list(fit.comparisons[0].worlds)
        lines += ["", "Distance of worlds from the real logs; `halves` is the distance between two halves of a log", ""]
        lines.append(f"  {'':24} {'log':22} {'distance':20} {'halves':>8}" + "".join(f"{w:>9}" for w in worlds))
        for c in fit.comparisons:
            figures = "".join(f"{c.worlds[w]:9.3f}" for w in worlds)
            lines.append(f"  {c.name:24} {c.data:22} {c.distance:20} {c.floor:8.3f}{figures}")
    lines += ["", "Assumed, not fitted: no log here says anything about them", ""]
    lines += [f"  {name} = {value}" for name, value in assumed(fit).items()]
    return "\n".join(lines) + "\n"


def _value(estimate: Estimate) -> str:
    if isinstance(estimate.value, list):
        shown = ", ".join(f"{v:.3g}" for v in estimate.value[:4])
        return f"{shown}, ... ({len(estimate.value)})"
    interval = "" if estimate.low is None else f" [{estimate.low:.4g}, {estimate.high:.4g}]"
    return f"{estimate.value:.4g}{interval}"


def _yaml(name: str, value: Any) -> list[str]:
    if isinstance(value, list):
        numbers = ", ".join(f"{v:.{DIGITS}g}" for v in value)
        return textwrap.wrap(f"{name}: [{numbers}]", 110, initial_indent="  ", subsequent_indent="    ")
    assert not is_dataclass(value) and isinstance(value, int | float), name
    return [f"  {name}: {value:.{DIGITS}g}"]


def _page(fit: Fit, picture: bytes) -> str:
    estimates = "".join(
        f'<tr><td>{escape(e.data)}</td><td>{escape(e.parameter)}</td><td>{escape(e.name)}</td><td class="n">'
        f'{escape(_value(e))}</td><td class="n">{e.n:,} {escape(e.of)}</td><td>{escape(e.method)}</td>'
        f"<td>{escape(e.caution)}</td></tr>"
        for log in fit.found.values()
        for e in log.estimates
    )
    worlds = list(fit.comparisons[0].worlds) if fit.comparisons else []
    distances = "".join(
        f"<tr><td>{escape(c.name)}</td><td>{escape(c.data)}</td><td>{escape(c.distance)}</td><td>{escape(c.about)}</td>"
        f'<td class="n">{c.floor:.3f}</td>' + "".join(f'<td class="n">{c.worlds[w]:.3f}</td>' for w in worlds) + "</tr>"
        for c in fit.comparisons
    )
    kept = "".join(
        f'<tr><td>{escape(name)}</td><td class="n">{escape(str(value))}</td></tr>'
        for name, value in assumed(fit).items()
    )
    notes = "".join(f"<p>{escape(log.data)}: {escape(note)}</p>" for log in fit.found.values() for note in log.notes)
    missing = f"<p>Not there, so nothing is fitted to it: {escape(', '.join(fit.missing))}</p>" if fit.missing else ""
    encoded = base64.b64encode(picture).decode()
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Fit of the simulated world</title><style>{_STYLE}</style></head>\n<body>"
        f"<h1>The simulated world and the real logs</h1>{missing}"
        f'<p><img alt="the world beside the real logs" src="data:image/png;base64,{encoded}"></p>\n'
        "<h2>Distances</h2><p>Halves: mean distance between two random halves of the log itself.</p>"
        f'<div class="scroll"><table><tr><th>aggregate</th><th>log</th><th>distance</th><th>unit</th><th>halves</th>'
        f"{''.join(f'<th>{escape(w)}</th>' for w in worlds)}</tr>{distances}</table></div>\n"
        "<h2>Numbers from real logs</h2><div class=scroll><table><tr><th>log</th><th>parameter</th><th>what</th>"
        "<th>estimate [95 %]</th><th>n</th><th>method</th><th>what speaks against it</th></tr>"
        f"{estimates}</table></div>{notes}\n"
        f"<h2>Assumed, not fitted</h2><table>{kept}</table></body></html>\n"
    )
