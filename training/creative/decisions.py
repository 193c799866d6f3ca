"""Decisions about creatives, as the heads learn from them: who, when, which item, what was there, what was clicked.

Decisions and their answers are joined by the code that values policies (`measure.off_policy`), so a log means the same
to both. People are those of the dataset: who did not allow training is not in it. Where no consent is asked for, people
without any event are nobody: an empty history.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import polars as pl

from playbill.dataset.dataset import Dataset
from playbill.errors import TrainingError
from playbill.features.spec import PAD, Encoding, Side
from playbill.measure.off_policy.rounds import Rounds, read_rounds
from playbill.measure.off_policy.settings import OffPolicyQuestion
from playbill.tables.folder import has_table, read_table
from playbill.training.creative_settings import Creative

NOBODY = -1


@dataclass(slots=True)
class Moments:
    """V moments at which somebody was shown something; a slate's decisions share one.

    Attributes:
        person: [V] int64, NOBODY for somebody of whom nothing is known.
        now: [V] int64 UTC microseconds.
        context: raw values of context columns by name, [V] each.
    """

    person: np.ndarray
    now: np.ndarray
    context: dict[str, list[str | None]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.person)


@dataclass(slots=True)
class Decisions:
    """R decisions; E is the largest number of creatives that one of them could choose from.

    Attributes:
        moment: [R] int64 row of the moments.
        item: [R] int64 item_index.
        position: [R] int64, 0-based.
        eligible: [R, E] int32 creative_index of what could be shown, PAD behind.
        shown: [R] int64 column of `eligible` that was shown.
        clicked: [R] float32, 1 or 0.
        at: [R] int64 UTC microseconds.
    """

    moment: np.ndarray
    item: np.ndarray
    position: np.ndarray
    eligible: np.ndarray
    shown: np.ndarray
    clicked: np.ndarray
    at: np.ndarray

    def __len__(self) -> int:
        return len(self.moment)

    def take(self, rows: np.ndarray) -> Decisions:
        """Return some rows ([n] int64 or bool), in that order."""
        return Decisions(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def read_decisions(tables: Path, dataset: Dataset, model: Creative) -> tuple[Moments, Decisions, list[str]]:
    """Return the moments, the decisions in the order of time, and notes on what was left out.

    Raises:
        MeasureError: a missing or impossible propensity, an event that does not exist; names table, column and rows.
        TrainingError: no creatives, a chosen creative that the table lacks, an item without one, or nothing to learn
            from.
    """
    if not has_table(tables, "creatives"):
        raise TrainingError(f"{tables} has no table creatives; model=creative learns from creatives of items")
    question = OffPolicyQuestion(
        kind="creative", policy=model.policy, reward_event=model.reward_event, within_h=model.within_h
    )
    rounds = read_rounds(tables, question)
    creatives = pl.DataFrame(read_table(tables, "creatives"))
    if "item_id" not in creatives.columns:
        raise TrainingError("creatives has no column item_id: nothing says which item each of them shows")
    index_of = {str(name): row + 1 for row, name in enumerate(creatives["creative_id"].to_list())}
    code_index = np.array([index_of.get(name, 0) for name in rounds.actions], np.int64)
    chosen = code_index[rounds.action]
    if not chosen.all():
        lost = [rounds.actions[a] for a in np.unique(rounds.action[chosen == 0])[:5]]
        raise TrainingError(
            f"decisions.chosen names creatives that the table creatives lacks, such as {', '.join(lost)}; add them, or "
            "name another model.policy"
        )
    item = np.concatenate([[0], dataset.vocabularies["item"].indices(creatives["item_id"].to_arrow())])
    notes = list(rounds.notes)
    frame = _frame(tables, rounds, dataset)
    person = _people(frame, dataset)
    kept = item[chosen] > 0
    _note(notes, ~kept, "are about creatives of no item of the catalogue")
    asked = "training" in dataset.spec.purposes
    if asked:
        _note(notes, kept & (person == NOBODY), "are of people who did not allow training, or of nobody known")
        kept &= person != NOBODY
    if not kept.any():
        raise TrainingError("no decision about creatives can be learned from: " + "; ".join(notes))
    rows = np.flatnonzero(kept)
    at = frame["at_us"].to_numpy()
    rows = rows[np.argsort(at[rows], kind="stable")][-model.max_rows :]
    eligible, shown = _eligible(rounds, rows, code_index, chosen, item)
    moments, moment = _moments(frame, person, at, rows, dataset)
    decisions = Decisions(
        moment=moment,
        item=item[chosen[rows]],
        position=rounds.position[rows],
        eligible=eligible,
        shown=shown,
        clicked=rounds.reward[rows].astype(np.float32),
        at=at[rows],
    )
    return moments, decisions, notes


def _frame(tables: Path, rounds: Rounds, dataset: Dataset) -> pl.DataFrame:
    """Return who, when and in which context, one row a round."""
    every = pl.DataFrame(read_table(tables, "decisions"))
    columns = [n for n in ("user_id", "session_id", "request_id", "context") if n in every.columns]
    frame = every.select("decision_id", pl.col("at").cast(pl.Int64).alias("at_us"), *columns)
    joined = pl.DataFrame({"decision_id": rounds.decision_id}).join(
        frame.unique("decision_id", keep="first"), on="decision_id", how="left", maintain_order="left"
    )
    wanted = [f.name for f in dataset.spec.side(Side.CONTEXT) if f.encoding is not Encoding.CYCLE]
    if "context" not in joined.columns or not wanted:
        return joined
    return joined.with_columns(
        pl.col("context").str.json_path_match(f"$.{name}").alias(f"context.{name}") for name in wanted
    )


def _people(frame: pl.DataFrame, dataset: Dataset) -> np.ndarray:
    """Return [N] int64 the dataset's person of each row, NOBODY where it has none."""
    found = np.full(len(frame), NOBODY, np.int64)
    for name, ids in (("session_id", dataset.people.session_ids), ("user_id", dataset.people.user_ids)):
        if name not in frame.columns:
            continue
        known = pl.DataFrame({name: pl.Series(ids.array), "person": np.arange(len(ids))}).drop_nulls()
        if not len(known):
            continue
        keys = frame.select(pl.col(name).cast(known[name].dtype))
        person = keys.join(known, on=name, how="left", maintain_order="left")["person"]
        found = np.where(person.is_not_null().to_numpy(), person.fill_null(NOBODY).to_numpy(), found)
    return found


