"""Subject, offer and hour decided together against each decided by itself, under one budget, in worlds.

    python tests/benchmarks/proof_offers_joint.py [home=var] [worlds=fitted-daily,hard-daily]

All policies here know the true probabilities, so what differs is the deciding alone and not the learning: it is the
most that a joint policy can gain. Together: one plan over all combinations of subject, hour of a Wednesday and offer.
Each by itself: the subject that is opened most on average over hours, the hour that is over subjects, and the offers
planned with opens as they are on average. One after the other: offers planned knowing the subject and hour that were
chosen.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from offer_world import LEVELS, ready
from record import machine, record

from playbill.campaign.budget import Plan, plan
from playbill.campaign.offer_settings import Offers
from playbill.campaign.offers import Worth, worth
from playbill.world.mails import may_be_mailed
from playbill.world.respond import message_purchase_probability, open_probability
from playbill.world.truth import open_truth

MARGIN, SHARE, WEDNESDAY = 0.45, 0.3, 2


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    home, started = Path(given.get("home", "var")), machine()
    figures = {}
    for name in given.get("worlds", "fitted-daily,hard-daily").split(","):
        figures[name] = measured(ready(home, name))
        print(name, *(f"{k}: {v}" for k, v in figures[name].items()), sep="\n  ")
    print(f"written to {record('offers_joint', figures, started)}")
    return 0


def measured(tables: Path) -> dict[str, Any]:
    """Return what each policy earns beyond mails without offers, money, and as a share of the joint policy's."""
    world = open_truth(tables)
    person, day = np.flatnonzero(may_be_mailed(world) & ~world.people.anonymous), world.size.days - 1
    n, names = len(person), ["none", *(level.name for level in LEVELS)]
    value = float(world.items.price.mean())
    offers = Offers(levels=LEVELS, margin=MARGIN, explore=0.0)
    hours, subjects = world.parameters.messages.send_hours, len(world.subjects.pull)
    opens = np.stack([
        open_probability(world, person, np.full(n, s), np.full(n, 24 * WEDNESDAY + h), day)
        for s in range(subjects) for h in hours
    ], 1).reshape(n, subjects, len(hours)).astype(np.float64)  # fmt: skip
    rows = [np.full(n, k) for k in range(len(names))]
    full = np.stack([message_purchase_probability(world, person, r, True) for r in rows], 1).astype(np.float64)
    none = message_purchase_probability(world, person, rows[0], False).astype(np.float64)[:, None]

    def of(opened: np.ndarray) -> Worth:
        return worth(opened[:, None] * full + (1 - opened[:, None]) * none, value, offers, names)

    every = [of(opens[:, s, h]) for s in range(subjects) for h in range(len(hours))]
    profit = np.stack([w.profit for w in every], 1)  # [n, combinations, levels]
    cost = np.stack([w.expected for w in every], 1)
    # without an offer every mail earns the same here: the first combination stands for all of them
    wide_profit = np.concatenate([profit[:, :1, 0], profit[:, :, 1:].reshape(n, -1)], 1)
    wide_cost = np.concatenate([cost[:, :1, 0], cost[:, :, 1:].reshape(n, -1)], 1)
    nothing = float(wide_profit[:, 0].sum())
    budget = SHARE * plan(wide_profit, wide_cost, np.inf).cost
    joint = plan(wide_profit, wide_cost, budget)
    at = np.arange(n)
    best_subject, best_hour = opens.mean(2).argmax(1), opens.mean(1).argmax(1)
    chosen = of(opens[at, best_subject, best_hour])
    alone = of(opens.mean((1, 2)))
    by_average, after = plan(alone.profit, alone.expected, budget), plan(chosen.profit, chosen.expected, budget)

    def earned(found: Plan) -> dict[str, float]:
        gain = float(chosen.profit[at, found.level].sum()) - nothing
        return {"profit": gain, "share of joint": gain / (joint.profit - nothing),
                "cost over budget": float(chosen.expected[at, found.level].sum()) / budget}  # fmt: skip

    fitted = plan(alone.profit, chosen.expected, budget)  # by average opens, kept to the budget at the true cost
    return {
        "people": n, "budget": budget, "joint": {"profit": joint.profit - nothing, "gap": joint.gap},
        "each by itself": earned(by_average), "each by itself, within the budget": earned(fitted),
        "one after the other": earned(after),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
