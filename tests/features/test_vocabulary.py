from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbill.errors import FeatureError
from playbill.features.vocabulary import Vocabulary, read_vocabularies, write_vocabularies


def test_values_count_from_one_and_zero_is_unknown() -> None:
    films = Vocabulary([50, 7, 181])
    assert (len(films), films.size, films.id_type) == (3, 4, "int64")
    assert [films.index(v) for v in (50, 7, 181, 8, None)] == [1, 2, 3, 0, 0]
    assert films.indices([181, 8, None]).tolist() == [3, 0, 0]


@pytest.mark.parametrize("value", [True, 1.0, "1", [1], {}, float("nan"), 2**70, b"1"])
def test_another_type_is_unknown_and_never_an_error(value: Any) -> None:
    ones = Vocabulary([1])
    assert ones.index(value) == 0
    # long enough for the way over Arrow, which would turn 1.5 into 1 and refuse a mixture
    assert ones.indices([1, value] * 2000).tolist() == [1, 0] * 2000


def test_text_is_never_taken_for_a_number() -> None:
    numbers, words = Vocabulary([7]), Vocabulary(["7"])
    assert words.index(7) == 0 and numbers.index("007") == 0
    with pytest.raises(FeatureError, match=r"type string looked up among int64"):
        numbers.indices(pa.array(["7"]))
    with pytest.raises(FeatureError, match=r"type int64 looked up among string"):
        words.indices(np.asarray([7]))


def test_columns_of_every_width_are_understood() -> None:
    films = Vocabulary([50, 7])
    for array in (pa.array([7, None, 9], pa.int32()), pa.chunked_array([[7, None], [9]], pa.int64())):
        assert films.indices(array).tolist() == [2, 0, 0]
    assert films.indices(np.asarray([7, 9], np.int32)).tolist() == [2, 0]
    assert films.indices(pa.array([None, None])).tolist() == [0, 0]
    assert Vocabulary(["a"]).indices(pa.array(["a", "b"], pa.large_string())).tolist() == [1, 0]
    assert films.indices(pa.chunked_array([], pa.int64())).tolist() == []


@given(st.lists(st.one_of(st.integers(-3, 3), st.text("ab", max_size=2), st.none(), st.floats(0, 2), st.booleans())))
def test_one_value_a_short_list_and_a_long_list_agree(values: list[Any]) -> None:
    for vocabulary in (Vocabulary([2, -1, 0]), Vocabulary(["", "b", "ab"])):
        one_by_one = [vocabulary.index(v) for v in values]
        assert vocabulary.indices(values).tolist() == one_by_one
        assert vocabulary.indices(values * 2048).tolist() == one_by_one * 2048


def test_duplicates_and_mixtures_are_refused() -> None:
    with pytest.raises(FeatureError, match="1 values stand twice"):
        Vocabulary([1, 1])
    with pytest.raises(FeatureError, match=r"all int or all str, got \['int', 'str'\]"):
        Vocabulary([1, "a"])


def test_the_hash_sees_value_order_and_type() -> None:
    hashes = {Vocabulary(v).hash() for v in ([1, 2], [2, 1], ["1", "2"], ["12"], [12], [])}
    assert len(hashes) == 6


def test_what_is_written_is_read_and_alterations_are_refused(tmp_path: Path) -> None:
    written = {"item": Vocabulary([5, 3]), "user_city": Vocabulary(["Rome", "Öland"])}
    hashes = {name: v.hash() for name, v in written.items()}
    write_vocabularies(written, tmp_path)
    read = read_vocabularies(tmp_path, hashes)
    assert {name: v.values for name, v in read.items()} == {"item": [5, 3], "user_city": ["Rome", "Öland"]}

    write_vocabularies({"item": Vocabulary([3, 5])}, tmp_path)
    with pytest.raises(FeatureError, match="vocabulary 'item' hashes to .* belongs to another training run"):
        read_vocabularies(tmp_path, hashes)
    (tmp_path / "item.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(FeatureError, match="vocabulary 'item' in .* cannot be read"):
        read_vocabularies(tmp_path, hashes)
    (tmp_path / "item.parquet").unlink()
    with pytest.raises(FeatureError, match="vocabulary 'item' is missing"):
        read_vocabularies(tmp_path, hashes)
