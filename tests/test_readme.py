"""The README's commands are true: the ones for your own data run here as they stand, the others are what CI runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from playbill import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ENOUGH = 6000  # events of a small shop: too few for towers, so the whole of the low-data road is walked

# stands in for the person at the editor: runs the job again, takes the proposal it prints, corrects one word
EDITOR = """#!/bin/sh
playbill prepare source=parquet source.folder=my_shop source.name=my_shop home=shop 2>&1 |
  sed '1,/run again:/d; s/purchase/rate/' > proposal.yaml
mv proposal.yaml "$1"
"""


def blocks(heading: str) -> list[str]:
    section = README.partition(f"## {heading}")[2].partition("\n## ")[0]
    assert section, f"README has no section {heading!r}"
    return re.findall(r"```bash\n(.*?)```", section, re.S)


def test_the_two_commands_are_targets_and_what_ci_runs() -> None:
    commands = [line.split("#")[0].strip() for line in blocks("Two commands")[0].splitlines()]
    assert commands == ["make demo", "make test"]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    ci = (ROOT / ".ci/run").read_text()
    for command in commands:
        assert command.split()[1] in targets and command in ci


def test_every_playbill_command_composes() -> None:
    lines = [
        line.split("#")[0].split()
        for block in re.findall(r"```bash\n(.*?)```", README, re.S)
        for line in block.splitlines()
    ]
    commands = [words[1:] for words in lines if words[:1] == ["playbill"]]
    assert len(commands) >= 10
    for words in commands:
        cli.compose(*cli.job_of(words))


def test_every_link_leads_somewhere() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_your_own_data_in_five_minutes(tmp_path: Path, ml100k_tables: Path) -> None:
    shop = tmp_path / "my_shop"
    shop.mkdir()
    events = pl.read_parquet(ml100k_tables / "events.parquet").sort("at").head(ENOUGH)
    events.select(customer="user_id", sku="item_id", stars="value", ts="at").write_parquet(shop / "ratings.parquet")
    items = pl.read_parquet(ml100k_tables / "items.parquet")
    items.select(sku="item_id", name="title", tags=pl.col("categories").list.join("|")).write_parquet(
        shop / "films.parquet"
    )
    editor = tmp_path / "editor"
    editor.write_text(EDITOR)
    editor.chmod(0o755)
    env = {
        **os.environ,
        "EDITOR": str(editor),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    propose, train, rest = blocks("Your own data, in five minutes")
    assert "playbill train" in train  # of enough data only; the demo walks that road in CI
    first, *then = [line for line in (propose + rest).splitlines() if line.strip()]
    asked = run(first, tmp_path, env)
    assert asked.returncode == 1 and "A proposal" in asked.stderr, asked.stderr
    stop = then[-1]
    try:
        said = {}
        for line in then[:-1]:
            done = run(line, tmp_path, env)
            assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            said[line.split()[1]] = done.stdout + done.stderr
    finally:
        stopped = run(stop, tmp_path, env)
    assert stopped.returncode == 0, stopped.stderr
    assert "without towers" in said["export"] and "popularity" in said["ask"]
    assert list((tmp_path / "shop/batch").glob("*/_SUCCESS"))


def run(line: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run one line of the README in a shell."""
    return subprocess.run(line, shell=True, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_known_world_and_what_is_true_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line of both sections as it stands, one after the other; the one that trains is what `make proof` runs."""
    lines = [
        line.partition("#")[0].split()
        for heading in ("A world whose truth is known", "What is true of a log")
        for block in blocks(heading)
        for line in block.splitlines()
    ]
    assert len(lines) >= 7
    monkeypatch.chdir(tmp_path)
    for words in lines:
        if "retrain=true" in words:
            continue
        assert words[0] == "playbill" and cli.main(words[1:]) == 0, " ".join(words)
    readings = sorted(p.parent.name for p in (tmp_path / "var/measure").glob("*/reading.png"))
    assert readings == ["fitted-small-drift", "fitted-small-off_policy", "power"]
