"""A simulated service whose truth is known, and one ranker of four tasks that learned from its slates.

Clicks and finishes are the world's own, and so are its visits: how often somebody comes follows from who they are and
from the hour, whatever they were shown (`world/visits.py`). So that there are also returns that hang on what was shown,
the log gets some: whoever played something comes back for more of it one to six days later, with a chance of PULL times
the share that they played. These are events of a name of their own.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.special import betainc

from playbill.bundle.open import Bundle, open_bundle
from playbill.cli import compose, main
from playbill.dataset.dataset import Dataset, open_dataset
from playbill.measure.ranking import NO_ITEM
from playbill.release.bundles import find_bundle
from playbill.tables.files import atomic_folder, write_atomic
from playbill.tables.folder import describe_folder, read_folder, read_table
from playbill.tables.schema import EventKind
from playbill.tables.settings import SufficiencySettings
from playbill.tables.sufficiency import SUFFICIENCY_FILE, measure_sufficiency
from playbill.training.runs import read_run
from playbill.world.build import World, build
from playbill.world.oracle import best_creative
from playbill.world.respond import click_probability, completion_mean

FINISHED, PULL = 0.6, 0.8
DAY_US = 24 * 3_600_000_000
CLICK = "{name: click, events: [click]}"
TASKS = (
    f"[{CLICK}, {{name: finish, parent: click, events: [play], threshold: {FINISHED}}}, "
    "{name: drawn_7, parent: click, returns: true, events: [drawn_back], within_days: 7}, "
    "{name: visit_7, parent: click, returns: true, events: [visit], within_days: 7}]"
)
# 1.2 million impressions of people who come often enough to be told apart, and seldom enough to come back or not
SIZE = ["size=small", "size.people=40000", "size.days=60", "size.activity=0.5"]
SPLIT = ["split.train=0.6", "split.valid=0.2"]


@dataclass(slots=True)
class Made:
    """The service, its log, and the bundle that was made from it. Attributes: day: last of the world."""

    world: World
    tables: Path
    dataset: Dataset
    bundle: Bundle
    day: int


def make(home: Path, world_name: str, arguments: list[str]) -> Made:
    """Return what is generated, trained and exported with these further words of the command line.

    Args:
        home: of tables, runs and bundles; what is up to date in it is not done again.
        arguments: `size.*` for the world, `model.*` for the ranker.
    """
    of_size = [*SIZE, *(a for a in arguments if a.startswith("size."))]
    of_ranker = [a for a in arguments if a.startswith("model.")]
    first, name = f"{world_name}-visits", f"{world_name}-tasks"
    generated = [f"world={world_name}", *of_size, f"home={home}", f"name={first}"]
    settings = compose("generate", generated)
    _do("generate", *generated)
    tables = home / "tables" / name
    if not (tables / "tables.json").is_file():
        plant(home / "tables" / first, tables)
    common = [f"home={home}", f"tables={name}", "features.context=[hour,weekday,device]", *SPLIT]
    _do("train", *common, "model.max_epochs=3")
    _do("train", *common, "model=ranker", f"model.tasks={TASKS}", "model.later_share=0.7", *of_ranker)
    _do("export", f"home={home}", f"tables={name}")
    trained = read_run(home / "runs" / f"{name}-two_tower", "two_tower").settings
    return Made(
        world=build(settings.world, settings.size, settings.seed),
        tables=tables,
        dataset=open_dataset(tables, trained.features, trained.split),
        bundle=open_bundle(find_bundle(home / "bundles", "latest"), require_sealed=False),
        day=settings.size.days - 1,
    )


def plant(first: Path, target: Path) -> None:
    """Write the tables of a world with events `drawn_back` after some of its plays."""
    folder, events = read_folder(first), read_table(first, "events")
    played = events.filter(pc.is_in(events["event"].cast(pa.string()), value_set=pa.array(["play", "search_play"])))
    draw = np.random.default_rng(0)
    drawn = played.filter(pa.array(draw.random(len(played)) < PULL * played["value"].to_numpy()))
    at = drawn["at"].cast(pa.int64()).to_numpy() + (DAY_US * (1 + 5 * draw.random(len(drawn)))).astype(np.int64)
    kept = at < int(pc.max(events["at"].cast(pa.int64())).as_py())
    drawn, at = drawn.filter(pa.array(kept)), at[kept]
    begin = int(pc.max(events["event_id"]).as_py()) + 1
    new = {name: pa.nulls(len(drawn), events.schema.field(name).type) for name in events.column_names}
    new |= {name: drawn[name] for name in ("user_id", "session_id", "device") if name in new}
    new["event_id"] = pa.array(np.arange(begin, begin + len(drawn)), events.schema.field("event_id").type)
    new["event"] = pa.array(["drawn_back"] * len(drawn)).cast(events.schema.field("event").type)
    new["at"] = pa.array(at).cast(events.schema.field("at").type)
    whole = pa.concat_tables([events, pa.table(new, events.schema)]).sort_by([("at", "ascending")])
    with atomic_folder(target) as out:
        for name in ("users", "items", "creatives", "decisions"):
            shutil.copy(first / f"{name}.parquet", out / f"{name}.parquet")
        pq.write_table(whole, out / "events.parquet", compression="zstd")
        meaning = EventKind(name="drawn_back", meaning="came back for more of what was played")
        describe_folder(out, source=target.name, columns=folder.columns, events=[*folder.events, meaning])
        write_atomic(out / SUFFICIENCY_FILE, msgspec.json.encode(measure_sufficiency(out, SufficiencySettings())))


def true_values(made: Made, person: np.ndarray, lists: np.ndarray) -> dict[str, np.ndarray]:
    """Return what is expected of people's slates by the truth, [n] float64 each by task.

    Clicks; plays that reach FINISHED; visits that what was played draws back. The world's own visits are the same for
    any slate, so there is nothing to return of them.

    Args:
        person: [n] rows of the world's people.
        lists: [n, k] item_index, in their order from the first position on.
    """
    world, there, people = made.world, lists != NO_ITEM, person[:, None]
    ids = np.asarray(made.dataset.vocabularies["item"].values, np.int64)
    item = ids[np.where(there, lists - 1, 0)] - 1  # ids count from 1, as item_index does
    creative, places = best_creative(world, people, item, made.day), np.arange(lists.shape[1])
    # at eight in the evening, on the first device
    chance = click_probability(world, people, item, creative, places, np.full(1, 20), np.zeros(1, int), made.day)
    chance = np.where(there, chance, 0.0).astype(np.float64)
    mean = completion_mean(world, people, item, made.day).astype(np.float64)
    precision = world.parameters.outcomes.completion_precision
    finished = 1 - betainc(mean * precision, (1 - mean) * precision, FINISHED)
    return {
        "click": chance.sum(1),
        "finish": (chance * finished).sum(1),
        "drawn_7": (chance * PULL * mean).sum(1),
    }


def _do(*words: str) -> None:
    if main(list(words)):
        raise SystemExit(f"playbill {words[0]} failed")
