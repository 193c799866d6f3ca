"""preview.html: some recipients of a campaign as they were decided, to look at before anybody is written to.

One file that asks for nothing from elsewhere; all that comes from data is escaped.
"""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import polars as pl

from playbill.campaign.settings import Campaign
from playbill.serving.campaigns.folder import PREVIEW, ROWS, Success
from playbill.tables.files import write_atomic

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1c1c1e; background: #fff }
h1 { font-size: 1.4rem } table { border-collapse: collapse } td, th { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums } .small { color: #636366; font-size: .85rem }
article { border: 1px solid #d1d1d6; border-radius: .6rem; padding: .8rem 1.1rem; margin: 1rem 0 }
article.held { background: #f2f2f7; color: #48484a } article h2 { font-size: 1.05rem; margin: 0 0 .3rem }
ol { margin: .2rem 0 .7rem; padding-left: 1.4rem } .block { font-weight: 600; margin-top: .5rem }
@media (prefers-color-scheme: dark) { body { background: #1c1c1e; color: #f2f2f7 } article { border-color: #48484a }
article.held { background: #2c2c2e; color: #d1d1d6 } .small { color: #98989d } }
"""  # noqa: E501  # a style sheet


def write_preview(folder: Path, campaign: Campaign, success: Success, wanted: int) -> None:
    """Write the page about so many recipients, evenly out of all: of five four that are sent, where there are."""
    rows = pl.scan_parquet(folder / ROWS / "part-*.parquet")
    shown = []
    for sent, share in ((True, wanted - wanted // 5), (False, wanted // 5)):
        mine = rows.filter(pl.col("send") == sent)
        size = int(mine.select(pl.len()).collect().item())
        places = [round(i * (size - 1) / max(1, share - 1)) for i in range(min(share, size))]
        picked = mine.with_row_index("__row").filter(pl.col("__row").is_in(places)).collect()
        shown += list(picked.iter_rows(named=True))
    counts = [("sent", success.sent), *success.held.items()]
    counts += [(f"set aside: {reason}", n) for reason, n in success.aside.items()]
    table = "".join(f"<tr><td>{_text(name)}</td><td class=n>{n:,}</td></tr>" for name, n in counts)
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{_text(campaign.name)}</title><style>{_STYLE}</style><h1>{_text(campaign.name)}: "
        f"{success.recipients:,} recipients</h1><table>{table}</table>"
        f"<p class=small>{len(shown)} of them, evenly out of all. Nothing here was sent by Playbill.</p>"
        + "".join(_recipient(campaign, row) for row in shown)
        + "</html>"
    )
    write_atomic(folder / PREVIEW, page.encode())


def _recipient(campaign: Campaign, row: dict[str, Any]) -> str:
    who = f"{_text(row['user_id'])} <span class=small>{_text(row['timezone'])}</span>"
    if not row["send"]:
        return f"<article class=held><h2>{who}</h2>held back: <b>{_text(row['reason'])}</b></article>"
    subject = _filled(row["subject_text"], row)
    chance = "" if row["open_probability"] is None else f", opened with probability {row['open_probability']:.2f}"
    drawn = f"1 of {row['hours']} hours with propensity {row['hour_propensity']:.3g}{chance}"
    subjects = f"subject {_text(row['subject'])} with {row['subject_propensity']:.3g}"
    facts = (
        f"{_text(row['channel'])} at {_text(row['send_local'])} local, {row['send_at']:%Y-%m-%d %H:%M} UTC "
        f"<span class=small>({_text(row['hour_reason'])}, {drawn}; {subjects})</span>"
    )
    head = ""
    if row["hero_variant"] is not None:
        picture = "" if row["hero_variant_image"] is None else f" · {_text(row['hero_variant_image'])}"
        chance = f"hero {_text(row['hero_variant'])} with {row['hero_variant_propensity']:.3g}"
        line = _text(_filled(row["hero_variant_text"], row))
        head = f"<div><b>{line}</b>{picture} <span class=small>({chance})</span></div>"
    if row["offer"] is not None:
        facts += f" · offer <b>{_text(row['offer'])}</b> <span class=small>({_text(row['offer_reason'])}, "
        facts += f"1 of {row['offers']} with {row['offer_propensity']:.3g})</span>"
    blocks = head + "".join(_block(block.name, row) for block in campaign.blocks)
    return f"<article><h2>{_text(subject)}</h2><div>{who}</div><div>{facts}</div>{blocks}</article>"


def _filled(text: str, row: dict[str, Any]) -> str:
    for name, value in json.loads(row["tokens"]).items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


def _block(name: str, row: dict[str, Any]) -> str:
    of = ("items", "titles", "creatives", "propensities")
    reasons = row[f"{name}_reasons"] or [None] * len(row[f"{name}_items"])
    items = ""
    for item, title, creative, propensity, reason in zip(*(row[f"{name}_{c}"] for c in of), reasons, strict=True):
        told = [_text(item)]
        told += [] if creative is None else [f"creative {_text(creative)}"]
        told += [] if propensity == 1 else [f"with {propensity:.3g}"]
        told += [] if reason is None else [_text(reason)]
        items += f"<li>{_text(item if title is None else title)} <span class=small>{', '.join(told)}</span></li>"
    rung = f"<span class=small>{_text(row[f'{name}_rung'] or 'no items')}</span>"
    return f"<div class=block>{_text(name)} {rung}</div><ol>{items}</ol>"


def _text(value: Any) -> str:
    return html.escape(str(value))
