"""What decisions brought: the events that answer them, within a window, and only where the window is over.

An event names one decision. Where that is a decision of another kind, its reward belongs to all decisions of the same
place (request and position): a click that names the item is also the reward of the artwork it was shown with, and an
opened mail that of its hour. Where several decisions of the kind stand at one place nobody knows which was answered:
only events that name one of them count there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from playbill.errors import MeasureError
from playbill.measure.off_policy.settings import OffPolicyQuestion, RewardOf
from playbill.measure.statement import refuse_rows
from playbill.tables.folder import read_table

_HOUR_US = 3_600_000_000
_PLACE = ("request_id", "position")


def with_rewards(
    tables: Path, decisions: pl.DataFrame, mine: np.ndarray, question: OffPolicyQuestion, notes: list[str]
) -> tuple[pl.DataFrame, np.ndarray]:
    """Return the decisions whose window is over, and their rewards ([N] float64).

    Args:
        tables: the folder.
        decisions: all decisions, of every kind.
        mine: [rows of decisions] bool, those that are measured.
        question: which events are rewards, and for how long.
        notes: what was left out is added here.
    Raises:
        MeasureError: no such event, none that answers these decisions, or a value that is not a number; names table,
            column, count and first rows.
    """
    answers, last_us = _answers(tables, question)
    if answers["decision_id"].dtype != decisions["decision_id"].dtype:
        raise MeasureError(
            f"events.decision_id is {answers['decision_id'].dtype} and decisions.decision_id is "
            f"{decisions['decision_id'].dtype}; write both alike"
        )
    decisions = decisions.with_columns(pl.col("at").cast(pl.Int64).alias("decided_us"))
    rows = decisions.filter(mine)
    matched = _matched(answers, decisions, rows, question, notes)
    window_us = round(question.within_h * _HOUR_US)
    if window_us:
        rows = _complete(rows, max(last_us, _latest(rows["decided_us"])), window_us, question, notes)
    after = matched.join(rows.select("decision_id", "decided_us"), on="decision_id")
    late = pl.col("event_us") - pl.col("decided_us")
    early = int(after.select((late < 0).sum()).item())
    if early:
        notes.append(f"{early:,} {question.reward_event} events come before their decision and were not counted")
    after = after.filter((late >= 0) & (late <= window_us)) if window_us else after.filter(late >= 0)
    each = {RewardOf.ANY: pl.lit(1.0), RewardOf.COUNT: pl.len().cast(pl.Float64), RewardOf.SUM: pl.col("value").sum()}
    totals = after.group_by("decision_id").agg(each[question.reward].alias("reward"))
    joined = rows.select("decision_id").join(totals, on="decision_id", how="left", maintain_order="left")
    return rows, joined["reward"].fill_null(0.0).cast(pl.Float64).to_numpy()


def _answers(tables: Path, question: OffPolicyQuestion) -> tuple[pl.DataFrame, int]:
    """Return the events that are rewards (decision_id, event_us, value), and when the last event of any name came."""
    summed = question.reward is RewardOf.SUM
    events = pl.DataFrame(read_table(tables, "events", ["event", "at", "decision_id", *(["value"] if summed else [])]))
    events = events.with_columns(pl.col("at").cast(pl.Int64).alias("event_us"))
    named = (events["event"] == question.reward_event).fill_null(False)
    if not named.any():
        names = ", ".join(sorted(events["event"].drop_nulls().unique().to_list()))
        raise MeasureError(f"events.event: no event {question.reward_event!r}; there are: {names or 'none'}")
    answering = named & events["decision_id"].is_not_null()
    if summed:
        value = events["value"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        bad = answering.to_numpy() & ~np.isfinite(value)
        refuse_rows("events", "value", bad, value, f"the value of a {question.reward_event} is its reward")
    return events.filter(answering).drop("event", "at"), _latest(events["event_us"])


def _matched(
    answers: pl.DataFrame,
    decisions: pl.DataFrame,
    rows: pl.DataFrame,
    question: OffPolicyQuestion,
    notes: list[str],
) -> pl.DataFrame:
    """Return the answers with the measured decision that each belongs to, as `decision_id`."""
    direct = answers.join(rows.select("decision_id"), on="decision_id", how="semi")
    place = [name for name in _PLACE if name in decisions.columns]
    others = answers.join(rows.select("decision_id"), on="decision_id", how="anti")
    others = others.join(decisions.select("decision_id", *place), on="decision_id").drop("decision_id")
    # such as two artworks of one item, or a slate without positions
    several = rows.select(place).is_duplicated()
    shared = rows.filter(several).select(place).unique()
    lost = len(others.join(shared, on=place, how="semi", nulls_equal=True))
    if lost:
        notes.append(
            f"{lost:,} {question.reward_event} events name a decision of another kind at one of {len(shared):,} places "
            f"(request and position) where several {question.kind} decisions stand, and were not counted: nobody knows "
            "which of them was answered"
        )
    others = others.join(rows.filter(~several).select("decision_id", *place), on=place, nulls_equal=True)
    matched = pl.concat([direct, others.select(direct.columns)])
    if not len(matched):
        named = decisions.join(answers, on="decision_id", how="semi")["kind"].drop_nulls().unique().to_list()
        raise MeasureError(
            f"events.decision_id: none of the {question.reward_event} events that name a decision ({len(answers):,}) "
            f"answers these {len(rows):,} decisions of kind {question.kind}, or one at the same request and position; "
            f"they name decisions of kind {', '.join(sorted(named)) or 'none'}"
        )
    return matched


def _complete(
    rows: pl.DataFrame, last_us: int, window_us: int, question: OffPolicyQuestion, notes: list[str]
) -> pl.DataFrame:
    """Return the decisions whose window is over when the log ends: later ones have had less time to be answered."""
    whole = rows.filter(pl.col("decided_us") + window_us <= last_us)
    if not len(whole):
        raise MeasureError(
            f"decisions.at: no decision lies {question.within_h:g} hours before the end of the log; shorten "
            "question.within_h, or set it to 0 to count events whenever they came"
        )
    if len(whole) < len(rows):
        notes.append(
            f"{len(rows) - len(whole):,} of {len(rows):,} decisions of the last {question.within_h:g} hours "
            "are left out: their events may still come"
        )
    return whole


def _latest(values: pl.Series) -> int:
    found = values.max()
    return int(found) if isinstance(found, int) else 0
