"""What a dataset holds, and what it could not use: counted, so that nothing is left out in silence."""

from __future__ import annotations

import msgspec
import numpy as np

from playbill.dataset.arrays import read_blocks
from playbill.dataset.splits import PARTS, Split
from playbill.features.fold import EventPool


class DataCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of the events table, and where they went.

    Attributes:
        rows: of the events table.
        rows_of_nobody: no consent, no known person, or no place in the order that was asked for.
        rows_of_no_history: events of other names than those of a history, or without an item.
        rows_delivered_twice: the same event of the same person again.
        events: in histories.
        events_of_unknown_items: of those, events whose item is not in the items table: they stand in histories as the
            unknown item (row 0 of the item table) and are never learned as an answer.
        train, valid, test: events of each part whose item is known.
        people: everybody, with events or without.
        people_without_events, people_with_one_event: of those; one event is a history for nobody and trains only as an
            answer to an empty history.
        items: of the items table.
        items_never_seen: of those, items without an event in training time: only their content speaks for them.
    """

    rows: int
    rows_of_nobody: int
    rows_of_no_history: int
    rows_delivered_twice: int
    events: int
    events_of_unknown_items: int
    train: int
    valid: int
    test: int
    people: int
    people_without_events: int
    people_with_one_event: int
    items: int
    items_never_seen: int


def count(rows: int, of_nobody: int, eligible: int, pool: EventPool, split: Split, num_items: int) -> DataCounts:
    """Return the counts of a fold.

    Args:
        rows: of the events table; of_nobody: of those, rows whose person may not be used.
        eligible: rows that entered the fold.
        num_items: N.
    """
    parts = np.zeros(len(PARTS), np.int64)
    seen = np.zeros(num_items + 1, np.int64)
    unknown = 0
    for item, part in zip(read_blocks(pool.item), read_blocks(split.part), strict=True):
        parts += np.bincount(part[item > 0], minlength=len(PARTS))
        seen += np.bincount(item[part == PARTS["train"]], minlength=num_items + 1)
        unknown += int((item == 0).sum())
    lengths = np.diff(pool.offsets)
    return DataCounts(
        rows=rows,
        rows_of_nobody=of_nobody,
        rows_of_no_history=rows - of_nobody - eligible,
        rows_delivered_twice=eligible - len(pool),
        events=len(pool),
        events_of_unknown_items=unknown,
        train=int(parts[0]),
        valid=int(parts[1]),
        test=int(parts[2]),
        people=len(lengths),
        people_without_events=int((lengths == 0).sum()),
        people_with_one_event=int((lengths == 1).sum()),
        items=num_items,
        items_never_seen=int((seen[1:] == 0).sum()),
    )


def in_words(counts: DataCounts) -> str:
    """Return one line for people: what is learned from, and what was left out and why."""
    parts = [f"{counts.events:,} events of {counts.people - counts.people_without_events:,} people"]
    for number, what in (
        (counts.rows_of_nobody, "rows of nobody who may be learned from left out"),
        (counts.rows_delivered_twice, "delivered twice"),
        (counts.events_of_unknown_items, "events name an item that the items table does not know"),
        (counts.people_with_one_event, "people have one event only"),
        (counts.items_never_seen, f"of {counts.items:,} items have no event in training time"),
    ):
        if number:
            parts.append(f"{number:,} {what}")
    return "; ".join(parts)
