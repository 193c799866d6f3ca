"""Real randomised experiments through the whole road: a mailing with and without effect, headlines, a broken one."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

from playbill import cli
from playbill.measure.experiments.read import run
from playbill.measure.experiments.settings import ExperimentQuestion, Unit
from playbill.measure.settings import MeasureSettings
from playbill.measure.statement import Reading, to_text

SOUND = "5356b47475478fe7b1000004"  # week 201416, six packages, 2,206 to 2,292 impressions, 31 to 104 clicks
BROKEN = (
    "51cc67beaddc54adf5004960"  # week 201325, four packages, 2,345 to 3,026 impressions: p = 8e-22 of an equal deal
)


@pytest.fixture(scope="module")
def logs() -> ModuleType:
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("experiment_logs")


def test_the_mailing_is_read_as_published(
    logs: ModuleType, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = logs.write_hillstrom(shared_data, tmp_path / "hillstrom")

    own = tmp_path / "visit.yaml"
    own.write_text("visit: {kind: proportion, count: {events: [visit]}, meaning: came to the shop's site}\n")
    line = ["measure", "question=experiment", f"tables={tables}", f"home={tmp_path}", "question.control=none"]
    line += [f"question.metrics={own}", "question.only=[visit,conversion,revenue_per_visitor]"]
    assert cli.main([*line, "question.until='2008-03-15'"]) == 0
    assert "visit, lift of mens over none (intent to treat)" in capsys.readouterr().out
    reading = json.loads((tmp_path / "measure" / "hillstrom-experiment" / "reading.json").read_text())
    told = {(row["metric"], row["arm"]): row for row in reading["tables"]["intent to treat"]}
    published = {  # the data set's own figures: effect and standard error
        ("visit", "mens"): (0.07659, 0.00339),
        ("visit", "womens"): (0.04523, 0.00323),
        ("conversion", "mens"): (0.00681, 0.00092),
        ("conversion", "womens"): (0.00311, 0.00082),
        ("revenue_per_visitor", "mens"): (0.770, 0.145),
        ("revenue_per_visitor", "womens"): (0.424, 0.130),
    }
    assert set(told) == set(published)
    for key, (effect, error) in published.items():
        digits = 3 if key[0] == "revenue_per_visitor" else 5
        assert round(told[key]["difference"], digits) == effect, key
        assert round(told[key]["standard_error"], digits) == error, key
        assert told[key]["q"] < 0.002 and told[key]["low"] > 0
    assert [row["assigned"] for row in reading["tables"]["arms"]] == [21306, 21307, 21387]
    # visits of the three arms 0.10617, 0.18276, 0.15140: relative 0.18276 / 0.10617 - 1 = 0.7214
    assert told["visit", "mens"]["relative"] == pytest.approx(0.7214, abs=2e-4)


def read_headlines(tables: Path, tmp_path: Path) -> Reading:
    own = tmp_path / "clicks.yaml"
    own.write_text("clicked: {kind: proportion, count: {events: [click]}, window_days: null}\n")
    question = ExperimentQuestion(control="0", unit=Unit.session_id, metrics=str(own), only=["clicked"])
    return run(question, tables, MeasureSettings())


def test_a_headline_test_is_read_as_an_experiment(logs: ModuleType, shared_data: Path, tmp_path: Path) -> None:
    tables, shown, clicked = logs.write_headlines(shared_data, tmp_path / "tables", SOUND)
    reading = read_headlines(tables, tmp_path)
    assert len(reading.statements) == len(shown) - 1
    for arm, statement in enumerate(reading.statements, 1):
        p, c = clicked[arm] / shown[arm], clicked[0] / shown[0]
        error = math.sqrt(p * (1 - p) / (shown[arm] - 1) + c * (1 - c) / (shown[0] - 1))
        assert statement.estimate == pytest.approx(p - c, abs=1e-12)
        assert statement.details["standard_error"] == pytest.approx(error, rel=1e-9)
        assert statement.randomised and statement.n == shown[arm] + shown[0]
    # 31 of 2,226 clicked the control, 104 of 2,215 the best: 3.3 percentage points more
    assert reading.verdict.startswith("2 of 5 effects found") and "clicked of 1 +0.03303" in reading.verdict


def test_a_test_that_was_not_dealt_equally_is_no_lift(logs: ModuleType, shared_data: Path, tmp_path: Path) -> None:
    reading = read_headlines(logs.write_headlines(shared_data, tmp_path / "tables", BROKEN)[0], tmp_path)
    assert reading.verdict.startswith("DO NOT READ THE EFFECTS: SAMPLE RATIO")
    assert "lift" not in to_text(reading).lower()


def test_two_policies_whose_true_effect_is_known(logs: ModuleType, tmp_path: Path) -> None:
    """Short twin of the proof's: the same simulated people under both policies, sixty experiments with them."""
    world = importlib.import_module("experiment_world")
    told = world.two_policies(tmp_path, draws=60, people=800, start_day=28)
    assert told["click_through"]["true_relative"] > 0.1  # who counts clicks shows more of what is clicked
    for name in ("click_through", "session_depth", "utility_shown"):
        # intervals for a larger population hold the truth of these very people more often than 95 %
        assert told[name]["coverage"] >= 0.9 and told[name]["relative_coverage"] >= 0.9
        assert abs(told[name]["bias_in_standard_errors"]) < 0.5  # 60 draws: a standard error of 0.13
