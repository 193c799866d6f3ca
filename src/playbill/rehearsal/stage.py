"""Where a rehearsal begins: the world, and the log of its first days, the same for every policy."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from playbill import __version__
from playbill.errors import ConfigError, TableError, WorldError
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


_CELLS = 2_000_000_000  # people x items that a policy's memory may hold, a byte each


def parameters_of(settings: RehearseSettings) -> Parameters:
    """Return the chosen world's numbers, those of the parameter file over them.

    Raises:
        ConfigError: no world or size chosen, or a parameter file that does not fit.
    """
    if not isinstance(settings.world, Parameters) or not isinstance(settings.size, Size):
        raise ConfigError("choose a world and a size, such as world=fitted size=small")
    return overlay(settings.world, settings.parameters) if settings.parameters else settings.world


def folder_of(settings: RehearseSettings) -> Path:
    """Return the rehearsal's folder; it need not exist."""
    return (
        Path(settings.home) / "rehearsals" / (settings.name or f"{parameters_of(settings).name}-{settings.size.name}")
    )


def open_stage(settings: RehearseSettings, console: Console) -> Stage:
    """Return the stage; the first days are written unless they stand there from before.

    Raises:
        ConfigError: no world or size chosen, or a parameter file that does not fit.
    """
    parameters = parameters_of(settings)
    first_day = settings.size.days
    size = replace(settings.size, days=first_day + settings.most_rounds * settings.round_days)
    if size.people * size.items > _CELLS:
        raise ConfigError(
            f"size={size.name}: {size.people:,} people x {size.items:,} items are more than the 2 billion cells "
            "that fit in memory; use size=small, or set size.people and size.items"
        )
    folder = folder_of(settings)
    parts = [__version__, asdict(parameters), asdict(size), settings.seed]
    mark = hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()
    tables = folder / "tables" / f"first-{mark[:12]}"
    try:
        written = read_folder(tables, verify=True)
        world = open_truth(tables)
    except (TableError, WorldError):  # not there, or not whole
        world = build(parameters, size, settings.seed)
        bars = (TextColumn("the first days"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*bars, console=console, transient=True) as progress:
            bar = progress.add_task("", total=first_day)
            given = GenerateSettings(world=parameters, size=size, seed=settings.seed)
            written = generate(world, tables, given, lambda _: progress.advance(bar), days=first_day)
    there = int((world.items.published_day <= first_day).sum())
    if settings.k > there:
        raise ConfigError(f"k is {settings.k}, and on the first day of round 1 there are {there} items; lower it")
    return Stage(world=world, tables=tables, folder=folder, first_day=first_day, fingerprint=written.fingerprint)
