"""From the tables to a trial: who was assigned to which arm, and what they did inside the window."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from playbill.errors import MeasureError
from playbill.measure.uplift.settings import Outcome, UpliftQuestion
from playbill.measure.uplift.trial import Trial, make_trial, repeated
from playbill.tables.folder import read_table

_ASSIGNED = ["request_id", "kind", "chosen", "user_id", "at", "propensity"]


def read_trial(question: UpliftQuestion, tables: Path) -> tuple[Trial, list[str]]:
    """Return the trial of the question's experiment and warnings; people in order of their assignment's row.

    Raises:
        MeasureError: no such experiment or event, a missing, zero or too large propensity, an arm with several, an arm
            without people, somebody without user_id or assigned twice, an event without the value that is summed.
        TableError: a table or column is missing.
    """
    rows = _assignments(question, tables)
    share = rows["propensity"].to_numpy()
    refuse = partial(_refuse, "decisions", rows)
    refuse("user_id", rows["user_id"].is_null().to_numpy(), "an assignment needs the person")
    bad = ~(np.isfinite(share) & (share > 0) & (share <= 1))
    refuse("propensity", bad, "the arm's planned share must lie in (0, 1]")
    users = rows["user_id"].to_numpy()
    again = repeated(users)
    if again.any():
        arms_of = rows.group_by("user_id").agg(pl.col("chosen").n_unique())
        both = int((arms_of["chosen"] > 1).sum())
        refuse("user_id", again, f"a person is assigned once ({both:,} people stand in two arms)")
    names = _arm_names(question, rows)
    arm = np.asarray(rows["chosen"].cast(pl.String).replace_strict({n: i for i, n in enumerate(names)}))
    lowest = np.array([share[arm == a].min() for a in range(len(names))])
    highest = np.array([share[arm == a].max() for a in range(len(names))])
    if (highest - lowest > 1e-9).any():
        a = int((highest - lowest).argmax())
        refuse(
            "propensity",
            (arm == a) & (share != lowest[a]),
            f"arm {names[a]!r} has shares from {lowest[a]:g} to {highest[a]:g}; measure people of one share at a time",
        )
    if abs(lowest.sum() - 1) > 1e-6:
        shown = dict(zip(names, lowest.tolist(), strict=True))
        raise MeasureError(
            f"decisions.propensity: the planned shares of {question.experiment or 'the experiment'} sum to "
            f"{lowest.sum():g}, not 1: {shown}; an arm without people, or shares of something else"
        )
    outcome, warnings = _outcomes(question, tables, rows)
    return make_trial(names, arm, lowest, outcome, users), warnings


def _assignments(question: UpliftQuestion, tables: Path) -> pl.DataFrame:
    rows = pl.DataFrame(read_table(tables, "decisions", _ASSIGNED)).with_row_index("row")
    rows = rows.filter(pl.col("kind") == "experiment_arm").with_columns(
        pl.col("propensity").cast(pl.Float64).fill_null(np.nan)
    )
    there = sorted(rows["request_id"].cast(pl.String).unique().to_list())
    if not there:
        raise MeasureError("decisions has no row of kind experiment_arm, so nothing was randomised")
    if not question.experiment and len(there) > 1:
        raise MeasureError(f"question.experiment must name one of {', '.join(there[:20])}")
    wanted = question.experiment or there[0]
    if wanted not in there:
        raise MeasureError(f"no experiment {wanted!r} in decisions.request_id; there are: {', '.join(there[:20])}")
    return rows.filter(pl.col("request_id").cast(pl.String) == wanted)


def _refuse(table: str, rows: pl.DataFrame, column: str, bad: np.ndarray, why: str) -> None:
    """Raise as `refuse_rows` does, with rows numbered as in the table's file and not as in the part at hand."""
    if bad.any():
        first = rows.filter(pl.Series(bad)).head(5)
        shown = ", ".join(f"row {row}: {value!r}" for row, value in zip(first["row"], first[column], strict=True))
        raise MeasureError(
            f"{table}.{column}: {why}; {int(bad.sum()):,} of {len(rows):,} rows break this, first {shown}"
        )


def _arm_names(question: UpliftQuestion, rows: pl.DataFrame) -> list[str]:
    names = sorted(rows["chosen"].cast(pl.String).unique().to_list())
    if question.control not in names:
        raise MeasureError(f"nobody is in arm {question.control!r}, the control; question.control is one of {names}")
    unknown = set(question.cost) - set(names)
    if unknown:
        raise MeasureError(f"question.cost names {sorted(unknown)}, which are no arms of the experiment: {names}")
    return [question.control, *(n for n in names if n != question.control)]


def _outcomes(question: UpliftQuestion, tables: Path, rows: pl.DataFrame) -> tuple[np.ndarray, list[str]]:
    """Return [N] float64 outcomes in the order of the assignments, and warnings."""
    needed = ["user_id", "event", "at", *(["value"] if question.outcome is Outcome.SUM else [])]
    file = tables / "events.parquet"
    if not file.is_file():
        raise MeasureError(f"{tables} has no table events, so nothing is known of what people did")
    missing = [c for c in needed if c not in pq.read_schema(file).names]
    if missing:
        raise MeasureError(f"events has no column {', '.join(missing)}, which outcome={question.outcome.name} needs")
    # a log may hold many more events than the outcome: only those are read
    log = pl.scan_parquet(file, hive_partitioning=False).with_row_index("row")
    last = log.select(pl.col("at").max()).collect().item()
    events = log.filter(pl.col("event") == question.event).select("row", *needed).collect()
    if not len(events):
        kinds = sorted(log.select(pl.col("event").cast(pl.String).unique()).collect()["event"].to_list())
        raise MeasureError(f"nobody did {question.event!r}; events there are: {', '.join(kinds[:20])}")
    if question.outcome is Outcome.SUM:
        value = events["value"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        _refuse("events", events, "value", ~np.isfinite(value), f"every {question.event} needs a value to be summed")
    window = pl.duration(microseconds=int(question.window_h * 3_600_000_000))
    inside = (
        events.join(rows.select("user_id", pl.col("at").alias("from")), on="user_id", how="inner")
        .filter((pl.col("at") >= pl.col("from")) & (pl.col("at") < pl.col("from") + window))
        .group_by("user_id")
        .agg(pl.len().alias("count"), (pl.col("value").sum() if "value" in events.columns else pl.len()).alias("sum"))
    )
    joined = rows.select("user_id").join(inside, on="user_id", how="left", maintain_order="left")
    column = "sum" if question.outcome is Outcome.SUM else "count"
    outcome = joined[column].fill_null(0).cast(pl.Float64).to_numpy()
    if question.outcome is Outcome.HAPPENED:
        outcome = (outcome > 0).astype(np.float64)
    unfinished = int(rows.select((pl.col("at") + window > last).sum()).item())
    warnings = []
    if unfinished:
        warnings.append(
            f"the window of {unfinished:,} of {len(rows):,} people ends after the last event of the log: what they did "
            "later is not counted"
        )
    return outcome, warnings
