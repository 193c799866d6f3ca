"""One trial: `playbill train` in a process of its own, followed by the rows that it adds to metrics.csv."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from playbill.errors import TrainingError

# The kernel asks the training to stop when whoever started it dies, however that came about: a killed sweep leaves no
# training behind. prctl(PR_SET_PDEATHSIG); a parent that died before it was set shows as another parent.
_PRELUDE = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 15)\n"
    "os.getppid() == int(sys.argv[1]) or sys.exit(143)\n"
    "os.execv(sys.executable, [sys.executable, '-m', 'playbill.cli', *sys.argv[2:]])\n"
)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS", "ARROW_NUM_THREADS")
_EVERY_S = 0.2
_PATIENCE_S = 60.0  # from SIGTERM to SIGKILL: a step and a checkpoint may lie between


class TrainProcess:
    """A training under way.

    Args:
        arguments: of `playbill train`.
        run_dir: where it writes metrics.csv.
        log: file that takes what it says.
        metric: column to report; kept_by: column whose best epoch's weights are kept.
        threads: limit of its numerical libraries.
    """

    def __init__(
        self, arguments: Sequence[str], run_dir: Path, log: Path, metric: str, kept_by: str, threads: int
    ) -> None:
        self.run_dir, self.metrics, self.log = run_dir, run_dir / "metrics.csv", log
        self.metric, self.kept_by = metric, kept_by
        self.epoch = 0
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | dict.fromkeys(_THREADS, str(threads))
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PRELUDE, str(os.getpid()), "train", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def next_epoch(self) -> tuple[dict[str, float], bool]:
        """Wait for an epoch's figures and return them, and whether the training is over.

        Returns:
            `epoch` (1-based), `metric` after it, and `best` and `best_epoch` of the weights that the run keeps.
        Raises:
            TrainingError: the process failed, or ended without any epoch; with the last it said.
        """
        while True:
            over = self.process.poll() is not None
            rows = epochs_of(self.metrics)
            if over and self.process.returncode:
                raise TrainingError(_last_words(self.log) or f"ended with code {self.process.returncode}")
            new = [row for row in rows if row["epoch"] > self.epoch]
            # the last epoch's are told once the process has ended: it is still writing its record
            if new and (over or new[0]["epoch"] < self._last_epoch()):
                self.epoch = int(new[0]["epoch"])
                return self._figures(rows), over and len(new) == 1
            if over:  # it stopped by itself before its last epoch: nothing new, and nothing will come
                if not rows:
                    raise TrainingError(f"ended without an epoch; see {self.log}")
                return self._figures(rows), True
            time.sleep(_EVERY_S)

    def stop(self) -> None:
        """Ask it to stop, which leaves its last checkpoint, and wait until it has; kill it where it does not."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _last_epoch(self) -> int:
        config = msgspec.json.decode((self.run_dir / "config.json").read_bytes())
        return int(config["model"]["max_epochs"])

    def _figures(self, rows: list[dict[str, float]]) -> dict[str, float]:
        until = [row for row in rows if row["epoch"] <= self.epoch]
        kept = max(until, key=lambda row: (row[self.kept_by], -row["epoch"]))
        return {
            "epoch": float(self.epoch),
            "metric": until[-1][self.metric],
            "best": kept[self.metric],
            "best_epoch": kept["epoch"],
        }


def epochs_of(metrics: Path) -> list[dict[str, float]]:
    """Return the rows of metrics.csv that end an epoch, each figure by its column; a line not yet whole is left out."""
    try:
        text = metrics.read_text()
    except (FileNotFoundError, NotADirectoryError):  # the training itself says that its folder cannot be made
        return []
    whole = text[: text.rfind("\n") + 1]
    rows = csv.DictReader(io.StringIO(whole))
    return [{k: float(v) for k, v in row.items() if v} for row in rows if row.get("epoch")]


def _last_words(log: Path) -> str:
    """Return the last line that a failed process wrote."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("playbill train: ").removeprefix("playbill: ") if lines else ""
