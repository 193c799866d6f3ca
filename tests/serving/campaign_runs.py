"""Runs of `playbill campaign run` in processes of their own, killed in between where a test asks for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl


def campaign_command(fields: tuple[str, ...], home: Path, name: str, *others: str) -> list[str]:
    return [
        sys.executable, "-m", "playbill.cli", "campaign", "run", f"home={home}", f"campaign.name={name}",
        f"campaign.subjects={home}/subjects.json", "at=1998-04-24T12:00Z", "workers=1",
        "campaign.holdouts={everywhere: 0, campaign: 0}", *fields, *others,
    ]  # fmt: skip


def run_campaign(fields: tuple[str, ...], home: Path, name: str, *others: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(campaign_command(fields, home, name, *others), capture_output=True, text=True, timeout=200)


def kill_after(parts: int, command: list[str], folder: Path) -> None:
    """Kill the driver of a run once it wrote so many parts of its rows to the campaign's folder."""
    driver = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while len(list(folder.glob("rows/part-*.parquet"))) < parts:
        assert driver.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert not (folder / "success.json").exists()


def rows_of(home: Path, name: str, what: str = "rows") -> pl.DataFrame:
    return pl.read_parquet(home / "campaigns" / name / what / "part-*.parquet")
