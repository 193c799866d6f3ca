"""`question=ranking`: lists and what followed them, as a reading with intervals, slices and a paired comparison."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from playbill.errors import MeasureError
from playbill.measure.lists.answers import answer_warnings, answered_share
from playbill.measure.lists.catalogue import Catalogue, open_catalogue
from playbill.measure.lists.measured import Measured, called, measure_lists
from playbill.measure.lists.report import comparison, figures, slice_rows
from playbill.measure.lists.settings import Per, RankingQuestion
from playbill.measure.lists.source import Lists, open_lists
from playbill.measure.lists.targets import Deeds, coded, read_events, targets_after
from playbill.measure.people import WHO, unit_warnings, units
from playbill.measure.ranking import NO_ITEM
from playbill.measure.settings import MeasureSettings
from playbill.measure.slices import by_value, head
from playbill.measure.spread import self_information
from playbill.measure.statement import Reading
from playbill.measure.times import DAY_US, iso, moment_us
from playbill.tables.folder import has_table, read_table

__all__ = ["run"]

_USUAL_K = 10


def run(question: RankingQuestion, tables: Path, settings: MeasureSettings) -> Reading:
    """Return how good lists were against what people did after them, and how they use the catalogue.

    Raises:
        ConfigError: a split that is no moment.
        MeasureError: no lists, no targets, columns missing, lists that are none; names column, count and first rows.
        TableError: the folder has no tables.
    """
    split_us = moment_us(question.split, "question.split") if question.split else None
    wanted = [c.partition(".")[2] for c in question.slices if c.startswith("items.")]
    catalogue = open_catalogue(tables, [*wanted, question.diversity])
    names = [question.lists, *([question.versus] if question.versus else [])]
    longest = max(question.ks, default=_USUAL_K)
    sources = [_chosen(open_lists(name, tables, catalogue, longest, split_us), question, split_us) for name in names]
    question = replace(question, ks=_cut_offs(question.ks, sources))
    sources = [_padded(s, max(question.ks)) for s in sources]
    events = read_events(tables, question.events)
    who = pl.concat([*(s.who for s in sources), events[WHO]]).unique().sort()
    people = pl.DataFrame({WHO: who, "code": np.arange(len(who))})
    session = who.str.starts_with("s:").to_numpy()
    deeds = coded(events, people, catalogue)
    window_us = int(question.window_days * DAY_US)
    split_us = min(int(s.at.min()) for s in sources) if split_us is None else split_us
    past = deeds.at <= split_us
    information, vectors = None, _vectors(question, catalogue)
    warnings = unit_warnings(units(pl.concat([s.who for s in sources])))
    if past.any():
        known_by = np.bincount(_pairs(deeds, past), minlength=len(catalogue) + 1)[1:]
        information = self_information(known_by, len(np.unique(deeds.person[past])))
    else:
        warnings.append(
            f"the log holds nothing before {iso(split_us)}, so novelty and the slices new, known, head and tail are "
            "left out; question.split=MOMENT makes what came before it the past"
        )
    if deeds.dropped:
        warnings.append(f"{deeds.dropped:,} events are left out: their item is not in the items table")
    measured = []
    for source in sources:
        person = _codes(source.who, people)
        if question.silence:
            source, person = _with_silent(source, person, deeds, people, split_us, window_us)
        targets = targets_after(person, source.at, deeds, window_us, question.unseen)
        found = measure_lists(
            source.name, person, source.items, targets, ks=question.ks, session=session,
            num_items=len(catalogue), information=information, vectors=vectors,
        )  # fmt: skip
        if not found.ranking:
            raise MeasureError(
                f"{source.name}: nobody did anything after their list (from {iso(int(source.at.min()))} on, window "
                f"{question.window_days:g} days), so there is nothing to rank for; move question.split or the window"
            )
        warnings += _left_out(found, deeds, split_us, window_us, question.silence)
        if source.name.partition(":")[0] == "decisions":
            share = answered_share(tables, source, person, targets, catalogue, question.events)
            warnings += answer_warnings(source.name, share, compared=len(sources) == 2)
        measured.append(found)
    statements = [s for m in measured for s in figures(m, measured, question, settings, len(catalogue))]
    if len(measured) == 2:
        statements += comparison(measured[0], measured[1], question, settings)
    cuts = _people_slices(question, tables, people, deeds, past)
    items = _item_slices(question, catalogue, deeds, past)
    return Reading(
        title=f"How good are the lists of {' and of '.join(names)}? {len(catalogue):,} items",
        statements=statements,
        tables={"slices": slice_rows(measured, cuts, items, question, settings, len(catalogue))},
        warnings=warnings,
    )


def _chosen(lists: Lists, question: RankingQuestion, split_us: int | None) -> Lists:
    """Return the lists that count: each person's last before the split, or all from the split on."""
    if split_us is None:
        return lists
    if question.per is Per.REQUEST:
        rows = np.flatnonzero(lists.at >= split_us)
        if not len(rows):
            raise MeasureError(
                f"{lists.name}: no list was made at or after {question.split}, the last one at "
                f"{iso(int(lists.at.max()))}; with question.per=PERSON each person's last one before the split counts"
            )
        return lists.take(rows)
    before = pl.DataFrame({"row": np.arange(len(lists.at)), "who": lists.who, "at": lists.at})
    before = before.filter(pl.col("at") <= split_us).sort("at", "row").group_by("who").agg(pl.col("row").last())
    if not len(before):
        raise MeasureError(
            f"{lists.name}: no list was made before {question.split}, the first one at {iso(int(lists.at.min()))}"
        )
    kept = lists.take(before["row"].sort().to_numpy())
    kept.at = np.full(len(kept.at), split_us)
    return kept


