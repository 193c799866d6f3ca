"""Who was assigned to which arm: decisions of kind experiment_arm, held against every fault they can have."""

from __future__ import annotations

import difflib
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from playbill.errors import MeasureError
from playbill.measure.experiments.settings import ExperimentQuestion
from playbill.measure.scan import ROW, columns_of, refuse, scan

DECLARED = (
    "question.shares are declared by who asks, and decisions.propensity does not tell the same: people may have chosen "
    "their arm themselves, so what the arms differ by is a difference, and no effect of the treatment"
)
_ROUNDING = 0.002  # three arms of 0.333 are meant to be thirds


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """The people of an experiment, in the order of the log.

    Attributes:
        experiment: its name.
        unit: "user_id" or "session_id".
        ids: [n] ids as the log has them.
        arms: names, the control first, then by name.
        arm: [n] int64, row of `arms`.
        shares: planned share by arm, summing to 1; None where the log has no propensities and none were given.
        logged: every assignment carries its arm's share as its propensity: the log itself tells that arms were drawn.
        decision_ids: [n] of the assignments.
        at_us: [n] int64, microseconds since 1970, when they were assigned.
        cluster: [n] int64, or None.
    """

    experiment: str
    unit: str
    ids: pl.Series
    arms: list[str]
    arm: np.ndarray
    shares: list[float] | None
    logged: bool
    decision_ids: pl.Series
    at_us: np.ndarray
    cluster: np.ndarray | None = None


def read_assignment(tables: Path, question: ExperimentQuestion) -> Assignment:
    """Return who was in which arm, and since when.

    Raises:
        MeasureError: no such experiment; a person in two arms, or assigned twice; no id or time; a propensity that is
            missing, <= 0, > 1, or not one for an arm; an arm without people; no control; no cluster. Each names column,
            count and first rows.
        TableError: no decisions, or a column is missing.
    """
    unit = question.unit.value
    frame = scan(tables, "decisions", ["decision_id", "request_id", "kind", "chosen", "at", unit])
    has_shares = "propensity" in columns_of(tables, "decisions")
    experiment = _experiment(frame, question.experiment)
    rows = (
        frame.filter((pl.col("kind") == "experiment_arm") & (pl.col("request_id").cast(pl.String) == experiment))
        .select(
            ROW,
            "decision_id",
            pl.col(unit).alias("id"),
            pl.col("chosen").cast(pl.String).alias("arm"),
            pl.col("at").dt.epoch("us").alias("at_us"),
            (pl.col("propensity").cast(pl.Float64) if has_shares else pl.lit(None, pl.Float64)).alias("share"),
        )
        .collect()
    )
    other = "session_id" if unit == "user_id" else "user_id"
    none = f"everybody assigned needs an id; question=experiment question.unit={other} reads decisions.{other}"
    refuse(rows, pl.col("id").is_null(), f"decisions.{unit}", "id", none)
    refuse(rows, pl.col("arm").is_null(), "decisions.chosen", "arm", "an assignment names an arm")
    refuse(rows, pl.col("at_us").is_null(), "decisions.at", "at_us", "an assignment has a time")
    twice = pl.col("id").is_duplicated()
    both = "one arm for each, and these are in two or more: leave them out and say so, or read the log that decided"
    refuse(rows, twice & (pl.col("arm").n_unique().over("id") > 1), f"decisions.{unit}", "id", both)
    again = "duplicate assignments: one row for each, write the first alone"
    refuse(rows, twice, f"decisions.{unit}", "id", again)
    arms = _arms(rows["arm"].unique().to_list(), question)
    shares = _shares(rows, arms, question)
    return Assignment(
        experiment=experiment,
        unit=unit,
        ids=rows["id"],
        arms=arms,
        arm=rows["arm"].replace_strict(arms, list(range(len(arms))), return_dtype=pl.Int64).to_numpy(),
        shares=shares,
        logged=shares is not None and _logged(rows, dict(zip(arms, shares, strict=True))),
        decision_ids=rows["decision_id"],
        at_us=rows["at_us"].to_numpy(),
        cluster=_clusters(tables, rows["id"], question) if question.cluster else None,
    )


