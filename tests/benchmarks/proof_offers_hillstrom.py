"""Which mail to whom, on a real trial: held-out value under a cost a mail and a budget, beside random and response.

    python tests/benchmarks/proof_offers_hillstrom.py [home=var] [data=DIR]

Hillstrom's e-mail experiment: 64,000 customers, men's mail, women's mail or none. Declared before any result was seen:
a mail costs 0.10, the budget pays for 30 % of the customers, all of a purchase counts. Everybody is held out once, in
three folds. A response model mails those who are likeliest to buy after a mail; the others by what a mail changes.
Then once more in halves: rules of few parameters, one of which is chosen on the first half and judged on the second.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from hillstrom_half import halves
from proof_uplift import hillstrom_tables
from record import machine, record

from playbill.campaign.budget import plan
from playbill.campaign.offer_facts import FactSpec, read_offers, words_of
from playbill.campaign.offer_settings import OfferLevel, Offers
from playbill.campaign.offers import OfferModel, worth
from playbill.measure.uplift.trial import make_trial
from playbill.measure.uplift.value import at_random, contributions, everybody, policy_values
from playbill.training.campaign.offer_judge import about, fitted, read_rows
from playbill.training.campaign.offer_settings import OfferModelSettings

COST, SHARE = 0.10, 0.30
INPUTS = ["recency", "history", "mens", "womens", "newbie", "zip_code", "channel"]


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    home, started = Path(given.get("home", "var")), machine()
    checkout = Path(__file__).resolve().parents[2]
    data = Path(given.get("data", os.environ.get("PLAYBILL_SHARED_DATA", checkout.parent / "shared" / "data")))
    tables = hillstrom_tables(data / "hillstrom" / "hillstrom.parquet", home / "tables" / "hillstrom")
    figures = measured(tables, home)
    for name, found in figures["net value a customer, and over mailing nobody"].items():
        print(f"{name:44} {found['value'][0]:.4f} [{found['value'][1]:.4f} {found['value'][2]:.4f}]", end="  ")
        over = found["over nobody"]
        print(f"{over[0]:+.4f} [{over[1]:+.4f} {over[2]:+.4f}]")
    print(*(f"{k}: {v}" for k, v in figures["in halves"].items()), sep="\n")
    print(f"written to {record('offers_hillstrom', figures, started)}")
    return 0


def measured(tables: Path, home: Path) -> dict[str, Any]:
    """Return every rule's net value, with intervals over people."""
    offers = Offers(levels=[OfferLevel(name=n, cost=COST) for n in ("mens", "womens")], margin=1.0, explore=0.0)
    settings = OfferModelSettings(home=str(home), tables="hillstrom", offers=offers, inputs=INPUTS, events=[],
                                  kind="experiment_arm", window_h=336.0)  # fmt: skip
    spec = FactSpec(levels=["none", "mens", "womens"], inputs=INPUTS, words=words_of(tables, INPUTS), events=[],
                    kind="experiment_arm", window_h=336.0)  # fmt: skip
    log = read_offers(tables, spec)
    rows = read_rows(tables, spec, log, 0, settings)
    n = len(rows.level)
    trial = make_trial(spec.levels, rows.level, np.full(3, 1 / 3), rows.value)
    cost = np.array([0.0, COST, COST])
    plans: dict[str, np.ndarray] = {}
    value = float(log.filter("bought")["value"].mean() or 0.0)
    # of purchases 99 % are none: what a mail does to visits, times the spend a visit, is far less noisy
    seen = FactSpec(levels=spec.levels, inputs=INPUTS, words=spec.words, events=[], kind=spec.kind, purchase="visit",
                    window_h=336.0)  # fmt: skip
    visits = read_rows(tables, seen, read_offers(tables, seen), 0, settings)
    assert (visits.level == rows.level).all() and (visits.person == rows.person).all()
    asked = [(name, what) for what in ("purchases", "visits") for name in ("trees by level", "doubly robust trees")]
    for name, what in asked:
        taught, spec_, worth_of = (rows, spec, value) if what == "purchases" else (visits, seen, 0.0)
        level, response = np.zeros(n, np.int64), np.zeros(n, np.int64)
        for number in range(settings.folds):
            out = rows.fold == number
            if what == "visits":
                worth_of = float(rows.value[~out].sum() / visits.bought[~out].sum())
            model = OfferModel(about(name, spec_, worth_of), fitted(name, taught.take(~out), spec_, settings))
            chances = model.chances(taught.take(out).facts)
            money = SHARE * COST * int(out.sum())
            of = worth(chances, worth_of, offers, spec.levels)
            level[out] = plan(of.profit, of.worst, money).level
            likely = np.concatenate([np.zeros((len(chances), 1)), chances[:, 1:] * worth_of], 1)
            response[out] = plan(likely, of.worst, money).level
        plans[f"uplift on {what}, {name}"] = np.eye(3)[level]
        if name == "trees by level":
            plans[f"response model of {what}"] = np.eye(3)[response]
    plans["mens to 30 % at random"] = at_random(n, 3, 1, SHARE)
    plans["womens to 30 % at random"] = at_random(n, 3, 2, SHARE)
    plans["mens to all (over budget)"] = everybody(n, 3, 1)
    plans["womens to all (over budget)"] = everybody(n, 3, 2)
    plans["nobody"] = everybody(n, 3, 0)
    values, pairs = policy_values({name: contributions(trial, p, cost) for name, p in plans.items()})
    found = {
        name: {
            "value": [i.value, i.low, i.high],
            "over nobody": _pair(pairs, name, "nobody"),
            "over mens at random": _pair(pairs, name, "mens to 30 % at random"),
            "over the response model": _pair(pairs, name, "response model of purchases"),
            "mailed": float(1 - plans[name][:, 0].mean()), "spent a head": float((plans[name] @ cost).mean()),
        }
        for name, i in values.items()
    }  # fmt: skip
    inputs = rows.facts.x[:, : len(INPUTS)]
    return {"customers": n, "cost of a mail": COST, "budget a head": COST * SHARE,
            "net value a customer, and over mailing nobody": found,
            "in halves": halves(inputs, rows.level, visits.bought, rows.value, COST, SHARE)}  # fmt: skip


def _pair(pairs: dict[tuple[str, str], Any], name: str, other: str) -> list[float]:
    if (name, other) in pairs:
        i = pairs[name, other]
        return [i.value, i.low, i.high]
    if (other, name) in pairs:
        i = pairs[other, name]
        return [-i.value, -i.high, -i.low]
    return [0.0, 0.0, 0.0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
