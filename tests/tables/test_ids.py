"""The set of ids against Python's own set."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from playbill.tables.ids import IdSet, codes

numbers = st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5)
texts = st.text(max_size=4)


@given(st.lists(st.lists(numbers | st.none(), max_size=40), max_size=12), st.lists(numbers, max_size=40))
def test_whole_numbers(batches: list[list[int | None]], asked: list[int]) -> None:
    ids, plain = IdSet(), set()
    for batch in batches:
        ids.add(pa.array(batch, pa.int64()))
        plain |= set(batch)
        assert len(ids) == len(plain - {None})
    assert ids.contains(pa.array(asked, pa.int64())).tolist() == [number in plain for number in asked]


@given(st.lists(st.lists(texts | st.none(), max_size=40), max_size=12), st.lists(texts, max_size=40))
def test_texts(batches: list[list[str | None]], asked: list[str]) -> None:
    ids, plain = IdSet(), set()
    for batch in batches:
        ids.add(pa.array(batch, pa.string()))
        plain |= set(batch)
        assert len(ids) == len(plain - {None})
    assert ids.contains(pa.array(asked, pa.string())).tolist() == [text in plain for text in asked]


def test_null_is_in_no_set() -> None:
    ids = IdSet()
    ids.add(pa.array([0, None], pa.int64()))
    assert ids.contains(pa.array([None, 0], pa.int64())).tolist() == [False, True]


@given(st.lists(texts, max_size=40))
def test_codes_number_the_distinct_ids(words: list[str]) -> None:
    numbers, count = codes(pa.array(words, pa.string()))
    assert count == len(set(words))
    assert len(set(zip(words, numbers.tolist(), strict=True))) == count
