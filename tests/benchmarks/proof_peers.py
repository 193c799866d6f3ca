"""Rivals by their own code, each in an environment of its own, and their figures in one place.

    python tests/benchmarks/proof_peers.py peers=DIR [home=var] [data=../shared/data] [seeds=1]

DIR holds the environments `rectools` and `factorisation` (peers/README.md says how they are made); one that is not
there is left out, and the result says so. RecTools' SASRec on MovieLens-1M, leave-last-out, takes two hours on a core;
LightFM and implicit's iALS on its global time split half an hour. What is finished under home is not run again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record

HERE = Path(__file__).parent
JOBS = {
    "RecTools SASRec, ml-1m-leave-last-out": ("rectools", "rectools_quality.py", "model=sasrec", "rectools-sasrec"),
    "LightFM, ml-1m-global-time": ("factorisation", "factorisation_quality.py", "model=lightfm", "lightfm-global"),
    "iALS, ml-1m-global-time": ("factorisation", "factorisation_quality.py", "model=ials", "ials-global"),
}


def main(arguments: list[str]) -> int:
    """Run what is not finished, print and record; returns 1 where a rival failed."""
    given = dict(a.split("=", 1) for a in arguments)
    if "peers" not in given:
        raise SystemExit(
            "give peers=DIR, the folder of the rivals' environments; peers/README.md says how to make them"
        )
    data, out = given.get("data", "../shared/data"), Path(given.get("home", "var")) / "peers"
    started, figures, failed = machine(), {}, False
    for label, (environment, script, model, name) in JOBS.items():
        python = Path(given["peers"]) / environment / "bin" / "python"
        if not python.is_file():
            figures[label] = {"left_out": f"no environment {environment}"}
            continue
        for seed in given.get("seeds", "1").split(","):
            job = [str(HERE / "peers" / script), model, f"seed={seed}", f"data={data}", f"out={out}"]
            if subprocess.run([str(python), *job]).returncode:
                figures[f"{label}, seed {seed}"], failed = {"left_out": "failed"}, True
                continue
            figures[f"{label}, seed {seed}"] = _told(json.loads((out / f"{name}-seed{seed}.json").read_text()))
    for label, told in figures.items():
        print(f"{label}: {told.get('test', told)}")
    print(f"written to {record('peers', figures, started)}")
    return int(failed)


def _told(result: dict[str, Any]) -> dict[str, Any]:
    """Return what was reached and how, without the folders of this machine."""
    result["settings"] = {k: v for k, v in result["settings"].items() if k not in ("data", "out")}
    return {k: v for k, v in result.items() if k not in ("looks", "up_to_date")}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
