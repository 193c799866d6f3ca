"""The job `playbill rehearse`: policies serve the simulated people round after round, each in a world of its own."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from hashlib import sha256

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from playbill import __version__
from playbill.errors import ConfigError, MeasureError
from playbill.measure.feedback import alarm_round, read_rounds
from playbill.rehearsal.choosing import Scorer, fit, scores_of, top
from playbill.rehearsal.events import answer, events_of
from playbill.rehearsal.memory import Memory
from playbill.rehearsal.report import Rehearsal, head_text, round_text, tail_text, to_png, to_text
from playbill.rehearsal.rounds import Round, Tally, best_slate, slate_utility
from playbill.rehearsal.serving import Server
from playbill.rehearsal.settings import POLICIES, RehearseSettings
from playbill.rehearsal.stage import Stage, open_stage
from playbill.tables.files import write_atomic
from playbill.tables.folder import read_table
from playbill.world.build import World
from playbill.world.draws import Stream, uniform
from playbill.world.visits import Visits, day_start_us, visits

_CELLS = 2_000_000_000  # people x items that a policy's memory may hold, a byte each


def run(settings: RehearseSettings) -> Rehearsal:
    """Rehearse, print every round, and write rounds.json, rounds.txt and rounds.png; goes on where it was stopped.

    Raises:
        ConfigError: a world too large to rehearse, or a setting that does not fit.
        WorldError: the world cannot be built, or training failed (its last lines are in the message).
    """
    console = Console(stderr=True)
    stage = open_stage(settings, console)
    world = stage.world
    cells = len(world.people.anonymous) * len(world.items.price)
    if cells > _CELLS:
        raise ConfigError(
            f"size={world.size.name}: {len(world.people.anonymous):,} people x {len(world.items.price):,} items are "
            "more than the 2 billion cells that fit in memory; use size=small, or set size.people and size.items"
        )
    _begin(stage, settings, console)
    rehearsal = _about(stage, settings)
    print(head_text(rehearsal))
    actors = [Actor(name, stage, settings, console) for name in settings.policies()]
    try:
        with _progress(console) as progress:
            bar = progress.add_task("rounds", total=settings.rounds * len(actors))
            for number in range(1, settings.rounds + 1):
                some = []
                for actor in actors:
                    progress.update(bar, description=f"round {number}: {actor.name}")
                    some.append(actor.play(number))
                    progress.advance(bar)
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


class Actor:
    """One policy with its own log: it serves, and what people do comes back to it alone."""

    def __init__(self, name: str, stage: Stage, settings: RehearseSettings, console: Console) -> None:
        self.name, self.stage, self.settings, self.console = name, stage, settings, console
        world = stage.world
        self.folder = stage.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.memory = Memory.empty(world.people.declared_segment, world.people.anonymous, len(world.items.price))
        first = read_table(stage.tables, "events", ["event_id", "user_id", "event", "item_id", "at"])
        self.next_id = 1 + (pc.max(first["event_id"]).as_py() or 0)
        self._absorb(first)
        self.server: Server | None = None
        if name == "engine":
            self.server = Server(self.folder, stage.tables, settings)
            self.server.remember(console)

    def close(self) -> None:
        if self.server is not None:
            self.server.close()

    def play(self, number: int) -> Round:
        """Serve all visits of a round and return what came of it; a round that was played before is read back."""
        report, log = self.folder / f"round-{number}.json", self.folder / f"events-{number}.parquet"
        if report.is_file() and log.is_file():
            self._take_back(pq.ParquetFile(log).read())
            return msgspec.json.decode(report.read_bytes(), type=Round)
        world, settings = self.stage.world, self.settings
        day = self.stage.first_day + (number - 1) * settings.round_days
        now_us = day_start_us(world.size, day)
        if self.server is not None:
            self.server.start(self.folder, number, now_us, self.console)
        fitted = fit(self.name, self.memory, len(world.items.price), now_us, settings.seed)
        tally, tables = Tally(), []
        for today in range(day, day + settings.round_days):
            table = self._serve(today, fitted, tally)
            self._take_back(table)
            tables.append(table)
        there = world.items.published_day < day + settings.round_days
        version = self.server.version if self.server is not None else ""
        found = tally.close(self.name, number, world, there, settings.resamples, settings.level, version)
        beside = log.with_suffix(".tmp")
        pq.write_table(pa.concat_tables(tables), beside, compression="zstd")
        beside.replace(log)
        write_atomic(report, msgspec.json.encode(found))  # last: a round counts once its report stands
        return found

    def _serve(self, today: int, fitted: Scorer | None, tally: Tally) -> pa.Table:
        world, k = self.stage.world, self.settings.k
        come = visits(world, today)
        there = world.items.published_day <= today
        known = ~world.people.anonymous[come.person]
        open_to = there[None, :] & ~(self.memory.seen[come.person] & known[:, None])
        best = best_slate(world, come.person, come.hour, come.device, today, k, open_to)
        item, creative = best if self.name == "oracle" else self._choose(come, open_to, fitted)
        worth = [
            slate_utility(world, come.person, i, c, come.hour, come.device, today) for i, c in ((item, creative), best)
        ]
        done = answer(world, come, item, creative)
        tally.add(come.person, worth[0], worth[1], done.clicked.sum(1), item)
        return events_of(world, come, item, creative, done, self.next_id)

    def _choose(self, come: Visits, open_to: np.ndarray, fitted: Scorer | None) -> tuple[np.ndarray, np.ndarray]:
        world, k = self.stage.world, self.settings.k
        if self.server is not None:
            item = self._ask(self.server, come)
        else:
            draw = uniform(world.seed, Stream.CHOOSE_ITEM, come.key[:, None], np.arange(open_to.shape[1])[None, :])
            item = top(scores_of(self.name, self.memory, come.person, fitted, draw), open_to, k)
        return item, any_creative(world, come, item)

    def _ask(self, server: Server, come: Visits) -> np.ndarray:
        anonymous = self.stage.world.people.anonymous[come.person]
        users = [None if a else int(p) + 1 for a, p in zip(anonymous, come.person, strict=True)]
        return server.slates(users, come.session.tolist(), come.at_us, [str(s) for s in come.session.tolist()])

    def _take_back(self, events: pa.Table) -> None:
        self._absorb(events)
        self.next_id += events.num_rows
        if self.server is not None:
            self.server.learn(events)

    def _absorb(self, events: pa.Table) -> None:
        chosen = events.filter(pc.is_in(events["event"], value_set=pa.array(["click", "search_play"])))
        self.memory.absorb(
            chosen["user_id"].fill_null(0).to_numpy().astype(np.int64) - 1,
            chosen["item_id"].to_numpy().astype(np.int64) - 1,
            chosen["at"].cast(pa.int64()).to_numpy(),
        )


def any_creative(world: World, come: Visits, item: np.ndarray) -> np.ndarray:
    """Return a creative of each item, [n, k], drawn evenly: no policy here but the oracle chooses pictures."""
    first = world.creatives.first
    low = first[np.maximum(item, 0)]
    number = first[np.maximum(item, 0) + 1] - low
    draw = uniform(world.seed, Stream.CHOOSE_CREATIVE, come.key[:, None], np.maximum(item, 0))
    return np.where(item >= 0, low + (draw * number).astype(np.int64), -1)


def _begin(stage: Stage, settings: RehearseSettings, console: Console) -> None:
    """Forget rounds that were played under other settings; more rounds of the same go on."""
    about = asdict(settings) | {"home": "", "policy": "", "rounds": 0, "force": False, "level": 0, "resamples": 0}
    mark = sha256(msgspec.json.encode([__version__, about, stage.fingerprint])).hexdigest().encode()
    path = stage.folder / "settings.sha256"
    same = path.is_file() and path.read_bytes() == mark
    if settings.force or not same:
        for path_of in (stage.folder / name for name in POLICIES):
            if any(path_of.glob("round-*.json")):
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
    """Let the alarm for shrinking catalogues look at every policy's rounds."""
    for name in settings.policies():
        exposures = [np.asarray(r.exposures) for r in rehearsal.rounds if r.policy == name]
        try:
            reading = read_rounds(exposures, level=settings.level)
        except MeasureError as error:
            rehearsal.warnings.append(f"no alarm for a shrinking catalogue: {error}")
            return  # it has to do with the number of rounds, which is the same for all
        rehearsal.alarms[name] = reading.verdict if alarm_round(reading) is not None else ""


def _progress(console: Console) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console)
