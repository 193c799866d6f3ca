"""How much of the oracle's profit from offers can be known, by how long and how often offers were drawn at random.

    python tests/benchmarks/proof_offers_history.py [people=8000,32000] [seeds=8] [worlds=fitted,hard] [budget=0.3]

People of a world get a mail a day, or one a week, with offers, subjects and hours drawn evenly; what they do is drawn
by the world itself. After so many mails the learners that rest on past offers alone are asked for a plan of all,
within `budget` of what the oracle would spend without a limit. Beside them somebody who knows the world's formulas, all
its numbers and how people are spread, and of each person the same log: on what mails show nobody can plan better, so
that is the ceiling. `people` live in a world, of whom some may be mailed; more of them teach more about kinds, and
nothing about a person. Seeds from 1 on are reported here; the learner was built, and its number of kinds chosen, on
draws from the formulas with seeds from 100 on.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parent))

from offer_world import LEVELS, known_chances, mail_day, mean_over, opening, share_of_oracle, true_chances
from record import machine, record

from playbill.campaign.budget import plan
from playbill.campaign.offer_facts import Facts
from playbill.campaign.offer_settings import Offers
from playbill.campaign.offers import of_classes, worth
from playbill.cli import compose
from playbill.training.campaign.offer_kinds import inclined_kinds
from playbill.training.campaign.offer_learners import kinds_of_people
from playbill.training.campaign.offer_settings import OfferModelSettings
from playbill.world.build import build
from playbill.world.mails import may_be_mailed
from playbill.world.settings import Size

MARGIN = 0.45
DAILY = {"6 months": 182, "12 months": 365, "18 months": 548, "24 months": 730, "36 months": 1095}
WEEKLY = {"18 months": 548, "36 months": 1095}


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    started = machine()
    seeds, share = int(given.get("seeds", 8)), float(given.get("budget", 0.3))
    figures: dict[str, Any] = {"worlds of each": seeds, "budget, share of the unlimited": share}
    asked = product(given.get("worlds", "fitted,hard").split(","), given.get("people", "8000,32000").split(","))
    for name, people in asked:
        runs = [measured(name, int(people), seed, share) for seed in track(range(1, seeds + 1), f"{name} {people}")]
        figures[f"{name}, {people} people"] = found = {key: mean_over([run[key] for run in runs]) for key in runs[0]}
        print(name, people, *(f"{k}: {[round(v, 3) for v in i]}" for k, i in found.items()), sep="\n  ")
    print(f"written to {record('offers_history', figures, started)}")
    return 0


def measured(name: str, people: int, seed: int, share: float) -> dict[str, float]:
    """Return the shares of the oracle's profit in one world."""
    parameters = compose("generate", [f"world={name}"]).world
    world = build(parameters, Size(people=people, items=2000, days=max(DAILY.values())), seed)
    person = np.flatnonzero(may_be_mailed(world) & ~world.people.anonymous)
    value = float(world.items.price.mean())
    offers, names = Offers(levels=LEVELS, margin=MARGIN, explore=0.0), list(parameters.messages.offers)
    settings = OfferModelSettings()
    found: dict[str, float] = {"people mailed": float(len(person))}
    for how, every, months in (("a mail a day", 1, DAILY), ("a mail a week", 7, WEEKLY)):
        made, taken = np.zeros((2, len(person), len(names) + 1), np.int64)
        ends = {day: label for label, day in months.items()}
        for day in range(1, max(ends) + 1):
            if day % every == 0:
                mail_day(world, person, day - 1, made, taken)
            if day not in ends:
                continue
            truth = true_chances(world, person, day - 1)
            of_truth = worth(truth, value, offers, names)
            budget = share * plan(of_truth.profit, of_truth.expected, np.inf).cost
            facts = Facts(np.zeros((len(person), 0)), made, taken)
            said = {
                "ceiling": known_chances(world, made, taken, opening(world, person, day - 1)),
                "inclined kinds": of_classes(inclined_kinds(made, taken, settings.kinds, 0), facts),
                "free kinds": of_classes(kinds_of_people(made, taken, settings.classes, 0), facts),
            }
            for who, chances in said.items():
                mine = worth(chances, value, offers, names)
                found[f"{how}, {ends[day]}, {who}"] = share_of_oracle(of_truth, mine, budget)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
