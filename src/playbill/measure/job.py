"""The job `playbill measure`: one question, one log, one reading; printed, and written as json, text and a plot."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from playbill.errors import ConfigError
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Reading, to_json, to_png, to_text
from playbill.tables.files import atomic_folder


def run(settings: MeasureSettings) -> Reading:
    """Answer `settings.question` from the tables, print it, and write reading.json, reading.txt and reading.png.

    Raises:
        ConfigError: no question, or tables that a question needs are not named.
        MeasureError: the log cannot be measured; names column, count and first rows.
        TableError: no such tables.
    """
    if settings.question is None:
        raise ConfigError("no question; choose one, such as question=experiment (`playbill measure --help` lists them)")
    # a question's settings stand beside the function that answers it
    package = type(settings.question).__module__.rpartition(".")[0]
    name = package.rpartition(".")[2]
    tables = folder_of(settings)
    answer = importlib.import_module(f"{package}.read")
    reading: Reading = answer.run(settings.question, tables, settings)
    # a question with a picture of its own (a line along time, say) has it beside `run`
    picture: Callable[[Reading], bytes] = getattr(answer, "picture", to_png)
    label = f"{tables.name}-{name}" if settings.tables else name
    out = Path(settings.out) if settings.out else Path(settings.home) / "measure" / label
    with atomic_folder(out) as folder:
        (folder / "reading.json").write_bytes(to_json(reading))
        (folder / "reading.txt").write_text(to_text(reading))
        (folder / "reading.png").write_bytes(picture(reading))
    console = Console(soft_wrap=True, highlight=False)
    console.print(to_text(reading), markup=False, end="")
    console.print(f"\nwritten to {out}", markup=False)
    return reading


def folder_of(settings: MeasureSettings) -> Path:
    """Return the table folder that the settings name; it need not exist."""
    named = Path(settings.tables)
    return named if settings.tables and named.is_dir() else Path(settings.home) / "tables" / settings.tables
