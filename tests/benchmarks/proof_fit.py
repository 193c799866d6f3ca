"""The fitted world beside the real logs, and beside the presets that nobody fitted: distances over several seeds.

    python tests/benchmarks/proof_fit.py [home=var] [data=DIR] [seeds=3]

Runs `playbill fit` on the logs in `data` (default: the environment's PLAYBILL_SHARED_DATA, or ../shared/data), then
generates worlds of the fitted numbers, of the shipped preset `fitted` and of `easy` and `hard` from several seeds, and
measures how far each is from the logs. The distance of two random halves of a log from each other stands beside them:
below it, no world can be told from the log. Only fitted numbers and aggregates are stored.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from record import RESULTS, machine, record
from rich.console import Console
from rich.progress import track
from rich.table import Table

from playbill.cli import compose
from playbill.world.fitting.compare import compare
from playbill.world.fitting.estimate import Fit, estimate
from playbill.world.fitting.fit import run
from playbill.world.fitting.report import assumed, parameters_yaml
from playbill.world.fitting.worlds import presets, samples

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str]) -> int:
    """Fit, compare, print and record; return 1 where the fitted world is farther from a log than both presets."""
    given = dict(a.split("=", 1) for a in arguments)
    started = machine()
    home = Path(given.get("home", "var"))
    data = Path(given.get("data", os.environ.get("PLAYBILL_SHARED_DATA", ROOT.parent / "shared" / "data")))
    report = run(compose("fit", [f"home={home}", f"data={data}", "force=true"]))
    fit = estimate(data, 0)
    distances = over_seeds(fit, home, int(given.get("seeds", 3)))
    figures = {
        "logs": list(fit.found),
        "missing": fit.missing,
        "numbers": numbers(fit),
        "distances": distances,
        "nearer_than": nearer(distances),
        "shipped_preset_is_this_fit": shipped(fit),
        "assumed": assumed(fit),
    }
    show(figures)
    print(f"written to {record('world-fit', figures, started)}")
    if not fit.missing:
        (RESULTS / "world_fit.png").write_bytes((report / "fit.png").read_bytes())
    worst = [d for d in distances if d["fitted"] > max(d["easy"], d["hard"])]
    return 1 if worst else 0


def over_seeds(fit: Fit, home: Path, seeds: int) -> list[dict[str, Any]]:
    """Return each aggregate's mean distance over seeds, for the fitted numbers and the other presets."""
    worlds = {"fitted": fit.parameters} | presets()
    drawn: list[dict[str, dict[str, np.ndarray]]] = []
    for seed in track(range(1, seeds + 1), "worlds", console=Console(stderr=True)):
        drawn.append({name: samples(p, fit.found, home, seed) for name, p in worlds.items()})
    by_seed = [compare(fit.found, shown, seed=0) for shown in drawn]
    rows = []
    for same in zip(*by_seed, strict=True):
        first = same[0]
        row: dict[str, Any] = {
            "aggregate": first.name,
            "log": first.data,
            "distance": first.distance,
            "halves": round(first.floor, 4),
        }
        for world in worlds:
            row[world] = round(float(np.mean([c.worlds[world] for c in same])), 4)
        row["fitted_from_to"] = [round(float(f([c.worlds["fitted"] for c in same])), 4) for f in (min, max)]
        rows.append(row)
    return rows


def numbers(fit: Fit) -> list[dict[str, Any]]:
    """Return every estimate with the parameter that it sets, if any."""
    kept = ("parameter", "name", "value", "low", "high", "data", "n", "of", "method", "caution")
    return [{k: v for k, v in asdict(e).items() if k in kept} for log in fit.found.values() for e in log.estimates]


def nearer(distances: list[dict[str, Any]]) -> dict[str, str]:
    """Return for each other preset in how many aggregates the fitted world is nearer to the log."""
    return {
        world: f"{sum(d['fitted'] < d[world] for d in distances)} of {len(distances)}" for world in ("easy", "hard")
    } | {"twice the halves": f"{sum(d['fitted'] < 2 * d['halves'] for d in distances)} of {len(distances)}"}


def shipped(fit: Fit) -> bool:
    """Return whether conf/world/fitted.yaml is what this fit writes."""
    return (ROOT / "conf" / "world" / "fitted.yaml").read_text() == parameters_yaml(fit)


def show(figures: dict[str, Any]) -> None:
    """Print the table of distances and what it comes to."""
    table = Table("aggregate", "log", "distance", "halves", "fitted", "easy", "hard", title="distance to the real log")
    for d in figures["distances"]:
        cells = (f"{d[k]:.3f}" for k in ("halves", "fitted", "easy", "hard"))
        table.add_row(d["aggregate"], d["log"], d["distance"], *cells)
    Console(width=120).print(table)
    set_by_logs = sum(bool(n["parameter"]) for n in figures["numbers"])
    print(f"numbers from logs: {set_by_logs}, assumed: {len(figures['assumed'])}")
    for world, share in figures["nearer_than"].items():
        print(f"the fitted world is nearer than {world}: {share}")
    print(f"conf/world/fitted.yaml is what this fit writes: {figures['shipped_preset_is_this_fit']}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
