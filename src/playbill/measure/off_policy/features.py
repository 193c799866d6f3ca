"""What a reward model may see of the person and the moment: columns of users, and entries of a decision's context."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from playbill.errors import MeasureError
from playbill.tables.folder import read_folder, read_table

_MOST_CATEGORIES = 20  # of a text feature; rarer values share one column, the one of zeros


def features_of(tables: Path, decisions: pl.DataFrame, names: list[str]) -> np.ndarray | None:
    """Return what the reward model sees: numbers as they are (missing ones as the mean), texts a column a value.

    Args:
        tables: the folder.
        decisions: [N] rows with user_id and context.
        names: columns of users, or context.NAME; none gives None.
    Returns:
        [N, F] float64.
    Raises:
        TableError: users lack a column.
        MeasureError: a protected or sensitive column, or a name that no row has.
    """
    if not names:
        return None
    columns: list[np.ndarray] = []
    of_users = [name for name in names if not name.startswith("context.")]
    if of_users:
        protected = {c.name for c in read_folder(tables).columns.get("users", []) if c.protected or c.sensitive}
        taken = sorted(protected & set(of_users))
        if taken:
            raise MeasureError(f"question.features: users.{', users.'.join(taken)} may not be a model's input")
        users = pl.DataFrame(read_table(tables, "users", ["user_id", *of_users]))
        if "user_id" not in decisions.columns:
            raise MeasureError(f"decisions has no user_id, so users' columns {of_users} cannot be joined")
        joined = decisions.select("user_id").join(users, on="user_id", how="left", maintain_order="left")
        for name in of_users:
            columns += _encoded(joined[name])
    for name in names:
        if name.startswith("context."):
            if "context" not in decisions.columns:
                raise MeasureError(f"decisions has no column context, so {name} cannot be a feature")
            found = decisions["context"].str.json_path_match(f"$.{name.removeprefix('context.')}")
            if found.is_null().all():
                raise MeasureError(f"decisions.context: no row has {name.removeprefix('context.')!r}")
            numbers = found.cast(pl.Float64, strict=False)
            columns += _encoded(numbers if numbers.null_count() == found.null_count() else found)
    return np.column_stack(columns)


def _encoded(values: pl.Series) -> list[np.ndarray]:
    if values.dtype.is_numeric() or values.dtype == pl.Boolean:
        numbers = values.cast(pl.Float64)
        mean = numbers.mean()
        return [numbers.fill_nan(None).fill_null(mean if isinstance(mean, float) else 0.0).to_numpy()]
    texts = values.cast(pl.String)
    frequent = texts.drop_nulls().value_counts(sort=True)[values.name].head(_MOST_CATEGORIES).to_list()
    return [(texts == one).fill_null(False).cast(pl.Float64).to_numpy() for one in frequent]