def _experiment(frame: pl.LazyFrame, named: str) -> str:
    arms = frame.filter(pl.col("kind") == "experiment_arm")
    there = sorted(arms.select(pl.col("request_id").cast(pl.String).unique()).collect().to_series().drop_nulls())
    if not there:
        raise MeasureError("decisions.kind: no row is an experiment_arm, so nobody was assigned to anything")
    if named in there:
        return named
    some = ", ".join(there[:10]) + (f" and {len(there) - 10:,} more" if len(there) > 10 else "")
    if named:
        near = difflib.get_close_matches(named, there, n=1, cutoff=0.0)[0]
        raise MeasureError(f"decisions.request_id: no experiment {named!r}; nearest is {near!r}; there are: {some}")
    if len(there) > 1:
        raise MeasureError(f"{len(there):,} experiments in the log; choose one with question.experiment=NAME: {some}")
    return str(there[0])


def _arms(found: list[str], question: ExperimentQuestion) -> list[str]:
    names = sorted(found)
    expected = [*question.arms, *question.shares]
    empty = sorted(set(expected) - set(names))
    if empty:
        raise MeasureError(
            f"decisions.chosen: no users in arm {', '.join(empty)}; the arms in the log: {', '.join(names)}"
        )
    if expected and set(names) - set(expected):
        extra = ", ".join(sorted(set(names) - set(expected)))
        raise MeasureError(
            f"decisions.chosen: arm {extra} is in the log and not among those named: {', '.join(expected)}"
        )
    if question.control not in names:
        near = difflib.get_close_matches(question.control, names, n=1, cutoff=0.0)[0]
        raise MeasureError(
            f"decisions.chosen: no users in the control {question.control!r}; nearest is {near!r}; in the log: "
            f"{', '.join(names)}; name the control with question.control=ARM"
        )
    if len(names) < 2:
        raise MeasureError(f"decisions.chosen: all {question.control!r}: an experiment has two arms or more")
    return [question.control, *(name for name in names if name != question.control)]


def _shares(rows: pl.DataFrame, arms: list[str], question: ExperimentQuestion) -> list[float] | None:
    if question.shares:
        return [question.shares[arm] for arm in arms]
    if rows["share"].is_null().all():
        return None
    share = pl.col("share")
    say = "the planned share of the arm, in (0, 1]; give all of them with question.shares={ARM: SHARE, ...}"
    refuse(rows, ~(share.is_not_null() & (share > 0) & (share <= 1)), "decisions.propensity", "share", say)
    low, high = share.min().over("arm"), share.max().over("arm")
    changed = (
        "one share for an arm; where it was changed midway the arms hold people of different days, and their "
        "difference is not the treatment's: read each stretch of time by itself"
    )
    refuse(rows, high - low > 1e-9, "decisions.propensity", "share", changed)
    by_arm = dict(rows.group_by("arm").agg(share.first()).iter_rows())
    shares = [float(by_arm[arm]) for arm in arms]
    total = sum(shares)
    if abs(total - 1) > _ROUNDING:
        listed = ", ".join(f"{arm}: {s:g}" for arm, s in zip(arms, shares, strict=True))
        raise MeasureError(
            f"decisions.propensity: the planned shares of the arms in the log sum to {total:.4g}, not 1 ({listed}): "
            "an arm that was planned has no users, or these are no shares of the experiment's people; give them with "
            "question.shares={ARM: SHARE, ...}"
        )
    return [share / total for share in shares]


def _logged(rows: pl.DataFrame, shares: dict[str, float]) -> bool:
    """Return whether the log's propensities stand to each other as these shares, which may be anybody's guess."""
    share = rows["share"]
    if share.is_null().any() or not (share > 0).all():
        return False
    scale = sum(part for (part,) in rows.group_by("arm").agg(pl.col("share").first()).select("share").iter_rows())
    planned = rows["arm"].replace_strict(shares, return_dtype=pl.Float64)
    return bool(((share / scale - planned).abs() <= _ROUNDING).all())


def _clusters(tables: Path, ids: pl.Series, question: ExperimentQuestion) -> np.ndarray:
    if question.unit.value != "user_id":
        raise MeasureError(f"question.cluster={question.cluster} is a column of users, and sessions were assigned")
    users = scan(tables, "users", ["user_id", question.cluster])
    known = users.select(pl.col("user_id").alias("id"), pl.col(question.cluster).alias("cluster"))
    asked = ids.to_frame("id").with_row_index(ROW)
    found = asked.join(known.collect(), on="id", how="left", maintain_order="left")
    say = "everybody assigned needs a cluster; the row is that of the person among those assigned"
    refuse(found, pl.col("cluster").is_null(), f"users.{question.cluster}", "id", say)
    return found["cluster"].rank("dense").cast(pl.Int64).to_numpy()
