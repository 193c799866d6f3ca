"""Statements of an off-policy reading: a figure an estimator, the finite-sample bound, and values of whole slates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from playbill.errors import MeasureError
from playbill.measure.off_policy.estimators import Contributions, ips
from playbill.measure.off_policy.intervals import ValueInterval, bootstrap_intervals, value_bound
from playbill.measure.off_policy.log import Log
from playbill.measure.off_policy.overlap import Overlap
from playbill.measure.off_policy.settings import LEARNED, OffPolicyQuestion, RewardOf, SlatePropensities, Unit
from playbill.measure.off_policy.slates import ASSUMPTIONS, NEEDS, Slates, per_slate, slate_value, slates_of
from playbill.measure.statement import Statement

_PROPENSITIES = "propensities are the probabilities with which actions were drawn, and the log is complete"
_SUPPORT = "whatever the target policy may choose, the logging policy could have chosen"
_FIXED = "the target policy was not made from these rewards"
_LEARNED = (
    "the target policy was learned from this log: what the rewards of one half of its people taught is judged on the "
    "other half, and the interval takes what was taught as given"
)
_ALONE = (
    "a decision's reward depends on its own action, not on the other positions of its slate (Li et al. 2018), and its "
    "probabilities are those of its position, whatever stands at the others"
)
_ABOVE = (
    "the target policy chooses at one position at a time: what stands above it stays the logging policy's choice, and "
    "probabilities are given that"
)
_SWITCHED = "of switch-DR: its threshold was chosen by these rewards, and the interval takes it as given"
_METHODS = {
    "logged": "mean reward",
    "IPS": "inverse propensity scoring",
    "clipped IPS": "IPS with weights cut, Ionides 2008",
    "SNIPS": "self-normalised IPS, Swaminathan and Joachims 2015",
    "DM": "direct method",
    "DR": "doubly robust, Dudik et al. 2011",
    "switch-DR": "switch-DR, Wang et al. 2017",
}
_SLATE_SOURCES = {"independent": "Li et al. 2018", "cascade": "McInerney et al. 2020", "standard": "whole-slate IPS"}
_MODEL_ONLY = "its interval holds the chance of who came and nothing of the model's own errors: compare it with DR"
_NO_SPREAD = "too few rewards for a bootstrap interval; a finite-sample bound can still be given"
_NOT_DECLARED = (
    "a slate's value depends on what the probabilities at its positions are: set question.slate_propensities=MARGINAL "
    "(whatever stands elsewhere), CONDITIONAL (given the actions above), or INDEPENDENT (both, where positions are "
    "chosen without regard to each other)"
)
_NO_MOST = (
    "it needs the most decisions that one of the {units} can have, by how the log was made: the largest count in the "
    "log says nothing of those who come far more often and happen to be missing; set question.most_decisions_per_unit"
)


@dataclass(slots=True)
class Case:
    """One log under one question.

    Attributes:
        log: of the target policy.
        question: as asked.
        overlap: what the weights are worth.
        level: of intervals.
        seed: of resampling.
        units_are: what log.unit counts.
        target: name of the target policy.
    """

    log: Log
    question: OffPolicyQuestion
    overlap: Overlap
    level: float
    seed: int
    units_are: str
    target: str

    def assumed(self, *more: str) -> list[str]:
        """Return what every value of the target policy rests on, and more."""
        fixed = _LEARNED if self.question.target in LEARNED else _FIXED
        return [_PROPENSITIES, _SUPPORT, fixed, *more]

    def assumed_of_decisions(self) -> list[str]:
        """Return the same of values per decision."""
        conditional = self.question.slate_propensities is SlatePropensities.CONDITIONAL
        return self.assumed(_ABOVE if conditional else _ALONE)


def reward_unit(question: OffPolicyQuestion) -> str:
    """Return what a mean reward is, in words."""
    if question.reward is RewardOf.ANY:
        return f"{question.reward_event} rate"
    return f"{question.reward_event}s" if question.reward is RewardOf.COUNT else f"sum of {question.reward_event}"


def logged_value(case: Case, found: ValueInterval) -> Statement:
    """Return the logging policy's own value, which needs no overlap."""
    return _spoken(case, "value of the logging policy", found, _METHODS["logged"], [])


def target_value(case: Case, estimator: str, found: ValueInterval, details: dict[str, Any]) -> Statement:
    """Return the target policy's value by one estimator."""
    assumptions = case.assumed_of_decisions()
    if estimator == "switch-DR" and not case.question.switch:
        assumptions.append(_SWITCHED)
    said = _spoken(case, f"value of {case.target}, {estimator}", found, _METHODS[estimator], assumptions)
    said.details |= details
    if estimator == "DM":
        said.warnings.append(_MODEL_ONLY)
    return said


def gained(case: Case, estimator: str, found: ValueInterval) -> Statement:
    """Return the paired difference from the logging policy."""
    name, method = f"{case.target} - logging policy, {estimator}", f"paired difference, {estimator} - mean reward"
    return _spoken(case, name, found, method, case.assumed_of_decisions())


def refusal(case: Case, name: str, why: str) -> Statement:
    """Return a statement that gives no value."""
    return Statement(
        name=name,
        estimate=None,
        level=case.level,
        n=case.overlap.units,
        of=case.units_are,
        unit=f"{reward_unit(case.question)} per decision",
        method="refused",
        refused=why,
    )


