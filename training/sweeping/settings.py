"""Settings of the job `sweep`. Imports nothing heavy: `playbill sweep --help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from playbill.errors import ConfigError
from playbill.training.sweeping.space import read_space


class Search(Enum):
    """Where the next trial's values come from."""

    optuna = "optuna"  # Optuna's tree-structured Parzen estimator: from what the trials before it reached
    random = "random"  # independent draws
    grid = "grid"  # every combination, in order; every dimension must be a choice


class Scheduler(Enum):
    """Whether trials that fall behind are stopped before their last epoch."""

    asha = "asha"  # at 1, 3, 9, ... epochs only the best third of all that came so far goes on
    none = "none"  # all are trained to the end


@dataclass(slots=True, kw_only=True)
class SweepSettings:
    """Train many times, each time with other settings out of a space, and keep the best.

    Each trial is a `playbill train` in a process of its own, with its own run <home>/runs/<name>-<number>: it can be
    exported like any other. Rerun with nothing changed: says "up to date". Killed in the middle: goes on; trials that
    ended are not run again, those under way go on from their checkpoints. More trials than before: adds them.

    A dimension is any field of `playbill train`, with one of

        {choice: [32, 64]}             one of these, whatever they are; a bare list means the same
        {uniform: [0, 0.5]}            a number between the two
        {log_uniform: [1e-4, 1e-2]}    the same, as likely in each decade
        {integers: [1, 4]}             a whole number, both ends included
        {log_integers: [16, 1024]}     the same, as likely in each decade

    Results: <home>/sweeps/<name>/ with trials.json, trials.csv, best.yaml (what to type), parallel.png and index.html.

        playbill sweep 'space={model.learning_rate: {log_uniform: [1e-4, 1e-2]}, model.dropout: {uniform: [0, .5]}}'
        playbill sweep space.model.dim=[32,64] space.seed=[1,2,3] search=grid scheduler=none
        playbill sweep tables=ml-1m job.model.max_epochs=30 space.model.dim=[64,128] trials=40 parallel=4 threads=2
    """

    home: str = "var"
    """Root of all that Playbill writes."""
    name: str = ""
    """Of the sweep; empty = <tables>-<model>-sweep."""
    tables: str = "ml-100k"
    """Name of prepared tables: <home>/tables/<tables>."""
    model: str = "two_tower"
    """The choice of `playbill train model=`."""
    job: dict[str, Any] = field(default_factory=dict)
    """Other fields of `playbill train`, the same for all trials, as in job.model.max_epochs=30."""
    space: dict[str, Any] = field(default_factory=dict)
    """The dimensions, by field."""
    trials: int = 20
    """Trainings in all; a grid ends when all its combinations are there."""
    search: Search = Search.optuna
    """optuna, random or grid."""
    scheduler: Scheduler = Scheduler.asha
    """asha or none."""
    metric: str = "ndcg_at_10"
    """Validation metric that is looked for, higher is better; its k is job.metric_k or 100."""
    grace_epochs: int = 1
    """asha: no trial is stopped before so many epochs."""
    reduction: int = 3
    """asha: of so many trials one goes on from each rung, and each rung lies so many times higher."""
    threads: int = 1
    """Threads of each trial, its BLAS and its readers included."""
    parallel: int = 0
    """Trials at a time; 0 = as many as cores / threads."""
    gpus: float = 0.0
    """GPUs of each trial, below 1 shared; 0 = trained on the CPU, and no GPU is shown to it."""
    seed: int = 1
    """Of the search. The trainings' own is job.seed."""
    force: bool = False
    """Begin afresh: forget the trials of this name and remove their runs."""

    def __post_init__(self) -> None:
        if self.name.startswith(".") or "/" in self.name:
            raise ConfigError(f"name is the name of one folder, not a path, got {self.name!r}; home= says where")
        for name in ("trials", "grace_epochs", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name in ("parallel", "gpus", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be >= 0, got {getattr(self, name)}")
        if self.reduction < 2:
            raise ConfigError(f"reduction must be >= 2, got {self.reduction}")
        if self.gpus > 1 and self.gpus % 1:
            raise ConfigError(f"gpus above 1 must be whole, got {self.gpus}")
        dimensions = read_space(self.space)
        if self.search is Search.grid:
            for dimension in dimensions:
                if dimension.kind != "choice":
                    raise ConfigError(
                        f"search=grid tries every combination, and space.{dimension.key} is {dimension.kind}; "
                        "give it a choice"
                    )

    @property
    def run_name(self) -> str:
        return self.name or f"{self.tables}-{self.model}-sweep"
