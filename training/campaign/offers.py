"""`playbill train-offers`: what each offer does to each person, from a log to files that a bundle can carry."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console

from playbill.campaign.offer_facts import FactSpec, check_inputs, read_facts, read_offers, words_of
from playbill.campaign.offers import ABOUT, ARRAYS, OfferModel
from playbill.errors import TrainingError
from playbill.measure.bootstrap import Interval
from playbill.tables.files import write_atomic
from playbill.tables.folder import read_folder
from playbill.training.campaign.offer_judge import FREE, INCLINED, about, fitted, judge, of_kinds, read_rows
from playbill.training.campaign.offer_settings import OfferModelSettings

RECORD, REPORT = "run.json", "offers_report.json"


class OfferReport(msgspec.Struct, kw_only=True):
    """offers_report.json of a run.

    Attributes:
        offers, people, purchases: that taught and judged; earlier, offers that are what is known of people.
        chosen: of the candidates; see `Judged.chosen`.
        judged: by candidate, and `nobody`, what its plan earns a person on held-out people's later offers.
        gained: the same less what nobody's offers earn.
        told: mean log-likelihood of held-out offers' outcomes, by candidate.
        surer: see About.
    """

    offers: int
    earlier: int
    people: int
    purchases: int
    chosen: str
    judged: dict[str, Interval]
    gained: dict[str, Interval]
    told: dict[str, float]
    surer: float


def run(settings: OfferModelSettings) -> int:
    """Learn, judge and write; return 0.

    Raises:
        ConfigError: an input that no offer may rest on.
        TrainingError: no offers, or a level that was never made.
        TableError: no such tables.
    """
    console = Console(stderr=True)
    tables = Path(settings.home) / "tables" / settings.tables
    folder = Path(settings.home) / "runs" / (settings.run or f"{settings.tables}-offers")
    what = {k: v for k, v in asdict(settings).items() if k not in ("home", "run", "force")}
    record: dict[str, Any] = msgspec.to_builtins({"settings": what, "tables": read_folder(tables).fingerprint})
    if not settings.force and (folder / RECORD).is_file() and (folder / ABOUT).is_file():
        if msgspec.json.decode((folder / RECORD).read_bytes()) == record:
            console.print(f"{folder} is up to date")
            return 0
    with console.status("learning what offers do"):
        model, report = learn(tables, settings)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)  # until all is written, this is no run
    write_model(folder, model)
    write_atomic(folder / REPORT, msgspec.json.format(msgspec.json.encode(report), indent=1))
    write_atomic(folder / RECORD, msgspec.json.format(msgspec.json.encode(record), indent=1))
    gained = ", ".join(f"{n} {i.value:+.4g} [{i.low:.4g} {i.high:.4g}]" for n, i in report.gained.items())
    console.print(f"[bold]{folder}[/]: {report.chosen}; a person earns more than without offers by {gained}")
    return 0


def write_model(folder: Path, model: OfferModel) -> None:
    """Write offers.npz and offers.json."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **model.arrays)  # type: ignore[arg-type]  # arrays by name
    write_atomic(folder / ARRAYS, buffer.getvalue())
    write_atomic(folder / ABOUT, msgspec.json.format(msgspec.json.encode(model.about), indent=1))


def learn(tables: Path, settings: OfferModelSettings) -> tuple[OfferModel, OfferReport]:
    """Return the model that is kept, fitted on all offers, and the report. See `run`."""
    check_inputs(tables, settings.inputs, "inputs")
    spec = FactSpec(
        levels=[settings.none, *(level.name for level in settings.offers.levels)], inputs=settings.inputs,
        words=words_of(tables, settings.inputs), events=settings.events, kind=settings.kind,
        purchase=settings.purchase, opening=settings.opening, window_h=settings.window_h,
    )  # fmt: skip
    offers = read_offers(tables, spec)
    counts = np.bincount(offers["level"].to_numpy(), minlength=len(spec.levels))
    if (counts < 2).any() or not offers["bought"].any():
        named = dict(zip(spec.levels, counts.tolist(), strict=True))
        raise TrainingError(
            f"{tables}: every level, none too, must have been offered, and something bought; offers by level: {named}"
        )
    if offers["propensity"].null_count() or (offers["propensity"] <= 0).any():
        raise TrainingError(f"{tables}: decisions of kind {settings.kind} lack a propensity above 0; draw and log them")
    last = int(offers["at"].dt.epoch("us").max())  # type: ignore[arg-type]  # a log has a last moment
    since = last - round(settings.learn_days * 86_400e6)
    rows = read_rows(tables, spec, offers, since, settings)
    value = float(offers.filter("bought")["value"].mean() or 0.0)  # type: ignore[arg-type]
    judged = judge(rows, spec, value, settings)
    chosen = judged.chosen()
    if chosen in (FREE, INCLINED):
        now = read_facts(tables, spec, offers["user_id"].unique(maintain_order=True), None, offers)
        arrays = of_kinds(chosen, now.made, now.taken, settings)
    else:
        arrays = fitted(chosen, rows, spec, settings)
    of = about(chosen, spec, value)
    of.surer, of.judged = judged.surer[chosen], {n: i.value for n, i in judged.gained.items()}
    report = OfferReport(
        offers=len(rows.level), earlier=len(offers) - len(rows.level), people=len(np.unique(rows.person)),
        purchases=int(rows.bought.sum()), chosen=chosen, judged=judged.total, gained=judged.gained,
        told=judged.told, surer=of.surer,
    )  # fmt: skip
    return OfferModel(of, arrays), report
