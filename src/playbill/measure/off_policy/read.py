"""`playbill measure question=off_policy`: every estimator beside the others, what the weights are worth, a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from playbill.errors import MeasureError
from playbill.measure.off_policy.estimators import (
    Contributions,
    clip_or_default,
    clipped_ips,
    difference,
    dm,
    dr,
    ips,
    on_policy,
    snips,
    switch_dr,
    switch_threshold,
)
from playbill.measure.off_policy.log import Log
from playbill.measure.off_policy.overlap import FEW_REWARDS, Overlap, overlap
from playbill.measure.off_policy.reward_model import ActionMeans, Boosted, Logistic, RewardModel, cross_fit
from playbill.measure.off_policy.rounds import read_rounds
from playbill.measure.off_policy.settings import Model, OffPolicyQuestion, SlatePropensities
from playbill.measure.off_policy.statements import (
    Case,
    bounded_value,
    gained,
    intervals_of,
    logged_value,
    refusal,
    reward_unit,
    slate_values,
    target_value,
)
from playbill.measure.off_policy.targets import log_of
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Reading, Statement


def run(question: OffPolicyQuestion, tables: Path, settings: MeasureSettings) -> Reading:
    """Return what the target policy would have been worth on the people of these tables.

    Raises:
        TableError: no such tables or columns.
        MeasureError: the log or the target cannot be used; names the column, how many rows, and the first ones.
    """
    rounds = read_rounds(tables, question)
    log = log_of(rounds, question, seed=settings.seed)
    reading = evaluate(log, question, level=settings.level, seed=settings.seed, units_are=rounds.units_are)
    reading.warnings = [*rounds.notes, *reading.warnings]
    return reading


def evaluate(
    log: Log, question: OffPolicyQuestion, *, level: float = 0.95, seed: int = 0, units_are: str = "people"
) -> Reading:
    """Return the reading of a log that is already in memory.

    Args:
        log: of the target policy.
        question: settings of the estimators; its kind, target and reward name the figures.
        level, seed: of intervals and resampling.
        units_are: what log.unit counts, such as "people".
    """
    found = overlap(
        log,
        most_unsupported=question.most_unsupported,
        least_effective=question.least_effective,
        resamples=question.resamples,
        seed=seed,
    )
    case = Case(log, question, found, level, seed, units_are, Path(question.target).stem)
    assert log.unit is not None and log.request is not None
    logged = on_policy(log)
    contributions, missing, details = _contributions(log, question, seed)
    best = "DR" if "DR" in contributions else "SNIPS"
    label = f"value of {case.target}"
    if found.refused:
        statements = [logged_value(case, intervals_of(case, [logged], log.unit)[0])]
        statements += [refusal(case, f"{label}, {name}", found.refused) for name in (*contributions, *missing)]
        apart = refusal(case, f"{case.target} - logging policy, {best}", found.refused)
    else:
        several = [logged, *contributions.values(), difference(contributions[best], logged)]
        own, *values, between = intervals_of(case, several, log.unit)
        statements = [logged_value(case, own)]
        for name, value in zip(contributions, values, strict=True):
            statements.append(target_value(case, name, value, details.get(name, {})))
        statements += [refusal(case, f"{label}, {name}", why) for name, why in missing.items()]
        apart = gained(case, best, between)
    statements += [bounded_value(case), apart]
    if question.slates and len(log) > int(log.request.max()) + 1:
        statements += slate_values(case, contributions.get("DR"))
    warnings = list(found.warnings)
    if question.slate_propensities is SlatePropensities.CONDITIONAL and log.position is not None and log.position.any():
        warnings.append(
            "values per decision leave what stands above as the logging policy chose it; what the target's own slates "
            "are worth is read from cascade and standard"
        )
    tables = {"overlap": _overlap_rows(found)}
    if log.position is not None and log.position.max() > 0:
        tables["by position"] = _by_position(log)
    return Reading(
        title=f"What would {case.target} have been worth? ({question.kind} decisions, reward: {reward_unit(question)})",
        statements=statements,
        tables=tables,
        verdict=_verdict(case, statements, best, apart),
        warnings=warnings,
    )


def _contributions(
    log: Log, question: OffPolicyQuestion, seed: int
) -> tuple[dict[str, Contributions], dict[str, str], dict[str, dict[str, Any]]]:
    """Return contributions by estimator, why others are missing, and details by estimator."""
    found = [ips(log), clipped_ips(log, question.clip), snips(log)]
    clip, weight = clip_or_default(log, question.clip), log.weight()
    details: dict[str, dict[str, Any]] = {
        "clipped IPS": {"clip": clip, "weight_cut_off": float(np.maximum(weight - clip, 0).mean())}
    }
    missing = {}
    if log.choices is None:
        why = (
            "needs the target's probability of every action, and only the chosen one's is known; list the eligible "
            "actions in decisions.context, or actions and probabilities in the target's file"
        )
        missing = dict.fromkeys(("DM", "DR", "switch-DR"), why)
    else:
        prediction = cross_fit(log, lambda: _model(question, log, seed), folds=question.folds, seed=seed)
        threshold = question.switch or switch_threshold(log, prediction)
        found += [dm(prediction), dr(log, prediction), switch_dr(log, prediction, threshold)]
        details["switch-DR"] = {"threshold": threshold, "switched_share": float((weight > threshold).mean())}
    return {one.name: one for one in found}, missing, details


def _model(question: OffPolicyQuestion, log: Log, seed: int) -> RewardModel:
    assert log.choices is not None
    actions = int(max(log.action.max(), log.choices.action.max())) + 1
    if question.model is Model.MEANS:
        return ActionMeans(actions)
    if not log.bounded():
        raise MeasureError(
            f"question.model={question.model.name} learns rewards of a known range; set question.reward_high, or "
            "question.model=MEANS"
        )
    return Logistic(actions) if question.model is Model.LOGISTIC else Boosted(seed=seed)


def _overlap_rows(found: Overlap) -> list[dict[str, Any]]:
    figures = {k: v for k, v in msgspec.to_builtins(found).items() if k not in ("refused", "warnings")}
    return [{"figure": k.replace("_", " "), "value": "unknown" if v is None else v} for k, v in figures.items()]


def _by_position(log: Log) -> list[dict[str, Any]]:
    position, weight = log.position, log.weight()
    assert position is not None
    rows = []
    for k in np.unique(position):
        w, r = weight[position == k], log.reward[position == k]
        rows.append(
            {
                "position": int(k),
                "decisions": len(r),
                "logged": float(r.mean()),
                "IPS": float((w * r).mean()),
                "mean weight": float(w.mean()),
                "largest weight": float(w.max()),
            }
        )
    return rows


def _verdict(case: Case, statements: list[Statement], best: str, apart: Statement) -> str:
    target = case.target
    if case.overlap.refused:
        return f"No value of {target} can be read from this log: {case.overlap.refused}."
    value = next(s for s in statements if s.name == f"value of {target}, {best}")
    logged = statements[0]
    text = f"{target} is worth {value.estimate:.4g} ({best}) where the logging policy was worth {logged.estimate:.4g}"
    if apart.low is None or apart.high is None:
        return f"{text}; too few rewards to say whether they differ."
    between = f"difference {apart.low:.4g} to {apart.high:.4g}"
    if apart.low <= 0 <= apart.high:
        return f"{text}; the log cannot tell them apart ({between})."
    if case.overlap.rewarded_rounds < FEW_REWARDS:
        return (
            f"{text}; whether they differ is left open ({between}): only {case.overlap.rewarded_rounds} decisions "
            f"brought anything, and below {FEW_REWARDS} such intervals miss the truth more often than they say."
        )
    if apart.low > 0:
        return f"{text}: better, by {apart.low:.4g} to {apart.high:.4g}."
    return f"{text}: worse, by {-apart.high:.4g} to {-apart.low:.4g}."
