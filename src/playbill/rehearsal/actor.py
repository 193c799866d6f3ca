"""One who serves: a policy with a copy of the world and a log of its own."""

from __future__ import annotations

import shutil
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from playbill.rehearsal.choosing import Scorer, fit, scores_of, top
from playbill.rehearsal.events import answer, events_of
from playbill.rehearsal.memory import Memory
from playbill.rehearsal.rounds import Served, best_slate, out_of_place, slate_utility
from playbill.rehearsal.serving import Server
from playbill.rehearsal.settings import RehearseSettings
from playbill.rehearsal.stage import Stage
from playbill.tables.folder import read_table
from playbill.world.build import World
from playbill.world.draws import Stream, uniform
from playbill.world.visits import Visits, day_start_us, visits


class Actor:
    """A policy that serves its copy of the world; what people do comes back to it alone, when it has happened."""

    def __init__(self, name: str, stage: Stage, settings: RehearseSettings, console: Console) -> None:
        self.name, self.stage, self.settings, self.console = name, stage, settings, console
        world = stage.world
        self.folder = stage.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        people = world.people
        # who never logs in, or does not allow it, is nobody to a shop: the engine keeps to that, so must the others
        unknown = people.anonymous | ~people.consent.get("personalisation", ~people.anonymous)
        self.memory = Memory.empty(people.declared_segment, unknown, len(world.items.price))
        first = read_table(stage.tables, "events", ["event_id", "user_id", "event", "item_id", "at"])
        self.next_id = 1 + (pc.max(first["event_id"]).as_py() or 0)
        self.later: pa.Table | None = None  # what people will have done, drawn already and not told yet
        self._absorb(first)
        self.server: Server | None = None
        if name == "engine":
            # a rehearsal that was stopped in the middle of a round had taught its store a part of it: filled anew, the
            # store holds what the rounds that stand told it, and nothing else
            shutil.rmtree(self.folder / "state", ignore_errors=True)
            self.server = Server(self.folder, stage.tables, settings)
            self.server.remember(console)

    def close(self) -> None:
        if self.server is not None:
            self.server.close()

    def play(self, number: int) -> Served:
        """Serve all visits of a round and return them; a round that was played before is read back."""
        log, record = self.folder / f"events-{number}.parquet", self.folder / f"visits-{number}.npz"
        world, settings = self.stage.world, self.settings
        day = self.stage.first_day + (number - 1) * settings.round_days
        end = day + settings.round_days
        if record.is_file():
            try:
                before, drawn = Served.read(record), pq.ParquetFile(log).read()
            except (OSError, ValueError, KeyError, EOFError, BadZipFile, pa.ArrowException) as error:
                self.console.print(f"{self.name}: round {number} cannot be read back ({error}); it is played again")
            else:
                self._draw(drawn)
                self._tell(day_start_us(world.size, end))
                return before
        now_us = day_start_us(world.size, day)
        if self.server is not None:
            self.server.start(self.folder, number, now_us, self.console)
        fitted = fit(self.name, self.memory, len(world.items.price), now_us, settings.seed)
        days, tables = [], []
        for today in range(day, end):
            served, drawn = self._serve(today, fitted)
            self._draw(drawn)
            self._tell(day_start_us(world.size, today + 1))
            days.append(served)
            tables.append(drawn)
        beside = log.with_suffix(".tmp")
        pq.write_table(pa.concat_tables(tables), beside, compression="zstd")
        beside.replace(log)
        whole = Served.joined(days)
        whole.write(record)  # last: a round counts once its record stands
        return whole

    def _serve(self, today: int, fitted: Scorer | None) -> tuple[Served, pa.Table]:
        world, k = self.stage.world, self.settings.k
        come = visits(world, today)
        there = world.items.published_day <= today
        open_to = there[None, :] & ~self.memory.seen[come.person]
        best = best_slate(world, come.person, come.hour, come.device, today, k, open_to)
        item, creative = best
        if self.name == "oracle_items":
            creative = any_creative(world, come, item)
        elif self.name != "oracle":
            item, creative = self._choose(come, open_to, fitted)
        got, most = (
            slate_utility(world, come.person, i, c, come.hour, come.device, today) for i, c in ((item, creative), best)
        )
        done = answer(world, come, item, creative)
        served = Served(
            person=come.person,
            got=got,
            best=most,
            clicks=done.clicked.sum(1),
            item=item,
            out_of_place=out_of_place(item, open_to),
            bundle=np.array(self.server.version if self.server is not None else ""),
        )
        return served, events_of(world, come, item, creative, done, self.next_id)

    def _choose(self, come: Visits, open_to: np.ndarray, fitted: Scorer | None) -> tuple[np.ndarray, np.ndarray]:
        world, k = self.stage.world, self.settings.k
        if self.server is None:
            draw = uniform(world.seed, Stream.CHOOSE_ITEM, come.key[:, None], np.arange(open_to.shape[1])[None, :])
            item = top(scores_of(self.name, self.memory, come.person, fitted, draw), open_to, k)
            return item, any_creative(world, come, item)
        anonymous = world.people.anonymous[come.person]
        users = [None if a else int(p) + 1 for a, p in zip(anonymous, come.person, strict=True)]
        sessions = come.session.tolist()
        item, chosen = self.server.slates(users, sessions, come.at_us, [str(s) for s in sessions])
        # a bundle without creative heads names no artwork; one that is not the item's would be none
        own = (chosen >= 0) & (world.creatives.item[np.maximum(chosen, 0)] == item)
        return item, np.where(own, chosen, any_creative(world, come, item))

    def _draw(self, events: pa.Table) -> None:
        self.later = events if self.later is None else pa.concat_tables([self.later, events])
        self.next_id += events.num_rows

    def _tell(self, before_us: int) -> None:
        """Let the policy know what has happened by now, and no more: stars and purchases come late."""
        assert self.later is not None  # something was drawn before
        due = pc.less(self.later["at"].cast(pa.int64()), before_us)
        told = self.later.filter(due).sort_by([("at", "ascending"), ("event_id", "ascending")])
        self.later = self.later.filter(pc.invert(due))
        self._absorb(told)
        if self.server is not None:
            self.server.learn(told)

    def _absorb(self, events: pa.Table) -> None:
        chosen = events.filter(pc.is_in(events["event"], value_set=pa.array(["click", "search_play"])))
        self.memory.absorb(
            chosen["user_id"].fill_null(0).to_numpy().astype(np.int64) - 1,
            chosen["item_id"].to_numpy().astype(np.int64) - 1,
            chosen["at"].cast(pa.int64()).to_numpy(),
        )


def any_creative(world: World, come: Visits, item: np.ndarray) -> np.ndarray:
    """Return an artwork of each item, [n, k], drawn evenly: what those show who choose items alone."""
    first = world.creatives.first
    low = first[np.maximum(item, 0)]
    number = first[np.maximum(item, 0) + 1] - low
    draw = uniform(world.seed, Stream.CHOOSE_CREATIVE, come.key[:, None], np.maximum(item, 0))
    return np.where(item >= 0, low + (draw * number).astype(np.int64), -1)
