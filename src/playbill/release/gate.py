"""`playbill gate`: the rules of conf/gate/ against the reports of an evaluated bundle; what passes is sealed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from playbill.bundle.manifest import State
from playbill.bundle.open import open_bundle
from playbill.bundle.write import current, reopen, seal, set_state, state_of
from playbill.errors import BundleError, GateError
from playbill.release.bundles import check_reports, content_hash, encode, find_bundle, is_sealed, read_report
from playbill.release.calibrating import CalibrationReport
from playbill.release.disparity import DisparityReport
from playbill.release.evidence import judge_calibration, judge_disparity, judge_value
from playbill.release.gate_report import GateReport as GateReport
from playbill.release.gate_settings import GateSettings
from playbill.release.page import write_page
from playbill.release.report import Evaluation, wide_console
from playbill.release.rule_changes import changes_of
from playbill.release.rules import Verdict, judge_limit, judge_paired
from playbill.release.settings import CURRENT
from playbill.release.trial import servers_know
from playbill.release.value import Value
from playbill.tables.files import write_atomic

_STYLES = {Verdict.PASSED: "green", Verdict.FAILED: "bold red", Verdict.REFUSED: "yellow", Verdict.NOT_APPLIED: "dim"}


def run(settings: GateSettings) -> None:
    """Judge, print every rule with its figure, write report/gate.json and seal.

    Raises:
        GateError: a rule failed; the bundle stays evaluated.
        BundleError: it was not evaluated, or changed since.
    """
    console = wide_console()
    path = find_bundle(Path(settings.home) / "bundles", settings.bundle)
    state = state_of(path)
    if is_sealed(state):
        before = read_report(path, "gate", GateReport)
        if before is None:
            raise GateError(f"bundle {path.name} was sealed without a gate; export again to have it judged")
        _show(before, console)
        if not before.passed:
            raise GateError(
                f"bundle {path.name} failed on {before.at} and was sealed past its gate: report/forced.json"
            )
        if not before.loosened() or servers_know(path.parent, path.name):
            console.print(f"bundle {path.name} passed on {before.at} and is {state.value}: nothing to do")
            return
        console.print(f"bundle {path.name} was sealed by looser rules and never in use: judged again")
        reopen(path)
    report = judge(path, settings)
    write_atomic(path / "report" / "gate.json", encode(report))
    write_atomic(path / "report" / "index.html", write_page(path.name, path / "report").encode())
    _show(report, console)
    failed = [rule.name for rule in report.rules if rule.verdict is Verdict.FAILED]
    if failed:
        if state is State.GATED:
            set_state(path, State.EVALUATED)
        raise GateError(
            f"bundle {path.name} may not go out: {', '.join(failed)} failed; make a better one, change the rules in "
            'conf/gate/, or `playbill publish force=true reason="..."`'
        )
    set_state(path, State.GATED)
    seal(path)
    held = sum(rule.verdict is Verdict.PASSED for rule in report.rules)
    nevertheless = ', which refuses looser rules unless given force=true reason="..."' if report.loosened() else ""
    console.print(f"bundle {path.name} passed {held} rules and is sealed; next: playbill publish{nevertheless}")


def judge(path: Path, settings: GateSettings) -> GateReport:
    """Return every rule's verdict on the bundle in a folder, writing nothing.

    Raises:
        GateError: there are no rules.
        BundleError: the bundle was not evaluated, or its files changed since.
    """
    rules = settings.gate
    if rules.empty():
        raise GateError("no rules: a gate that asks nothing lets everything through; choose gate=standard")
    evaluation = read_report(path, "evaluation", Evaluation)
    if evaluation is None or state_of(path) is State.STAGED:
        raise BundleError(f"bundle {path.name} was not evaluated; run `playbill evaluate bundle={path.name}`")
    if content_hash(path) != evaluation.content:
        raise BundleError(
            f"bundle {path.name} changed after it was evaluated; run `playbill evaluate bundle={path.name}` again"
        )
    check_reports(path)
    _check_beside(path, evaluation, settings)
    rungs = open_bundle(path, require_sealed=False).rungs
    reports: dict[str, Any] = {
        file.stem: msgspec.json.decode(file.read_bytes()) for file in (path / "report").glob("*.json")
    }
    judged = [judge_paired(name, rule, evaluation, rungs) for name, rule in rules.paired.items()]
    judged += [judge_limit(name, rule, reports, rungs) for name, rule in rules.limits.items()]
    calibration = read_report(path, "calibration", CalibrationReport)
    judged += [judge_calibration(name, rule, calibration, rungs) for name, rule in rules.calibration.items()]
    value = read_report(path, "value", Value)
    judged += [judge_value(name, rule, value, rungs) for name, rule in rules.value.items()]
    disparity = read_report(path, "disparity", DisparityReport)
    judged += [judge_disparity(name, rule, disparity, rungs) for name, rule in rules.disparity.items()]
    return GateReport(
        bundle=path.name,
        passed=all(rule.verdict is not Verdict.FAILED for rule in judged),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        evaluation=evaluation.fingerprint,
        against=evaluation.against,
        preset=settings.preset[0] if settings.preset else "",
        changed=changes_of(settings.preset[1], rules) if settings.preset else [],
        rules=judged,
    )


def _check_beside(path: Path, evaluation: Evaluation, settings: GateSettings) -> None:
    """Refuse figures that were measured beside another bundle than the one asked for."""
    wanted = (current(path.parent) or "") if settings.against == CURRENT else settings.against
    if wanted in (evaluation.against, path.name):
        return
    raise BundleError(
        f"bundle {path.name} was evaluated beside {evaluation.against or 'no other bundle'}, and is to be held against "
        f"{wanted or 'none'}; run `playbill evaluate bundle={path.name}{f' against={wanted}' if wanted else ''}` again"
    )


def _show(report: GateReport, console: Console) -> None:
    console.print(_table(report))
    style = "bold yellow" if report.loosened() else "dim"
    console.print(f"rules: {report.by()}", style=style, markup=False, highlight=False)


def _table(report: GateReport) -> Table:
    grid = Table(
        "rule",
        "asks",
        "found",
        "verdict",
        title=f"gate of bundle {report.bundle}",
        title_justify="left",
        box=SIMPLE_HEAD,
    )
    for rule in report.rules:
        grid.add_row(rule.name, rule.rule, rule.found, f"[{_STYLES[rule.verdict]}]{rule.verdict.value}[/]")
    return grid
