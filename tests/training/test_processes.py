"""One process and two, stopped and not: the same training. Real processes, real kills, through the command line.

What is undisturbed and alone is trained in this process: a new one takes longer to import torch than to train.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from playbill.training.runs import read_record

Start = Callable[..., "subprocess.Popen[str]"]
Here = Callable[..., None]


def finish(process: subprocess.Popen[str]) -> str:
    """Return what a run printed, after it ended well."""
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out
    return out


def losses(run: Path) -> list[float]:
    """Return the loss of every step, in order."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["loss"]]
    assert [int(row["step"]) for row in rows] == list(range(1, len(rows) + 1))
    return [float(row["loss"]) for row in rows]


def weights(run: Path, name: str = "final") -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
    return state


def family(pid: int) -> list[int]:
    """Return a process and all its descendants, parents first."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = children.read_text().split() if children.is_file() else []
    return [pid, *(p for child in found for p in family(int(child)))]


def kill_after_checkpoint(process: subprocess.Popen[str], run: Path) -> None:
    """Kill with SIGKILL as soon as there is something to go on from."""
    last = run / "checkpoints" / "last.ckpt"
    until = time.monotonic() + 120
    while not last.is_file():
        assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
        time.sleep(0.005)
    for pid in family(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=60)
    record = read_record(run)
    assert record is not None and not record.completed, "the run was over before it could be killed"


@pytest.mark.parametrize(
    "choices",
    [
        ("model.tables=fused", "model.table_learning_rate=0.05"),
        (
            "model.tables=fused",
            "model.table_learning_rate=0.3",
            "model.learning_rate=0.01",
            "model.loss=in_batch",
            "model.negatives=64",
        ),
    ],
    ids=["fused", "in_batch"],
)
def test_two_processes_train_like_one(
    tiny_home: Path, train: Start, train_here: Here, choices: tuple[str, ...]
) -> None:
    two = train(tiny_home, *choices, "run=two", processes=2)
    train_here(tiny_home, *choices, "run=one")
    finish(two)
    first, second = losses(tiny_home / "runs" / "one"), losses(tiny_home / "runs" / "two")
    assert len(first) > 20 and first[-1] < first[0] - 0.1
    np.testing.assert_allclose(first, second, atol=1e-4)  # 2e-6 today; sums are taken in another order
    other = weights(tiny_home / "runs" / "two")
    for name, tensor in weights(tiny_home / "runs" / "one").items():
        # there is one kind of event here, so these change nothing: their gradient is rounding, which Adam blows up
        if "query_net.event" not in name:
            torch.testing.assert_close(tensor, other[name], atol=1e-3, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def test_a_killed_run_ends_as_if_nothing_had_been(tiny_home: Path, train: Start, train_here: Here) -> None:
    choices = ("model.tables=fused", "checkpoint_every_steps=7", "model.dropout=0.2")
    broken = train(tiny_home, *choices, "run=broken")
    kill_after_checkpoint(broken, tiny_home / "runs" / "broken")
    again = train(tiny_home, *choices, "run=broken")
    train_here(tiny_home, *choices, "run=undisturbed")
    assert "going on from" in finish(again)
    expected, got = tiny_home / "runs" / "undisturbed", tiny_home / "runs" / "broken"
    for name in ("final", "best"):
        for key, tensor in weights(expected, name).items():
            assert torch.equal(tensor, weights(got, name)[key]), key
    assert losses(got) == losses(expected)
    first, second = read_record(expected), read_record(got)
    assert first is not None and second is not None
    assert (first.best, first.best_epoch, first.report) == (second.best, second.best_epoch, second.report)


def test_one_process_goes_on_from_two(
    tiny_home: Path, train: Start, train_here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    choices = ("model.tables=fused", "checkpoint_every_steps=7")
    broken = train(tiny_home, *choices, "run=broken", processes=2)
    kill_after_checkpoint(broken, tiny_home / "runs" / "broken")
    train_here(tiny_home, *choices, "run=undisturbed")
    capsys.readouterr()
    train_here(tiny_home, *choices, "run=broken")
    assert "going on from" in capsys.readouterr().err.replace("\n", " ")
    expected, got = losses(tiny_home / "runs" / "undisturbed"), losses(tiny_home / "runs" / "broken")
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_two_processes_train_the_ranker_like_one(tiny_home: Path, train: Start, train_here: Here) -> None:
    train_here(tiny_home, "model.max_epochs=1", "model.away_days=0")  # and so the ranker has all rows
    # no hard negatives: the scores differ in their last digits, hence the order of near equals in the lists
    choices = ("model=ranker", "model.hard_negatives=0", "model.tables=fused", "model.learning_rate=0.01")
    two = train(tiny_home, *choices, "run=two", processes=2)
    train_here(tiny_home, *choices, "run=one")
    finish(two)
    first, second = losses(tiny_home / "runs" / "one"), losses(tiny_home / "runs" / "two")
    assert len(first) >= 10 and sum(first[-3:]) < sum(first[:3])
    np.testing.assert_allclose(first, second, atol=2e-3)
