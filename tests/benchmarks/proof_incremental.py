"""Going on from a bundle with what is new, against training again from nothing: quality and time.

    python tests/benchmarks/proof_incremental.py home=var [data=DIR] [tables=ml-1m] [epochs=2] [seeds=1,2,3]

The log is cut where its first 70 % end. A model is trained on what came before and exported; then come the next 10 % of
events, with items nobody had. Warm: the bundle's weights, `epochs` passes over the new events. Full: everything again.
Both are asked about the last 10 % (validation takes the 10 % between), beside the old weights with nothing learned
since. One tower each, exported, searched exactly.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from record import machine, record

from playbill.bundle.open import open_bundle
from playbill.dataset.dataset import open_dataset
from playbill.features.settings import FeatureSettings
from playbill.measure.bootstrap import compare
from playbill.measure.ranking import user_metrics
from playbill.release.protocol import ask
from playbill.release.roads import tower_road
from playbill.release.settings import EvaluateSettings
from playbill.tables.folder import read_folder, read_table, write_folder
from playbill.training.runs import read_record

BEFORE, KNOWN = 0.7, 0.8  # shares of the events


def playbill(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "playbill.cli", *arguments], check=True)


def main(arguments: list[str]) -> None:
    given = dict(a.split("=", 1) for a in arguments)
    home, tables = Path(given.get("home", "var")), given.get("tables", "ml-1m")
    data = given.get("data") or os.environ.get("PLAYBILL_SHARED_DATA", "")
    seeds = [int(s) for s in given.get("seeds", "1,2,3").split(",")]
    if not (home / "tables" / tables).is_dir():
        folder = [f"source.folder={Path(data) / tables}"] if data else []
        playbill("prepare", f"source={tables}", f"home={home}", *folder)
    own = home / "incremental" / tables
    early, since = cut(home / "tables" / tables, own / "tables")
    split = [f"split.train={KNOWN}", "split.valid=0.1"]
    rows: dict[str, list[dict[str, float]]] = {"old": [], "warm": [], "full": []}
    gaps = []
    for seed in seeds:
        common = [f"home={own}", f"seed={seed}", "threads=2"]
        playbill("train", *common, f"tables={early}", f"run=early-{seed}", "split.train=0.9", "split.valid=0.1")
        version = export(own, early, f"early-{seed}")
        kinds = {
            "old": [f"warm_start={version}", f"since={since}", "model.max_epochs=1", "model.learning_rate=1e-12"],
            "warm": [f"warm_start={version}", f"since={since}", f"model.max_epochs={given.get('epochs', '2')}"],
            "full": [],
        }
        lists = {}
        for kind, more in kinds.items():
            run = f"{kind}-{seed}"
            begun = time.perf_counter()
            playbill("train", *common, "tables=now", f"run={run}", *split, *more)
            seconds = time.perf_counter() - begun
            done = read_record(own / "runs" / run)
            assert done is not None
            lists[kind], targets, items = asked(own, run)
            metrics = user_metrics(lists[kind], targets, [20], items)
            found = {m: float(v.mean()) for m, v in metrics.items()}
            rows[kind].append(found | {"training_seconds": done.seconds, "whole_seconds": round(seconds, 1)})
        ours, theirs = (user_metrics(lists[k], targets, [20], items) for k in ("warm", "full"))
        gaps.append({m: compare(ours, theirs)[m] for m in ("ndcg_at_20", "recall_at_20")})
    for kind, found in rows.items():
        mean = {name: float(np.mean([f[name] for f in found])) for name in found[0]}
        print(kind, {n: round(v, 4) for n, v in mean.items() if n.endswith(("_20", "seconds"))})
    for seed, gap in zip(seeds, gaps, strict=True):
        ndcg = gap["ndcg_at_20"]
        print(f"seed {seed}: warm less full ndcg@20 {ndcg.value:+.4f} [{ndcg.low:+.4f} {ndcg.high:+.4f}]")
    figures = {
        "tables": tables,
        "since": since,
        "models": rows,
        "warm_less_full": [{m: [g[m].value, g[m].low, g[m].high] for m in g} for g in gaps],
    }
    record(f"incremental-{tables}", figures, machine())


def cut(source: Path, into: Path) -> tuple[str, str]:
    """Write the early tables and those of now; return the early ones' name and the moment between them."""
    folder, events = read_folder(source), read_table(source, "events")
    at = np.sort(np.asarray(events["at"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())))
    moment = int(at[int(len(at) * BEFORE)])
    before = pc.less(events["at"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()), moment)
    known = read_table(source, "items")
    there = pc.is_in(known["item_id"], value_set=pc.unique(events.filter(before)["item_id"]))
    for name, items, kept in (("early", known.filter(there), events.filter(before)), ("now", known, events)):
        if not (into / name / "tables.json").is_file():
            tables = {"items": items, "events": kept} | (
                {"users": read_table(source, "users")} if "users" in folder.rows else {}
            )
            write_folder(into / name, tables, source=name, columns=folder.columns, events=folder.events)
            (into / name / "report").mkdir(exist_ok=True)
            for report in (source / "report").iterdir():
                (into / name / "report" / report.name).write_bytes(report.read_bytes())
    return "early", str(np.datetime64(moment, "us"))


def export(home: Path, tables: str, run: str) -> str:
    """Export one run and return the bundle's version."""
    there = {p.name for p in (home / "bundles").glob("*")} if (home / "bundles").is_dir() else set()
    playbill("export", f"home={home}", f"tables={tables}", f"run={run}")
    made = [p for p in (home / "bundles").iterdir() if p.is_dir() and not p.name.startswith(".")]
    fresh = [p.name for p in made if p.name not in there]
    return fresh[0] if fresh else max(made, key=lambda p: p.stat().st_mtime).name


def asked(home: Path, run: str) -> tuple[np.ndarray, object, int]:
    """Return (lists, targets, items) of a run's exported towers on the last part."""
    bundle = open_bundle(home / "bundles" / export(home, "now", run), require_sealed=False)
    split = EvaluateSettings().split
    split.train, split.valid = KNOWN, 0.1
    dataset = open_dataset(home / "tables" / "now", FeatureSettings(), split)
    people = ask(dataset, "test")
    return tower_road(bundle, dataset, people, 20).lists, people.targets, dataset.spec.num_items


if __name__ == "__main__":
    main(sys.argv[1:])
