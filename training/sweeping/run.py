"""A sweep from its settings to its results: what was tried before, what is left, and the loop between."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from playbill.errors import ConfigError, TrainingError
from playbill.tables.folder import read_folder
from playbill.training.sweeping.check import arguments_of, check_space, metrics_of
from playbill.training.sweeping.journal import (
    FAILED,
    STOPPED,
    TRAINED,
    UNDER_WAY,
    Journal,
    Trial,
    identity,
    read_journal,
    write_journal,
)
from playbill.training.sweeping.points import Points, points_of
from playbill.training.sweeping.process import TrainProcess
from playbill.training.sweeping.results import show, write_results
from playbill.training.sweeping.settings import Search, SweepSettings
from playbill.training.sweeping.space import Dimension, flatten, grid_size, read_space


def sweep(settings: SweepSettings) -> None:
    """Run what is left of a sweep; see `training/sweep.py`."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    settings = replace(settings, home=str(Path(settings.home).absolute()))
    dimensions = read_space(settings.space)
    if settings.search is Search.grid:
        settings.trials = min(settings.trials, grid_size(dimensions))
    train = check_space(settings, dimensions)
    if settings.metric not in metrics_of(train):
        raise ConfigError(
            f"metric={settings.metric} is not measured by this training: there are {', '.join(metrics_of(train))}; "
            "job.metric_k sets the first three"
        )
    fingerprint = read_folder(Path(settings.home) / "tables" / train["tables"]).fingerprint
    folder = Path(settings.home) / "sweeps" / settings.run_name
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        journal = open_journal(settings, dimensions, fingerprint, folder)
        left = settings.trials - len(journal.ended())
        if left <= 0 or (journal.finished and journal.wanted == settings.trials):
            console.print(f"{folder} is up to date: {len(journal.ended())} trials")
        else:
            if journal.ended():
                console.print(f"going on: {len(journal.ended())} of {settings.trials} trials are there")
            _run_rest(settings, dimensions, train, journal, folder, console)
        write_results(folder, journal, dimensions)
        show(folder, journal, dimensions)
    if journal.best() is None:
        raise TrainingError(
            f"no trial could be trained: {journal.trials[0].reason}; their logs are in {folder / 'logs'}"
        )


class Sitting:
    """The trials of one run of the job, as the loop sees them: each change goes to the journal on disk at once."""

    def __init__(
        self, settings: SweepSettings, points: Points, journal: Journal, folder: Path, console: Console, kept_by: str
    ) -> None:
        self.settings, self.points, self.journal = settings, points, journal
        self.folder, self.console, self.kept_by = folder, console, kept_by
        self.again = [t for t in journal.trials if not t.ended]
        self.begun_s = {t.number: t.seconds for t in journal.trials}

    def next(self) -> Trial | None:
        """Return what to run next: first what an earlier sitting left unfinished, then a new point."""
        if self.again:
            trial = self.again.pop(0)
            trial.status, trial.reason = UNDER_WAY, ""
            trial.curve, trial.best, trial.epoch = [], None, 0
        else:
            if len(self.journal.trials) >= self.settings.trials:
                return None
            number = len(self.journal.trials) + 1
            values = self.points.ask(number)
            if values is None:
                return None
            trial = self._new(number, values)
        write_journal(self.folder, self.journal)
        return trial

    def on_epoch(self, number: int, figures: dict[str, float], seconds: float) -> None:
        trial = self.journal.trials[number - 1]
        del trial.curve[int(figures["epoch"]) - 1 :]
        trial.curve.append(figures["metric"])
        trial.best, trial.epoch = figures["best"], int(figures["best_epoch"])
        trial.seconds = round(self.begun_s.get(number, 0.0) + seconds, 1)
        write_journal(self.folder, self.journal)

    def on_end(self, number: int, by_itself: bool, reason: str) -> None:
        trial = self.journal.trials[number - 1]
        trial.status = FAILED if reason else TRAINED if by_itself else STOPPED
        trial.reason = reason
        write_journal(self.folder, self.journal)
        self.points.tell(trial)
        best = self.journal.best()
        said = f"failed: {reason}" if reason else f"{self.journal.metric} {trial.best:.4f}, epoch {trial.epoch}"
        stopped = " (stopped)" if trial.status == STOPPED else ""
        mark = ", best so far" if best is trial else ""
        values = ", ".join(f"{k}={_short(v)}" for k, v in trial.values.items())
        self.console.print(f"trial {number} of {self.settings.trials}: {values}: {said}{stopped}{mark}", markup=False)

    def _new(self, number: int, values: dict[str, Any]) -> Trial:
        run = f"{self.settings.run_name}-{number:04d}"
        arguments = arguments_of(self.settings, values, run)
        trial = Trial(number=number, run=run, values=values, arguments=arguments)
        # a folder of that name is none of this sweep's: its figures must not be taken for this trial's
        shutil.rmtree(Path(self.settings.home) / "runs" / run, ignore_errors=True)
        self.journal.trials.append(trial)
        return trial


