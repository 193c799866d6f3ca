"""Release rules that weigh evidence: probabilities, value on the log, groups. There may be too little of it."""

from __future__ import annotations

from collections.abc import Sequence

from playbill.errors import ConfigError
from playbill.measure.bootstrap import Interval
from playbill.release.calibrating import CalibrationReport, in_words
from playbill.release.disparity import DisparityReport
from playbill.release.gate_settings import Beside, CalibrationRule, DisparityRule, ValueRule
from playbill.release.rules import Judged, Verdict, missing_rungs
from playbill.release.value import Value


def judge_calibration(
    name: str, rule: CalibrationRule, report: CalibrationReport | None, rungs: Sequence[str]
) -> Judged:
    """Return whether probabilities come true in every tenth of the candidates with enough events.

    Args:
        name: of the rule.
        rule: what it asks.
        report: report/calibration.json of this bundle.
        rungs: that the bundle carries.
    Raises:
        ConfigError: the rule names a task that was not measured.
    """
    asks = f"observed / expected not clearly outside {rule.low:g}..{rule.high:g} in any tenth"
    if rule.tasks:
        asks = f"{asks}, {', '.join(rule.tasks)}"
    if missing := missing_rungs(rule.needs, rungs):
        return Judged(name=name, rule=asks, found=missing, verdict=Verdict.NOT_APPLIED)
    if report is None:
        return Judged(name=name, rule=asks, found="no report/calibration.json", verdict=Verdict.FAILED)
    measured = {task.task: task for task in report.tasks}
    unknown = [task for task in rule.tasks if task not in measured]
    if unknown:
        raise ConfigError(
            f"rule {name}: calibration of {', '.join(unknown)} was not measured; measured: "
            f"{', '.join(measured) or 'none'}; {'; '.join(report.notes)}"
        )
    tasks = [measured[task] for task in rule.tasks or measured]
    ratios = {task.task: [t.ratio for t in task.tenths if t.enough and t.ratio is not None] for task in tasks}
    if not any(ratios.values()):
        why = "; ".join(["no tenth of any task has enough events", *report.notes])
        return Judged(name=name, rule=asks, found=why, verdict=_undecided(rule.required))
    outside = [r for some in ratios.values() for r in some if r.high < rule.low or r.low > rule.high]
    return Judged(
        name=name,
        rule=asks,
        found="; ".join(in_words(task) for task in tasks),
        verdict=Verdict.FAILED if outside else Verdict.PASSED,
    )


def judge_value(name: str, rule: ValueRule, report: Value | None, rungs: Sequence[str]) -> Judged:
    """Return whether the bundle is not worth clearly less than what it is held against, on the logged decisions.

    Args:
        name: of the rule.
        rule: what it asks.
        report: report/value.json of this bundle.
        rungs: that the bundle carries.
    """
    beside = "the bundle in use" if rule.against is Beside.current else "the policy that wrote the log"
    less = f" less {rule.margin:g}" if rule.margin else ""
    asks = f"value on the log not clearly below that of {beside}{less}"

    def judged(verdict: Verdict, found: str) -> Judged:
        return Judged(name=name, rule=asks, found=found, verdict=verdict)

    if missing := missing_rungs(rule.needs, rungs):
        return judged(Verdict.NOT_APPLIED, missing)
    if report is None:
        return judged(_undecided(rule.required), "no report/value.json")
    if report.refused or report.new is None:
        return judged(_undecided(rule.required), report.refused)
    if rule.against is Beside.current and report.current is None:
        return judged(Verdict.NOT_APPLIED, "there is no bundle in use yet, or it may know the answers")
    if rule.against is Beside.current and report.current is not None and report.current.overlap.refused:
        return judged(_undecided(rule.required), f"of the bundle in use: {report.current.overlap.refused}")
    found = report.less_current if rule.against is Beside.current else report.new.less_logged
    if found is None:
        return judged(_undecided(rule.required), "too few rewards for an interval")
    overlap = report.new.overlap
    support = f"{report.estimator}, {report.decisions} decisions worth {overlap.effective_rounds:.0f}"
    if overlap.unsupported_mass is not None:
        support += f", {overlap.unsupported_mass:.1%} without support"
    says = f"difference {_interval(found, '+.4g')} ({support})"
    in_use = None if report.current is None else report.current.value
    of = in_use if rule.against is Beside.current else report.logged
    told = report.told_loss if rule.against is Beside.current else report.new.told_loss
    share = None
    if told is not None and of is not None and of.value > 0:
        share = told / of.value
        beyond = f" beyond {rule.margin:g}" if rule.margin else ""
        says += f"; such a log tells a loss of {told:.4g}{beyond} ({share:.0%} of {of.value:.4g}) or more"
    if found.high < -rule.margin:
        return judged(Verdict.FAILED, says)
    # a report from before losses were reckoned does not say: it is judged as it was then
    if share is not None and rule.most_untold < 1 and share > rule.most_untold:
        return judged(_undecided(rule.required), f"{says}, at most {rule.most_untold:.0%} may go untold: log more")
    return judged(Verdict.PASSED, says)


def judge_disparity(name: str, rule: DisparityRule, report: DisparityReport | None, rungs: Sequence[str]) -> Judged:
    """Return whether no group of people gets clearly worse lists than the largest group of its column.

    Args:
        name: of the rule.
        rule: what it asks.
        report: report/disparity.json of this bundle.
        rungs: that the bundle carries.
    """
    asks = f"no group's lists clearly below {rule.least_ratio:g} of its reference's"
    if missing := missing_rungs(rule.needs, rungs):
        return Judged(name=name, rule=asks, found=missing, verdict=Verdict.NOT_APPLIED)
    if report is None:
        return Judged(name=name, rule=asks, found="no report/disparity.json", verdict=_undecided(rule.required))
    compared = [gap for gap in report.gaps if not gap.not_judged and gap.value is not None]
    if not compared:
        why = "; ".join(report.notes) or f"none of {len(report.gaps)} groups is large enough"
        return Judged(name=name, rule=asks, found=why, verdict=_undecided(rule.required))
    # a group that gets nothing at all has no ratio
    shares = [(0.0, 0.0, gap) if gap.ratio is None else (gap.ratio, gap.ratio_high or 0.0, gap) for gap in compared]
    below = [gap for _, high, gap in shares if gap.differs and high < rule.least_ratio]
    ratio, high, worst = min(shares, key=lambda share: share[0])
    figure = f"{worst.group} {ratio:.3f} of {worst.reference}, at most {high:.3f}"
    return Judged(
        name=name,
        rule=asks,
        found=f"{len(compared)} compared, lowest {report.metric}: {figure}",
        verdict=Verdict.FAILED if below else Verdict.PASSED,
    )


def _undecided(required: bool) -> Verdict:
    return Verdict.FAILED if required else Verdict.REFUSED


def _interval(interval: Interval, form: str) -> str:
    return f"{interval.value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"
