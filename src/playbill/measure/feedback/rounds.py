"""A loop read round by round: what it shows, whether that shrinks, and since when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from playbill.errors import MeasureError
from playbill.measure.feedback.exposure import MEASURES, check_exposures, measure_round, standard_errors
from playbill.measure.feedback.trend import CARRY, SHORTEST, falling, p_value, slope_interval, threshold
from playbill.measure.spread import gini
from playbill.measure.statement import Reading, Statement

_METHOD = "least-squares slope, its interval for noise that lasts; alarm by Mann-Kendall over all runs of rounds"


def read_rounds(
    exposures: Sequence[np.ndarray],
    *,
    diversity: Sequence[float] | np.ndarray | None = None,
    names: Sequence[str] | None = None,
    horizon: int = 20,
    carry: float = CARRY,
    min_fall: float = 0.05,
    level: float = 0.95,
    seed: int = 0,
) -> Reading:
    """Return whether the catalogue that people are shown shrinks from round to round, and the measures of every round.

    The alarm is raised after the first round at which some measure has fallen, beyond what a stable loop does by chance
    (a share `1 - level` of stable loops alarms anywhere within the horizon, over all measures together), and by at
    least `min_fall` of where the fall began. `alarm_round` returns that round.

    Args:
        exposures: one array a round, at least five rounds: [N] whole numbers, how often each item of that round's
            catalogue was shown (zeros included; the catalogue may grow), or [G, N], the same by group of people drawn
            at random (G >= 10), which gives every measure an interval.
        diversity: [R] mean intra-list diversity of each round, tracked along where given.
        names: of the rounds; their numbers from 0 where None.
        horizon: rounds that will be watched; false alarms are counted over all of them.
        carry: how much of a stable loop's wobble lasts into the next round, as a correlation, [0, 1). Higher alarms
            later; 0 supposes rounds that have nothing in common. `trend` shows what follows where it is not met.
        min_fall: smallest fall worth an alarm, relative to the value at which it began.
        level: of the intervals; 1 - level is the false-alarm rate.
        seed: of the draws that bring rounds of different size to one size.
    Returns:
        A statement a measure (its change a round, relative to the first three), the verdict, and the table `rounds`:
        besides the measures `shown` (items shown at all), `coverage` (reached items over the catalogue of that round)
        and `gini` over it.
    Raises:
        MeasureError: fewer than five rounds, counts that are none, a round without exposures, lengths that differ;
            names the round, the count and the first cells.
    """
    if len(exposures) < SHORTEST:
        raise MeasureError(
            f"a trend needs at least {SHORTEST} rounds, got {len(exposures)}; wait, or take shorter ones"
        )
    counts = check_exposures(exposures)
    rounds = len(counts)
    labels = [str(n) for n in (range(rounds) if names is None else names)]
    if len(labels) != rounds:
        raise MeasureError(f"{rounds} rounds have {len(labels)} names")
    same_size = min(int(c.sum()) for c in counts)
    largest = max(c.shape[1] for c in counts)
    values = np.array([measure_round(c.sum(0), same_size, largest, seed + r) for r, c in enumerate(counts)])
    errors = np.array([standard_errors(c, same_size, largest) for c in counts]) if len(counts[0]) > 1 else None
    tracked = {name: values[:, i] for i, name in enumerate(MEASURES)}
    if diversity is not None:
        tracked["diversity"] = _checked(diversity, rounds)
    horizon = max(horizon, rounds)
    alpha = (1 - level) / len(tracked)  # Bonferroni: the measures say much the same, so this is on the safe side
    least = threshold(alpha, horizon, carry)
    statements = [
        _statement(name, series, least, len(tracked), horizon, carry, min_fall, level)
        for name, series in tracked.items()
    ]
    return Reading(
        title=f"Does the loop narrow itself? {rounds} rounds",
        statements=statements,
        tables={"rounds": _rows(labels, counts, tracked, errors, level)},
        verdict=_verdict(statements, labels, horizon, level),
        warnings=_warnings(counts, same_size),
    )


def alarm_round(reading: Reading) -> int | None:
    """Return the number (from 0) of the round after which the alarm was raised, None where the loop looks stable."""
    raised = [s.details["alarm_round"] for s in reading.statements if s.details["alarm_round"] is not None]
    return min(raised, default=None)


def _statement(
    name: str,
    series: np.ndarray,
    least: float,
    measures: int,
    horizon: int,
    carry: float,
    min_fall: float,
    level: float,
) -> Statement:
    [z] = falling(series[None])
    alarm = next((r for r in range(len(series)) if z[r] > least and _fall(series[: r + 1])[1] >= min_fall), None)
    first = float(np.median(series[:3]))
    slope, low, high = slope_interval(series, level, carry)
    scale = 100 / first if first > 0 else 0.0
    began, fall = _fall(series if alarm is None else series[: alarm + 1])
    details: dict[str, Any] = {
        "alarm_round": alarm,
        "fall_began": None if alarm is None else began,
        "fall": fall,
        "first": float(series[0]),
        "last": float(series[-1]),
        "strongest_z": float(z.max()),
        "threshold_z": least,
        "p_value": min(1.0, measures * p_value(float(z.max()), horizon, carry)),
    }
    return Statement(
        name=f"{name.replace('_', ' ')}, change a round",
        estimate=slope * scale,
        low=low * scale,
        high=high * scale,
        level=level,
        n=len(series),
        of="rounds",
        unit="% a round",
        method=_METHOD,
        assumptions=[
            f"in a stable loop a round's noise correlates with that of the round before by at most {carry:g}",
            "for the interval: the measure changes along a straight line, and its noise is normal",
            "all rounds show the same surface to the same kind of people",
        ],
        details=details,
    )


def _fall(series: np.ndarray) -> tuple[int, float]:
    """Return since which round a series falls and by how much, relative to its level before, along the best such line.

    The line is level up to a round and straight after it, at least over `SHORTEST` rounds; least squares.
    """
    rounds = np.arange(len(series))
    best, began, fall = np.inf, 0, 0.0
    for start in range(max(1, len(series) - SHORTEST + 1)):
        since = np.maximum(0, rounds - start).astype(np.float64)
        [slope, before] = np.polyfit(since, series, 1)
        missed = float(((before + slope * since - series) ** 2).sum())
        if missed < best:
            best, began = missed, start
            fall = max(0.0, float(-slope * since[-1] / before)) if before > 0 else 0.0
    return began, fall


def _verdict(statements: list[Statement], labels: list[str], horizon: int, level: float) -> str:
    raised = [s for s in statements if s.details["alarm_round"] is not None]
    if not raised:
        return (
            f"No alarm: nothing that people are shown shrinks beyond chance over {len(labels)} rounds "
            f"(a stable loop alarms in at most {1 - level:.0%} of horizons of {horizon} rounds)."
        )
    s = min(raised, key=lambda s: (s.details["alarm_round"], -s.details["fall"]))
    name = s.name.removesuffix(", change a round")
    return (
        f"ALARM after round {labels[s.details['alarm_round']]}: {name} fell by {s.details['fall']:.0%} since round "
        f"{labels[s.details['fall_began']]}; {len(raised)} of {len(statements)} measures raise it."
    )


def _rows(
    labels: list[str],
    counts: list[np.ndarray],
    tracked: dict[str, np.ndarray],
    errors: np.ndarray | None,
    level: float,
) -> list[dict[str, Any]]:
    from scipy.stats import t

    rows: list[dict[str, Any]] = []
    for r, label in enumerate(labels):
        row: dict[str, Any] = {
            "round": label,
            "exposures": int(counts[r].sum()),
            "catalogue": counts[r].shape[1],
            "shown": int((counts[r].sum(0) > 0).sum()),
            "coverage": float(tracked["reached_items"][r] / counts[r].shape[1]),
            "gini": gini(counts[r].sum(0)),
        }
        for i, (name, series) in enumerate(tracked.items()):
            row[name] = float(series[r])
            if errors is not None and i < errors.shape[1]:
                half = float(t.ppf((1 + level) / 2, len(counts[r]) - 1) * errors[r, i])
                most = 1.0 if name == "evenness" else np.inf
                row[f"{name}_low"], row[f"{name}_high"] = max(0.0, row[name] - half), min(most, row[name] + half)
        rows.append(row)
    return rows


def _warnings(counts: list[np.ndarray], same_size: int) -> list[str]:
    most = max(int(c.sum()) for c in counts)
    if most <= 2 * same_size:
        return []
    return [
        f"rounds differ in size: from {same_size:,} to {most:,} exposures; all measures are read at "
        f"{same_size:,} exposures in every round"
    ]


def _checked(diversity: Sequence[float] | np.ndarray, rounds: int) -> np.ndarray:
    series = np.asarray(diversity, np.float64)
    if series.shape != (rounds,):
        raise MeasureError(f"diversity must have one figure a round, [{rounds}], got shape {series.shape}")
    bad = np.flatnonzero(~np.isfinite(series))
    if len(bad):
        raise MeasureError(f"diversity: {len(bad)} of {rounds} rounds are not numbers, first round {bad[0]}")
    return series
