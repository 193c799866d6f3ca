"""Rules that weigh evidence, by hand: what passes, what fails, and what is refused for lack of support."""

from __future__ import annotations

from typing import Any

import pytest

from playbill.cli import compose
from playbill.errors import ConfigError
from playbill.measure.bootstrap import Interval
from playbill.measure.calibration import Calibration, Tenth
from playbill.measure.off_policy.overlap import Overlap
from playbill.release.calibrating import CalibrationReport
from playbill.release.disparity import DisparityReport, Gap
from playbill.release.evidence import judge_calibration, judge_disparity, judge_value
from playbill.release.gate_settings import Beside, CalibrationRule, DisparityRule, GateSettings, ValueRule
from playbill.release.plots import calibration_png
from playbill.release.rules import Verdict
from playbill.release.value import Value, Valued

RUNGS = ["popularity", "item_knn", "towers", "ranker"]


def task(name: str, *ratios: tuple[float, float, float], enough: bool = True) -> Calibration:
    tenths = [
        Tenth(
            low=0.1,
            high=0.2,
            rows=1_000,
            observed=150.0 * value,
            expected=150.0,
            ratio=Interval(value=value, low=low, high=high),
            enough=enough,
        )
        for value, low, high in ratios
    ]
    return Calibration(
        task=name,
        rows=1_000 * len(tenths),
        units=50,
        events=150.0,
        ratio=None,
        error=Interval(value=0.01, low=0.0, high=0.02),
        error_by_chance=0.008,
        log_loss=0.4,
        log_loss_of_mean=0.5,
        tenths=tenths,
        furthest=None,
    )


FINE, WIDE, LOW, HIGH = (1.02, 0.9, 1.1), (0.7, 0.4, 1.0), (0.7, 0.6, 0.85), (1.4, 1.2, 1.6)


@pytest.mark.parametrize(
    ("tasks", "rule", "verdict"),
    [
        ([task("click", FINE, FINE)], {}, Verdict.PASSED),
        ([task("click", FINE, WIDE)], {}, Verdict.PASSED),  # far off, and chance may explain it
        ([task("click", FINE, LOW)], {}, Verdict.FAILED),
        ([task("click", HIGH)], {}, Verdict.FAILED),
        ([task("click", HIGH)], {"high": 1.3}, Verdict.PASSED),
        ([task("click", FINE), task("buy", HIGH)], {"tasks": ["click"]}, Verdict.PASSED),
        ([task("click", FINE), task("buy", HIGH)], {}, Verdict.FAILED),
        ([task("click", HIGH, enough=False)], {}, Verdict.REFUSED),
        ([task("click", HIGH, enough=False)], {"required": True}, Verdict.FAILED),
        ([], {}, Verdict.REFUSED),
    ],
)
def test_calibration(tasks: list[Calibration], rule: dict[str, Any], verdict: Verdict) -> None:
    report = CalibrationReport(rows="", tasks=tasks)
    judged = judge_calibration("r", CalibrationRule(**rule), report, RUNGS)
    assert judged.verdict is verdict
    if verdict is Verdict.PASSED:
        assert "click: " in judged.found and "error 0.0100 [0.0000, 0.0200]" in judged.found


def test_reliability_is_drawn_whatever_there_is_to_draw() -> None:
    empty = task("view")
    first = calibration_png([task("click", FINE, HIGH), task("buy", WIDE, enough=False), empty])
    assert first.startswith(b"\x89PNG") and first == calibration_png(
        [task("click", FINE, HIGH), task("buy", WIDE, enough=False), empty]
    )


def test_calibration_that_was_not_measured() -> None:
    assert judge_calibration("r", CalibrationRule(), None, RUNGS).verdict is Verdict.FAILED
    assert judge_calibration("r", CalibrationRule(), None, RUNGS[:3]).verdict is Verdict.NOT_APPLIED
    with pytest.raises(ConfigError, match="rule r: calibration of buy was not measured; measured: click"):
        judge_calibration("r", CalibrationRule(tasks=["buy"]), CalibrationReport(rows="", tasks=[task("click")]), RUNGS)


def overlap(refused: str = "") -> Overlap:
    return Overlap(
        rounds=900,
        units=300,
        effective_rounds=210.0,
        effective_units=150.0,
        largest_weight=8.0,
        largest_possible_weight=8.0,
        mean_weight=1.0,
        mean_weight_low=0.9,
        mean_weight_high=1.1,
        unsupported_mass=0.0,
        unused_share=0.5,
        largest_share=0.01,
        rewarded_rounds=120,
        refused=refused,
        warnings=[],
    )


def value(**changes: Any) -> Value:
    fields: dict[str, Any] = {
        "refused": "",
        "estimator": "DR",
        "decisions": 900,
        "new": Valued(bundle="b", less_logged=Interval(value=-0.03, low=-0.05, high=-0.01), overlap=overlap()),
        "current": Valued(bundle="a", overlap=overlap()),
        "less_current": Interval(value=-0.01, low=-0.03, high=0.01),
    }
    return Value(**fields | changes)


def untold(loss: float, **changes: Any) -> Value:
    """A log that tells a loss of so much beside the bundle in use, and of 0.02 beside its own policy."""
    known = Interval(value=0.2, low=0.15, high=0.25)
    new = Valued(
        bundle="b", less_logged=Interval(value=-0.03, low=-0.05, high=-0.01), told_loss=0.02, overlap=overlap()
    )
    current = Valued(bundle="a", value=known, overlap=overlap())
    return value(**{"new": new, "current": current, "logged": known, "told_loss": loss} | changes)


