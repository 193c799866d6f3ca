"""A bundle with towers, trained for seconds: measured alone and as served, and stopped by the rules as shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from playbill.bundle.manifest import State
from playbill.bundle.write import state_of
from playbill.cli import compose, main
from playbill.errors import GateError
from playbill.release import evaluate, gate
from playbill.release.bundles import read_report
from playbill.release.gate import GateReport
from playbill.release.report import Evaluation
from playbill.release.settings import EvaluateSettings, RivalSettings
from playbill.training.export import run as export
from playbill.training.settings import ExportSettings


@pytest.mark.slow
def test_a_tower_that_learned_little_is_measured_and_stopped(
    ml100k_tables: Path, tmp_path: Path, few_rivals: RivalSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tables").symlink_to(ml100k_tables.parent)
    small = ["model.dim=8", "model.field_dim=4", "model.hidden=8", "model.heads=1", "model.max_epochs=1"]
    train = ["train", f"home={tmp_path}", "features.history_length=5", *small, "model.batch_tokens=4096", "threads=1"]
    assert main(train) == 0
    path = export(ExportSettings(home=str(tmp_path)))
    evaluate.run(EvaluateSettings(home=str(tmp_path), rivals=few_rivals, resamples=500))
    found = read_report(path, "evaluation", Evaluation)
    assert found is not None
    served, tower = found.model("served"), found.model("tower")
    assert served is not None and tower is not None
    assert served.rungs == {"retrieval": 90, "popularity": 76}
    assert "12 wide" in tower.about  # eight, and four that fill vectors up to unit length
    # without a ranker the engine's order is the tower's: the whole road, store, encoder and index, gives the same lists
    for metric, figure in tower.slices["known"].metrics.items():
        assert served.slices["known"].metrics[metric].value == pytest.approx(figure.value, abs=1e-9), metric
    with pytest.raises(GateError, match="not_below_popularity_known"):
        gate.run(compose("gate", [f"home={tmp_path}"]))
    assert state_of(path) is State.EVALUATED
    report = read_report(path, "gate", GateReport)
    assert report is not None and not report.passed
    verdicts = {rule.name: rule.verdict for rule in report.rules}
    assert verdicts["graphs_answer_as_trained"] == verdicts["index_finds_the_nearest"] == "passed"
    assert verdicts["not_below_popularity_known"] == "failed"
    assert main(["gate", f"home={tmp_path}"]) == 1
    assert "may not go out" in capsys.readouterr().err
    assert main(["publish", f"home={tmp_path}"]) == 1
