"""run.json of a run of `playbill tune`: what was picked for each baseline, and the file that it was fitted into.

It stands beside those files, in the form in which a bundle holds them. Whoever exports reads it and copies them.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from playbill.tables.files import write_atomic

CHOSEN_FORMAT = 1  # grows when the same baselines come to be written in another form


class Baseline(msgspec.Struct, kw_only=True):
    """One baseline of a run.

    Attributes:
        file: its fit on all that comes before the test part, in the folder of the run.
        choice: the numbers it was fitted with; figure: what they reached on validation, null where nobody was there.
        tries: sets of numbers that validation judged; about: the same in words.
    """

    label: str
    file: str
    choice: dict[str, float]
    figure: float | None
    tries: int
    about: str


class Chosen(msgspec.Struct, kw_only=True):
    """A run; `fingerprint` is of tables, split and settings, `split` is json, `metric` is what picked."""

    format: int = CHOSEN_FORMAT
    fingerprint: str
    tables: str
    tables_fingerprint: str
    split: str
    metric: str
    code_version: str
    baselines: dict[str, Baseline] = {}
    notes: list[str] = []
    seconds: float = 0.0
    completed: bool = False


def read_chosen(folder: Path) -> Chosen | None:
    """Return run.json, or None where there is none that this Playbill can read."""
    try:
        found = msgspec.json.decode((folder / "run.json").read_bytes(), type=Chosen)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if found.format == CHOSEN_FORMAT else None


def write_chosen(folder: Path, chosen: Chosen) -> None:
    """Write run.json."""
    write_atomic(folder / "run.json", msgspec.json.format(msgspec.json.encode(chosen), indent=1) + b"\n")
