"""The release rules: each looks at one figure and says passed, failed, or that it does not apply and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from playbill.errors import ConfigError
from playbill.release.gate_settings import LimitRule, PairedRule
from playbill.release.report import CURRENT_MODEL, Evaluation

BEST_RIVAL = "best_rival"

# rungs that were learned: a bundle without them serves counts, and may go out before anybody could be held out
LEARNED = ("towers", "ranker")


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    REFUSED = "refused"  # the data cannot decide it: a result, and no failure
    NOT_APPLIED = "does not apply"


class Judged(msgspec.Struct, kw_only=True):
    """One rule with what was found: `rule` and `found` are sentences for people, `verdict` is what counts."""

    name: str
    rule: str
    found: str
    verdict: Verdict


def judge_paired(name: str, rule: PairedRule, evaluation: Evaluation, rungs: Sequence[str]) -> Judged:
    """Return the verdict of a paired rule.

    Args:
        name: of the rule.
        rule: what it asks.
        evaluation: of this bundle.
        rungs: that the bundle carries.
    Raises:
        ConfigError: the rule names a model, slice or metric that the evaluation does not know.
    """
    against = evaluation.best_rival if rule.against == BEST_RIVAL else rule.against
    asks = (
        f"{rule.metric} of {rule.model} not clearly below {against or rule.against}"
        f"{'' if rule.slice == 'all' else f', {rule.slice} people'}"
        f"{f' less {rule.margin:g}' if rule.margin else ''}"
    )

    def judged(verdict: Verdict, found: str) -> Judged:
        return Judged(name=name, rule=asks, found=found, verdict=verdict)

    if missing := missing_rungs(rule.needs, rungs):
        return judged(Verdict.NOT_APPLIED, missing)
    if rule.slice not in evaluation.users:
        raise ConfigError(f"rule {name}: no slice {rule.slice!r}; there are: {', '.join(evaluation.users)}")
    if not evaluation.users[rule.slice]:
        learned = rule.slice == "all" and any(rung in rungs for rung in LEARNED)
        return judged(Verdict.FAILED if learned else Verdict.NOT_APPLIED, "nobody was held out, nothing was measured")
    if against == CURRENT_MODEL and evaluation.model(CURRENT_MODEL) is None:
        why = next((n for n in evaluation.notes if n.startswith("current bundle")), "there is no bundle in use yet")
        return judged(Verdict.NOT_APPLIED, why)
    ours = evaluation.model(rule.model)
    if ours is None or against is None or evaluation.model(against) is None:
        absent = rule.model if ours is None else against
        known = ", ".join(m.name for m in evaluation.models)
        raise ConfigError(f"rule {name}: the evaluation has no model {absent!r}; it has: {known}")
    if rule.model == against:
        raise ConfigError(f"rule {name}: {against} is held against itself")
    differences = ours.slices[rule.slice].against.get(against, {})
    if rule.metric not in differences:
        measured = ", ".join(differences)
        raise ConfigError(f"rule {name}: no {rule.metric} of {rule.model} less {against}; measured: {measured}")
    found = differences[rule.metric]
    passed = found.high >= -rule.margin
    return judged(
        Verdict.PASSED if passed else Verdict.FAILED,
        f"difference {found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]",
    )


def judge_limit(name: str, rule: LimitRule, reports: Mapping[str, Any], rungs: Sequence[str]) -> Judged:
    """Return the verdict of a limit on one reported figure.

    A figure that is not there fails unless the rule is optional: a check that was not made does not count as passed.

    Args:
        name: of the rule.
        rule: what it asks.
        reports: decoded json by file name without suffix.
        rungs: that the bundle carries.
    """
    bounds = [f">= {rule.at_least:g}"] if rule.at_least is not None else []
    bounds += [f"<= {rule.at_most:g}"] if rule.at_most is not None else []
    asks = f"{rule.report}.{rule.figure} {' and '.join(bounds)}"
    if missing := missing_rungs(rule.needs, rungs):
        return Judged(name=name, rule=asks, found=missing, verdict=Verdict.NOT_APPLIED)
    value, absent = reports.get(rule.report), Verdict.NOT_APPLIED if rule.optional else Verdict.FAILED
    if value is None:
        return Judged(name=name, rule=asks, found=f"no report/{rule.report}.json", verdict=absent)
    for key in rule.figure.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, bool | int | float):
        return Judged(name=name, rule=asks, found="the report has no such figure", verdict=absent)
    low = rule.at_least is None or value >= rule.at_least
    high = rule.at_most is None or value <= rule.at_most
    shown = ("no", "yes")[value] if isinstance(value, bool) else f"{value:.6g}"
    return Judged(name=name, rule=asks, found=shown, verdict=Verdict.PASSED if low and high else Verdict.FAILED)


def missing_rungs(needs: Sequence[str], rungs: Sequence[str]) -> str:
    """Return which of the rungs that a rule needs a bundle lacks, in words; empty where it has all."""
    absent = [rung for rung in needs if rung not in rungs]
    return f"the bundle carries no {', '.join(absent)}" if absent else ""
