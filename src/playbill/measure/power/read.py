"""`playbill measure question=power`: people, days and effects of a test that has not begun."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec

from playbill.errors import MeasureError
from playbill.measure.power.plan import (
    Design,
    effect_found,
    people_needed,
    power_with,
    price_of,
    rate_after,
    rate_effect_size,
)
from playbill.measure.power.settings import PowerQuestion
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Reading, Statement

_MONTH = 28  # days in four whole weeks
_FEW = 30  # people an arm, below which no curve can be trusted


def run(question: PowerQuestion, tables: Path, settings: MeasureSettings) -> Reading:
    """Return the plan: how many people and days an effect needs, or which effect the people find.

    Args:
        question: the metric, the effect or the people, and how the test is built.
        tables: not read.
        settings: level is that of the test.
    Raises:
        MeasureError: no effect, or so few people that no rate of the treatment would be found.
    """
    design = design_of(question, settings.level)
    people = question.people or people_needed(_size(question, question.effect), design, rate=_rate(question))
    statements = _found(question, design, people) if question.people else [_needed(question, design, people, settings)]
    if question.daily_people:
        statements.append(_days(question, people, settings.level))
    reading = Reading(
        title=f"Power: {_metric(question)}, {len(question.shares)} arms, level {settings.level:g}",
        statements=statements,
        tables={
            "arms": _arms(question, people),
            "what each choice costs": _choices(question, settings.level),
            "effects and people": _effects(question, design),
        },
        verdict=_verdict(question, people, statements),
        warnings=_warnings(question, people),
    )
    return reading


def design_of(question: PowerQuestion, level: float) -> Design:
    """Return the design that the question describes; the level is divided by all comparisons."""
    return Design(
        shares=tuple(question.shares),
        alpha=(1 - level) / comparisons(question),
        power=question.power,
        factor=_cuped(question) * _clusters(question),
        sequential=question.sequential,
    )


def comparisons(question: PowerQuestion) -> int:
    """Return how many comparisons may each decide the test: metrics times treatment arms."""
    return question.metrics * (len(question.shares) - 1)


def _needed(question: PowerQuestion, design: Design, people: int, settings: MeasureSettings) -> Statement:
    return Statement(
        name="people needed",
        estimate=float(people),
        level=settings.level,
        n=people,
        unit="people",
        method=_method(question),
        assumptions=_assumptions(question),
        details={
            "effect": question.effect,
            "alpha_of_one_comparison": design.alpha,
            "people_on_average": people * price_of(design).on_average / price_of(design).at_most,
        },
    )


def _found(question: PowerQuestion, design: Design, people: int) -> list[Statement]:
    size = effect_found(people, design, rate=_rate(question))
    if _rate(question) and size >= rate_effect_size(question.baseline, 1.0):
        least = people_needed(rate_effect_size(question.baseline, 1.0), design, rate=True)
        raise MeasureError(
            f"{people:,} people find no effect on a rate of {question.baseline:g}: even a rate of 1 would take "
            f"{least:,} of them to be found in {question.power:.0%} of tests"
        )
    effect = _effect(question, size)
    common: dict[str, Any] = {"n": people, "method": _method(question), "assumptions": _assumptions(question)}
    statements = [
        Statement(
            name="smallest effect found",
            estimate=effect,
            unit="of the rate" if _rate(question) else "of the mean",
            details={"relative": effect / question.baseline if question.baseline else None},
            **common,
        )
    ]
    if question.effect:
        power = power_with(people, _size(question, question.effect), design, rate=_rate(question))
        name = f"power for an effect of {question.effect:.4g}"
        statements.append(Statement(name=name, estimate=power, unit="probability", **common))
    return statements


def _days(question: PowerQuestion, people: int, level: float) -> Statement:
    daily = question.daily_people * sum(question.shares)
    days = math.ceil(people / daily)
    return Statement(
        name="days",
        estimate=float(days),
        level=level,
        n=people,
        unit="days",
        method=f"{daily:g} new people a day in the arms",
        assumptions=["people who come back are counted once, on their first day"],
        details={"whole_weeks": math.ceil(days / 7)},
    )


def _arms(question: PowerQuestion, people: int) -> list[dict[str, Any]]:
    whole = sum(question.shares)
    names = ["control", *(f"treatment {i}" for i in range(1, len(question.shares)))]
    return [
        {"arm": name, "share": share, "people": math.ceil(people * share / whole)}
        for name, share in zip(names, question.shares, strict=True)
    ]


def _choices(question: PowerQuestion, level: float) -> list[dict[str, Any]]:
    """Return the plan built up choice by choice, with what each multiplies the people by."""
    effect = question.effect or _effect(
        question, effect_found(question.people, design_of(question, level), rate=_rate(question))
    )
    size = _size(question, effect)
    design = Design(shares=(0.5, 0.5), alpha=1 - level, power=question.power)
    steps = [("two equal arms, one metric, read once", design)]
    for what, changed in (
        (f"arms {', '.join(f'{s:g}' for s in question.shares)}", {"shares": tuple(question.shares)}),
        (
            f"{comparisons(question)} comparisons, each at its part of the level",
            {"alpha": (1 - level) / comparisons(question)},
        ),
        (f"CUPED with a correlation of {question.cuped_correlation:g}", {"factor": _cuped(question)}),
        (
            f"clusters of {question.cluster_size:g} with a correlation of {question.cluster_correlation:g}",
            {"factor": _cuped(question) * _clusters(question)},
        ),
        ("read on the way", {"sequential": question.sequential}),
    ):
        after = msgspec.structs.replace(steps[-1][1], **changed)
        if after != steps[-1][1]:
            steps.append((what, after))
    rows: list[dict[str, Any]] = []
    for what, step in steps:
        people = people_needed(size, step, rate=_rate(question))
        times = people / rows[-1]["people"] if rows else None
        rows.append({"choice": what, "people": people, "times": times})
        if step.sequential:
            price = price_of(step)
            stopped = math.ceil(people * price.on_average / price.at_most)
            rows.append({"choice": "  on average, where that effect is real", "people": stopped, "times": None})
    return rows


def _effects(question: PowerQuestion, design: Design) -> list[dict[str, Any]]:
    effect = question.effect or _effect(question, effect_found(question.people, design, rate=_rate(question)))
    rows = []
    for part in (0.5, 0.75, 1.0, 1.5, 2.0):
        if _rate(question) and not 0 < question.baseline + part * effect < 1:
            continue
        people = people_needed(_size(question, part * effect), design, rate=_rate(question))
        row: dict[str, Any] = {"effect": part * effect, "people": people}
        if question.baseline:
            row["relative"] = part * effect / question.baseline
        if question.daily_people:
            row["days"] = math.ceil(people / question.daily_people / sum(question.shares))
        rows.append(row)
    return rows


def _verdict(question: PowerQuestion, people: int, statements: list[Statement]) -> str:
    days = next((f", {s.estimate:.0f} days" for s in statements if s.name == "days" and s.estimate), "")
    if question.people:
        found = statements[0]
        relative = found.details["relative"]
        part = f" ({relative:.1%} of the baseline)" if relative is not None else ""
        return f"{people:,} people{days} find an effect of {found.estimate:.4g}{part} in {question.power:.0%} of tests."
    return (
        f"{people:,} people{days} find an effect of {question.effect:.4g} in {question.power:.0%} of tests; "
        "half that effect needs four times as many."
    )


def _warnings(question: PowerQuestion, people: int) -> list[str]:
    warnings = []
    smallest = people * min(question.shares) / sum(question.shares)
    events = smallest * min(question.baseline, 1 - question.baseline) if _rate(question) else math.inf
    if smallest < _FEW or events < 10:
        warnings.append(
            f"the smallest arm, {smallest:,.0f} people, is too small for a normal curve: treat the figures as a lower "
            "bound"
        )
    if question.daily_people:
        days = people / question.daily_people / sum(question.shares)
        if days < 7:
            warnings.append("less than a week: let it run for whole weeks, weekdays differ")
        elif days > _MONTH:
            warnings.append(
                f"more than four weeks: cookies are lost and seasons change; a larger effect, CUPED or a metric closer "
                f"to what is tested needs fewer people than {people:,}"
            )
    if question.cluster_size > 1 and not question.cluster_correlation:
        warnings.append(
            "cluster_size without cluster_correlation changes nothing; measure the correlation, 0.05 is common"
        )
    return warnings


def _method(question: PowerQuestion) -> str:
    curve = "two-sided z on arcsine-transformed rates" if _rate(question) else "two-sided t"
    read = ", always-valid reading" if question.sequential else ""
    return f"{curve}, Bonferroni over {comparisons(question)}{read}" if comparisons(question) > 1 else curve + read


def _assumptions(question: PowerQuestion) -> list[str]:
    said = ["the baseline and its spread stay what they were", "each person counts once, in the arm first assigned"]
    if question.cuped_correlation:
        said.append("the test is read with CUPED, and the correlation holds for new people too")
    if question.cluster_size > 1:
        said.append("whole clusters are assigned, and errors are clustered when the test is read")
    if question.sequential:
        said.append(
            "planned_n of the always-valid intervals is the number of people given here, shares those of the arms"
        )
    return said


def _metric(question: PowerQuestion) -> str:
    if _rate(question):
        return f"a rate of {question.baseline:g}"
    return f"a mean of {question.baseline:g} with standard deviation {question.standard_deviation:g}"


def _rate(question: PowerQuestion) -> bool:
    return question.standard_deviation == 0


def _size(question: PowerQuestion, effect: float) -> float:
    if _rate(question):
        return rate_effect_size(question.baseline, question.baseline + effect)
    return effect / question.standard_deviation


def _effect(question: PowerQuestion, size: float) -> float:
    if _rate(question):
        return rate_after(question.baseline, size) - question.baseline
    return size * question.standard_deviation


def _cuped(question: PowerQuestion) -> float:
    return 1 - question.cuped_correlation**2


def _clusters(question: PowerQuestion) -> float:
    return 1 + (question.cluster_size - 1) * question.cluster_correlation
