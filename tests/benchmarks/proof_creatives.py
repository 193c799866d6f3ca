"""Creative heads in worlds whose truth is known: are effects recovered, and is the right artwork shown?

    python tests/benchmarks/proof_creatives.py [home=var] [impressions=1000000] [worlds=fitted,hard] [seed=5] [epochs=4]

Each world writes a log of so many impressions, artworks drawn evenly, items by popularity. First, from a log: towers
and heads are trained on the earlier 80 % of it, and asked about the impressions of the last tenth. Who chooses:

    random          any artwork
    single, counts  of each item the artwork with the best record, drawn towards the item's own rate: one for all people
    single, heads   of each item the one that the heads say is best over all visitors
    single, truth   of each item the one that is in truth best over all visitors: no log can do better without persons
    contextual      what the heads say is best for this person
    informed        best by the truth of artworks, people known as their profiles tell: what better heads could reach
    ceiling         the same, but pulls of artworks known as far as these clicks tell somebody who knows all else
    oracle          best by the truth of everything, also for people who never log in

Then live, over all impressions: every policy is asked day by day and learns from what came back, once with clicks known
the same day and once 0 to 72 hours late. Thompson sampling chooses evenly until a tenth has been shown; then heads are
trained on its own log, over towers that know that tenth alone, and again after every further tenth; towers are trained
again at four tenths. In between the posterior learns alone, as an engine does between two bundles. Beside it the
ceiling: the same choice by somebody who has nothing but the pulls of artworks to learn. Tastes drift throughout, as
presets say. Values are expected true utilities (click times completion) under each policy's probabilities, so no draw
adds noise; intervals are over people.

Settings were chosen in worlds of seed 11. Each part is kept in home as soon as it is there (proofs/), and a run that
was stopped goes on from it; remove the folder to measure again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parent))

from creative_ceiling import learned_pulls, live_ceiling
from creative_live import SPREAD, Stage, live
from creative_plot import plot
from creative_world import Impressions, informed, read_impressions, true_effects
from record import machine, record

from playbill.cli import compose
from playbill.cli import main as playbill
from playbill.dataset.dataset import Dataset, open_dataset
from playbill.measure.bootstrap import resampled_means
from playbill.tables.files import write_atomic
from playbill.training.creative.job import make_data
from playbill.training.creative.network import CreativeNet
from playbill.training.creative.people import tower_vectors
from playbill.training.creative.plain import HeadFiles, load_plain_head, read_head
from playbill.training.creative.profile import profiles
from playbill.training.creative.scoring import pair_features
from playbill.training.runs import Run, read_run
from playbill.world.build import World, build
from playbill.world.generate import generate
from playbill.world.settings import GenerateSettings
from playbill.world.truth import open_truth

LEAST = 500
RATIO = "last quarter's regret to oracle over the first's"
TOWERS_AT = (0.1, 0.4)
LENGTH = "features.history_length=200"  # a profile says the more of a taste the more of a history it reads
SHARES = {"fitted": 0.9, "hard": 0.75}


def main(arguments: list[str]) -> int:
    """Measure, print and record; returns 1 where a figure misses what it must reach."""
    given = dict(a.split("=", 1) for a in arguments)
    home, most = Path(given.get("home", "var")), int(given.get("impressions", 1_000_000))
    started = machine()
    figures: dict[str, Any] = {}
    for name in given.get("worlds", "fitted,hard").split(","):
        figures[name] = one_world(name, home, most, int(given.get("seed", 5)), int(given.get("epochs", 4)))
        _print(name, figures[name])
    figures["missed"] = _missed(figures)
    print("\n" + ("; ".join(figures["missed"]) or "everything reached"))
    path = record("creatives", figures, started)
    plot(figures, most, path.with_name("creatives_regret.png"))
    print(f"written to {path}")
    return int(bool(figures["missed"]))


def one_world(name: str, home: Path, most: int, seed: int, epochs: int) -> dict[str, Any]:
    """Return all figures of one preset."""
    tables = f"creatives-{name}-{seed}-{most}"
    world = write_world(name, home / "tables" / tables, most, seed)
    common = [f"home={home}", f"tables={tables}", "features.context=[hour,weekday,device]", LENGTH]
    heads = [f"model.max_epochs={epochs}", "model.main=1", "model.match=1"]
    assert playbill(["train", *common]) == 0  # each says so and stops where it is up to date
    assert playbill(["train", "model=creative", *common, *heads]) == 0
    run = read_run(home / "runs" / f"{tables}-creative", "creative")
    retrieval = read_run(home / "runs" / f"{tables}-two_tower", "two_tower")
    dataset = open_dataset(home / "tables" / tables, run.settings.features, run.settings.split)
    seen = read_impressions(world, home / "tables" / tables, dataset)

    plain = load_plain_head(run.path, retrieval.path, dataset.item_arrays)
    people = profiles(dataset, seen.moments, plain.head.contents.numpy())

    def of_log() -> dict[str, Any]:
        found = from_log(world, seen, people, dataset, plain.head, read_head(run.path))
        return found | {"log_loss": run.record.report}

    stages: list[Stage] = []

    def of_live(late_days: int) -> dict[str, Any]:
        if not stages:
            stages.extend(_stage(share, home / "tables" / tables, common, run, seen) for share in TOWERS_AT)
        return live(world, seen, stages, run.settings, late_days)

    def of_ceiling() -> dict[str, Any]:
        return {f"{late} days late": live_ceiling(world, seen, people, late, SPREAD) for late in (0, 3)}

    kept = home / "proofs" / tables
    found = {"from_log": _once(kept / "from_log.json", of_log)}
    found["live"] = _once(kept / "live.json", lambda: of_live(0))
    found["live, clicks late"] = _once(kept / "late.json", lambda: of_live(3))
    found["live ceiling"] = _once(kept / "ceiling.json", of_ceiling)
    found["seconds"] = round(sum(part.pop("seconds") for part in found.values()), 1)
    return found


def _once(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what a file holds, made and kept there with the seconds it took where there is none."""
    if not path.is_file():
        began = time.perf_counter()
        found = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(found | {"seconds": time.perf_counter() - began}).encode())
    kept: dict[str, Any] = json.loads(path.read_bytes())
    return kept