def _eligible(
    rounds: Rounds, rows: np.ndarray, code_index: np.ndarray, chosen: np.ndarray, item: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what each row could choose from ([R, E] int32, PAD behind) and the column that it chose ([R] int64).

    Where the log does not list it, it is every creative of the item.
    """
    if rounds.eligible is not None:
        first, action = rounds.eligible.first, rounds.eligible.action
        start, count = first[rows], np.diff(first)[rows]
        listed = code_index[action]
    else:
        order = np.argsort(item[1:], kind="stable")
        listed = order + 1
        ordered = item[1:][order]
        start = np.searchsorted(ordered, item[chosen[rows]])
        count = np.searchsorted(ordered, item[chosen[rows]], side="right") - start
    column = np.arange(int(count.max()))
    there = column < count[:, None]
    eligible = np.where(there, listed[np.minimum(start[:, None] + column, len(listed) - 1)], PAD)
    # one that the table lacks by now has no content to be compared by
    eligible[eligible == 0] = PAD
    hit = eligible == chosen[rows][:, None]
    if not hit.any(1).all():
        raise TrainingError(
            f"{int((~hit.any(1)).sum())} decisions chose a creative that is not in their own list `eligible` in "
            "decisions.context; log the lists as they were when the choice was made"
        )
    return eligible.astype(np.int32), hit.argmax(1)


def _moments(
    frame: pl.DataFrame, person: np.ndarray, at: np.ndarray, rows: np.ndarray, dataset: Dataset
) -> tuple[Moments, np.ndarray]:
    """Return the distinct moments of some rows and [R] int64 the moment of each."""
    request = frame["request_id"].rank("dense").cast(pl.Int64).to_numpy()[rows]
    _, first, moment = np.unique(request, return_index=True, return_inverse=True)
    same = (person[rows][first][moment] == person[rows]) & (at[rows][first][moment] == at[rows])
    if not same.all():  # requests that last: each of their decisions has a moment of its own
        first, moment = np.arange(len(rows)), np.arange(len(rows))
    context = {
        name.removeprefix("context."): frame[name].gather(rows[first]).to_list()
        for name in frame.columns
        if name.startswith("context.")
    }
    return Moments(person[rows][first], at[rows][first], context), moment


def _note(notes: list[str], left_out: np.ndarray, why: str) -> None:
    if left_out.any():
        notes.append(f"{int(left_out.sum()):,} of {len(left_out):,} decisions {why}; they are left out")
