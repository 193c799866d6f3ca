"""Sweeps: what is refused before the first trial, where points come from, what is left behind; and real trials."""

from __future__ import annotations

import csv
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.cli import compose
from playbill.errors import ConfigError, TrainingError
from playbill.training.sweep import run
from playbill.training.sweeping.journal import FAILED, STOPPED, TRAINED, Journal, Trial, read_journal
from playbill.training.sweeping.points import Parzen, points_of
from playbill.training.sweeping.process import epochs_of
from playbill.training.sweeping.results import height, parallel_png, ranked, write_results
from playbill.training.sweeping.settings import Search, SweepSettings
from playbill.training.sweeping.space import Dimension, random_point, read_space

SMALL = {
    "features.history_length": 10,
    "model.field_dim": 4,
    "model.hidden": 16,
    "model.heads": 2,
    "model.max_epochs": 2,
}
LOG = "{log_uniform: [1e-4, 1e-2]}"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"space": {"model.dim": 32}}, "space.model.dim: expected one of {choice"),
        ({"space": {"model.dim": []}}, "with at least one value"),
        ({"space": {"model.dim": [32, 32]}}, "a value stands twice"),
        ({"space": {"model": {"dropout": {"uniform": [0.5, 0.1]}}}}, "space.model.dropout: .* the lower number first"),
        ({"space": {"model.dropout": {"uniform": [0.5]}}}, "needs two numbers"),
        ({"space": {"model.heads": {"integers": [1, 2.5]}}}, "needs two whole numbers"),
        ({"space": {"model.learning_rate": {"log_uniform": [0, 1]}}}, "needs numbers above 0"),
        ({"name": "../x"}, "name is the name of one folder"),
        ({"trials": 0}, "trials must be >= 1"),
        ({"gpus": 1.5}, "gpus above 1 must be whole"),
        ({"reduction": 1}, "reduction must be >= 2"),
    ],
)
def test_a_space_that_cannot_be_drawn_from_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SweepSettings(**given)


def test_a_grid_is_of_choices() -> None:
    with pytest.raises(ConfigError, match="space.model.learning_rate is log_uniform; give it a choice"):
        compose("sweep", ["search=grid", f"space={{model.dim: [8, 16], model.learning_rate: {LOG}}}"])


def test_a_dimension_is_typed_in_any_of_three_ways() -> None:
    expected = [Dimension("model.dim", "choice", [8, 16])]
    for typed in (
        "space={model.dim: {choice: [8, 16]}}",
        "space.model.dim=[8,16]",
        "space.model.dim.choice=[8,16]",
    ):
        assert read_space(compose("sweep", [typed]).space) == expected
    with pytest.raises(ConfigError, match="is written twice"):
        read_space({"model.dim": [8, 16], "model.dim.choice": [8]})


@pytest.mark.parametrize(
    ("space", "job", "message"),
    [
        ({"model.dimm": [8]}, {}, r"space.model.dimm=8: .*no field 'model.dimm'; nearest is 'model.dim'"),
        ({"model.dim": [8], "model.lerning_rate": [1]}, {}, "no field 'model.lerning_rate'; nearest is 'model.learn"),
        ({"model.dim": {"chioce": [8]}}, {}, "no field 'model.dim.chioce'; nearest is 'model.dim'"),
        ({"model.dropout": {"uniform": [0.1, 1.5]}}, {}, r"space.model.dropout=1.5: model.dropout must be in \[0, 1\)"),
        ({"model.dim": ["wide"]}, {}, "space.model.dim='wide': .*Integer"),
        ({"model.dim": [8]}, {"model.hiden": 3}, "job: .*no field 'model.hiden'; nearest is 'model.hidden'"),
        ({"model.dim": [8]}, {"model.dim": 16}, "model.dim stands in space and in job"),
        ({"run": ["a"]}, {}, "run is given to each trial by the sweep itself"),
        ({"model": ["two_tower", "forest"]}, {}, "no choice model=forest"),
        ({}, {}, "space is empty"),
    ],
)  # fmt: skip
def test_what_train_would_refuse_is_refused_before_the_first_trial(
    tmp_path: Path, space: dict[str, object], job: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(SweepSettings(home=str(tmp_path), space=space, job=job))
    assert not (tmp_path / "sweeps").exists() and not (tmp_path / "runs").exists()


def test_an_unknown_metric_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ndcg_at_5, recall_at_5, .* hit_rate_at_100"):
        run(SweepSettings(home=str(tmp_path), space={"seed": [1]}, job={"metric_k": 5}))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), number=st.integers(1, 1000))
