"""Without an id: how well and how fast known people, visitors and strangers are answered, on held-out time.

    python tests/benchmarks/proof_anonymous.py home=var tables=ml-100k [removed=0.75] [told=10] [k=20] [seed=0]

`home` holds a published bundle of these tables (`playbill demo home=var`). Everybody with an event in the test part is
asked for once, at its beginning. A share `removed` of those of whom something is known lose their id: one half of them
tells the last `told` events with the request (`recent`), as a page could that keeps a visit to itself, and the other
half tells nothing. The others are asked as they are. Each group's figures stand beside those of the same people with
their id, so that what an id is worth is a difference within people, with its interval.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record

from playbill.bundle.open import Bundle, open_bundle
from playbill.dataset.dataset import open_dataset
from playbill.dataset.settings import SplitSettings
from playbill.engine.engine import Engine
from playbill.engine.types import Recent, Request
from playbill.features.settings import FeatureSettings
from playbill.measure.bootstrap import intervals
from playbill.measure.ranking import NO_ITEM, user_metrics
from playbill.release.protocol import ask
from playbill.release.roads import CPU, fill, request_of
from playbill.serving.load import bundle_path
from playbill.state.store import Store

ROUNDS = 3  # of timing; the quickest counts


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    home, k, told = Path(given.get("home", "var")), int(given.get("k", "20")), int(given.get("told", "10"))
    rng, started = np.random.default_rng(int(given.get("seed", "0"))), machine()
    bundle = open_bundle(bundle_path(home, "current"))
    tables = home / "tables" / given.get("tables", "ml-100k")
    origin = bundle.manifest.origin
    dataset = open_dataset(
        tables,
        features=msgspec.json.decode(origin["features"], type=FeatureSettings),
        split=msgspec.json.decode(origin["split"], type=SplitSettings),
    )
    asked = ask(dataset, "test")
    known = rng.permutation(np.flatnonzero(asked.known))
    lost = known[: round(float(given.get("removed", "0.75")) * len(known))]
    groups = {
        "with an id": np.sort(known[len(lost) :]),
        f"no id, last {told} events told": np.sort(lost[: len(lost) // 2]),
        "no id, nothing told": np.sort(lost[len(lost) // 2 :]),
        "strangers": np.flatnonzero(~asked.known),
    }
    figures: dict[str, Any] = {"people": len(asked), "k": k}
    with tempfile.TemporaryDirectory(prefix="playbill-anonymous-") as folder, Store.open(Path(folder) / "s") as store:
        fill(store, tables, dataset, asked)
        engine = Engine.open(bundle, store, CPU)
        for name, rows in groups.items():
            usual = [request_of(dataset, asked, row, k) for row in rows.tolist()]
            mine = usual
            if name.startswith("no id"):
                mine = [
                    without_id(r, store, told if "told" in name and "nothing" not in name else 0, bundle) for r in usual
                ]
            figures[name] = compare(engine, dataset.vocabularies["item"], mine, usual, asked.targets.take(rows), k)
            print(name, json.dumps(figures[name]), flush=True)
    print(f"written to {record('anonymous', figures, started)}")
    return 0


def without_id(request: Request, store: Store, told: int, bundle: Bundle) -> Request:
    """Return the request of the same person without an id, and with the last events told, oldest first."""
    profile = store.profile(request.user_id) if request.user_id is not None else None
    read = {event.name for event in bundle.spec.events}
    past = [e for e in profile.history if e.event in read][-told:] if profile is not None and told else []
    at = int(request.at or 0)
    recent = [Recent(item_id=e.item_id, event=e.event, value=e.value, ago_s=(at - e.at) / 1e6) for e in past]
    return msgspec.structs.replace(request, user_id=None, session_id=None, recent=recent)


def compare(
    engine: Engine, items: Any, mine: list[Request], usual: list[Request], targets: Any, k: int
) -> dict[str, Any]:
    """Return the metrics of a group, of the same people with their ids, and the latency of one request at a time."""
    columns: dict[str, np.ndarray] = {}
    rungs: dict[str, int] = {}
    for name, requests in (("", mine), ("with_id_", usual)):
        lists = np.full((len(requests), k), NO_ITEM, np.int64)
        for row, slate in enumerate(engine.recommend(requests)):
            lists[row, : len(slate.items)] = items.indices([item.item_id for item in slate.items])
            if not name:
                rungs[slate.rung] = rungs.get(slate.rung, 0) + 1
        found = user_metrics(lists, targets, [k], len(items.values))
        columns |= {f"{name}{metric}": found[metric] for metric in (f"ndcg_at_{k}", f"recall_at_{k}")}
    metric = f"ndcg_at_{k}"
    columns[f"{metric}_less_with_id"] = columns[metric] - columns[f"with_id_{metric}"]
    told = intervals(columns, resamples=2000, seed=0, level=0.95)
    best = np.full(len(mine), np.inf)
    for _ in range(ROUNDS):
        for row, request in enumerate(mine):
            began = time.perf_counter()
            engine.recommend([request])
            best[row] = min(best[row], (time.perf_counter() - began) * 1e3)
    return {
        "people": len(mine),
        "rungs": rungs,
        **{name: [round(i.value, 4), round(i.low, 4), round(i.high, 4)] for name, i in told.items()},
        "p50_ms": round(float(np.percentile(best, 50)), 3),
        "p99_ms": round(float(np.percentile(best, 99)), 3),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
