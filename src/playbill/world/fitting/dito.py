"""Dito: e-mail opens by hour of week of 14,006 people of a Brazilian mailing list, late 2018.

Times are UTC. (The repository the log comes from says so: "os horários estão no fuso GMT ... subtrair 3 horas".) They
are shifted by three hours here: fewest opens then fall between 3 and 6 in the morning, and not between 6 and 9. Each
weekday's file also repeats 75 minutes of its neighbours, which are dropped.

Sends are not listed, but `count` of the recipients is: all events of a person, mails received among them. In the
repository's totals (213,183 received, 88,599 opens, 13,277 clicks, 838 unsubscribes, 101 spam reports) these sum to the
log's total of 315,998 exactly, so mails received are `count` less opens and clicks, 0.15 clicks an open.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from scipy import optimize, stats

from playbill.world.fitting.found import Estimate, Found, Sample

DATA = "dito-email-opens"
UTC_OFFSET_H = -3
CLICKS_PER_OPEN = 13_277 / 88_599
DRAWS = 200


def fit(folder: Path, seed: int) -> Found:
    """Estimate the population's hours and weekdays, how far people are from them, and how much they differ in opening.

    Args:
        folder: holds opens.parquet and recipients.parquet.
        seed: of the bootstrap over people.
    """
    week, received = read(folder)
    opens = week.sum((1, 2))
    total = week.sum(0)
    hours, weekdays = total.sum(0) / total.sum() * 24, total.sum(1) / total.sum() * 7
    active = int((opens > 0).sum())
    paired = int(((week.sum(2) > 0).sum(1) > 1).sum())
    found = Found(data=DATA)
    excess, draws = coincidence(week, seed)
    bounds = np.quantile(draws, [0.025, 0.975])
    shown, concentration = hours, 0.0
    for _ in range(20):  # what all rhythms together show is flatter than the curve they bend
        concentration = _concentration(excess, hours, weekdays)
        hours = hours * shown / together(concentration, hours)
        hours *= 24 / hours.sum()
    low, high = (_concentration(float(v), hours, weekdays) for v in bounds)
    for parameter, curve, name, method in (
        ("population.hours", hours, "hours of the day", "the curve that bent by all rhythms shows the opens' hours"),
        ("", shown, "opens by local hour of the day", "share of opens, mean 1"),
        # the sender mails on Tuesdays and hardly at weekends: these are no days of the people's own
        ("", weekdays, "opens by day of the week, Monday first", "share of opens, mean 1"),
    ):
        found.estimates.append(
            Estimate(
                parameter=parameter,
                name=name,
                value=[round(float(v), 4) for v in curve],
                data=DATA,
                n=int(opens.sum()),
                of="opens",
                method=method,
                caution="carries the sender's own choice of hours and days, which the log does not tell apart",
            )
        )
    found.estimates += [
        Estimate(
            parameter="",
            name="opens of one person on different weekdays that fall into the same hour, beside two people's, less 1",
            value=excess,
            low=float(bounds[0]),
            high=float(bounds[1]),
            data=DATA,
            n=paired,
            of="people",
            method="coincidence of pairs: free of counting noise; pairs of one weekday left out, which may be one "
            "mail opened twice; people weigh alike; bootstrap over people",
        ),
        Estimate(
            parameter="population.rhythm_concentration",
            name="how far a person's hours are from everybody's",
            value=concentration,
            low=low,
            high=high,
            data=DATA,
            n=paired,
            of="people",
            method="the value at which the world's rhythms coincide as often (world/people.py: build_rhythms)",
        ),
    ]
    openness = opening(opens, received)
    for parameter, name, value, margin in (
        ("", "log-odds of opening, middling person", openness[0], openness[2]),
        ("messages.openness_sd", "spread of log-odds of opening over people", openness[1], openness[3]),
    ):
        found.estimates.append(
            Estimate(
                parameter=parameter,
                name=name,
                value=value,
                low=value - margin,
                high=value + margin,
                data=DATA,
                n=len(opens),
                of="people",
                method="maximum likelihood of who opened none of the mails received, log-odds normal over people; "
                "Wald interval",
                caution="mails of lists with very different openings are pooled, which widens the spread",
            )
        )
    # a mail opened twice counts once, as far as can be seen: nobody opens more mails than they received
    most = np.minimum(opens, received)
    found.samples["opens by hour"] = Sample(
        values=week.sum(1).astype(np.int64)[opens > 0],
        distance="total variation",
        about="a person; share of opens by local hour",
    )
    for name, beside in (
        ("opens by hour, sent at any", "the world's when mails go out at all hours alike: the log's sender is unknown"),
        ("visits by hour", "the world's visits, which no sender's hours bend"),
    ):
        found.samples[name] = Sample(
            values=week.sum(1).astype(np.int64)[opens > 0],
            distance="total variation",
            about=f"a person; share of opens by local hour, beside {beside}",
        )
    found.samples["opens per person"] = Sample(
        values=most[most > 0].astype(np.float64),
        distance="wasserstein of logs",
        about="a person who opened any; mails opened over the mean of such people, as many sent as in the log",
    )
    found.curves["received"] = received
    found.notes.append(f"{active} of {len(opens)} recipients opened at least one of the mails they received")
    return found


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return opens [people, 7, 24] int64 by local weekday and hour, and mails received [people] int64."""
    recipients = pl.read_parquet(folder / "recipients.parquet", columns=["user", "count"]).sort("user")
    opens = pl.read_parquet(folder / "opens.parquet").filter(pl.col("hour_of_day").is_between(0, 24, closed="left"))
    hour = opens["weekday"].to_numpy().astype(np.float64) * 24 + opens["hour_of_day"].to_numpy() + UTC_OFFSET_H
    local = np.floor(hour % 168).astype(np.int64) % 168
    users = recipients["user"].to_numpy().astype(np.int64)
    person = np.searchsorted(users, opens["user"].to_numpy().astype(np.int64))
    week = np.bincount(person * 168 + local, minlength=len(users) * 168).reshape(len(users), 7, 24)
    opened = week.sum((1, 2))
    events = recipients["count"].to_numpy().astype(np.int64)
    return week, np.maximum(events - np.round(opened * (1 + CLICKS_PER_OPEN)).astype(np.int64), 1)


