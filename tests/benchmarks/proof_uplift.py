"""Uplift on a real experiment, and on simulated ones whose truth is known.

    python tests/benchmarks/proof_uplift.py [home=var] [data=DIR] [runs=200]

Real: the e-mail experiment of `hillstrom` (64,000 customers; men's mail, women's mail or none). It is written as tables
to {home}/tables/hillstrom, so that `playbill measure question=uplift tables=hillstrom` can read it too.
A mail costs 0.10 (declared here, before any result was seen) and 30 % of the customers may get one. Everybody is held
out once, in five folds: the mails of a customer are decided by models that never saw the customer's own outcome. Beside
it the same with every fold taught by the folds before it, whose intervals hold however unstable the rule is.

Simulated: trials with known effects. Each learner ranks, the policy value of its targeting is estimated, and it is
counted how often the interval holds the true value of that same targeting.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record
from rich.progress import track

from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Reading
from playbill.measure.uplift.features import user_features
from playbill.measure.uplift.learners import (
    Models,
    class_transformation,
    cross_fit,
    folds,
    lightgbm_models,
    linear_models,
    t_learner,
    x_learner,
)
from playbill.measure.uplift.log import read_trial
from playbill.measure.uplift.read import fit, run, uplift_reading
from playbill.measure.uplift.settings import HeldOut, LearnerKind, ModelKind, Outcome, UpliftQuestion
from playbill.measure.uplift.trial import Trial, make_trial
from playbill.measure.uplift.value import contributions, everybody, policy_values, within_budget
from playbill.tables.folder import write_folder
from playbill.tables.schema import Column, EventKind, Kind, Provenance

COST_OF_A_MAIL = 0.10
BUDGET_SHARE = 0.30
ARMS = {"No E-Mail": "none", "Mens E-Mail": "mens", "Womens E-Mail": "womens"}
LEARNERS = {"t": t_learner, "x": x_learner, "class_transformation": class_transformation}


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    home = Path(given.get("home", "var"))
    checkout = Path(__file__).resolve().parents[2]
    data = Path(given.get("data", os.environ.get("PLAYBILL_SHARED_DATA", checkout.parent / "shared" / "data")))
    started = machine()
    tables = hillstrom_tables(data / "hillstrom" / "hillstrom.parquet", home / "tables" / "hillstrom")
    figures = {"hillstrom": hillstrom(tables), "simulated": simulated(int(given.get("runs", 200)))}
    _print(figures)
    print(f"written to {record('uplift', figures, started)}")
    return 0


def hillstrom_tables(source: Path, folder: Path, people: int | None = None) -> Path:
    """Write the experiment as users, events and decisions, and return the folder.

    Args:
        source: hillstrom.parquet.
        folder: where the tables go.
        people: only the first so many customers; None takes all.
    """
    rows = pq.read_table(source)
    rows = rows if people is None else rows.slice(0, people)
    count = rows.num_rows
    began = datetime(2008, 3, 1, tzinfo=UTC)  # the publisher gives no dates; outcomes are of the two weeks after
    user_id = pa.array(np.arange(1, count + 1))
    users = pa.table(
        {
            "user_id": user_id,
            **{name: rows[name].cast(pa.float64()) for name in ("recency", "history", "mens", "womens", "newbie")},
            **{name: rows[name].cast(pa.string()) for name in ("history_segment", "zip_code", "channel")},
        }
    )
    decisions = pa.table(
        {
            "decision_id": user_id,
            "request_id": pa.array(["mail"] * count),
            "kind": pa.array(["experiment_arm"] * count),
            "chosen": pa.array([ARMS[arm] for arm in rows["segment"].to_pylist()]),
            "at": pa.array([began] * count, pa.timestamp("us", tz="UTC")),
            "user_id": user_id,
            "propensity": pa.array(np.full(count, 1 / 3)),
        }
    )
    after = began + timedelta(days=13)
    parts = []
    for event, column in (("visit", "visit"), ("purchase", "spend")):
        value = rows[column].to_numpy().astype(np.float64)
        did = np.flatnonzero(value > 0)
        parts.append(
            pa.table(
                {
                    "user_id": user_id.take(pa.array(did)),
                    "event": pa.array([event] * len(did)),
                    "at": pa.array([after] * len(did), pa.timestamp("us", tz="UTC")),
                    "value": pa.array(value[did]),
                }
            )
        )
    events = pa.concat_tables(parts)
    # the log goes on for two weeks after the mails; the last day is written as an event of nobody's interest
    last = {"user_id": [1], "event": ["end_of_log"], "at": [began + timedelta(days=14)], "value": [0.0]}
    events = pa.concat_tables([events, pa.table(last, schema=events.schema)])
    events = events.add_column(0, "event_id", pa.array(np.arange(1, events.num_rows + 1)))
    tables = {"users": users, "events": events, "decisions": decisions}
    write_folder(
        folder,
        tables,
        source="hillstrom",
        columns={name: [_column(f) for f in table.schema] for name, table in tables.items()},
        events=[
            EventKind(name="visit", meaning="came to the site within two weeks", low=1, high=1),
            EventKind(name="purchase", meaning="money spent within two weeks", unit="USD", low=0),
            EventKind(name="end_of_log", meaning="the last day of the log", utility=0),
        ],
        licence="a free public challenge of Kevin Hillstrom (MineThatData), 2008; no licence stated",
    )
    return folder


def _column(field: pa.Field) -> Column:
    kind = Kind.TEXT
    if field.name.endswith("_id"):
        kind = Kind.ID
    elif pa.types.is_timestamp(field.type):
        kind = Kind.TIME
    elif pa.types.is_floating(field.type):
        kind = Kind.NUMBER
    return Column(name=field.name, kind=kind, provenance=Provenance.OBSERVED)


def hillstrom(tables: Path) -> dict[str, Any]:
    """Return the effects on visits, and what targeting 30 % of the customers earns, by learner and cost of a mail."""
    shared: dict[str, Any] = {"experiment": "mail", "control": "none", "window_h": 336.0}
    found: dict[str, Any] = {}
    visit = UpliftQuestion(event="visit", learner=LearnerKind.CLASS_TRANSFORMATION, held_out=HeldOut.CROSS, **shared)
    found["visit, class_transformation over lightgbm"] = _figures(run(visit, tables, MeasureSettings()))
    # the declared one first; the others show how much hangs on the learner and on the cost
    cross = HeldOut.CROSS
    asked = [(LearnerKind.X, ModelKind.LIGHTGBM, COST_OF_A_MAIL, cross)]
    asked += [(LearnerKind.X, ModelKind.LIGHTGBM, COST_OF_A_MAIL, HeldOut.FORWARD)]
    asked += [(kind, model, COST_OF_A_MAIL, cross) for kind in (LearnerKind.T, LearnerKind.X) for model in ModelKind]
    asked += [(LearnerKind.X, ModelKind.LIGHTGBM, cost, cross) for cost in (0.0, 0.5, 1.0)]
    for kind, model, cost, held_out in track(list(dict.fromkeys(asked)), "hillstrom", disable=not sys.stdout.isatty()):
        question = UpliftQuestion(
            event="purchase",
            outcome=Outcome.SUM,
            learner=kind,
            model=model,
            cost={"mens": cost, "womens": cost},
            budget_share=BUDGET_SHARE,
            held_out=held_out,
            **shared,
        )
        name = f"spend, {kind.value} over {model.value}, {held_out.value}, a mail costs {cost:.2f}"
        found[name] = _figures(run(question, tables, MeasureSettings()))
    found["spend, effect on visits times spend a visit, x over lightgbm"] = _by_visits(tables, shared)
    return found


def _by_visits(tables: Path, shared: dict[str, Any]) -> dict[str, Any]:
    """Return the same with customers ranked by the effect on visits: far less noisy than spend, of which 99 % is 0."""
    settings = MeasureSettings()
    visit, _ = read_trial(UpliftQuestion(event="visit", **shared), tables)
    question = UpliftQuestion(
        event="purchase",
        outcome=Outcome.SUM,
        cost={"mens": COST_OF_A_MAIL, "womens": COST_OF_A_MAIL},
        budget_share=BUDGET_SHARE,
        held_out=HeldOut.CROSS,
        **shared,
    )
    spend, _ = read_trial(question, tables)
    fold = folds(len(visit), question.folds, settings.seed)
    features, _, _ = user_features(tables, visit.user_id)
    effect, _ = fit(question, features, visit, fold, settings.seed)
    for number in range(question.folds):
        there = fold != number
        effect[fold == number] *= spend.outcome[there].sum() / visit.outcome[there].sum()
    return _figures(uplift_reading(question, spend, effect, fold, settings, how="effect on visits times spend a visit"))


def _figures(reading: Reading) -> dict[str, Any]:
    rows = {
        s.name: {"estimate": s.estimate, "low": s.low, "high": s.high, **s.details}
        for s in reading.statements
        if s.estimate is not None
    }
    return {"title": reading.title, "verdict": reading.verdict, "warnings": reading.warnings, "statements": rows}


def simulated(runs: int) -> dict[str, Any]:
    """Return, by learner, how often the 95 % interval holds the true value of the learned targeting."""
    found: dict[str, Any] = {}
    kinds: list[tuple[str, Models]] = [
        ("linear", linear_models(binary=True)),
        ("lightgbm", lightgbm_models(0, binary=True, trees=30, least=50)),
    ]
    for model, models in kinds:
        for name, learner in LEARNERS.items():
            held, across, regret, gained = [], [], [], []
            for seed in track(range(runs), f"{name}, {model}", disable=not sys.stdout.isatty()):
                one = simulated_run(partial(learner, models=models), seed)
                held.append(one["low"] <= one["truth"] <= one["high"])
                regret.append(one["best"] - one["truth"])
                gained.append(one["truth"] - one["random"])
                other = simulated_run(partial(learner, models=models), seed, forward=False)
                across.append(other["low"] <= other["truth"] <= other["high"])
            found[f"{name} over {model}"] = {
                "runs": runs,
                "covered": float(np.mean(held)),
                "covered, had all other folds taught": float(np.mean(across)),
                "true value less than the best rule's, mean": float(np.mean(regret)),
                "true value more than random targeting's, mean": float(np.mean(gained)),
            }
    return found


def simulated_run(learner: Any, seed: int, people: int = 4000, *, forward: bool = True) -> dict[str, float]:
    """Return truth and interval of the net value of a learned targeting of 30 % in one simulated trial, three folds."""
    features, trial, expected = known_trial(seed, people)
    cost = np.array([0.0, 0.01, 0.02])
    fold = folds(people, 3, seed)
    effect = cross_fit(learner, features, trial, fold, forward=forward)
    judged = fold > 0 if forward else np.ones(people, bool)
    features, trial, expected = features[judged], trial.take(judged), expected[judged]
    effect, fold, people = effect[judged], fold[judged], int(judged.sum())
    plan = np.zeros(effect.shape)
    for number in np.unique(fold):
        plan[fold == number] = within_budget(effect[fold == number], cost, most_share=0.3, seed=seed)
    parts = {
        "learned": contributions(trial, plan, cost),
        "nobody": contributions(trial, everybody(people, 3, 0), cost),
    }
    _, pairs = policy_values(parts, resamples=1000, seed=seed)
    interval = pairs["learned", "nobody"]

    def truth(rule: np.ndarray) -> float:
        return float((rule * (expected - cost) - everybody(people, 3, 0) * expected).sum(1).mean())

    best = within_budget(expected - expected[:, [0]], cost, most_share=0.3, seed=seed)
    random = np.tile([0.7, 0.15, 0.15], (people, 1))
    return {
        "truth": truth(plan),
        "low": interval.low,
        "high": interval.high,
        "best": truth(best),
        "random": truth(random),
    }


def known_trial(seed: int, people: int) -> tuple[np.ndarray, Trial, np.ndarray]:
    """Return features [N, 5], a trial of three arms with shares 0.5, 0.3, 0.2, and the true outcome by arm [N, 3]."""
    draw = np.random.default_rng([seed, 7])
    x = draw.normal(size=(people, 5))
    base = 1 / (1 + np.exp(1.4 - 0.5 * x[:, 0]))
    # arm 1 moves those with a high x1 and puts off the others; arm 2 helps everybody a little
    first = base + 0.15 * np.tanh(1.5 * x[:, 1])
    second = base + 0.05 + 0.04 * (x[:, 2] > 0)
    expected = np.clip(np.stack([base, first, second], axis=1), 0.01, 0.99)
    share = np.array([0.5, 0.3, 0.2])
    arm = draw.choice(3, size=people, p=share)
    outcome = (draw.random(people) < expected[np.arange(people), arm]).astype(np.float64)
    return x, make_trial(["none", "first", "second"], arm, share, outcome), expected


def _print(figures: dict[str, Any]) -> None:
    for name, found in figures["hillstrom"].items():
        print(f"\n{name}")
        for row, s in found["statements"].items():
            print(f"  {row:<75} {s['estimate']:+.5f} [{s['low']:+.5f}, {s['high']:+.5f}]")
        for warning in found["warnings"]:
            print(f"  WARNING {warning}")
    print("\nsimulated trials: 95 % intervals of the value of the learned targeting")
    for name, s in figures["simulated"].items():
        print(
            f"  {name:<36} covered {s['covered']:.3f} of {s['runs']} "
            f"({s['covered, had all other folds taught']:.3f} had all other folds taught), "
            f"{s['true value less than the best rule' + chr(39) + 's, mean']:.4f} below the best rule, "
            f"{s['true value more than random targeting' + chr(39) + 's, mean']:.4f} above random"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
