"""`playbill batch` on all of MovieLens-100K with Ray Data: killed in the middle, run again, held against online."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from playbill.serving import parts, processes
from playbill.serving.plain import make_api

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def command(home: Path) -> list[str]:
    return [sys.executable, "-m", "playbill.cli", "batch", f"home={home}", "shard_users=20", "k=10", "workers=2"]


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """The parts of a folder: writing one again would give it another inode."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.glob("part-*.parquet")}


def test_killed_and_run_again_it_neither_repeats_nor_loses_a_user(home: Path) -> None:
    folder = home / "batch" / "all"
    driver = subprocess.Popen(command(home), stderr=subprocess.DEVNULL)
    while len(snapshot(folder)) < 5:
        assert driver.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    killed_at = snapshot(folder)
    mark = (folder / ".owner").read_text()
    assert not (folder / "_SUCCESS").exists() and len(killed_at) < 48
    for name in killed_at:  # whole, though written by a process that was killed
        assert len(pq.read_table(folder / name)) == 20

    again = subprocess.run(command(home), capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert "going on" in again.stderr and "943 users" in again.stderr
    assert processes.marked(mark) == [], "the killed run's workers live on"
    finished = snapshot(folder)
    assert len(finished) == 48 and {name: finished[name] for name in killed_at} == killed_at
    rows = pq.read_table(folder)
    assert sorted(rows["user_id"].to_pylist()) == list(range(1, 944))
    success = parts.read_success(folder)
    assert success is not None and (success.rows, success.parts) == (943, 48)
    assert not list(folder.glob("*.tmp")) and not list(folder.glob(".part*"))

    began = time.monotonic()
    third = subprocess.run(command(home), capture_output=True, text=True, timeout=60)
    assert third.returncode == 0 and "up to date" in third.stderr
    assert time.monotonic() - began < 10 and snapshot(folder) == finished

    compare_with_online(home, folder)


def compare_with_online(home: Path, folder: Path) -> None:
    """Same bundle, state, request id and moment: same items, in the same order wherever scores differ."""
    plan = parts.read_plan(folder)
    assert plan is not None
    api = make_api(str(home))
    rows = pq.read_table(folder).to_pylist()

    async def ask_all() -> list[Any]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
            answers = []
            for row in rows:
                body = {"user_id": row["user_id"], "k": plan.k, "request_id": row["request_id"], "at": plan.at}
                answers.append((await client.post("/v1/recommend", json=body)).json())
            return answers

    for row, slate in zip(rows, asyncio.run(ask_all()), strict=True):
        assert slate["request_id"] == parts.request_id("all", row["user_id"])
        for name in ("rung", "bundle", "state_version", "profile_version", "policy"):
            assert row[name] == slate[name]
        scores = np.asarray([i["score"] for i in slate["items"]])
        np.testing.assert_allclose(row["scores"], scores, rtol=0, atol=1e-5)
        gaps = np.flatnonzero(np.diff(row["scores"]) < -1e-5) + 1  # between groups of equal scores
        for ours, theirs in zip(
            np.split(row["item_ids"], gaps), np.split([i["item_id"] for i in slate["items"]], gaps), strict=True
        ):
            assert sorted(ours) == sorted(theirs)
        assert row["propensities"] == pytest.approx([i["propensity"] for i in slate["items"]])
        assert [r["kind"] for r in row["reasons"]] == [i["reason"]["kind"] for i in slate["items"]]
        assert [dict(p) for p in row["probabilities"]] == [
            pytest.approx(i["probabilities"], abs=1e-5) for i in slate["items"]
        ]
    api.close()
    api._store.close()
