"""What a learner may know of people before the treatment: columns of `users`, as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from playbill.errors import MeasureError
from playbill.tables.folder import has_table, read_folder, read_table
from playbill.tables.schema import CONSENT_PREFIX, Column, Kind

_MOST_WORDS = 20  # a text column with more different values says who somebody is rather than what they are like
_NUMBERS = (Kind.NUMBER, Kind.FLAG)


def user_features(
    tables: Path, user_id: np.ndarray, names: Sequence[str] = ()
) -> tuple[np.ndarray, list[str], list[str]]:
    """Return the features of people, their names, and warnings.

    Numbers and flags stand as they are, a text column becomes a column a value (at most 20 values); what is missing is
    NaN, or 0 in a value's column. Protected and sensitive columns and consent are never features.

    Args:
        tables: the folder.
        user_id: [N] ids.
        names: columns of users; empty takes all that may be used.
    Returns:
        [N, F] float64, F names, warnings (columns left out).
    Raises:
        MeasureError: no users table, a named column that is missing, protected or not usable, or no column at all.
    """
    if not has_table(tables, "users"):
        raise MeasureError(f"{tables} has no table users, so a learner knows nothing of anybody; give question.scores")
    columns = {c.name: c for c in read_folder(tables).columns["users"]}
    usable = [name for name, c in columns.items() if _refused(c) is None]
    for name in names:
        if name not in columns:
            raise MeasureError(f"users has no column {name!r}; it has {', '.join(columns)}")
        if (why := _refused(columns[name])) is not None:
            raise MeasureError(f"users.{name} {why}, so it is no feature; columns that can be: {', '.join(usable)}")
    chosen = list(names) or usable
    if not chosen:
        raise MeasureError(
            f"users has no column that may be a feature among {', '.join(columns)}; give question.scores"
        )
    frame = pl.DataFrame({"user_id": user_id}).join(
        pl.DataFrame(read_table(tables, "users", ["user_id", *chosen])), on="user_id", how="left", maintain_order="left"
    )
    found: list[np.ndarray] = []
    called: list[str] = []
    warnings: list[str] = []
    for name in chosen:
        if columns[name].kind in _NUMBERS:
            found.append(frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy())
            called.append(name)
            continue
        words = sorted(frame[name].drop_nulls().unique().to_list())
        if len(words) > _MOST_WORDS:
            warnings.append(f"users.{name} has {len(words):,} different values and was left out of the features")
            continue
        for word in words:
            found.append((frame[name] == word).fill_null(False).cast(pl.Float64).to_numpy())
            called.append(f"{name}={word}")
    if not found:
        raise MeasureError(f"no feature is left of {', '.join(chosen)}: {'; '.join(warnings)}")
    return np.stack(found, axis=1), called, warnings


def _refused(column: Column) -> str | None:
    """Return why a column is no feature, or None."""
    if column.name == "user_id" or column.name == "contactable" or column.name.startswith(CONSENT_PREFIX):
        return "is an id or a permission"
    if column.protected:
        return "is protected"
    if column.sensitive:
        return "is sensitive"
    if column.kind not in (*_NUMBERS, Kind.TEXT):
        return f"holds {column.kind.value}"
    return None