def _stage(share: float, tables: Path, common: list[str], run: Run, seen: Impressions) -> Stage:
    """Return what live policies know people by: towers that have seen no more than what stood before that share."""
    name = f"{tables.name}-until-{share:g}"
    split = [f"split.train={0.85 * share}", f"split.valid={0.15 * share}"]
    assert playbill(["train", *common, f"run={name}", *split]) == 0
    towers = read_run(tables.parent.parent / "runs" / name, "two_tower")
    dataset = open_dataset(tables, towers.settings.features, towers.settings.split)
    people, _ = tower_vectors(dataset, seen.moments, towers.path)
    data, _ = make_data(tables, dataset, run.model, towers)
    known = profiles(dataset, seen.moments, data.contents)
    return Stage(share, replace(data, people=people, profiles=known))


def write_world(name: str, folder: Path, most: int, seed: int) -> World:
    """Return the world whose log of at least so many impressions stands in `folder`, written unless it is there."""
    settings = compose("generate", [f"world={name}", "size=small"])
    if (folder / "tables.json").is_file():
        return open_truth(folder)
    size = settings.size
    people = build(settings.world, size, seed).people
    days = int(1.05 * most / (float(people.visits_per_day.sum()) * size.slate_length)) + 2
    world = build(settings.world, replace(size, days=days, contexts=True), seed)
    generate(world, folder, GenerateSettings(world=settings.world, size=world.size, seed=seed))
    return world


