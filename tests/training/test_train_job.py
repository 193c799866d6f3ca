"""`playbill train` as a job: what it refuses, what it leaves alone, what it says; and where figures go."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from playbill.cli import compose, main
from playbill.errors import ConfigError, TrainingError
from playbill.training.ranking_settings import Ranker
from playbill.training.runs import RunRecord, fingerprint, read_record, read_run
from playbill.training.settings import Logger, TrainSettings
from playbill.training.tracking import Tracker

SMALL = (
    "tables=tiny",
    "features.history_length=10",
    "model.dim=16",
    "model.field_dim=4",
    "model.hidden=16",
    "model.heads=2",
    "model.max_epochs=1",
    "threads=1",
)


def test_rerun_replace_and_go_on(
    tiny_home: Path, capsys: pytest.CaptureFixture[str], environment: dict[str, str]
) -> None:
    arguments = ["train", f"home={tiny_home}", *SMALL]
    run = tiny_home / "runs" / "tiny-two_tower"
    assert main(arguments) == 0
    first = read_record(run)
    assert first is not None and first.completed
    # what was learned from, and what could not be used
    assert first.data is not None and first.data.events == first.data.train + first.data.valid + first.data.test
    assert "events of 60 people" in capsys.readouterr().err
    # once more, in a process of its own: nothing to do is found out without torch
    check = """
import sys
from playbill.cli import main
code = main(sys.argv[1:])
print("heavy:", sorted({"torch", "pytorch_lightning", "polars", "ray"} & set(sys.modules)))
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", check, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "heavy: []" in done.stdout
    assert "is up to date" in done.stderr.replace("\n", " ")
    # where figures go and how often is nothing that a finished run is redone for
    assert main([*arguments, "log_every_steps=3", "checkpoint_every_steps=9"]) == 0
    assert read_record(run) == first
    capsys.readouterr()
    assert main([*arguments, "seed=2"]) == 0
    said = capsys.readouterr().err.replace("\n", " ")
    assert "trained with other settings or data: it is replaced" in said
    second = read_record(run)
    assert second is not None and second.fingerprint != first.fingerprint and second.completed
    assert main([*arguments, "seed=2", "force=true"]) == 0
    third = read_record(run)
    assert third is not None and third.best == second.best and third.report == second.report


def test_ranker_needs_a_finished_retrieval_run(tiny_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"home={tiny_home}", *SMALL, "model=ranker"]) == 1
    assert "run `playbill train model=two_tower`" in capsys.readouterr().err
    with pytest.raises(TrainingError, match="no training run in"):
        read_run(tiny_home / "runs" / "tiny-two_tower", "two_tower")


def test_ranker_needs_the_features_of_its_retrieval_run(tiny_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"home={tiny_home}", *SMALL]) == 0
    assert main(["train", f"home={tiny_home}", *SMALL, "model=ranker", "features.history_length=9"]) == 1
    assert "was trained on other features" in capsys.readouterr().err.replace("\n", " ")


def test_unknown_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"home={tmp_path}"]) == 1
    assert "playbill prepare" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("precision=16-mixed", "fp16 needs scaled gradients"),
        ("precision=8", "precision must be 32-true or bf16-mixed, got '8'"),
        ("accumulate_grad_batches=4", "updated inside each backward pass"),
        ("model.heads=3", r"model.dim \(64\) must be a multiple of model.heads \(3\)"),
        ("model.dim=30", "must be multiples of 4"),
        ("model.dropout=1", r"model.dropout must be in \[0, 1\), got 1.0"),
        ("model.temperature=0", "model.temperature must be > 0, got 0.0"),
        ("model.loss=hinge", "full_softmax"),
        ("logger=tensorboard", "csv"),
        ("seed=-1", "seed must be >= 0, got -1"),
        ("model.max_epochs=many", "Integer"),
    ],
)
def test_a_bad_value_says_what_is_wrong(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose("train", [override])


@pytest.mark.parametrize(
    ("typo", "nearest"),
    [
        ("model.temprature=0.1", "model.temperature"),
        ("+model.temprature=0.1", "model.temperature"),
        ("++model.negativs=3", "model.negatives"),
        ("modle=ranker", "model"),
        ("+featurs.history_length=3", "features.history_length"),
        ("split.knid=global_time", "split.kind"),
        ("retreival_run=x", "retrieval_run"),
        ("+typo=1", ""),
    ],
)
def test_a_typo_names_the_nearest_field(typo: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"no field .*nearest is '{nearest}"):
        compose("train", [typo])


def test_a_field_of_the_other_model_is_refused() -> None:
    assert isinstance(compose("train", ["model=ranker", "model.cross_layers=3"]).model, Ranker)
    with pytest.raises(ConfigError, match="no field 'model.cross_layers'"):
        compose("train", ["model.cross_layers=3"])


def test_the_fingerprint_covers_what_decides_the_result() -> None:
    plain = fingerprint(TrainSettings(), "tables", None)
    assert fingerprint(TrainSettings(threads=7, logger=Logger.wandb, home="x"), "tables", None) == plain
    for other in (TrainSettings(seed=2), TrainSettings(metric_k=5), TrainSettings(model=Ranker())):
        assert fingerprint(other, "tables", None) != plain
    assert fingerprint(TrainSettings(), "other tables", None) != plain
    retrieval = RunRecord(model="two_tower", fingerprint="f", tables="t", tables_fingerprint="u", spec_hash="s")
    assert fingerprint(TrainSettings(), "tables", retrieval) != plain


def test_metrics_csv_goes_on_from_a_step(tmp_path: Path) -> None:
    def rows() -> list[dict[str, str]]:
        with (tmp_path / "metrics.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    first = Tracker(tmp_path, ["loss", "ndcg_at_10"], 0, TrainSettings())
    for step in (10, 20, 30):
        first.log(step, {"loss": 1 / step})
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("40,0.0")  # a line that a kill cut short
    again = Tracker(tmp_path, ["loss", "ndcg_at_10"], 20, TrainSettings())
    assert [row["step"] for row in rows()] == ["10", "20"]
    again.log(30, {"ndcg_at_10": 0.25})
    assert rows()[-1] == {"step": "30", "loss": "", "ndcg_at_10": "0.25"}
    Tracker(tmp_path, ["loss", "ndcg_at_10"], 0, TrainSettings())
    assert rows() == []
