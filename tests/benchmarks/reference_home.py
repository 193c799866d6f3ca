"""The home behind the reference request: a simulated service of 100,000 items and all that Playbill trains on it.

    python tests/benchmarks/reference_home.py home=DIR [items=100000] [people=40000] [days=45] [hidden=224]
                                              [candidates=200] [index=auto]

Towers of width 64, a ranker whose network has about 200,000 parameters, and a creative head, each trained on the log of
that world; a bundle whose surface `slate` takes so many candidates from the index and 20 results, sealed by force: this
home is for timing; its events in the store. Each step is a job that says "up to date" when it was done before.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PLAYBILL = [sys.executable, "-m", "playbill.cli"]
TABLES = "reference"
CANDIDATES = 200
EVENTS = "features.history_events=[click,play,search_play,purchase,message_click,rate]"
RANKER = [
    "model=ranker",
    "model.impressions=false",
    "model.tables=fused",
    "model.max_epochs=1",
    "model.max_rows=60000",
]
_POLICY: dict[str, Any] = {
    "name": "reference",
    "surfaces": {
        "slate": {
            "weights": {"interact": 1.0, "like": 0.5},
            "exploration": {"epsilon": 0.1, "slots": 2},
            "creatives": {"kind": "thompson"},
        },
        "usual": {"weights": {"interact": 1.0, "like": 0.5}, "exploration": {"epsilon": 0.1, "slots": 2}},
    },
}


def main(arguments: list[str]) -> int:
    """Make the home where it is not there."""
    given = dict(a.split("=", 1) for a in arguments)
    home = Path(given.get("home", "var"))
    items, people, days = (int(given.get(k, d)) for k, d in (("items", 100_000), ("people", 40_000), ("days", 45)))
    at = [f"home={home}", f"tables={TABLES}"]
    size = [f"size.items={items}", f"size.people={people}", f"size.days={days}", "size.activity=6"]
    job("generate", f"home={home}", "size=small", *size, "size.decisions_share=0.1", "seed=1", f"name={TABLES}")
    towers = ["model.loss=in_batch", "model.tables=fused", "model.dim=64", "model.batch_tokens=4096"]
    job("train", *at, *towers, "model.max_epochs=2", EVENTS)
    job("train", *at, *RANKER, f"model.hidden={given.get('hidden', 224)}", EVENTS)
    job("train", *at, "model=creative", "model.max_epochs=1", EVENTS)
    policy = home / "reference_policy.json"
    _POLICY["surfaces"]["slate"]["quotas"] = {"tower": int(given.get("candidates", CANDIDATES))}
    policy.write_text(json.dumps(_POLICY))
    job("export", *at, f"policy_file={policy}", f"index.kind={given.get('index', 'auto')}", EVENTS)
    job("ingest", *at)
    return 0


def job(*command: str) -> str:
    """Run a job, its messages shown; return what it said.

    Raises:
        SystemExit: with the job's code, where it failed.
    """
    print(" ".join(["playbill", *command]), flush=True)
    done = subprocess.run([*PLAYBILL, *command], stderr=subprocess.PIPE, text=True)
    sys.stderr.write(done.stderr)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stderr


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
