"""Which actions each decision could choose, from the json of decisions.context; decoded in parts of bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import msgspec
import numpy as np
import polars as pl

from playbill.errors import MeasureError

_DECODED_AT_ONCE = 50_000  # rows whose lists stand in memory as objects; 20 actions each are some 100 MB


@dataclass(slots=True)
class Eligible:
    """Which actions each round could choose, as CSR, in the order in which they were written.

    Attributes:
        first: [N + 1] int64.
        action: [T] int64.
        logging: [T] float64, the logging policy's probabilities; None where they were not written.
    """

    first: np.ndarray
    action: np.ndarray
    logging: np.ndarray | None


class _Context(msgspec.Struct, gc=False):
    eligible: list[int | float | str] | None = None
    propensities: list[float] | None = None


class _Codes(dict[int | float | str, int]):
    """Numbers of actions, 0, 1, ... as they first appear; 7 and "7" are one."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}

    def __missing__(self, action: int | float | str) -> int:
        code = self.names.setdefault(str(action), len(self.names))
        self[action] = code
        return code


def actions_of(decisions: pl.DataFrame, *, every: bool) -> tuple[np.ndarray, list[str], Eligible | None]:
    """Return the chosen actions ([N] int64), their names as text, and what could be chosen, where that is written.

    Args:
        decisions: [N] rows with chosen, and context where there is one.
        every: every action chosen in these rows could be chosen in each of them.
    Raises:
        MeasureError: a context that is not a json object with the lists `eligible` and `propensities`; names the row.
    """
    n, codes = len(decisions), _Codes()
    chosen = decisions["chosen"].cast(pl.String)
    action = np.fromiter(map(codes.__getitem__, chosen), np.int64, n)
    if every:
        names = list(codes.names)
        return action, names, Eligible(np.arange(n + 1) * len(names), np.tile(np.arange(len(names)), n), None)
    of_choices = len(codes.names)
    eligible = _eligible(decisions["context"], codes) if "context" in decisions.columns else None
    names = list(codes.names)
    return action, names if eligible else names[:of_choices], eligible


def _eligible(context: pl.Series, codes: _Codes) -> Eligible | None:
    """Return each round's eligible actions, and their propensities if all have them; None where a list is missing."""
    lengths, actions = [], []
    logging: list[np.ndarray] | None = []
    for start in range(0, len(context), _DECODED_AT_ONCE):
        found = _decoded(context.slice(start, _DECODED_AT_ONCE).to_list(), start)
        if found is None:
            return None
        eligible, propensities = found
        lengths.append(np.fromiter(map(len, eligible), np.int64, len(eligible)))
        total = int(lengths[-1].sum())
        actions.append(np.fromiter(map(codes.__getitem__, chain.from_iterable(eligible)), np.int32, total))
        if propensities is None:
            logging = None
        elif logging is not None:
            logging.append(np.fromiter(chain.from_iterable(propensities), np.float64, total))
    first = np.concatenate([[0], np.cumsum(np.concatenate(lengths), dtype=np.int64)])
    return Eligible(
        first, np.concatenate(actions, dtype=np.int64), None if logging is None else np.concatenate(logging)
    )


def _decoded(
    texts: list[str | None], start: int
) -> tuple[list[list[int | float | str]], list[list[float]] | None] | None:
    """Return eligible and propensities of each row, the latter None where one has none; None where a list lacks."""
    decode = msgspec.json.Decoder(_Context).decode
    lists, all_given = [], []
    for row, text in enumerate(texts, start):
        if not text:
            return None
        try:
            found = decode(text)
        except msgspec.DecodeError as error:
            raise MeasureError(f"decisions.context: row {row} is not a json object as expected: {error}") from error
        eligible, given = found.eligible, found.propensities
        if not eligible:
            return None
        lists.append(eligible)
        if given is not None:
            if len(given) != len(eligible):
                raise MeasureError(
                    f"decisions.context: row {row} has {len(given)} propensities for {len(eligible)} eligible actions; "
                    "write one each"
                )
            all_given.append(given)
    return lists, all_given if len(all_given) == len(lists) else None
