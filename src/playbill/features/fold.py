"""The fold: events in any order of arrival -> a person's history. The same few lines run offline, online and in batch.

Training/serving skew lives here, so the rule stands once, in `fold_rows`: which events enter a history, in which order,
and which of two deliveries of one event counts. `fold_table` applies it to a whole table, `fold` to one stored profile
and its new events. Folding in pieces gives the same history as folding at once, also when events come late or twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from playbill.features.spec import FeatureSpec
from playbill.features.vocabulary import Vocabulary

LARGEST = 1e6  # numbers are cut to +-this, so that an absurd one from a request stays finite in float32


class Past(msgspec.Struct, array_like=True):
    """One event of a stored history. `at` is UTC microseconds."""

    event_id: int | str
    item_id: int | str
    event: str
    at: int
    value: float | None = None


class Profile(msgspec.Struct, kw_only=True):
    """What we know of one person.

    Attributes:
        user_id: None for somebody anonymous.
        features: the users table's columns as they were declared, consent flags (`consent_<purpose>`) included.
        history: oldest first, at most the store's history length.
        seen: item ids of every event ever folded, in order of first arrival; not cut to the history's length.
        num_events: events folded, duplicates not counted (one that comes again after it left the history is: the
            store drops those by their id before they get here).
        version: grows by one with each change; the decisions log names it.
    """

    user_id: int | str | None = None
    features: dict[str, Any] = {}
    history: list[Past] = []
    seen: list[int | str] = []
    num_events: int = 0
    version: int = 0


def tie_keys(event_ids: Sequence[int | str] | pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return [N] int64 keys that order events of the same microsecond and are equal for equal ids.

    Ints go by value, before strings, which go by code point; so the order of any two ids is the same in every subset.

    Args:
        event_ids: an int64 or string column without nulls, or ints and strings in any mix.
    """
    if isinstance(event_ids, pa.ChunkedArray):
        event_ids = event_ids.combine_chunks()
    if isinstance(event_ids, pa.Array):
        if pa.types.is_integer(event_ids.type):
            return np.asarray(event_ids, np.int64)
        # Arrow compares UTF-8 bytes, which is code point order
        return np.asarray(pc.rank(event_ids, sort_keys="ascending", tiebreaker="dense")).astype(np.int64)
    rank = {e: i for i, e in enumerate(sorted(set(event_ids), key=lambda e: (isinstance(e, str), e)))}
    return np.fromiter((rank[e] for e in event_ids), np.int64, len(event_ids))


def fold_rows(person: np.ndarray, at: np.ndarray, tie: np.ndarray, eligible: np.ndarray) -> np.ndarray:
    """Return the rows that make up the histories, sorted by person, time and tie key, each event once.

    Args:
        person: [N] int64, a dense number for each person.
        at: [N] int64, UTC microseconds.
        tie: [N] int64 of `tie_keys`; equal keys of one person are deliveries of one event: the earliest `at` counts.
        eligible: [N] bool, whether the event enters a history at all.
    Returns:
        [M] int64 row numbers, M <= N.
    """
    rows = np.flatnonzero(eligible)
    if not len(rows):
        return rows
    order = rows[np.lexsort((at[rows], tie[rows], person[rows]))]
    first = np.ones(len(order), bool)
    first[1:] = (person[order][1:] != person[order][:-1]) | (tie[order][1:] != tie[order][:-1])
    once = order[first]
    return once[np.lexsort((tie[once], at[once], person[once]))]


def fold(profile: Profile, events: Sequence[Past], spec: FeatureSpec, keep: int) -> Profile:
    """Return the profile after more events; the given one is left as it is, and is returned when nothing is new.

    An event id stands for one unchanging event, as the tables demand. Deliveries of one id that contradict each other
    are settled as in `fold_rows` while the event is among the `keep` last ones.

    Args:
        profile: what was known.
        events: new ones, in any order, perhaps delivered before.
        spec: says which event names enter a history; others change nothing.
        keep: events kept; at least `spec.history_length`.
    """
    known = spec.code_of()
    events = [e for e in events if e.event in known]
    everything = [*profile.history, *events]
    rows = fold_rows(
        np.zeros(len(everything), np.int64),
        np.asarray([e.at for e in everything], np.int64),
        tie_keys([e.event_id for e in everything]),
        np.ones(len(everything), bool),
    )
    history = [everything[i] for i in rows[-keep:]]
    seen = set(profile.seen)
    fresh = list(dict.fromkeys(e.item_id for e in events if e.item_id not in seen))
    if history == profile.history and not fresh:
        return profile
    old = {e.event_id for e in profile.history}
    return msgspec.structs.replace(
        profile,
        history=history,
        seen=[*profile.seen, *fresh],
        num_events=profile.num_events + len({e.event_id for e in events} - old),
        version=profile.version + 1,
    )


