"""Sweeps: what is refused before the first trial, where points come from, what is left behind; and real trials."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from playbill.cli import compose
from playbill.errors import ConfigError, TrainingError
from playbill.tables.folder import read_folder
from playbill.training.sweep import run
from playbill.training.sweeping.journal import (
    FAILED,
    STOPPED,
    TRAINED,
    UNDER_WAY,
    Journal,
    Trial,
    read_journal,
    write_journal,
)
from playbill.training.sweeping.points import Parzen, points_of
from playbill.training.sweeping.process import epochs_of
from playbill.training.sweeping.results import height, parallel_png, ranked, write_results
from playbill.training.sweeping.run import Sitting, open_journal, start_process
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


def _arguments(home: Path, *more: str) -> list[str]:
    job = ", ".join(f"{k}: {v}" for k, v in SMALL.items())
    return [f"home={home}", "name=s", "tables=tiny", f"job={{{job}}}", *more]


@contextmanager
def _started(home: Path, environment: dict[str, str], *more: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "playbill.cli", "sweep", *_arguments(home, *more)]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=home
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.timeout(600)
def test_a_killed_sweep_leaves_no_process_and_goes_on(
    tiny_home: Path, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of three trials the first has ended when the sweep is killed, the second is under way, the third cannot run."""
    pytest.importorskip("ray.tune")
    more = ["space={model.learning_rate: [1e-2, 1e-6, 1e-3]}", "search=grid", "parallel=2", "threads=1",
            "reduction=2", "grace_epochs=12", "job.model.max_epochs=24", "job.model.patience_epochs=0",
            "job.checkpoint_every_steps=9", "job.model.batch_tokens=128"]  # fmt: skip
    runs, folder = tiny_home / "runs", tiny_home / "sweeps/s"
    runs.mkdir()
    (runs / "s-0003").write_text("in the way of the run's folder")
    with _started(tiny_home, environment, *more) as sweep:
        _wait(lambda: len(epochs_of(runs / "s-0002/metrics.csv")) >= 2, sweep)
        # held, so that it is under way at the kill however fast it is
        (held,) = [pid for pid, words in _trainings(tiny_home).items() if "s-0002" in words]
        os.kill(held, signal.SIGSTOP)
        try:
            _wait(lambda: _trials(folder)[0].status == TRAINED, sweep)
            assert _trials(folder)[1].status == UNDER_WAY
            sweep.send_signal(signal.SIGKILL)
            sweep.communicate()
        finally:
            os.kill(held, signal.SIGCONT)
    _wait(lambda: not _trainings(tiny_home), None)
    reached = len(epochs_of(runs / "s-0002/metrics.csv"))
    assert 2 <= reached < 24  # it did not run on to its end by itself
    first = (runs / "s-0001/run.json").stat().st_mtime_ns

    with _started(tiny_home, environment, *more) as sweep:
        out, _ = sweep.communicate(timeout=280)
    assert sweep.returncode == 0 and "going on: 1 of 3 trials are there" in out, out
    assert not _trainings(tiny_home) and (runs / "s-0001/run.json").stat().st_mtime_ns == first
    trained, stopped, failed = _trials(folder)
    assert [t.values["model.learning_rate"] for t in (trained, stopped, failed)] == [1e-2, 1e-6, 1e-3]
    assert trained.status == TRAINED and len(trained.curve) == 24
    # it went on from where it was; with so small a rate it falls behind the first, as soon as it may be stopped
    assert "going on from" in (folder / "logs/s-0002.log").read_text().replace("\n", " ")
    assert stopped.status == STOPPED and 12 <= len(stopped.curve) < 24
    assert failed.status == FAILED and "s-0003" in failed.reason and "trial 3 of 3" in out
    record = json.loads((runs / "s-0001/run.json").read_bytes())
    assert record["completed"] and record["best"] == pytest.approx(trained.best, rel=1e-6)
    assert record["best_epoch"] == trained.epoch
    config = json.loads((runs / "s-0001/config.json").read_bytes())
    assert config["model"]["learning_rate"] == 1e-2 and config["threads"] == 1
    assert {"trials.csv", "best.yaml", "parallel.png", "index.html", "logs"} <= set(os.listdir(folder))

    # typed again: nothing is run, so that it needs no Ray; another space under the same name is another sweep
    run(compose("sweep", _arguments(tiny_home, *more)))
    assert "is up to date: 2 trials" in capsys.readouterr().err
    assert (runs / "s-0001/run.json").stat().st_mtime_ns == first
    with pytest.raises(TrainingError, match="holds another sweep .*space"):
        run(compose("sweep", _arguments(tiny_home, "space={seed: [1, 2]}", *more[1:])))


def test_a_sweep_of_which_no_trial_could_be_trained_says_why(tiny_home: Path) -> None:
    """What a sweep does with its trials, one by one and without Ray."""
    settings = compose("sweep", _arguments(tiny_home, "space={seed: [1]}", "search=grid"))
    folder, runs = tiny_home / "sweeps/s", tiny_home / "runs"
    folder.mkdir(parents=True)
    runs.mkdir()
    (runs / "s-0001").write_text("in the way of the run's folder")
    space = read_space(settings.space)
    journal = open_journal(settings, space, read_folder(tiny_home / "tables/tiny").fingerprint, folder)
    sitting = Sitting(
        settings, points_of(settings, space, 0), journal, folder, Console(file=io.StringIO()), "ndcg_at_10"
    )
    trial = sitting.next()
    assert trial is not None
    process = start_process(str(tiny_home), str(folder), "ndcg_at_10", "ndcg_at_10", 1, {"arguments": trial.arguments})
    with pytest.raises(TrainingError, match="s-0001") as error:
        process.next_epoch()
    sitting.on_end(trial.number, True, str(error.value))
    assert sitting.next() is None
    journal.wanted, journal.finished = 1, True
    write_journal(folder, journal)
    assert _trials(folder)[0].status == FAILED
    with pytest.raises(TrainingError, match="no trial could be trained: .*s-0001"):
        run(settings)


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
        time.sleep(0.05)


def _trials(folder: Path) -> list[Trial]:
    journal = read_journal(folder)
    assert journal is not None
    return journal.trials


def _trainings(home: Path) -> dict[int, str]:
    """Return the command lines of living trainings of this home, by process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"train" in words and f"home={home}".encode() in words:
            found[int(path.parent.name)] = str(words)
    return found


def test_log_integers_have_no_gaps() -> None:
    (dimension,) = read_space({"d": {"log_integers": [1, 4]}})
    rng = np.random.default_rng(0)
    shares = np.bincount([dimension.draw(rng) for _ in range(4000)], minlength=5)[1:] / 4000
    expected = [math.log((n + 1) / n) / math.log(5) for n in (1, 2, 3, 4)]
    assert shares == pytest.approx(expected, abs=0.03)
