"""Where figures go: metrics.csv in the run folder always, Weights & Biases when asked for. Only this file knows wandb.

Without WANDB_API_KEY wandb writes its files under the run folder (`wandb sync` sends them later) and contacts nobody.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from playbill.errors import ConfigError
from playbill.tables.files import write_atomic
from playbill.training.settings import Logger, TrainSettings


class Tracker:
    """Takes figures as they come, one row a step.

    Args:
        run_dir: the run's folder.
        columns: names of all figures that will come; metrics.csv has one column for each, after `step`.
        from_step: rows of metrics.csv after this step are dropped: the run goes on from there and will write them
            again.
        settings: for wandb's config; `settings.logger` chooses.
    """

    def __init__(self, run_dir: Path, columns: list[str], from_step: int, settings: TrainSettings) -> None:
        self.path, self.columns = run_dir / "metrics.csv", ["step", *columns]
        kept = _rows(self.path, from_step)
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
        write_atomic(self.path, buffer.getvalue().encode())
        self._wandb: Any = None
        if settings.logger is Logger.wandb:
            self._wandb = _start_wandb(run_dir, settings)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Write one row. A figure without a column is a mistake of ours and raises ValueError."""
        with self.path.open("a", newline="") as file:
            row = {"step": step} | {name: f"{value:.8g}" for name, value in figures.items()}
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(row)
        if self._wandb is not None:
            self._wandb.log(dict(figures), step=step)

    def finish(self, report: Mapping[str, Any]) -> None:
        """Hand over the run's report (plain json values) and close."""
        if self._wandb is not None:
            self._wandb.summary.update(dict(report))
            self._wandb.finish()


def _rows(path: Path, until_step: int) -> list[dict[str, str]]:
    if until_step <= 0 or not path.is_file():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["step"].isdigit() and int(row["step"]) <= until_step]


def _start_wandb(run_dir: Path, settings: TrainSettings) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ConfigError("logger=wandb needs the package wandb; install it or use logger=csv") from error
    return wandb.init(
        project=settings.wandb_project,
        name=settings.run_name,
        group=settings.run_name,
        dir=str(run_dir),
        mode="online" if os.environ.get("WANDB_API_KEY") else "offline",
        config=msgspec.to_builtins(settings),
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True),
    )
