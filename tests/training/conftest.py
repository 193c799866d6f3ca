"""A small real data set to train on, and the command line to do it with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pytest

from playbill.tables.folder import read_folder, read_table, write_folder

PEOPLE = 60  # of MovieLens-100K, those with the lowest ids


@pytest.fixture(scope="session")
def tiny_tables(ml100k_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The events of 60 people, on all items."""
    folder = read_folder(ml100k_tables)
    tables = {name: read_table(ml100k_tables, name) for name in ("users", "items", "events")}
    for name in ("users", "events"):
        tables[name] = tables[name].filter(pc.less_equal(tables[name]["user_id"], PEOPLE))
    path = tmp_path_factory.mktemp("tables") / "tiny"
    write_folder(path, tables, source="tiny", columns=folder.columns, events=folder.events)
    return path


@pytest.fixture
def tiny_home(tmp_path: Path, tiny_tables: Path) -> Path:
    """An empty home with the tiny tables in it."""
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "tiny").symlink_to(tiny_tables)
    return tmp_path


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


@pytest.fixture
def train(environment: dict[str, str]) -> Callable[..., subprocess.Popen[str]]:
    """A function that starts `playbill train` with the small model in one or more processes."""

    def start(home: Path, *overrides: str, processes: int = 1) -> subprocess.Popen[str]:
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
        batch = "model.batch_size=256" if "model=ranker" in overrides else "model.batch_tokens=256"
        command = [sys.executable, *launcher, "-m", "playbill.cli", "train", f"home={home}", *SMALL, batch, *overrides]
        return subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start
