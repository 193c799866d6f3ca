"""The one rule of consent: dataset, engine and campaign ask here and nowhere else.

A purpose is a column `consent_<purpose>` of the users table. Where the column exists, only a stated yes allows: null, a
person without a row, and anything that is not true deny. Where it does not exist the project asks for no consent to
this purpose, and everybody is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from playbill.errors import TableError
from playbill.tables.schema import CONSENT_PREFIX


def purposes(columns: Iterable[str]) -> list[str]:
    """Return the purposes that have a consent column among these column names, in their order."""
    return [name.removeprefix(CONSENT_PREFIX) for name in columns if name.startswith(CONSENT_PREFIX)]


def allowed(columns: Mapping[str, Any], purpose: str, purposes: Sequence[str]) -> bool:
    """Return whether one person's data may be used for a purpose.

    Args:
        columns: the person's values by column name; empty for a person nobody knows.
        purpose: such as `personalisation`, `training` or `marketing`.
        purposes: purposes for which the users table has a column (`purposes()`).
    """
    if purpose not in purposes:
        return True
    value = columns.get(CONSENT_PREFIX + purpose)
    # only true itself: the text "false" and the number 2 are no statement of consent
    return isinstance(value, bool | np.bool_) and bool(value)


def not_denied(columns: Mapping[str, Any], purpose: str) -> bool:
    """Return whether nothing in one person's columns denies a purpose: they say yes to it, or do not speak of it."""
    return allowed(columns, purpose, (purpose,) if CONSENT_PREFIX + purpose in columns else ())


def allowed_rows(table: pa.Table, purpose: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return [rows] bool: which people of a users table allow a purpose.

    Raises:
        TableError: the consent column is not boolean.
    """
    name = CONSENT_PREFIX + purpose
    if name not in table.column_names:
        return np.ones(table.num_rows, dtype=np.bool_)
    column = table[name]
    if not pa.types.is_boolean(column.type):
        raise TableError(f"users.{name} is {column.type}, expected bool; `playbill prepare` writes it as such")
    result: np.ndarray[Any, np.dtype[np.bool_]] = pc.fill_null(column, False).to_numpy()
    return result.astype(np.bool_)
