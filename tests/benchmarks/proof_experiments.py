"""Experiments, the design half: assignment, sample ratio, always-valid reading, power, interleaving; at full size.

    python tests/benchmarks/proof_experiments.py [home=var] [data=DIR]

    assignment     1,000 experiments at once over 10^6 people: all 499,500 correlations, ids int64 and strings
    sample ratio   Upworthy's archive: share of tests flagged in the weeks that its authors withdrew, and outside
    A/A            10,000 tests a kind of value, looked at after every pair of people: false positives, both readings
    planner        what the power planner promises of a test that is read on the way, simulated
    ASOS           78 real experiments read day by day: who decides what, and when
    interleaving   equal rankers, and a better one beside an A/B test with the same people

`data` holds the real data sets (default: $PLAYBILL_SHARED_DATA, else ../shared/data beside the checkout); those that
are absent are left out and said so. Takes about eight minutes on an idle core. Fast twins run in tests/measure.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record
from rich.progress import track

from playbill.measure.assignment import Plan, layer
from playbill.measure.assignment_rows import arms_of, hash_ids
from playbill.measure.interleaving.team_draft import interleave, preference, winners
from playbill.measure.power.read import run as plan_power
from playbill.measure.power.settings import PowerQuestion
from playbill.measure.sample_ratio import sample_ratio
from playbill.measure.sequential import always_valid, difference_sequence, tuning
from playbill.measure.settings import MeasureSettings

PEOPLE, EXPERIMENTS = 1_000_000, 1_000
TESTS = 10_000
Values = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    data = Path(given.get("data", os.environ.get("PLAYBILL_SHARED_DATA", beside)))
    started = machine()
    figures: dict[str, Any] = {}
    for name, measure in (
        ("assignment", assignment),
        ("sample_ratio_upworthy", lambda: upworthy(data / "upworthy-exploratory" / "packages.parquet")),
        ("aa_continuous_peeking", aa_tests),
        ("planner_sequential", planner),
        ("asos_sequential_reading", lambda: asos(data / "asos-digital-experiments" / "experiments.parquet")),
        ("interleaving", interleaving),
    ):
        began = time.perf_counter()
        try:
            figures[name] = measure()
        except FileNotFoundError as error:
            figures[name] = {"left_out": f"no real data: {Path(str(error.filename)).name} is not there"}
        figures[name] |= {"took_s": round(time.perf_counter() - began, 1)}
        _print(name, figures[name])
    print(f"written to {record('experiments', figures, started)}")
    return 0


def assignment() -> dict[str, Any]:
    """Return the correlations of 1,000 experiments dealt at once, for both kinds of ids."""
    plan = Plan(
        layers=tuple(
            layer(f"experiment-{i}", {f"experiment-{i}": {"control": 0.5, "new": 0.5}}) for i in range(EXPERIMENTS)
        ),
        holdout=0.0,
    )
    rows = []
    for kind, ids in (
        ("int64, 1..10^6", np.arange(1, PEOPLE + 1)),
        ("strings, visitor-1..", [f"visitor-{i}" for i in range(1, PEOPLE + 1)]),
    ):
        began = time.perf_counter()
        hashes = hash_ids(ids)
        hashed_s = time.perf_counter() - began
        products = np.zeros((EXPERIMENTS, EXPERIMENTS))
        sums = np.zeros(EXPERIMENTS)
        dealt_s = 0.0
        for low in track(range(0, PEOPLE, 50_000), f"1,000 experiments, {kind}"):
            began = time.perf_counter()
            part = hashes[low : low + 50_000]
            sides = np.empty((EXPERIMENTS, len(part)), np.float32)
            for i in range(EXPERIMENTS):
                sides[i] = arms_of(plan, f"experiment-{i}", part)
            dealt_s += time.perf_counter() - began
            sides = sides * 2 - 1
            # sums of +-1 over 50,000 people are whole numbers below 2^24: exact in float32
            products += sides @ sides.T
            sums += sides.sum(1, dtype=np.float64)
        mean = sums / PEOPLE
        covariance = products / PEOPLE - np.outer(mean, mean)
        spread = np.sqrt(np.diag(covariance))
        off = np.abs(covariance / np.outer(spread, spread))[np.triu_indices(EXPERIMENTS, 1)]
        flagged = sum(sample_ratio([(PEOPLE - s) / 2, (PEOPLE + s) / 2], [0.5, 0.5]).flagged for s in sums)
        rows.append(
            {
                "ids": kind,
                "pairs": len(off),
                "max_abs_correlation": float(off.max()),
                "rms_correlation": float(np.sqrt((off**2).mean())),
                "rms_of_chance": 1 / PEOPLE**0.5,
                "sample_ratio_flags": flagged,
                "hash_ids_s": round(hashed_s, 2),
                "deal_10^9_s": round(dealt_s, 1),
            }
        )
    return {"people": PEOPLE, "experiments": EXPERIMENTS, "rows": rows}


def upworthy(file: Path) -> dict[str, Any]:
    """Return the share of tests that the sample-ratio check flags, inside and outside the withdrawn weeks."""
    tests = pl.read_parquet(file).group_by("clickability_test_id").agg("impressions", pl.col("test_week").min())
    inside = tests["test_week"].is_between(201325, 201402).to_numpy()
    flagged = np.array([sample_ratio(c, np.ones(len(c))).flagged for c in tests["impressions"].to_list()])
    return {
        "rows": [
            {
                "weeks": name,
                "tests": int(mask.sum()),
                "flagged": int(flagged[mask].sum()),
                "share": float(flagged[mask].mean()),
            }
            for name, mask in (("201325..201402", inside), ("all others", ~inside))
        ]
    }


def _revenue(draw: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Nine of ten spend nothing, the rest a log-normal amount: skewness about 20."""
    values = np.zeros(shape)
    buys = draw.random(shape, np.float32) < 0.1
    values[buys] = draw.lognormal(3.0, 1.2, int(buys.sum()))
    return values


