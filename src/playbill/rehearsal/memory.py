"""What a shop remembers of its own log: who clicked what, and when. One memory a policy, for each has a log of its own.

Everything here follows from the log alone, so a rehearsal that was stopped is restored by reading its log again.
Visitors who never log in, or who do not allow personalisation, leave counts, and nothing that could be held against
their next visit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(slots=True)
class Memory:
    """Clicks so far. P people, I items, S segments.

    Attributes:
        segment: [P] int64, the declared one; those who are not known have S - 1, a segment of their own.
        known: [P] bool, those who log in and allow personalisation.
        clicks: [I] int64.
        by_segment: [S, I] int64.
        seen: [P, I] bool, clicked before by somebody known.
        person, item, at: parallel lists of arrays, what known people clicked, in the order of the log.
        all_item, all_at: the same of everybody.
    """

    segment: np.ndarray
    known: np.ndarray
    clicks: np.ndarray
    by_segment: np.ndarray
    seen: np.ndarray
    person: list[np.ndarray] = field(default_factory=list)
    item: list[np.ndarray] = field(default_factory=list)
    at: list[np.ndarray] = field(default_factory=list)
    all_item: list[np.ndarray] = field(default_factory=list)
    all_at: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def empty(cls, declared_segment: np.ndarray, unknown: np.ndarray, num_items: int) -> Memory:
        """Return the memory of a shop on its first day; `unknown` [P] bool are those of whom it may know nothing."""
        num_segments = int(declared_segment.max(initial=0)) + 2
        segment = np.where(unknown, num_segments - 1, declared_segment).astype(np.int64)
        return cls(
            segment=segment,
            known=~unknown,
            clicks=np.zeros(num_items, np.int64),
            by_segment=np.zeros((num_segments, num_items), np.int64),
            seen=np.zeros((len(segment), num_items), bool),
        )

    def absorb(self, person: np.ndarray, item: np.ndarray, at: np.ndarray) -> None:
        """Take clicks in, in the order of time.

        Args:
            person: [N] int64 row of the person, -1 where the shop cannot know it.
            item: [N] int64 row of the item.
            at: [N] int64 UTC microseconds.
        """
        named = person >= 0
        np.add.at(self.clicks, item, 1)
        segment = np.where(named, self.segment[np.maximum(person, 0)], len(self.by_segment) - 1)
        np.add.at(self.by_segment, (segment, item), 1)
        named &= self.known[np.maximum(person, 0)]
        self.seen[person[named], item[named]] = True
        self.person.append(person[named])
        self.item.append(item[named])
        self.at.append(at[named])
        self.all_item.append(item)
        self.all_at.append(at)

    def log(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return person, item and at of what known people clicked, each person's together and oldest first."""
        person, item, at = (
            np.concatenate([np.zeros(0, np.int64), *rows]) for rows in (self.person, self.item, self.at)
        )
        order = np.lexsort((at, person))
        return person[order], item[order], at[order]

    def histories(self, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return CSR (indptr [n + 1], item_index [E], oldest first) of the people asked; empty for unknown ones.

        An item_index is the item's row plus 1: 0 stands for an unknown item everywhere in the baselines.
        """
        person, item, _ = self.log()
        low = np.searchsorted(person, asked, "left")
        count = np.where(self.known[asked], np.searchsorted(person, asked, "right") - low, 0)
        indptr = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        within = np.arange(indptr[-1]) - np.repeat(indptr[:-1], count)
        return indptr, item[np.repeat(low, count) + within] + 1
