"""Which creatives may be shown, and what is refused of a creatives table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from playbill.creative.eligibility import check_shelf, eligible, make_shelf
from playbill.errors import CreativeError

COLUMNS: dict[str, list[Any]] = {
    "creative_id": ["a", "b", "c", "d", "e", "f"],
    "item_id": [7, 7, 7, 8, 8, None],
    "kind": ["poster", "poster", "trailer", "poster", "poster", "subject"],
    "status": ["approved", "approved", "approved", "rejected", "approved", "approved"],
    "approved_until": [None, 1_000, None, None, None, None],
    "locale": [None, "de", "de_AT", None, "fr", None],
    "channel": [None, "mail", "site", None, None, None],
    "is_default": [False, False, True, False, True, None],
}
ITEM = np.array([1, 1, 1, 2, 2, 0])


def shown(item: int, at_us: int = 0, locale: str = "", **more: str) -> list[str]:
    shelf = make_shelf(COLUMNS, ITEM, 3)
    rows, there = eligible(shelf, np.array([item]), at_us, locale, **more)
    return [str(shelf.ids[row]) for row in rows[0][there[0]].tolist()]


def test_approved_unexpired_and_of_the_locale() -> None:
    assert shown(1) == ["c", "a", "b"]  # the default first, then in the table's order
    assert shown(1, at_us=999) == ["c", "a", "b"] and shown(1, at_us=1_000) == ["c", "a"]
    assert shown(1, locale="de") == ["a", "b"]  # what is for Austrians does not suit all who read German
    assert shown(1, locale="de-AT") == ["c", "a", "b"] == shown(1, locale="DE_at")
    assert shown(1, locale="en") == ["a"]
    assert shown(2) == ["e"]  # the other one was never approved
    assert shown(3) == []
    assert shown(1, of_kind="trailer") == ["c"] and shown(1, channel="mail") == ["a", "b"]


def test_where_nothing_suits_the_locale_the_default_is_shown() -> None:
    assert shown(2, locale="it") == ["e"]
    columns = {**COLUMNS, "locale": ["fr", "de", "de", None, "fr", None]}
    shelf = make_shelf(columns, ITEM, 2)
    rows, there = eligible(shelf, np.array([1]), 0, "it")
    assert [shelf.ids[r] for r in rows[there].tolist()] == ["c"]
    columns["status"] = ["approved", "approved", "withdrawn", "rejected", "approved", "approved"]
    shelf = make_shelf(columns, ITEM, 2)
    rows, there = eligible(shelf, np.array([1]), 0, "it")
    assert [shelf.ids[r] for r in rows[there].tolist()] == ["a"]  # an approval binds the default, too


def test_without_a_column_of_approvals_nobody_asked_for_one() -> None:
    columns = {name: values for name, values in COLUMNS.items() if name in ("creative_id", "item_id")}
    shelf = make_shelf(columns, ITEM, 2)
    assert eligible(shelf, np.array([1, 2]), 0, "de")[1].sum(-1).tolist() == [3, 2]
    check_shelf(columns, ITEM, [None, 7, 8])


def test_an_end_that_cannot_be_read_has_come() -> None:
    columns = {**COLUMNS, "approved_until": ["tomorrow", 2**62, None, None, None, None]}
    shelf = make_shelf(columns, ITEM, 2)
    rows, there = eligible(shelf, np.array([1]), 5, "")
    assert sorted(shelf.ids[r] for r in rows[there].tolist()) == ["b", "c"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"item_id": [7, 7, 7, 8, 8, 99]}, r"creatives 'f' belong to items that the catalogue does not have"),
        ({"status": ["x"] * 3 + ["approved"] * 3}, r"items 7 have creatives, and none of them is approved"),
        ({"is_default": [False] * 3 + [True, False, None]}, r"items 7 are without a default creative"),
        ({"is_default": [True, True, True, False, True, None]}, r"items 7 are with several defaults"),
        ({"is_default": [False, False, True, True, False, None]}, r"default creatives of items 8 are not approved"),
    ],
)
def test_a_table_that_leaves_an_item_without_a_default_is_refused(change: dict[str, list[Any]], told: str) -> None:
    check_shelf(COLUMNS, ITEM, [None, 7, 8])
    with pytest.raises(CreativeError, match=told):
        check_shelf({**COLUMNS, **change}, ITEM, [None, 7, 8])
