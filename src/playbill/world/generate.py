"""The job `playbill generate`: let a shop serve its simulated people day by day, and write what it would have logged.

The loop goes through days, and within a day through groups of people. What the shop knows and how popular items are
changes at day borders alone, by sums of whole numbers; every draw is a function of seed, person, day and purpose. So
the files are the same, byte for byte, however many people are worked on at once, and in how many threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from playbill import __version__
from playbill.errors import ConfigError, TableError, WorldError
from playbill.tables.files import alone, atomic_folder
from playbill.tables.folder import describe_folder, read_folder
from playbill.tables.schema import TableFolder
from playbill.tables.settings import SufficiencySettings
from playbill.tables.sufficiency import SUFFICIENCY_FILE, measure_sufficiency
from playbill.world.build import World, build, items_there
from playbill.world.decisions import Choices, choices_table, write_day
from playbill.world.draws import Stream, uniform
from playbill.world.identifiers import LONGEST_SLATE, Sessions
from playbill.world.knowledge import Beliefs, Knowledge, beliefs, nothing_known
from playbill.world.mails import Mailing, learn_mails, mail_choices, mail_events, may_be_mailed, send_mails
from playbill.world.mapping import mapping_text
from playbill.world.organic import fed_back
from playbill.world.overlay import overlay
from playbill.world.parameters import Parameters
from playbill.world.pools import DECKS, make_deck, runs
from playbill.world.respond import Responses
from playbill.world.settings import GenerateSettings, Size
from playbill.world.slates import (
    Slates,
    answer,
    creative_tables,
    learn,
    make_slates,
    searches,
    slate_choices,
    slate_events,
)
from playbill.world.tables import EVENTS, columns, creatives_table, items_table, users_table
from playbill.world.truth import FOLDER, fill_truth, open_truth
from playbill.world.visits import Visits, day_start_us, visits
from playbill.world.writing import EventLog, Events, Writer

GENERATED = "generated.json"
_FORMAT = 2  # grows when the same settings come to mean other rows

Array = np.ndarray[Any, Any]


def run(settings: GenerateSettings) -> Path:
    """Write {home}/tables/{name} and return it.

    Raises:
        ConfigError: a setting is out of range, or the parameter file names something that does not exist.
        WorldError: the parameters cannot be built, such as a slate longer than the catalogue.
    """
    if not isinstance(settings.world, Parameters) or not isinstance(settings.size, Size):
        raise ConfigError("choose a world and a size, such as world=fitted size=small")
    parameters = overlay(settings.world, settings.parameters) if settings.parameters else settings.world
    name = settings.name or f"{parameters.name}-{settings.size.name}"
    target = Path(settings.home) / "tables" / name
    console = Console(stderr=True)
    with alone(target):
        mark = fingerprint(parameters, settings)
        if not settings.force and (folder := _unchanged(target, mark)) is not None:
            console.print(f"{target} is up to date ({_rows(folder)}); force=true writes it again", soft_wrap=True)
            return target
        world = build(parameters, settings.size, settings.seed)
        with _progress(settings.size.days, console) as advance:
            folder = generate(world, target, settings, advance)
    console.print(f"wrote {target}: {_rows(folder)}", soft_wrap=True)
    return target


def generate(
    world: World,
    folder: Path | str,
    settings: GenerateSettings,
    advance: Callable[[int], None] = lambda events: None,
    days: int | None = None,
) -> TableFolder:
    """Write a world's tables and its truth into `folder`, which appears whole or not at all.

    Args:
        world: as built; its own seed, size and parameters count, not those of the settings.
        folder: of the five tables, replaced where it exists.
        settings: policies, the share of mails held back, and the people worked on at once.
        advance: called after each day with the number of events written so far.
        days: the log ends before this day, and knows nothing that comes later; None: all days of the world, and what
            still comes up to three days after the last.
    Raises:
        ConfigError: slates longer than ids can tell apart.
        WorldError: on the first day there are fewer items than a slate has positions.
    """
    if world.size.slate_length > LONGEST_SLATE:
        raise ConfigError(f"size.slate_length={world.size.slate_length}: at most {LONGEST_SLATE} positions")
    # both refuse what cannot be served before anything is written
    Sessions(world.size.people, world.size.days)
    runs(items_there(world, 0), 0, world.size.slate_length, world.size.pool)
    declared = columns(world)
    with atomic_folder(folder) as out:
        (out / FOLDER).mkdir()
        fill_truth(world, out / FOLDER)  # the whole folder takes its place in one step, the truth with it
        for name, table in (
            ("users", users_table(world)),
            ("items", items_table(world)),
            ("creatives", creatives_table(world)),
        ):
            table = table.select([c.name for c in declared[name]])
            pq.write_table(table, out / f"{name}.parquet", compression="zstd", store_schema=False)
        words = ("kind", "policy")
        events = Writer(out / "events.parquet", declared["events"], words=("event", "device"), ascending=_GROWING)
        try:
            decisions = Writer(out / "decisions.parquet", declared["decisions"], words=words, text_ids=("chosen",))
            try:
                with ThreadPoolExecutor(settings.threads, "serve") as workers:
                    _days(world, settings, events, decisions, out, advance, days, workers)
            finally:
                decisions.close()
        finally:
            events.close()
        source = f"world {world.parameters.name}, size {world.size.name}, seed {world.seed}"
        written = describe_folder(out, source=source, columns=declared, events=EVENTS)
        (out / "mapping.yaml").write_text(mapping_text(declared, EVENTS))
        report = measure_sufficiency(out, SufficiencySettings())
        (out / SUFFICIENCY_FILE).parent.mkdir()
        (out / SUFFICIENCY_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
        if days is None:  # a log that ends early is not what the settings ask for
            mark = fingerprint(world.parameters, replace(settings, size=world.size, seed=world.seed))
            (out / GENERATED).write_bytes(msgspec.json.encode({"fingerprint": mark}))
    return written


_GROWING = ("event_id", "at")


def _days(
    world: World,
    settings: GenerateSettings,
    events: Writer,
    decisions: Writer,
    out: Path,
    advance: Callable[[int], None],
    until: int | None,
    workers: ThreadPoolExecutor,
) -> None:
    """Go through the days; everything that is carried from one to the next stands here."""
    people, size = world.people, world.size
    total = len(people.anonymous)
    written = uniform(world.seed, Stream.DECISION_WRITTEN, np.arange(total)) < size.decisions_share
    mailable = may_be_mailed(world)
    log = EventLog(events, people, written, list(world.parameters.clicks.device))
    known = nothing_known(world)
    attraction = world.items.attraction
    decks = np.lib.format.open_memmap(out / DECKS, mode="w+", dtype=np.int32, shape=(size.days, len(world.items.price)))
    decks[:] = -1
    for day in range(size.days if until is None else until):
        believed = beliefs(world, known)
        deck = make_deck(world, day, known.item.successes)
        decks[day, : len(deck[0])] = deck[0]
        today = _Today(
            day=day,
            believed=believed,
            deck=deck,
            creative=creative_tables(world, believed, settings),
            attraction=attraction,
            mailable=mailable,
            written=written,
        )
        clicks = np.zeros(len(attraction), np.int64)
        chosen: list[pa.Table] = []
        for group in workers.map(partial(_serve, world, settings, today), range(0, total, settings.chunk)):
            group.learn(world, known)
            for part in group.events:
                log.add(part)
            clicks += group.clicks
            chosen += [choices_table(c, people.anonymous, decisions.schema) for c in group.choices if len(c.person)]
        write_day(decisions, chosen)
        log.release(day_start_us(size, day + 1))
        attraction = fed_back(world, attraction, clicks)
        known.close_day()
        advance(events.rows)
    if until is None:
        log.release(None)  # what comes up to three days after the last day
    decks.flush()


@dataclass(slots=True)
class _Today:
    """What is the same for everybody on one day: see the functions that take these."""

    day: int
    believed: Beliefs
    deck: tuple[Array, int]
    creative: tuple[Array, Array]
    attraction: Array
    mailable: Array
    written: Array


@dataclass(slots=True)
class _Group:
    """One day of some people: their events, what was chosen for them, their clicks by item [I], and what to learn."""

    events: list[Events]
    choices: list[Choices]
    clicks: Array
    mailing: Mailing
    slates: tuple[Visits, Slates, Responses] | None = None

    def learn(self, world: World, known: Knowledge) -> None:
        """Count the group's day; not in `_serve`, for several threads may be in there at once."""
        learn_mails(world, known, self.mailing)
        if self.slates is not None:
            learn(world, known, *self.slates)


