"""Who serves people best in a world whose truth is known, and does a loop of retraining narrow what they are shown?

    python tests/benchmarks/proof_rehearsal.py home=var

Worlds fitted and hard, small: an engine trained anew before every round, two baselines and a draw, beside those that
always serve; five rounds. Then twenty rounds of three days, everything refitted at each, watched by the alarm for
shrinking catalogues. About fifteen minutes; a run that was stopped goes on after its last whole round.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from record import RESULTS, machine, record

from playbill.cli import compose
from playbill.rehearsal.rehearse import run
from playbill.rehearsal.report import Rehearsal, to_png

RUNS = {
    "fitted": ["world=fitted", "policy=engine+item_knn+ease+uniform", "retrain=true", "rounds=5"],
    "hard": ["world=hard", "policy=engine+item_knn+ease+uniform", "retrain=true", "rounds=5"],
    "twenty": [
        *("world=hard", "policy=engine+item_knn+trending+uniform", "retrain=true", "rounds=20"),
        *("round_days=3", "models=[]", "name=hard-small-twenty"),
    ],
}


def figures(rehearsal: Rehearsal) -> dict[str, Any]:
    """Return per policy the course over the rounds, and what the alarm says."""
    found: dict[str, Any] = {}
    for policy in dict.fromkeys(r.policy for r in rehearsal.rounds):
        mine = [r for r in rehearsal.rounds if r.policy == policy]
        found[policy] = {
            "utility_a_visit": [[round(v, 4) for v in (r.utility.value, r.utility.low, r.utility.high)] for r in mine],
            "regret_a_visit": [[round(v, 4) for v in (r.regret.value, r.regret.low, r.regret.high)] for r in mine],
            "missed_a_visit": [round(r.missed.value, 4) for r in mine],
            "coverage": [round(r.coverage, 4) for r in mine],
            "diversity": [round(r.diversity, 4) for r in mine],
            "gini": [round(r.gini, 4) for r in mine],
            "clicks_a_visit": [round(r.clicks, 4) for r in mine],
            "visits": [r.visits for r in mine],
            "alarm": rehearsal.alarms.get(policy, ""),
        }
    return found


def main(arguments: list[str]) -> None:
    home = next((a.partition("=")[2] for a in arguments if a.startswith("home=")), "var")
    started = machine()
    found = {}
    for name, overrides in RUNS.items():
        print(f"== {name}: playbill rehearse {' '.join(overrides)}", flush=True)
        rehearsal = run(compose("rehearse", [*overrides, "size=small", f"home={home}"]))
        found[name] = {"command": f"playbill rehearse size=small {' '.join(overrides)}", "policies": figures(rehearsal)}
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"rehearsal_{name}.png").write_bytes(to_png(rehearsal))
    print(record("rehearsal", found, started))


if __name__ == "__main__":
    main(sys.argv[1:])