def from_log(
    world: World, seen: Impressions, people: np.ndarray, dataset: Dataset, head: CreativeNet, files: HeadFiles
) -> dict[str, Any]:
    """Return what heads trained on the earlier part recover, and are worth in the last part."""
    decisions = seen.decisions
    # everybody learns from the same: people who allow training
    past = (decisions.at < dataset.split.train_until_us) & seen.known
    asked = decisions.at >= dataset.split.valid_until_us
    first = np.asarray(world.creatives.first, np.int64)
    count = np.bincount(decisions.eligible[past, decisions.shown[past]] - 1, minlength=first[-1])
    clicks = np.bincount(
        decisions.eligible[past, decisions.shown[past]] - 1, decisions.clicked[past], minlength=first[-1]
    )
    # the mean over visitors: features are linear in the person, so it is that of the mean person
    middle = people[decisions.moment[past]].mean(0)
    learned = _effects(head, files.arrays, middle, files.prior.mean, first)
    full, without_pull = true_effects(world, seen)
    often = count >= LEAST
    item = world.creatives.item
    of_item = np.add.reduceat(clicks, first[:-1]) / np.maximum(np.add.reduceat(count, first[:-1]), 1)
    shrunk = (clicks + 11) / (count + 11 / np.maximum(of_item[item], 1e-6))
    record_effect = np.log(shrunk) - (np.add.reduceat(np.log(shrunk), first[:-1]) / np.diff(first))[item]
    naive = (clicks + 0.5) / (count + 1)
    learned_from = np.flatnonzero(past)
    shown = decisions.shown[learned_from]
    pulls = learned_pulls(
        world,
        decisions.eligible[learned_from, shown] - 1,
        seen.click[learned_from, shown],
        decisions.clicked[learned_from],
    )
    most_told = without_pull + pulls - (np.add.reduceat(pulls, first[:-1]) / np.diff(first))[item]

    def rank(estimate: np.ndarray, truth: np.ndarray, which: np.ndarray = often) -> float:
        return round(float(spearmanr(estimate[which], truth[which]).statistic), 4)

    every = np.ones(len(full), bool)
    found: dict[str, Any] = {
        "impressions": int(past.sum()),
        "clicks": int(decisions.clicked[past].sum()),
        "creatives": len(full),
        f"creatives_of_{LEAST}": int(often.sum()),
        "rank_heads": rank(learned, full),
        "rank_heads_content": rank(learned, without_pull),
        "rank_heads_all_creatives": rank(learned, full, every),
        "rank_counts": rank(record_effect, full),
        "rank_click_rate": rank(naive, full),
        "rank_content_truth": rank(without_pull, full),
        "rank_ceiling": rank(most_told, full),
    }
    test = _part(seen, asked)
    score = _scores(head, files.arrays, people, test, files.prior.mean)
    best = {
        "single, counts": _of_each(test, record_effect),
        "single, heads": _of_each(test, learned),
        "single, truth": _of_each(test, full),
        "contextual": np.where(test.there, score, -np.inf).argmax(1),
        "informed": informed(world, test, people),
        "ceiling": informed(world, test, people, pulls),
        "oracle": test.oracle,
    }
    values = {"random": test.value(test.there / test.there.sum(1, keepdims=True))}
    values |= {who: test.value(test.one(column)) for who, column in best.items()}
    found["everybody"] = compare(values, test.person[test.decisions.moment])
    known = test.known
    found["known_people"] = compare(
        {who: v[known] for who, v in values.items()}, test.person[test.decisions.moment][known]
    )
    return found


def compare(values: dict[str, np.ndarray], person: np.ndarray) -> dict[str, Any]:
    """Return each policy's mean value, and contextual's share of gains, with intervals over people ([N] person)."""
    _, who = np.unique(person, return_inverse=True)
    names = list(values)
    sums = np.stack([np.bincount(who), *(np.bincount(who, values[name]) for name in names)], 1)
    means = resampled_means(sums, 2000, 0)
    drawn = {name: means[:, 1 + place] / means[:, 0] for place, name in enumerate(names)}
    exact = {name: float(values[name].mean()) for name in names}

    def said(value: float, draws: np.ndarray) -> list[float]:
        return [value, float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))]

    found: dict[str, Any] = {"value": {name: said(exact[name], drawn[name]) for name in names}}
    for low in ("single, counts", "single, truth"):
        for high in ("oracle", "informed", "ceiling"):
            gain = (exact["contextual"] - exact[low]) / (exact[high] - exact[low])
            draws = (drawn["contextual"] - drawn[low]) / (drawn[high] - drawn[low])
            found[f"share of {high}'s gain over {low}"] = said(gain, draws)
    for low, high in (("single, counts", "contextual"), ("random", "single, counts")):
        found[f"{high} less {low}"] = said(exact[high] - exact[low], drawn[high] - drawn[low])
    return found


def _part(seen: Impressions, rows: np.ndarray) -> Impressions:
    cut = {name: getattr(seen, name)[rows] for name in ("click", "worth", "oracle")}
    return replace(seen, decisions=seen.decisions.take(rows), **cut)


