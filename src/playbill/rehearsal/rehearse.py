"""The job `playbill rehearse`: policies serve the simulated people round after round, each in a world of its own."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from hashlib import sha256

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from playbill import __version__
from playbill.errors import MeasureError
from playbill.measure.feedback import alarm_round, read_rounds
from playbill.rehearsal.actor import Actor
from playbill.rehearsal.report import Rehearsal, head_text, round_text, tail_text, to_png, to_text
from playbill.rehearsal.rounds import round_of
from playbill.rehearsal.settings import POLICIES, RehearseSettings
from playbill.rehearsal.stage import Stage, folder_of, open_stage
from playbill.tables.files import alone, write_atomic


def run(settings: RehearseSettings) -> Rehearsal:
    """Rehearse, print every round, and write rounds.json, rounds.txt and rounds.png; goes on where it was stopped.

    Raises:
        ConfigError: a world too large to rehearse, a longer slate than there are items, or a setting that does not fit.
        WorldError: the world cannot be built, or training failed (its last lines are in the message).
    """
    console = Console(stderr=True)
    with alone(folder_of(settings)):
        return _rehearse(settings, console)


def _rehearse(settings: RehearseSettings, console: Console) -> Rehearsal:
    stage = open_stage(settings, console)
    world = stage.world
    _begin(stage, settings, console)
    rehearsal = _about(stage, settings)
    print(head_text(rehearsal))
    actors = [Actor(name, stage, settings, console) for name in settings.policies()]
    try:
        with _progress(console) as progress:
            bar = progress.add_task("rounds", total=settings.rounds * len(actors))
            for number in range(1, settings.rounds + 1):
                played = {}
                for actor in actors:
                    progress.update(bar, description=f"round {number}: {actor.name}")
                    played[actor.name] = actor.play(number)
                    progress.advance(bar)
                there = world.items.published_day < stage.first_day + number * settings.round_days
                some = [
                    round_of(name, number, s, played["oracle"], world, there, settings.resamples, settings.level)
                    for name, s in played.items()
                ]
                rehearsal.rounds += some
                print(round_text(some, settings.level), flush=True)
    finally:
        for actor in actors:
            actor.close()
    _watch(rehearsal, settings)
    write_atomic(stage.folder / "rounds.json", msgspec.json.format(msgspec.json.encode(rehearsal), indent=1))
    write_atomic(stage.folder / "rounds.txt", to_text(rehearsal).encode())
    write_atomic(stage.folder / "rounds.png", to_png(rehearsal))
    print(tail_text(rehearsal), flush=True)
    console.print(f"written to {stage.folder}", highlight=False)
    return rehearsal


def _begin(stage: Stage, settings: RehearseSettings, console: Console) -> None:
    """Forget rounds that were played under other settings; more rounds of the same go on."""
    # level and resamples are of the intervals, which are computed anew from what each round recorded
    about = asdict(settings) | {"home": "", "policy": "", "rounds": 0, "force": False, "level": 0, "resamples": 0}
    mark = sha256(msgspec.json.encode([__version__, about, stage.fingerprint])).hexdigest().encode()
    path = stage.folder / "settings.sha256"
    same = path.is_file() and path.read_bytes() == mark
    if settings.force or not same:
        for path_of in (stage.folder / name for name in POLICIES):
            if any(path_of.glob("visits-*.npz")):
                console.print(f"rehearse: other settings than before, {path_of.name} begins again")
            shutil.rmtree(path_of, ignore_errors=True)
        write_atomic(path, mark)


def _about(stage: Stage, settings: RehearseSettings) -> Rehearsal:
    world = stage.world
    return Rehearsal(
        name=stage.folder.name,
        world=world.parameters.name,
        size=world.size.name,
        seed=settings.seed,
        people=len(world.people.anonymous),
        items=len(world.items.price),
        warmup_days=stage.first_day,
        round_days=settings.round_days,
        k=settings.k,
        level=settings.level,
        rounds=[],
    )


def _watch(rehearsal: Rehearsal, settings: RehearseSettings) -> None:
    """Say what a reader must know, and let the alarm for shrinking catalogues look at every policy's rounds."""
    for name in settings.policies():
        places = sum(r.out_of_place for r in rehearsal.rounds if r.policy == name)
        if places:
            rehearsal.warnings.append(
                f"{name}: {places:,} places held an item that was not there yet, was clicked before, or stood twice"
            )
    if "engine" in settings.policies() and not settings.retrain:
        rehearsal.warnings.append("engine: its bundle is of the first day; items published later are none of its own")
    for name in settings.policies():
        mine = [r for r in rehearsal.rounds if r.policy == name]
        diversity = [r.diversity for r in mine]
        try:
            reading = read_rounds([np.asarray(r.exposures) for r in mine], diversity=diversity, level=settings.level)
        except MeasureError as error:
            rehearsal.warnings.append(f"no alarm for a shrinking catalogue: {error}")
            return  # it has to do with the number of rounds, which is the same for all
        rehearsal.alarms[name] = reading.verdict if alarm_round(reading) is not None else ""


def _progress(console: Console) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console)
