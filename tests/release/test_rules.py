from __future__ import annotations

import math
from dataclasses import replace

import pytest

from playbill.cli import compose
from playbill.errors import ConfigError
from playbill.measure.bootstrap import Interval
from playbill.release.gate_settings import DisparityRule, LimitRule, PairedRule
from playbill.release.report import Evaluation, Figures, ModelReport
from playbill.release.rule_changes import changes_of
from playbill.release.rules import Verdict, judge_limit, judge_paired

RUNGS = ["popularity", "item_knn", "towers"]


def evaluation(low: float, high: float, users: int = 50, notes: list[str] | None = None) -> Evaluation:
    difference = Interval(value=(low + high) / 2, low=low, high=high)
    served = Figures(
        users=users, against={"popularity": {"ndcg_at_20": difference}, "ease": {"ndcg_at_20": difference}}
    )
    slices = {"all": served} if users else {}
    rivals = [
        ModelReport(name=n, label=n, rival=True, about="", slices={"all": Figures(users=users)} if users else {})
        for n in ("popularity", "ease")
    ]
    return Evaluation(
        fingerprint="",
        content="",
        bundle="b",
        tables="t",
        protocol={},
        ks=[20],
        users={"all": users, "known": users, "new": 0},
        best_rival="ease" if users else None,
        models=[ModelReport(name="served", label="", rival=False, about="", slices=slices), *rivals],
        notes=notes or [],
    )


def paired(found: Evaluation, rungs: list[str] = RUNGS, **rule: object) -> Verdict:
    settings = {"metric": "ndcg_at_20", "against": "popularity"} | rule
    return judge_paired("r", PairedRule(**settings), found, rungs).verdict  # type: ignore[arg-type]  # a test's kwargs


@pytest.mark.parametrize(
    ("low", "high", "margin", "verdict"),
    [
        (-0.10, 0.01, 0.0, Verdict.PASSED),  # chance could have done it
        (-0.10, -0.01, 0.0, Verdict.FAILED),
        (-0.10, -0.01, 0.02, Verdict.PASSED),
        (-0.10, -0.03, 0.02, Verdict.FAILED),
        (-0.10, 0.0, 0.0, Verdict.PASSED),
        (0.01, 0.10, 0.0, Verdict.PASSED),
    ],
)
def test_only_an_interval_wholly_below_fails(low: float, high: float, margin: float, verdict: Verdict) -> None:
    assert paired(evaluation(low, high), margin=margin) is verdict
    assert paired(evaluation(low, high), margin=margin, against="best_rival") is verdict


def test_a_rule_that_needs_a_rung_does_not_apply_without_it() -> None:
    assert paired(evaluation(-1, -0.5), ["popularity"], needs=["towers"]) is Verdict.NOT_APPLIED
    assert paired(evaluation(-1, -0.5), needs=["towers"]) is Verdict.FAILED


def test_nothing_measured_stops_what_was_learned_and_not_what_was_counted() -> None:
    nobody = evaluation(0, 0, users=0)
    assert paired(nobody) is Verdict.FAILED
    assert paired(nobody, ["popularity", "item_knn"]) is Verdict.NOT_APPLIED
    assert paired(evaluation(0, 0), slice="new") is Verdict.NOT_APPLIED


