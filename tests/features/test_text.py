"""Hashed words: the same everywhere, learned from training items alone, and near for what is alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from playbill.dataset.dataset import open_dataset
from playbill.dataset.settings import SplitSettings
from playbill.errors import ConfigError, FeatureError
from playbill.features.build import read_features, write_features
from playbill.features.encoder import encode_items
from playbill.features.settings import FeatureSettings
from playbill.features.spec import Encoding
from playbill.features.text import BUCKETS, count_words, encode_texts, join_texts, learn_words

MakeTables = Callable[..., Path]
SPACE, LOVE = ("rocket", "planet", "orbit", "alien"), ("kiss", "wedding", "heart", "letter")


def plots(count: int, seed: int = 0) -> list[str]:
    """Texts of two kinds in turn, three words of their kind among words that mean nothing."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        words = [*rng.choice((SPACE, LOVE)[number % 2], 3, replace=False), *rng.choice(40, 4).astype(str)]
        made.append(" ".join(rng.permutation(words)))
    return made


def test_words_fall_into_the_same_buckets_on_every_machine() -> None:
    counts = count_words(pa.array(["Rocket rocket, KISS!", None, "", "ﬁn 東京 o'clock"]))
    assert counts.shape == (4, BUCKETS)
    # written down once: another hash, another case or another cut of words would orphan every bundle
    assert [(int(b), round(float(v), 4)) for b, v in zip(counts[0].indices, counts[0].data, strict=True)] == [
        (2801, -1.0),
        (57079, 1.6931),
    ]
    assert counts[1].nnz == counts[2].nnz == 0
    assert counts[3].nnz == 4 == count_words(pa.array(["FIN 東京 o clock"])).nnz
    assert (count_words(pa.array(["fin"])) != count_words(pa.array(["ﬁn"]))).nnz == 0


def test_alike_texts_come_to_lie_near_each_other() -> None:
    texts = plots(200)
    words = learn_words(pa.array(texts), 8)
    rows = encode_texts(pa.array(texts), words, 8)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    later = encode_texts(pa.array([*plots(50, seed=1), "unheard", ""]), words, 8)
    assert (later[-2:] == 0).all()
    near = np.argsort(-(later[:50] @ rows.T), axis=1)[:, :10]
    assert (near % 2 == np.arange(50)[:, None] % 2).mean() > 0.9


def test_the_same_texts_give_the_same_vectors() -> None:
    texts = pa.array(plots(120))
    one, two = learn_words(texts, 4), learn_words(texts, 4)
    assert one.values == two.values
    np.testing.assert_array_equal(one.vectors, two.vectors)


def test_missing_texts_and_other_things_are_left_out() -> None:
    joined = join_texts({"title": ["A", None, 7, None], "text": pa.array(["b", "c", None, None])}, ["title", "text"], 4)
    assert joined.to_pylist() == ["A b", "c", "", ""]
    assert join_texts({}, ["title"], 2).to_pylist() == ["", ""]
    assert join_texts({"t": ["a"], "u": ["b"]}, ["t", "u"], 1, between=". ").to_pylist() == ["a. b"]


def test_texts_are_a_feature_that_only_training_items_teach(make_tables: MakeTables, tmp_path: Path) -> None:
    texts = plots(60)
    items = [{"item_id": i, "title": f"film {i}", "text": t} for i, t in enumerate(texts)]
    items += [{"item_id": 60 + i, "title": "later", "text": "quark gluon boson"} for i in range(6)]
    items.append({"item_id": 99, "title": None, "text": None})
    events = [{"event_id": i, "user_id": i % 7, "item_id": i % 60, "event": "view", "at": i} for i in range(120)]
    path = make_tables(events=events, items=items)
    features = FeatureSettings(context=[], text=["title", "text"], text_width=6)
    dataset = open_dataset(path, features, SplitSettings(train=1.0, valid=0.0))
    (field,) = dataset.spec.fields
    assert (field.array, field.encoding, field.width, field.columns) == (
        "item_words",
        Encoding.VECTOR,
        6,
        ["title", "text"],
    )
    rows = dataset.item_arrays["item_words"]
    assert rows.shape == (68, 6) and (rows[0] == 0).all() and (rows[67] == 0).all()
    assert (rows[61:67] == 0).all()  # nobody met those six, so their words are not known
    np.testing.assert_allclose(np.square(rows[1:61]).mean(1), 1, rtol=1e-5)
    write_features(tmp_path / "bundle", dataset.spec, dataset.vocabularies)
    spec, vocabularies = read_features(tmp_path / "bundle")
    new = encode_items({"item_id": [500], "title": ["film 1"], "text": [texts[1]]}, spec, vocabularies)
    assert new["item_index"].tolist() == [0]
    np.testing.assert_allclose(new["item_words"][0], rows[2], atol=1e-6)
    assert spec.hash() != open_dataset(path, FeatureSettings(context=[]), SplitSettings()).spec.hash()


def test_what_cannot_be_read_as_text_is_named(make_tables: MakeTables) -> None:
    items = [{"item_id": i, "title": f"name{i}", "price": 1.0, "words": "x"} for i in range(5)]
    events = [{"event_id": i, "user_id": 1, "item_id": i, "event": "view", "at": i} for i in range(5)]
    path, split = make_tables(events=events, items=items), SplitSettings(train=1.0, valid=0.0)
    for text, says in (
        (["price"], "features.text names 'price', which holds number, expected text"),
        (["plot"], "no column 'plot' in table items"),
        (["title"], "the items table has a column 'words'"),
    ):
        with pytest.raises(FeatureError, match=says):
            open_dataset(path, FeatureSettings(text=text), split)
    with pytest.raises(FeatureError, match="5 texts have 0 words that occur in 3 of them or more"):
        learn_words(pa.array([f"name{i}" for i in range(5)]), 8)
    for bad in ({"text": ["a", "a"]}, {"text_width": 0}, {"text_width": 2000}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            FeatureSettings(**bad)  # type: ignore[arg-type]  # fields by name
