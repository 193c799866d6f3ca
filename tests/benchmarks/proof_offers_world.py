"""Offers under a budget in worlds whose truth is known: share of the oracle's incremental profit, and no budget passed.

    python tests/benchmarks/proof_offers_world.py [home=var] [worlds=hard-daily:548,fitted-daily:548,fitted-daily:730]
        [seeds=5] [runs=1000] [keep=false]

Each world is made by `offer_world.ready`, with everybody's decisions, offers drawn evenly, for so many days. What
`train-offers` learns from its log is asked for a plan over all people who are mailed; the oracle knows every true
probability. Both may spend the same, 30 % of what the oracle would spend without a limit. Beside them: everybody's
average, kinds of people that are free in every rate, and what somebody would do who knew the world's formulas and all
its numbers, yet of a person only the same log. Worlds have seeds from 1 on; the learner and the rule by which it is
chosen were made on seeds from 100 on. In the first world 1,000 campaigns then run.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parent))

from offer_world import LEVELS, known_chances, mean_over, opening, oracle, ready, true_chances
from record import machine, record

from playbill.campaign.budget import plan
from playbill.campaign.offer_facts import read_facts
from playbill.campaign.offer_settings import Guard, Offers
from playbill.campaign.offers import of_classes, settle, worth
from playbill.training.campaign.offer_learners import kinds_of_people
from playbill.training.campaign.offer_settings import OfferModelSettings
from playbill.training.campaign.offers import learn
from playbill.world.build import World
from playbill.world.mails import may_be_mailed
from playbill.world.truth import open_truth

MARGIN, SHARE = 0.45, 0.3
INPUTS = ["segment", "favourite_category"]
SAID = ["free_shipping", "ten_percent", "twenty_percent"]


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    home, started = Path(given.get("home", "var")), machine()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    figures: dict[str, Any] = {}
    for asked in given.get("worlds", "hard-daily:548,fitted-daily:548,fitted-daily:730").split(","):
        name, _, days = asked.partition(":")
        for seed in range(1, int(given.get("seeds", 5)) + 1):
            tables = ready(home, name, seed, int(days))
            one = world_figures(home, tables, int(given.get("runs", 1000)) if not figures else 0)
            figures[f"{asked}, seed {seed}"] = one
            print(asked, seed, *(f"{k}: {v}" for k, v in one.items()), sep="\n  ", flush=True)
            if given.get("keep", "false") == "false":
                shutil.rmtree(tables)
        mine = [one["plans"] for label, one in figures.items() if label.startswith(asked)]
        figures[asked] = {who: mean_over([plans[who]["share of the oracle's"] for plans in mine]) for who in mine[0]}
        print(asked, figures[asked], flush=True)
    print(f"written to {record('offers_world', figures, started)}")
    return 0


def world_figures(home: Path, tables: Path, runs: int) -> dict[str, Any]:
    """Return one world's figures."""
    world = open_truth(tables)
    person = np.flatnonzero(may_be_mailed(world) & ~world.people.anonymous)
    day, users = world.size.days - 1, pl.Series("user_id", person + 1)
    offers = Offers(levels=LEVELS, margin=MARGIN, explore=0.0, guard=Guard.reserve)
    truth = true_chances(world, person, day)
    names = ["none", *SAID]
    value = float(pl.scan_parquet(tables / "events.parquet").filter(pl.col("event") == "purchase")
                  .select(pl.col("value").mean()).collect().item())  # fmt: skip
    of_truth = worth(truth, value, offers, names)
    free = plan(of_truth.profit, of_truth.expected, np.inf)
    offers.budget = SHARE * free.cost
    best = oracle(of_truth, offers.budget)
    settings = OfferModelSettings(
        home=str(home), tables=tables.name, offers=offers, inputs=INPUTS, learn_days=60, trees=30,
        events=["purchase", "open", "message_click"],
    )  # fmt: skip
    offers_of_one = Offers(levels=LEVELS, margin=MARGIN, explore=0.0, guard=Guard.worst)
    settings.offers = offers_of_one  # candidates are judged without a limit: a budget for so few is all reserve
    model, report = learn(tables, settings)
    spec = model.about.spec
    facts = read_facts(tables, spec, users, None)
    rows = np.arange(len(person))
    nothing = of_truth.profit[:, 0].sum()
    oracle_gain = best.profit - nothing

    def share(chances: np.ndarray) -> dict[str, float]:
        """What a plan on these chances truly earns and costs, its expected cost within the budget."""
        mine = worth(chances, value, offers, names)
        found = plan(mine.profit, mine.expected, offers.budget or 0.0)
        level = found.level
        return {
            "share of the oracle's": float((of_truth.profit[rows, level].sum() - nothing) / oracle_gain),
            "true cost over budget": float(of_truth.expected[rows, level].sum() / (offers.budget or 1.0)),
            "people": float((level > 0).mean()),
            "gap of its own plan": found.gap,
        }

    draw = np.random.default_rng(0)
    known = kinds_of_people(facts.made, facts.taken, settings.classes, 0)
    plans = {
        "learned": share(model.chances(facts)),
        "kinds free in every rate": share(of_classes(known, facts)),
        "who knows all but the person": share(
            known_chances(world, facts.made, facts.taken, opening(world, person, day))
        ),
        "everybody's average": share(np.tile(truth.mean(0), (len(person), 1)) + 1e-9 * draw.random(truth.shape)),
    }
    return {
        "people mailed": len(person), "offers in the log": report.offers + report.earlier,
        "offers a person": float(facts.made.sum(1).mean()), "budget": offers.budget, "value of a purchase": value,
        "oracle's incremental profit": float(oracle_gain), "oracle's gap": best.gap,
        "chosen": report.chosen, "told": report.told, "plans": plans,
        "judged by the log": {n: [i.value, i.low, i.high] for n, i in report.gained.items()},
        "runs": budget_runs(world, offers, model.chances(facts), truth, model.about.surer, value, runs) if runs else {},
    }  # fmt: skip


def budget_runs(
    world: World, offers: Offers, said: np.ndarray, truth: np.ndarray, surer: float, value: float, runs: int
) -> dict[str, Any]:
    """Return how often a budget was passed: campaigns of 3,000 drawn people, redemptions drawn from the truth."""
    draw = np.random.default_rng(1)
    people, prices = 3_000, world.items.price
    names = ["none", *SAID]
    off = np.array([0.0, *(level.discount for level in LEVELS)])
    most = np.array([0.0, *(level.most or 0.0 for level in LEVELS)])
    found: dict[str, Any] = {}
    for guard in Guard:
        spent, of = [], []
        for _ in range(runs):
            who = draw.integers(len(said), size=people)
            expects = worth(said[who], value, offers, names)
            unlimited = plan(expects.profit, expects.expected, np.inf).cost
            budget = unlimited * draw.uniform(0.1, 0.8) if guard is Guard.reserve else unlimited * draw.uniform(1, 10)
            here = Offers(levels=LEVELS, margin=MARGIN, explore=0.0, guard=guard, budget=float(budget) + 60.0)
            level, _, _ = settle(here, expects, surer, draw.random((people, 2)))
            buys = draw.random(people) < truth[who, level]
            price = prices[draw.integers(len(prices), size=people)]
            spent.append(float((buys * np.minimum(off[level] * price, most[level])).sum()))
            of.append(float(here.budget or 0.0))
        ratio = np.array(spent) / np.array(of)
        found[guard.value] = {
            "runs": runs, "people a run": people, "passed": int((ratio > 1).sum()),
            "spent of the budget, mean": float(ratio.mean()), "most": float(ratio.max()),
        }  # fmt: skip
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
