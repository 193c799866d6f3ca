"""Rounds from the tables: decisions of one kind with their propensities, and what people did after each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from playbill.errors import MeasureError
from playbill.measure.off_policy.agreement import check_agreement, check_policy_name
from playbill.measure.off_policy.eligible import Eligible, actions_of
from playbill.measure.off_policy.features import features_of
from playbill.measure.off_policy.log import check_propensities
from playbill.measure.off_policy.rewards import with_rewards
from playbill.measure.off_policy.settings import OffPolicyQuestion, RewardOf, Unit
from playbill.measure.statement import refuse_rows
from playbill.tables.folder import read_table

_NEEDED = ("decision_id", "request_id", "kind", "chosen", "at")
_USED = ("user_id", "session_id", "position", "propensity", "policy", "eligible_count", "context")


@dataclass(slots=True)
class Rounds:
    """N decisions and their rewards, before there is a target policy.

    Attributes:
        decision_id: [N], as written.
        action: [N] int64, index into `actions`.
        actions: names of actions, as text.
        reward, propensity: [N] float64.
        position, request, unit, person: [N] int64.
        units_are: people, requests or decisions.
        features: [N, F] float64 or None.
        eligible: lists of eligible actions, or None.
        eligible_count: [N] float64, or None.
        reward_low, reward_high: range of a reward; inf where unknown.
        notes: what was left out, and other things to know about the log.
    """

    decision_id: pl.Series
    action: np.ndarray
    actions: list[str]
    reward: np.ndarray
    propensity: np.ndarray
    position: np.ndarray
    request: np.ndarray
    unit: np.ndarray
    person: np.ndarray
    units_are: str
    features: np.ndarray | None
    eligible: Eligible | None
    eligible_count: np.ndarray | None
    reward_low: float
    reward_high: float
    notes: list[str] = field(default_factory=list)


def read_rounds(tables: Path, question: OffPolicyQuestion) -> Rounds:
    """Return the decisions that the question is about, with their rewards.

    Raises:
        TableError: no such table.
        MeasureError: no such decisions or events, a decision id that stands twice, a missing or impossible propensity,
            a reward that is not a number; names table, column, count and first rows.
    """
    every, mine = _decisions(tables, question)
    notes: list[str] = []
    decisions, reward = with_rewards(tables, every, mine, question, notes)
    action, names, eligible = actions_of(decisions, every=question.every_action_eligible)
    propensity = decisions["propensity"].to_numpy()
    count = decisions["eligible_count"].to_numpy() if "eligible_count" in decisions.columns else None
    check_policy_name(decisions["policy"] if "policy" in decisions.columns else None, propensity, count)
    if eligible is not None:
        check_agreement(eligible, action, propensity, names)
    person, people = _people(decisions)
    request = _codes(decisions["request_id"])
    unit, units_are = {
        Unit.PERSON: (person, people),
        Unit.REQUEST: (request, "requests"),
        Unit.DECISION: (np.arange(len(decisions)), "decisions"),
    }[question.unit]
    position = decisions["position"].fill_null(0).cast(pl.Int64).to_numpy() if "position" in decisions.columns else None
    known = question.reward is RewardOf.ANY or question.reward_high > 0
    return Rounds(
        decision_id=decisions["decision_id"],
        action=action,
        actions=names,
        reward=reward,
        propensity=propensity,
        position=np.zeros(len(decisions), np.int64) if position is None else position,
        request=request,
        unit=unit,
        person=person,
        units_are=units_are,
        features=features_of(tables, decisions, question.features),
        eligible=eligible,
        eligible_count=count,
        reward_low=question.reward_low,
        reward_high=(question.reward_high or 1.0) if known else np.inf,
        notes=notes,
    )


def _decisions(tables: Path, question: OffPolicyQuestion) -> tuple[pl.DataFrame, np.ndarray]:
    """Return all decisions, and which of them the question is about."""
    file = tables / "decisions.parquet"
    there = set(pq.read_schema(file).names) if file.is_file() else set(_NEEDED)  # read_table says what is missing
    columns = [*_NEEDED, *(name for name in _USED if name in there)]
    frame = pl.DataFrame(read_table(tables, "decisions", columns))
    mine = (frame["kind"] == question.kind).fill_null(False)
    if not mine.any():
        kinds = ", ".join(sorted(frame["kind"].drop_nulls().unique().to_list()))
        raise MeasureError(f"decisions.kind: no decision of kind {question.kind}; there are: {kinds or 'none'}")
    if question.policy:
        if "policy" not in there:
            raise MeasureError("decisions has no column policy; leave question.policy empty to take all decisions")
        policies = ", ".join(sorted(frame.filter(mine)["policy"].drop_nulls().unique().to_list()))
        mine &= (frame["policy"] == question.policy).fill_null(False)
        if not mine.any():
            raise MeasureError(f"decisions.policy: no decision by {question.policy!r}; there are: {policies or 'none'}")
    if "propensity" not in there:
        raise MeasureError(
            "decisions has no column propensity; log the probability with which each action was drawn, without it no "
            "other policy's value can be read from this log"
        )
    rows = mine.to_numpy()
    propensity = frame["propensity"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    check_propensities("decisions", propensity, rows)
    ids = frame["decision_id"]
    refuse_rows("decisions", "decision_id", rows & ids.is_duplicated().to_numpy(), ids, "a decision id stands once")
    return frame, rows


def _codes(values: pl.Series) -> np.ndarray:
    """Return int64 numbers, equal where values are equal."""
    return values.rank("dense").cast(pl.Int64).to_numpy() - 1


def _people(decisions: pl.DataFrame) -> tuple[np.ndarray, str]:
    """Return [N] int64 numbers of people, sessions where nobody is known, else requests; and what they are."""
    there = [name for name in ("user_id", "session_id", "request_id") if name in decisions.columns]
    # a letter before each, so that user 7 and session 7 stay apart
    who = [pl.lit(f"{name[0]}:") + pl.col(name).cast(pl.String) for name in there]
    return _codes(decisions.select(pl.coalesce(who)).to_series()), "people" if len(there) > 1 else "requests"