@pytest.mark.parametrize(
    ("report", "rule", "verdict", "says"),
    [
        (value(), {}, Verdict.PASSED, "difference -0.01 [-0.03, +0.01] (DR, 900 decisions worth 210, 0.0% without"),
        (value(), {"against": Beside.logged}, Verdict.FAILED, "-0.03 [-0.05, -0.01]"),
        (value(), {"against": Beside.logged, "margin": 0.02}, Verdict.PASSED, "-0.03"),
        (value(refused="20% lies on actions"), {}, Verdict.REFUSED, "20% lies on actions"),
        (value(refused="20% lies on actions"), {"required": True}, Verdict.FAILED, "20% lies on actions"),
        (value(current=None, less_current=None), {}, Verdict.NOT_APPLIED, "no bundle in use"),
        (
            value(current=Valued(bundle="a", overlap=overlap("never")), less_current=None),
            {},
            Verdict.REFUSED,
            "of the bundle in use: never",
        ),
        (value(less_current=None), {}, Verdict.REFUSED, "too few rewards"),
        (None, {}, Verdict.REFUSED, "no report/value.json"),
        (value(), {"needs": ["creative"]}, Verdict.NOT_APPLIED, "carries no creative"),
        (untold(0.03), {}, Verdict.PASSED, "tells a loss of 0.03 (15% of 0.2) or more"),
        (untold(0.05), {}, Verdict.REFUSED, "(25% of 0.2) or more, at most 20% may go untold: log more"),
        (untold(0.05), {"most_untold": 0.3}, Verdict.PASSED, "0.05 (25%"),
        (untold(0.05), {"required": True}, Verdict.FAILED, "log more"),
        (untold(0.05), {"margin": 0.01}, Verdict.REFUSED, "a loss of 0.05 beyond 0.01 (25%"),
        # what was found is no less true for a log that could have missed it
        (untold(0.05, less_current=Interval(value=-0.06, low=-0.1, high=-0.02)), {}, Verdict.FAILED, "0.05 (25%"),
        (untold(0.05), {"against": Beside.logged}, Verdict.FAILED, "a loss of 0.02 (10% of 0.2) or more"),
        (untold(0.05), {"against": Beside.logged, "margin": 0.02, "most_untold": 0.09}, Verdict.REFUSED, "(10%"),
    ],
)
def test_value(report: Value | None, rule: dict[str, Any], verdict: Verdict, says: str) -> None:
    judged = judge_value("r", ValueRule(**rule), report, RUNGS)
    assert judged.verdict is verdict and says in judged.found


def gap(ratio: float | None, high: float | None, differs: bool, not_judged: str = "") -> Gap:
    return Gap(
        group="g=b",
        people=60,
        value=None if not_judged else 0.1,
        reference="g=a",
        reference_value=0.2,
        ratio=ratio,
        ratio_low=None,
        ratio_high=high,
        p_value=0.01,
        p_corrected=0.02,
        differs=differs,
        not_judged=not_judged,
    )


@pytest.mark.parametrize(
    ("gaps", "verdict"),
    [
        ([gap(0.7, 1.1, False)], Verdict.PASSED),
        ([gap(0.7, 0.79, True), gap(1.0, 1.2, False)], Verdict.FAILED),
        ([gap(0.85, 0.9, True)], Verdict.PASSED),  # differs, and by less than the rule forbids
        ([gap(None, None, True)], Verdict.FAILED),  # gets nothing at all
        ([gap(0.5, 0.6, True, "12 people, fewer than 30")], Verdict.REFUSED),
        ([], Verdict.REFUSED),
    ],
)
def test_disparity(gaps: list[Gap], verdict: Verdict) -> None:
    report = DisparityReport(metric="ndcg_at_20", gaps=gaps)
    judged = judge_disparity("r", DisparityRule(), report, RUNGS)
    assert judged.verdict is verdict
    required = judge_disparity("r", DisparityRule(required=True), report, RUNGS)
    assert required.verdict is (Verdict.FAILED if verdict is Verdict.REFUSED else verdict)


def test_rules_that_ask_nothing_are_refused() -> None:
    for rule in (
        lambda: CalibrationRule(low=1.2),
        lambda: ValueRule(margin=-1),
        lambda: DisparityRule(least_ratio=1.0),
    ):
        with pytest.raises(ConfigError, match="must"):
            rule()


def test_strict_is_standard_with_less_patience() -> None:
    standard, strict = (compose("gate", [f"gate={name}"]).gate for name in ("standard", "strict"))
    assert set(standard.paired) == set(strict.paired) and set(standard.limits) == set(strict.limits)
    assert strict.paired["not_far_below_best_rival"].margin < standard.paired["not_far_below_best_rival"].margin
    assert strict.value["not_worth_less_than_logged"].against is Beside.logged
    assert strict.value["not_worth_less_than_current"].most_untold < ValueRule().most_untold
    required = [*strict.calibration.values(), *strict.value.values(), *strict.disparity.values()]
    assert all(rule.required for rule in required)
    first = compose("gate", ["bundle=abc", "against=def", "gate.calibration.probabilities_come_true.high=1.2"])
    assert isinstance(first, GateSettings) and (first.bundle, first.against) == ("abc", "def")
    assert first.gate.calibration["probabilities_come_true"].high == 1.2
