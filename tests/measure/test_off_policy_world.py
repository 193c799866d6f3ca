"""In a world whose truth is known: intervals hold the target's exact value as often as they say.

The twin of tests/benchmarks/proof_off_policy.py, which takes 1,000 logs of each preset.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from small_log import MOST_DECISIONS, POOL, POSITIONS, SmallWorld, draw_log, small_world

from playbill.measure.off_policy.estimators import difference, dr, ips, on_policy, snips
from playbill.measure.off_policy.intervals import bootstrap_intervals, value_bound
from playbill.measure.off_policy.overlap import overlap
from playbill.measure.off_policy.read import run
from playbill.measure.off_policy.reward_model import ActionMeans, cross_fit
from playbill.measure.off_policy.rounds import read_rounds
from playbill.measure.off_policy.settings import Model, OffPolicyQuestion
from playbill.measure.off_policy.slates import slate_value, slates_of
from playbill.measure.settings import MeasureSettings
from playbill.world.build import World, build
from playbill.world.generate import generate
from playbill.world.identifiers import VISITS_A_DAY, Sessions
from playbill.world.parameters import Parameters
from playbill.world.respond import click_probability
from playbill.world.settings import GenerateSettings, LoggingPolicy, PolicyKind, Size

SEEDS = 80


@pytest.fixture(scope="module")
def small() -> SmallWorld:
    return small_world(Parameters())


def test_the_exact_value_is_what_many_logs_of_the_policy_itself_bring(small: SmallWorld) -> None:
    """Logged by the target policy, 20 logs of 48,000 impressions average to its exact value."""
    own = replace(small, logging=small.target)
    for reward in ("click", "completion"):
        means = [draw_log(own, seed, people=1000, reward=reward).reward.mean() for seed in range(20)]
        error = np.std(means, ddof=1) / np.sqrt(20)
        assert np.mean(means) == pytest.approx(small.value(small.target, reward), abs=3.5 * error)


def test_intervals_hold_the_truth(small: SmallWorld) -> None:
    """Of 80 logs of true coverage 0.95, at least 70 hold with probability 0.995; a bound may not miss more than 5 %."""
    truth, logged = small.value(small.target), small.value(small.logging)
    assert truth > 1.1 * logged
    wanted = {"IPS": truth, "SNIPS": truth, "DR": truth, "DR - logged": truth - logged}
    held = dict.fromkeys([*wanted, "bound"], 0)
    estimates: dict[str, list[float]] = {name: [] for name in wanted}
    for seed in range(SEEDS):
        log = draw_log(small, seed)
        assert log.unit is not None
        doubly = dr(log, cross_fit(log, lambda: ActionMeans(POSITIONS * POOL)))
        several = [ips(log), snips(log), doubly, difference(doubly, on_policy(log))]
        found = bootstrap_intervals(several, log.unit, resamples=400, seed=seed)
        for one, interval in zip(several, found, strict=True):
            held[one.name] += interval.low <= wanted[one.name] <= interval.high
            estimates[one.name].append(interval.value)
        bound = value_bound(log, most=MOST_DECISIONS, largest_weight=small.largest_weight())
        held["bound"] += bound.low <= truth <= bound.high
    assert all(held[name] >= 70 for name in wanted), held
    assert held["bound"] >= 76, held
    for name, values in estimates.items():
        error = np.std(values, ddof=1) / np.sqrt(SEEDS)
        assert np.mean(values) == pytest.approx(wanted[name], abs=4 * error), name


def test_the_position_wise_slate_is_the_sum_of_its_positions(small: SmallWorld) -> None:
    log = draw_log(small, 3)
    found = slate_value(slates_of(log), "independent").estimate()
    assert found == pytest.approx(POSITIONS * ips(log).estimate())
    # in this world a click depends on its own position alone, so the weaker assumptions hold too, at a price
    truth = POSITIONS * small.value(small.target)
    estimates = {name: [] for name in ("independent", "cascade")}  # type: dict[str, list[float]]
    for seed in range(40):
        slates = slates_of(draw_log(small, seed))
        for name, values in estimates.items():
            values.append(slate_value(slates, name).estimate())
    for name, values in estimates.items():
        assert np.mean(values) == pytest.approx(truth, abs=4 * np.std(values, ddof=1) / np.sqrt(40)), name
    assert np.std(estimates["cascade"]) > np.std(estimates["independent"])


def test_a_log_without_support_gives_no_value(small: SmallWorld) -> None:
    best = small.target.argmax(2)[..., None]
    logging = small.logging.copy()
    np.put_along_axis(logging, best, 0.0, 2)
    blind = replace(small, logging=logging / logging.sum(2, keepdims=True))
    log = draw_log(blind, 0)
    assert ips(log).estimate() < 0.8 * blind.value(blind.target)  # what would have been said
    assert "could not choose" in overlap(log).refused
    assert "weights average" in overlap(replace(log, choices=None)).refused
    assert not overlap(draw_log(small, 0)).refused


def test_tables_of_a_generated_world_give_the_value_of_uniform_choices(tmp_path: Path) -> None:
    """Every candidate of every slate is written, so the exact value of choosing among them at random is known too."""
    world = build(Parameters(), Size(people=150, items=80, days=10, activity=8.0), seed=4)
    generate(world, tmp_path / "tables", GenerateSettings(item=LoggingPolicy(kind=PolicyKind.softmax)))
    asked = OffPolicyQuestion(
        target="uniform",
        model=Model.MEANS,
        resamples=300,
        features=["context.hour"],
        most_decisions_per_unit=world.size.days * VISITS_A_DAY * world.size.slate_length,
    )
    reading = run(asked, tmp_path / "tables", MeasureSettings())
    found = {s.name: s for s in reading.statements}
    decisions = pl.read_parquet(tmp_path / "tables" / "decisions.parquet")
    rounds = read_rounds(tmp_path / "tables", asked)
    rows = rounds.decision_id.to_frame().join(decisions, on="decision_id", how="left", maintain_order="left")
    truth = uniform_value(world, rows)
    assert found["value of uniform, IPS"].n < len(rows)  # people, not impressions
    for name in ("IPS", "SNIPS", "DR"):
        one = found[f"value of uniform, {name}"]
        assert one.estimate == pytest.approx(truth, abs=3.5 * one.details["standard_error"]), name
    bound = found["value of uniform, finite-sample bound"]
    assert bound.low is not None and bound.high is not None and bound.low <= truth <= bound.high
    # the logging policy, which learned what is clicked, is a different thing
    logged = found["value of the logging policy"].estimate
    assert logged is not None and logged > 1.1 * truth and "worse" in reading.verdict


def uniform_value(world: World, rows: pl.DataFrame) -> float:
    """Return the mean probability of a click over every candidate of every decision, and over its creatives.

    Args:
        rows: item decisions whose creatives were drawn uniformly.
    """
    day, person, _ = Sessions(world.size.people, world.size.days).back(rows["request_id"].to_numpy())
    contexts = [json.loads(text) for text in rows["context"]]
    counts = [len(c["eligible"]) for c in contexts]
    candidate = np.concatenate([c["eligible"] for c in contexts]) - 1
    first = np.asarray(world.creatives.first, np.int64)
    creatives = np.diff(first)[candidate]
    cell = np.repeat(np.arange(len(candidate)), creatives)  # of (decision, candidate), once for each creative
    nth = np.arange(len(cell)) - np.repeat(np.cumsum(creatives) - creatives, creatives)
    of = np.repeat(np.arange(len(rows)), counts)[cell]
    devices = list(world.parameters.clicks.device)
    click = click_probability(
        world,
        person[of],
        candidate[cell],
        first[candidate[cell]] + nth,
        rows["position"].cast(pl.Int64).to_numpy()[of],
        np.array([c["hour"] for c in contexts])[of],
        np.array([devices.index(c["device"]) for c in contexts])[of],
        day[of],
    ).astype(np.float64)
    per_candidate = np.bincount(cell, click) / creatives
    start = np.cumsum(counts) - counts
    return float((np.add.reduceat(per_candidate, start) / counts).mean())
