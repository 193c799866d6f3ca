"""Which columns of a creatives table become features, and which are refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from playbill.errors import FeatureError
from playbill.features.creatives import creative_fields
from playbill.features.encoder import encode_fields
from playbill.features.spec import Encoding, Side
from playbill.tables.schema import Column, Kind
from playbill.tables.vectors import fixed_size

COLUMNS = [
    Column(name="creative_id", kind=Kind.ID),
    Column(name="kind", kind=Kind.TEXT),
    Column(name="item_id", kind=Kind.ID),
    Column(name="uri", kind=Kind.TEXT),
    Column(name="text", kind=Kind.TEXT),
    Column(name="status", kind=Kind.TEXT),
    Column(name="tone", kind=Kind.TEXT),
    Column(name="faces", kind=Kind.NUMBER),
    Column(name="scenes", kind=Kind.CATEGORIES),
    Column(name="look", kind=Kind.VECTOR),
    Column(name="model", kind=Kind.TEXT, protected=True),
]


@pytest.fixture
def table() -> pa.Table:
    n = 12
    words = ["a warm story", "a cold story", "a warm tale", "a cold tale"]
    return pa.table(
        {
            "creative_id": pa.array(range(n)),
            "kind": ["poster"] * n,
            "item_id": [f"i{k // 4}" for k in range(n)],
            "uri": [f"{k}.jpg" for k in range(n)],
            "text": [words[k % 4] for k in range(n)],
            "status": ["approved"] * n,
            "tone": ["bright", "dark", None] * 4,
            "faces": pa.array([k % 3 for k in range(n)], pa.float64()),
            "scenes": [["sea"], ["sea", "night"], []] * 4,
            "look": fixed_size(np.eye(n, 3, dtype=np.float32), np.arange(n) < 8),
            "model": ["x", "y"] * 6,
        }
    )


def test_what_shows_something_becomes_a_feature(table: pa.Table) -> None:
    fields, vocabularies = creative_fields(table, COLUMNS)
    kinds = {f.name: f.encoding for f in fields}
    assert kinds == {
        "tone": Encoding.CATEGORY,
        "faces": Encoding.NUMBER,
        "scenes": Encoding.CATEGORIES,
        "look": Encoding.VECTOR,
        "text_words": Encoding.VECTOR,
    }
    assert all(f.side is Side.CREATIVE for f in fields)
    names = {n for f in fields for n in f.reads}
    arrays = encode_fields({n: table[n] for n in names}, len(table), fields, vocabularies)
    assert arrays["creative_tone"].tolist() == [1, 2, 0] * 4
    words = arrays["creative_text_words"]
    # lines of the same words are equal, those that share one are nearer than those that share none
    assert np.array_equal(words[0], words[4])
    assert words[0] @ words[2] > words[0] @ words[3]


def test_a_text_whose_words_never_repeat_is_left_out_unless_asked_for(table: pa.Table) -> None:
    table = table.set_column(table.column_names.index("text"), "text", pa.array([f"word{k}" for k in range(12)]))
    fields, _ = creative_fields(table, COLUMNS)
    assert "text_words" not in {f.name for f in fields}
    with pytest.raises(FeatureError, match="too few to tell texts apart"):
        creative_fields(table, COLUMNS, texts=["text"])


@pytest.mark.parametrize(
    ("wanted", "texts", "said"),
    [
        (["mood"], None, "no column 'mood' in table creatives"),
        (["model"], None, "'model' of creatives is protected"),
        (["item_id"], None, "holds id, which cannot be a feature"),
        ([], ["faces"], "holds number, which is no text"),
    ],
)
def test_columns_that_cannot_be_features_are_named(
    table: pa.Table, wanted: list[str], texts: list[str] | None, said: str
) -> None:
    with pytest.raises(FeatureError, match=said):
        creative_fields(table, COLUMNS, wanted, texts)
