"""`playbill measure question=experiment`: assignment, sample-ratio check, every metric of every arm, guardrails."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from playbill.errors import ConfigError, MeasureError
from playbill.measure.experiments.assignment import DECLARED, Assignment, read_assignment
from playbill.measure.experiments.discovery import q_values
from playbill.measure.experiments.effects import Sample, compare
from playbill.measure.experiments.guardrails import check
from playbill.measure.experiments.metrics import Metric, declared
from playbill.measure.experiments.rows import distinct, lacking, read_rows
from playbill.measure.experiments.say import Found, Trust, effect_row, guardrail_row, statement, verdict
from playbill.measure.experiments.settings import ExperimentQuestion
from playbill.measure.experiments.values import Values, values_of
from playbill.measure.exposure import Exposure, exposure_rows, exposure_warnings, read_exposure
from playbill.measure.sample_ratio import SampleRatio, sample_ratio
from playbill.measure.sequential import progress_of
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Reading

PER_PROTOCOL = (
    "per protocol, NOT RANDOMISED: what was tested may have decided who was exposed; decide by the intention to treat"
)


def run(question: ExperimentQuestion, tables: Path, settings: MeasureSettings) -> Reading:
    """Return the reading of one experiment: intent-to-treat first, the exposed people beside it.

    Raises:
        ConfigError: a metric file with an unknown word, or a name that nobody declares.
        MeasureError: an assignment or a value that cannot be read; names column, count and first rows.
        TableError: no such tables.
    """
    metrics = _with_window(declared(question.metrics, question.only), question.window_days)
    assignment = read_assignment(tables, question)
    absent = lacking(tables, metrics, assignment.unit)
    there = {name: metric for name, metric in metrics.items() if name not in absent}
    values = _values(tables, there, assignment, question)
    ratio = _ratio(assignment, question)
    flagged = _contradiction(assignment, ratio)

    found = _effects(there, values, assignment, np.ones(len(assignment.arm), bool), question, settings.level)
    told = [f for f in found if f.effect is not None]
    for f, q in zip(told, q_values([f.effect.p_value for f in told if f.effect], question.correction), strict=True):
        f.q_value = float(q)
    trust = Trust(
        randomised=assignment.logged and not flagged,
        label="intent to treat",
        sequential=question.sequential,
        warning=flagged,
    )
    exposure = _exposure(tables, assignment, question)
    beside = []
    if exposure is not None:
        beside = _effects(there, values, assignment, exposure.exposed, question, settings.level)
    outside = Trust(randomised=False, label="per protocol", sequential=question.sequential, warning=PER_PROTOCOL)
    return Reading(
        title=f"Experiment {assignment.experiment}: {', '.join(assignment.arms[1:])} against {assignment.arms[0]}",
        statements=[
            *(statement(f, trust, settings.level) for f in found),
            *(statement(f, outside, settings.level) for f in beside),
        ],
        tables={
            "arms": _arm_rows(assignment, ratio),
            "intent to treat": [effect_row(f) for f in told],
            "guardrails": [guardrail_row(f) for f in told if f.guardrail is not None],
            **({"exposed": exposure_rows(assignment, exposure)} if exposure is not None else {}),
            **({PER_PROTOCOL: [effect_row(f) for f in beside if f.effect]} if exposure is not None else {}),
            "declared, not in this log": [{"metric": name, "lacks": lacks} for name, lacks in absent.items()],
        },
        verdict=verdict(found, question.false_discovery_rate, question.correction.value, flagged),
        warnings=_warnings(assignment, ratio, flagged, exposure, question),
    )


def _exposure(tables: Path, assignment: Assignment, question: ExperimentQuestion) -> Exposure | None:
    """Return who was exposed; None where the log tells no exposure and none was asked for by another name."""
    if question.exposure_decision:
        return read_exposure(tables, assignment, decision=question.exposure_decision)
    if not question.exposure or question.exposure not in distinct(tables, "events", "event"):
        if question.exposure not in ("", "exposure"):
            raise MeasureError(f"events.event: no {question.exposure!r}, so nobody is known to be exposed")
        return None
    return read_exposure(tables, assignment, event=question.exposure)


def _with_window(metrics: Mapping[str, Metric], days: float) -> dict[str, Metric]:
    if not days:
        return dict(metrics)
    short = [name for name, metric in metrics.items() if metric.from_days >= days]
    if short:
        raise ConfigError(
            f"question.window_days={days:g}: {', '.join(short)} starts counting after that; question.only=[...] names "
            "the metrics to read"
        )
    return {name: msgspec.structs.replace(metric, window_days=days) for name, metric in metrics.items()}


def _values(
    tables: Path, metrics: Mapping[str, Metric], assignment: Assignment, question: ExperimentQuestion
) -> dict[str, Values | str]:
    """Return every metric's values, or why they cannot be told."""
    if not metrics:
        return {}
    rows = read_rows(
        tables,
        assignment,
        list(metrics.values()),
        pre_days=question.pre_days,
        until=question.until,
        exposure=question.exposure,
    )
    values: dict[str, Values | str] = {}
    for name, metric in metrics.items():
        try:
            values[name] = values_of(metric, rows, assignment.at_us, pre_days=question.pre_days)
        except MeasureError as error:
            values[name] = str(error)
    return values