@dataclass(slots=True)
class EventPool:
    """Folded events of many people as parallel arrays: person p's history is rows offsets[p] .. offsets[p + 1].

    Attributes:
        item: [E] int64 item_index.
        code: [E] int64 event code.
        value: [E] float32 mapped value, 0 where missing.
        at: [E] int64 UTC microseconds, ascending within a person.
        person: [E] int64.
        offsets: [P + 1] int64.
        source_row: [E] int64 row of the events table that each event came from.
    """

    item: np.ndarray
    code: np.ndarray
    value: np.ndarray
    at: np.ndarray
    person: np.ndarray
    offsets: np.ndarray
    source_row: np.ndarray

    def __len__(self) -> int:
        return len(self.item)


def fold_table(
    events: pa.Table, person: np.ndarray, num_people: int, spec: FeatureSpec, items: Vocabulary
) -> EventPool:
    """Return every person's history at once.

    Args:
        events: columns event_id, item_id, event, at, and value where there is one; [N] rows in any order.
        person: [N] int64, 0 <= person < num_people; negative rows are left out (no consent, nobody known).
        num_people: P.
        spec: says which event names enter, and how their values are mapped.
        items: the item vocabulary.
    """
    at = np.asarray(events["at"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()))
    codes = np.asarray([0, *(e.code for e in spec.events)], np.int64)
    code = codes[Vocabulary([e.name for e in spec.events]).indices(events["event"])]
    has_item = np.asarray(events["item_id"].is_valid())
    rows = fold_rows(person, at, tie_keys(events["event_id"]), (code > 0) & (person >= 0) & has_item)
    value = (
        np.asarray(events["value"].cast(pa.float64()).fill_null(float("nan")))
        if "value" in events.column_names
        else np.full(len(at), np.nan)
    )
    return EventPool(
        item=items.indices(events["item_id"])[rows],
        code=code[rows],
        value=map_values(value[rows], code[rows], spec),
        at=at[rows],
        person=person[rows],
        offsets=np.searchsorted(person[rows], np.arange(num_people + 1)),
        source_row=rows,
    )


def fold_profiles(profiles: Sequence[Profile], spec: FeatureSpec, items: Vocabulary) -> EventPool:
    """Return stored profiles as a pool; their histories are folded already, so only ids and names become numbers.

    A profile may have been folded under another spec: events that this one does not know are left out.
    """
    known = spec.code_of()
    kept = [[e for e in p.history if e.event in known] for p in profiles]
    lengths = [len(history) for history in kept]
    past = [e for history in kept for e in history]
    code_of = {name: event.code for name, event in known.items()}
    code = np.array([code_of[e.event] for e in past], np.int64)
    value = np.array([e.value for e in past], np.float64)  # None becomes nan
    return EventPool(
        item=items.indices([e.item_id for e in past]),
        code=code,
        value=map_values(value, code, spec),
        at=np.array([e.at for e in past], np.int64),
        person=np.repeat(np.arange(len(profiles)), lengths),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        source_row=np.arange(len(past)),
    )


def map_values(value: np.ndarray, code: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """Return `(value - middle) * scale` by event code, float32, 0 where the value is missing or not finite."""
    largest = max((e.code for e in spec.events), default=0)
    middle, scale = np.zeros(largest + 1), np.zeros(largest + 1)
    for event in spec.events:
        middle[event.code], scale[event.code] = event.middle, event.scale
    mapped = (np.where(np.isfinite(value), value, np.nan) - middle[code]) * scale[code]
    mapped[np.isnan(mapped)] = 0
    finite: np.ndarray = np.clip(mapped, -LARGEST, LARGEST)
    return finite.astype(np.float32)
