"""`question=feedback`: from a decisions log to a reading round by round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from playbill.errors import MeasureError
from playbill.measure.feedback.draw import rounds_png
from playbill.measure.feedback.rounds import read_rounds
from playbill.measure.feedback.settings import FeedbackQuestion
from playbill.measure.lists.catalogue import Catalogue, needs, open_catalogue
from playbill.measure.people import WHO, with_who
from playbill.measure.settings import MeasureSettings
from playbill.measure.spread import pair_diversity
from playbill.measure.statement import Reading, refuse_rows
from playbill.measure.times import DAY_US, iso
from playbill.tables.folder import read_table

__all__ = ["picture", "run"]

picture = rounds_png  # what `playbill measure` draws of the answer


def run(question: FeedbackQuestion, tables: Path, settings: MeasureSettings) -> Reading:
    """Return whether what people were shown shrinks over the rounds of a log.

    Raises:
        MeasureError: no decisions of kind item, a round column that is not there or empty in some rows, fewer than five
            rounds, items that are not in the catalogue; names column, count and first rows.
        TableError: the folder has no tables.
    """
    catalogue = open_catalogue(tables, ["published_at", question.diversity])
    shown = _shown(question, tables)
    shown = shown.with_columns(pl.Series("row", catalogue.shown_rows("decisions", shown["chosen"])))
    shown, names, warnings = _rounds(shown, question)
    exposures = _exposures(shown, len(names), catalogue, question.groups, settings.seed)
    reading = read_rounds(
        exposures,
        diversity=_diversity(shown, len(names), catalogue, question.diversity),
        names=names,
        horizon=question.horizon,
        carry=question.carry,
        min_fall=question.min_fall,
        level=settings.level,
        seed=settings.seed,
    )
    reading.warnings[:0] = warnings
    return reading


def _shown(question: FeedbackQuestion, tables: Path) -> pl.DataFrame:
    needs(tables, "decisions", "a feedback loop is read from what was shown")
    there = pq.read_schema(tables / "decisions.parquet").names
    if question.by and question.by not in there:
        raise MeasureError(
            f"decisions has no column {question.by!r}; name the one that holds the round as question.by (there are: "
            f"{', '.join(there)}), or read windows of time: question.by= question.days=7"
        )
    wanted = ["kind", "chosen", "at", "request_id", "user_id", "session_id", "position", question.by]
    columns = list(dict.fromkeys(name for name in wanted if name in there))
    rows = pl.DataFrame(pl.from_arrow(read_table(tables, "decisions", columns)))
    rows = rows.filter(pl.col("kind") == "item").with_columns(pl.col("at").cast(pl.Int64))
    if not len(rows):
        raise MeasureError(f"decisions in {tables} holds nothing of kind item, so there is no exposure to read")
    if question.k:
        if "position" not in rows.columns:
            raise MeasureError(f"decisions has no column position, which question.k={question.k} cuts at")
        rows = rows.filter(pl.col("position") < question.k)
    return with_who(rows, "decisions")


def _rounds(shown: pl.DataFrame, question: FeedbackQuestion) -> tuple[pl.DataFrame, list[str], list[str]]:
    """Return the rows with a column `round`, from 0 without gaps, the names of the rounds, and what to know of them."""
    warnings = []
    if question.by:
        empty = shown[question.by].is_null()
        why = "every decision belongs to a round; read windows of time with question.by= question.days=7"
        refuse_rows(
            "decisions", question.by, empty.to_numpy(), shown[question.by].to_list() if empty.any() else (), why
        )
        order = shown.group_by(question.by).agg(pl.col("at").min()).sort("at", question.by)
        names = [str(name) for name in order[question.by].to_list()]
        order = order.select(question.by, round=pl.int_range(len(names), dtype=pl.Int64))
        shown = shown.join(order, on=question.by, how="left", maintain_order="left")
    else:
        length_us = int(question.days * DAY_US)
        start, end = int(shown["at"].min()), int(shown["at"].max())  # type: ignore[arg-type]  # polars: any plain type
        number = (shown["at"] - start) // length_us
        full = (end - start) // length_us
        if full * length_us + start + 0.9 * length_us < end:
            full += 1  # the last round lacks less than a tenth
        if full <= number.max():  # type: ignore[operator]  # as above
            warnings.append(f"the last round is not full and was left out: {int((number >= full).sum()):,} decisions")
        shown = shown.with_columns(number.alias("round")).filter(pl.col("round") < full)
        there = shown["round"].unique().sort()
        if len(there) < full:
            missing = sorted(set(range(full)) - set(there.to_list()))
            raise MeasureError(
                f"decisions.at: {len(missing)} of {full} rounds of {question.days:g} days are empty, first "
                f"{', '.join(iso(start + m * length_us) for m in missing[:5])}; take longer rounds (question.days)"
            )
        names = [iso(start + n * length_us) for n in range(full)]
    if question.skip:
        shown = shown.filter(pl.col("round") >= question.skip).with_columns(pl.col("round") - question.skip)
        names = names[question.skip :]
    if not len(shown):
        raise MeasureError(
            "decisions.at: no whole round is left; the log is shorter than one, or question.skip leaves none: take "
            "shorter rounds (question.days) or skip fewer"
        )
    return shown, names, warnings


def _exposures(shown: pl.DataFrame, rounds: int, catalogue: Catalogue, groups: int, seed: int) -> list[np.ndarray]:
    """Return [G, N_r] counts of each round; the catalogue of a round is what was published by its end."""
    person = shown[WHO].rank("dense").to_numpy().astype(np.int64) - 1
    people = int(person.max()) + 1
    groups = groups if people >= 5 * groups else 1  # too few people to resample
    group = np.random.default_rng(seed).permutation(people)[person] % groups
    number, row, at = shown["round"].to_numpy(), shown["row"].to_numpy(), shown["at"].to_numpy()
    first = np.full(len(catalogue), np.iinfo(np.int64).min)
    if "published_at" in catalogue.table.columns:
        published = catalogue.table["published_at"].cast(pl.Datetime("us", "UTC")).cast(pl.Int64)
        first = published.fill_null(first[0]).to_numpy().copy()
        np.minimum.at(first, row, at)  # one that was shown was there, whatever its date says
    oldest = np.argsort(first, kind="stable")
    place = np.empty_like(oldest)
    place[oldest] = np.arange(len(oldest))
    exposures = []
    for r in range(rounds):
        here = number == r
        if not here.any():
            exposures.append(np.zeros((groups, len(catalogue)), np.int64))
            continue
        size = int(np.searchsorted(first[oldest], at[here].max(), side="right"))
        cell = group[here] * size + place[row[here]]
        exposures.append(np.bincount(cell, minlength=groups * size).reshape(groups, size))
    return exposures


def _diversity(shown: pl.DataFrame, rounds: int, catalogue: Catalogue, column: str) -> np.ndarray | None:
    """Return the mean diversity of the lists of each round; None without the column, or without lists of two."""
    if not column or column not in catalogue.table.columns:
        return None
    lists = shown.select("request_id", "round", "row").unique(maintain_order=True)
    of = lists.select(pl.struct("request_id", "round").rank("dense")).to_series().to_numpy().astype(np.int64) - 1
    found = pair_diversity(of, lists["row"].to_numpy(), int(of.max()) + 1, catalogue.category_vectors(column))
    round_of = np.zeros(len(found), np.int64)
    round_of[of] = lists["round"].to_numpy()
    there = ~np.isnan(found)
    number = np.bincount(round_of[there], minlength=rounds)
    if not number.all():
        return None
    means: np.ndarray = np.bincount(round_of[there], found[there], minlength=rounds) / number
    return means
