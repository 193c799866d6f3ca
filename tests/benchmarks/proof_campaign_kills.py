"""kill -9 of a campaign's run, again and again: does it decide what it would have decided, for everybody, once?

    python tests/benchmarks/proof_campaign_kills.py home=DIR [tables=ml-100k] [kills=20] [seed=1] [shard_users=10]

One run is left alone. Another of the same name, in a home of its own with the same tables, state and bundle, is killed
at random moments: while Ray starts, while parts are written, its driver alone or every process of it at once; each time
it is begun again. After each kill every part that is there must be whole, and no run may call itself finished. At the
end rows and decisions of both are held against each other, value by value. A second run beside the first must be
refused.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import polars as pl
from record import machine, record

from playbill.campaign.brand import BrandRules
from playbill.campaign.copy_file import Copy, decide, propose, write_copy
from playbill.serving import processes

NAME = "killed"
BLOCKS = "campaign.blocks=[{name: picks, k: 4}, {name: more, k: 3, surface: trending, least: 0}]"


def main(arguments: list[str]) -> int:
    """Print and record the figures; raise AssertionError where anything differs."""
    given = dict(a.split("=", 1) for a in arguments)
    home, tables = Path(given["home"]).absolute(), given.get("tables", "ml-100k")
    kills, seed, size = (int(given.get(k, d)) for k, d in (("kills", 20), ("seed", 1), ("shard_users", 10)))
    began, scratch = machine(), Path(tempfile.mkdtemp())
    try:
        write_copy(scratch / "subjects.json", Copy(facts=[], rules=BrandRules()))
        assert propose(scratch / "subjects.json", ["Films for your week", "What to see now"], "proof") == []
        for name in ("v1", "v2"):
            decide(scratch / "subjects.json", name, "proof", True)
        calm, killed = (_home(scratch / name, home) for name in ("calm", "killed"))
        last = pl.scan_parquet(home / "tables" / tables / "events.parquet").select(pl.col("at").max()).collect().item()
        command = _command(scratch, tables, size, f"{last:%Y-%m-%dT%H:%MZ}")
        start = time.monotonic()
        undisturbed = subprocess.run([*command, f"home={calm}"], capture_output=True, text=True)
        took = time.monotonic() - start
        assert undisturbed.returncode == 0, undisturbed.stderr
        figures = _kill([*command, f"home={killed}"], killed / "campaigns" / NAME, kills, random.Random(seed), took)
        figures |= {
            "seconds_undisturbed": round(took, 1),
            **_same(calm, killed, tables),
            **_beside([*command, f"home={calm}"]),
        }
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for name, value in figures.items():
        print(f"{name:45} {value}")
    print(record("campaign_kills", {"tables": tables, "seed": seed, "shard_users": size, **figures}, began))
    return 0


def _home(path: Path, real: Path) -> Path:
    """Return a home of its own campaigns, whose tables, state and bundles are those of another."""
    path.mkdir()
    for name in ("tables", "state", "bundles"):
        (path / name).symlink_to(real / name)
    return path


def _command(scratch: Path, tables: str, size: int, at: str) -> list[str]:
    return [
        sys.executable, "-m", "playbill.cli", "campaign", "run", f"campaign.name={NAME}", BLOCKS, f"tables={tables}",
        f"campaign.subjects={scratch}/subjects.json", "campaign.caps=[]", "campaign.window.explore=0.5",
        "campaign.holdouts={everywhere: 0.02, campaign: 0.1}", f"at={at}", f"shard_users={size}", "workers=2",
    ]  # fmt: skip


def _kill(command: list[str], folder: Path, kills: int, dice: random.Random, took: float) -> dict[str, Any]:
    """Kill a run so often and let it end; return what was seen."""
    moments: Counter[str] = Counter()
    victims: Counter[str] = Counter()
    there = []
    for number in range(kills):
        before = len(_parts(folder))
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if dice.random() < 0.4:
            moments["at any time from its start"] += 1
            time.sleep(dice.uniform(0, 0.7 * took))
        else:
            moments["while parts are written"] += 1
            # so many that some are left for the kills to come
            wanted = before + dice.randint(0, max(1, (_planned(folder) - before) // (kills - number + 1)))
            while len(_parts(folder)) < max(1, wanted) and run.poll() is None:
                time.sleep(0.002)
            time.sleep(dice.uniform(0, 0.1))
        assert run.poll() is None, f"it ended before kill {number + 1}: {run.communicate()[1]}"
        owner, whole = folder / ".owner", dice.random() < 0.5
        victims["every process at once" if whole else "the driver"] += 1
        mine = processes.marked(owner.read_text()) if whole and owner.exists() else []
        for pid in [run.pid, *mine]:
            _send(pid)
        run.communicate()
        for part in _parts(folder):
            pl.read_parquet(part)  # whole, or it raises
        assert not (folder / "success.json").exists(), "a run that was killed calls itself finished"
        there.append(len(_parts(folder)))
    end = subprocess.run(command, capture_output=True, text=True)
    assert end.returncode == 0, end.stderr
    left = [p.name for p in folder.rglob("*") if p.name.endswith(".tmp") or p.name == ".owner"]
    assert not left, f"left behind: {left}"
    return {"kills": kills, "moments": dict(moments), "victims": dict(victims), "parts_after_each_kill": there}


def _send(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _planned(folder: Path) -> int:
    from playbill.serving.campaigns.folder import read_plan

    plan = read_plan(folder)
    return 0 if plan is None else plan.num_parts


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("rows/part-*.parquet"))


def _same(calm: Path, killed: Path, tables: str) -> dict[str, Any]:
    """Return how much both runs decided; raise AssertionError where they differ."""
    found: dict[str, Any] = {}
    for what in ("rows", "decisions"):
        one, other = (_parts_of(home, what) for home in (calm, killed))
        assert one.equals(other), f"{what} of the killed run differ from those of the undisturbed one"
        found[f"{what}_identical"] = len(one)
        found[f"columns_of_{what}"] = one.width
    rows = _parts_of(killed, "rows")
    known = pl.read_parquet(calm / "tables" / tables / "users.parquet")
    assert rows["send"].sum() > len(rows) / 4, "next to nobody is sent anything: there is little to compare"
    assert rows["user_id"].is_unique().all(), "somebody is there twice"
    assert set(rows["user_id"]) == set(known["user_id"]), "somebody is missing"
    assert _parts_of(killed, "decisions")["decision_id"].is_unique().all(), "a decision is there twice"
    found["sent"] = int(rows["send"].sum())
    return found | {"people_missing": 0, "people_twice": 0}


def _parts_of(home: Path, what: str) -> pl.DataFrame:
    return pl.read_parquet(home / "campaigns" / NAME / what / "part-*.parquet")


def _beside(command: list[str]) -> dict[str, Any]:
    """Return what became of two runs of one campaign at once."""
    again = [*command, "force=true"]
    both = [subprocess.Popen(again, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [run.communicate()[1] for run in both]
    codes = sorted(run.returncode for run in both)
    assert codes == [0, 1] and sum("is being decided" in text for text in said) == 1, said
    return {"of_two_at_once": "one ended, one was refused"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
