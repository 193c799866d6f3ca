"""Who did what: a dense number for each person whose events may be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from playbill.features.vocabulary import Vocabulary
from playbill.tables.consent import allowed_rows
from playbill.tables.schema import CONSENT_PREFIX


@dataclass(slots=True)
class People:
    """The people of a folder of tables, numbered 0..P-1: users in table order, then others in order of appearance.

    Attributes:
        user_ids: [P], None for a session that belongs to nobody known.
        session_ids: [P], None for users.
        users_row: [P] int64 row of the users table, -1 where there is none.
        of_event: [N] int64 person of each row of the events table, -1 where the event may not be used.
    """

    user_ids: list[Any]
    session_ids: list[Any]
    users_row: np.ndarray
    of_event: np.ndarray

    def __len__(self) -> int:
        return len(self.user_ids)


def number_people(users: pa.Table | None, events: pa.Table, purpose: str = "training") -> People:
    """Return who the people are, without those who gave no consent for the purpose.

    Where the users table has the column `consent_<purpose>`, everybody who is not in it with a yes is left out: also
    people of the events table whom it does not know, and sessions of nobody known.

    Args:
        users: the users table, or None when there is none.
        events: columns user_id or session_id or both.
    """
    asked = users is not None and CONSENT_PREFIX + purpose in users.column_names
    rows = np.zeros(0, np.int64) if users is None else np.flatnonzero(allowed_rows(users, purpose))
    user_ids = [] if users is None else users["user_id"].take(pa.array(rows)).to_pylist()
    of_event = np.full(events.num_rows, -1, np.int64)
    if "user_id" in events.column_names:
        if not asked:
            user_ids = [*user_ids, *_newcomers(events["user_id"], user_ids)]
        if user_ids:
            of_event = Vocabulary(user_ids).indices(events["user_id"]) - 1
    sessions: list[Any] = []
    if "session_id" in events.column_names and not asked:
        nobody = np.flatnonzero(of_event < 0)
        theirs = events["session_id"].take(pa.array(nobody))
        sessions = _newcomers(theirs, [])
        if sessions:
            found = Vocabulary(sessions).indices(theirs) - 1
            of_event[nobody] = np.where(found >= 0, found + len(user_ids), -1)
    return People(
        user_ids=[*user_ids, *[None] * len(sessions)],
        session_ids=[*[None] * len(user_ids), *sessions],
        users_row=np.concatenate([rows, np.full(len(user_ids) - len(rows) + len(sessions), -1, np.int64)]),
        of_event=of_event,
    )


def _newcomers(ids: pa.ChunkedArray, known: list[Any]) -> list[Any]:
    there = set(known)
    return [i for i in pc.unique(ids).to_pylist() if i is not None and i not in there]
