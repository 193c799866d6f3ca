"""What a bundle's order would have been worth on the decisions that were logged, or why the log cannot say.

The policy that is valued is the bundle's own order without its exploration, with profiles as they stood when the test
part begins. Where a decision says what was eligible, the bundle takes the eligible item that stands highest on its own
list; where none is said, it takes what stands at that position of its slate. Decisions of the test part alone count:
the bundle has learned from what came before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from playbill.bundle.open import Bundle
from playbill.dataset.dataset import Dataset
from playbill.dataset.settings import SplitKind
from playbill.errors import MeasureError, TableError
from playbill.measure.bootstrap import Interval
from playbill.measure.off_policy.estimators import Contributions, difference, dr, on_policy, snips
from playbill.measure.off_policy.intervals import ValueInterval, bootstrap_intervals, told_loss
from playbill.measure.off_policy.log import Log
from playbill.measure.off_policy.overlap import Overlap, overlap
from playbill.measure.off_policy.reward_model import ActionMeans, cross_fit
from playbill.measure.off_policy.rounds import Rounds, read_rounds
from playbill.measure.off_policy.settings import OffPolicyQuestion
from playbill.measure.opening import check_tables
from playbill.release.logged import logs_of, of_test
from playbill.tables.folder import has_table


class Valued(msgspec.Struct, kw_only=True):
    """One bundle on the log.

    Attributes:
        value: mean reward of a decision, had this bundle chosen; None where refused.
        less_logged: that less what the logging policy got, on the same decisions.
        told_loss: smallest loss beside the logging policy that such a log tells, 9 times in 10; None where unknown.
        overlap: what the importance weights are worth.
    """

    bundle: str
    value: Interval | None = None
    less_logged: Interval | None = None
    told_loss: float | None = None
    overlap: Overlap


class Value(msgspec.Struct, kw_only=True):
    """`report/value.json`.

    Attributes:
        refused: why no value can be read; empty where one can. That is a result: the log holds nothing about it.
        reward: what a decision's reward is.
        decisions, requests: of the test part that were looked at.
        estimator: DR where eligible items are known, else SNIPS.
        logged: mean reward of the logging policy.
        new, current: the bundle that is evaluated, and the one in use.
        less_current: new less current, paired on the same decisions.
        told_loss: smallest loss beside the bundle in use that such a log tells, 9 times in 10; None where unknown.
    """

    refused: str
    reward: str = ""
    decisions: int = 0
    requests: int = 0
    estimator: str = ""
    logged: Interval | None = None
    new: Valued | None = None
    current: Valued | None = None
    less_current: Interval | None = None
    told_loss: float | None = None
    notes: list[str] = []


def measure_value(
    bundles: Sequence[Bundle],
    tables: Path,
    dataset: Dataset,
    question: OffPolicyQuestion,
    *,
    most_requests: int,
    seed: int,
    level: float,
) -> Value:
    """Return what the new bundle, and the one in use if given, would have been worth.

    Args:
        bundles: the new one first.
        tables: folder that the dataset was opened from.
        question: kind, policy, reward and least overlap; its target is not read.
        most_requests: of the log, drawn by `seed` where there are more.
    """
    if dataset.split.kind is not SplitKind.global_time:
        return Value(refused="the split is not by time, so every logged decision may have been learned from")
    if not has_table(tables, "decisions"):
        return Value(refused="the tables hold no decisions: nothing was logged that says what else could be shown")
    try:
        check_tables(tables)
        rounds = read_rounds(tables, question)
        rounds, context = of_test(rounds, tables, dataset, most_requests, seed)
        logs = logs_of(bundles, rounds, context, tables, dataset)
        return _value(bundles, logs, rounds, question, seed, level)
    except (MeasureError, TableError) as error:
        return Value(refused=f"the log cannot be used: {error}")


def _value(
    bundles: Sequence[Bundle],
    logs: Sequence[Log],
    rounds: Rounds,
    question: OffPolicyQuestion,
    seed: int,
    level: float,
) -> Value:
    found = [
        overlap(
            log,
            most_unsupported=question.most_unsupported,
            least_effective=question.least_effective,
            resamples=question.resamples,
            seed=seed,
        )
        for log in logs
    ]
    valued = [Valued(bundle=b.version, overlap=o) for b, o in zip(bundles, found, strict=True)]
    answer = Value(
        refused=found[0].refused,
        reward=f"{question.reward.value} {question.reward_event} within {question.within_h:g} hours",
        decisions=len(logs[0]),
        requests=len(np.unique(rounds.request)),
        estimator="SNIPS" if logs[0].choices is None else "DR",
        new=valued[0],
        current=valued[1] if len(valued) > 1 else None,
        notes=rounds.notes,
    )
    logged = on_policy(logs[0])
    several = {"logged": logged}
    for place, (log, one) in enumerate(zip(logs, found, strict=True)):
        if not one.refused:
            own = contributions(log, question, seed)
            several |= {f"value {place}": own, f"less logged {place}": difference(own, logged)}
    if "value 0" in several and "value 1" in several:
        several["less current"] = difference(several["value 0"], several["value 1"])
    unit = logs[0].unit
    assert unit is not None
    spans = bootstrap_intervals(list(several.values()), unit, resamples=question.resamples, seed=seed, level=level)
    known = {name: _interval(span) for name, span in zip(several, spans, strict=True)}
    told = {name: told_loss(span) for name, span in zip(several, spans, strict=True)}
    answer.logged, answer.less_current = known["logged"], known.get("less current")
    answer.told_loss = told.get("less current")
    for place, one_bundle in enumerate(valued):
        one_bundle.value, one_bundle.less_logged = known.get(f"value {place}"), known.get(f"less logged {place}")
        one_bundle.told_loss = told.get(f"less logged {place}")
    return answer


def contributions(log: Log, question: OffPolicyQuestion, seed: int) -> Contributions:
    """Return what each decision adds to a bundle's value: by DR where eligible items are known, else by SNIPS."""
    if log.choices is None:
        return snips(log)
    actions = int(max(log.action.max(), log.choices.action.max())) + 1
    return dr(log, cross_fit(log, lambda: ActionMeans(actions), folds=question.folds, seed=seed))


def _interval(found: ValueInterval) -> Interval | None:
    """Return the interval, None where resamples hold too little spread for one."""
    if not np.isfinite([found.low, found.high]).all():
        return None
    return Interval(value=found.value, low=found.low, high=found.high)
