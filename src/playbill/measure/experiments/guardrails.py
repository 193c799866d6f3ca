"""Guardrails: has an arm been shown to do no more harm than is tolerated?

Harm is the effect in the worse direction: what an arm adds where lower is better, what it takes where higher is. Its
interval is held against the limit L:

    pass       the whole interval lies below L: more harm than L is excluded (non-inferiority)
    fail       the whole interval lies above L: more harm than L is shown
    undecided  L lies inside: neither is shown. It is no pass; more people decide it.

    limit 10 ms: an arm that adds [28, 32] fails, [-1, 4] passes, [2, 6] passes (worse, and tolerated), [7, 15] is open

A two-sided 95 % interval errs on each side in 2.5 %. No correction for several guardrails: an arm goes out only when
all pass, so a false pass of one alone lets nothing through, and each keeps its own level.

Source:
    Schultzberg, Ankargren, Frånberg 2024, "Risk-aware product decisions in A/B tests with multiple metrics".
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from playbill.measure.experiments.effects import Effect
from playbill.measure.experiments.metrics import Better, Metric


class Outcome(StrEnum):
    """What a guardrail says."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One guardrail of one arm.

    Attributes:
        outcome: pass, fail or undecided.
        harm, low, high: effect in the worse direction, in the unit of the limit; None where it could not be told.
        limit: what is tolerated.
        relative: harm and limit are shares of the control's figure.
    """

    outcome: Outcome
    harm: float | None
    low: float | None
    high: float | None
    limit: float
    relative: bool


def check(metric: Metric, effect: Effect) -> Verdict:
    """Return what a metric's guardrail says of an effect; a relative one without an interval stays undecided."""
    rail = metric.guardrail
    assert rail is not None, "only metrics with a guardrail are checked"
    relative = rail.relative_limit is not None
    limit = float(rail.relative_limit if rail.relative_limit is not None else rail.limit or 0.0)
    if relative:
        harm, low, high = effect.relative, effect.relative_low, effect.relative_high
    else:
        harm, low, high = effect.difference, effect.low, effect.high
    if harm is None or low is None or high is None:
        return Verdict(outcome=Outcome.UNDECIDED, harm=None, low=None, high=None, limit=limit, relative=relative)
    if metric.better is Better.HIGHER:
        harm, low, high = -harm, -high, -low
    outcome = Outcome.PASS if high < limit else Outcome.FAIL if low > limit else Outcome.UNDECIDED
    return Verdict(outcome=outcome, harm=harm, low=low, high=high, limit=limit, relative=relative)
