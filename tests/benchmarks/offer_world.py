"""The world's truth of offers: what each person would do with each level, and what the oracle earns with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy.special import expit
from scipy.stats import t

from playbill.campaign.budget import Plan, plan
from playbill.campaign.offer_settings import OfferLevel, Offers
from playbill.campaign.offers import Worth, worth
from playbill.world.build import World
from playbill.world.messages import MailResponses, Mails, respond_to_mails
from playbill.world.respond import message_purchase_probability, open_probability

LEVELS = [
    OfferLevel(name="free_shipping", discount=0.05, most=1.0),
    OfferLevel(name="ten_percent", discount=0.10, most=2.0),
    OfferLevel(name="twenty_percent", discount=0.20, most=4.0),
]


def ready(home: Path, name: str, seed: int = 1, days: int = 548) -> Path:
    """Return the tables of a world such as hard-daily, generated where they are not there: a mail a day for 18 months
    (or so many days) to 8,000 people, since with a mail a week nobody's taste for offers shows in that time."""
    folder = f"{name}-{seed}-{days}"
    tables = home / "tables" / folder
    if not (tables / "tables.json").is_file():
        size = [
            "size=shop",
            "size.people=8000",
            "size.items=2000",
            "size.activity=0.05",
            "size.contexts=false",
            f"size.days={days}",
            "size.decisions_share=1",
        ]
        asked = [
            f"home={home}",
            f"name={folder}",
            f"world={name.partition('-')[0]}",
            "world.messages.every_days=1",
            f"seed={seed}",
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


def known_chances(world: World, made: np.ndarray, taken: np.ndarray, openings: np.ndarray) -> np.ndarray:
    """Return [n, L] what somebody would say who knows the formulas, all numbers and how people are spread, and of a
    person only what offers were made and taken: nobody can plan better by that log.

    Args:
        made, taken: see `campaign.offer_facts.Facts`.
        openings: [m] true probabilities of opening, of whom the population is taken to consist.
    """
    buying, messages = world.parameters.purchases, world.parameters.messages
    nodes = np.linspace(-4, 4, 81)
    weight = np.exp(-(nodes**2) / 2) / np.exp(-(nodes**2) / 2).sum()
    depth = np.array([*messages.offers.values(), 0.0])
    kinds = list(buying.kinds)
    base = np.array([messages.purchase_base + buying.kind_base[kind] for kind in kinds])
    answer = np.array([buying.kind_offer[kind] for kind in kinds])
    odds = base[:, None, None] + buying.inclination_sd * nodes[None, :, None] + answer[:, None, None] * depth
    rate = expit(odds).reshape(-1, len(depth))
    share = (np.array([buying.kinds[kind] for kind in kinds])[:, None] * weight).reshape(-1)
    said = _posterior(taken @ np.log(rate).T + (made - taken) @ np.log1p(-rate).T + np.log(share)) @ rate
    often = np.clip(np.quantile(openings, np.linspace(0.005, 0.995, 100)), 1e-6, 1 - 1e-6)
    seen, missed = made[:, :-1].sum(1)[:, None], made[:, [-1]]
    opens = (_posterior(seen * np.log(often) + missed * np.log1p(-often)) @ often)[:, None]
    chances: np.ndarray = opens * said[:, :-1] + (1 - opens) * said[:, [-1]]
    return chances


def _posterior(log: np.ndarray) -> np.ndarray:
    of = np.exp(log - log.max(1, keepdims=True))
    found: np.ndarray = of / of.sum(1, keepdims=True)
    return found


def share_of_oracle(of_truth: Worth, mine: Worth, budget: float) -> float:
    """Return what a plan on these beliefs truly earns within the budget, as a share of the oracle's."""
    nothing = of_truth.profit[:, 0].sum()
    level = plan(mine.profit, mine.expected, budget).level
    earned = of_truth.profit[np.arange(len(level)), level].sum() - nothing
    return float(earned / (oracle(of_truth, budget).profit - nothing))


def mean_over(shares: list[float]) -> list[float]:
    """Return the mean over worlds and its 95 % interval by Student's t."""
    mean, half = float(np.mean(shares)), 0.0
    if len(shares) > 1:
        half = float(t.ppf(0.975, len(shares) - 1) * np.std(shares, ddof=1) / np.sqrt(len(shares)))
    return [mean, mean - half, mean + half]


def mail_day(
    world: World, person: np.ndarray, day: int, made: np.ndarray, taken: np.ndarray
) -> tuple[Mails, MailResponses]:
    """Send a mail to everybody with all drawn evenly, add to counts [n, L + 1] of mails and purchases by the offer seen
    (last: not opened), and return the mails and what came of them."""
    messages, n = world.parameters.messages, len(person)
    draw = np.random.default_rng([world.seed, day])
    offer = draw.integers(len(messages.offers), size=n)
    mails = Mails(
        person=person, subject=draw.integers(len(world.subjects.pull), size=n),
        hero=draw.integers(len(world.heroes.pull), size=n), offer=offer,
        hour_of_week=24 * (day % 7) + np.array(messages.send_hours)[draw.integers(len(messages.send_hours), size=n)],
        day=day, at_us=np.full(n, day * 86_400_000_000), key=draw.integers(2**63, size=n, dtype=np.uint64),
    )  # fmt: skip
    response = respond_to_mails(world, mails)
    cell = np.where(response.opened, offer, made.shape[1] - 1)
    made[np.arange(n), cell] += 1
    taken[np.arange(n), cell] += response.bought
    return mails, response


def kept_plan(profit: np.ndarray, cost: np.ndarray, true_cost: np.ndarray, budget: float) -> np.ndarray:
    """Return [n] the plan by believed profit and cost [n, L], given as much money as makes it truly cost the budget.

    So policies that are compared spend the same, and none learns anything from the true cost of a person's cell.
    """
    rows = np.arange(len(profit))

    def at(money: float) -> tuple[np.ndarray, float]:
        level = plan(profit, cost, money).level
        return level, float(true_cost[rows, level].sum())

    level, spent = at(np.inf)
    if spent <= budget:
        return level
    low, high, found = 0.0, float(cost[rows, level].sum()), np.zeros(len(profit), np.int64)
    for _ in range(20):
        money = (low + high) / 2
        level, spent = at(money)
        low, high, found = (money, high, level) if spent <= budget else (low, money, found)
    return found
