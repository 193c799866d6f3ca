"""Who did what: a dense number for each person whose events may be used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from playbill.errors import FeatureError
from playbill.features.column import Column
from playbill.tables.consent import allowed_rows
from playbill.tables.ids import IdNumbers
from playbill.tables.schema import CONSENT_PREFIX

_NOBODY = -1
_FIRST_SESSION = -2  # sessions count downwards from here until all users have their numbers


@dataclass(slots=True)
class People:
    """The people of a folder of tables, numbered 0..P-1: users in table order, then others in order of appearance.

    Attributes:
        user_ids: [P], None for a session that belongs to nobody known.
        session_ids: [P], None for users.
        users_row: [P] int64 row of the users table, -1 where there is none.
    """

    user_ids: Column
    session_ids: Column
    users_row: np.ndarray

    def __len__(self) -> int:
        return len(self.user_ids)


class PeopleNumbers:
    """Numbers people while their events go by, in any number of pieces.

    Where the users table has the column `consent_<purpose>`, everybody who is not in it with a yes is left out: also
    people of the events table whom it does not know, and sessions of nobody known.

    Args:
        users: the users table, or None when there is none.
        events: the events table's schema; it has user_id or session_id or both.
        purpose: of the consent.
    Raises:
        FeatureError: user_id has one type in users and another in events.
    """

    def __init__(self, users: pa.Table | None, events: pa.Schema, purpose: str = "training") -> None:
        self.asked = users is not None and CONSENT_PREFIX + purpose in users.column_names
        self.users_row = np.zeros(0, np.int64) if users is None else np.flatnonzero(allowed_rows(users, purpose))
        self.has_user = "user_id" in events.names
        self.has_session = "session_id" in events.names and not self.asked
        self.user_type = _id_type(events if users is None else users.schema, "user_id")
        if users is not None and self.has_user:
            given = events.field("user_id").type
            if not pa.types.is_null(given) and pa.types.is_integer(given) != pa.types.is_int64(self.user_type):
                raise FeatureError(
                    f"user_id is {self.user_type} in users and {given} in events; prepare the tables again with one "
                    "type for both"
                )
        declared = pa.array([], self.user_type)
        if users is not None:
            declared = users["user_id"].combine_chunks().cast(self.user_type).take(pa.array(self.users_row))
        self.session_type = _id_type(events, "session_id")
        self.user_ids, self.session_ids = [declared], [pa.array([], self.session_type)]
        self.users = IdNumbers(declared)
        self.sessions = IdNumbers(pa.array([], self.session_type))

    def add(self, events: pa.Table) -> np.ndarray:
        """Return [n] int64 numbers for these rows; `settle` turns them into people once all rows have gone by."""
        number = np.full(events.num_rows, _NOBODY, np.int64)
        if self.has_user:
            ids = events["user_id"].combine_chunks().cast(self.user_type)
            if not self.asked:
                self.user_ids.append(self.users.add(ids))
            number = self.users.look_up(ids)
        if self.has_session:
            nobody = np.flatnonzero(number == _NOBODY)
            ids = events["session_id"].combine_chunks().cast(self.session_type).take(pa.array(nobody))
            self.session_ids.append(self.sessions.add(ids))
            session = self.sessions.look_up(ids)
            number[nobody] = np.where(session >= 0, _FIRST_SESSION - session, _NOBODY)
        return number

    def settle(self, number: np.ndarray) -> np.ndarray:
        """Return [n] int64 people for numbers of `add`, -1 where the event may not be used."""
        return np.where(number <= _FIRST_SESSION, len(self.users) + _FIRST_SESSION - number, number)

    def people(self) -> People:
        """Return everybody met so far."""
        users, sessions = pa.concat_arrays(self.user_ids), pa.concat_arrays(self.session_ids)
        others = len(users) - len(self.users_row) + len(sessions)
        return People(
            user_ids=Column(pa.concat_arrays([users, pa.nulls(len(sessions), users.type)])),
            session_ids=Column(pa.concat_arrays([pa.nulls(len(users), sessions.type), sessions])),
            users_row=np.concatenate([self.users_row, np.full(others, -1, np.int64)]),
        )


def number_people(users: pa.Table | None, events: pa.Table, purpose: str = "training") -> tuple[People, np.ndarray]:
    """Return who the people are, and [N] int64 the person of each row of events, -1 where it may not be used.

    Args:
        users, events, purpose: see `PeopleNumbers`.
    """
    numbers = PeopleNumbers(users, events.schema, purpose)
    of_event = numbers.add(events)
    return numbers.people(), numbers.settle(of_event)


def _id_type(schema: pa.Schema, name: str) -> pa.DataType:
    if name not in schema.names:
        return pa.string()
    kind = schema.field(name).type
    return pa.int64() if pa.types.is_integer(kind) else pa.string()
