"""The world's truth of offers: what each person would do with each level, and what the oracle earns with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from playbill.campaign.budget import Plan, plan
from playbill.campaign.offer_settings import OfferLevel, Offers
from playbill.campaign.offers import Worth, worth
from playbill.world.build import World
from playbill.world.respond import message_purchase_probability, open_probability

LEVELS = [
    OfferLevel(name="free_shipping", discount=0.05, most=1.0),
    OfferLevel(name="ten_percent", discount=0.10, most=2.0),
    OfferLevel(name="twenty_percent", discount=0.20, most=4.0),
]


def ready(home: Path, name: str) -> Path:
    """Return the tables of a world such as hard-daily, generated where they are not there: a mail a day for 18 months
    to 8,000 people, since with a mail a week nobody's taste for offers shows in that time."""
    tables = home / "tables" / name
    if not (tables / "tables.json").is_file():
        size = ["size=shop", "size.people=8000", "size.items=2000", "size.activity=0.05", "size.contexts=false"]
        asked = [
            f"home={home}",
            f"name={name}",
            f"world={name.partition('-')[0]}",
            "world.messages.every_days=1",
            "seed=1",
        ]
        subprocess.run([sys.executable, "-m", "playbill.cli", "generate", *asked, *size], check=True)
    return tables


def opening(world: World, person: np.ndarray, day: int) -> np.ndarray:
    """Return [n] float64, P(open) averaged over subjects and the hours that mails may go out at."""
    hours = np.asarray(world.parameters.messages.send_hours)
    total, rows = np.zeros(len(person)), np.zeros(len(person), np.int64)
    for subject in range(len(world.subjects.pull)):
        for hour in hours:
            total += np.mean(
                [open_probability(world, person, rows + subject, rows + 24 * d + hour, day)
                 for d in (1, 5)],
                axis=0,
            )  # fmt: skip
    return total / (len(world.subjects.pull) * len(hours))


def true_chances(world: World, person: np.ndarray, day: int) -> np.ndarray:
    """Return [n, L] float64, the true probability of a purchase after a mail with each offer of messages.offers."""
    seen = opening(world, person, day)
    chances = []
    for offer in range(len(world.parameters.messages.offers)):
        rows = np.full(len(person), offer)
        opened = message_purchase_probability(world, person, rows, True)
        closed = message_purchase_probability(world, person, rows, False)
        chances.append(seen * opened + (1 - seen) * closed)
    return np.stack(chances, 1).astype(np.float64)


def true_worth(world: World, person: np.ndarray, day: int, offers: Offers, value: float) -> Worth:
    """Return what levels truly earn and cost these people, at one price."""
    names = list(world.parameters.messages.offers)
    return worth(true_chances(world, person, day), value, offers, names)


def oracle(of: Worth, budget: float) -> Plan:
    """Return the plan of somebody who knows every probability, within the expected cost."""
    return plan(of.profit, of.expected, budget)
