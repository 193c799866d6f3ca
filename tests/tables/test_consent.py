"""Consent: once the column exists, only a stated yes allows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from playbill.errors import TableError
from playbill.tables.consent import allowed, allowed_rows, purposes


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, True), (np.True_, True), (False, False), (None, False), ("true", False), (1, False), (2, False)],
)
def test_only_a_stated_yes_allows(value: object, expected: bool) -> None:
    assert allowed({"consent_training": value}, "training", ["training"]) is expected


def test_a_stranger_is_denied_where_the_column_exists() -> None:
    assert not allowed({}, "training", ["training"])


def test_without_the_column_everybody_is_allowed() -> None:
    assert allowed({}, "training", [])
    assert allowed({"consent_marketing": False}, "training", ["marketing"])


def test_rows_and_single_people_are_judged_alike() -> None:
    table = pa.table({"user_id": [1, 2, 3], "consent_marketing": [True, False, None]})
    names = purposes(table.column_names)
    assert names == ["marketing"]
    for purpose in ("marketing", "training"):
        one_by_one = [allowed(row, purpose, names) for row in table.to_pylist()]
        assert allowed_rows(table, purpose).tolist() == one_by_one


def test_a_column_that_is_not_boolean_is_refused() -> None:
    with pytest.raises(TableError, match=r"users.consent_training is string, expected bool"):
        allowed_rows(pa.table({"consent_training": ["yes"]}), "training")


def test_rows_in_several_chunks() -> None:
    chunks = pa.chunked_array([[True, None], [False]], pa.bool_())
    assert allowed_rows(pa.table({"consent_training": chunks}), "training").tolist() == [True, False, False]
