"""The job `playbill measure`: one question, one log, one reading; printed, and written as json, text and a plot."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
from rich.console import Console

from playbill.errors import ConfigError, MeasureError
from playbill.measure.opening import check_tables
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
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(settings.question).__name__.removesuffix("Question")).lower()
    tables = folder_of(settings)
    if settings.tables or name != "power":  # which plans, and reads no log
        _check_folder(tables, settings)
        check_tables(tables)
    answer = importlib.import_module(f"{package}.read")
    try:
        with Console(stderr=True).status(f"{name} ..."):
            reading: Reading = answer.run(settings.question, tables, settings)
    except (pl.exceptions.PolarsError, pa.ArrowException) as error:
        raise MeasureError(f"{tables}: a table or file cannot be used: {str(error).splitlines()[0]}") from error
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


def _check_folder(tables: Path, settings: MeasureSettings) -> None:
    if settings.tables and tables.is_dir():
        return
    home = Path(settings.home) / "tables"
    there = sorted(p.name for p in home.iterdir() if p.is_dir() and p.name[0] != ".") if home.is_dir() else []
    asked = f"no tables {settings.tables!r}" if settings.tables else "tables= names no folder"
    raise ConfigError(f"{asked}; in {home} there are: {', '.join(there) or 'none'}; a path to a folder serves as well")


def folder_of(settings: MeasureSettings) -> Path:
    """Return the table folder that the settings name; it need not exist."""
    named = Path(settings.tables)
    return named if settings.tables and named.is_dir() else Path(settings.home) / "tables" / settings.tables
