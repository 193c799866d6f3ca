"""Numbers for sessions, requests and decisions: the same whatever is computed first, and back to the person.

A visit is known by (day, person, number on that day). Its session_id is a scrambled form of these three, so that a
session of somebody anonymous does not give away who it is by plain arithmetic; whoever holds the truth can go back.
A request has its session's number (a mail has one of its own, `MAIL`), a decision its request's number and a slot.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from playbill.errors import ConfigError

Ints = np.ndarray[Any, np.dtype[np.int64]]

VISITS_A_DAY = 7
"""Most visits of a person on one day."""
MAIL = 7
"""The number that a day's mail has among a person's visits of that day."""
_SPOTS = 8

SLOTS = 64
"""Decision ids a request may use."""
ITEM, CREATIVE = 0, 1
"""Slots on a slate: 2 * position + ITEM or CREATIVE."""
HOLD, SEND_HOUR, SUBJECT, HERO, OFFER = 56, 57, 58, 59, 60
"""Slots in a mail."""
LONGEST_SLATE = HOLD // 2

_ODD = 0x9E3779B97F4A7C15


class Sessions:
    """The bijection between (day, person, number) and session ids of one world.

    Args:
        people: P.
        days: T.
    Raises:
        ConfigError: more people and days than ids can tell apart.
    """

    def __init__(self, people: int, days: int) -> None:
        self._people = people
        self._bits = max((people * days * _SPOTS - 1).bit_length(), 8)
        if self._bits > 46:  # 6 bits of slots and 4 of event kinds are packed beside it into 63
            raise ConfigError(f"size.people * size.days = {people * days:,} is too many: at most {2**43:,}")
        self._mask = np.uint64(2**self._bits - 1)
        self._half = np.uint64((self._bits + 1) // 2)
        self._factor = np.uint64(_ODD & (2**self._bits - 1) | 1)
        self._inverse = np.uint64(pow(int(self._factor), -1, 2**self._bits))

    def ids(self, day: int, person: np.ndarray[Any, Any], number: np.ndarray[Any, Any] | int) -> Ints:
        """Return [n] int64 session or request ids, >= 0.

        Args:
            day: 0-based.
            person: [n] rows of people.
            number: [n] visit number of the day, or MAIL.
        """
        plain = ((np.int64(day) * self._people + person.astype(np.int64)) * _SPOTS + number).astype(np.uint64)
        mixed = (plain * self._factor) & self._mask
        mixed ^= mixed >> self._half
        mixed = (mixed * self._factor) & self._mask
        return mixed.astype(np.int64)

    def back(self, ids: np.ndarray[Any, Any]) -> tuple[Ints, Ints, Ints]:
        """Return day, person and number, [n] int64 each, of session or request ids."""
        mixed = (np.asarray(ids).astype(np.uint64) * self._inverse) & self._mask
        mixed ^= mixed >> self._half  # its own inverse: the shift is at least half of the bits
        plain = ((mixed * self._inverse) & self._mask).astype(np.int64)
        rest, number = np.divmod(plain, _SPOTS)
        day, person = np.divmod(rest, self._people)
        return day, person, number
