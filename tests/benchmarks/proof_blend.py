"""Blends on real people: which form, how deep, what the engine pays, and what a boosted tree would make of the same.

    python tests/benchmarks/proof_blend.py home=var tables=ml-100k split.kind=leave_last_out [depths=50,100,200,500]
        [tree=1] [engine=1] [any setting of `playbill blend`]

Members are scored once, over the whole catalogue; each depth is what the engine would gather. `whole` is every item
that a member can score: the difference to it is what quotas cost. The tree is lightgbm's lambdarank on the formula's
features, fitted on the same people and judged on the same others: what a stronger form could reach. The last part asks
the engine on the bundle with and without its blend, one request at a time.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record

from playbill.blend.formula import candidates, order
from playbill.blend.judge import judge, top
from playbill.blend.lists import Lists
from playbill.blend.model import FILE, Blend, write_blend
from playbill.bundle.open import open_bundle
from playbill.cli import compose
from playbill.engine.engine import Engine
from playbill.engine.settings import EngineSettings, Provider
from playbill.engine.types import Request
from playbill.measure.bootstrap import compare
from playbill.measure.ranking import user_metrics
from playbill.release.blending import FOLD, judging, members_of, open_inputs, tested
from playbill.release.members import Part, part_of
from playbill.release.roads import fill
from playbill.state.store import Store
from playbill.tables.files import atomic_folder

OWN = ("depths", "tree", "engine")


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    own = dict(a.split("=", 1) for a in arguments if a.split("=", 1)[0] in OWN)
    settings = compose("blend", [a for a in arguments if a.split("=", 1)[0] not in OWN])
    started = machine()
    depths = [int(d) for d in own.get("depths", "50,100,200,500").split(",")]
    dataset, bundle = open_inputs(settings)
    items = dataset.spec.num_items
    settings.depth = items
    parts = {name: part_of(dataset, name) for name in (FOLD, "test")}
    folder = Path(settings.home) / "blends" / f"{settings.name}-proof"
    began = time.perf_counter()
    lists, members, _, notes = members_of(settings, dataset, bundle, parts, folder, quiet)
    figures: dict[str, Any] = {
        "tables": settings.tables,
        "split": settings.split.kind.value,
        "people": {name: len(part.who) for name, part in parts.items()},
        "members": {m.name: m.about for m in members},
        "notes": notes,
        "scoring_s": round(time.perf_counter() - began, 1),
        "depths": {},
    }
    chosen: Blend | None = None
    for depth in [*[d for d in depths if d < items], items]:
        settings.depth = depth
        began = time.perf_counter()
        blend, judged = judge(settings.name, lists[FOLD], parts[FOLD].targets, items, judging(settings), quiet)
        after = tested(blend, judged, lists["test"], parts["test"], items, settings)
        union = candidates([m.first(depth) for m in lists[FOLD].values()], ["listed"], items)
        row: dict[str, Any] = {
            "candidates_mean": round(float(np.diff(union.indptr).mean()), 1),
            "proposed": round(judged.proposed, 4),
            "chosen": judged.chosen,
            "forms": {f.name: _figures(f, settings.metric) for f in [*judged.members, *judged.forms]},
            "test": {f.name: _figures(f, settings.metric) for f in after},
            "fit_and_judge_s": round(time.perf_counter() - began, 1),
        }
        figures["depths"][str(depth) if depth < items else "whole"] = row
        print(f"depth {depth}: {row['chosen']}, {row['candidates_mean']} candidates, {row['proposed']:.1%} of targets")
        for name, found in [*row["forms"].items(), *(("test " + n, f) for n, f in row["test"].items())]:
            print(f"    {name:28} {found}")
        chosen = blend if depth == 200 or chosen is None else chosen
    if own.get("tree", "1") == "1":
        figures["tree"] = tree(lists, parts, items, settings)
        print("lambdarank", figures["tree"])
    if own.get("engine", "1") == "1" and bundle is not None and chosen is not None:
        figures["engine"] = engine(bundle, dataset, parts["test"], settings, chosen)
        print("engine", figures["engine"])
    print(f"written to {record('blend-' + settings.tables, figures, started)}")
    return 0


def tree(lists: dict[str, dict[str, Lists]], parts: dict[str, Part], items: int, settings: Any) -> dict[str, Any]:
    """Return what lambdarank reaches on held-out people of the fold and on the test part, less the best member."""
    import lightgbm

    features = ["standard", "share", "rank", "listed"]
    found = {n: candidates([m.first(200) for m in lists[n].values()], features, items) for n in parts}
    options = {
        "objective": "lambdarank", "learning_rate": 0.05, "num_leaves": 15, "min_data_in_leaf": 200, "lambda_l2": 10.0,
        "feature_fraction": 0.7, "num_threads": 1, "verbose": -1, "lambdarank_truncation_level": 20, "seed": 0,
    }  # fmt: skip
    targets, width = parts[FOLD].targets, items + 1
    wanted = np.repeat(np.arange(len(targets)), targets.counts()) * width + targets.item
    hit = np.isin(found[FOLD].query * width + found[FOLD].item, wanted)
    some = hit | (np.random.default_rng(0).random(len(hit)) < 0.3)
    learns = np.bincount(found[FOLD].query[hit], minlength=len(targets)) > 0

    def fit(people: np.ndarray) -> Any:
        rows = some & (people & learns)[found[FOLD].query]
        group = np.bincount(found[FOLD].query[rows], minlength=len(targets))
        data = lightgbm.Dataset(found[FOLD].columns[rows], hit[rows].astype(int), group=group[group > 0])
        return lightgbm.train(options, data, 150)

    fold = np.random.default_rng(settings.seed).permutation(len(targets)) % settings.folds
    score = np.empty(len(hit))
    for number in range(settings.folds):
        mine = fold[found[FOLD].query] == number
        score[mine] = fit(fold != number).predict(found[FOLD].columns[mine], num_threads=1)
    after = fit(np.ones(len(targets), bool)).predict(found["test"].columns, num_threads=1)
    result = {}
    for name, given in ((FOLD, score), ("test", after)):
        k = max(settings.ks)
        ours = user_metrics(top(order(found[name], given), k), parts[name].targets, settings.ks, items)
        alone = {m: user_metrics(top(ls, k), parts[name].targets, settings.ks, items) for m, ls in lists[name].items()}
        best = max(alone, key=lambda m: float(alone[m][settings.metric].mean()))
        gain = compare({settings.metric: ours[settings.metric]}, alone[best])[settings.metric]
        result[name] = {
            settings.metric: round(float(ours[settings.metric].mean()), 4),
            f"less_{best}": [round(gain.value, 4), round(gain.low, 4), round(gain.high, 4)],
        }
    return result


def engine(bundle: Any, dataset: Any, part: Part, settings: Any, blend: Blend) -> dict[str, Any]:
    """Return milliseconds of single requests with and without the blend, on the rung that it orders."""
    import shutil

    able = [m for m in blend.members if m == "tower" or m in ("trending", "popularity") or bundle.retriever_file(m)]
    served = blend if len(able) == len(blend.members) else None
    tables = Path(settings.home) / "tables" / settings.tables
    found: dict[str, Any] = {"members_served": able}
    with tempfile.TemporaryDirectory() as place, Store.open(Path(place) / "state") as store:
        fill(store, tables, dataset, part.asked)
        people = part.asked.person[part.rows][:400].tolist()
        requests = [
            Request(user_id=dataset.people.user_ids[p], request_id=str(i), k=20, at=int(part.asked.now[0]))
            for i, p in enumerate(people)
        ]
        for name in ("without", "with"):
            with atomic_folder(Path(place) / name / bundle.version) as folder:
                shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
                if name == "with" and served is not None:
                    (folder / FILE).write_bytes(write_blend(served))
            opened = open_bundle(Path(place) / name / bundle.version, require_sealed=False, verify=False)
            (opened.path / "ranker.onnx").unlink(missing_ok=True)  # lost since: the rung that a blend orders answers
            asked = Engine.open(opened, store, EngineSettings(provider=Provider.cpu))
            for request in requests[:50]:
                asked.recommend([request])
            took = []
            for request in requests:
                began = time.perf_counter()
                asked.recommend([request])
                took.append((time.perf_counter() - began) * 1e3)
            found[f"{name}_blend_ms"] = {
                "p50": round(float(np.quantile(took, 0.5)), 3),
                "p99": round(float(np.quantile(took, 0.99)), 3),
            }
            if name == "with" and served is None:
                found["with_blend_ms"] = "not measured: the bundle lacks a member of the blend"
    return found


def quiet(what: str, done: int, total: int) -> None:
    """Progress that nobody reads."""


def _figures(form: Any, metric: str) -> dict[str, Any]:
    k = int(metric.rpartition("_at_")[2])
    gain = form.less_best[metric]
    return {
        f"hit_rate_at_{k}": round(form.metrics[f"hit_rate_at_{k}"].value, 4),
        metric: round(form.metrics[metric].value, 4),
        "less_best": [round(gain.value, 4), round(gain.low, 4), round(gain.high, 4)],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
