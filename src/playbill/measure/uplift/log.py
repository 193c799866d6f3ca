"""From the tables to a trial: who was assigned to which arm, and what they did inside the window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from playbill.errors import MeasureError
from playbill.measure.experiments.assignment import DECLARED, Assignment, read_assignment
from playbill.measure.experiments.rows import until_us
from playbill.measure.experiments.settings import ExperimentQuestion
from playbill.measure.scan import ROW, refuse, scan
from playbill.measure.uplift.settings import Outcome, UpliftQuestion
from playbill.measure.uplift.trial import Trial, make_trial


def read_trial(question: UpliftQuestion, tables: Path) -> tuple[Trial, list[str]]:
    """Return the trial of the question's experiment and warnings; people in the order of their assignments.

    People whose window is not over when the log ends are left out, of all arms alike: the day of assignment is no
    effect of the arm, and what they have not done yet is no refusal.

    Raises:
        MeasureError: no such experiment or event, a propensity that is missing, <= 0, > 1 or not one for an arm, an arm
            without people, somebody without user_id or assigned twice, an event without the value that is summed,
            nobody whose window is over; names column, count and first rows.
        ConfigError: `question.until` is no time.
        TableError: a table or column is missing.
    """
    asked = ExperimentQuestion(experiment=question.experiment, control=question.control, shares=question.shares)
    assigned = read_assignment(tables, asked)
    if assigned.shares is None:
        raise MeasureError(
            f"decisions.propensity: {assigned.experiment} was logged without the planned shares of its arms, and the "
            "value of a rule cannot be told without them; give question.shares={ARM: SHARE, ...}"
        )
    unknown = sorted(set(question.cost) - set(assigned.arms))
    if unknown:
        raise MeasureError(f"question.cost names {', '.join(unknown)}, no arm of the experiment: {assigned.arms}")
    outcome = _outcomes(question, tables, assigned)
    watched_h = (until_us(tables, question.until) - assigned.at_us) / 3.6e9
    over = watched_h >= question.window_h
    if not over.any():
        raise MeasureError(
            f"nobody was watched for {question.window_h:g} hours (longest {watched_h.max():.3g}); wait, or shorten the "
            "window (question.window_h, question.until)"
        )
    warnings = [] if assigned.logged else [DECLARED]
    if not over.all():
        warnings.append(
            f"{(~over).sum():,} of {len(over):,} people left out: the log ends before their {question.window_h:g} "
            "hours are over"
        )
    trial = make_trial(
        assigned.arms,
        assigned.arm[over],
        np.asarray(assigned.shares),
        outcome[over],
        assigned.ids.to_numpy()[over],
        logged=assigned.logged,
    )
    return trial, warnings


def _outcomes(question: UpliftQuestion, tables: Path, assigned: Assignment) -> np.ndarray:
    """Return [N] float64 outcomes in the order of the assignments."""
    summed = question.outcome is Outcome.SUM
    wanted = ["user_id", "event", "at", *(["value"] if summed else [])]
    log = scan(tables, "events", wanted)
    # a log may hold many more events than the outcome: only those are read
    at_us = pl.col("at").dt.epoch("us").alias("at_us")
    events = log.filter(pl.col("event") == question.event).select(ROW, *wanted, at_us).collect()
    if not len(events):
        kinds = log.select(pl.col("event").cast(pl.String).unique()).collect()["event"].sort().to_list()
        raise MeasureError(f"events.event: nobody did {question.event!r}; there are: {', '.join(kinds[:20])}")
    value = pl.col("value").cast(pl.Float64).fill_null(float("nan")) if summed else pl.lit(1.0)
    if summed:
        why = f"every {question.event} needs a value to be summed"
        refuse(events, ~value.is_finite(), "events.value", "value", why)
    window_us = int(question.window_h * 3_600_000_000)
    people = pl.DataFrame({"user_id": assigned.ids, "from_us": assigned.at_us})
    inside = (
        events.join(people, on="user_id", how="inner")
        .filter((pl.col("at_us") >= pl.col("from_us")) & (pl.col("at_us") < pl.col("from_us") + window_us))
        .group_by("user_id")
        .agg(value.sum().alias("outcome") if summed else pl.len().alias("outcome"))
    )
    joined = people.join(inside, on="user_id", how="left", maintain_order="left")
    outcome = joined["outcome"].cast(pl.Float64).fill_null(0.0).to_numpy()
    if question.outcome is Outcome.HAPPENED:
        outcome = (outcome > 0).astype(np.float64)
    return outcome