def start_process(
    home: str, folder: str, metric: str, kept_by: str, threads: int, config: dict[str, Any]
) -> TrainProcess:
    """Start the training of one trial; called in the trial's own process."""
    run = next(a.removeprefix("run=").strip("'") for a in config["arguments"] if a.startswith("run="))
    return TrainProcess(
        config["arguments"],
        Path(home) / "runs" / run,
        Path(folder) / "logs" / f"{run}.log",
        metric,
        kept_by,
        threads,
    )


def _run_rest(
    settings: SweepSettings,
    dimensions: list[Dimension],
    train: dict[str, Any],
    journal: Journal,
    folder: Path,
    console: Console,
) -> None:
    from playbill.training.sweeping.tuning import own_ray, run_trials, visible_gpus

    before = journal.ended()
    kept_by = f"ndcg_at_{train['metric_k']}"
    points = points_of(settings, dimensions, len(journal.trials))
    for trial in before:
        points.tell(trial)
    sitting = Sitting(settings, points, journal, folder, console, kept_by)
    parallel = settings.parallel or max(1, len(os.sched_getaffinity(0)) // settings.threads)
    journal.wanted, journal.finished = settings.trials, False
    with own_ray(settings, parallel):
        if settings.gpus > visible_gpus():
            raise ConfigError(f"gpus={settings.gpus:g} for each trial, and this machine shows {visible_gpus():g}")
        process = partial(start_process, settings.home, str(folder), settings.metric, kept_by, settings.threads)
        run_trials(
            settings,
            parallel,
            settings.trials - len(before),
            sitting.next,
            before,
            process,
            sitting.on_epoch,
            sitting.on_end,
        )
    journal.finished = True
    write_journal(folder, journal)


def open_journal(settings: SweepSettings, dimensions: list[Dimension], fingerprint: str, folder: Path) -> Journal:
    """Return the journal to go on with: that of the folder where it is of the same sweep, else a new one.

    Raises:
        TrainingError: the folder holds another sweep, and force was not given.
    """
    asked = {
        "tables": settings.tables,
        "model": settings.model,
        "job": flatten(settings.job),
        "space": {d.key: {d.kind: d.values} for d in dimensions},
        "search": settings.search.value,
        "scheduler": settings.scheduler.value,
        "grace_epochs": settings.grace_epochs,
        "reduction": settings.reduction,
        "metric": settings.metric,
        "seed": settings.seed,
    }
    print_of = identity(asked, fingerprint)
    before = None if settings.force else read_journal(folder)
    if before is not None:
        if before.identity != print_of:
            different = [k for k in asked if before.asked.get(k) != asked[k]] or ["the content of the tables"]
            raise TrainingError(
                f"{folder} holds another sweep ({', '.join(different)} differ); give this one a name of its own with "
                "name=, or force=true to forget that one and remove its runs"
            )
        return before
    _forget(folder, Path(settings.home) / "runs")
    journal = Journal(name=settings.run_name, identity=print_of, asked=asked, metric=settings.metric)
    write_journal(folder, journal)
    return journal


def _forget(folder: Path, runs: Path) -> None:
    """Remove the trials of a sweep whose place is taken."""
    try:
        old = read_journal(folder)
    except TrainingError:
        old = None
    for trial in old.trials if old is not None else []:
        shutil.rmtree(runs / trial.run, ignore_errors=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif not path.name.startswith("."):
            path.unlink()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a sweep's folder; the kernel gives it back when the process dies."""
    with (folder / ".lock").open("w") as lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise TrainingError(f"this sweep is running: {folder} is held by another process") from None
        yield


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
