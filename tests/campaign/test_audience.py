"""Columns of ids as files hold them: each person is who stands there, or the file is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from playbill.campaign.audience import read_people
from playbill.campaign.settings import Audience
from playbill.errors import TableError


def people(tables: Path, folder: Path, ids: list[Any], kind: Any) -> tuple[list[int], list[tuple[Any, ...]]]:
    file = folder / "audience.parquet"
    pl.DataFrame({"user_id": pl.Series(ids, dtype=kind)}).write_parquet(file)
    found = read_people(tables, Audience(file=str(file)))
    return found.user_ids.to_list(), found.aside.rows()


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical, pl.Enum(["700", "701", "702"])])
def test_words_are_read_and_not_their_codes(ml100k_tables: Path, tmp_path: Path, kind: Any) -> None:
    assert people(ml100k_tables, tmp_path, ["700", "701", "702"], kind) == ([700, 701, 702], [])


def test_floats_that_are_no_ids_are_set_aside(ml100k_tables: Path, tmp_path: Path) -> None:
    ids = [7.0, float("inf"), 1e300, 1.5, float("nan"), None, 8.0]
    good, aside = people(ml100k_tables, tmp_path, ids, pl.Float64)
    assert good == [7, 8] and [row for row, _, _ in aside] == [2, 3, 4, 5, 6]
    assert {reason for *_, reason in aside} == {"expected user_id as an integer", "no user_id"}


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        ([True, False], pl.Boolean),
        (["1.50"], pl.Decimal(8, 2)),
        ([1], pl.Date),
        ([1], pl.Duration("us")),
        ([[1]], pl.List(pl.Int64)),
        ([b"1"], pl.Binary),
        ([{"a": 1}], pl.Struct({"a": pl.Int64})),
    ],
)
def test_what_holds_no_ids_is_refused(ml100k_tables: Path, tmp_path: Path, ids: list[Any], kind: Any) -> None:
    with pytest.raises(TableError, match="user_id is .*; expected whole numbers or text"):
        people(ml100k_tables, tmp_path, ids, kind)


def test_a_file_of_nobody_says_so(ml100k_tables: Path, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="nobody is left of 0 rows$"):
        people(ml100k_tables, tmp_path, [], pl.Int64)
