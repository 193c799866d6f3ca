"""The truth is kept as it was, apart from the tables, and refused when it is not what was written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from playbill.errors import WorldError
from playbill.tables.folder import read_folder
from playbill.world.build import World, build
from playbill.world.parameters import Parameters, Population, Unfairness
from playbill.world.settings import Size
from playbill.world.truth import open_truth, write_truth


@pytest.fixture(scope="module")
def world() -> World:
    parameters = Parameters(
        name="own", population=Population(drift_per_year=0.1 + 0.2), unfairness=Unfairness(relative=0.1)
    )
    return build(parameters, Size(people=70, items=30), seed=11)


@pytest.fixture
def truth(world: World, tmp_path: Path) -> Path:
    return write_truth(world, tmp_path)


def same(a: Any, b: Any, name: str = "world") -> None:
    """Compare two worlds field by field, arrays by their bytes."""
    assert type(a) is type(b), name
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes(), name
    elif isinstance(a, dict):
        assert list(a) == list(b), name
        for key in a:
            same(a[key], b[key], f"{name}.{key}")
    elif dataclasses.is_dataclass(a):
        for f in dataclasses.fields(a):
            same(getattr(a, f.name), getattr(b, f.name), f"{name}.{f.name}")
    else:
        assert a == b, name


def test_what_is_opened_equals_what_was_written_bit_for_bit(world: World, truth: Path, tmp_path: Path) -> None:
    opened = open_truth(tmp_path)
    same(opened, world)
    assert opened.parameters == world.parameters and opened.size == world.size


def test_writing_again_replaces_the_whole(world: World, truth: Path, tmp_path: Path) -> None:
    other = build(Parameters(), Size(people=20, items=10), seed=1)
    assert write_truth(other, tmp_path) == truth
    same(open_truth(tmp_path), other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["truth"], "no leavings beside it"


def test_the_same_world_writes_the_same_bytes(world: World, truth: Path, tmp_path: Path) -> None:
    again = write_truth(world, tmp_path / "again")
    names = sorted(p.name for p in truth.iterdir())
    assert names == sorted(p.name for p in again.iterdir())
    assert all((truth / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_a_reader_of_tables_never_sees_the_truth(make_tables: Callable[..., Path], world: World) -> None:
    tables = make_tables(events=[{"event_id": 1, "user_id": 1, "event": "view", "at": 0}], items=[{"item_id": 1}])
    before = read_folder(tables)
    write_truth(world, tables)
    assert read_folder(tables, verify=True) == before


def test_nothing_there_says_who_writes_it(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match=r"no truth in .*truth\.json is missing; only `playbill generate` writes one"):
        open_truth(tmp_path)


def test_an_altered_array_is_refused(truth: Path, tmp_path: Path) -> None:
    file = truth / "people.taste.npy"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    with pytest.raises(WorldError, match=r"people\.taste\.npy was altered: sha256 "):
        open_truth(tmp_path)


def test_a_missing_array_is_refused(truth: Path, tmp_path: Path) -> None:
    (truth / "items.price.npy").unlink()
    with pytest.raises(WorldError, match=r"items\.price\.npy is missing though truth\.json lists it"):
        open_truth(tmp_path)


def alter(truth: Path, **changes: Any) -> None:
    manifest = json.loads((truth / "truth.json").read_text())
    (truth / "truth.json").write_text(json.dumps(manifest | changes))


@pytest.mark.parametrize("changes", [{"seed": 12}, {"files": {}}, {"parameters": {"feedback_rate": 0.9}}])
def test_an_altered_manifest_is_refused(truth: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    alter(truth, **changes)
    with pytest.raises(WorldError, match=r"truth\.json was altered: sha256 "):
        open_truth(tmp_path)


def test_a_newer_format_is_refused_by_its_number(truth: Path, tmp_path: Path) -> None:
    alter(truth, format=2, seed="of another kind")
    with pytest.raises(WorldError, match="has format 2, this version reads format 1; use the version that wrote it"):
        open_truth(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}'])
def test_a_manifest_that_is_none_is_refused(truth: Path, tmp_path: Path, text: str) -> None:
    (truth / "truth.json").write_text(text)
    with pytest.raises(WorldError, match=r"truth\.json cannot be read"):
        open_truth(tmp_path)
