"""The statements of an uplift reading: average effects, the ranking's curves, and what each rule earns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from playbill.measure.bootstrap import Interval
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Statement
from playbill.measure.uplift.curves import areas, best_qini, curve
from playbill.measure.uplift.settings import UpliftQuestion
from playbill.measure.uplift.trial import CONTROL, Trial
from playbill.measure.uplift.value import policy_values

NOBODY = "nobody"
LEARNED = "learned targeting"
BEST = "best single treatment to all"
RANDOM = "best single treatment at random"

_DRAWN = "people were drawn into the arms at random with the planned shares, whatever they are like"
_APART = "one person's treatment does not change another's outcome"
_GIVEN = "the ranking is taken as given: the intervals do not hold what another training would have changed"


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """What the trial is worth as a whole.

    Attributes:
        randomised: the log tells the planned shares, and the arms are filled as planned.
        flagged: why nothing counts, where the sample-ratio check failed; empty otherwise.
    """

    randomised: bool
    flagged: str = ""

    @property
    def warnings(self) -> list[str]:
        """What stands at every statement."""
        return [self.flagged] if self.flagged else []


def average_effect(trial: Trial, arm: int, unit: str, level: float, trust: Trust) -> Statement:
    """Return the average effect of an arm: the difference of means, with unequal variances.

    Refused with fewer than two people in an arm, since one shows no variance.
    """
    from scipy.stats import norm

    treated, control = trial.outcome[trial.arm == arm], trial.outcome[trial.arm == CONTROL]
    shared: dict[str, Any] = {
        "name": f"effect, {trial.arms[arm]} - {trial.arms[CONTROL]}",
        "level": level,
        "n": len(treated) + len(control),
        "unit": f"{unit} per person",
        "method": "difference of means, normal interval with unequal variances",
        "randomised": trust.randomised,
        "assumptions": [_DRAWN, _APART],
        "warnings": trust.warnings,
    }
    if min(len(treated), len(control)) < 2:
        why = f"an interval needs two people or more in both arms, got {len(treated)} and {len(control)}"
        return Statement(estimate=None, refused=why, **shared)
    effect = float(treated.mean() - control.mean())
    error = float(np.sqrt(treated.var(ddof=1) / len(treated) + control.var(ddof=1) / len(control)))
    reach = float(norm.ppf((1 + level) / 2)) * error
    return Statement(
        estimate=effect,
        low=effect - reach,
        high=effect + reach,
        details={"treated": float(treated.mean()), "control": float(control.mean()), "standard_error": error},
        **shared,
    )


def ranking(
    question: UpliftQuestion,
    trial: Trial,
    effect: np.ndarray,
    arm: int,
    settings: MeasureSettings,
    how: str,
    trust: Trust,
) -> tuple[list[Statement], list[dict[str, Any]]]:
    """Return Qini coefficient and AUUC of one arm's predicted effects, and the curves at every tenth of the people."""
    rows = (trial.arm == arm) | (trial.arm == CONTROL)
    treated, outcome, score = trial.arm[rows] == arm, trial.outcome[rows], effect[rows, arm]
    found = areas(
        {"score": score},
        treated,
        outcome,
        resamples=question.resamples,
        seed=settings.seed,
        level=settings.level,
    )
    name = f"{trial.arms[arm]} - {trial.arms[CONTROL]}"
    shape = curve(score, treated, outcome)
    best = best_qini(treated, outcome)
    details: dict[str, Any] = {} if best is None else {"q0": found["qini score"].value / best}
    about = "bootstrap of people, "
    shared: dict[str, Any] = {
        "level": settings.level,
        "n": int(rows.sum()),
        "randomised": trust.randomised,
        "assumptions": [_DRAWN, _APART, _GIVEN],
        "warnings": trust.warnings,
    }
    qini, area = found["qini score"], found["auuc score"]
    statements = [
        Statement(
            name=f"Qini coefficient, {name}",
            estimate=qini.value,
            low=qini.low,
            high=qini.high,
            unit="outcome per treated person x share of people",
            method=f"{about}area between the Qini curve of {how} and random targeting (Radcliffe 2007)",
            details=details,
            **shared,
        ),
        Statement(
            name=f"AUUC, {name}",
            estimate=area.value,
            low=area.low,
            high=area.high,
            unit="outcome per treated person x share of people",
            method=f"{about}area under the uplift curve (Gutierrez and Gerardy 2017)",
            details={"of a ranking that says nothing": float(shape.uplift[-1] / 2)},
            **shared,
        ),
    ]
    depths = np.linspace(0.1, 1.0, 10)
    table = [
        {
            "treatment": trial.arms[arm],
            "share of people": round(float(d), 2),
            "qini": float(np.interp(d, shape.depth, shape.qini)),
            "uplift": float(np.interp(d, shape.depth, shape.uplift)),
            "random": float(d * shape.qini[-1]),
        }
        for d in depths
    ]
    return statements, table