def _effects(
    metrics: Mapping[str, Metric],
    values: Mapping[str, Values | str],
    assignment: Assignment,
    counted: np.ndarray,
    question: ExperimentQuestion,
    level: float,
) -> list[Found]:
    """Return every metric of every arm against the control, of the people who are counted ([n] bool)."""
    results = []
    for name, metric in metrics.items():
        for arm in range(1, len(assignment.arms)):
            found = Found(
                name=name,
                metric=metric,
                arm=assignment.arms[arm],
                control=assignment.arms[0],
                people=int((counted & np.isin(assignment.arm, (0, arm))).sum()),
            )
            results.append(found)
            of_metric = values[name]
            if isinstance(of_metric, str):
                found.refused = of_metric
                continue
            found.too_late = of_metric.too_late
            keep = counted[of_metric.people]
            try:
                samples = [_sample(of_metric, assignment, keep, row) for row in (arm, 0)]
                progress = _progress(samples, arm, assignment, question) if question.sequential else None
                found.effect = compare(*samples, level=level, progress=progress)
            except MeasureError as error:
                found.refused = str(error)
                continue
            if metric.guardrail is not None:
                found.guardrail = check(metric, found.effect)
    return results


def _sample(values: Values, assignment: Assignment, keep: np.ndarray, arm: int) -> Sample:
    chosen = keep & (assignment.arm[values.people] == arm)
    if not chosen.any():
        raise MeasureError(f"nobody of arm {assignment.arms[arm]} is left to count")
    mine = values.take(chosen)
    return Sample(
        figure=mine.figure(),
        earlier=mine.earlier,
        cluster=None if assignment.cluster is None else assignment.cluster[mine.people],
    )


def _progress(samples: list[Sample], arm: int, assignment: Assignment, question: ExperimentQuestion) -> float:
    """Return information gathered over planned, of an arm and the control (arm first in `samples`)."""
    people = np.bincount(assignment.arm, minlength=len(assignment.arms))
    # without a plan for the shares those of the log serve: the plan sets where the interval is narrowest, no more
    shares = assignment.shares or (people / people.sum()).tolist()
    of_arm, of_control = (len(sample.figure.influence) for sample in samples)
    planned = question.planned_people * (shares[0] + shares[arm])
    return float(progress_of(of_control, of_arm, planned, (shares[0], shares[arm])))


def _planned(question: ExperimentQuestion) -> int:
    """Return the people at the planned end where the log is read again and again; 0 for one reading."""
    return question.planned_people if question.sequential else 0


def _ratio(assignment: Assignment, question: ExperimentQuestion) -> SampleRatio | None:
    """Return the sample-ratio check; of clusters where each is in one arm, since then they are what was drawn."""
    if assignment.shares is None:
        return None
    arm = assignment.arm
    if assignment.cluster is not None:
        pairs = np.unique(np.stack([assignment.cluster, arm]), axis=1)
        if len(np.unique(pairs[0])) == pairs.shape[1]:
            arm = pairs[1]
    counts = np.bincount(arm, minlength=len(assignment.arms))
    return sample_ratio(counts, assignment.shares, question.sample_ratio_alpha, planned=_planned(question))


def _contradiction(assignment: Assignment, ratio: SampleRatio | None) -> str:
    if ratio is None or not ratio.flagged:
        return ""
    counts = np.bincount(assignment.arm, minlength=len(assignment.arms))
    listed = ", ".join(
        f"{arm} {n:,} of {share:.4g} planned"
        for arm, n, share in zip(assignment.arms, counts, assignment.shares or [], strict=True)
    )
    return (
        f"SAMPLE RATIO: the arms' sizes contradict the planned shares ({listed}; p = {ratio.p_value:.2g}), so "
        "something decided who is in the log, and the differences hold whatever that was; find it and run it again"
    )


def _warnings(
    assignment: Assignment,
    ratio: SampleRatio | None,
    flagged: str,
    exposure: Exposure | None,
    question: ExperimentQuestion,
) -> list[str]:
    warnings = [flagged] if flagged else []
    if ratio is None:
        warnings.append(
            "decisions.propensity: the log does not tell the planned shares, so nothing shows that the arms were drawn "
            "at random; question.shares={ARM: SHARE, ...} lets the arms' sizes be held against them"
        )
    elif not assignment.logged:
        warnings.append(DECLARED)
    if exposure is not None:
        warnings += exposure_warnings(assignment, exposure, question.sample_ratio_alpha, _planned(question))
    return warnings


def _arm_rows(assignment: Assignment, ratio: SampleRatio | None) -> list[dict[str, Any]]:
    rows = []
    for row, arm in enumerate(assignment.arms):
        mine = assignment.arm == row
        rows.append(
            {
                "arm": arm,
                "assigned": int(mine.sum()),
                "planned_share": None if assignment.shares is None else assignment.shares[row],
                "share": float(mine.mean()),
                "clusters": None if assignment.cluster is None else len(np.unique(assignment.cluster[mine])),
                "sample_ratio_p": None if ratio is None else ratio.p_value,
            }
        )
    return rows