KINDS: dict[str, Values] = {
    "normal": lambda draw, shape: draw.standard_normal(shape),
    "conversion of 2 %": lambda draw, shape: (draw.random(shape, np.float32) < 0.02).astype(np.float64),
    "revenue, 10 % buy": _revenue,
}


def aa_tests() -> dict[str, Any]:
    """Return the false positives of 10,000 tests without an effect, looked at after every step.

    Planned for 10,000 people and read on to twice that. A step is a pair of people (one an arm), or ten where the arms
    are 9 to 1. A look needs `start` people in the smaller arm.
    """
    rows = []
    for kind, values in KINDS.items():
        for control, start in ((1, 100), (9, 100), (9, 1000)):
            steps = 20_000 // (control + 1)
            draw = np.random.default_rng(0)
            found = {"always_valid": 0, "fixed_peeking": 0, "fixed_at_plan": 0, "always_valid_by_plan": 0}
            for low in track(range(0, TESTS, 100), f"A/A, {kind}, {control}:1 from {start}"):
                many = min(100, TESTS - low)
                arms = [_running(values(draw, (many, steps, size))) for size in (control, 1)]
                (n_c, m_c, v_c), (n_t, m_t, v_t) = arms
                sequence = difference_sequence(
                    n_c, m_c, v_c, n_t, m_t, v_t, planned_n=10_000, shares=(control, 1), start=start
                )
                error = np.sqrt(v_c / n_c + v_t / n_t)
                significant = (np.abs(m_t - m_c) > 1.959964 * error) & (n_t >= start)
                at_plan = steps // 2 - 1
                found["always_valid"] += int((sequence.p_value[:, -1] < 0.05).sum())
                found["always_valid_by_plan"] += int((sequence.p_value[:, at_plan] < 0.05).sum())
                found["fixed_peeking"] += int(significant.any(1).sum())
                found["fixed_at_plan"] += int(significant[:, at_plan].sum())
            rows.append(
                {
                    "values": kind,
                    "arms": f"{control}:1",
                    "first_look_people": start,
                    "tests": TESTS,
                    "looks": steps - start + 1,
                }
                | {name: count / TESTS for name, count in found.items()}
            )
    return {"level": 0.95, "planned_people": 10_000, "people": 20_000, "rows": rows}


