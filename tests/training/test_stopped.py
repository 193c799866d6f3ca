"""A run that is asked to stop says so, and does not end as if it were done."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from playbill.training.runs import read_record


def test_sigterm_is_a_failure_that_says_how_to_go_on(
    tiny_home: Path, train: Callable[..., subprocess.Popen[str]]
) -> None:
    process = train(tiny_home, "run=stopped", "checkpoint_every_steps=7", "model.max_epochs=200")
    until = time.monotonic() + 120
    while not (tiny_home / "runs/stopped/checkpoints/last.ckpt").is_file():
        assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
        time.sleep(0.01)
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "goes on from the last checkpoint" in out, out
    record = read_record(tiny_home / "runs/stopped")
    assert record is not None and not record.completed
