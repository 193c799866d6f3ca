"""The model of answers: what its rows may know, the graph beside the module, stopping and going on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from playbill.dataset.dataset import Dataset, open_dataset
from playbill.dataset.settings import SplitSettings
from playbill.dataset.tallied import item_numbers_at, rows_at, tallies_until, tastes_of
from playbill.errors import ConfigError
from playbill.features.settings import FeatureSettings
from playbill.measure.binary import auc
from playbill.measure.calibration import Calibrator
from playbill.release.answers import ask_answers
from playbill.training.response_settings import Response
from playbill.training.responses import learn
from playbill.training.responses.blocks import Source, batched, cut, to_block
from playbill.training.responses.learn import Rows, predict
from playbill.training.responses.plain import PlainResponse
from playbill.training.runs import read_record

FEATURES = FeatureSettings(history_length=30, context=[])
SMALL = ["model=response", "tables=tiny", "features.history_length=30", "features.context=[]", "model.dim=16"]
SMALL += [
    "model.field_dim=4",
    "model.heads=2",
    "model.hidden=16",
    "model.cross_rank=4",
    "model.batch_tokens=512",
    "model.block=64",
    "model.max_epochs=2",
    "model.beside=[3,5]",
]


@pytest.fixture(scope="module")
def dataset(tiny_tables: Path) -> Dataset:
    return open_dataset(tiny_tables, FEATURES, SplitSettings())


@pytest.fixture(scope="module")
def source(dataset: Dataset) -> Source:
    items = tallies_until(dataset, "valid", 0.5, [30.0])
    return Source(dataset, items.spec, tastes_of(dataset, items), 30)


@pytest.fixture
def whole(source: Source) -> PlainResponse:
    torch.manual_seed(0)
    model = Response(dim=16, hidden=16, cross_rank=4, beside=[3.0])
    whole = PlainResponse(source.dataset, source.spec, source.tastes, model)
    with torch.no_grad():  # a fresh head answers 0 to everything, and would agree with anything
        whole.net.head.weight.normal_(std=0.2)
    return whole.eval()


def _rows(source: Source, part: str = "test") -> Rows:
    examples = rows_at(source.dataset, part, running=True)
    items = tallies_until(source.dataset, "valid", 0.5, [30.0])
    numbers = item_numbers_at(source.dataset, items, source.dataset.pool.item[examples.target_row], examples.now)
    return Rows(examples, np.zeros((len(examples), 1), np.float32), numbers)


def test_blocks_hold_every_row_once(source: Source) -> None:
    rows = _rows(source, "train")
    blocks = cut(rows.examples, 16)
    assert max(len(b) for b in blocks) <= 16
    np.testing.assert_array_equal(np.sort(np.concatenate(blocks)), np.arange(len(rows.examples)))
    met = [b for batch in batched(blocks, 128, np.random.default_rng(0)) for b in batch]
    np.testing.assert_array_equal(np.sort(np.concatenate(met)), np.arange(len(rows.examples)))


def test_a_row_sees_its_newest_events_and_no_others(source: Source) -> None:
    rows = _rows(source)
    batch = to_block(source, rows.examples, rows.item, cut(rows.examples, 16)[:5])
    seen = batch.there.sum(-1).numpy()
    asked = np.maximum(batch.rows, 0)
    known = np.minimum(rows.examples.end - rows.examples.start, 30)[asked]
    np.testing.assert_array_equal(seen[batch.rows >= 0], known[batch.rows >= 0])


def test_answers_do_not_hang_on_the_block_that_a_row_stands_in(source: Source, whole: PlainResponse) -> None:
    rows = _rows(source)
    np.testing.assert_allclose(
        predict(whole, source, rows, 64, 2048), predict(whole, source, rows, 3, 64), rtol=1e-4, atol=1e-5
    )


def test_what_comes_later_changes_no_answer(source: Source, whole: PlainResponse) -> None:
    rows, pool = _rows(source), source.dataset.pool
    before = predict(whole, source, rows, 64, 2048)
    moment = int(np.median(rows.examples.now))
    values = pool.value.copy()
    try:
        pool.value[pool.at >= moment] *= -1
        after = predict(whole, source, rows, 64, 2048)
    finally:
        pool.value[:] = values
    early = rows.examples.now <= moment
    np.testing.assert_allclose(before[early], after[early], atol=1e-6)
    assert np.abs(before[~early] - after[~early]).max() > 1e-3


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_tables: Path, train_here: Callable[..., None]) -> Path:
    """A home with a finished run."""
    home = tmp_path_factory.mktemp("answers")
    (home / "tables").mkdir()
    (home / "tables" / "tiny").symlink_to(tiny_tables)
    train_here(home, *SMALL)
    return home


def test_a_run_leaves_a_graph_that_answers_like_its_module(home: Path, source: Source) -> None:
    run, dataset = home / "runs" / "tiny-response", source.dataset
    rows = rows_at(dataset, "valid", running=True)
    found = ask_answers(run, dataset, rows)
    assert np.isfinite(found).all() and found.std() > 0.01
    items = tallies_until(dataset, "valid", 0.5, [30.0, 180.0])
    mine = Source(dataset, items.spec, tastes_of(dataset, items), 30)
    model = Response(dim=16, field_dim=4, heads=2, hidden=16, cross_rank=4, beside=[3.0, 5.0])
    whole = PlainResponse(dataset, items.spec, mine.tastes, model)
    whole.load_state_dict(torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"])
    numbers = item_numbers_at(dataset, items, dataset.pool.item[rows.target_row], rows.now)
    blocks = predict(whole, mine, Rows(rows, np.zeros((len(rows), 1), np.float32), numbers), 64, 2048)
    fitted = msgspec.json.decode((run / "calibration.json").read_bytes(), type=Calibrator)
    assert fitted.rows == len(rows)
    np.testing.assert_allclose(found, fitted(blocks), rtol=1e-3, atol=1e-5)
    record = read_record(run)
    assert record is not None and record.completed and record.metric == "auc"
    label = dataset.pool.value[rows.target_row] >= 0.5
    assert found.mean() == pytest.approx(label.mean(), abs=1e-3)
    if record.best_epoch == record.epochs:
        assert record.best == pytest.approx(auc(label, blocks), abs=1e-6)


def test_where_nothing_was_held_out_to_validate_on_no_figure_is_told(
    home: Path, train_here: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = [*SMALL, "run=whole", "split.train=0.9", "split.valid=0"]
    for said in ("2 epochs, nothing to validate on, ", "is up to date: 2 epochs, nothing to validate on"):
        capsys.readouterr()
        train_here(home, *whole)
        told = " ".join(capsys.readouterr().err.split())
        assert said in told and "0.0000" not in told


def test_a_stopped_run_ends_with_the_same_weights(
    home: Path, train_here: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    save = learn._save

    def stop(path: Path, state: dict[str, Any]) -> None:
        save(path, state)
        if path.name == "last.ckpt":
            raise RuntimeError("the machine went down")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="went down"):
        patched.setattr(learn, "_save", stop)
        train_here(home, *SMALL, "run=stopped")
    stopped = home / "runs" / "stopped" / "checkpoints"
    assert torch.load(stopped / "last.ckpt", weights_only=True)["figures"]["epochs"] == 1
    train_here(home, *SMALL, "run=stopped")
    ends = [torch.load(home / "runs" / n / "checkpoints" / "last.ckpt") for n in ("tiny-response", "stopped")]
    assert ends[0]["figures"] == ends[1]["figures"] and ends[0]["step"] == ends[1]["step"]
    for name, weight in ends[0]["state_dict"].items():
        torch.testing.assert_close(weight, ends[1]["state_dict"][name], rtol=0, atol=0)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"names a threshold twice"):
        Response(beside=[4.0])
    with pytest.raises(ConfigError, match=r"multiple of model\.heads"):
        Response(dim=10, heads=4)
    with pytest.raises(ConfigError, match=r"model\.half_lives_days must be > 0"):
        Response(half_lives_days=[0.0])
