"""The panels as one page that needs nothing else: no scripts, no fonts, no files beside it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from playbill.training.dashboards.found import Found, FoundBundle
from playbill.training.dashboards.panels import Panel, Section
from playbill.training.dashboards.svg import bars, colour, lines

_STYLE = (
    "body{font:15px/1.4 system-ui,sans-serif;margin:2em auto;max-width:1450px;padding:0 1em;color:#222}"
    "section{margin:2em 0}.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(420px,1fr));gap:1.2em}"
    "figure{margin:0;border:1px solid #ddd;padding:.6em;overflow:hidden}figcaption{font-weight:600}"
    "table{border-collapse:collapse}th,td{text-align:left;padding:.2em .7em;border-bottom:1px solid #eee;"
    "vertical-align:top}svg{width:100%;font-size:11px;fill:#222}img{max-width:100%}.none{color:#777}"
    ".scroll{overflow-x:auto}.passed{color:#17682f}.failed{color:#a11}.dot{display:inline-block;width:.8em;height:.8em}"
)


def page(found: Found, sections: Sequence[Section], most_runs: int) -> str:
    """Return the html: runs, every section's panels, each bundle with its reports, and what else was measured."""
    drawn = "".join(
        f'<section><h2>{escape(section.name)}</h2><div class="grid">'
        + "".join(_figure(panel, found, most_runs) for panel in section.panels)
        + "</div>"
        + ("" if section.panels else '<p class="none">none yet</p>')
        + "</section>\n"
        for section in sections
    )
    others = "".join(f"<li>{escape(title)}: <code>{escape(str(file))}</code></li>" for title, file in found.others)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Playbill dashboard</title><style>{_STYLE}</style></head>\n<body><h1>Playbill dashboard</h1>\n"
        f"<section><h2>Runs</h2>{_runs(found, most_runs)}</section>\n{drawn}"
        f"<section><h2>What was said of each bundle</h2>{''.join(map(_bundle, reversed(found.bundles)))}"
        f"{'' if found.bundles else _NONE}</section>\n"
        f"<section><h2>Measured and rehearsed</h2>{f'<ul>{others}</ul>' if others else _NONE}</section>\n"
        "</body></html>\n"
    )


_NONE = '<p class="none">none yet</p>'


def _figure(panel: Panel, found: Found, most_runs: int) -> str:
    if panel.kind == "lines":
        newest = found.trainings[-most_runs:]
        many = len(panel.keys) > 1
        curves = {f"{t.name} {k}" if many else t.name: t.curve(k) for t in newest for k in panel.keys}
        inside = lines(curves, panel.title)
    elif panel.kind == "bars":
        inside = bars(
            {f"{b.version} {k}" if len(panel.keys) > 1 else b.version: _interval(b, k)
             for b in found.bundles for k in panel.keys if isinstance(b.figures.get(k), int | float)},
            panel.title,
        )  # fmt: skip
    else:
        folder = next(path for journal, path in found.sweeps if journal.name == panel.sweep)
        inside = _picture(folder / "parallel.png", panel.title)
    return f"<figure><figcaption>{escape(panel.title)}</figcaption>{inside}</figure>"


def _interval(bundle: FoundBundle, key: str) -> tuple[float, float | None, float | None]:
    figures = bundle.figures
    return float(figures[key]), figures.get(f"{key}/low"), figures.get(f"{key}/high")


def _runs(found: Found, most_runs: int) -> str:
    if not found.trainings:
        return _NONE
    coloured = {t.name: colour(place) for place, t in enumerate(found.trainings[-most_runs:])}
    head = ("", "run", "model", "tables", "finished", "metric", "best", "epoch", "seconds", "rows a second")
    rows = []
    for t in reversed(found.trainings):
        r = t.record
        dot = f'<span class="dot" style="background:{coloured[t.name]}"></span>' if t.name in coloured else ""
        cells = (t.name, r.model, r.tables, "yes" if r.completed else "no", r.metric, f"{r.best:.4f}",
                 f"{r.best_epoch} of {r.epochs}", f"{r.seconds:.0f}", f"{r.samples_per_second:,.0f}")  # fmt: skip
        rows.append(f"<tr><td>{dot}</td>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>")
    return f'<div class="scroll"><table>{_head(head)}{"".join(rows)}</table></div>'


def _bundle(bundle: FoundBundle) -> str:
    parts = [f"<h3>{escape(bundle.version)}: {escape(bundle.state)}</h3>"]
    parts.append(
        f"<p>carries {escape(', '.join(bundle.manifest.rungs))}; made {escape(bundle.manifest.created_at)}</p>"
    )
    for report in bundle.reports:
        inside = _evaluation(report.payload) if report.kind == "evaluation" else _values(report.headlines)
        if report.kind == "gate":
            verdict = "passed" if report.payload["passed"] else "failed"
            inside = f'<p class="{verdict}">{verdict}</p>' + _rules(report.payload)
        opened = " open" if report.kind in ("evaluation", "gate") else ""
        picture = "" if report.picture is None else _picture(report.picture, report.kind)
        parts.append(f"<details{opened}><summary>{escape(report.kind)}</summary>{inside}{picture}</details>")
    return "".join(parts)


def _evaluation(payload: dict[str, Any]) -> str:
    """Return the longest cut-off on everybody: means with their intervals."""
    k = max(payload["ks"])
    names = [f"{m}_at_{k}" for m in ("ndcg", "recall", "hit_rate")]
    rows = "".join(
        f"<tr><td>{escape(m['label'])}</td>"
        + "".join(f"<td>{_words(m['slices']['all']['metrics'][name])}</td>" for name in names)
        + "</tr>"
        for m in payload["models"]
        if "all" in m["slices"]
    )
    return f'<div class="scroll"><table>{_head(("model", *names))}{rows}</table></div>'


def _rules(payload: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(str(r['name']))}</td><td>{escape(str(r['found']))}</td>"
        f'<td class="{escape(str(r["verdict"]))}">{escape(str(r["verdict"]))}</td></tr>'
        for r in payload["rules"]
    )
    return f"<table>{_head(('rule', 'found', 'verdict'))}{rows}</table>"


def _values(values: dict[str, Any]) -> str:
    rows = "".join(f"<tr><th>{escape(str(k))}</th><td>{escape(str(v))}</td></tr>" for k, v in values.items())
    return f"<table>{rows}</table>"


def _head(names: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<th>{escape(n)}</th>" for n in names) + "</tr>"


def _words(interval: dict[str, float]) -> str:
    return f"{interval['value']:.4f} [{interval['low']:.4f}, {interval['high']:.4f}]"


def _picture(path: Path, title: str) -> str:
    if not path.is_file():
        return '<p class="none">nothing yet</p>'
    return f'<img alt="{escape(title)}" src="data:image/png;base64,{b64encode(path.read_bytes()).decode()}">'
