"""What a generated world shows, read from its tables in the same form as the real logs' aggregates."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from scipy import special

from playbill.world.build import World, build
from playbill.world.fitting.dito import DATA as DITO
from playbill.world.fitting.found import Found
from playbill.world.fitting.upworthy import DATA as UPWORTHY
from playbill.world.fitting.upworthy import within_residuals
from playbill.world.generate import generate
from playbill.world.messages import Mails, respond_to_mails
from playbill.world.parameters import Parameters
from playbill.world.respond import click_probability, open_probability
from playbill.world.settings import GenerateSettings, LoggingPolicy, Size, first_weekday, start_us

# whole weeks: a Sunday less would bend the weekdays
SIZE = Size(name="fit", people=3000, items=1000, days=91, slate_length=12, pool=8, activity=2.0, contexts=False)
HOUR_US = 3_600_000_000
AUDIENCE = 400
MAILS = 60_000
FEWEST_ACTIVE = 20 / 165.6
"""MovieLens keeps people with at least 20 ratings, this share of the kept ones' mean; a world is cut alike."""


def samples(
    parameters: Parameters, found: dict[str, Found], scratch: Path, seed: int, size: Size = SIZE
) -> dict[str, np.ndarray]:
    """Return the aggregates of a world by the names that the real logs' samples have.

    The world is generated whole (uniform logging policies, so that no choice bends a curve) in a temporary folder below
    `scratch`, and read from its tables; machine opens are taken out with the help of the truth. The spread over
    creatives is drawn with the impressions of the real tests, so that the noise of counting is the same.
    """
    world = build(parameters, size, seed)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        tables = Path(folder) / "tables"
        generate(world, tables, GenerateSettings(world=parameters, size=size, seed=seed, item=LoggingPolicy()))
        result = _from_tables(world, tables)
    if UPWORTHY in found:
        result["creatives"] = _creatives(world, found[UPWORTHY], seed)
    if DITO in found:
        result["opens per person"] = _opened(world, found[DITO].curves["received"], seed)
        result["opens by hour, sent at any"] = _hours_opened(world, seed)
    return result


def _opened(world: World, received: np.ndarray, seed: int) -> np.ndarray:
    """Return how many mails people of the world open who are sent as many as the real list's people; above 0 alone."""
    rng = np.random.default_rng(seed)
    person = rng.integers(0, world.size.people, len(received))
    mails = np.repeat(person, received)
    hours = rng.choice(world.parameters.messages.send_hours, len(mails))
    subject, day = rng.integers(0, len(world.subjects.pull), len(mails)), rng.integers(0, 7, len(mails))
    chance = open_probability(world, mails, subject, day * 24 + hours, 0)
    opened = np.bincount(np.repeat(np.arange(len(received)), received), rng.random(len(mails)) < chance)
    return opened[opened > 0]


