"""Whether reasons are true: does removing what is named move a score more than removing something else?

    python tests/benchmarks/proof_reasons.py home=var [tables=ml-100k] [people=150] [k=10] [seed=0] [tries=0,5]
                                            [bundle=current]

`home` holds a published bundle of these tables with towers and a ranker (`playbill demo home=var`); `bundle` is another
than that, sealed or not. People's histories are cut at a moment drawn at random. Each is asked for a slate by the real
engine; then again without each item of the history that scores read, one at a time. A case is an item that names one of
the history; what counts is the share of the others whose removal moves its score less, which is what a comparison with
one drawn at random comes to. Intervals are over people. EASE (up to its limit of items), iALS and a blend are added to
a copy of the bundle, fitted on the same tables; the blend's weights are such as fits give, some members speaking
against. `tries` are those of the policy (`ReasonPolicy`); 0 names what is near.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from reasons_moved import Moved, cut, declared, measure
from record import machine, record

from playbill.baselines.ease import MAX_ITEMS, ease_neighbours, fit_ease
from playbill.baselines.ials import fit_ials, write_ials
from playbill.baselines.neighbours import LENGTH, write_neighbours
from playbill.blend.model import Blend, write_blend
from playbill.bundle.open import Bundle, open_bundle
from playbill.bundle.pages import Form
from playbill.bundle.policy import Policy, ReasonPolicy, Surface
from playbill.bundle.rungs import RETRIEVER_FILES
from playbill.bundle.write import describe
from playbill.dataset.dataset import Dataset, open_dataset
from playbill.dataset.settings import SplitSettings
from playbill.engine.engine import Engine
from playbill.engine.types import Request, Slate
from playbill.features.fold import Past
from playbill.features.settings import FeatureSettings
from playbill.measure.bootstrap import intervals
from playbill.release.roads import CPU
from playbill.serving.load import bundle_path
from playbill.state.events import Declared
from playbill.state.store import Store
from playbill.state.wishes import Lean, Preference, Wish
from playbill.tables.folder import read_folder, read_table

AIM = 0.9
WEIGHTS = {
    "tower": {"standard": 0.4, "share": 0.2, "rank": 0.3, "listed": 0.1},
    "transitions": {"standard": 0.3, "share": 0.5, "rank": 0.1, "listed": 0.2},
    "item_knn": {"standard": 0.2, "share": 0.1, "rank": 0.2},
    "popularity": {"standard": -0.3, "rank": -0.1, "listed": 0.3},
    "trending": {"standard": 0.2, "rank": 0.05},
}
ALONE = ("ease", "ials", "item_knn", "transitions")


def main(arguments: list[str]) -> int:
    """Measure, print and record; 1 where a kind of reason misses the aim with the usual tries."""
    given = dict(a.split("=", 1) for a in arguments)
    home, k = Path(given.get("home", "var")), int(given.get("k", "10"))
    rng, started = np.random.default_rng(int(given.get("seed", "0"))), machine()
    tables = home / "tables" / given.get("tables", "ml-100k")
    named = given.get("bundle", "current")
    path = bundle_path(home, named)
    bundle = open_bundle(path, require_sealed=named == "current")
    origin = bundle.manifest.origin
    dataset = open_dataset(
        tables,
        features=msgspec.json.decode(origin["features"], type=FeatureSettings),
        split=msgspec.json.decode(origin["split"], type=SplitSettings),
    )
    everybody = histories(tables)
    order = rng.permutation(len(everybody))
    pasts = list(cut([everybody[i] for i in order], rng, least=5))[: int(given.get("people", "150"))]
    figures: dict[str, Any] = {"bundle": bundle.version, "people": len(pasts), "k": k, "aim": AIM}
    usual = ReasonPolicy().tries
    with tempfile.TemporaryDirectory(prefix="playbill-reasons-") as folder:
        rich = enriched(path, bundle, dataset, Path(folder) / path.name)
        for tries in sorted({usual, *map(int, given.get("tries", "0").split(","))}):
            for name, engine, listed in roads(rich, tries):
                found = measure(engine, pasts, k, min(LENGTH, bundle.spec.history_length), listed)
                figures[f"{name}, {tries} tries"] = told(found)
                print(f"{name}, {tries} tries", json.dumps(figures[f"{name}, {tries} tries"]), flush=True)
        figures["declared"] = told(asked_for(rich, tables, pasts, k, Path(folder) / "state"))
        print("declared", json.dumps(figures["declared"]), flush=True)
    mine = {name: row["beats"][0] for name, row in figures.items()
            if name == "declared" or name.endswith(f", {usual} tries")}  # fmt: skip
    figures["worst"] = min(mine.items(), key=lambda row: row[1])
    print(f"worst: {figures['worst']}; written to {record('reasons', figures, started)}")
    return int(figures["worst"][1] < AIM)


def histories(tables: Path) -> list[list[Past]]:
    """Return the events of each person with an item, oldest first."""
    columns = ["event_id", "user_id", "item_id", "event", "at", "value"]
    rows = read_table(tables, "events")
    rows = rows.select([c for c in columns if c in rows.column_names]).to_pylist()
    people: dict[Any, list[Past]] = {}
    for row in rows:
        if row["user_id"] is not None and row["item_id"] is not None:
            at = round(row["at"].timestamp() * 1e6)
            past = Past(row["event_id"], row["item_id"], row["event"], at, row.get("value"))
            people.setdefault(row["user_id"], []).append(past)
    return [sorted(past, key=lambda event: event.at) for _, past in sorted(people.items())]


def enriched(path: Path, bundle: Bundle, dataset: Dataset, copy: Path) -> Bundle:
    """Return a copy of a bundle with EASE, iALS and a blend beside what it carries."""
    shutil.copytree(path, copy)
    train = np.flatnonzero(dataset.split.part == 0)
    person, item, n = dataset.pool.person[train], dataset.pool.item[train], bundle.spec.num_items
    retrievers = RETRIEVER_FILES | {"ials": "ials.npz"}
    if len(np.unique(item)) <= MAX_ITEMS:
        write_neighbours(copy / "ease.npz", ease_neighbours(fit_ease(person, item, n, l2=500), most=300, length=LENGTH))
        retrievers |= {"ease": "ease.npz"}
    write_ials(copy / "ials.npz", fit_ials(person, item, n, factors=64, alpha=1.0, l2=0.003, rounds=8), LENGTH)
    features = ["standard", "share", "rank", "listed"]
    blend = Blend(name="proof", members=list(WEIGHTS), depth=120, features=features, weights=WEIGHTS)
    (copy / "blend.json").write_bytes(write_blend(blend))
    (copy / "manifest.json").unlink()
    describe(copy, msgspec.structs.replace(bundle.manifest, retrievers=retrievers))
    return open_bundle(copy, require_sealed=False, verify=False)


def roads(bundle: Bundle, tries: int) -> list[tuple[str, Engine, bool]]:
    """Return an engine for each way in which a slate may be scored, and whether a list in order is scored alike."""

    def engine(rung: str, blend: bool = False, surface: Surface | None = None) -> Engine:
        slate = surface or Surface()
        surfaces = {"slate": slate, "rerank": msgspec.structs.replace(slate, form=Form.RERANK)}
        policy = Policy(surfaces=surfaces, fallbacks=[rung, "popularity"], reasons=ReasonPolicy(tries=tries))
        made = Engine.open(dataclasses.replace(bundle, policy=policy), None, CPU)
        if not blend:
            made.parts.blend = None
        return made

    found = [
        ("ranker", engine("full"), True),
        ("tower", engine("retrieval"), True),
        ("item-kNNs", engine("item_knn"), True),
        ("blend", engine("retrieval", blend=True), False),
    ]
    for name in (
        n for n in ALONE if n != "ease" or n in bundle.manifest.retrievers
    ):  # by a surface that weighs nothing else
        found.append((name, engine("full", surface=Surface(weights={name: 1.0}, quotas={name: 50})), True))
    return found


def asked_for(bundle: Bundle, tables: Path, pasts: list[Any], k: int, place: Path) -> Moved:
    """Return how a declared preference compares with the items of the histories, where the ranker orders."""
    spec = bundle.spec
    categories = sorted({name for names in bundle.items["categories"].to_list() for name in names or ()})
    with Store.open(place) as store:
        store.declare(
            Declared(events=read_folder(tables).events, user_id_type=spec.user_id_type, item_id_type=spec.item_id_type)
        )
        engine = Engine.open(dataclasses.replace(bundle, policy=Policy()), store, CPU)
        for n, name in enumerate(categories):
            store.tell(Wish(session_id=f"asks-{n}", preferences=[Preference(kind=Lean.MORE, categories=[name])]))
        turn = 0

        def ask(request: Request) -> tuple[Slate, Slate]:
            nonlocal turn
            if request.surface == "slate":
                turn = (turn + 1) % len(categories)
            both = [msgspec.structs.replace(request, session_id=who) for who in (f"asks-{turn}", "silent")]
            with_wish, without = engine.recommend(both)
            return with_wish, without

        return declared(pasts, ask, k, min(LENGTH, spec.history_length))


def told(found: Moved) -> dict[str, Any]:
    """Return the figures of one way, with intervals over people."""
    if not found.person:
        return {"cases": 0, "beats": [0.0, 0.0, 0.0], "said": dict(found.said)}
    people, place = np.unique(found.person, return_inverse=True)
    counts = np.bincount(place)
    columns = {
        "beats": np.bincount(place, found.beats) / counts,
        "falls": np.bincount(place, np.asarray(found.falls, float)) / counts,
    }
    each = intervals(columns, resamples=2000, seed=0, level=0.95)
    retrievers = sorted(set(found.retriever))
    mine = {r: [b for b, name in zip(found.beats, found.retriever, strict=True) if name == r] for r in retrievers}
    return {
        "cases": len(found.beats),
        "people": len(people),
        **{name: [round(i.value, 4), round(i.low, 4), round(i.high, 4)] for name, i in each.items()},
        "by_retriever": {name: [round(float(np.mean(b)), 4), len(b)] for name, b in mine.items()},
        "said": dict(found.said),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
