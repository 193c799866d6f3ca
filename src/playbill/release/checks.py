"""What else a release is judged by, besides lists: probabilities, groups of people, latency, value on the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from playbill.bundle.open import Bundle
from playbill.dataset.dataset import Dataset
from playbill.release.calibrating import CalibrationReport, in_words, measure_calibration
from playbill.release.disparity import DisparityReport, measure_disparity
from playbill.release.latency import Latency, measure_latency
from playbill.release.objectives import ObjectivesReport, measure_objectives, sweep_in_words
from playbill.release.protocol import Asked
from playbill.release.report import Road
from playbill.release.scores import reference_of
from playbill.release.settings import EvaluateSettings
from playbill.release.value import Value, measure_value
from playbill.release.variety import VarietyReport, measure_variety, variety_in_words


def in_lines(checks: Mapping[str, object]) -> list[str]:
    """Return what was found as lines for a screen."""
    lines = []
    for report in checks.values():
        if isinstance(report, CalibrationReport):
            lines += [in_words(task) for task in report.tasks] + report.notes
        elif isinstance(report, ObjectivesReport):
            lines += [sweep_in_words(sweep, report.metric) for sweep in report.sweeps] + report.notes
        elif isinstance(report, VarietyReport):
            lines.append(variety_in_words(report))
        elif isinstance(report, DisparityReport):
            judged = [gap for gap in report.gaps if not gap.not_judged]
            lines.append(f"groups: {sum(gap.differs for gap in judged)} of {len(judged)} differ in {report.metric}")
        elif isinstance(report, Latency):
            new = report.new
            lines.append(
                f"latency of {report.requests} requests: median {new.median_ms:.2f} ms, p99 {new.p99_ms:.2f} ms"
            )
        elif isinstance(report, Value):
            lines.append(f"value on the log: {report.refused or 'see report/value.json'}")
    return lines


def run_checks(
    settings: EvaluateSettings,
    bundle: Bundle,
    current: Bundle | None,
    tables: Path,
    dataset: Dataset,
    asked: Asked,
    served: Road,
    progress: Callable[[str], None],
) -> dict[str, object]:
    """Return the reports by file name, those of CHECKS that apply to the bundle.

    Args:
        bundle: that is evaluated.
        current: the bundle in use, where it may be asked.
        tables: folder that the dataset was opened from.
        served: what the bundle answered to the people asked.
        progress: told what is measured.
    """
    found: dict[str, object] = {"scores": reference_of(served.scores)}
    if "ranker" in bundle.rungs and "towers" in bundle.rungs:
        progress("probabilities against what happened")
        found["calibration"] = measure_calibration(
            bundle, tables, dataset, resamples=settings.resamples, seed=settings.seed, level=settings.level
        )
    k = max(settings.ks)
    if "ranker" in bundle.rungs and len(asked):
        progress("other objectives")
        found["objectives"] = measure_objectives(
            bundle,
            tables,
            dataset,
            asked,
            k=k,
            resamples=settings.resamples,
            seed=settings.seed,
            level=settings.level,
        )
    if len(asked):
        progress("what variety costs")
        variety = measure_variety(
            bundle,
            tables,
            dataset,
            asked,
            k=k,
            resamples=settings.resamples,
            seed=settings.seed,
            level=settings.level,
        )
        found |= {} if variety is None else {"variety": variety}
    if len(asked):
        progress("groups of people")
        found["disparity"] = measure_disparity(
            served, tables, dataset, asked, k=k, level=settings.level, min_people=settings.least_group
        )
    bundles = [bundle] if current is None else [bundle, current]
    progress("timing a fixed set of requests")
    found["latency"] = measure_latency(
        bundles, tables, dataset, asked, requests=settings.latency_requests, k=k, seed=settings.seed
    )
    if settings.value_requests:
        progress("value on the logged decisions")
        found["value"] = measure_value(
            bundles,
            tables,
            dataset,
            settings.value,
            most_requests=settings.value_requests,
            seed=settings.seed,
            level=settings.level,
        )
    return found
