"""`playbill measure question=disparity`: who gets less, of what, by how much, and what could not be judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from playbill.errors import MeasureError
from playbill.measure.disparity.groups import read_groups
from playbill.measure.disparity.items import ELIGIBLE, item_exposure
from playbill.measure.disparity.log import Got, read_got
from playbill.measure.disparity.parity import Comparison, Family, compare, correct
from playbill.measure.disparity.settings import Correction, DisparityQuestion, Measure
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Reading, Statement

_METHOD = "difference of ratios over people, errors clustered by person"
_ASSUMED = [
    "people answer independently of each other; what one person is shown and does may hang together in any way",
    "the difference is a fact about this log: it does not say what caused it",
]
_ASSUMED_ITEMS = [
    "every item that was published by a day and not marked unavailable was eligible on it, for everybody",
]
_ON_ITS_OWN = 1  # columns in a family whose groups each get a statement; intersections do when they are flagged


def run(question: DisparityQuestion, tables: Path, settings: MeasureSettings) -> Reading:
    """Answer the question from a folder of tables.

    Raises:
        MeasureError: the log cannot be audited; names column, count and first rows.
        TableError: a table or column is missing.
    """
    wanted = question.measures or list(Measure)
    about_people = [m for m in wanted if m is not Measure.ITEM_EXPOSURE]
    warnings: list[str] = []
    got: list[Got] = []
    families: list[Family] = []
    if about_people:
        user_id, families, warnings = read_groups(question, tables)
        for measure in about_people:
            one, found = read_got(question, tables, user_id, measure)
            if one.missing and question.measures:
                raise MeasureError(f"{measure.value} cannot be measured: {one.missing}")
            if not one.missing:
                got.append(one)
                warnings += found
    shown: list[Comparison] = []
    if Measure.ITEM_EXPOSURE in wanted:
        shown, found, missing = item_exposure(question, tables, settings.level)
        if missing and question.measures:
            raise MeasureError(f"item_exposure cannot be measured: {missing}")
        warnings += found
    comparisons = audit(got, families, question, settings.level, shown)
    if not comparisons:
        raise MeasureError(
            f"{tables} holds nothing that could be compared: no decisions and no {question.event} events"
        )
    units = {one.name: one.unit for one in got}
    statements = [
        _statement(c, units.get(c.measure, "share of impressions"), question, settings.level)
        for c in comparisons
        if c.flagged or c.family.count(" & ") < _ON_ITS_OWN
    ]
    return Reading(
        title=f"disparity between groups of {', '.join(f.name for f in families) or question.item_column}",
        statements=statements,
        tables={"all comparisons": [_row(c) for c in comparisons], "groups": _groups(families)},
        verdict=verdict(comparisons, question, settings.level),
        warnings=list(dict.fromkeys(warnings)),
    )


def audit(
    got: Sequence[Got],
    families: Sequence[Family],
    question: DisparityQuestion,
    level: float,
    shown: Sequence[Comparison] = (),
) -> list[Comparison]:
    """Return every comparison of every measure in every family, corrected together for their number.

    Args:
        got: measures over the same P people.
        families: of groups over these people.
        question: names the correction and its rate.
        level: of the intervals.
        shown: comparisons of groups of items, which the correction counts and the result ends with.
    """
    comparisons = [
        c
        for one in got
        for family in families
        for c in compare(
            one.name,
            family,
            one.total,
            one.count,
            min_people=question.min_people,
            level=level,
            least_expected=one.least_expected,
        )
    ]
    comparisons += shown
    correct(comparisons, question.correction, question.false_alarms)
    return comparisons


def verdict(comparisons: Sequence[Comparison], question: DisparityQuestion, level: float) -> str:
    """Return in words how many comparisons differ, and the widest of them."""
    judged = [c for c in comparisons if c.p_value is not None]
    flagged = [c for c in judged if c.flagged]
    left = len(comparisons) - len(judged)
    name = "Holm" if question.correction is Correction.HOLM else "Benjamini-Hochberg"
    about = f"{name} over all of them, {question.false_alarms:.0%}"
    if question.false_alarms < 1 - level - 1e-9:
        about += f": a margin, so that {1 - level:.0%} holds with errors that are estimated"
    unjudged = f" {left} could not be judged." if left else ""
    if not flagged:
        return f"None of {len(judged)} comparisons differs ({about}).{unjudged}"
    worst = min(flagged, key=lambda c: (c.p_value or 0.0, -abs(c.difference or 0.0)))
    ratio = "" if worst.ratio is None else f", {worst.ratio:.3f} times [{worst.ratio_low:.3f}, {worst.ratio_high:.3f}]"
    return (
        f"{len(flagged)} of {len(judged)} comparisons differ ({about}). The surest: {worst.measure}, "
        f"{worst.group} {worst.rate:.4g} against {worst.reference} {worst.reference_rate:.4g}{ratio}.{unjudged}"
    )


def _statement(c: Comparison, unit: str, question: DisparityQuestion, level: float) -> Statement:
    items = c.reference == ELIGIBLE
    return Statement(
        name=f"{c.measure}, {c.group} - {c.reference}",
        estimate=c.difference,
        low=c.low,
        high=c.high,
        level=level,
        n=c.people,
        of="people or sessions" if items else "people",
        unit=unit,
        method=_METHOD,
        assumptions=[_ASSUMED[0], *_ASSUMED_ITEMS] if items else _ASSUMED,
        warnings=[f"differs after correction for the number of comparisons: p = {c.adjusted:.2g}"] if c.flagged else [],
        refused=c.not_judged,
        details={
            name: value
            for name, value in asdict(c).items()
            if name not in ("measure", "family", "difference", "low", "high", "not_judged") and value is not None
        },
    )


def _row(c: Comparison) -> dict[str, Any]:
    return {
        "measure": c.measure,
        "group": c.group,
        "people": c.people,
        "opportunities a person": c.opportunities / c.people if c.people else None,
        "figure": c.rate,
        "reference": c.reference,
        "its figure": c.reference_rate,
        "ratio": c.ratio,
        "low": c.ratio_low,
        "high": c.ratio_high,
        "p": c.p_value,
        "p corrected": c.adjusted,
        "finding": c.not_judged or ("differs" if c.flagged else ""),
    }


def _groups(families: Sequence[Family]) -> list[dict[str, Any]]:
    return [
        {"group": name, "people": int(count), "reference": g == family.reference}
        for family in families
        for g, (name, count) in enumerate(
            zip(family.groups, np.bincount(family.code[family.code >= 0], minlength=len(family.groups)), strict=True)
        )
    ]
