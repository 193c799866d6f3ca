"""A warm start: what a bundle's run learned, under vocabularies that have grown since."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from playbill.cli import main
from playbill.dataset.dataset import open_dataset
from playbill.errors import BundleError, TrainingError
from playbill.tables.folder import read_folder, read_table, write_folder
from playbill.tables.settings import SufficiencySettings
from playbill.tables.sufficiency import SUFFICIENCY_FILE, measure_sufficiency
from playbill.training.retrieval.warm import open_warm
from playbill.training.runs import read_record, read_run
from playbill.training.settings import TrainSettings

SMALL = ["model.dim=16", "model.field_dim=4", "model.hidden=16", "model.heads=2", "threads=1", "split.valid=0.1"]


def write(path: Path, source: Path, items: pa.Table, until: int | None) -> None:
    folder = read_folder(source)
    events = read_table(source, "events")
    events = events.filter(pc.is_in(events["item_id"], value_set=items["item_id"].combine_chunks()))
    if until is not None:
        events = events.filter(pc.less(events["at"].cast(pa.int64()), until))
    tables = {"users": read_table(source, "users"), "items": items, "events": events}
    write_folder(path, tables, source=path.name, columns=folder.columns, events=folder.events)


@pytest.fixture(scope="module")
def home(tiny_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables `early` with nine items in ten, `late` with all in another order; a bundle of a run of the first."""
    home = tmp_path_factory.mktemp("warm")
    (home / "tables").mkdir()
    items = read_table(tiny_tables, "items")
    rows = random.Random(4).sample(range(items.num_rows), items.num_rows)
    at = np.sort(np.asarray(read_table(tiny_tables, "events")["at"].cast(pa.int64())))
    write(home / "tables" / "early", tiny_tables, items.take(rows[: len(rows) * 9 // 10]), int(at[len(at) * 3 // 4]))
    write(home / "tables" / "late", tiny_tables, items, None)
    early = home / "tables" / "early"
    (early / SUFFICIENCY_FILE).parent.mkdir()
    sufficiency = measure_sufficiency(early, SufficiencySettings(towers_events=1000, towers_people=10))
    (early / SUFFICIENCY_FILE).write_bytes(msgspec.json.encode(sufficiency))
    assert main(["train", f"home={home}", "tables=early", "model.max_epochs=2", *SMALL]) == 0
    assert main(["export", f"home={home}", "tables=early"]) == 0
    return home


def test_rows_follow_their_values(home: Path) -> None:
    (version,) = (p.name for p in (home / "bundles").iterdir() if p.is_dir() and not p.name.startswith("."))
    run = read_run(home / "runs" / "early-two_tower", "two_tower")
    settings = TrainSettings(home=str(home), tables="late", warm_start=version, model=run.model)
    settings.split = run.settings.split
    dataset = open_dataset(home / "tables" / "late", settings.features, settings.split)
    warm = open_warm(settings, dataset)
    state = torch.load(run.path / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    old, new = run.vocabularies["item"], dataset.vocabularies["item"]
    table, before = (
        warm.weights["encoder.items.embeddings.item.weight"],
        state["dmp.encoder.items.embeddings.item.weight"],
    )
    known = [v for v in new.values if old.index(v)]
    assert len(known) == len(old) < len(new)
    for value in known[::17]:
        assert torch.equal(table[new.index(value)], before[old.index(value)])
    strange = [new.index(v) for v in new.values if not old.index(v)]
    assert table[strange].isnan().all() and not table[[new.index(v) for v in known]].isnan().any()
    learned = state["dmp.table_row"].numpy() > 0
    assert [bool(warm.has_id[new.index(v)]) for v in known] == [bool(learned[old.index(v)]) for v in known]
    assert "168 of 1,682 items are new" in warm.about or f"{len(strange):,} of {len(new):,} items are new" in warm.about


def test_a_warm_start_knows_at_once_what_a_cold_one_must_learn(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (version,) = (p.name for p in (home / "bundles").iterdir() if p.is_dir() and not p.name.startswith("."))
    early = np.asarray(read_table(home / "tables" / "early", "events")["at"].cast(pa.int64())).max()
    since = np.datetime64(int(early), "us").astype(str)
    common = ["train", f"home={home}", "tables=late", "model.max_epochs=1", *SMALL]
    assert main([*common, "run=cold", f"since={since}"]) == 0
    assert main([*common, "run=warm", f"since={since}", f"warm_start={version}"]) == 0
    assert "items are new" in capsys.readouterr().err.replace("\n", " ")
    cold, warm = (read_record(home / "runs" / name) for name in ("cold", "warm"))
    assert (
        cold is not None
        and warm is not None
        and warm.warm_start.startswith(f"begins with the weights of bundle {version}")
    )
    assert warm.best > cold.best
    # only what is new is learned: about a third of the events of the training part
    whole = len(read_table(home / "tables" / "late", "events")) * 0.8 / 1024
    rows = (home / "runs" / "warm" / "metrics.csv").read_text().splitlines()
    assert int(rows[-1].split(",")[0]) < whole


def test_what_does_not_fit_is_refused(home: Path) -> None:
    (version,) = (p.name for p in (home / "bundles").iterdir() if p.is_dir() and not p.name.startswith("."))
    run = read_run(home / "runs" / "early-two_tower", "two_tower")
    settings = TrainSettings(home=str(home), tables="late", warm_start="0123456789ab", model=run.model)
    dataset = open_dataset(home / "tables" / "late", settings.features, settings.split)
    with pytest.raises(BundleError, match="warm_start=0123456789ab: no such bundle"):
        open_warm(settings, dataset)
    settings.warm_start = version
    settings.model = TrainSettings().model
    with pytest.raises(TrainingError, match=r"another model \(model.dim, model.heads"):
        open_warm(settings, dataset)
    settings.model = run.model
    settings.features.history_length = 9
    other = open_dataset(home / "tables" / "late", settings.features, settings.split)
    with pytest.raises(TrainingError, match="another history length"):
        open_warm(settings, other)
    assert main(["train", f"home={home}", "tables=late", "since=tomorrow"]) == 2
    assert main(["train", f"home={home}", "tables=late", "run=never", "since=2200-01-01", *SMALL]) == 1


def test_a_finished_run_outlives_what_was_to_replace_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever fails before there are new weights, what was there is back; also what a warm start begins with."""
    (version,) = (p.name for p in (home / "bundles").iterdir() if p.is_dir() and not p.name.startswith("."))
    run = home / "runs" / "early-two_tower"
    before = {p.name: p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()}
    early = ["train", f"home={home}", "tables=early", *SMALL]
    assert main([*early, f"warm_start={version}", "run=early-two_tower"]) == 1
    assert "holds the weights to begin with, and would be replaced" in " ".join(capsys.readouterr().err.split())
    assert main([*early, "run=early-two_tower", "warm_start=0123456789ab"]) == 1
    assert main([*early, "run=early-two_tower", "since=2200-01-01"]) == 1
    assert main([*early, "run=early-two_tower", "model.learning_rate=1e30"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "the loss is" in said and "is what it was before" in said
    assert {p.name: p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()} == before
    # by itself a warm start has a place of its own, and what it replaces there is gone once it is finished
    assert main([*early, f"warm_start={version}", "model.max_epochs=1"]) == 0
    assert main([*early, f"warm_start={version}", "model.max_epochs=1", "seed=2"]) == 0
    assert read_run(home / "runs" / "early-two_tower-warm", "two_tower").settings.seed == 2
    assert not list((home / "runs").glob(".*"))


@pytest.mark.parametrize("wrong", ["run=../../away", "run=.hidden", "refit=a/b", "model.learning_rate=inf"])
def test_names_and_numbers_that_cannot_be(home: Path, wrong: str) -> None:
    assert main(["train", f"home={home}", "tables=early", wrong]) == 2
    assert not (home.parent / "away").exists()
