"""Readings of experiments against truth: coverage of every kind of interval, CUPED, false discoveries, real logs.

    python tests/benchmarks/proof_experiment_reading.py [home=var] [data=DIR] [draws=4000]

Simulated experiments have a true effect known in closed form; each is drawn anew `draws` times and read as
`playbill measure question=experiment` reads it. In the simulated service the true effect of a policy is known of the
very people in the experiment: the intervals are those of a larger population, so they hold it more often than 95 %.
Real experiments go the whole road, from five tables to the reading.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from experiment_logs import SENT, write_hillstrom, write_same
from experiment_world import relative_coverage, two_policies
from record import machine, record
from rich.progress import track

from playbill.cli import compose
from playbill.measure.experiments.discovery import q_values
from playbill.measure.experiments.effects import Sample, compare
from playbill.measure.experiments.guardrails import Outcome, check
from playbill.measure.experiments.influence import Figure, of_mean, of_ratio, of_restricted_time
from playbill.measure.experiments.metrics import Better, Count, Guardrail, Kind, Metric
from playbill.measure.experiments.read import run as experiment
from playbill.measure.experiments.settings import Correction, ExperimentQuestion
from playbill.measure.job import run as measure
from playbill.measure.sample_ratio import sample_ratio
from playbill.measure.sequential import always_valid, progress_of
from playbill.measure.settings import MeasureSettings

HORIZON_DAYS = 14.0
Draw = Callable[[np.random.Generator], tuple[Sample, Sample]]


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    root = Path(__file__).resolve().parents[2]
    data = Path(given.get("data", os.environ.get("PLAYBILL_SHARED_DATA", root.parent / "shared" / "data")))
    draws = int(given.get("draws", 4000))
    started = machine()
    figures: dict[str, Any] = {"draws": draws, "level": 0.95}
    figures["coverage"] = {
        name: coverage(draw, difference, relative, draws)
        for name, (draw, difference, relative) in track(cases().items(), "coverage", transient=True)
    }
    figures["cuped_variance_reduction_by_correlation"] = {
        str(rho): {"measured": cuped_reduction(rho, 50_000), "rho_squared": rho**2} for rho in (0.3, 0.5, 0.7, 0.9)
    }
    figures["false_discoveries"] = {
        f"{share:.0%} nulls, 12 metrics x 3 arms": false_discoveries(draws // 4, null_share=share)
        for share in track((0.5, 0.75, 0.9, 1.0), "false discoveries", transient=True)
    }
    figures["guardrail_of_10_ms_by_added_ms"] = {
        str(added): guardrail_outcomes(added, draws // 4)
        for added in track((0.0, 5.0, 10.0, 15.0, 30.0), "guardrails", transient=True)
    }
    figures["peeking_20_times_a_a"] = peeking(draws // 2)
    figures["peeking_60_times_a_a_unequal_arms"] = {
        f"{name}, {1 - share:.0%} against {share:.0%}": peeking_unequal(draws // 4, values, share)
        for name, values in track(SKEWED.items(), "peeking, unequal arms", transient=True)
        for share in (0.1, 0.05)
    }
    figures["peeking_by_the_command_a_a_unequal_arms"] = {
        f"90% against 10%, {name}": rate for name, rate in peeking_by_command(draws // 40, 0.1).items()
    }
    with tempfile.TemporaryDirectory() as folder:
        figures["two_policies_in_a_known_world"] = two_policies(Path(folder), draws=draws // 4)
    if data.is_dir():
        figures["hillstrom"] = hillstrom(data)
        figures["upworthy"] = upworthy(data)
    else:
        print(f"no real data at {data}: hillstrom and upworthy are left out")
    _print(figures)
    print(f"written to {record('experiment_reading', figures, started)}")
    return 0


def cases() -> dict[str, tuple[Draw, float, float]]:
    """Return simulated experiments by name: how to draw (arm, control), true difference, true relative effect."""
    spent = 0.1 * math.exp(3.5)  # a tenth buys, lognormal(3, 1)
    # p ~ Beta(2, 38), impressions 1 + Poisson(100 p): those who click much see much
    p, p2 = 2 / 40, 2 * 3 / (40 * 41)
    clicks, shown = p + 100 * p2, 1 + 100 * p
    slow, fast = (restricted_mean(rate) for rate in (0.05, 0.06))
    return {
        "proportion 5 %, 2,000 an arm": (lambda r: _proportion(r, 2000, 2000), 0.01, 0.2),
        "proportion 5 %, 400 against 3,600": (lambda r: _proportion(r, 400, 3600), 0.01, 0.2),
        "skewed mean, 5,000 an arm": (lambda r: _money(r, 5000, 5000), 0.1 * spent, 0.1),
        "skewed mean, 1,000 against 9,000": (lambda r: _money(r, 1000, 9000), 0.1 * spent, 0.1),
        "ratio, 2,000 an arm": (lambda r: _ratio(r, 2000), 0.1 * clicks / shown, 0.1),
        "ratio with CUPED, 2,000 an arm": (lambda r: _ratio(r, 2000, earlier=True), 0.1 * clicks / shown, 0.1),
        "mean with CUPED, 500 an arm": (lambda r: _visits(r, 500), 0.5, 0.1),
        "60 clusters of 1-20 an arm": (lambda r: _clusters(r, 60), 0.3, 0.1),
        "60 clusters an arm, with CUPED": (lambda r: _clusters(r, 60, earlier=True), 0.3, 0.1),
        "households of both arms, 400": (_mixed_households, 0.3, 0.1),
        "restricted time, half censored, 500 an arm": (lambda r: _times(r, 500), fast - slow, fast / slow - 1),
    }


def restricted_mean(rate: float) -> float:
    """Return E[min(T, 14)] of T exponential with this rate a day."""
    return (1 - math.exp(-rate * HORIZON_DAYS)) / rate


def coverage(draw: Draw, difference: float, relative: float, draws: int, seed: int = 0) -> dict[str, float]:
    """Return how often the 95 % intervals hold the truth, and whether the standard error is right.

    Returns:
        coverage of the difference and of the relative effect, mean standard error / standard deviation of the
        estimates, bias in standard errors, mean CUPED reduction, and the share of draws that warned of skewness.
    """
    effects = [compare(*draw(np.random.default_rng((seed, i)))) for i in range(draws)]
    estimates = np.array([e.difference for e in effects])
    errors = np.array([e.standard_error for e in effects])
    return {
        "coverage": float(np.mean([e.low <= difference <= e.high for e in effects])),
        **relative_coverage(effects, relative),
        "standard_error_ratio": float(errors.mean() / estimates.std()),
        "bias_in_standard_errors": float((estimates.mean() - difference) / errors.mean()),
        "variance_reduction": float(np.mean([e.variance_reduction or 0.0 for e in effects])),
        "skewness_warned": float(np.mean([any("skewed" in w for w in e.warnings) for e in effects])),
    }


def cuped_reduction(correlation: float, people: int, seed: int = 0) -> float:
    """Return the share of variance that CUPED takes away where now and before correlate as given (normal values)."""
    draw = np.random.default_rng(seed)

    def arm(effect: float) -> Sample:
        before = draw.normal(size=people)
        now = correlation * before + math.sqrt(1 - correlation**2) * draw.normal(size=people) + effect
        return Sample(figure=of_mean(now), earlier=before)

    reduction = compare(arm(0.1), arm(0.0)).variance_reduction
    assert reduction is not None
    return reduction


def false_discoveries(
    draws: int, *, metrics: int = 12, arms: int = 3, people: int = 300, null_share: float = 0.75, seed: int = 0
) -> dict[str, float]:
    """Return the mean share of false ones among what is called found, over mixed nulls, for each correction.

    Metrics of one person correlate (0.5), and all arms share one control, so the tests are positively dependent.
    """
    rates: dict[str, list[float]] = {"bh": [], "by": [], "uncorrected": []}
    power: dict[str, list[float]] = {"bh": [], "by": [], "uncorrected": []}
    for i in range(draws):
        draw = np.random.default_rng((seed, i))
        null = draw.random((arms, metrics)) < null_share
        drawn = draw.normal(size=(arms + 1, people, metrics)) * math.sqrt(0.5)
        drawn += draw.normal(size=(arms + 1, people, 1)) * math.sqrt(0.5)
        drawn[1:] += np.where(null, 0.0, 0.3)[:, None, :]
        figures = [[of_mean(drawn[a, :, m]) for m in range(metrics)] for a in range(arms + 1)]
        p = np.array(
            [
                compare(Sample(figure=figures[a + 1][m]), Sample(figure=figures[0][m])).p_value
                for a in range(arms)
                for m in range(metrics)
            ]
        )
        for name in rates:
            q = p if name == "uncorrected" else q_values(p, Correction(name))
            found = q <= 0.05
            rates[name].append(float((found & null.ravel()).sum() / max(found.sum(), 1)))
            power[name].append(float((found & ~null.ravel()).sum() / max((~null).sum(), 1)))
    return {f"{name}_false_share": float(np.mean(x)) for name, x in rates.items()} | {
        f"{name}_power": float(np.mean(x)) for name, x in power.items()
    }


def guardrail_outcomes(added_ms: float, draws: int) -> dict[str, float]:
    """Return how often a latency guardrail of 10 ms passes, fails and stays open when an arm adds this much.

    600 people an arm with one to seven requests; people differ in latency, requests of a person too.
    """
    metric = Metric(kind=Kind.RATIO, count=Count(events=["x"]), better=Better.LOWER, guardrail=Guardrail(limit=10))
    outcomes = {outcome: 0 for outcome in Outcome}
    for i in range(draws):
        draw = np.random.default_rng((7, i))

        def arm(added: float, draw: np.random.Generator = draw) -> Sample:
            requests = draw.integers(1, 8, 600)
            # a sum of r exponential waits of mean 40 ms is a gamma
            total = requests * (150 + added + draw.exponential(30, 600)) + draw.gamma(requests, 40)
            return _sample(of_ratio(total, requests))

        outcomes[check(metric, compare(arm(added_ms), arm(0.0))).outcome] += 1
    return {outcome.value: count / draws for outcome, count in outcomes.items()}


def peeking(draws: int, looks: int = 20, people: int = 200) -> dict[str, float]:
    """Return how often an A/A test, read after every 200 people an arm with CUPED, is found to differ at some look."""
    found = {"always_valid": 0, "fixed_horizon": 0}
    for i in range(draws):
        draw = np.random.default_rng((11, i))
        before = draw.gamma(2, 0.5, (2, looks * people))
        now = draw.poisson(5 * before)
        ever = {"always_valid": False, "fixed_horizon": False}
        for look in range(1, looks + 1):
            seen = look * people
            arm, control = (Sample(figure=of_mean(now[a, :seen]), earlier=before[a, :seen]) for a in (0, 1))
            for name, progress in (("always_valid", look / looks), ("fixed_horizon", None)):
                ever[name] |= compare(arm, control, progress=progress).p_value < 0.05
        for name in found:
            found[name] += ever[name]
    return {f"{name}_false_positives": count / draws for name, count in found.items()}


def _conversion(draw: np.random.Generator, n: int) -> np.ndarray:
    return (draw.random(n) < 0.02).astype(np.float64)


def _revenue(draw: np.random.Generator, n: int) -> np.ndarray:
    return np.where(draw.random(n) < 0.1, draw.lognormal(3, 1.2, n), 0.0)


SKEWED: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "conversion of 2 %": _conversion,
    "revenue, 10 % buy": _revenue,
}


def peeking_unequal(
    draws: int,
    values: Callable[[np.random.Generator, int], np.ndarray],
    share: float,
    *,
    looks: int = 60,
    people: int = 20_000,
    seed: int = 13,
) -> dict[str, float]:
    """Return how often an A/A test of unequal arms is found to differ at some look, of which the first sees 20 people.

    Planned for half of the people and read on. `by_each_arms_own_error` is the same always-valid reading with Welch's
    error alone and from the first look on: what the larger error and the first look at 100 people are for.
    """
    found = {"always_valid": 0, "by_each_arms_own_error": 0}
    for i in range(draws):
        draw = np.random.default_rng((seed, i))
        treated, now = draw.random(people) < share, values(draw, people)
        ever = dict.fromkeys(found, False)
        for seen in np.unique(np.geomspace(20, people, looks).round().astype(int)):
            arm, control = (now[:seen][treated[:seen] == t] for t in (True, False))
            if min(len(arm), len(control)) < 2 or not np.ptp(arm) + np.ptp(control):
                continue
            progress = float(progress_of(len(control), len(arm), people / 2, (1 - share, share)))
            effect = compare(_sample(of_mean(arm)), _sample(of_mean(control)), progress=progress)
            ever["always_valid"] |= effect.p_value < 0.05
            alone = always_valid(effect.difference, effect.standard_error, 2 * seen / people)
            ever["by_each_arms_own_error"] |= bool(alone.p_value < 0.05)
        for name in found:
            found[name] += ever[name]
    return {f"{name}_false_positives": count / draws for name, count in found.items()}


def peeking_by_command(draws: int, share: float, *, looks: int = 10, people: int = 4000) -> dict[str, float]:
    """Return by metric how often `question=experiment` with sequential=true finds an A/A test to differ at some look.

    Planned for half of the people and read on; read from the tables on `looks` of the experiment's 20 days.
    """
    found = {"conversion": 0, "revenue_per_visitor": 0, "sample ratio": 0}
    for i in range(draws):
        ever = dict.fromkeys(found, False)
        with tempfile.TemporaryDirectory() as folder:
            tables = write_same(Path(folder) / "same", np.random.default_rng((17, i)), people, share)
            for until in SENT + (np.geomspace(0.3, 21, looks) * 86_400e6).astype("timedelta64[us]"):
                question = ExperimentQuestion(
                    only=["conversion", "revenue_per_visitor"],
                    window_days=0.1,
                    sequential=True,
                    planned_people=people // 2,
                    until=str(until),
                )
                reading = experiment(question, tables, MeasureSettings())
                for row in reading.tables["intent to treat"]:
                    ever[row["metric"]] |= row["p"] < 0.05
                ever["sample ratio"] |= any("SAMPLE RATIO" in w for w in reading.warnings)
        for name in found:
            found[name] += ever[name]
    return {f"{name}_false_positives": count / draws for name, count in found.items()}


def hillstrom(data: Path) -> dict[str, Any]:
    """Return the effects of two mailings on 64,000 customers, read from the five tables by the command."""
    with tempfile.TemporaryDirectory() as folder:
        tables = write_hillstrom(data, Path(folder) / "hillstrom")
        own = Path(folder) / "visit.yaml"
        own.write_text("visit: {kind: proportion, count: {events: [visit]}}\n")
        line = ["question=experiment", f"tables={tables}", "question.control=none", f"question.metrics={own}"]
        line += ["question.until='2008-03-15'", f"home={folder}"]
        reading = measure(compose("measure", line))
    return {
        f"{row['metric']} of {row['arm']}": {k: row[k] for k in ("difference", "standard_error", "low", "high", "q")}
        for row in reading.tables["intent to treat"]
    }


def upworthy(data: Path) -> dict[str, Any]:
    """Return what is found in thousands of headline tests, first package as control, false discoveries controlled."""
    import polars as pl

    rows = pl.read_parquet(data / "upworthy-exploratory" / "packages.parquet")
    tests = rows.group_by("clickability_test_id").agg("impressions", "clicks", pl.col("test_week").first()).iter_rows()
    p_values, sound, flagged = [], 0, 0
    for _, shown, clicked, _ in tests:
        if len(shown) < 2 or sample_ratio(shown, np.full(len(shown), 1 / len(shown))).flagged:
            flagged += len(shown) >= 2
            continue
        sound += 1
        arms = [_sample(of_mean(np.arange(n) < c)) for n, c in zip(shown, clicked, strict=True)]
        # two packages that nobody clicked have no error, and no p value
        p_values += [
            compare(arm, arms[0]).p_value for arm, n in zip(arms[1:], clicked[1:], strict=True) if n or clicked[0]
        ]
    q = q_values(p_values)
    return {
        "tests_read": sound,
        "tests_whose_sample_ratio_fails": flagged,
        "packages_against_the_first": len(p_values),
        "p_below_0.05": int((np.array(p_values) < 0.05).sum()),
        "found_at_a_false_discovery_rate_of_0.05": int((q <= 0.05).sum()),
    }


def _print(figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        print(name if isinstance(value, dict) else f"{name}: {value}")
        for key, told in value.items() if isinstance(value, dict) else ():
            line = ", ".join(f"{k} {v:.4g}" for k, v in told.items()) if isinstance(told, dict) else f"{told:.4g}"
            print(f"  {key}: {line}")


def _proportion(draw: np.random.Generator, n: int, m: int) -> tuple[Sample, Sample]:
    return _sample(of_mean(draw.random(n) < 0.06)), _sample(of_mean(draw.random(m) < 0.05))


def _money(draw: np.random.Generator, n: int, m: int) -> tuple[Sample, Sample]:
    def arm(people: int, factor: float) -> Sample:
        return _sample(of_mean((draw.random(people) < 0.1) * draw.lognormal(3, 1, people) * factor))

    return arm(n, 1.1), arm(m, 1.0)


def _ratio(draw: np.random.Generator, n: int, earlier: bool = False) -> tuple[Sample, Sample]:
    rate = draw.beta(2, 38, size=(2, n))
    factor = np.array([[1.1], [1.0]])
    shown = 1 + draw.poisson(100 * rate)
    clicked = draw.binomial(shown, rate * factor)
    if not earlier:
        return _sample(of_ratio(clicked[0], shown[0])), _sample(of_ratio(clicked[1], shown[1]))
    # weeks before, the same people: linearised over both arms, as `values_of` does it
    shown_before = 1 + draw.poisson(100 * rate)
    before = of_ratio(draw.binomial(shown_before, rate).ravel(), shown_before.ravel()).influence.reshape(2, n)
    arm, control = (Sample(figure=of_ratio(clicked[a], shown[a]), earlier=before[a]) for a in (0, 1))
    return arm, control


def _visits(draw: np.random.Generator, n: int) -> tuple[Sample, Sample]:
    def arm(factor: float) -> Sample:
        habit = draw.gamma(2, 0.5, n)
        return Sample(
            figure=of_mean(draw.poisson(5 * habit * factor)), earlier=draw.poisson(5 * habit).astype(np.float64)
        )

    return arm(1.1), arm(1.0)


def _clusters(draw: np.random.Generator, clusters: int, earlier: bool = False) -> tuple[Sample, Sample]:
    def arm(effect: float, first: int) -> Sample:
        size = draw.integers(1, 21, clusters)
        cluster = np.repeat(np.arange(first, first + clusters), size)
        habit = np.repeat(draw.normal(size=clusters), size)
        now = 3 + effect + habit + draw.normal(size=len(cluster))
        before = habit + draw.normal(size=len(cluster)) if earlier else None
        return Sample(figure=of_mean(now), earlier=before, cluster=cluster)

    return arm(0.3, 0), arm(0.0, clusters)


def _mixed_households(draw: np.random.Generator) -> tuple[Sample, Sample]:
    """People assigned one by one in households of 1-6: what is common to a household cancels in the difference."""
    household = np.repeat(np.arange(400), draw.integers(1, 7, 400))
    now = 3 + draw.normal(size=400)[household] + draw.normal(size=len(household))
    arm = draw.random(len(household)) < 0.5
    now[arm] += 0.3
    treated, control = (Sample(figure=of_mean(now[x]), cluster=household[x]) for x in (arm, ~arm))
    return treated, control


def _times(draw: np.random.Generator, n: int) -> tuple[Sample, Sample]:
    def arm(rate: float) -> Sample:
        needed = draw.exponential(1 / rate, n)
        watched = draw.uniform(0, 2 * HORIZON_DAYS, n)  # assigned one by one over four weeks
        return _sample(of_restricted_time(np.minimum(needed, watched), needed <= watched, HORIZON_DAYS))

    return arm(0.06), arm(0.05)


def _sample(figure: Figure) -> Sample:
    return Sample(figure=figure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