def test_draws_lie_in_their_range_and_are_repeatable(seed: int, number: int) -> None:
    space = read_space(
        {"a": ["x", None, 3], "b": {"uniform": [-1, 2]}, "c": {"log_uniform": [1e-4, 1e-2]}, "d": {"integers": [1, 3]},
         "e": {"log_integers": [4, 64]}}
    )  # fmt: skip
    point = random_point(space, seed, number)
    assert point == random_point(space, seed, number)
    assert point["a"] in ("x", None, 3) and -1 <= point["b"] <= 2 and 1e-4 <= point["c"] <= 1e-2
    assert point["d"] in (1, 2, 3) and point["e"] in range(4, 65)
    assert all(0 <= height(d, point[d.key]) <= 1 for d in space)


def test_ranges_are_drawn_to_both_ends_and_evenly_by_decade() -> None:
    space = read_space({"d": {"integers": [1, 3]}, "c": {"log_uniform": [1e-4, 1e-2]}})
    points = [random_point(space, 0, n) for n in range(3000)]
    counts = np.bincount([p["d"] for p in points], minlength=4)[1:]
    assert counts.min() > 850  # 1000 each; three standard deviations are 77
    assert abs(np.mean([p["c"] < 1e-3 for p in points]) - 0.5) < 0.05


def _trial(number: int, best: float | None, status: str = TRAINED, **values: object) -> Trial:
    return Trial(number=number, run=f"s-{number:04d}", values=dict(values), arguments=[], status=status, best=best,
                 curve=[] if best is None else [best], epoch=0 if best is None else 1)  # fmt: skip


def test_optuna_learns_where_the_good_points_are_also_from_earlier_sittings() -> None:
    space = read_space({"x": {"uniform": [0, 1]}, "kind": ["bad", "good"]})

    def reached(values: dict[str, object]) -> float:
        return float(values["kind"] == "good") - (values["x"] - 0.8) ** 2  # type: ignore[operator]  # a number

    first = Parzen(space, 1, 0)
    told = []
    for number in range(1, 31):
        values = first.ask(number)
        told.append(_trial(number, reached(values), **values))
        first.tell(told[-1])
    again = Parzen(space, 1, len(told))
    for trial in [*told, _trial(31, None, FAILED, x=0.1, kind="bad")]:
        again.tell(trial)
    later = []
    for number in range(32, 62):
        later.append(again.ask(number))
        again.tell(_trial(number, reached(later[-1]), **later[-1]))
    # draws would lie .34 from .8 on the mean, and be good in 15 of 30, seldom in 22
    assert np.mean([abs(values["x"] - 0.8) for values in later]) < 0.25
    assert sum(values["kind"] == "good" for values in later) >= 22
    assert not {v["x"] for v in later} & {t.values["x"] for t in told}


def test_a_grid_ends_and_a_later_sitting_goes_on_where_it_stood() -> None:
    asked = SweepSettings(search=Search.grid, space={"a": [1, 2], "b": ["x", "y"]})
    points = points_of(asked, read_space(asked.space), 2)
    assert [points.ask(n) for n in (3, 4, 5)] == [{"a": 2, "b": "x"}, {"a": 2, "b": "y"}, None]


