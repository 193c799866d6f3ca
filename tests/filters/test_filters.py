"""Conditions over columns: what they say, against rows judged one by one, and where a mistake is pointed at."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.errors import FilterError
from playbill.filters.check import Kind, kinds, moment_us, parse
from playbill.filters.mask import holds, mask
from playbill.filters.read import MAX_DEPTH, MAX_LENGTH, MAX_TESTS

UTC = dt.UTC
TABLE = pl.DataFrame(
    {
        "item_id": [1, 2, 3, 4],
        "title": ["Heat", "It's a gift", None, "Élan"],
        "price": [5.0, None, 12.5, float("nan")],
        "stock": [0, 3, None, 7],
        "open": [True, False, None, True],
        "tags": [["a", "b"], [], None, ["b", None]],
        "codes": [[1, 2], [3], None, []],
        "when": [dt.datetime(2024, 1, d, tzinfo=UTC) if d else None for d in (1, 2, 0, 3)],
        "day": [dt.date(2024, 1, 1), None, dt.date(2024, 5, 1), dt.date(2025, 1, 1)],
        "vector": [[0.5, 1.0], [1.0, 0.0], None, [0.0, 0.0]],
        "odd name": ["x", "y", "z", None],
    },
    schema_overrides={"when": pl.Datetime("ms", "UTC")},
)
KNOWN = kinds(TABLE.schema)


def chosen(text: str) -> list[int]:
    return [i + 1 for i in np.flatnonzero(mask(parse(text, KNOWN), TABLE, KNOWN)).tolist()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("price < 10", [1]),
        ("price != 5", [3]),  # what is missing is neither equal nor unequal, and NaN is missing
        ("not price < 10", [3]),
        ("price is null", [2, 4]),
        ("price IS NOT NULL", [1, 3]),
        ("title = 'It''s a gift'", [2]),
        ('title = "It\'s a gift" or title in ["Élan"]', [2, 4]),
        ("title >= 'I'", [2, 4]),
        ("open", [1, 4]),
        ("not open", [2]),
        ("open = false or open is null", [2, 3]),
        ("tags contains 'b'", [1, 4]),
        ("tags not contains 'b'", [2]),
        ("codes contains 3 or codes contains 2.0", [1, 2]),
        ("codes contains 2.5", []),
        ("stock in [3, 7, 0.5]", [2, 4]),
        ("stock not in (0)", [2, 4]),
        ("stock < 3.5 and stock > -.5", [1, 2]),
        ("when >= '2024-01-02'", [2, 4]),
        ("when = '2024-01-01T01:00:00+01:00'", [1]),
        ("day < '2024-06-01'", [1, 3]),
        ("vector is not null", [1, 2, 4]),
        ("`odd name` = 'y'", [2]),
        ("stock = 0 or stock = 3 and open", [1]),  # and binds closer
        ("(stock = 0 or stock = 3) and not open", [2]),
        ("not (stock = 0 or price > 1)", []),  # unknown stays unknown
        ("not (stock = 0 and price > 100)", [1, 2, 3, 4]),
        ("not not open", [1, 4]),
    ],
)
def test_what_a_condition_chooses(text: str, expected: list[int]) -> None:
    assert chosen(text) == expected
    rows = [{**row, "when": row["when"] and moment_us(row["when"].isoformat()), "day": row["day"] and str(row["day"])}
            for row in TABLE.to_dicts()]  # fmt: skip
    assert [i + 1 for i, row in enumerate(rows) if holds(parse(text, KNOWN), row, KNOWN)] == expected


@pytest.mark.parametrize(
    ("text", "character", "reason"),
    [
        ("", 1, "expected a column, `not` or `(`, got the end"),
        ("prize < 5", 1, "no column 'prize'; did you mean price?"),
        ("price < 5 and titles = 'x'", 15, "no column 'titles'; did you mean title?"),
        ("price < 'x'", 9, "price holds numbers: expected a number, got 'x'"),
        ("price < true", 9, "expected a number, got True"),
        ("title = 5", 9, "title holds text: expected a quoted text, got 5"),
        ("stock in [1, 'a']", 14, "expected a number, got 'a'"),
        ("tags = 'a'", 6, "tags holds lists of text; use contains, not ="),
        ("title contains 'a'", 7, "`contains` is for lists"),
        ("tags contains 5", 15, "expected a quoted text, got 5"),
        ("when > 5", 8, "when holds times: expected a quoted ISO 8601 time"),
        ("when > 'soon'", 8, "got 'soon'"),
        ("vector contains 0.5", 8, "`contains` is for lists"),
        ("vector = 1", 8, "only `is null` can be asked"),
        ("open < true", 6, "use = or !=, not <"),
        ("price", 1, "expected an operator behind it"),
        ("price < 5 stock", 11, "expected `and`, `or` or the end, got stock"),
        ("(price < 5", 11, "expected `)`, `and` or `or`, got the end"),
        ("price = null", 9, "asked for with `is null`"),
        ("price is 5", 10, "expected `null` or `not null`"),
        ("price not 5", 11, "expected `in` or `contains`"),
        ("stock in 5", 10, "expected a list such as [1, 2]"),
        ("stock in []", 11, "expected a value"),
        ("stock in [1; 2]", 12, "got what starts with ';'"),
        ("stock in [1, 2)", 15, "expected `,` or `]`"),
        ("title = 'open", 9, "a quote that is not closed"),
        ("price < 5abc", 9, "got what starts with '5'"),
        ("price < 1e999", 9, "a number that fits 64 bits"),
        (f"stock = {2**63}", 9, "a number that fits 64 bits"),
        ("stock = " + "1" * 5000, 9, "at most 40 characters"),
        ("open \x85", 6, "got what starts with '\\x85'"),  # a space to Python's strip, none to the reader
        ("price < 5\x00", 10, "got what starts with '\\x00'"),
        ("title = '\ud800'", 10, "half of a surrogate pair"),
        ("5 < price", 1, "expected a column"),
        ("and", 1, "expected a column"),
        ("(" * 10_000 + "open" + ")" * 10_000, MAX_LENGTH + 1, "at most"),
        ("(" * 5_000 + "open" + ")" * 5_000, MAX_DEPTH + 2, "brackets and nots around each other"),
        ("not " * 4_000 + "open", 4 * (MAX_DEPTH + 1) + 1, "brackets and nots around each other"),
        ("open or " * 2_000 + "open", 8 * MAX_TESTS + 1, "at most 64 tests"),
    ],
)
def test_where_a_mistake_is(text: str, character: int, reason: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse(text, KNOWN)
    error = caught.value
    assert error.at + 1 == character and reason in error.reason
    told, shown, pointer = str(error).split("\n")
    assert told.startswith(f"character {character}: ")
    if character <= len(text) and text.isprintable():
        assert shown[pointer.index("^")] == text[error.at]


def test_the_largest_that_is_read() -> None:
    assert chosen("(" * MAX_DEPTH + "open" + ")" * MAX_DEPTH) == [1, 4]
    assert chosen(" or ".join(["open"] * MAX_TESTS)) == [1, 4]
    many = "item_id in [" + ",".join(map(str, range(2, 3_000))) + "]"
    assert len(many) < MAX_LENGTH and chosen(many) == [2, 3, 4]


def test_kinds_of_columns() -> None:
    assert KNOWN["vector"] is Kind.OTHER and KNOWN["codes"] is Kind.NUMBERS and KNOWN["day"] is Kind.TIME
    assert moment_us("881250949") is None and moment_us("1970-01-01T00:00:01") == 1_000_000


ROWS = st.fixed_dictionaries(
    {
        "text": st.none() | st.sampled_from(["", "a", "b", "ab", "é"]),
        "number": st.none() | st.floats(-3, 3) | st.sampled_from([0.0, 1.0, math.nan]),
        "whole": st.none() | st.integers(-3, 3),
        "flag": st.none() | st.booleans(),
        "tags": st.none() | st.lists(st.sampled_from(["a", "b", "é"]), max_size=3),
        "at": st.none() | st.integers(-3, 3).map(lambda day: day * 86_400_000_000),
    }
)
SCHEMA: dict[str, Any] = {
    "text": pl.String,
    "number": pl.Float64,
    "whole": pl.Int16,
    "flag": pl.Boolean,
    "tags": pl.List(pl.String),
    "at": pl.Datetime("us", "UTC"),
}
KINDS = kinds({name: dtype() if isinstance(dtype, type) else dtype for name, dtype in SCHEMA.items()})
_texts = st.sampled_from(["'a'", '"b"', "''", "'é'"])
_numbers = st.sampled_from(["0", "1", "-2", "0.5", "1e0", "2.0", "-.5"])
_times = st.sampled_from(["'1970-01-01'", "'1970-01-02T00:00:00Z'", "'1969-12-31'"])
_compare = st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "==", "<>"])


def _tests() -> st.SearchStrategy[str]:
    def of(column: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        listed = st.lists(values, min_size=1, max_size=3).map(", ".join)
        return (
            st.builds(lambda op, v: f"{column} {op} {v}", _compare, values)
            | st.builds(lambda n, v: f"{column}{n} in [{v}]", st.sampled_from(["", " not"]), listed)
        )  # fmt: skip

    return (
        of("text", _texts)
        | of("number", _numbers)
        | of("whole", _numbers)
        | of("at", _times)
        | st.sampled_from(["flag", "flag = true", "flag != true", "flag in [false]"])
        | _texts.map(lambda v: f"tags contains {v}")
        | st.sampled_from(list(SCHEMA)).map(lambda c: f"{c} is null")
    )


CONDITIONS = st.recursive(
    _tests(),
    lambda inner: (
        inner.map(lambda c: f"not ({c})")
        | st.builds(lambda a, op, b: f"({a}) {op} ({b})", inner, st.sampled_from(["and", "or", "AND"]), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None, database=None)
@given(rows=st.lists(ROWS, min_size=1, max_size=12), text=CONDITIONS)
def test_a_mask_says_of_each_row_what_the_row_says_of_itself(rows: list[dict[str, Any]], text: str) -> None:
    table = pl.DataFrame(rows, schema=SCHEMA)
    tree = parse(text, KINDS)
    assert mask(tree, table, KINDS).tolist() == [holds(tree, row, KINDS) for row in rows]
    # what a condition does not choose, neither it nor its contrary chooses only where something is missing
    both = mask(tree, table, KINDS) | mask(parse(f"not ({text})", KINDS), table, KINDS)
    assert all(said or None in row.values() or math.isnan(row["number"]) for said, row in zip(both, rows, strict=True))


WORDS = """text number tags flag at nothing and or not in is null contains true ( ) [ ] , = < != 'a' '1970-01-01' 1 -2.5
    ` ' 1e999 é""".split()
WORDS += ["\x00", "\x85", "\u2003"]


@settings(max_examples=500, deadline=None, database=None)
@given(text=st.text(max_size=60) | st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join))
def test_any_text_is_a_condition_or_a_mistake_at_a_character(text: str) -> None:
    try:
        tree = parse(text, KINDS)
    except FilterError as error:
        assert 0 <= error.at <= len(text) and error.reason and str(error).endswith("^")
    else:
        assert mask(tree, pl.DataFrame(schema=SCHEMA), KINDS).shape == (0,)
