"""`playbill measure question=interleaving`: lists that two rankers made together, and the clicks on them."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from playbill.errors import MeasureError
from playbill.measure.interleaving.settings import InterleavingQuestion
from playbill.measure.interleaving.team_draft import Preference, preference, winners
from playbill.measure.people import unit_warnings, units
from playbill.measure.scan import ROW, columns_of, refuse, scan
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Reading, Statement

_BROKEN_COIN = 0.001


def run(question: InterleavingQuestion, tables: Path, settings: MeasureSettings) -> Reading:
    """Return which ranker people prefer.

    Raises:
        MeasureError: no such lists, events or rankers, more than two rankers, or a place of a list that is filled
            twice; names column, count and first rows.
        TableError: no such tables or columns.
    """
    placed = _placements(tables, question)
    ours, theirs = _teams(placed, question)
    clicked = _clicked(tables, question).join(placed.select("decision_id", decided="at"), on="decision_id", how="left")
    early = clicked["at"] < clicked["decided"]
    credit = clicked.filter(~early.fill_null(False))["decision_id"].unique()
    placed = placed.with_columns(pl.col("decision_id").is_in(credit.implode()).alias("credited"))
    both = placed.filter(pl.col("team").is_in([ours, theirs]))
    both = both.filter(pl.col("team").n_unique().over("request") == 2)
    if both.is_empty():
        raise MeasureError(
            f"decisions.{question.team_column.value}: no list holds items of both {ours!r} and {theirs!r}; "
            "an interleaved list is one request_id with both"
        )
    lists = both.group_by("request", maintain_order=True).agg(
        pl.col("person").first(),
        pl.col("credited").filter(pl.col("team") == ours).sum().alias("ours"),
        pl.col("credited").filter(pl.col("team") == theirs).sum().alias("theirs"),
        pl.col("team").sort_by("position").first().alias("first"),
    )
    person = lists["person"].rank("dense").cast(pl.Int64).to_numpy() - 1
    winner = winners(lists["ours"].to_numpy(), lists["theirs"].to_numpy())
    found = preference(person, winner, resamples=question.resamples, seed=settings.seed, level=settings.level)
    coin = _coin(int((lists["first"] == ours).sum()), len(lists))
    number = units(lists["person"])
    who = " or ".join(number)
    return Reading(
        title=f"Interleaving: {ours} against {theirs}, {found.lists:,} lists of {found.people:,} {who}",
        statements=_statements(found, ours, theirs, who, coin >= _BROKEN_COIN, settings.level),
        tables={
            "rankers": _ranker_rows(both, lists, ours, theirs),
            "lists": [{"outcome": f"{ours} won", "lists": found.won}, {"outcome": f"{theirs} won", "lists": found.lost},
                      {"outcome": "tied", "lists": found.tied}],
        },
        verdict=_verdict(found, ours, theirs, who, settings.level),
        warnings=unit_warnings(number) + _warnings(placed, both, coin, clicked, int(early.sum()), found),
    )  # fmt: skip


def _placements(tables: Path, question: InterleavingQuestion) -> pl.DataFrame:
    """Return request, person, team, position, decision_id and time of every placement."""
    column = question.team_column.value
    frame = scan(tables, "decisions", ["decision_id", "request_id", "kind", "position", "at", column])
    known = columns_of(tables, "decisions")
    # a session may bear the number of a person
    who = [pl.format(f"{c[0]}:{{}}", c) for c in ("user_id", "session_id", "request_id") if c in known]
    rows = (
        frame.filter(pl.col("kind") == question.kind)
        .select(
            ROW,
            "decision_id",
            pl.col("request_id").alias("request"),
            # people without a name are told apart by session, at worst by list
            pl.coalesce(who).alias("person"),
            pl.col(column).alias("team"),
            "position",
            "at",
        )
        .collect()
    )
    if rows.is_empty():
        kinds = scan(tables, "decisions", ["kind"]).select(pl.col("kind").unique()).collect().to_series().sort()
        raise MeasureError(f"decisions.kind: no {question.kind!r}; there are: {', '.join(kinds.drop_nulls())}")
    refuse(rows, pl.col("position").is_null(), "decisions.position", "position", "a placement has a place in its list")
    twice = pl.struct("request", "position").is_duplicated()
    refuse(rows, twice, "decisions.position", "position", "a place of a list is filled once; write each decision once")
    refuse(rows, pl.col("decision_id").is_duplicated(), "decisions.decision_id", "decision_id", "each has its own id")
    return rows


def _teams(placed: pl.DataFrame, question: InterleavingQuestion) -> tuple[str, str]:
    column = f"decisions.{question.team_column.value}"
    there = sorted(placed["team"].drop_nulls().unique())
    for named in filter(None, (question.ours, question.theirs)):
        if named not in there:
            near = difflib.get_close_matches(named, there, n=1, cutoff=0.0)
            hint = f"nearest is {near[0]!r}; there are: {', '.join(there)}" if near else "the column is empty"
            raise MeasureError(f"{column}: no ranker {named!r}; {hint}")
    left = [name for name in there if name not in (question.ours, question.theirs)]
    missing = (not question.ours) + (not question.theirs)
    if missing and len(left) != missing:
        raise MeasureError(
            f"{column}: {len(there)} rankers in the log ({', '.join(there) or 'none'}); "
            "choose two with question.ours=NAME question.theirs=NAME"
        )
    ours = question.ours or left.pop(0)
    return ours, question.theirs or left.pop(0)


def _clicked(tables: Path, question: InterleavingQuestion) -> pl.DataFrame:
    """Return decision_id and time of every click that names its decision."""
    events = scan(tables, "events", ["event", "decision_id", "at"])
    clicks = events.filter(pl.col("event") == question.event).select("decision_id", "at").collect()
    ids = clicks["decision_id"]
    if not len(ids):
        names = events.select(pl.col("event").unique()).collect().to_series().drop_nulls().sort()
        raise MeasureError(f"events.event: no {question.event!r}; there are: {', '.join(names)}")
    if ids.null_count() == len(ids):
        raise MeasureError(
            f"events.decision_id: empty in all {len(ids):,} rows of event {question.event!r}; "
            "credit needs the decision that was clicked"
        )
    return clicks.filter(ids.is_not_null())


def _coin(ours_first: int, lists: int) -> float:
    from scipy.stats import binomtest

    return float(binomtest(ours_first, lists).pvalue)


def _statements(found: Preference, ours: str, theirs: str, who: str, fair: bool, level: float) -> list[Statement]:
    decided = found.people_ours + found.people_theirs
    common: dict[str, Any] = {
        "level": level,
        "randomised": fair,
        "assumptions": [
            "a coin decided in every round who placed first",
            "people click what they like more often, wherever it came from",
            f"{who} are independent of each other",
        ],
    }
    nobody = "" if decided else "nobody clicked more on one ranker's items than on the other's"
    return [
        Statement(
            name=f"preference for {ours} over {theirs}",
            estimate=found.delta,
            low=found.low,
            high=found.high,
            n=found.people,
            of=who,
            unit="of lists won above one half",
            method=f"team draft (Radlinski et al. 2008), bootstrap over {who}",
            details={"lists": found.lists, "won": found.won, "lost": found.lost, "tied": found.tied},
            **common,
        ),
        Statement(
            name=f"{who} who prefer {ours}",
            estimate=None if nobody else found.share,
            low=None if nobody else found.share_low,
            high=None if nobody else found.share_high,
            n=decided,
            of=f"{who} with a preference",
            unit=f"of {who} with a preference",
            method=f"exact sign test, p = {found.p_value:.2g}",
            refused=nobody,
            details={"p_value": found.p_value, "people_ours": found.people_ours, "people_theirs": found.people_theirs},
            **common,
        ),
    ]


def _ranker_rows(both: pl.DataFrame, lists: pl.DataFrame, ours: str, theirs: str) -> list[dict[str, Any]]:
    rows = []
    for team in (ours, theirs):
        mine = both.filter(pl.col("team") == team)
        rows.append(
            {
                "ranker": team,
                "placed": len(mine),
                "first_places": int((lists["first"] == team).sum()),
                "mean_position": float(np.mean(mine["position"].to_numpy())),
                "credited": int(mine["credited"].sum()),
                "credited_share": float(np.mean(mine["credited"].to_numpy())),
            }
        )
    return rows


def _verdict(found: Preference, ours: str, theirs: str, who: str, level: float) -> str:
    if found.p_value >= 1 - level:
        return f"No preference shown between {ours} and {theirs} (sign test over {who}, p = {found.p_value:.2g})."
    better, worse = (ours, theirs) if found.people_ours > found.people_theirs else (theirs, ours)
    return f"People prefer {better} to {worse} (sign test over {who}, p = {found.p_value:.2g})."


def _warnings(
    placed: pl.DataFrame, both: pl.DataFrame, coin: float, clicked: pl.DataFrame, early: int, found: Preference
) -> list[str]:
    warnings = []
    if coin < _BROKEN_COIN:
        warnings.append(
            f"one ranker places first too often for a fair coin (p = {coin:.2g}); first places are clicked most"
        )
    single = placed["request"].n_unique() - found.lists
    if single:
        warnings.append(
            f"{single:,} lists hold items of one of the two rankers alone, or of neither; they are left out"
        )
    strange = clicked.filter(~pl.col("decision_id").is_in(placed["decision_id"].implode()))["decision_id"].n_unique()
    if early:
        warnings.append(f"{early:,} clicks are left out: they come before the decision that they name")
    if strange:
        warnings.append(f"{strange:,} clicked decisions are not among these lists; they earn no credit")
    if not both["credited"].any():
        warnings.append("no placement was clicked")
    return warnings
