"""Lists of eligible actions: decoded in parts they are what they are decoded at once, in less memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import polars as pl
import pytest

from playbill.errors import MeasureError
from playbill.measure.off_policy import eligible
from playbill.measure.off_policy.eligible import actions_of


def rows(n: int, each: int) -> pl.DataFrame:
    lists = [[(7 * i + j) % 500 for j in range(each)] for i in range(n)]
    shares = ",".join([str(1 / each)] * each)
    return pl.DataFrame(
        {
            "chosen": [str(one[0]) for one in lists],
            "context": [f'{{"hour":3,"eligible":{one},"propensities":[{shares}]}}' for one in lists],
        }
    )


def test_parts_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = pl.DataFrame(
        {
            "chosen": ["7", "b", "2.5", "b"],
            "context": [
                '{"eligible":[7,"b"]}',
                '{"eligible":["b"]}',
                '{"eligible":[2.5,"7"]}',
                '{"eligible":["c","b"]}',
            ],
        }
    )
    for at_once in (1, 3, 100):
        monkeypatch.setattr(eligible, "_DECODED_AT_ONCE", at_once)
        action, names, found = actions_of(asked, every=False)
        assert names == ["7", "b", "2.5", "c"] and action.tolist() == [0, 1, 2, 1]
        assert found is not None and found.logging is None
        assert found.first.tolist() == [0, 2, 3, 5, 7] and found.action.tolist() == [0, 1, 1, 2, 0, 3, 1]


def test_lists_of_many_rows_take_the_memory_of_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """5,000 rows of 20 actions: 16 bytes each are 1.6 MB, and as objects they would be five times as much."""
    asked = rows(5_000, 20)
    monkeypatch.setattr(eligible, "_DECODED_AT_ONCE", 250)
    tracemalloc.start()
    try:
        action, names, found = actions_of(asked, every=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found is not None and found.logging is not None and len(found.action) == len(found.logging) == 100_000
    assert np.array(names)[found.action[found.first[:-1]]].tolist() == asked["chosen"].to_list()
    assert (found.action[found.first[:-1]] == action).all()
    assert peak < 4e6


@pytest.mark.parametrize(
    ("context", "says"),
    [
        ('{"eligible":["a", null]}', "row 3 is not a json object as expected"),
        ('{"eligible":"a"}', "row 3 is not a json object as expected"),
        ('{"eligible":["a","b"],"propensities":[1.0]}', "row 3 has 1 propensities for 2 eligible actions"),
    ],
)
def test_a_bad_list_names_its_row(monkeypatch: pytest.MonkeyPatch, context: str, says: str) -> None:
    monkeypatch.setattr(eligible, "_DECODED_AT_ONCE", 2)
    asked = pl.DataFrame({"chosen": ["a"] * 4, "context": ['{"eligible":["a","b"]}'] * 3 + [context]})
    with pytest.raises(MeasureError, match=says):
        actions_of(asked, every=False)


def test_a_row_without_a_list_leaves_all_without() -> None:
    for lacking in (None, "", "{}", '{"eligible":[]}'):
        asked = pl.DataFrame({"chosen": ["a", "b"], "context": ['{"eligible":["a","c"]}', lacking]})
        action, names, found = actions_of(asked, every=False)
        assert found is None and names == ["a", "b"] and action.tolist() == [0, 1]