def _serve(world: World, settings: GenerateSettings, today: _Today, low: int) -> _Group:
    """Let a chunk of people, from row `low` on, have their day."""
    high = min(low + settings.chunk, len(today.written))
    mailing = send_mails(world, today.day, low, high, today.mailable, today.believed, settings)
    group = _Group(
        events=mail_events(world, mailing, today.attraction),
        choices=mail_choices(world, mailing, settings, today.written),
        clicks=np.zeros(len(today.attraction), np.int64),
        mailing=mailing,
    )
    came = visits(world, today.day, low, high)
    if not len(came):
        return group
    slates = make_slates(world, came, today.deck, today.believed, today.creative, settings)
    responses = answer(world, came, slates)
    found = searches(world, came, today.attraction)
    group.slates = came, slates, responses
    group.events += [*slate_events(world, came, slates, responses), found]
    group.choices += slate_choices(world, came, slates, settings, today.written)
    for item in (slates.item[responses.clicked], found.item):
        group.clicks += np.bincount(item, minlength=len(group.clicks))
    return group


def fingerprint(parameters: Parameters, settings: GenerateSettings) -> str:
    """Return the sha256 of all that decides the rows: parameters, size, seed, policies, and the code's version."""
    kept = {name: value for name, value in asdict(settings).items() if name not in _OUTSIDE}
    parts = [__version__, _FORMAT, asdict(parameters), kept]
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


_OUTSIDE = ("home", "name", "world", "parameters", "chunk", "threads", "force")


def _unchanged(target: Path, mark: str) -> TableFolder | None:
    """Return the folder if it was written from the same settings and is whole."""
    try:
        before = msgspec.json.decode((target / GENERATED).read_bytes(), type=dict[str, str])
        if before.get("fingerprint") != mark:
            return None
        open_truth(target)  # a truth that is gone or altered is written again, tables and all
        return read_folder(target, verify=True)
    except (OSError, msgspec.DecodeError, TableError, WorldError):
        return None


@contextmanager
def _progress(days: int, console: Console) -> Iterator[Callable[[int], None]]:
    """Yield the function that is called after each day; it draws a bar with the events so far."""
    parts = (TextColumn("day"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*parts, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=days)
        yield lambda events: bar.update(task, advance=1, description=f"{events:,} events")


def _rows(folder: TableFolder) -> str:
    return ", ".join(f"{name} {rows:,}" for name, rows in folder.rows.items())
