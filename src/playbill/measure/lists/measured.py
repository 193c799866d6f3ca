"""One source of lists, measured: a figure a person for every metric, so that means, intervals and pairs follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from playbill.measure.ranking import NO_ITEM, Targets, user_metrics
from playbill.measure.slices import of_items
from playbill.measure.spread import catalogue_influence, diversity, novelty


@dataclass(slots=True)
class Column:
    """A metric as figures of people: `values[i]` is that of person `person[i]`; people are rising codes."""

    person: np.ndarray
    values: np.ndarray

    def of(self, people: np.ndarray) -> np.ndarray:
        """Return the figures of some people ([M] rising codes, all of them here)."""
        return self.values[np.searchsorted(self.person, people)]


@dataclass(slots=True)
class Measured:
    """What is known of one source.

    Attributes:
        name: of the source.
        person: [L] int64, whose each list is.
        items: [L, K] the lists.
        session: [P] bool, whether a person is in truth a session of somebody who had not signed in.
        targets: of each list; lists without any are not in `ranking`.
        ranking: by name such as `ndcg_at_10`: people with targets.
        tastes: novelty and diversity by name: people with a list of one (two) items.
        catalogue: coverage and gini by name: the figure, and [P] what each person contributes to its error.
    """

    name: str
    person: np.ndarray
    items: np.ndarray
    session: np.ndarray
    targets: Targets
    ranking: dict[str, Column] = field(default_factory=dict)
    tastes: dict[str, Column] = field(default_factory=dict)
    catalogue: dict[str, tuple[float, np.ndarray]] = field(default_factory=dict)


def measure_lists(
    name: str,
    person: np.ndarray,
    items: np.ndarray,
    targets: Targets,
    *,
    ks: list[int],
    session: np.ndarray,
    num_items: int,
    information: np.ndarray | None,
    vectors: Any,
) -> Measured:
    """Return every metric of every person; a person's lists weigh equally within the person.

    Args:
        person: [L] int64 in 0..P-1.
        items: [L, K] int64 item_index 1..N, padded with -1.
        targets: of the L lists; a list may have none.
        ks: cut-offs, none beyond K.
        session: [P] bool, see `Measured`.
        information: [N] bits, see `spread.self_information`; None leaves novelty out.
        vectors: [N, D] for diversity; None leaves it out.
    Raises:
        MeasureError: see `ranking.user_metrics`.
    """
    found = Measured(name, person, items, session, targets)
    asked = np.flatnonzero(targets.counts())
    if len(asked):
        rows = user_metrics(items[asked], targets.take(asked), ks, num_items)
        found.ranking = by_person(person[asked], rows)
    for k in ks:
        top = items[:, :k]
        there = top != NO_ITEM
        figures = {} if information is None else {f"novelty_at_{k}": novelty(items, k, information)}
        if vectors is not None:
            figures[f"diversity_at_{k}"] = diversity(items, k, vectors)
        for label, values in figures.items():
            known = ~np.isnan(values)
            if known.any():  # a list of one item is neither uniform nor diverse
                found.tastes |= by_person(person[known], {label: values[known]})
        of = np.repeat(person, there.sum(1))
        for label, figure in catalogue_influence(of, top[there] - 1, len(session), num_items).items():
            found.catalogue[f"{label}_at_{k}"] = figure
    return found


def of_some_items(measured: Measured, items: np.ndarray, k: int, num_items: int) -> dict[str, Column]:
    """Return the ranking metrics at k against targets among some items ([N] bool) alone; empty where there are none."""
    users, targets = of_items(measured.targets, items)
    if not len(users):
        return {}
    return by_person(measured.person[users], user_metrics(measured.items[users], targets, [k], num_items))


def by_person(person: np.ndarray, rows: Mapping[str, np.ndarray]) -> dict[str, Column]:
    """Return the mean of each person's rows.

    Args:
        person: [M] int64 codes.
        rows: [M] float by name.
    """
    number = np.bincount(person)
    people = np.flatnonzero(number)
    return {
        name: Column(people, np.bincount(person, values, minlength=len(number))[people] / number[people])
        for name, values in rows.items()
    }


def called(session: np.ndarray) -> str:
    """Return what people are that may be sessions of somebody who had not signed in ([M] bool): the words to use."""
    kinds = [name for name, there in (("people", ~session), ("sessions", session)) if there.any()]
    return " or ".join(kinds or ["people"])