def test_results_can_be_read_and_typed_again(tmp_path: Path) -> None:
    space = read_space(
        {"model.dim": [8, 16], "model.learning_rate": {"log_uniform": [1e-4, 1e-2]}, "tables": ["it's", "b"]}
    )
    trials = [
        _trial(1, 0.1, **{"model.dim": 8, "model.learning_rate": 1e-3, "tables": "b"}),
        _trial(2, 0.3, STOPPED, **{"model.dim": 16, "model.learning_rate": 2e-3, "tables": "it's"}),
        _trial(3, None, FAILED, **{"model.dim": 8, "model.learning_rate": 3e-3, "tables": "b"}),
    ]
    trials[1].arguments = ["home=x", "run=s-0002", "model=two_tower", "tables='it\\'s'", "threads=1", "model.dim=16"]
    journal = Journal(name="s", identity="i", asked={"tables": "b"}, metric="ndcg_at_10", trials=trials)
    write_results(tmp_path, journal, space)
    assert [t.number for t in ranked(journal)] == [2, 1, 3] and journal.best() is trials[1]
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["ndcg_at_10"] for row in rows] == ["0.1", "0.3", ""] and rows[2]["status"] == FAILED
    assert (tmp_path / "parallel.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (tmp_path / "index.html").read_text().count("<tr>") == 4
    command = next(line for line in (tmp_path / "best.yaml").read_text().splitlines() if "playbill train" in line)
    typed = compose("train", shlex.split(command.partition("playbill train ")[2]))
    assert typed.model.dim == 16 and typed.tables == "it's" and typed.home == "var"
    nothing = Journal(name="s", identity="i", asked={}, metric="ndcg_at_10")
    assert parallel_png(nothing, space)[:4] == b"\x89PNG"  # before anything was reached


def test_half_a_row_of_metrics_is_no_epoch(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    assert epochs_of(path) == []
    path.write_text("step,epoch,loss,ndcg_at_10\n1,,2.5,\n1,1,,0.25\n2,2,,0.")
    assert epochs_of(path) == [{"step": 1.0, "epoch": 1.0, "ndcg_at_10": 0.25}]


def test_the_scheduler_knows_the_trials_of_earlier_sittings() -> None:
    """The calls that `run_trials` makes on it, in the Ray that is installed."""
    tune = pytest.importorskip("ray.tune")
    scheduler = tune.schedulers.AsyncHyperBandScheduler(
        time_attr="epoch", metric="metric", mode="max", max_t=10**9, grace_period=1, reduction_factor=3
    )
    for number, curve in enumerate([[0.5, 0.6, 0.7], [0.4, 0.5, 0.6], [0.1]]):
        told = SimpleNamespace(trial_id=f"before-{number}")
        scheduler.on_trial_add(None, told)
        for epoch, value in enumerate(curve, 1):
            scheduler.on_trial_result(None, told, {"epoch": epoch, "metric": value})
    new = SimpleNamespace(trial_id="new")
    scheduler.on_trial_add(None, new)
    assert scheduler.on_trial_result(None, new, {"epoch": 1, "metric": 0.2}) == "STOP"
    good = SimpleNamespace(trial_id="good")
    scheduler.on_trial_add(None, good)
    assert scheduler.on_trial_result(None, good, {"epoch": 1, "metric": 0.6}) == "CONTINUE"


def _start(home: Path, environment: dict[str, str], *more: str) -> subprocess.Popen[str]:
    job = ", ".join(f"{k}: {v}" for k, v in SMALL.items())
    command = [sys.executable, "-m", "playbill.cli", "sweep", f"home={home}", "name=s", "tables=tiny", f"job={{{job}}}"]
    return subprocess.Popen(
        [*command, *more], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=home
    )


def _finish(process: subprocess.Popen[str], code: int = 0) -> str:
    try:
        out, _ = process.communicate(timeout=280)
    finally:
        process.kill()
    assert process.returncode == code, out
    return out


def test_trials_are_trained_in_processes_and_more_are_added_later(tiny_home: Path, environment: dict[str, str]) -> None:
    pytest.importorskip("ray.tune")
    pytest.importorskip("optuna")
    more = ["space={model.dim: [12, 16]}", "search=grid", "parallel=2", "threads=1"]
    out = _finish(_start(tiny_home, environment, *more))
    journal = read_journal(tiny_home / "sweeps/s")
    assert journal is not None and [t.status for t in journal.trials] == [TRAINED, TRAINED], out
    assert [t.values["model.dim"] for t in journal.trials] == [12, 16]
    for trial in journal.trials:
        record = json.loads((tiny_home / "runs" / trial.run / "run.json").read_bytes())
        config = json.loads((tiny_home / "runs" / trial.run / "config.json").read_bytes())
        assert record["completed"] and record["best"] == pytest.approx(trial.best, rel=1e-6)
        assert config["model"]["dim"] == trial.values["model.dim"] and config["threads"] == 1
        assert len(trial.curve) == 2 and trial.epoch == record["best_epoch"]
    assert {"trials.csv", "best.yaml", "parallel.png", "index.html", "logs"} <= set(os.listdir(tiny_home / "sweeps/s"))
    before = {p: p.stat().st_mtime_ns for p in (tiny_home / "runs").rglob("run.json")}
    # no Ray is started for it
    again = _finish(_start(tiny_home, environment, *more))
    assert "is up to date: 2 trials" in again
    assert {p: p.stat().st_mtime_ns for p in (tiny_home / "runs").rglob("run.json")} == before
    said = _finish(_start(tiny_home, environment, "space={seed: [1, 2]}", "search=grid"), code=1)
    assert "holds another sweep" in said and "space" in said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_sweep_leaves_no_process_and_goes_on(tiny_home: Path, environment: dict[str, str]) -> None:
    pytest.importorskip("ray.tune")
    more = ["space={model.learning_rate: [1e-3, 3e-3, .1, 1e-5]}", "search=grid", "parallel=1", "reduction=2",
            "job.model.max_epochs=12", "job.model.patience_epochs=0", "job.checkpoint_every_steps=2"]  # fmt: skip
    process = _start(tiny_home, environment, *more)
    runs = tiny_home / "runs"
    try:
        _wait(lambda: len(epochs_of(runs / "s-0002/metrics.csv")) >= 2, process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    _wait(lambda: not _trainings(tiny_home), None)
    first = (runs / "s-0001/run.json").stat().st_mtime_ns
    out = _finish(_start(tiny_home, environment, *more))
    assert "going on: 1 of 4 trials are there" in out
    assert (runs / "s-0001/run.json").stat().st_mtime_ns == first
    journal = read_journal(tiny_home / "sweeps/s")
    assert journal is not None and all(t.ended for t in journal.trials) and len(journal.trials) == 4
    assert "going on from" in (tiny_home / "sweeps/s/logs/s-0002.log").read_text().replace("\n", " ")
    # with so small a rate the last falls behind the first two at once
    assert journal.trials[3].status == STOPPED and len(journal.trials[3].curve) < 12
    assert not _trainings(tiny_home)


def test_a_trial_that_fails_is_told_with_its_reason(tiny_home: Path, environment: dict[str, str]) -> None:
    pytest.importorskip("ray.tune")
    (tiny_home / "runs").mkdir()
    (tiny_home / "runs/s-0001").write_text("in the way of the run's folder")
    out = _finish(_start(tiny_home, environment, "space={seed: [1]}", "search=grid"), code=1)
    assert "no trial could be trained" in out.replace("\n", " "), out
    journal = read_journal(tiny_home / "sweeps/s")
    assert journal is not None and journal.trials[0].status == FAILED and journal.trials[0].reason


def test_two_at_once_are_refused(tmp_path: Path, tiny_tables: Path) -> None:
    import fcntl

    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/tiny").symlink_to(tiny_tables)
    folder = tmp_path / "sweeps/tiny-two_tower-sweep"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(TrainingError, match="this sweep is running"):
            run(SweepSettings(home=str(tmp_path), tables="tiny", space={"seed": [1]}))


def _wait(done: Callable[[], bool], process: subprocess.Popen[str] | None) -> None:
    until = time.monotonic() + 400
    while not done():
        assert process is None or process.poll() is None, process.communicate()[0] if process else ""
        assert time.monotonic() < until, "waited for nothing"
        time.sleep(0.1)


def _trainings(home: Path) -> list[str]:
    """Return the command lines of living trainings of this home."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"train" in words and f"home={home}".encode() in words:
            found.append(str(words))
    return found


def test_log_integers_have_no_gaps() -> None:
    (dimension,) = read_space({"d": {"log_integers": [1, 4]}})
    rng = np.random.default_rng(0)
    shares = np.bincount([dimension.draw(rng) for _ in range(4000)], minlength=5)[1:] / 4000
    expected = [math.log((n + 1) / n) / math.log(5) for n in (1, 2, 3, 4)]
    assert shares == pytest.approx(expected, abs=0.03)
