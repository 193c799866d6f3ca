"""A run made again from training and validation time: what it learns, and who may read it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from playbill.bundle.open import open_bundle
from playbill.cli import main
from playbill.dataset.dataset import open_dataset
from playbill.dataset.ends import learning_ends
from playbill.dataset.splits import PARTS
from playbill.tables.settings import SufficiencySettings
from playbill.tables.sufficiency import SUFFICIENCY_FILE, measure_sufficiency
from playbill.training.runs import read_run

SMALL = ["model.dim=16", "model.field_dim=4", "model.hidden=16", "model.heads=2", "threads=1", "model.averaging=0.9"]


@pytest.fixture(scope="module")
def home(tiny_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables `tiny`, a validated run of them, and the same made again."""
    home = tmp_path_factory.mktemp("refit")
    (home / "tables").mkdir()
    (home / "tables" / "tiny").symlink_to(tiny_tables)
    assert main(["train", f"home={home}", "tables=tiny", "model.max_epochs=3", "seed=4", *SMALL]) == 0
    assert main(["train", f"home={home}", "tables=tiny", "refit=tiny-two_tower", "threads=1"]) == 0
    return home


def test_a_refit_learns_validation_time_for_as_long_as_the_first_did_best(home: Path) -> None:
    first, again = (read_run(home / "runs" / n, "two_tower") for n in ("tiny-two_tower", "tiny-two_tower-refit"))
    assert again.record.refit_of == "tiny-two_tower" and again.record.epochs == first.record.best_epoch
    assert (again.record.best, again.settings.seed, again.model.dim) == (first.record.best, 4, 16)
    dataset = open_dataset(home / "tables" / "tiny", first.settings.features, first.settings.split)
    known = np.bincount(dataset.split.part[dataset.pool.item >= 0], minlength=3)
    learned = [int((learning_ends(dataset, part) - dataset.pool.offsets[:-1]).sum()) for part in ("valid", "test")]
    assert learned == [known[PARTS["train"]], known[PARTS["train"]] + known[PARTS["valid"]]]
    steps = [int((run.path / "metrics.csv").read_text().splitlines()[-1].split(",")[0]) for run in (first, again)]
    assert steps[1] / again.record.epochs > steps[0] / first.record.epochs


def test_nothing_is_validated_on_what_a_refit_has_learned(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = [f"home={home}", "tables=tiny"]
    for job in (
        ["train", *common, "refit=tiny-two_tower-refit"],
        ["train", *common, "model=ranker", "retrieval_run=tiny-two_tower-refit"],
    ):
        assert main(job) == 1
    said = capsys.readouterr().err.replace("\n", " ")
    assert "was made again itself; name tiny-two_tower" in said
    assert "retrieval_run=tiny-two_tower" in said
    assert main(["train", *common, "refit=tiny-two_tower", "model.dim=32"]) == 2
    assert main(["train", *common, "refit=tiny-two_tower", "since=2020-01-01"]) == 2


def test_a_blend_of_the_first_orders_the_refit(
    home: Path, tiny_tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = home / "tables" / "tiny"
    tables.unlink()
    tables.mkdir()
    for path in tiny_tables.iterdir():
        if path.is_file():
            (tables / path.name).symlink_to(path)
    (tables / SUFFICIENCY_FILE).parent.mkdir()
    sufficiency = measure_sufficiency(tables, SufficiencySettings(towers_events=1000, towers_people=10))
    (tables / SUFFICIENCY_FILE).write_bytes(msgspec.json.encode(sufficiency))
    common = [f"home={home}", "tables=tiny"]
    members = "members=[tower,popularity]"
    again = ["export", *common, "run=tiny-two_tower-refit"]
    assert main(again) == 0
    assert main(["blend", *common, members, "name=seen", "resamples=100"]) == 1
    assert "tower" in capsys.readouterr().err
    (version,) = (p.name for p in (home / "bundles").iterdir() if p.is_dir() and not p.name.startswith("."))
    bundle = open_bundle(home / "bundles" / version, require_sealed=False)
    assert bundle.manifest.origin["tower_learned"] == "train+valid"
    assert main(["export", *common]) == 0
    assert main(["blend", *common, members, "name=both", "resamples=100"]) == 0
    assert main([*again, "blend=both"]) == 0
    assert main(["export", *common, "blend=both"]) == 0