def coincidence(week: np.ndarray, seed: int, draws: int = DRAWS) -> tuple[float, np.ndarray]:
    """Return how much more often two opens of one person, on different weekdays, share the hour than two people's.

    Args:
        week: [people, 7, 24] counts.
    Returns:
        the excess (0: everybody has the population's hours), and bootstrap draws of it over people.
    """
    week = week[(week.sum(2) > 0).sum(1) > 1].astype(np.float64)
    hour, day = week.sum(1), week.sum(2)
    same = (hour**2).sum(1) - (week**2).sum((1, 2))
    pairs = hour.sum(1) ** 2 - (day**2).sum(1)
    own = same / pairs

    def between(total: np.ndarray) -> float:
        share = total / total.sum()
        return float(((share.sum(0) ** 2).sum() - (share**2).sum()) / (1 - (share.sum(1) ** 2).sum()))

    rng = np.random.default_rng(seed)
    flat = week.reshape(len(week), 168)
    drawn = []
    for _ in range(draws):
        times = rng.multinomial(len(week), np.full(len(week), 1 / len(week)))
        drawn.append(times @ own / len(week) / between((times @ flat).reshape(7, 24)) - 1)
    return float(own.mean() / between(week.sum(0)) - 1), np.array(drawn)


def rhythm_excess(concentration: float, hours: np.ndarray, weekdays: np.ndarray) -> float:
    """Return the coincidence that the world's rhythms have at a concentration, over favourite hours all day long.

    A rhythm is hours * exp(concentration * cos(hour - favourite)), one favourite for workdays and one for weekends.
    """
    workday = _bent(concentration, hours)
    mean = workday.mean(0)
    share = weekdays / weekdays.sum()
    five, two = share[:5], share[5:]
    # pairs of different workdays share one favourite, as do Saturday and Sunday; a mixed pair shares none
    alike = five.sum() ** 2 - (five**2).sum() + two.sum() ** 2 - (two**2).sum()
    mixed = 2 * five.sum() * two.sum()
    own = (alike * (workday**2).sum(1).mean() + mixed * (mean**2).sum()) / (alike + mixed)
    return float(own / (mean**2).sum() - 1)


def together(concentration: float, hours: np.ndarray) -> np.ndarray:
    """Return the hours, mean 1, that people of all favourite hours show together."""
    return np.asarray(_bent(concentration, hours).mean(0) * 24)


def opening(opens: np.ndarray, received: np.ndarray) -> tuple[float, float, float, float]:
    """Return mean and standard deviation over people of the log-odds of opening, and their 95 % half-widths.

    Uses only whether a person opened anything, since a mail opened twice looks like two: with m mails received,
    P(none) = E[(1 - sigmoid(mean + sd * z))^m], z standard normal (Gauss-Hermite, 60 nodes).

    Args:
        opens, received: [people] int64.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    mails, row = np.unique(received, return_inverse=True)
    none, some = np.bincount(row, opens == 0), np.bincount(row, opens > 0)

    def minus(theta: np.ndarray) -> float:
        log_none = -mails[:, None] * np.logaddexp(0, theta[0] + np.exp(theta[1]) * nodes)
        chance = np.clip(np.exp(log_none) @ weights, 1e-12, 1 - 1e-12)
        return -float(none @ np.log(chance) + some @ np.log1p(-chance))

    best = optimize.minimize(minus, np.array([-1.0, 0.0]), method="BFGS")
    errors = np.sqrt(np.diag(np.linalg.inv(_hessian(minus, best.x))))
    sd = float(np.exp(best.x[1]))
    z = float(stats.norm.ppf(0.975))
    return float(best.x[0]), sd, z * float(errors[0]), z * sd * float(errors[1])


def _bent(concentration: float, hours: np.ndarray) -> np.ndarray:
    """Return [96, 24] the hours of people with 96 favourite hours around the clock; rows sum to 1."""
    clock = 2 * np.pi * np.arange(24) / 24
    favourite = 2 * np.pi * np.arange(96) / 96
    bent = hours * np.exp(concentration * np.cos(clock - favourite[:, None]))
    return np.asarray(bent / bent.sum(1, keepdims=True))


def _concentration(excess: float, hours: np.ndarray, weekdays: np.ndarray) -> float:
    if excess <= rhythm_excess(0.0, hours, weekdays):
        return 0.0
    return float(optimize.brentq(lambda c: rhythm_excess(c, hours, weekdays) - excess, 0.0, 10.0))


def _hessian(function: object, at: np.ndarray, step: float = 1e-3) -> np.ndarray:
    assert callable(function)
    moves = np.eye(len(at)) * step
    return np.array(
        [
            [
                (function(at + a + b) - function(at + a - b) - function(at - a + b) + function(at - a - b))
                / (4 * step**2)
                for b in moves
            ]
            for a in moves
        ]
    )