def test_the_first_bundle_has_nothing_in_use_to_beat_and_says_so() -> None:
    rule = PairedRule(metric="ndcg_at_20", against="current")
    first = judge_paired("r", rule, evaluation(-1, -0.5), RUNGS)
    assert (first.verdict, first.found) == (Verdict.NOT_APPLIED, "there is no bundle in use yet")
    note = "current bundle b0 was not measured: it may know the answers"
    later = judge_paired("r", rule, evaluation(-1, -0.5, notes=["EASE was left out", note]), RUNGS)
    assert (later.verdict, later.found) == (Verdict.NOT_APPLIED, note)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"against": "popularty"}, "no model 'popularty'; it has: served, popularity, ease"),
        ({"model": "towr"}, "no model 'towr'"),
        ({"slice": "old"}, "no slice 'old'; there are: all, known, new"),
        ({"metric": "ndcg_at_5"}, "no ndcg_at_5 of served less popularity; measured: ndcg_at_20"),
        ({"model": "popularity"}, "held against itself"),
    ],
)
def test_a_rule_about_what_does_not_exist_is_an_error(rule: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        paired(evaluation(0, 1), **rule)


@pytest.mark.parametrize(
    ("rule", "value", "verdict"),
    [
        ({"at_least": 0.95}, 0.95, Verdict.PASSED),
        ({"at_least": 0.95}, 0.949, Verdict.FAILED),
        ({"at_most": 1.0}, 1.0, Verdict.PASSED),
        ({"at_most": 1.0}, 1.01, Verdict.FAILED),
        ({"at_least": 1.0}, True, Verdict.PASSED),
        ({"at_least": 1.0}, False, Verdict.FAILED),
        ({"at_least": 0.0}, math.nan, Verdict.FAILED),
        ({"at_most": 9.0}, math.nan, Verdict.FAILED),
        ({"at_least": 0.0}, "0.99", Verdict.FAILED),
    ],
)
def test_limits(rule: dict[str, float], value: object, verdict: Verdict) -> None:
    judged = judge_limit("r", LimitRule(report="index", figure="a.b", **rule), {"index": {"a": {"b": value}}}, RUNGS)
    assert judged.verdict is verdict


def test_a_check_that_was_not_made_is_not_passed() -> None:
    rule = LimitRule(report="parity", figure="worst_share", at_most=1.0)
    assert judge_limit("r", rule, {}, RUNGS).verdict is Verdict.FAILED
    assert judge_limit("r", rule, {"parity": {}}, RUNGS).verdict is Verdict.FAILED
    assert judge_limit("r", rule, {"parity": []}, RUNGS).verdict is Verdict.FAILED


@pytest.mark.parametrize(
    "make", [lambda: LimitRule(report="a", figure="b"), lambda: PairedRule(metric="x", against="y")]
)
def test_a_rule_without_sense_is_refused(make: object) -> None:
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]  # a lambda in a parameter


def test_a_change_of_the_rules_is_looser_unless_it_surely_asks_for_more() -> None:
    preset = compose("gate", []).gate

    def found(*overrides: str) -> list[tuple[str, bool]]:
        settings = compose("gate", list(overrides))
        assert settings.preset == ("standard", preset)
        return [(f"{c.rule}.{c.field}", c.looser) for c in changes_of(preset, settings.gate)]

    assert found() == []
    near = "paired.not_far_below_best_rival"
    assert found(f"gate.{near}.margin=0.01") == [(f"{near}.margin", False)]
    assert found(f"gate.{near}.margin=0.03") == [(f"{near}.margin", True)]
    assert found(f"gate.{near}.against=popularity") == [(f"{near}.against", True)]
    assert found(f"gate.{near}.needs=[]") == [(f"{near}.needs", False)]
    assert found(f"gate.{near}.needs=[towers,ranker]") == [(f"{near}.needs", True)]
    index = "limits.index_finds_the_nearest"
    assert found(f"gate.{index}.at_least=0.9", f"gate.{index}.at_most=1") == [
        (f"{index}.at_least", True),
        (f"{index}.at_most", False),
    ]
    assert found(f"gate.{index}.optional=true") == [(f"{index}.optional", True)]
    assert found("gate.calibration.probabilities_come_true={low: 0.8, high: 1.05, required: true}") == [
        ("calibration.probabilities_come_true.low", True),
        ("calibration.probabilities_come_true.high", False),
        ("calibration.probabilities_come_true.required", False),
    ]
    assert found("~gate.value.not_worth_less_than_current") == [("value.not_worth_less_than_current.", True)]
    more = replace(preset, disparity={**preset.disparity, "more": DisparityRule()})
    assert [(c.rule, c.looser) for c in changes_of(preset, more)] == [("disparity.more", False)]
    # a file of its own is a preset of its own, however much less it asks
    strict = compose("gate", ["gate=strict"])
    assert strict.preset == ("strict", strict.gate)
