"""The logged decisions of a part that a bundle has not learned from, and what the bundle would have chosen in each."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from playbill.bundle.open import Bundle
from playbill.dataset.dataset import Dataset
from playbill.engine.engine import Engine
from playbill.engine.types import MAX_K, Request
from playbill.errors import MeasureError, RequestError
from playbill.features.encoder import point_in_time
from playbill.measure.off_policy.eligible import Eligible
from playbill.measure.off_policy.log import Choices, Log
from playbill.measure.off_policy.rounds import Rounds
from playbill.release.roads import CPU, fill_people
from playbill.state.store import Store
from playbill.tables.folder import read_table

_ASKED_AT_ONCE = 256


def of_test(
    rounds: Rounds, tables: Path, dataset: Dataset, most_requests: int, seed: int
) -> tuple[Rounds, pl.DataFrame]:
    """Return the rounds of the test part, and who and when they were: N rows of request_id, user_id, session_id, at.

    Args:
        rounds: of the whole log.
        tables: folder that the log stands in.
        most_requests: of them, drawn by `seed` where there are more.
    Raises:
        MeasureError: the test part holds none.
    """
    there = pl.DataFrame(read_table(tables, "decisions"))
    names = [n for n in ("decision_id", "request_id", "user_id", "session_id", "at", "chosen") if n in there.columns]
    log = rounds.decision_id.to_frame("decision_id").join(
        there.select(names).with_columns(pl.col("at").cast(pl.Int64)),
        on="decision_id",
        how="left",
        maintain_order="left",
    )
    late = log["at"].to_numpy() >= dataset.split.valid_until_us
    requests = np.unique(rounds.request[late])
    if len(requests) > most_requests:
        requests = np.random.default_rng(seed).permutation(requests)[:most_requests]
        rounds.notes.append(f"{most_requests:,} requests of the test part were drawn; value_requests=N looks at more")
    kept = np.flatnonzero(late & np.isin(rounds.request, requests))
    if not len(kept):
        raise MeasureError("no decision lies in the test part")
    return _taken(rounds, kept), log[kept]


def _taken(rounds: Rounds, kept: np.ndarray) -> Rounds:
    eligible = rounds.eligible
    if eligible is not None:
        lengths = np.diff(eligible.first)[kept]
        first = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.repeat(eligible.first[kept] - first[:-1], lengths) + np.arange(first[-1])
        logging = None if eligible.logging is None else eligible.logging[rows]
        eligible = Eligible(first, eligible.action[rows], logging)
    arrays: dict[str, Any] = {
        name: None if getattr(rounds, name) is None else getattr(rounds, name)[kept]
        for name in ("action", "reward", "propensity", "position", "request", "unit", "person", "features")
    }
    return dataclasses.replace(
        rounds, decision_id=rounds.decision_id[kept], eligible=eligible, eligible_count=None, **arrays
    )


def logs_of(
    bundles: Sequence[Bundle], rounds: Rounds, context: pl.DataFrame, tables: Path, dataset: Dataset
) -> list[Log]:
    """Return the log beside each bundle's choices.

    Args:
        rounds, context: of `of_test`.
        tables: folder that the dataset was opened from.
    Raises:
        MeasureError: a request cannot be asked again, or lists of eligible items that do not hold the chosen one.
    """
    of_row, first = np.unique(rounds.request, return_index=True)
    people = _people(context[first], dataset)
    with (
        tempfile.TemporaryDirectory(prefix="playbill-value-") as folder,
        Store.open(Path(folder) / "state") as store,
    ):
        known = np.unique(people[people >= 0])
        start, end = point_in_time(dataset.pool, known, np.full(len(known), dataset.split.valid_until_us))
        fill_people(store, tables, dataset, known, start, end)
        k = MAX_K if rounds.eligible is not None else int(rounds.position.max()) + 1
        wanted = [
            Request(
                user_id=None if p < 0 else dataset.people.user_ids[p],
                session_id=None if p < 0 else dataset.people.session_ids[p],
                request_id=f"value-{number}",  # never the logged one: its dice have been cast
                k=min(k, MAX_K),
                exploration=0.0,
                at=at,
            )
            for number, (p, at) in enumerate(zip(people.tolist(), context["at"][first].to_list(), strict=True))
        ]
        # which image would stand there is not asked, and lists of everything have a great many
        items_alone = [dataclasses.replace(bundle, creatives=None) for bundle in bundles]
        return [_log(Engine.open(bundle, store, CPU), wanted, of_row, rounds) for bundle in items_alone]


def _log(engine: Engine, wanted: Sequence[Request], requests: np.ndarray, rounds: Rounds) -> Log:
    number = {action: index for index, action in enumerate(rounds.actions)}
    places: list[dict[int, int]] = []
    try:
        for low in range(0, len(wanted), _ASKED_AT_ONCE):
            for slate in engine.recommend(wanted[low : low + _ASKED_AT_ONCE]):
                places.append({number.get(str(item.item_id), -1): item.position for item in slate.items})
    except RequestError as error:
        raise MeasureError(f"a logged request cannot be asked again: {error}") from error
    row = np.searchsorted(requests, rounds.request)
    choices = None
    if rounds.eligible is None:
        target = np.asarray(
            [float(places[r].get(a, -1) == p) for r, a, p in zip(row, rounds.action, rounds.position, strict=True)]
        )
    else:
        choices = _highest(rounds, row, places)
        target = choices.target[choices.chosen]
    return Log(
        reward=rounds.reward,
        propensity=rounds.propensity,
        target=target,
        action=rounds.action,
        position=rounds.position,
        request=rounds.request,
        unit=rounds.unit,
        person=rounds.person,
        choices=choices,
        reward_low=rounds.reward_low,
        reward_high=rounds.reward_high,
    )


def _highest(rounds: Rounds, row: np.ndarray, places: Sequence[dict[int, int]]) -> Choices:
    """Return choices that lie on the eligible item which stands highest on the list of its request."""
    eligible = rounds.eligible
    assert eligible is not None
    n, lengths = len(rounds.reward), np.diff(eligible.first)
    of = np.repeat(np.arange(n), lengths)
    place = np.asarray(
        [places[r].get(a, MAX_K) for r, a in zip(row[of].tolist(), eligible.action.tolist(), strict=True)], np.int64
    )
    best = place == np.minimum.reduceat(place, eligible.first[:-1])[of]
    chosen = np.flatnonzero(eligible.action == rounds.action[of])
    if len(chosen) != n or (of[chosen] != np.arange(n)).any():
        raise MeasureError("decisions.context: the chosen item must stand once among a decision's eligible ones")
    return Choices(
        first=eligible.first,
        action=eligible.action,
        # none of them on the list: all alike
        target=best / np.bincount(of, best, minlength=n)[of],
        logging=eligible.logging,
        chosen=chosen,
    )


def _people(asked: pl.DataFrame, dataset: Dataset) -> np.ndarray:
    """Return [n] int64 people of the dataset, -1 for somebody unknown; the user counts before the session."""
    person = np.full(len(asked), -1, np.int64)
    for name, ids in (("user_id", dataset.people.user_ids), ("session_id", dataset.people.session_ids)):
        if name in asked.columns:
            row: dict[Any, int] = {ids[p]: p for p in range(len(ids)) if ids[p] is not None}
            found = np.asarray([row.get(value, -1) for value in asked[name].to_list()], np.int64)
            person = np.where(person < 0, found, person)
    return person
