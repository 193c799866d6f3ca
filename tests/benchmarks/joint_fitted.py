"""Subject, hour and offer learned together and each by itself in the fitted world, where a person's kind decides."""

from __future__ import annotations

from typing import Any

import numpy as np
from offer_world import LEVELS, kept_plan, mail_day
from scipy.special import expit, logit

from playbill.campaign.offer_settings import Offers
from playbill.campaign.offers import worth
from playbill.cli import compose
from playbill.training.campaign.offer_kinds import inclined_kinds
from playbill.training.campaign.offer_settings import OfferModelSettings
from playbill.world.build import World, build
from playbill.world.mails import may_be_mailed, segment_of
from playbill.world.respond import message_purchase_probability, open_probability
from playbill.world.settings import Size

NAMES = ["none", *(level.name for level in LEVELS)]


def fitted(seed: int, days: int, margin: float, share: float) -> dict[str, float]:
    """Return shares of what the best joint plan truly earns, after a mail a day for so long to all of 8,000 people.

    Both learners believe the same of offers (kinds with an inclination), of how often a person opens, and of what a
    subject or an hour does to a segment's openings. Each by itself: a segment's subject and hour that are opened most,
    and offers planned on opening as it is on average. Together: one plan over all combinations. Both are given
    as much money as makes what they send truly cost the budget.
    """
    parameters = compose("generate", ["world=fitted"]).world
    world = build(parameters, Size(people=8000, items=2000, days=days + 7), seed)
    person = np.flatnonzero(may_be_mailed(world) & ~world.people.anonymous)
    hours, subjects = parameters.messages.send_hours, len(world.subjects.pull)
    made, taken = np.zeros((2, len(person), len(NAMES) + 1), np.int64)
    _, group = np.unique(segment_of(world, person), return_inverse=True)
    seen: dict[str, Any] = {"subject": np.zeros((group.max() + 1, subjects, 2)),
                            "hour": np.zeros((group.max() + 1, len(hours), 2))}  # fmt: skip
    for day in range(days):
        mails, response = mail_day(world, person, day, made, taken)
        at = {"subject": mails.subject, "hour": np.searchsorted(hours, mails.hour_of_week % 24)}
        for what, which in at.items():
            np.add.at(seen[what], (group, which), np.stack([np.ones(len(group)), response.opened], 1))
    moved = {what: _moved(*np.moveaxis(counts, 2, 0))[group] for what, counts in seen.items()}
    kinds = inclined_kinds(made, taken, OfferModelSettings().kinds, 0)
    log = taken @ np.log(kinds["rate"]).T + (made - taken) @ np.log1p(-kinds["rate"]).T + np.log(kinds["share"])
    of = np.exp(log - log.max(1, keepdims=True))
    rate = (of / of.sum(1, keepdims=True)) @ kinds["rate"]
    a, b = kinds["opening"]
    opens = (made[:, :-1].sum(1) + a) / (made.sum(1) + a + b)
    believed = expit(logit(opens)[:, None, None] + moved["subject"][:, :, None] + moved["hour"][:, None, :])
    chances = _mixed(believed, rate[:, :-1], rate[:, -1])
    truth = _truth(world, person, days)
    average = opens[:, None] * rate[:, :-1] + (1 - opens)[:, None] * rate[:, [-1]]
    best = moved["subject"].argmax(1), moved["hour"].argmax(1)
    apart = np.zeros_like(chances)
    apart[np.arange(len(person)), best[0], best[1]] = average
    value = float(world.items.price.mean())
    budget = share * _earned(truth, truth, value, margin, np.inf)[1]
    most = _earned(truth, truth, value, margin, budget)[0]
    together = _earned(chances, truth, value, margin, budget)[0] / most
    alone = _earned(apart, truth, value, margin, budget)[0] / most
    return {"together": together, "each by itself": alone, "together less each by itself": together - alone}


def _moved(sent: np.ndarray, opened: np.ndarray) -> np.ndarray:
    """Return [G, K] log-odds of opening beyond the segment's own, pulled towards everybody's by 500 mails' weight."""
    everybody = opened.sum(0) / sent.sum(0)
    rate = (opened + 500 * everybody) / (sent + 500)
    found: np.ndarray = logit(rate) - logit(opened.sum(1) / sent.sum(1))[:, None]
    return found


def _mixed(opens: np.ndarray, seen: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """Return [n, S, H, L] chances of a purchase, of opening [n, S, H] and chances if it was seen [n, L] or missed."""
    o = opens[..., None].astype(np.float64)
    found: np.ndarray = o * seen[:, None, None] + (1 - o) * missed[:, None, None, None]
    return found


def _truth(world: World, person: np.ndarray, day: int) -> np.ndarray:
    n, week = len(person), 24 * (day % 7)
    hours, subjects = world.parameters.messages.send_hours, len(world.subjects.pull)
    opens = np.stack([
        open_probability(world, person, np.full(n, s), np.full(n, week + h), day)
        for s in range(subjects) for h in hours
    ], 1).reshape(n, subjects, len(hours))  # fmt: skip
    rows = [np.full(n, k) for k in range(len(NAMES))]
    seen = np.stack([message_purchase_probability(world, person, r, True) for r in rows], 1)
    return _mixed(opens, seen, message_purchase_probability(world, person, rows[0], False))


def _earned(believed: np.ndarray, truth: np.ndarray, value: float, margin: float, budget: float) -> tuple[float, float]:
    """Return what a plan by these beliefs truly earns beyond no offers, and costs; without an offer it is all one."""
    offers, n = Offers(levels=LEVELS, margin=margin, explore=0.0), len(truth)

    def cells(of: np.ndarray) -> np.ndarray:
        table = of.reshape(n, -1, len(NAMES))
        found: np.ndarray = np.concatenate([table[:, :, 0].max(1)[:, None], table[:, :, 1:].reshape(n, -1)], 1)
        return found

    mine = worth(believed.reshape(-1, len(NAMES)), value, offers, NAMES)
    true = worth(truth.reshape(-1, len(NAMES)), value, offers, NAMES)
    profit = cells(true.profit)
    cost = cells(true.expected)
    level, rows = kept_plan(cells(mine.profit), cells(mine.expected), cost, budget), np.arange(n)
    return float((profit[rows, level] - profit[:, 0]).sum()), float(cost[rows, level].sum())
