"""A real home: MovieLens-100K, two sealed bundles of its baselines, everybody's events in the state."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from playbill.bundle.manifest import State
from playbill.bundle.write import current, publish, seal, set_state
from playbill.cli import compose


@pytest.fixture(scope="session")
def sealed_home(tmp_path_factory: pytest.TempPathFactory, ml100k_tables: Path) -> Path:
    """Never changed: `home` is a copy."""
    from playbill.state.load import run as load
    from playbill.training.export import run as export

    home = tmp_path_factory.mktemp("sealed")
    shutil.copytree(ml100k_tables, home / "tables" / "ml-100k")
    for days in (30, 7):
        path = export(compose("export", [f"home={home}", f"half_life_days={days}"]))
        for state in (State.EVALUATED, State.GATED):
            set_state(path, state)
        seal(path)
        publish(home / "bundles", path.name)
    load(compose("load", [f"home={home}"]))
    return home


@pytest.fixture(scope="session")
def versions(sealed_home: Path) -> list[str]:
    """The published bundle's version, and the other's; their trending lists differ."""
    published = current(sealed_home / "bundles")
    assert published is not None
    others = [p.name for p in (sealed_home / "bundles").iterdir() if p.is_dir() and p.name != published]
    return [published, *others]


@pytest.fixture(scope="module")
def home(sealed_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose state a module may change."""
    path = tmp_path_factory.mktemp("home")
    shutil.copytree(sealed_home, path, dirs_exist_ok=True)
    return path


@pytest.fixture(scope="session")
def free_ports() -> Callable[[int], list[int]]:
    """Returns that many ports that nobody listens on now."""

    def find(count: int) -> list[int]:
        probes = [socket.socket() for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in probes]
        for probe in probes:
            probe.close()
        return ports

    return find
