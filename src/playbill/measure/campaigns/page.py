"""A reading as one html page that asks for nothing from elsewhere."""

from __future__ import annotations

import base64
import html
from typing import Any

from playbill.measure.statement import Reading

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c1c1e }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin-top: 1.6rem } img { max-width: 100% }
table { border-collapse: collapse; font-size: .9rem } td, th { padding: .15rem .9rem .15rem 0; text-align: left }
td.n { text-align: right; font-variant-numeric: tabular-nums } .warn { color: #b00020 } .verdict { font-weight: 600 }
.small { color: #636366; font-size: .85rem }
"""


def to_html(reading: Reading, png: bytes) -> str:
    """Return the page; `png` is its picture."""
    picture = base64.b64encode(png).decode()
    rows = [
        {
            "what": s.name, "figure": s.refused or s.estimate, "low": s.low, "high": s.high, "unit": s.unit, "n": s.n,
            "control": s.details.get("control"), "p": s.details.get("p_value"), "q": s.details.get("q_value"),
        }
        for s in reading.statements
    ]  # fmt: skip
    warnings = "".join(f"<p class=warn>{_text(w)}</p>" for w in reading.warnings)
    assumed = dict.fromkeys(a for s in reading.statements for a in s.assumptions)
    body = "".join(f"<h2>{_text(name)}</h2>{_table(rows)}" for name, rows in reading.tables.items() if rows)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{_text(reading.title)}</title>"
        f"<style>{_STYLE}</style><h1>{_text(reading.title)}</h1><p class=verdict>{_text(reading.verdict)}</p>{warnings}"
        f"<img alt='every figure with its interval' src='data:image/png;base64,{picture}'>"
        f"<h2>figures</h2>{_table(rows)}{body}"
        f"<p class=small>assumed: {_text('; '.join(assumed))}</p></html>\n"
    )


def _table(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    lines = "".join("<tr>" + "".join(_cell(row.get(name)) for name in names) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{lines}</table>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"<td class=n>{value:.4g}</td>"
    return (
        f"<td class=n>{value:,}</td>" if isinstance(value, int) else f"<td>{_text('' if value is None else value)}</td>"
    )


def _text(value: Any) -> str:
    return html.escape(str(value))
