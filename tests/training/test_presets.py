"""Presets choose by size and shape; the same shape gives the same model whatever the data is called."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from playbill.cli import compose
from playbill.dataset.settings import SplitKind, SplitSettings
from playbill.features.settings import FeatureSettings
from playbill.tables.folder import read_table
from playbill.training import presets, train
from playbill.training.presets import Shape, _later, _next, resolve, shape_of
from playbill.training.runs import new_record, read_record
from playbill.training.settings import Effort, Loss, Preset, Query, Tables, TrainSettings, TwoTower

FILMS = Shape(events=1_000_000, items=3_883, typical=165, long=400)
TOYS = Shape(events=168_000, items=11_924, typical=8.6, long=14)
SHOP = Shape(events=50_000_000, items=400_000, typical=12, long=30)


def test_longer_histories_get_deeper_models_and_less_data_more_dropout() -> None:
    films, films_length = _next(Effort.fast, FILMS)
    toys, toys_length = _next(Effort.fast, TOYS)
    assert films.query is toys.query is Query.hstu and films.stale_share == 0
    assert films.blocks > toys.blocks and films.dropout < toys.dropout and films.max_epochs < toys.max_epochs
    assert films_length == 200 and toys_length == 16
    assert _next(Effort.best, FILMS)[0].max_epochs > films.max_epochs and films.dim > toys.dim


def test_a_catalogue_too_large_to_compare_whole_is_sampled() -> None:
    for effort in Effort:
        for model, _ in (_next(effort, SHOP), _later(SHOP)):
            assert model.loss is Loss.mixed and model.tables is Tables.fused and model.max_epochs == 1
    assert _later(FILMS)[0].loss is Loss.full_softmax


def test_the_shape_of_a_folder(tiny_tables: Path) -> None:
    events = read_table(tiny_tables, "events")
    shape = shape_of(tiny_tables)
    assert shape.events == events.num_rows and shape.items == 1682
    assert shape.typical == pytest.approx(events.num_rows / 60)
    lengths = sorted(c["counts"] for c in events["user_id"].value_counts().to_pylist())
    assert lengths[50] <= shape.long <= lengths[56]


def test_the_aim_follows_the_split(tiny_home: Path) -> None:
    asked = TrainSettings(home=str(tiny_home), tables="tiny", model=Preset())
    later = resolve(asked)
    following = resolve(dataclasses.replace(asked, split=SplitSettings(kind=SplitKind.leave_last_out)))
    assert isinstance(later.model, TwoTower) and isinstance(following.model, TwoTower)
    assert later.model.stale_share > 0 and following.model.stale_share == 0
    assert (later.metric_k, following.metric_k) == (100, 10)
    assert later.features.history_length == following.features.history_length == 200
    short = dataclasses.replace(asked, features=FeatureSettings(history_length=16))
    assert resolve(short).features.history_length == 16  # what was typed is not overruled
    given = TrainSettings(home=str(tiny_home), tables="tiny")
    assert resolve(given) is given
    assert compose("train", ["model=best"]).model == Preset(effort=Effort.best)


def test_a_run_of_what_a_preset_once_stood_for_is_trained_again(
    tiny_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = TrainSettings(
        home=str(tiny_home), tables="tiny", run="preset", model=Preset(), features=FeatureSettings(history_length=8)
    )
    monkeypatch.setattr(presets, "_LATER_PASSES", 1)
    assert train.run(asked) == 0
    before = read_record(tiny_home / "runs" / "preset")
    assert before is not None and before.completed and before.epochs == 1
    assert train.run(asked) == 0
    assert "is up to date" in capsys.readouterr().err.replace("\n", " ")
    monkeypatch.setattr(presets, "_LATER_PASSES", 2)
    assert train.run(asked) == 0
    after = read_record(tiny_home / "runs" / "preset")
    assert after is not None and after.epochs == 2 and after.fingerprint != before.fingerprint
    # the same model typed out has a precision of its own
    assert new_record(presets.chosen(asked), None).fingerprint != after.fingerprint
