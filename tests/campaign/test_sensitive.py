"""What is sensitive stays out, missing values or not, and only what people declared themselves lets it in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from playbill.campaign.audience import check_declared
from playbill.campaign.sensitive import apart, condition
from playbill.campaign.settings import Block, Campaign, Sensitive
from playbill.errors import ConfigError
from playbill.filters.check import kinds, parse
from playbill.filters.mask import mask
from playbill.tables.folder import write_folder
from playbill.tables.schema import Column, Kind, Provenance

ITEMS = pl.DataFrame(
    {
        "categories": [["health"], ["wine"], ["books"], None, ["health"], None],
        "label": [None, "18+", "it's", None, "18+", "18+"],
        "price": [1.0, None, 3.0, None, 5.0, 6.0],
    }
)


def campaign(*sensitive: Sensitive, block: str | None = None) -> Campaign:
    return Campaign(name="a", blocks=[Block(name="x", filter=block)], subjects="s.json", sensitive=list(sensitive))


def shown(*filters: str, block: str | None = None) -> list[int]:
    mine = campaign(*(Sensitive(filter=text) for text in filters), block=block)
    text = condition(mine, mine.blocks[0])
    if text is None:
        return list(range(len(ITEMS)))
    known = kinds(ITEMS.schema)
    return np.flatnonzero(mask(parse(text, known), ITEMS, known)).tolist()


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], [0, 1, 2, 3, 4, 5]),
        (["categories contains 'health'"], [1, 2, 3, 5]),
        # one half holds, the other is missing: it is sensitive all the same
        (["categories contains 'health' or label = '18+'"], [2, 3]),
        (["categories contains 'health'", "label = '18+'"], [2, 3]),
        (["categories contains 'health' and label = '18+'"], [0, 1, 2, 3, 5]),
        (["label = 'it''s'"], [0, 1, 3, 4, 5]),
        (["label in ['18+', 'it''s']"], [0, 3]),
        (["price >= 3 and price < 5.5"], [0, 1, 3, 5]),
        (["label is null"], [1, 2, 4, 5]),
    ],
)  # fmt: skip
def test_what_is_sensitive_is_not_shown_and_what_is_unknown_is(filters: list[str], expected: list[int]) -> None:
    assert shown(*filters) == expected


def test_the_blocks_own_filter_holds_beside() -> None:
    assert shown("label = '18+'", block="price < 4 or price > 5") == [0, 2]


def test_people_are_told_apart_by_what_they_declared_alone() -> None:
    mine = campaign(Sensitive(filter="label = '18+'", declared="adult"), Sensitive(filter="price > 5"))
    users = pl.DataFrame({"user_id": [1, 2, 3, 4], "adult": [True, None, False, True]})
    groups = {tuple(k.filter for k in theirs.sensitive): rows.tolist() for theirs, rows in
              apart(mine, users, [{}, {}, {"adult": True}, {"adult": False}])}  # fmt: skip
    # the third says yes in the state alone, the fourth took it back since the table was made
    assert groups == {("price > 5",): [0], ("label = '18+'", "price > 5"): [1, 2, 3]}
    for wrong in ("nowhere", "user_id"):
        with pytest.raises(ConfigError, match=r"sensitive\[0\].declared: expected a column"):
            apart(campaign(Sensitive(filter="price > 5", declared=wrong)), users, [{}] * 4)


def test_what_others_found_out_is_no_declaration(tmp_path: Path) -> None:
    users = pa.table({"user_id": [1], "adult": [True], "guessed": [True], "old": [True]})
    said = [
        Column(name="user_id", kind=Kind.ID),
        Column(name="adult", kind=Kind.FLAG, provenance=Provenance.DECLARED, sensitive=True),
        Column(name="guessed", kind=Kind.FLAG, provenance=Provenance.INFERRED),
        Column(name="old", kind=Kind.FLAG, provenance=Provenance.DECLARED, protected=True),
    ]
    write_folder(tmp_path, {"users": users}, source="shop", columns={"users": said})
    check_declared(tmp_path, ["adult"], "sensitive")
    for name, mark in (("guessed", "inferred"), ("old", "protected"), ("nowhere", "users has no column")):
        with pytest.raises(ConfigError, match=mark):
            check_declared(tmp_path, [name], "sensitive")
