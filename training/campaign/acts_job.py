"""`playbill train-acts`: what people will do, from the log of what they did to two files that a bundle can carry."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from playbill.campaign.act_features import Words, read_acts_log
from playbill.campaign.acts import FILE, write
from playbill.errors import TableError, TrainingError
from playbill.tables.files import write_atomic
from playbill.tables.folder import read_folder
from playbill.tables.schema import TableFolder
from playbill.training.campaign.acts_learn import ActReport, learn
from playbill.training.campaign.acts_moments import drawn
from playbill.training.campaign.acts_settings import ActSettings

RECORD, REPORT = "run.json", "report.json"
_MONEY = re.compile(r"[A-Z]{3}")  # ISO 4217


def run(settings: ActSettings) -> int:
    """Learn, judge and write; return 0.

    Raises:
        TrainingError: the data carries none of the acts; says of each what is missing.
        TableError: no such tables, no events of people, or a column that nobody may learn from.
    """
    console = Console(stderr=True)
    tables = Path(settings.home) / "tables" / settings.tables
    folder = Path(settings.home) / "runs" / (settings.run or f"{settings.tables}-acts")
    about = read_folder(tables)
    what = {k: v for k, v in asdict(settings).items() if k not in ("home", "run", "force")}
    record: dict[str, Any] = {"settings": what, "tables": about.fingerprint}
    if not settings.force and (folder / RECORD).is_file() and (folder / FILE).is_file():
        if msgspec.json.decode((folder / RECORD).read_bytes()) == record:
            console.print(f"{folder} is up to date")
            _tell(console.print, read_report(folder))
            return 0
    with console.status("reading what people did") as status:
        words = words_of(about, settings)
        log = read_acts_log(tables, words, "training", settings.until_us())
        log = drawn(log, settings.most_people, settings.seed)
        acts, report = learn(tables, log, words, settings, status.update)
    if not acts.spec.acts:
        raise TrainingError(f"{tables} carries none of the acts: " + "; ".join(acts.spec.lacking.values()))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)  # until all is written, this is no run
    write(folder, acts)
    write_atomic(folder / REPORT, msgspec.json.format(msgspec.json.encode(report), indent=1))
    write_atomic(folder / RECORD, msgspec.json.format(msgspec.json.encode(record), indent=1))
    console.print(f"[bold]{folder}[/]")
    _tell(console.print, report)
    return 0


def words_of(about: TableFolder, settings: ActSettings) -> Words:
    """Return what events mean, by the settings and by what tables.json declares.

    Raises:
        TableError: a column that would be read is protected or sensitive.
    """
    for table in ("events", "decisions"):
        for column in about.columns.get(table, []):
            if column.name in ("event", "at", "item_id", "value", "kind") and (column.protected or column.sensitive):
                raise TableError(
                    f"{table}.{column.name} is protected or sensitive: nothing is foretold of people by it"
                )
    units = {event.name: event.unit for event in about.events}
    return Words(
        purchases=settings.purchases,
        money=[name for name in settings.purchases if _MONEY.fullmatch(units.get(name, ""))],
        opens=settings.opens,
        mail=settings.mail,
        days=settings.history_days,
    )


def read_report(folder: Path) -> ActReport:
    """Return report.json of a run."""
    return msgspec.json.decode((folder / REPORT).read_bytes(), type=ActReport)


def _tell(say: Callable[[str], None], report: ActReport) -> None:
    for name, found in report.acts.items():
        line = f"{name}: {found.chosen} of {', '.join(found.chances or found.amounts)}"
        if found.calibration is not None and found.calibration.ratio is not None:
            best, ratio = found.chances[found.chosen], found.calibration.ratio
            line += f"; AUC {best.auc:.3f}, log loss {best.log_loss:.4f}, observed / expected {ratio.value:.3f}"
        elif found.amounts:
            line += f"; mean absolute error {found.amounts[found.chosen].mae:.2f}"
        say(line)
    for name, missing in report.lacking.items():
        say(f"[yellow]{name}[/]: {missing.removeprefix(name + ': ')}")