def _of_each(seen: Impressions, effect: np.ndarray) -> np.ndarray:
    """Return [N] int64 columns: of each item the artwork with the largest effect ([C])."""
    score = effect[np.maximum(seen.decisions.eligible, 1) - 1]
    best: np.ndarray = np.where(seen.there, score, -np.inf).argmax(1)
    return best


def _scores(
    head: Any, arrays: dict[str, np.ndarray], people: np.ndarray, seen: Impressions, weights: np.ndarray
) -> np.ndarray:
    """Return [N, E] what the heads say of each artwork."""
    found = np.zeros(seen.click.shape)
    for low in range(0, len(seen), 20_000):
        rows = np.arange(low, min(low + 20_000, len(seen)))
        found[rows] = pair_features(head, arrays, people, seen.decisions, rows) @ weights
    return found


def _effects(
    head: CreativeNet, arrays: dict[str, np.ndarray], person: np.ndarray, weights: np.ndarray, first: np.ndarray
) -> np.ndarray:
    """Return [C] what the heads say of every artwork of items less its item's mean, for one person's vector ([D])."""
    rows = np.arange(1, first[-1] + 1)
    with torch.no_grad():
        content = {name: torch.from_numpy(array[rows]) for name, array in arrays.items()}
        score = (
            head(torch.from_numpy(person)[None], torch.zeros(len(rows), dtype=torch.int64), content).numpy() @ weights
        )
    mean = np.add.reduceat(score, first[:-1]) / np.diff(first)
    found: np.ndarray = score - np.repeat(mean, np.diff(first))
    return found


def _missed(figures: dict[str, Any]) -> list[str]:
    """Return what falls short of its goal."""
    missed = []
    for name, least in SHARES.items():
        if name not in figures:
            continue
        log = figures[name]["from_log"]
        if not log["rank_heads"] >= 0.9:
            missed.append(f"{name}: rank correlation of effects {log['rank_heads']}, aim 0.9")
        values = log["everybody"]["value"]
        if (
            not values["contextual"][1]
            > values["single, counts"][2]
            > values["single, counts"][1]
            > values["random"][2]
        ):
            missed.append(f"{name}: intervals of contextual, single and random are not apart")
        share = figures[name]["live"]["everybody"]["share of oracle's gain over single, live"][0]
        if not share >= least:
            missed.append(f"{name}: {share:.3f} of the oracle's gain in the last tenth, aim {least}")
        for which in ("live", "live, clicks late"):
            ratio = figures[name][which]["everybody"][RATIO]
            if not ratio <= 0.2:
                missed.append(f"{name}, {which}: last quarter's regret {ratio:.2f} of the first's, aim 0.2")
    return missed


def _print(name: str, found: dict[str, Any]) -> None:
    log = found["from_log"]
    print(f"\n{name}: {log['impressions']:,} impressions to learn from, {log['clicks']:,} clicks, {found['seconds']} s")
    print("  " + "  ".join(f"{k} {v}" for k, v in log.items() if k.startswith(("rank", "creatives"))))
    for who in ("everybody", "known_people"):
        print(f"  from the log, {who.replace('_', ' ')}")
        for key, value in log[who]["value"].items():
            print(f"    {key:16}{1000 * value[0]:8.4f} [{1000 * value[1]:.4f}, {1000 * value[2]:.4f}] per 1,000")
        for key, value in log[who].items():
            if key != "value":
                print(f"    {key}: {value[0]:.4g} [{value[1]:.4g}, {value[2]:.4g}]")
    for which in ("live", "live, clicks late"):
        for who in ("everybody", "known_people"):
            part = found[which][who]
            print(f"  {which}, {who.replace('_', ' ')}")
            for key, value in part["by_tenth"].items():
                print(f"    {key:16}" + " ".join(f"{1000 * v:7.4f}" for v in value))
            for key, value in part.items():
                if key != "by_tenth":
                    shown = value if isinstance(value, list) else [value]
                    print(f"    {key}: " + ", ".join(f"{v:.4g}" for v in shown))
    for late, whose in found["live ceiling"].items():
        for who, part in whose.items():
            print(f"  ceiling, clicks {late}, {who.replace('_', ' ')}: regret, last quarter over first", end=" ")
            print(f"{part[RATIO]:.3f}, tenths " + " ".join(f"{1000 * v:.4f}" for v in part["by_tenth"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
