"""How often drift and feedback alarms are false, and what they find.

    python tests/benchmarks/proof_drift.py [seeds=600]

Drift: two windows of one process, eight columns of every kind, rows of a person alike, most people in both windows; the
same with windows of unequal length; then one column shifted. Feedback: the alarm's statistic and the interval of the
slope where noise lasts from round to round by less and by more than is declared; loops of 20 rounds that are stable,
with noise that lasts so long; and loops whose catalogue shrinks. No minimum size of an effect is asked for where false
alarms are counted, so that the statistics alone answer for them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record

from playbill.measure.drift.compare import Pair, compare_windows
from playbill.measure.drift.distance import Kind, Sample
from playbill.measure.feedback import alarm_round, read_rounds
from playbill.measure.feedback.trend import CARRY, falling, slope_interval, threshold

PEOPLE = 600
CARRIES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9)
KINDS = {
    "score": Kind.NUMBER, "price": Kind.NUMBER, "count": Kind.NUMBER, "age": Kind.NUMBER, "events": Kind.NUMBER,
    "category": Kind.CATEGORY, "device": Kind.CATEGORY, "click": Kind.RATE,
}  # fmt: skip


def main(arguments: list[str]) -> int:
    """Simulate, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    seeds = int(given.get("seeds", 600))
    started = machine()
    began = time.perf_counter()
    figures: dict[str, Any] = {"seeds": seeds, "seeds_of_shifts": max(1, seeds // 6), "people": PEOPLE}
    figures["drift_false_alarms"] = {
        "equal windows": drift_alarms(seeds),
        "windows of 3 to 1": drift_alarms(seeds, unequal=True),
    }
    few = max(1, seeds // 6)
    figures["drift_power"] = (
        {f"score +{x} sd": drift_alarms(few, score=x, min_distance=0.05) for x in (0.1, 0.2, 0.4)}
        | {f"click rate x {1 + x:g}": drift_alarms(few, click=x, min_distance=0.05) for x in (0.2, 0.4, 0.8)}
        | {f"device of {x:.0%} of rows": drift_alarms(few, device=x, min_distance=0.05) for x in (0.05, 0.1)}
    )
    figures["declared_carry"] = CARRY
    figures["feedback_statistic"] = {f"true carry {carry:g}": of_series(carry) for carry in CARRIES}
    third = max(1, seeds // 3)
    figures["seeds_of_stable_loops"] = third
    figures["feedback"] = {
        f"stable, wobble {wobble:g}, carry {carry:g}": loop_alarms(third, 0.0, wobble, carry)
        for wobble, carry in [(0.0, 0.0), (0.3, 0.7), *((0.6, carry) for carry in (0.0, 0.5, 0.7, 0.9))]
    } | {
        f"catalogue -{fall:.0%} a round, wobble 0.3, carry 0.7": loop_alarms(few, fall, 0.3, 0.7)
        for fall in (0.01, 0.02, 0.03, 0.05)
    }
    figures["took_s"] = round(time.perf_counter() - began, 1)
    _print(figures)
    print(f"written to {record('drift', figures, started)}")
    return 0


def windows(
    seed: int,
    *,
    people: int = PEOPLE,
    unequal: bool = False,
    score: float = 0.0,
    click: float = 0.0,
    device: float = 0.0,
) -> list[Pair]:
    """Return two windows of a shop whose people differ from each other in taste and, heavily, in activity.

    Args:
        score: shift of the score after, standard deviations.
        click: relative rise of the click rate after.
        device: share of rows that change device after.
    """
    draw = np.random.default_rng(seed)
    taste, activity = draw.normal(size=people), draw.gamma(0.7, 4.0, people)
    favourite = draw.integers(0, 30, people)
    found: list[dict[str, Sample]] = []
    for after in (False, True):
        number = draw.poisson(activity * (3 if unequal and not after else 1))
        who = np.repeat(np.arange(people), number)
        size, there = len(who), np.flatnonzero(number)
        # the last column moves by a sd of the whole, which is that of taste and noise together
        value = taste[who] + draw.normal(size=size) * 0.5 + after * score * np.sqrt(1.25)
        price = np.where(draw.random(size) < 0.1, np.nan, np.exp(1.5 * taste[who] + draw.normal(size=size)))
        shelf = np.where(draw.random(size) < 0.6, favourite[who], draw.integers(0, 30, size))
        phone = draw.random(size) < 0.3 + 0.3 * (taste[who] > 0) + after * device
        clicked = draw.random(size) < np.minimum(0.05 * np.exp(0.5 * taste[who]) * (1 + after * click), 1)
        found.append(
            {
                "score": Sample(value, who),
                "price": Sample(price, who),
                "count": Sample(np.minimum(draw.poisson(1.5 + (taste[who] > 0)), 12).astype(float), who),
                "age": Sample(taste[there], there),
                "events": Sample(number[there].astype(float), there),
                "category": Sample(np.char.add("c", shelf.astype(str)).astype(object), who),
                "device": Sample(np.where(phone, "phone", "web").astype(object), who),
                "click": Sample(clicked.astype(float), who),
            }
        )
    names = [n for n in KINDS if not (unequal and n == "events")]
    return [Pair(n, "feature", KINDS[n], found[0][n], found[1][n]) for n in names]


def drift_alarms(seeds: int, *, min_distance: float = 0.0, **change: Any) -> dict[str, float]:
    """Return the share of readings with any alarm, with its standard error, and the share of alarms a column."""
    raised: dict[str, int] = dict.fromkeys(KINDS, 0)
    readings = 0
    for seed in track(range(seeds), description=f"drift {change or ''}"):
        reading = compare_windows(
            windows(seed, **change), min_distance=min_distance, min_change=min_distance, resamples=999, seed=seed
        )
        alarms = [s.name for s in reading.statements if s.details["alarm"]]
        readings += bool(alarms)
        for name in alarms:
            raised[name] += 1
    share = readings / seeds
    error = round(float(np.sqrt(share * (1 - share) / seeds)), 4)
    return {"any alarm": share, "se": error} | {n: round(r / seeds, 4) for n, r in raised.items() if r}


def of_series(carry: float, loops: int = 10_000) -> dict[str, float]:
    """Return what the statistics do with noise of this carry and nothing else, one measure at a time.

    The share of series of 20 rounds with an alarm at 5 %, at the default carry and at 0.5, and the share of 95 %
    intervals of the slope over 20, 10 and 5 rounds that hold 0.
    """
    noise = np.random.default_rng(11).normal(size=(loops, 20))
    for r in range(1, 20):
        noise[:, r] = carry * noise[:, r - 1] + np.sqrt(1 - carry**2) * noise[:, r]
    evidence = falling(noise).max(1)
    found = {
        f"alarms, declared {declared:g}": round(float((evidence > threshold(0.05, 20, declared)).mean()), 4)
        for declared in (0.5, CARRY)
    }
    for length in (20, 10, 5):
        ends = [slope_interval(series[:length], 0.95, CARRY)[1:] for series in noise[:4000]]
        found[f"slope covered, {length} rounds"] = round(float(np.mean([low <= 0 <= high for low, high in ends])), 4)
    return found


def rounds(
    seed: int, fall: float, wobble: float, carry: float, *, items: int = 500, people: int = 200, k: int = 10
) -> list[np.ndarray]:
    """Return the exposures of 20 rounds: lists drawn by attraction from a catalogue that loses a share a round.

    Args:
        fall: share of the items lost a round.
        wobble: sd of an item's attraction between rounds.
        carry: how much of it lasts into the next round, as a correlation.
    """
    draw = np.random.default_rng(seed)
    attraction, noise = np.log(1 / np.arange(1, items + 1) ** 0.6), draw.normal(size=items)
    exposures = []
    for r in range(20):
        noise = carry * noise + np.sqrt(1 - carry**2) * draw.normal(size=items)
        score = attraction + wobble * noise + draw.gumbel(size=(people, items))
        score[:, int(items * (1 - fall) ** r) :] = -np.inf
        shown = np.argpartition(-score, k, axis=1)[:, :k]
        exposures.append(np.bincount(shown.ravel(), minlength=items))
    return exposures


def loop_alarms(seeds: int, fall: float, wobble: float, carry: float) -> dict[str, Any]:
    """Return the share of loops with an alarm within 20 rounds, and after how many the median and the last one came."""
    label = f"loops -{fall:.0%}, wobble {wobble:g}, carry {carry:g}"
    min_fall = 0.05 if fall else 0.0
    raised = [
        alarm_round(read_rounds(rounds(seed, fall, wobble, carry), min_fall=min_fall))
        for seed in track(range(seeds), description=label)
    ]
    after = [r + 1 for r in raised if r is not None]
    share = len(after) / seeds
    return {
        "alarm": share,
        "se": round(float(np.sqrt(share * (1 - share) / seeds)), 4),
        "median_rounds_until": float(np.median(after)) if after else None,
        "most_rounds_until": max(after, default=None),
    }


def _print(figures: dict[str, Any]) -> None:
    for theme in ("drift_false_alarms", "drift_power", "feedback_statistic", "feedback"):
        print(f"\n{theme}")
        for label, found in figures[theme].items():
            print(f"  {label:42}" + "  ".join(f"{k} {v}" for k, v in found.items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
