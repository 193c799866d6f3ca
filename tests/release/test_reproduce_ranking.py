"""`playbill reproduce` for protocols of ranking: models too small to be good, on fewer people, every step real."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

pytest.importorskip("torch", reason="a reproduction trains")

from playbill.cli import main  # after the check that torch is there
from playbill.dataset.dataset import open_dataset
from playbill.dataset.tallied import rows_at
from playbill.errors import PlaybillError, SourceError
from playbill.measure.binary import auc
from playbill.release import list_orders, reproduce_answers, reproduce_lists, reproducing, trivago_towers
from playbill.release.answers import ask_answers
from playbill.release.ranking_protocols import RANKING_PROTOCOLS, WHOLE
from playbill.release.settings import ReproduceSettings

FROZEN = "ml-100k-likes-frozen"
TOWER = trivago_towers.TOWER
SMALL_TOWER = {
    "model.query": "model.query=pooled",  # its graph is written in half the time
    "model.heads": "model.heads=1",
    "model.hidden": "model.hidden=16",
    "model.max_epochs": "model.max_epochs=1",
    "model.validate_every": "model.validate_every=1",
}
SMALL = ["dim=16", "field_dim=4", "heads=2", "hidden=16", "cross_rank=4", "batch_tokens=512", "max_epochs=2"]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReproduceSettings:
    """Few resamples; steps run in this process, since a new one takes seconds to import what it needs."""

    def here(*arguments: str) -> None:
        if code := main(list(arguments)):
            raise PlaybillError(f"exit code {code} from: playbill {' '.join(arguments)}")

    for module in (reproduce_answers, reproduce_lists, trivago_towers):
        monkeypatch.setattr(module, "playbill", here)
    return ReproduceSettings(
        home=str(tmp_path), seeds=[1], parallel=1, resamples=100, results=str(tmp_path / "results")
    )


def test_answers_frozen_after_validation(
    tiny_home: Path,
    settings: ReproduceSettings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    features = replace(RANKING_PROTOCOLS[FROZEN].features, history_length=30)
    dataset = open_dataset(tiny_home / "tables" / "tiny", features, WHOLE)
    rows = rows_at(dataset, "test", running=False)
    protocol = replace(RANKING_PROTOCOLS[FROZEN], source="tiny", rows=len(rows), features=features, aims={"auc": 0.99})
    monkeypatch.setitem(RANKING_PROTOCOLS, FROZEN, protocol)
    given = replace(settings, name=FROZEN, train=[f"model.{argument}" for argument in SMALL])
    assert reproducing.run(given) == 1, "nobody reaches 0.99"
    (file,) = (tiny_home / "results").glob(f"reproduce-{FROZEN}_*-cores_*.json")
    result = json.loads(file.read_bytes())
    label = reproduce_answers.likes(dataset)[rows.target_row]
    assert (result["rows"], result["people"]) == (len(rows), len(np.unique(rows.person)))
    assert result["likes"] == pytest.approx(label.mean()) and result["by_seed"] == {}
    assert list(result["models"]) == ["ours", "boosted tree on the same tallies", "logistic regression"]
    assert list(result["first_less"]) == ["boosted tree on the same tallies", "logistic regression"]
    found = {name: figures["auc"]["value"] for name, figures in result["models"].items()}
    # 600 rows of people of whom most are new: all three know something, and none of them much
    assert all(0.55 < value < 0.85 for value in found.values()), found
    run = tiny_home / "reproduce" / FROZEN / "runs" / "seed-1"
    assert found["ours"] == pytest.approx(auc(label, ask_answers(run, dataset, rows)), abs=1e-6)
    assert result["aims"] == {"auc": {"aim": 0.99, "value": found["ours"], "reached": False}}
    assert set(result["training_seconds"]) == {"seed-1"} and "model.max_epochs=2" in result["train"]
    assert "auc" in capsys.readouterr().out

    monkeypatch.setitem(RANKING_PROTOCOLS, FROZEN, replace(protocol, rows=7))
    with pytest.raises(PlaybillError, match=f"asks of 7 rows, these tables give {len(rows)}"):
        reproducing.run(given)
    assert "is up to date" in capsys.readouterr().err.replace("\n", " ")


def test_clicks_of_trivago(
    shared_data: Path, settings: ReproduceSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_orders, "_ROUNDS", 40)  # of the tree
    monkeypatch.setattr(trivago_towers, "TOWER", tuple(SMALL_TOWER.get(a.split("=")[0], a) for a in TOWER))
    given = replace(settings, name="trivago-clicks", data=str(tmp_path), train=["hidden=16", "max_epochs=2"])
    with pytest.raises(SourceError, match="no trivago log at"):
        reproducing.run(given)
    log = pl.read_parquet(shared_data / "trivago-100k" / "sessions.parquet")
    sessions = log["session_id"].unique(maintain_order=True).head(1_500).implode()
    (tmp_path / "trivago-100k").mkdir()
    log.filter(pl.col("session_id").is_in(sessions)).write_parquet(tmp_path / "trivago-100k" / "sessions.parquet")
    code = reproducing.run(given)
    (file,) = (tmp_path / "results").glob("reproduce-trivago-clicks_*-cores_*.json")
    result = json.loads(file.read_bytes())
    mrr = {name: interval["value"] for name, interval in result["mrr"].items()}
    tree, rule = "boosted tree on the same numbers", "touched earlier in the session first"
    ours, reading, towers = "ours", "ours, reading the towers' scores too", "towers alone"
    assert list(mrr) == [ours, reading, towers, tree, rule, "as shown"] and list(result["first_less"]) == list(mrr)[1:]
    assert result["lists"] >= result["people"] > 50
    # what the whole log says too, by as much as a fifth of its sessions allows
    assert mrr["as shown"] == pytest.approx(0.45, abs=0.1) and mrr["as shown"] < mrr[rule] < 0.75
    assert mrr["as shown"] < min(mrr[ours], mrr[reading])
    assert result["first_less"]["as shown"]["value"] == pytest.approx(mrr[ours] - mrr["as shown"])
    assert result["first_less"][towers]["value"] == pytest.approx(mrr[ours] - mrr[towers])
    assert result["reading_towers_less"][towers]["value"] == pytest.approx(mrr[reading] - mrr[towers])
    assert set(result["validation"]) == {ours, reading, towers, rule} and result["numbers"][-3:] == trivago_towers.NAMES
    home = tmp_path / "reproduce" / "trivago-clicks" / "lists"
    with np.load(home / "trivago-100k-towers.npz") as reading_them, np.load(home / "trivago-100k.npz") as without:
        numbers = reading_them["numbers"]
        assert (numbers[:, :, :-3] == without["numbers"]).all() and numbers[:, :, -3:].any()
    aim = result["aims"]["mrr"]
    assert aim["reached"] == (mrr[ours] >= aim["aim"])
    assert code == (0 if aim["reached"] and result["first_less"][rule]["low"] > 0 else 1)
