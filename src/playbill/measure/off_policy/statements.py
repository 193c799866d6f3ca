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
from playbill.measure.off_policy.settings import OffPolicyQuestion, RewardOf
from playbill.measure.off_policy.slates import ASSUMPTIONS, Slates, per_slate, slate_value, slates_of
from playbill.measure.statement import Statement

_PROPENSITIES = "propensities are the probabilities with which actions were drawn, and the log is complete"
_SUPPORT = "whatever the target policy may choose, the logging policy could have chosen"
_FIXED = "the target policy was not made from these rewards"
_ALONE = "a decision's reward depends on its own action, not on the other positions of its slate (Li et al. 2018)"
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
_NO_SPREAD = "too few rewards for a bootstrap interval; the finite-sample bound holds"


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
    assumptions = [_PROPENSITIES, _SUPPORT, _FIXED, _ALONE]
    said = _spoken(case, f"value of {case.target}, {estimator}", found, _METHODS[estimator], assumptions)
    said.details |= details
    if estimator == "DM":
        said.warnings.append(_MODEL_ONLY)
    return said


def gained(case: Case, estimator: str, found: ValueInterval) -> Statement:
    """Return the paired difference from the logging policy."""
    name, method = f"{case.target} - logging policy, {estimator}", f"paired difference, {estimator} - mean reward"
    return _spoken(case, name, found, method, [_PROPENSITIES, _SUPPORT, _FIXED, _ALONE])


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
    name, log = f"value of {case.target}, finite-sample bound", case.log
    if case.overlap.refused:
        return refusal(case, name, case.overlap.refused)
    largest = case.question.largest_weight or case.overlap.largest_possible_weight
    try:
        bound = value_bound(log, largest_weight=largest, level=case.level)
    except MeasureError as error:
        return refusal(case, name, str(error))
    assert log.unit is not None
    weight = f"no weight exceeds {largest:.4g}" if largest else "weights average 1"
    most = int(np.bincount(log.unit).max())
    return Statement(
        name=name,
        estimate=ips(log).estimate(),
        low=bound.low,
        high=bound.high,
        level=case.level,
        n=case.overlap.units,
        of=case.units_are,
        unit=f"{reward_unit(case.question)} per decision",
        method="IPS; betting bound, Waudby-Smith and Ramdas 2023: holds at any number of units",
        assumptions=[
            _PROPENSITIES,
            _SUPPORT,
            _FIXED,
            f"of the finite-sample bound: {weight}, and none of the {case.units_are} has more than {most} decisions",
        ],
    )


def slate_values(case: Case, doubly: Contributions | None) -> list[Statement]:
    """Return the value of a whole slate under each assumption.

    Args:
        doubly: the rounds' doubly robust contributions, where there are any; they are summed over the slate.
    """
    label = f"value of {case.target}'s slate"
    try:
        slates = slates_of(case.log)
    except MeasureError as error:
        return [refusal(case, label, str(error))]
    said: list[Statement] = []
    several: list[Contributions] = []
    methods: list[tuple[str, str]] = []
    for name, normalised in [*((name, False) for name in ASSUMPTIONS), ("independent", True), ("cascade", True)]:
        refused = case.overlap.refused or _thin_products(case, slates, name)
        one = slate_value(slates, name, normalised=normalised)
        if refused:
            said.append(refusal(case, f"{label}, {one.name}", refused))
        else:
            several.append(one)
            methods.append((name, f"{one.name}, {_SLATE_SOURCES[name]}"))
    if doubly is not None and not case.overlap.refused:
        summed = per_slate(doubly, case.log)
        summed.name = "independent DR"
        several.append(summed)
        methods.append(("independent", f"position-wise {_METHODS['DR']}"))
    for one, found, (name, method) in zip(several, intervals_of(case, several, slates.unit), methods, strict=True):
        assumptions = [_PROPENSITIES, _SUPPORT, _FIXED, f"slate, {name}: {ASSUMPTIONS[name]}"]
        said.append(_spoken(case, f"{label}, {one.name}", found, method, assumptions, "slate"))
    return said


def intervals_of(case: Case, several: Sequence[Contributions], unit: np.ndarray) -> list[ValueInterval]:
    """Return the intervals of contributions, of one resampling."""
    if not several:
        return []
    return bootstrap_intervals(several, unit, resamples=case.question.resamples, seed=case.seed, level=case.level)


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
