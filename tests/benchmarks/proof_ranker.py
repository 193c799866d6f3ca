"""What the ranker learns in a simulated service whose truth is known: from completions, from stars, or not at all.

    python tests/benchmarks/proof_ranker.py [home=var] [world=fitted] [size=small] [people=1000] [epochs=5]
        [size.days=60 ...] [model.batch_size=128 ...]    further words for `generate`, and for `train model=ranker`

One log, its slates chosen by a softmax policy. The towers; the ranker on clicks and completions; the same ranker on
clicks and stars of four or more; and the ranker on completions without its position tower. Each orders the towers' 200
nearest items for people with an account on the log's last day, and its first places are valued by the truth: clicks
times mean completion, positions as they are looked at. Differences are paired over people.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record

from playbill.cli import compose, main
from playbill.dataset.dataset import Dataset, open_dataset, query_arrays
from playbill.measure.bootstrap import compare, intervals
from playbill.training.ranking.plain import PlainRanker
from playbill.training.ranking.plain import load_plain as load_ranker
from playbill.training.retrieval.data import item_arrays
from playbill.training.retrieval.plain import load_plain as load_towers
from playbill.training.runs import read_run
from playbill.world.build import World, build
from playbill.world.oracle import best_creative, oracle_slate
from playbill.world.respond import utility

CLICK = "{name: click, events: [click]}"
RANKERS = {
    "completion": (f"[{CLICK}, {{name: finish, parent: click, events: [play], threshold: 0.6}}]", "p_finish", []),
    "stars": (f"[{CLICK}, {{name: like, parent: click, events: [rate], threshold: 4.0}}]", "p_like", []),
    "no_position": (
        f"[{CLICK}, {{name: finish, parent: click, events: [play], threshold: 0.6}}]",
        "p_finish",
        ["model.position_tower=false"],
    ),
}
CANDIDATES, PEOPLE_AT_ONCE = 200, 64
FEATURES = "features.context=[hour,weekday,device]"


def slates(
    dataset: Dataset, person: np.ndarray, run: Path, ranker: PlainRanker | None, output: str, k: int
) -> np.ndarray:
    """Return [n, k] item_index: the towers' candidates, in a ranker's order or in their own."""
    query_tower, item_tower = load_towers([run], dataset.item_arrays)
    whole = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in item_arrays(dataset, None).items()}
    pool, found = dataset.pool, []
    now = int(pool.at.max()) + 1
    with torch.no_grad():
        vectors = item_tower(whole)
        for low in range(0, len(person), PEOPLE_AT_ONCE):
            some = person[low : low + PEOPLE_AT_ONCE]
            start, end = pool.offsets[some], pool.offsets[some + 1]
            arrays = query_arrays(dataset, some, start, end, np.full(len(some), now))
            queries = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
            score, top = torch.topk(query_tower(queries) @ vectors.t(), min(CANDIDATES, len(vectors)), dim=1)
            order = torch.arange(k).expand(len(some), k)
            if ranker is not None:
                items = item_arrays(dataset, top.flatten().numpy() + 1)
                given = queries | {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in items.items()}
                given["cand_user"] = torch.arange(len(some)).repeat_interleave(top.shape[1])
                given["retrieval_score"] = score.flatten()
                answers = dict(zip(ranker.outputs, ranker(given), strict=True))
                order = torch.topk(answers[output].view(len(some), -1), k, dim=1).indices
            found.append(torch.gather(top, 1, order).numpy() + 1)
    return np.concatenate(found)


def value(world: World, person: np.ndarray, item: np.ndarray, day: int) -> np.ndarray:
    """Return [n] the expected true utility of each person's slate [n, k] of rows of items, best creatives."""
    creative = best_creative(world, person[:, None], item, day)
    places = np.arange(item.shape[1])
    each: np.ndarray = utility(world, person[:, None], item, creative, places, np.full(1, 20), np.zeros(1, int), day)
    return each.sum(1).astype(np.float64)


def run(arguments: list[str]) -> None:
    """Generate, train, value, print and record."""
    of_log = [a for a in arguments if a.startswith("size.")]
    of_ranker = [a for a in arguments if a.startswith("model.")]
    given = dict(a.split("=", 1) for a in arguments)
    home, started = given.get("home", "var"), machine()
    world_name, size = given.get("world", "fitted"), given.get("size", "small")
    name = f"ranker-{world_name}-{size}"
    generated = [f"world={world_name}", f"size={size}", f"home={home}", f"name={name}", *of_log]
    settings = compose("generate", generated)
    world = build(settings.world, settings.size, settings.seed)
    common = [f"home={home}", f"tables={name}", "split.train=0.9", "split.valid=0.05", FEATURES]
    if main(["generate", *generated]) or main(["train", *common, f"model.max_epochs={given.get('epochs', 5)}"]):
        raise SystemExit("the log or the towers could not be made")
    towers = Path(home) / "runs" / f"{name}-two_tower"
    train = read_run(towers, "two_tower").settings
    dataset = open_dataset(Path(home) / "tables" / name, train.features, train.split)
    ids = np.asarray([-1 if i is None else i for i in dataset.user_ids])
    person = np.flatnonzero(ids > 0)[: int(given.get("people", 1000))]
    row, day, k = ids[person] - 1, settings.size.days - 1, settings.size.slate_length
    values = {"towers": value(world, row, slates(dataset, person, towers, None, "", k) - 1, day)}
    figures: dict[str, Any] = {"world": world_name, "size": size, "people": len(person), "reports": {}}
    for label, (tasks, output, more) in RANKERS.items():
        place = f"{name}-{label}"
        chosen = ["model=ranker", f"model.tasks={tasks}", f"run={place}", "model.later_share=0.7", *of_ranker, *more]
        if main(["train", *common, *chosen, f"model.max_epochs={given.get('epochs', 5)}"]):
            raise SystemExit(f"the ranker on {label} could not be trained")
        ranker = load_ranker(Path(home) / "runs" / place)
        values[label] = value(world, row, slates(dataset, person, towers, ranker, output, k) - 1, day)
        report = read_run(Path(home) / "runs" / place, "ranker").record.report
        figures["reports"][label] = {n: round(v, 4) for n, v in report.items() if n.startswith(("auc", "log_loss"))}
    best, _ = oracle_slate(world, row, 20, 0, day, k)
    values["oracle"] = value(world, row, best, day)
    for label, interval in intervals(values).items():
        figures[label] = [round(x, 5) for x in (interval.value, interval.low, interval.high)]
        print(f"{label:12} {interval.value:.4f} [{interval.low:.4f} {interval.high:.4f}]")
    pairs = (("completion", "stars"), ("completion", "towers"), ("stars", "towers"), ("completion", "no_position"))
    for ours, theirs in pairs:
        gap = compare({"utility": values[ours]}, {"utility": values[theirs]})["utility"]
        figures[f"{ours} - {theirs}"] = [round(x, 5) for x in (gap.value, gap.low, gap.high)]
        print(f"{ours} less {theirs}: {gap.value:+.4f} [{gap.low:+.4f} {gap.high:+.4f}]")
    print(record(f"ranker-{world_name}", figures, started))


if __name__ == "__main__":
    run(sys.argv[1:])
