"""Who is in which group: families of groups from the columns of `users`, and their intersections."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl

from playbill.errors import MeasureError
from playbill.measure.disparity.parity import NOBODY, Family
from playbill.measure.disparity.settings import DisparityQuestion
from playbill.measure.statement import refuse_rows
from playbill.tables.folder import has_table, read_folder, read_table
from playbill.tables.schema import Kind

_MOST_GROUPS = 50  # a column with more values tells persons apart rather than groups


def read_groups(question: DisparityQuestion, tables: Path) -> tuple[np.ndarray, list[Family], list[str]]:
    """Return the people's ids [P], the families of groups over them, and warnings.

    Raises:
        MeasureError: no users or no protected column, a named column that is missing, empty, or no column of groups, a
            person twice, a reference that nobody is in.
    """
    if not has_table(tables, "users"):
        raise MeasureError(f"{tables} has no table users, so nobody belongs to a group")
    declared = {c.name: c for c in read_folder(tables).columns["users"]}
    missing = [c for c in (*question.columns, *question.reference, *question.cuts) if c not in declared]
    if missing:
        raise MeasureError(f"users has no column {', '.join(missing)}; it has: {', '.join(declared)}")
    named = question.columns or [c.name for c in declared.values() if c.protected]
    if not named:
        raise MeasureError(f"users marks no column protected; name some in question.columns: {', '.join(declared)}")
    users = pl.DataFrame(read_table(tables, "users", ["user_id", *named]))
    twice = ~users["user_id"].is_first_distinct().to_numpy()
    refuse_rows("users", "user_id", twice, users["user_id"].to_list(), "a person has one row")
    warnings: list[str] = []
    labels: dict[str, pl.Series] = {}
    for name in named:
        found = _labels(question, users[name], declared[name].kind)
        if isinstance(found, str):
            if question.columns:
                raise MeasureError(f"users.{name} {found}")
            warnings.append(f"users.{name} {found}; it was left out")
            continue
        unknown = found.null_count()
        if unknown == len(found):
            raise MeasureError(f"users.{name} is empty in all {len(found):,} rows, so nobody belongs to a group of it")
        if unknown:
            warnings.append(
                f"users.{name} is empty for {unknown:,} of {len(found):,} people; they are in no group of it"
            )
        labels[name] = found
    families = [
        _family(question, columns, [labels[c] for c in columns], warnings)
        for depth in range(1, question.intersections + 1)
        for columns in combinations(labels, depth)
    ]
    families = [f for f in families if len(f.groups) > 1]
    if not families:
        raise MeasureError(f"no column among {', '.join(named)} has two groups to compare; {'; '.join(warnings)}")
    return users["user_id"].to_numpy(), families, warnings


def _labels(question: DisparityQuestion, values: pl.Series, kind: Kind) -> pl.Series | str:
    """Return each person's group as text, null where unknown, or why the column has no groups."""
    cuts = question.cuts.get(values.name)
    if kind in (Kind.CATEGORIES, Kind.TIME):
        return f"holds {kind.value}, which is no group"
    if kind is Kind.NUMBER:
        bad = values.is_nan().fill_null(False).to_numpy()
        refuse_rows("users", values.name, bad, values.to_list(), "a group is a number or nothing")
        if cuts:
            edges = ["", *(f"{c:g}" for c in cuts), ""]
            names = [f"under {edges[1]}", *(f"{a} to {b}" for a, b in zip(edges[1:-2], edges[2:-1], strict=True))]
            names.append(f"{edges[-2]} and over")
            place = np.searchsorted(np.asarray(cuts), values.fill_null(0.0).to_numpy(), side="right")
            known = values.is_not_null()
            return pl.Series(values.name, np.array(names, object)[place], pl.String).set(~known, None)
    elif cuts:
        return f"holds {kind.value} and cannot be cut at {cuts}"
    different = values.drop_nulls().unique()
    if len(different) > _MOST_GROUPS:
        advice = "; give question.cuts" if kind is Kind.NUMBER else ""
        return f"has {len(different):,} different values, more than {_MOST_GROUPS} groups{advice}"
    if kind is Kind.NUMBER:
        return values.replace_strict({v: f"{v:g}" for v in different}, default=None, return_dtype=pl.String)
    return values.cast(pl.String)


def _family(
    question: DisparityQuestion, columns: tuple[str, ...], labels: list[pl.Series], warnings: list[str]
) -> Family:
    prefixed = [pl.lit(f"{name}=") + pl.Series(label) for name, label in zip(columns, labels, strict=True)]
    joined = pl.select(pl.concat_str(prefixed, separator=" & ").alias("g"))["g"]  # null as soon as one is
    counts = joined.drop_nulls().value_counts(sort=True).sort(["count", "g"], descending=[True, False])
    names = counts["g"].to_list()
    code = np.full(len(joined), NOBODY, np.int64)
    known = joined.is_not_null().to_numpy()
    order = {name: g for g, name in enumerate(names)}
    code[known] = np.asarray(joined.drop_nulls().replace_strict(order, return_dtype=pl.Int64))
    reference = 0
    if all(c in question.reference for c in columns):
        wanted = " & ".join(f"{c}={question.reference[c]}" for c in columns)
        if wanted not in order:
            raise MeasureError(f"nobody is in the reference group {wanted}; groups: {', '.join(names[:20])}")
        reference = order[wanted]
    return Family(" & ".join(columns), code, names, reference)
