"""Who may import whom: the contracts of imports.toml, and that each of them can fail."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTRACTS = Path(__file__).with_name("imports.toml")


def lint(config: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--config", config, "--no-cache"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_contracts_hold() -> None:
    done = lint(CONTRACTS)
    assert done.returncode == 0, done.stdout


def test_a_broken_contract_is_found(tmp_path: Path) -> None:
    text = CONTRACTS.read_text()
    config = tmp_path / "imports.toml"
    # cli.py does import hydra: forbid it, and the linter must say so
    head = text.partition("[[tool.importlinter.contracts]]")[0]
    config.write_text(
        head
        + '[[tool.importlinter.contracts]]\nname = "planted"\ntype = "forbidden"\n'
        + 'source_modules = ["playbill.cli"]\nforbidden_modules = ["hydra"]\n'
    )
    done = lint(config)
    assert done.returncode != 0 and "planted" in done.stdout, done.stdout


def test_every_room_has_a_contract() -> None:
    contracts = tomllib.loads(CONTRACTS.read_text())["tool"]["importlinter"]["contracts"]
    under = {m for c in contracts for m in c["source_modules"]}
    rooms = {f"playbill.{p.name}" for p in (ROOT / "src/playbill").iterdir() if (p / "__init__.py").exists()}
    single = {f"playbill.{p.stem}" for p in (ROOT / "src/playbill").glob("*.py") if p.stem not in ("__init__", "cli")}
    assert rooms | single <= under | {"playbill.conf"}


def test_training_takes_tune_of_ray_and_nothing_else() -> None:
    """Import contracts see packages whole: that sweeps leave Ray Serve and Ray Data alone is read from the source."""
    used = {
        word
        for path in sorted((ROOT / "training").rglob("*.py"))
        for word in re.findall(r"(?:from|import) (ray[\w.]*)", path.read_text())
    }
    assert used == {"ray", "ray.tune.search"}
