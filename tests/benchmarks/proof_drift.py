"""How often drift and feedback alarms are false, and what they find.

    python tests/benchmarks/proof_drift.py [seeds=600]

Drift: two windows of one process, eight columns of every kind, rows of a person alike, most people in both windows; the
same with windows of unequal length; then one column shifted. Feedback: loops of 20 rounds that are stable (with and
without noise that lasts from round to round) and loops whose catalogue shrinks. No minimum size of an effect is asked
for where false alarms are counted, so that the statistics alone answer for them.
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

PEOPLE = 600
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
    loops = [(0.0, 0.0), (0.0, 0.3), (0.0, 0.6), (0.01, 0.3), (0.02, 0.3), (0.03, 0.3), (0.05, 0.3)]
    figures["feedback"] = {
        f"catalogue -{fall:.0%} a round, wobble {wobble:g}": loop_alarms(few if fall else seeds, fall, wobble)
        for fall, wobble in loops
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


def rounds(
    seed: int, fall: float, wobble: float, *, items: int = 500, people: int = 200, k: int = 10
) -> list[np.ndarray]:
    """Return the exposures of 20 rounds: lists drawn by attraction from a catalogue that loses a share a round.

    Args:
        fall: share of the items lost a round.
        wobble: sd of an item's attraction between rounds, half of it (as a correlation) lasting into the next.
    """
    draw = np.random.default_rng(seed)
    attraction, noise = np.log(1 / np.arange(1, items + 1) ** 0.6), draw.normal(size=items)
    exposures = []
    for r in range(20):
        noise = 0.5 * noise + np.sqrt(0.75) * draw.normal(size=items)
        score = attraction + wobble * noise + draw.gumbel(size=(people, items))
        score[:, int(items * (1 - fall) ** r) :] = -np.inf
        shown = np.argpartition(-score, k, axis=1)[:, :k]
        exposures.append(np.bincount(shown.ravel(), minlength=items))
    return exposures


def loop_alarms(seeds: int, fall: float, wobble: float) -> dict[str, Any]:
    """Return the share of loops with an alarm within 20 rounds, and after which round the median alarm came."""
    label = f"loops -{fall:.0%}, wobble {wobble:g}"
    min_fall = 0.05 if fall else 0.0
    raised = [
        alarm_round(read_rounds(rounds(seed, fall, wobble), min_fall=min_fall))
        for seed in track(range(seeds), description=label)
    ]
    after = [r + 1 for r in raised if r is not None]
    share = len(after) / seeds
    return {
        "alarm": share,
        "se": round(float(np.sqrt(share * (1 - share) / seeds)), 4),
        "median_rounds_until": float(np.median(after)) if after else None,
    }


def _print(figures: dict[str, Any]) -> None:
    for theme in ("drift_false_alarms", "drift_power", "feedback"):
        print(f"\n{theme}")
        for label, found in figures[theme].items():
            print(f"  {label:42}" + "  ".join(f"{k} {v}" for k, v in found.items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
