"""A small model, and the command line to train it with on `tiny_home`: in processes of their own, or in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from playbill.cli import main

# few steps of a small model; no dropout, since processes drop different columns
SMALL = (
    "tables=tiny",
    "features.history_length=10",
    "model.dim=16",
    "model.field_dim=4",
    "model.hidden=16",
    "model.heads=2",
    "model.dropout=0",
    "model.max_epochs=2",
    "log_every_steps=1",
    "threads=1",
)


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Of subprocesses: one thread each, no key of anybody's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "RANK", "WORLD_SIZE", "LOCAL_"))}
    return kept | {"OMP_NUM_THREADS": "1"}


def arguments(home: Path, *overrides: str) -> list[str]:
    batch = "model.batch_size=256" if "model=ranker" in overrides else "model.batch_tokens=256"
    return ["train", f"home={home}", *SMALL, batch, *overrides]


@pytest.fixture(scope="session")
def train_here() -> Callable[..., None]:
    """A function that trains the small model in this process: a new one takes seconds to import what it needs."""

    def train(home: Path, *overrides: str) -> None:
        assert main(arguments(home, *overrides)) == 0

    return train


@pytest.fixture
def train(environment: dict[str, str]) -> Callable[..., subprocess.Popen[str]]:
    """A function that starts `playbill train` with the small model in one or more processes."""

    def start(home: Path, *overrides: str, processes: int = 1) -> subprocess.Popen[str]:
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
        command = [sys.executable, *launcher, "-m", "playbill.cli", *arguments(home, *overrides)]
        return subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start
