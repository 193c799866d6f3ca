"""What a wider ranker, more candidates and another index buy: NDCG of the engine's lists beside what an answer takes.

    python tests/benchmarks/bench_choice.py home=DIR [widths=96,224,384] [candidates=50,100,200,400]
                                            [kinds=ivf_sq8,hnsw,flat] [people=1500] [k=20]

Needs the home of `reference_home.py`, of which the ranker is trained once for each width and each index exported once.
People of the test part are asked one at a time, as on the day that it begins; lists are held against what they then
took up. Everything that an answer has is on, but creatives, which change no list. Each row is compared with the
reference (200 candidates) of the widest ranker, person by person.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record
from reference_home import EVENTS, RANKER, TABLES, job

from playbill.bundle.open import Bundle, open_bundle
from playbill.dataset.dataset import Dataset, open_dataset
from playbill.dataset.settings import SplitSettings
from playbill.engine.engine import Engine
from playbill.features.settings import FeatureSettings
from playbill.measure.bootstrap import intervals
from playbill.measure.ranking import NO_ITEM, user_metrics
from playbill.release.protocol import Asked, ask
from playbill.release.roads import CPU, fill, request_of
from playbill.state.store import Store


def main(arguments: list[str]) -> int:
    """Train, export, measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    home, k = Path(given.get("home", "var")), int(given.get("k", "20"))
    widths = [int(w) for w in given.get("widths", "96,224,384").split(",")]
    counts = [int(c) for c in given.get("candidates", "50,100,200,400").split(",")]
    kinds = given.get("kinds", "ivf_sq8,hnsw,flat").split(",")
    started = machine()
    rows: list[dict[str, Any]] = []
    lists: dict[str, np.ndarray] = {}
    # the widest last, for the indexes beside the first are exported with it
    made = [(width, kinds[0], exported(home, width, kinds[0])) for width in sorted(widths)]
    made += [(max(widths), kind, exported(home, None, kind)) for kind in kinds[1:]]
    first = open_bundle(home / "bundles" / made[0][2], require_sealed=False, verify=False)
    dataset, asked = people(home, first, int(given.get("people", "1500")))
    with tempfile.TemporaryDirectory(prefix="playbill-choice-") as folder, Store.open(Path(folder) / "state") as store:
        fill(store, home / "tables" / TABLES, dataset, asked)
        for width, kind, version in made:
            bundle = open_bundle(home / "bundles" / version, require_sealed=False, verify=False)
            for count in counts if kind == kinds[0] else [200]:
                name = f"{width} wide, {count} candidates, {kind}"
                lists[name], took = answers(bundle, store, dataset, asked, count, k)
                found = user_metrics(lists[name], asked.targets, [k], dataset.spec.num_items)[f"ndcg_at_{k}"]
                rows.append({"width": width, "candidates": count, "index": kind, "ndcg": found, "took": took})
                print(name, round(float(found.mean()), 5), took, flush=True)
    against = next(r["ndcg"] for r in rows if (r["width"], r["candidates"]) == (max(widths), 200))
    columns = {f"{n}": row["ndcg"] for n, row in enumerate(rows)}
    found_at = intervals(columns | {f"less {n}": column - against for n, column in columns.items()})
    for n, row in enumerate(rows):
        for name, column in (("ndcg", f"{n}"), ("ndcg_less_reference", f"less {n}")):
            i = found_at[column]
            row[name] = [round(x, 5) for x in (i.value, i.low, i.high)]
        print(json.dumps(row), flush=True)
    figures = {"people": len(asked), "k": k, "items": dataset.spec.num_items, "rows": rows}
    print(f"written to {record('choice', figures, started)}")
    return 0


def exported(home: Path, width: int | None, kind: str) -> str:
    """Return the version of a bundle with an index of a kind, its ranker trained anew at a width where one is given."""
    at = [f"home={home}", f"tables={TABLES}"]
    if width is not None:
        job("train", *at, *RANKER, f"model.hidden={width}", EVENTS)
    before = {path.name for path in (home / "bundles").iterdir()}
    job("export", *at, f"policy_file={home / 'reference_policy.json'}", f"index.kind={kind}", EVENTS)
    new = [p for p in (home / "bundles").iterdir() if (p / "rungs.json").is_file() and p.name not in before]
    # what was exported before is found again by its content, and written last
    return max(new or (home / "bundles").iterdir(), key=lambda path: path.stat().st_mtime).name


def people(home: Path, bundle: Bundle, most: int) -> tuple[Dataset, Asked]:
    """Return the dataset of the home, and people of its test part, spread over all of them."""
    origin = bundle.manifest.origin
    dataset = open_dataset(
        home / "tables" / TABLES,
        msgspec.json.decode(origin["features"], type=FeatureSettings),
        msgspec.json.decode(origin["split"], type=SplitSettings),
    )
    asked = ask(dataset, "test")
    some = np.flatnonzero(asked.known)
    some = some[np.linspace(0, len(some) - 1, min(most, len(some))).astype(int)]
    few = replace(asked, rows=asked.rows[some], targets=asked.targets.take(some), known=asked.known[some])
    return dataset, few


def answers(
    bundle: Bundle, store: Store, dataset: Dataset, asked: Asked, count: int, k: int
) -> tuple[np.ndarray, dict[str, float]]:
    """Return the lists [U, k] of item_index from so many candidates, and milliseconds of an answer by stage."""
    slate = bundle.policy.surfaces["slate"]
    surface = msgspec.structs.replace(slate, quotas={"tower": count}, exploration=type(slate.exploration)(epsilon=0))
    policy = msgspec.structs.replace(bundle.policy, surfaces={**bundle.policy.surfaces, "slate": surface})
    engine = Engine.open(replace(bundle, policy=policy), store, CPU)
    lists = np.full((len(asked), k), NO_ITEM, np.int64)
    took: dict[str, list[float]] = {}
    for row in range(len(asked)):
        request = request_of(dataset, asked, row, k)
        began = time.perf_counter()
        [answer] = engine.recommend([request])
        took.setdefault("answer", []).append((time.perf_counter() - began) * 1e3)
        for stage in ("tower and index", "rank"):
            took.setdefault(stage, []).append(engine.stage_ms[stage])
        found = dataset.vocabularies["item"].indices([item.item_id for item in answer.items])
        lists[row, : len(found)] = found
    return lists, {f"{name}_ms_p50": round(float(np.median(times)), 3) for name, times in took.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
