"""`playbill train-campaign`: what campaigns stand on, from a log of mails to files that a bundle can carry."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from playbill.campaign.mail_log import read_mail_log
from playbill.campaign.send_time import PEOPLE, write_send_times
from playbill.errors import TrainingError
from playbill.tables.files import write_atomic
from playbill.tables.folder import read_folder
from playbill.training.campaign.learn import Logs, SendTimeReport, learn
from playbill.training.campaign.settings import CampaignModelSettings

RECORD, REPORT = "run.json", "report.json"


def run(settings: CampaignModelSettings) -> int:
    """Learn, judge and write; return 0.

    Raises:
        TrainingError: no mails, or none of them opened.
        TableError: no such tables, no table of users, or no such column in it.
    """
    console = Console(stderr=True)
    tables = Path(settings.home) / "tables" / settings.tables
    folder = Path(settings.home) / "runs" / (settings.run or f"{settings.tables}-campaign")
    what = {k: v for k, v in asdict(settings).items() if k not in ("home", "run", "force")}
    record: dict[str, Any] = {"settings": what, "tables": read_folder(tables).fingerprint}
    if not settings.force and (folder / RECORD).is_file() and (folder / PEOPLE).is_file():
        if msgspec.json.decode((folder / RECORD).read_bytes()) == record:
            console.print(f"{folder} is up to date: {_line(_report(folder))}")
            return 0
    with console.status("reading the log of mails") as status:
        log: dict[str, Any] = {
            "open_event": settings.open_event,
            "not_there": settings.not_there,
            "segment": settings.segment,
            "within_h": settings.within_h,
            "machine_s": settings.machine_s,
        }
        whole = read_mail_log(tables, **log)
        if not len(whole.arrived):
            raise TrainingError(
                f"{tables} has no mails: decisions of kind send_hour, `chosen` the local hour 0..23, of known people"
            )
        split = int(whole.arrived[int((1 - settings.held_out) * len(whole.arrived))])
        logs = Logs(read_mail_log(tables, until=split, **log), read_mail_log(tables, since=split, **log), whole)
        found, report = learn(logs, settings, status.update)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)  # until all is written, this is no run
    write_send_times(folder, found)
    write_atomic(folder / REPORT, msgspec.json.format(msgspec.json.encode(report), indent=1))
    write_atomic(folder / RECORD, msgspec.json.format(msgspec.json.encode(record), indent=1))
    console.print(f"[bold]{folder}[/]: {_line(report)}")
    return 0


def _report(folder: Path) -> SendTimeReport:
    return msgspec.json.decode((folder / REPORT).read_bytes(), type=SendTimeReport)


def _line(report: SendTimeReport) -> str:
    judged = report.judged
    return (
        f"{report.own:,} of {report.people:,} people have hours of their own; machines read {report.machines:,}; "
        f"log loss of {judged.mails:,} later mails {judged.log_loss:.4f}, by the list's hours "
        f"{judged.log_loss_of_list:.4f}, less by {judged.gained.value:.4f} [{judged.gained.low:.4f} "
        f"{judged.gained.high:.4f}]"
    )