def bounded_value(case: Case) -> Statement:
    """Return IPS with limits that hold at any size of the log, or why they are refused."""
    name, log, question = f"value of {case.target}, finite-sample bound", case.log, case.question
    if case.overlap.refused:
        return refusal(case, name, case.overlap.refused)
    most = question.most_decisions_per_unit or int(question.unit is Unit.DECISION)
    if not most:
        return refusal(case, name, _NO_MOST.format(units=case.units_are))
    largest = question.largest_weight or case.overlap.largest_possible_weight
    try:
        bound = value_bound(log, most=most, largest_weight=largest, level=case.level)
    except MeasureError as error:
        return refusal(case, name, str(error))
    weight = "weights average 1"
    if question.largest_weight:
        weight = f"no weight can exceed {largest:.4g}, as declared"
    elif largest:
        weight = f"no weight can exceed {largest:.4g}, the largest among the contexts in this log"
    size = f"none of the {case.units_are} can have more than {most} decisions, as declared"
    return Statement(
        name=name,
        estimate=ips(log).estimate(),
        low=bound.low,
        high=bound.high,
        level=case.level,
        n=case.overlap.units,
        of=case.units_are,
        unit=f"{reward_unit(case.question)} per decision",
        method="IPS; betting bound, Waudby-Smith and Ramdas 2023: where its assumptions hold, at any number of units",
        assumptions=[
            *case.assumed_of_decisions(),
            f"of the finite-sample bound: {weight if question.unit is Unit.DECISION else f'{weight}; {size}'}",
        ],
    )


def slate_values(case: Case, doubly: Contributions | None) -> list[Statement]:
    """Return the value of a whole slate under each assumption.

    Args:
        doubly: the rounds' doubly robust contributions, where there are any; they are summed over the slate.
    """
    label, declared = f"value of {case.target}'s slate", case.question.slate_propensities
    if declared is SlatePropensities.NOT_DECLARED:
        return [refusal(case, label, _NOT_DECLARED)]
    try:
        slates = slates_of(case.log)
    except MeasureError as error:
        return [refusal(case, label, str(error))]
    said: list[Statement] = []
    several: list[Contributions] = []
    methods: list[tuple[str, str]] = []
    for name, normalised in [*((name, False) for name in ASSUMPTIONS), ("independent", True), ("cascade", True)]:
        refused = case.overlap.refused or _wrong_kind(declared, name) or _thin_products(case, slates, name)
        one = slate_value(slates, name, normalised=normalised)
        if refused:
            said.append(refusal(case, f"{label}, {one.name}", refused))
        else:
            several.append(one)
            methods.append((name, f"{one.name}, {_SLATE_SOURCES[name]}"))
    wrong = case.overlap.refused or _wrong_kind(declared, "independent")
    if doubly is not None and wrong:
        said.append(refusal(case, f"{label}, independent DR", wrong))
    elif doubly is not None:
        summed = per_slate(doubly, case.log)
        summed.name = "independent DR"
        several.append(summed)
        methods.append(("independent", f"position-wise {_METHODS['DR']}"))
    for one, found, (name, method) in zip(several, intervals_of(case, several, slates.unit), methods, strict=True):
        assumptions = case.assumed(
            f"slate, {name}: {ASSUMPTIONS[name]}", f"probabilities at a position are {NEEDS[name]} ones, as declared"
        )
        said.append(_spoken(case, f"{label}, {one.name}", found, method, assumptions, "slate"))
    return said


def intervals_of(case: Case, several: Sequence[Contributions], unit: np.ndarray) -> list[ValueInterval]:
    """Return the intervals of contributions, of one resampling."""
    if not several:
        return []
    return bootstrap_intervals(several, unit, resamples=case.question.resamples, seed=case.seed, level=case.level)


def _wrong_kind(declared: SlatePropensities, name: str) -> str:
    """Return why an assumption cannot be used with these propensities; empty where it can."""
    needs = NEEDS[name]
    if declared is SlatePropensities.INDEPENDENT or declared.value == needs:
        return ""
    offered = " and ".join(other for other, kind in NEEDS.items() if kind == declared.value)
    return (
        f"`{name}` needs {needs} probabilities at each position, and these are declared {declared.value} "
        f"(question.slate_propensities); read {offered} instead"
    )


def _thin_products(case: Case, slates: Slates, name: str) -> str:
    """Return why products of weights over a slate say too little; empty where they do, or where none are used."""
    if name == "independent":
        return ""
    weight = slates.weight.prod(1)
    squares = float((weight**2).sum())
    effective = float(weight.sum()) ** 2 / squares if squares > 0 else 0.0
    least = case.question.least_effective
    if effective >= least:
        return ""
    return f"products of weights are worth {effective:.1f} slates of equal weight, and at least {least:g} are needed"


def _spoken(
    case: Case, name: str, found: ValueInterval, method: str, assumptions: Sequence[str], per: str = "decision"
) -> Statement:
    bounded = bool(np.isfinite([found.low, found.high]).all())
    return Statement(
        name=name,
        estimate=found.value,
        low=found.low if bounded else None,
        high=found.high if bounded else None,
        level=case.level,
        n=found.units,
        of=case.units_are,
        unit=f"{reward_unit(case.question)} per {per}",
        method=f"{method}; studentised bootstrap",
        assumptions=[*assumptions, f"different {case.units_are} do not depend on each other"],
        warnings=[] if bounded else [_NO_SPREAD],
        details={"standard_error": found.standard_error},
    )
