"""Two windows, column by column, with one error rate for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from playbill.errors import MeasureError
from playbill.measure.drift.distance import Distance, Kind, Sample, check_sample, distance
from playbill.measure.drift.settings import Control
from playbill.measure.many import benjamini_hochberg, holm
from playbill.measure.statement import Reading, Statement

_METHODS = {
    Kind.NUMBER: "Kolmogorov-Smirnov distance",
    Kind.CATEGORY: "total variation distance",
    Kind.RATE: "difference of rates",
}


@dataclass(slots=True)
class Pair:
    """One column in both windows.

    Attributes:
        name: such as `users.age`.
        role: feature, score or outcome.
        kind: how it is compared.
        before, after: its rows.
    """

    name: str
    role: str
    kind: Kind
    before: Sample
    after: Sample


def compare_windows(
    pairs: Sequence[Pair],
    *,
    control: Control = Control.HOLM,
    min_distance: float = 0.05,
    min_change: float = 0.05,
    min_people: int = 100,
    level: float = 0.95,
    resamples: int = 1999,
    seed: int = 0,
) -> Reading:
    """Return the drift of every column, and an alarm for those whose change is beyond chance and large enough.

    Args:
        pairs: the columns.
        control: HOLM keeps the share of readings of one process with any alarm at 1 - level; FDR the share of alarms
            that are false.
        min_distance, min_change: see `DriftQuestion`.
        min_people: columns with fewer people in a window are refused.
        level, resamples, seed: see `distance`; more resamples are drawn where so many columns need them.
    Raises:
        MeasureError: no columns, a window without rows.
    """
    if not pairs:
        raise MeasureError("no column to compare: name some as question.columns, or give both windows the same tables")
    for pair in pairs:
        for window, sample in (("before", pair.before), ("after", pair.after)):
            check_sample(f"{pair.name}, {window}", sample)
    few = {p.name: _too_few(p, min_people) for p in pairs}
    asked = [p for p in pairs if not few[p.name]]
    # the smallest p value must be able to pass the strictest step
    resamples = max(resamples, int(2 * len(asked) / (1 - level)))
    found = [distance(p.kind, p.before, p.after, level=level, resamples=resamples, seed=seed) for p in asked]
    adjust = holm if control is Control.HOLM else benjamini_hochberg
    adjusted = adjust(np.array([d.p_value for d in found], np.float64))
    known = {
        p.name: _statement(p, d, float(a), min_distance, min_change, level)
        for p, d, a in zip(asked, found, adjusted, strict=True)
    }
    statements = [known[p.name] if p.name in known else _refused(p, few[p.name]) for p in pairs]
    statements.sort(key=lambda s: (not s.details.get("alarm", False), s.estimate is None))
    moved = {p.name: _moved(p, d) for p, d in zip(asked, found, strict=True)}
    alarms = [s for s in statements if s.details.get("alarm")]
    return Reading(
        title=f"What changed between the windows? {len(pairs)} columns",
        statements=statements,
        tables={"cells of the alarms": [row for s in alarms for row in moved[s.name]]} if alarms else {},
        verdict=_verdict(alarms, len(asked), control, level),
    )


def _statement(
    pair: Pair, found: Distance, adjusted: float, min_distance: float, min_change: float, level: float
) -> Statement:
    details: dict[str, Any] = {"role": pair.role, "p_value": found.p_value, "adjusted_p_value": adjusted}
    estimate, low, high = found.value, max(0.0, found.value - found.half), min(1.0, found.value + found.half)
    if pair.kind is Kind.RATE:
        before, after = float(found.before[1]), float(found.after[1])
        estimate = after - before
        low, high = estimate - found.half, estimate + found.half
        change = abs(estimate) / before if before else (np.inf if after else 0.0)
        details |= {"before": before, "after": after, "relative_change": change}
        large = change >= min_change
    else:
        details["psi"] = found.psi
        if pair.kind is Kind.NUMBER:
            details |= _moments(pair)
        large = found.value >= min_distance
    significant = adjusted <= 1 - level
    details["alarm"] = bool(significant and large)
    warnings = []
    if significant and not large:
        warnings.append("beyond chance, but smaller than what is worth an alarm")
    return Statement(
        name=pair.name,
        estimate=estimate,
        low=low,
        high=high,
        level=level,
        n=_people(pair.before, pair.after),
        unit="difference of rates" if pair.kind is Kind.RATE else "distance",
        method=f"{_METHODS[pair.kind]}, wild bootstrap over people, adjusted p = {adjusted:.3g}"
        + (", ALARM" if details["alarm"] else ""),
        assumptions=["people are independent of each other, and nothing but drift tells the days of the windows apart"],
        warnings=warnings,
        details=details,
    )


def _moments(pair: Pair) -> dict[str, float]:
    from scipy.stats import wasserstein_distance

    every = [np.asarray(s.values) for s in (pair.before, pair.after)]
    known = [v[~np.isnan(v)] for v in every]
    if not all(len(v) for v in known):
        return {}
    spread = float(np.std(np.concatenate(known)))
    apart = float(wasserstein_distance(*known))
    return {
        "before_mean": float(known[0].mean()),
        "after_mean": float(known[1].mean()),
        "wasserstein_sd": apart / spread if spread > 0 else 0.0,
        "before_missing": float(np.isnan(every[0]).mean()),
        "after_missing": float(np.isnan(every[1]).mean()),
    }


def _moved(pair: Pair, found: Distance) -> list[dict[str, Any]]:
    """Return the five cells whose share changed most."""
    order = np.argsort(-np.abs(found.after - found.before), kind="stable")[:5]
    return [
        {"column": pair.name, "cell": found.cells[c], "before": float(found.before[c]), "after": float(found.after[c])}
        for c in order
        if found.after[c] != found.before[c]
    ]


def _too_few(pair: Pair, min_people: int) -> str:
    people = [_people(s) for s in (pair.before, pair.after)]
    if min(people) >= min_people:
        return ""
    return f"only {people[0]:,} people before and {people[1]:,} after; needs {min_people:,} in each (min_people)"


def _people(*samples: Sample) -> int:
    """Return how many different people stand in any of these; their codes are small, so nothing need be sorted."""
    there = np.zeros(max(int(s.person.max()) for s in samples) + 1, bool)
    for s in samples:
        there[s.person] = True
    return int(there.sum())


def _refused(pair: Pair, why: str) -> Statement:
    return Statement(
        name=pair.name,
        estimate=None,
        n=_people(pair.before, pair.after),
        unit="distance",
        method=_METHODS[pair.kind],
        refused=why,
        details={"role": pair.role},
    )


def _verdict(alarms: list[Statement], columns: int, control: Control, level: float) -> str:
    rate = (
        f"two windows of one process alarm in at most {1 - level:.0%} of readings"
        if control is Control.HOLM
        else f"at most {1 - level:.0%} of alarms are false"
    )
    if not alarms:
        return f"No alarm: none of {columns} columns changed beyond chance by enough to matter ({rate})."
    return f"ALARM: {len(alarms)} of {columns} columns drifted: {', '.join(s.name for s in alarms)} ({rate})."
