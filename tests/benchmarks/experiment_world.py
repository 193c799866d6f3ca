"""An experiment whose true effect is known: two policies on the same simulated people, and who gets which drawn anew.

A simulated service draws every response from person, day and purpose, so the same people can be served by both
policies: what each of them would have done under either is known, and the true effect is the difference of the two
whole populations. An experiment shows one half of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from rich.progress import track

from playbill.cli import compose
from playbill.errors import MeasureError
from playbill.measure.experiments.assignment import read_assignment
from playbill.measure.experiments.effects import Effect, Sample, compare
from playbill.measure.experiments.metrics import Metric, declared
from playbill.measure.experiments.rows import read_rows
from playbill.measure.experiments.settings import ExperimentQuestion
from playbill.measure.experiments.values import Values, values_of
from playbill.measure.job import run as measure
from playbill.tables.folder import read_folder, write_folder
from playbill.world.generate import run as generate

DAY_US = 86_400_000_000
ONLY = ["conversion", "revenue_per_visitor", "click_through", "time_to_purchase", "session_depth", "utility_shown"]
UTILITY = """
utility_shown:
  kind: ratio
  meaning: completion, the true utility of a click, for each item shown
  count: {events: [play], take: value, needs: [decision_id]}
  per: {decisions: [item]}
  window_days: 14
"""


def two_policies(home: Path, *, draws: int, people: int = 4000, start_day: int = 42, seed: int = 5) -> dict[str, Any]:
    """Return, for every metric, the truth and how the intervals of `draws` experiments hold it.

    Control: items chosen uniformly from their pools. Arm: softmax over what a shop knows, from `start_day` on; before,
    everybody is served uniformly.
    """
    logs = [_generate(home, name, people, start_day + 21, seed, more) for name, more in _POLICIES.items()]
    users = pl.read_parquet(logs[0] / "users.parquet")["user_id"].to_numpy()
    start_us = _start_us(logs[0], start_day)
    own = home / "utility.yaml"
    own.write_text(UTILITY)
    metrics = declared(str(own), ONLY)
    draw = np.random.default_rng(seed)
    arms = draw.permutation(np.arange(len(users)) % 2 == 1)
    # both worlds whole: everybody in the control, and everybody in the arm, after the same past
    worlds = [
        _values(_combine(logs, users, np.full(len(users), arm), arms, start_us, home / f"all-{arm}"), metrics)
        for arm in (False, True)
    ]
    mixed = _combine(logs, users, arms, arms, start_us, home / "mixed")
    line = ["question=experiment", f"tables={mixed}", f"home={home}", f"question.metrics={own}"]
    reading = measure(compose("measure", [*line, f"question.only=[{','.join(ONLY)}]"]))
    told = {row["metric"]: row for row in reading.tables["intent to treat"]}
    found: dict[str, Any] = {"people": len(users), "experiments": draws}
    for name in track(ONLY, "experiments in the world", transient=True):
        control, arm = (world[name] for world in worlds)
        truth = arm.figure().value - control.figure().value
        truth_relative = arm.figure().value / control.figure().value - 1
        effects = [_experiment(control, arm, draw.permutation(arms)) for _ in range(draws)]
        once = _experiment(control, arm, arms)
        if not np.isclose(once.difference, told[name]["difference"], rtol=1e-9):
            raise MeasureError(f"{name}: the command read {told[name]['difference']}, the arrays {once.difference}")
        found[name] = {
            "true_difference": truth,
            "true_relative": truth_relative,
            "coverage": float(np.mean([e.low <= truth <= e.high for e in effects])),
            **relative_coverage(effects, truth_relative),
            "bias_in_standard_errors": float(np.mean([(e.difference - truth) / e.standard_error for e in effects])),
            "cuped_variance_reduction": float(np.mean([e.variance_reduction or 0.0 for e in effects])),
            "found_share": float(np.mean([e.p_value < 0.05 for e in effects])),
        }
    return found


def relative_coverage(effects: list[Effect], truth: float) -> dict[str, float]:
    """Return how many readings give a relative interval (few where the control is near 0), and how many hold truth."""
    given = [(e.relative_low, e.relative_high) for e in effects]
    held = [low <= truth <= high for low, high in given if low is not None and high is not None]
    return {
        "relative_given": len(held) / len(effects),
        "relative_coverage": float(np.mean(held)) if held else float("nan"),
    }


_POLICIES = {"uniform": ["item.kind=uniform"], "softmax": ["item.kind=softmax", "item.temperature=0.3"]}


def _generate(home: Path, name: str, people: int, days: int, seed: int, more: list[str]) -> Path:
    line = ["world=fitted", "size=small", f"size.people={people}", f"size.days={days}", f"seed={seed}", f"name={name}"]
    return generate(compose("generate", [*line, f"home={home}", *more]))


def _start_us(log: Path, day: int) -> int:
    first = pl.read_parquet(log / "events.parquet", columns=["at"])["at"].dt.epoch("us").min()
    assert isinstance(first, int)
    return first // DAY_US * DAY_US + day * DAY_US


def _combine(
    logs: list[Path], users: np.ndarray, served: np.ndarray, arms: np.ndarray, start_us: int, folder: Path
) -> Path:
    """Write the log of people of whom those `served` ([n] bool) get the arm from the start on, the others never.

    Args:
        arms: [n] bool, the arm that the assignment says; both arms must have people, also where all are served alike.
    """
    manifest = read_folder(logs[0])
    treated = pl.Series(users[served])
    tables: dict[str, pa.Table] = {}
    for name in ("events", "decisions"):
        control, arm = (pl.read_parquet(log / f"{name}.parquet") for log in logs)
        late = pl.col("at").dt.epoch("us") >= start_us
        theirs = late & pl.col("user_id").is_in(treated.implode()).fill_null(False)
        both = pl.concat([control.filter(~theirs), arm.filter(theirs)]).sort("at")
        if name == "events":  # each log numbers its own
            both = both.with_columns(pl.int_range(1, pl.len() + 1).alias("event_id"))
        tables[name] = both.to_arrow()
    decisions = pl.from_arrow(tables["decisions"])
    assert isinstance(decisions, pl.DataFrame)
    assignment = pl.DataFrame(
        {
            "decision_id": -1 - np.arange(len(users)),
            "request_id": np.full(len(users), -1),
            "kind": "experiment_arm",
            "chosen": np.where(arms, "softmax", "control"),
            "at": np.full(len(users), start_us),
            "user_id": users,
            "propensity": 0.5,
        }
    ).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
    both = pl.concat([decisions, assignment.cast({c: decisions.schema[c] for c in assignment.columns})], how="diagonal")
    tables["decisions"] = both.to_arrow()
    columns = {name: manifest.columns[name] for name in tables}
    write_folder(folder, tables, source="two policies", columns=columns, events=manifest.events)
    return folder


def _values(tables: Path, metrics: dict[str, Metric]) -> dict[str, Values]:
    assignment = read_assignment(tables, ExperimentQuestion())
    rows = read_rows(tables, assignment, list(metrics.values()), pre_days=28, until="", exposure="exposure")
    return {name: values_of(metric, rows, assignment.at_us, pre_days=28) for name, metric in metrics.items()}


def _experiment(control: Values, arm: Values, arms: np.ndarray) -> Effect:
    """Return the effect that an experiment with these arms ([n] bool) would have shown."""
    shown = arm.take(arms), control.take(~arms)
    return compare(*(Sample(figure=values.figure(), earlier=values.earlier) for values in shown))
