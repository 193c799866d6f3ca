"""What a sweep has tried so far: trials.json, written at every change, from which a killed sweep goes on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from playbill.errors import TrainingError
from playbill.tables.files import write_atomic

FORMAT = 1
FILE = "trials.json"

UNDER_WAY, TRAINED, STOPPED, FAILED = "under way", "trained", "stopped", "failed"


class Trial(msgspec.Struct, kw_only=True):
    """One training.

    Attributes:
        number: 1, 2, ... in the order they were begun; run: name of its folder below <home>/runs.
        values: what this trial has of each dimension.
        arguments: all that `playbill train` is given.
        status: under way, trained (to its end), stopped (by the scheduler), or failed.
        curve: the metric after each epoch.
        best: the metric at the epoch whose weights the run keeps, which is the one with the best metric of the run's
            own choice; epoch: that epoch, 1-based; None and 0 before the first.
        seconds: wall clock, of all its sittings.
        reason: why it failed.
    """

    number: int
    run: str
    values: dict[str, Any]
    arguments: list[str]
    status: str = UNDER_WAY
    curve: list[float] = []
    best: float | None = None
    epoch: int = 0
    seconds: float = 0.0
    reason: str = ""

    @property
    def ended(self) -> bool:
        return self.status in (TRAINED, STOPPED)


class Journal(msgspec.Struct, kw_only=True):
    """trials.json.

    Attributes:
        identity: hash of all that decides what a trial is; a sweep with another one is another sweep.
        asked: the same in words, for people: tables, model, job, space, search, scheduler, metric.
        wanted: how many trials were asked for last; finished: all of them ended.
    """

    format: int = FORMAT
    name: str
    identity: str
    asked: dict[str, Any]
    metric: str
    wanted: int = 0
    finished: bool = False
    trials: list[Trial] = []

    def ended(self) -> list[Trial]:
        return [t for t in self.trials if t.ended]

    def best(self) -> Trial | None:
        """Return the trial with the highest metric; of equal ones the first; none where no epoch was reached."""
        reached = [t for t in self.ended() if t.best is not None]
        return max(reached, key=lambda t: (t.best, -t.number), default=None)


def identity(asked: dict[str, Any], tables_fingerprint: str) -> str:
    """Return sha256 over what a sweep is."""
    return hashlib.sha256(msgspec.json.encode([FORMAT, asked, tables_fingerprint], order="sorted")).hexdigest()


def read_journal(folder: Path) -> Journal | None:
    """Return the journal of a sweep's folder, None where there is none.

    Raises:
        TrainingError: it is there and cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        journal = msgspec.json.decode(path.read_bytes(), type=Journal)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: {error}; begin the sweep afresh with force=true") from None
    if journal.format != FORMAT:
        raise TrainingError(f"{path} has format {journal.format}, this Playbill writes {FORMAT}; give force=true")
    return journal


def write_journal(folder: Path, journal: Journal) -> None:
    write_atomic(folder / FILE, msgspec.json.format(msgspec.json.encode(journal), indent=1) + b"\n")