def _hours_opened(world: World, seed: int) -> np.ndarray:
    """Return [opens, 24] the local hours of openings of mails that go out at every hour of the week alike."""
    rng = np.random.default_rng(seed)
    person = rng.integers(0, world.size.people, MAILS)
    hour = rng.integers(0, 168, MAILS)
    offset_us = world.people.utc_offset_min[person].astype(np.int64) * 60_000_000
    sent = Mails(
        person=person,
        subject=rng.integers(0, len(world.subjects.pull), MAILS),
        hero=np.zeros(MAILS, np.int64),
        offer=np.zeros(MAILS, np.int64),
        hour_of_week=hour,
        day=0,
        at_us=start_us(world.size) + (hour - 24 * first_weekday(world.size)) * HOUR_US - offset_us,
        key=rng.integers(1, 2**63, MAILS, dtype=np.uint64),
    )
    answers = respond_to_mails(world, sent)
    return _one_hot((hour + answers.open_delay_us // HOUR_US)[answers.opened] % 24, 24)


def _from_tables(world: World, tables: Path) -> dict[str, np.ndarray]:
    events = pl.read_parquet(
        tables / "events.parquet", columns=["user_id", "event", "at", "item_id", "decision_id", "value"]
    )
    known = events.filter(pl.col("user_id").is_not_null())
    # found by themselves, as films are that people rate
    result = {"popularity": _count(events.filter(pl.col("event") == "search_play"), "item_id")}
    visits = known.filter(pl.col("event") == "visit")
    result["activity"] = _cut(_count(visits, "user_id"))
    positions = pl.read_parquet(tables / "decisions.parquet", columns=["decision_id", "kind", "position"]).filter(
        pl.col("kind") == "item"
    )
    clicked = events.filter(pl.col("event") == "click").join(positions, on="decision_id")
    result["clicks by position"] = _one_hot(clicked["position"].to_numpy().astype(np.int64), world.size.slate_length)
    people = known["user_id"].to_numpy().astype(np.int64) - 1
    offset_us = world.people.utc_offset_min[people].astype(np.int64) * 60_000_000
    # 1970-01-01 was a Thursday: three days after a Monday
    local = (known["at"].dt.epoch("us").to_numpy() + offset_us) // HOUR_US + 72
    known = known.with_columns(
        pl.Series("hour", local % 24),
        pl.Series("day", local // 24 % 7),
        pl.Series("machine", world.people.machine[people] & world.parameters.switches.machine_opens),
    )
    opens = known.filter((pl.col("event") == "open") & ~pl.col("machine"))
    result["opens by hour"] = _one_hot(opens["hour"].to_numpy(), 24)
    visits = known.filter(pl.col("event") == "visit")
    result["visits by hour"] = _one_hot(visits["hour"].to_numpy(), 24)
    result["visits by weekday"] = _one_hot(visits["day"].to_numpy(), 7)
    result["purchases per person"] = _count(known.filter(pl.col("event") == "purchase"), "user_id")
    stars = events.filter(pl.col("event") == "rate")["value"].to_numpy()
    result["stars"] = _one_hot(stars.astype(np.int64) - 1, 5)
    result["prices"] = pl.read_parquet(tables / "items.parquet", columns=["price"])["price"].to_numpy()
    return result


def _creatives(world: World, upworthy: Found, seed: int) -> np.ndarray:
    """Return log-odds of creatives less their item's mean, drawn with the clicks that the real tests could count."""
    tests = upworthy.curves["creatives"]
    test, shown, clicks = tests["test"], tests["impressions"], tests["clicks"]
    rng = np.random.default_rng(seed)
    first = world.creatives.first
    size = np.bincount(test)
    chosen = np.empty(len(test), np.int64)
    for k, packages in enumerate(size):
        fit = np.flatnonzero(np.diff(first) >= packages)
        item = int(rng.choice(fit))
        chosen[test == k] = first[item] + rng.permutation(int(first[item + 1] - first[item]))[:packages]
    person = rng.integers(0, world.size.people, AUDIENCE)[:, None]
    rate = click_probability(
        world, person, world.creatives.item[chosen], chosen, np.int64(0), np.int64(12), np.int64(0), 0
    ).mean(0)
    log_odds = special.logit(rate.astype(np.float64))
    base = special.logit(np.bincount(test, clicks) / np.bincount(test, shown))
    own = log_odds - (np.bincount(test, log_odds) / size)[test]
    return within_residuals(rng.binomial(shown, special.expit(base[test] + own)), shown, test)


def _cut(counts: np.ndarray) -> np.ndarray:
    """Return the counts of at least FEWEST_ACTIVE times the mean of those that are kept."""
    kept = counts
    while True:
        again = counts[counts >= FEWEST_ACTIVE * kept.mean()]
        if len(again) == len(kept):
            return kept
        kept = again


def _count(rows: pl.DataFrame, by: str) -> np.ndarray:
    return rows.group_by(by).len()["len"].to_numpy().astype(np.float64)


def _one_hot(values: np.ndarray, bins: int) -> np.ndarray:
    rows = np.zeros((len(values), bins), np.int64)
    rows[np.arange(len(values)), values] = 1
    return rows


def presets() -> dict[str, Parameters]:
    """Return the shipped presets easy and hard, which the fitted world is compared with."""
    from importlib.resources import files

    from playbill.world.overlay import overlay

    folder = Path(str(files("playbill.conf"))) / "world"
    return {name: overlay(Parameters(), folder / f"{name}.yaml") for name in ("easy", "hard")}