def _cut_offs(ks: list[int], sources: list[Lists]) -> list[int]:
    """Return the cut-offs asked for, or the usual one as far as the lists reach."""
    longest = max(s.items.shape[1] for s in sources)
    beyond = [k for k in ks if k > longest]
    if beyond:
        raise MeasureError(f"question.ks: the longest list holds {longest} items, so there is no cut-off at {beyond}")
    return ks or [min(_USUAL_K, longest)]


def _padded(lists: Lists, width: int) -> Lists:
    """Return the lists with `width` columns, as far as they have fewer."""
    missing = max(width - lists.items.shape[1], 0)
    lists.items = np.pad(lists.items, ((0, 0), (0, missing)), constant_values=NO_ITEM)
    return lists


def _with_silent(
    source: Lists, person: np.ndarray, deeds: Deeds, people: pl.DataFrame, split_us: int, window_us: int
) -> tuple[Lists, np.ndarray]:
    """Return the lists and an empty one for everybody else who did something in the window after the split."""
    silent = np.setdiff1d(_active(deeds, split_us, window_us), person)
    empty = np.full((len(silent), source.items.shape[1]), NO_ITEM, np.int64)
    lists = Lists(
        source.name,
        pl.concat([source.who, people[WHO][silent]]),
        np.concatenate([source.at, np.full(len(silent), split_us)]),
        np.concatenate([source.items, empty]),
        pl.concat([source.key, pl.Series([None] * len(silent), dtype=pl.String)]),
    )
    return lists, np.concatenate([person, silent])


def _left_out(found: Measured, deeds: Deeds, split_us: int, window_us: int, silence: bool) -> list[str]:
    warnings = []
    without = np.setdiff1d(found.person, next(iter(found.ranking.values())).person)
    if len(without):
        who = called(found.session[without])
        warnings.append(
            f"{found.name}: {len(without):,} {who} with a list did nothing after it and have no ranking metric"
        )
    silent = np.setdiff1d(_active(deeds, split_us, window_us), found.person)
    if len(silent) and not silence:
        warnings.append(
            f"{found.name}: {len(silent):,} {called(found.session[silent])} who did something had no list and are left "
            "out; question.silence=true counts them with zero"
        )
    return warnings


def _active(deeds: Deeds, split_us: int, window_us: int) -> np.ndarray:
    """Return the people who did something after the split, within the window."""
    inside = (deeds.at > split_us) & ((deeds.at <= split_us + window_us) if window_us else True)
    return np.unique(deeds.person[inside])


def _people_slices(
    question: RankingQuestion, tables: Path, people: pl.DataFrame, deeds: Deeds, past: np.ndarray
) -> dict[str, np.ndarray]:
    """Return [P] bool by label."""
    number = np.bincount(deeds.person[past], minlength=len(people))
    new = number < question.known_events
    cuts = {"everybody": np.ones(len(people), bool)}
    if past.any():
        cuts |= {"new people": new, "known people": ~new}
    columns = [c.partition(".")[2] for c in question.slices if c.startswith("users.")]
    if columns:
        if not has_table(tables, "users"):
            raise MeasureError(f"{tables} has no table users, so there is no users.{columns[0]} to slice by")
        users = pl.DataFrame(pl.from_arrow(read_table(tables, "users", ["user_id", *columns])))
        users = users.with_columns((pl.lit("u:") + pl.col("user_id").cast(pl.String)).alias(WHO))
        joined = people.join(users, on=WHO, how="left", maintain_order="left")
        for column in columns:
            cuts |= {f"users.{label}": mask for label, mask in by_value(joined[column]).items()}
    return cuts


def _item_slices(
    question: RankingQuestion, catalogue: Catalogue, deeds: Deeds, past: np.ndarray
) -> dict[str, np.ndarray]:
    """Return [N] bool by label."""
    number = np.bincount(deeds.item[past], minlength=len(catalogue) + 1)[1:]
    new, top = number < question.known_events, head(number, question.head_share)
    cuts = {"new items": new, "known items": ~new, "head": top, "tail": ~top} if past.any() else {}
    for column in (c.partition(".")[2] for c in question.slices if c.startswith("items.")):
        if column not in catalogue.table.columns:
            raise MeasureError(f"items has no column {column!r} to slice by; it has: {', '.join(catalogue.columns)}")
        cuts |= {f"items.{label}": mask for label, mask in by_value(catalogue.table[column]).items()}
    return cuts


def _vectors(question: RankingQuestion, catalogue: Catalogue) -> object:
    if question.vectors:
        try:
            vectors = np.load(question.vectors, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise MeasureError(f"question.vectors={question.vectors} cannot be read: {error}") from error
        if vectors.dtype.kind not in "fiub":
            raise MeasureError(f"question.vectors={question.vectors} must hold numbers, got dtype {vectors.dtype}")
        if vectors.ndim != 2 or len(vectors) != len(catalogue):
            raise MeasureError(
                f"question.vectors={question.vectors} must be [{len(catalogue)}, width], a row an item of the items "
                f"table in its order, got shape {vectors.shape}"
            )
        return vectors
    if question.diversity and question.diversity in catalogue.table.columns:
        return catalogue.category_vectors(question.diversity)
    return None


def _pairs(deeds: Deeds, past: np.ndarray) -> np.ndarray:
    """Return the items of the different (person, item) pairs of the past: how many people know an item is its count."""
    width = int(deeds.item.max(initial=0)) + 1
    return np.unique(deeds.person[past] * width + deeds.item[past]) % width


def _codes(who: pl.Series, people: pl.DataFrame) -> np.ndarray:
    found = pl.DataFrame({WHO: who}).join(people, on=WHO, how="left", maintain_order="left")
    return found["code"].to_numpy()
