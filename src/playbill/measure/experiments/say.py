"""Effects in words: statements, table rows, and the sentence to remember."""

from __future__ import annotations

from typing import Any

import msgspec

from playbill.measure.experiments.effects import Effect
from playbill.measure.experiments.guardrails import Outcome, Verdict
from playbill.measure.experiments.metrics import Kind, Metric
from playbill.measure.statement import Statement

_METHODS = {
    Kind.PROPORTION: "difference of proportions",
    Kind.MEAN: "difference of means",
    Kind.RATIO: "difference of ratios, delta method over people",
    Kind.TIME: "difference of restricted mean times, Kaplan-Meier",
}
_ALIKE = "what one person does is not changed by the arm of another"
_CENSORED = "when a person was assigned says nothing of how soon they act (censoring at the end of the log)"


class Found(msgspec.Struct, kw_only=True):
    """One metric of one arm against the control.

    Attributes:
        name: of the metric.
        people: assigned people behind it, where the effect could not be told.
        effect: None where it could not be told; `refused` says why.
        q_value: after false-discovery control over all metrics and arms; None in readings that are beside it.
        guardrail: None for metrics without one.
        too_late: people left out, since the log ends before their window does.
    """

    name: str
    metric: Metric
    arm: str
    control: str
    people: int
    effect: Effect | None = None
    refused: str = ""
    q_value: float | None = None
    guardrail: Verdict | None = None
    too_late: int = 0


class Trust(msgspec.Struct, kw_only=True):
    """What the comparison is worth as a whole.

    Attributes:
        randomised: arms drawn at random, and filled as planned: only then a difference is called a lift.
        label: "intent to treat" or "per protocol".
        sequential: intervals are always valid.
        warning: stands at every statement; empty for none.
    """

    randomised: bool
    label: str
    sequential: bool
    warning: str = ""


def statement(found: Found, trust: Trust, level: float) -> Statement:
    """Return one effect as a statement; "lift" stands in it only where the comparison was randomised."""
    word = "lift" if trust.randomised else "difference"
    name = f"{found.name}, {word} of {found.arm} over {found.control} ({trust.label})"
    warnings = [trust.warning] if trust.warning else []
    if found.too_late:
        warnings.append(f"{found.too_late:,} people left out: the log ends before their {_window(found.metric)}")
    assumptions = [_ALIKE, *([_CENSORED] if found.metric.kind is Kind.TIME else [])]
    effect = found.effect
    if effect is None:
        return Statement(
            name=name,
            estimate=None,
            level=level,
            n=found.people,
            unit=found.metric.unit,
            method=_METHODS[found.metric.kind],
            randomised=trust.randomised,
            assumptions=assumptions,
            warnings=warnings,
            refused=found.refused,
        )
    if found.guardrail is not None and found.guardrail.outcome is not Outcome.PASS:
        warnings.append(guardrail_line(found))
    details: dict[str, Any] = {
        **{
            k: v
            for k, v in msgspec.structs.asdict(effect).items()
            if k not in ("difference", "low", "high", "warnings")
        },
        "q_value": found.q_value,
        "better": found.metric.better.value,
        "meaning": found.metric.meaning,
    }
    if found.guardrail is not None:
        details["guardrail"] = msgspec.to_builtins(found.guardrail)
    return Statement(
        name=name,
        estimate=effect.difference,
        low=effect.low,
        high=effect.high,
        level=level,
        n=effect.n_arm + effect.n_control,
        unit=found.metric.unit,
        method=_method(found, effect, trust),
        randomised=trust.randomised,
        assumptions=assumptions,
        warnings=[*warnings, *effect.warnings],
        details=details,
    )


def effect_row(found: Found) -> dict[str, Any]:
    """Return one effect as a flat row: what json readers and the printed table show."""
    e = found.effect
    assert e is not None, "only effects that could be told have a row"
    return {
        "metric": found.name,
        "arm": found.arm,
        "control_figure": e.control,
        "arm_figure": e.arm,
        "difference": e.difference,
        "low": e.low,
        "high": e.high,
        "standard_error": e.standard_error,
        "relative": e.relative,
        "relative_low": e.relative_low,
        "relative_high": e.relative_high,
        "p": e.p_value,
        "q": found.q_value,
        "n_arm": e.n_arm,
        "n_control": e.n_control,
        "cuped_variance_reduction": e.variance_reduction,
        "unit": found.metric.unit,
    }


def guardrail_row(found: Found) -> dict[str, Any]:
    """Return one guardrail of one arm as a flat row."""
    rail = found.guardrail
    assert rail is not None, "only metrics with a guardrail have a row"
    return {
        "guardrail": found.name,
        "arm": found.arm,
        "outcome": rail.outcome.value,
        "harm": rail.harm,
        "low": rail.low,
        "high": rail.high,
        "limit": rail.limit,
        "of": "share of the control" if rail.relative else found.metric.unit,
    }


def guardrail_line(found: Found) -> str:
    """Return one guardrail of one arm as a sentence."""
    rail = found.guardrail
    assert rail is not None, "only metrics with a guardrail have a line"
    what = f"guardrail {found.name} of {found.arm}: {rail.outcome.value.upper()}"
    unit = " of the control" if rail.relative else f" {found.metric.unit}" if found.metric.unit else ""
    if rail.harm is None:
        return f"{what}, the harm could not be told, limit {rail.limit:g}{unit}"
    return f"{what}, harm {rail.harm:.4g} [{rail.low:.4g}, {rail.high:.4g}], limit {rail.limit:g}{unit}"


def verdict(found: list[Found], rate: float, correction: str, flagged: str) -> str:
    """Return the sentence to remember.

    Args:
        flagged: why no effect counts, where the sample-ratio check failed; empty otherwise.
    """
    if flagged:
        return f"DO NOT READ THE EFFECTS: {flagged}"
    told = [f for f in found if f.effect is not None and f.q_value is not None]
    if not told:
        return "no effect could be told"
    stand = sorted((f for f in told if f.q_value is not None and f.q_value <= rate), key=lambda f: f.q_value or 0.0)
    lines = [f"{len(stand)} of {len(told)} effects found at a false-discovery rate of {rate:.3g} ({correction})"]
    lines += [f"{f.name} of {f.arm} {f.effect.difference:+.4g}" for f in stand[:6] if f.effect is not None]
    rails = [f for f in found if f.guardrail is not None]
    for outcome in (Outcome.FAIL, Outcome.UNDECIDED):
        named = [f"{f.name} of {f.arm}" for f in rails if f.guardrail is not None and f.guardrail.outcome is outcome]
        lines += [f"guardrails {outcome.value}: {', '.join(named)}"] if named else []
    return "; ".join(lines)


def _method(found: Found, effect: Effect, trust: Trust) -> str:
    parts = [_METHODS[found.metric.kind]]
    if effect.variance_reduction is not None:
        parts.append(f"CUPED, variance {-effect.variance_reduction:+.1%}")
    if effect.clusters is not None:
        parts.append(f"errors by {effect.clusters:,} clusters")
    parts.append(("always valid, " if trust.sequential else "") + _p(effect.p_value))
    if effect.relative is not None:
        interval = f" [{effect.relative_low:+.2%}, {effect.relative_high:+.2%}]"
        parts.append(f"relative {effect.relative:+.2%}{interval}")
    return ", ".join(parts)


def _p(p_value: float) -> str:
    return f"p = {p_value:.2g}" if p_value > 1e-99 else "p < 1e-99"


def _window(metric: Metric) -> str:
    return "window" if metric.window_days is None else f"{metric.window_days:g} days are over"