def values(
    question: UpliftQuestion,
    trial: Trial,
    plans: Mapping[str, np.ndarray],
    parts: Mapping[str, np.ndarray],
    doubly: Mapping[str, np.ndarray],
    settings: MeasureSettings,
    cost: np.ndarray,
    trust: Trust,
) -> tuple[list[Statement], list[dict[str, Any]]]:
    """Return what the rules earn against each other, and a table of what each treats and spends.

    Where the sample-ratio check failed the values are refused: they weigh people by shares that were not carried out.

    Args:
        plans: [N, A] by rule.
        parts: [N] float by rule, inverse-propensity contributions.
        doubly: [N] float by rule, doubly robust ones, for the details; empty leaves them out.
        cost: [A] float.
    """

    def pairs_of(parts: Mapping[str, np.ndarray]) -> dict[tuple[str, str], Interval]:
        return policy_values(parts, resamples=question.resamples, seed=settings.seed, level=settings.level)[1]

    pairs = {} if trust.flagged else pairs_of(parts)
    robust = pairs_of(doubly) if doubly and not trust.flagged else {}

    def against(name: str, other: str, found: Mapping[tuple[str, str], Interval]) -> Interval | None:
        if (name, other) in found:
            return found[name, other]
        if (other, name) not in found:
            return None
        back = found[other, name]
        return Interval(value=-back.value, low=-back.high, high=-back.low)

    wanted = [(name, NOBODY) for name in plans if name != NOBODY]
    wanted += [(LEARNED, name) for name in plans if name not in (NOBODY, LEARNED)]
    wanted += [(BEST, RANDOM)]
    statements = []
    for name, other in wanted:
        by_weight, beside = (against(name, other, found) for found in (pairs, robust))
        details = {} if beside is None else {"doubly robust": [beside.value, beside.low, beside.high]}
        statements.append(
            Statement(
                name=f"value, {name} - {other}",
                estimate=None if by_weight is None else by_weight.value,
                low=None if by_weight is None else by_weight.low,
                high=None if by_weight is None else by_weight.high,
                level=settings.level,
                n=len(trial),
                unit="money per person, net of cost",
                method="inverse propensity with the planned shares, paired bootstrap of people",
                randomised=trust.randomised,
                assumptions=[_DRAWN, _APART, _GIVEN],
                refused=trust.flagged,
                details=details,
            )
        )
    table = []
    for name, plan in plans.items():
        row: dict[str, Any] = {"rule": name, "people treated": float(1 - plan[:, CONTROL].mean())}
        row["cost per person"] = float((plan @ cost).mean())
        if not trust.flagged:
            row["net value per person"] = float(parts[name].mean())
        for a in range(1, len(trial.arms)):
            row[trial.arms[a]] = float(plan[:, a].mean())
        table.append(row)
    return statements, table


def sentence(name: str, other: str, s: Statement) -> str:
    """Return in words whether one rule earns more than another."""
    assert s.estimate is not None and s.low is not None and s.high is not None
    sure = "more" if s.low > 0 else "less" if s.high < 0 else "neither surely more nor less"
    return (
        f"{name[0].upper()}{name[1:]} earns {sure} than {other}: {s.estimate:+.4g} [{s.low:.4g}, {s.high:.4g}] "
        "per person, net of cost."
    )
