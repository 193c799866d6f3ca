"""Where a rehearsal begins: the world, and the log of its first days, the same for every policy."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from playbill import __version__
from playbill.errors import ConfigError, TableError
from playbill.rehearsal.settings import RehearseSettings
from playbill.tables.folder import read_folder
from playbill.world.build import World, build
from playbill.world.generate import generate
from playbill.world.overlay import overlay
from playbill.world.parameters import Parameters
from playbill.world.settings import GenerateSettings, Size
from playbill.world.truth import open_truth


@dataclass(slots=True)
class Stage:
    """What all policies of a rehearsal share.

    Attributes:
        world: the truth; it lasts for the first days and all rounds.
        tables: folder with the log of the first days.
        folder: of the rehearsal.
        first_day: 0-based day on which round 1 begins.
        fingerprint: of the tables.
    """

    world: World
    tables: Path
    folder: Path
    first_day: int
    fingerprint: str


def open_stage(settings: RehearseSettings, console: Console) -> Stage:
    """Return the stage; the first days are written unless they stand there from before.

    Raises:
        ConfigError: no world or size chosen, or a parameter file that does not fit.
    """
    if not isinstance(settings.world, Parameters) or not isinstance(settings.size, Size):
        raise ConfigError("choose a world and a size, such as world=fitted size=small")
    parameters = overlay(settings.world, settings.parameters) if settings.parameters else settings.world
    first_day = settings.size.days
    # as long again as the first days: rounds up to there can be added later without another world
    size = replace(settings.size, days=first_day + max(first_day, settings.rounds * settings.round_days))
    folder = Path(settings.home) / "rehearsals" / (settings.name or f"{parameters.name}-{settings.size.name}")
    parts = [__version__, asdict(parameters), asdict(size), settings.seed]
    mark = hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()
    tables = folder / "tables" / f"first-{mark[:12]}"
    try:
        written = read_folder(tables, verify=True)
        world = open_truth(tables)
    except TableError:
        world = build(parameters, size, settings.seed)
        bars = (TextColumn("the first days"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*bars, console=console, transient=True) as progress:
            bar = progress.add_task("", total=first_day)
            given = GenerateSettings(world=parameters, size=size, seed=settings.seed)
            written = generate(world, tables, given, lambda _: progress.advance(bar), days=first_day)
    return Stage(world=world, tables=tables, folder=folder, first_day=first_day, fingerprint=written.fingerprint)
