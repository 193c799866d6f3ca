"""Statements and slices from measured sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from playbill.errors import MeasureError
from playbill.measure.bootstrap import Interval, intervals
from playbill.measure.lists.measured import Column, Measured, called, of_some_items
from playbill.measure.lists.settings import RankingQuestion
from playbill.measure.ranking import METRICS
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Statement

_BOOTSTRAP = "bootstrap over"
_JACKKNIFE = "all lists together; jackknife over"
_UNITS = {"novelty": "bits"}


def figures(
    measured: Measured, all_: list[Measured], question: RankingQuestion, settings: MeasureSettings, num_items: int
) -> list[Statement]:
    """Return a statement a metric of one source, in the order in which they are usually read."""
    suffix = f", {measured.name}" if len(all_) > 1 else ""
    statements = []
    for name, (interval, people) in _intervals(measured.ranking | measured.tastes, question, settings).items():
        of = called(measured.session[(measured.ranking | measured.tastes)[name].person])
        statements.append(_statement(name, suffix, interval, people, of, _BOOTSTRAP, settings))
    everybody = np.unique(measured.person)
    people, of = len(everybody), called(measured.session[everybody])
    for name, (value, influence) in measured.catalogue.items():
        interval = _normal(value, influence, people, settings.level)
        statements.append(_statement(name, suffix, interval, people, of, _JACKKNIFE, settings))
        if name.startswith("coverage"):
            statements[-1].details["items"] = round(value * num_items)
    return statements


def comparison(
    ours: Measured, theirs: Measured, question: RankingQuestion, settings: MeasureSettings
) -> list[Statement]:
    """Return `ours - theirs` for every metric, on the people that both measured.

    Raises:
        MeasureError: nobody has lists from both.
    """
    suffix = f", {ours.name} - {theirs.name}"
    statements = []
    left, right = ours.ranking | ours.tastes, theirs.ranking | theirs.tastes
    differences, alone = {}, {}
    for name in (n for n in left if n in right):
        both = np.intersect1d(left[name].person, right[name].person)
        if not len(both):
            raise MeasureError(
                f"{ours.name} and {theirs.name} have no people in common, so they cannot be compared in pairs; arms "
                "with different people are an experiment: question=experiment"
            )
        differences[name] = Column(both, left[name].of(both) - right[name].of(both))
        alone[name] = len(np.union1d(left[name].person, right[name].person)) - len(both)
    for name, (interval, people) in _intervals(differences, question, settings).items():
        of = called(ours.session[differences[name].person])
        statement = _statement(name, suffix, interval, people, of, f"paired {_BOOTSTRAP}", settings)
        if alone[name]:
            statement.warnings.append(f"{alone[name]:,} {of} have lists of one source only and are left out")
        statements.append(statement)
    everybody = np.union1d(ours.person, theirs.person)
    people, of = len(everybody), called(ours.session[everybody])
    for name, (value, influence) in ours.catalogue.items():
        other, against = theirs.catalogue[name]
        interval = _normal(value - other, influence - against, people, settings.level)
        statements.append(_statement(name, suffix, interval, people, of, f"paired, {_JACKKNIFE}", settings))
    for statement in statements:
        statement.unit = f"difference in {statement.unit}"
    return statements


def slice_rows(
    measured: list[Measured],
    people: Mapping[str, np.ndarray],
    items: Mapping[str, np.ndarray],
    question: RankingQuestion,
    settings: MeasureSettings,
    num_items: int,
) -> list[dict[str, Any]]:
    """Return a row a slice and source: how many people, and the metrics asked for at the first cut-off.

    Args:
        people: [P] bool by label: whose lists count.
        items: [N] bool by label: which targets count.
    """
    k = question.ks[0]
    names = [f"{metric}_at_{k}" for metric in question.slice_metrics]
    rows = []
    for found in measured:
        parts = {label: _of_people(found.ranking, names, mask) for label, mask in people.items()}
        parts |= {label: of_some_items(found, mask, k, num_items) for label, mask in items.items()}
        for label, columns in parts.items():
            row: dict[str, Any] = {"slice": label}
            if len(measured) > 1:
                row["lists"] = found.name
            kept = {name: columns[name] for name in names} if columns else {}
            row["people"] = len(kept[names[0]].person) if kept else 0
            known = _intervals(kept, question, settings)
            for name in names:
                interval = known[name][0] if name in known else None
                row[name] = None if interval is None else interval.value
                row[f"{name}_low"] = None if interval is None else interval.low
                row[f"{name}_high"] = None if interval is None else interval.high
            rows.append(row)
    return rows


def _of_people(columns: dict[str, Column], names: list[str], mask: np.ndarray) -> dict[str, Column]:
    inside = mask[columns[names[0]].person]
    if not inside.any():
        return {}
    return {name: Column(columns[name].person[inside], columns[name].values[inside]) for name in names}


def _intervals(
    columns: Mapping[str, Column], question: RankingQuestion, settings: MeasureSettings
) -> dict[str, tuple[Interval, int]]:
    """Return interval and number of people by name; columns of one set of people share their draws."""
    found: dict[str, tuple[Interval, int]] = {}
    groups: dict[bytes, list[str]] = {}
    for name, column in columns.items():
        groups.setdefault(column.person.tobytes(), []).append(name)
    for names in groups.values():
        values = {name: columns[name].values for name in names}
        drawn = intervals(values, resamples=question.resamples, seed=settings.seed, level=settings.level)
        found |= {name: (drawn[name], len(columns[name].person)) for name in names}
    return {name: found[name] for name in columns}


def _normal(value: float, influence: np.ndarray, people: int, level: float) -> Interval:
    from scipy.stats import norm

    # people without a list contribute nothing; centred over those who have one
    spread = (influence**2).sum() - influence.sum() ** 2 / people
    half = float(norm.ppf((1 + level) / 2) * np.sqrt(max(spread, 0.0)))
    return Interval(value=value, low=value - half, high=value + half)


def _statement(
    name: str, suffix: str, interval: Interval, people: int, of: str, method: str, settings: MeasureSettings
) -> Statement:
    metric = name.partition("_at_")[0]
    assumptions = [f"{of} are independent of each other, and those measured stand for those who will be served"]
    if metric in METRICS:
        assumptions.append("people would have done the same whatever lists they had seen")
    return Statement(
        name=name.replace("_", " ") + suffix,
        estimate=interval.value,
        low=interval.low,
        high=interval.high,
        level=settings.level,
        n=people,
        of=of,
        unit=_UNITS.get(metric, "share"),
        method=f"{method} {of}",
        assumptions=assumptions,
    )