def _running(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return count, mean and variance after every step; values [tests, steps, people of a step]."""
    n = np.arange(1, values.shape[1] + 1) * values.shape[2]
    mean = values.sum(2).cumsum(1) / n
    squares = (values**2).sum(2).cumsum(1)
    return n, mean, np.maximum(squares - n * mean**2, 0) / np.maximum(n - 1, 1)


def planner() -> dict[str, Any]:
    """Return, for planned effects on a rate, the power and the mean size of tests that stop once they have found it."""
    rows = []
    for baseline, relative, power in ((0.05, 0.1, 0.8), (0.2, 0.05, 0.8), (0.05, 0.2, 0.9)):
        common = {"baseline": baseline, "relative_effect": relative, "power": power}
        once, plan = (
            plan_power(PowerQuestion(sequential=s, **common), Path(), MeasureSettings()).statements[0]
            for s in (False, True)
        )
        looks, tests = 500, 4000
        step = plan.n // 2 // looks
        n = np.arange(1, looks + 1) * step
        draw = np.random.default_rng(1)
        rates = [draw.binomial(step, p, (tests, looks)).cumsum(1) / n for p in (baseline, baseline * (1 + relative))]
        arms = [(n, rate, rate * (1 - rate) * n / (n - 1)) for rate in rates]
        found = difference_sequence(*arms[0], *arms[1], planned_n=plan.n).p_value < 0.05
        stop = np.where(found[:, -1], (found.argmax(1) + 1) / looks, 1.0)
        rows.append(
            common
            | {
                "people_fixed": once.n,
                "people_at_most": plan.n,
                "people_on_average_planned": round(plan.details["people_on_average"]),
                "people_on_average_simulated": round(float(stop.mean()) * plan.n),
                "power_simulated": float(found[:, -1].mean()),
            }
        )
    return {"tests": 4000, "looks": 500, "rows": rows}


def asos(file: Path) -> dict[str, Any]:
    """Return what three readings of the ASOS experiments decide: at the end, by peeking, and always valid.

    The plan of an experiment is taken as carried out (the people it had at its end), and a quarter and four times that.
    `msprt_learned` is the notion of the data set's paper: one mixing variance a metric, learned from the effects of all
    experiments at their end, here by moments, in units of a person's variance.
    """
    looks = pl.read_parquet(file)
    whole = looks.select("experiment_id", "variant_id", "metric_id").n_unique()
    series = [
        (
            f"{experiment}/{variant}/{metric}",
            metric,
            test["time_since_start"].to_numpy(),
            [test[f"{w}_{arm}"].to_numpy() for arm in "ct" for w in ("count", "mean", "variance")],
        )
        for (experiment, variant, metric), test in looks.drop_nulls()
        .sort("time_since_start")
        .group_by("experiment_id", "variant_id", "metric_id", maintain_order=True)
    ]
    learned = {metric: _mixing_variance([arms for _, m, _, arms in series if m == metric]) for metric in (1, 2, 3, 4)}
    decided = pl.DataFrame([_decide(metric, day, arms, learned[metric]) for _, metric, day, arms in series])
    rows = []
    for metric in (1, 2, 3, 4, None):
        mine = decided if metric is None else decided.filter(pl.col("metric") == metric)
        end, peek, always = mine["end"], mine["peek"], mine["always"]
        rows.append(
            {
                "metric": metric or "all",
                "series": len(mine),
                "fixed_at_end": int(end.sum()),
                "fixed_at_some_look": int(peek.sum()),
                "of_those_not_at_end": int((peek & ~end).sum()),
                "always_valid": int(always.sum()),
                "of_those_not_at_end_": int((always & ~end).sum()),
                "turned_sign": int((mine["turned"] & always).sum()),
                "median_day_found": mine.filter("always")["found_day"].median(),
                "median_share_of_people": mine.filter("always")["found_share"].median(),
                "plan_x_0.25": int(mine["always_quarter"].sum()),
                "plan_x_4": int(mine["always_four"].sum()),
                "msprt_learned": int(mine["msprt"].sum()),
                "msprt_agrees": float((mine["msprt"] == always).mean()),
            }
        )
    table = decided.group_by("end", "peek", "always").len().sort("end", "peek", "always", descending=True)
    return {
        "experiments_x_variants_x_metrics": whole,
        "without_a_variance": whole - len(series),
        "looks": len(looks.drop_nulls()),
        "learned_mixing_variance": {str(m): v for m, v in learned.items()},
        "rows": rows,
        "decisions": table.to_dicts(),
        # experiment/variant/metric: the first day on which the always-valid interval excludes 0
        "found_on_day": {
            key: day for (key, *_), day in zip(series, decided["found_day"], strict=True) if day is not None
        },
    }


def _mixing_variance(tests: list[list[np.ndarray]]) -> float:
    """Return the variance of true effects, in units of a person's variance: what effects vary beyond their errors."""
    squares = []
    for n_c, m_c, v_c, n_t, m_t, v_t in ([a[-1] for a in arms] for arms in tests):
        if min(v_c, v_t) > 0 and min(n_c, n_t) >= 100:
            person = (v_c + v_t) / 2
            squares.append(((m_t - m_c) ** 2 - (v_c / n_c + v_t / n_t)) / person)
    return max(float(np.mean(squares)), 1e-12)


def _decide(metric: int, day: np.ndarray, arms: list[np.ndarray], mixing: float) -> dict[str, Any]:
    n_c, m_c, v_c, n_t, m_t, v_t = arms
    plan = n_c[-1] + n_t[-1]
    found = difference_sequence(*arms, planned_n=plan).p_value < 0.05
    ready = (n_c >= 100) & (n_t >= 100)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(ready, np.nan_to_num(np.sqrt(v_c / n_c + v_t / n_t)), 0.0)
    known = error > 0
    z = np.where(known, (m_t - m_c) / np.where(known, error, 1), 0)
    first = int(found.argmax())
    share = np.where(known, mixing * (v_c + v_t) / 2 / np.where(known, error, 1) ** 2 / tuning(0.95), 1.0)
    learned = always_valid(m_t - m_c, error, np.maximum(share, 1e-12))
    return {
        "metric": metric,
        "end": bool(abs(z[-1]) > 1.959964),
        "peek": bool((np.abs(z) > 1.959964).any()),
        "always": bool(found[-1]),
        "turned": bool(found[-1] and z[first] * z[-1] < 0),
        "found_day": float(day[first]) if found[-1] else None,
        "found_share": float((n_c[first] + n_t[first]) / plan) if found[-1] else None,
        "always_quarter": bool(difference_sequence(*arms, planned_n=plan / 4).p_value[-1] < 0.05),
        "always_four": bool(difference_sequence(*arms, planned_n=plan * 4).p_value[-1] < 0.05),
        "msprt": bool((learned.p_value < 0.05).any()),
    }


def interleaving() -> dict[str, Any]:
    """Return how often team drafts call equal rankers different, and find a better one, beside an A/B test.

    A person makes two requests, likes 20 items to a degree, and clicks on six places by liking and place. The A/B test
    gives each person one ranker's lists and compares clicks per person, with as many people.
    """
    from scipy.stats import ttest_ind

    rows = []
    for name, theirs_noise, people, tests in (
        ("equal", 1.0, 200, 1000),
        ("ours better", 2.0, 200, 200),
        ("ours better", 2.0, 800, 100),
    ):
        found, split, delta = 0, 0, []
        for test in track(range(tests), f"interleaving, {name}, {people} people"):
            draw = np.random.default_rng(test)
            person, credit = np.repeat(np.arange(people), 2), np.zeros((2 * people, 2), np.int64)
            clicks = np.zeros((2, people))
            for row in range(2 * people):
                liking = draw.normal(size=20)
                ours, theirs = (np.argsort(-(liking + s * draw.normal(size=20))).tolist() for s in (1.0, theirs_noise))
                made = interleave(ours, theirs, 6, seed=test, request_id=row)
                coins = draw.random(6)
                for i, (item, team) in enumerate(zip(made.items, made.teams, strict=True)):
                    credit[row, team] += coins[i] < _click(liking[item], i)
                shown = (ours, theirs)[person[row] % 2]
                clicks[person[row] % 2, person[row]] += sum(
                    draw.random() < _click(liking[shown[i]], i) for i in range(6)
                )
            read = preference(person, winners(credit[:, 0], credit[:, 1]), resamples=200, seed=test)
            found += read.p_value < 0.05
            delta.append(read.delta)
            split += ttest_ind(clicks[0, 0::2], clicks[1, 1::2]).pvalue < 0.05
        rows.append(
            {
                "rankers": name,
                "people": people,
                "tests": tests,
                "interleaving_finds": found / tests,
                "ab_test_finds": split / tests,
                "mean_preference": float(np.mean(delta)),
                "its_standard_error": float(np.std(delta) / tests**0.5),
            }
        )
    return {"lists_a_person": 2, "places": 6, "rows": rows}


def _click(liking: float, place: int) -> float:
    return float(0.6 / (1 + np.exp(-liking)) * 0.8**place)


def _print(name: str, figures: dict[str, Any]) -> None:
    print(f"\n{name}: " + ", ".join(f"{k} {v}" for k, v in figures.items() if not isinstance(v, list | dict)))
    for table in (v for v in figures.values() if isinstance(v, list)):
        for cells in [list(table[0]), *(list(row.values()) for row in table)]:
            print("  " + "  ".join(f"{c:.5g}" if isinstance(c, float) else str(c) for c in cells))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
