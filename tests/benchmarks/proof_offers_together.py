"""Subject, hour and offer learned together against each by itself, from the same log, under one budget.

    python tests/benchmarks/proof_offers_together.py [seeds=20] [mails=600000]

Two kinds of world. Made: eight segments, in which a subject makes one offer work and another not (`interaction` is the
spread of that, in log-odds; 0: there is nothing of the kind). Fitted: see `joint_fitted.py`. A log in which
everything is drawn evenly teaches each learner of `joint_policy.py`; each plans within the same budget, and the truth
says what that earns beyond mails without offers. Figures are shares of what somebody earns who knows every chance, the
mean over worlds with its interval. Worlds have seeds from 1 on; the learners were made on seeds from 100 on.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from scipy.special import expit

sys.path.insert(0, str(Path(__file__).parent))

from joint_fitted import fitted
from joint_policy import additive, apart, chances, together
from offer_world import LEVELS, kept_plan, mean_over
from record import machine, record

from playbill.campaign.offer_settings import Offers
from playbill.campaign.offers import worth

MARGIN, SHARE, PARTS, DAYS = 0.45, 0.3, 4, 548
NAMES = ["none", *(level.name for level in LEVELS)]


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    seeds, mails, started = int(given.get("seeds", 20)), int(given.get("mails", 600_000)), machine()
    figures: dict[str, Any] = {"worlds of each": seeds, "mails of a log": mails}
    for kind in (
        "made, interaction 0",
        "made, interaction 0.2",
        "made, interaction 0.4",
        "made, interaction 0.8",
        "fitted",
    ):
        runs = []
        for seed in track(range(1, seeds + 1), kind):
            if kind == "fitted":
                runs.append(fitted(seed, DAYS, MARGIN, SHARE))
                continue
            draw = np.random.default_rng([7, seed])
            runs.append(measured(*made(float(kind.split()[-1]), draw), mails, draw))
        figures[kind] = {key: mean_over([run[key] for run in runs]) for key in runs[0]}
        print(kind, *(f"{k}: {[round(v, 4) for v in i]}" for k, i in figures[kind].items()), sep="\n  ", flush=True)
    print(f"written to {record('offers_together', figures, started)}")
    return 0


def made(interaction: float, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """Return a made world: share of people [G], chances [G, S, H, L], value of a purchase."""
    groups, subjects, hours, levels = 8, 4, 4, len(NAMES)
    depth = np.array([0.0, 0.4, 0.7, 1.0])
    odds = -4.0 + draw.normal(0, 0.5, (groups, 1, 1, 1))
    odds = odds + draw.normal(0, 0.25, (1, subjects, 1, 1)) + draw.normal(0, 0.15, (groups, subjects, 1, 1))
    odds = odds + draw.normal(0, 0.25, (1, 1, hours, 1)) + draw.normal(0, 0.15, (groups, 1, hours, 1))
    odds = odds + draw.normal(0.6, 0.5, (groups, 1, 1, 1)) * depth
    pair = draw.normal(0, interaction, (1, subjects, 1, levels))
    pair[..., 0] = 0.0
    return np.full(groups, 1 / groups), expit(odds + pair), 15.0


def measured(
    people: np.ndarray, truth: np.ndarray, value: float, mails: int, draw: np.random.Generator
) -> dict[str, float]:
    """Return each learner's share of what knowing every cell earns, and the differences, in one world."""
    even = np.broadcast_to((people / truth[0].size)[:, None, None, None], truth.shape)
    sent = draw.poisson(mails / PARTS * even, (PARTS, *truth.shape))
    bought = draw.binomial(sent, truth)
    joint, strength = together(sent, bought)
    said = {
        "together": joint, "additive": additive(sent, bought), "each by itself": apart(sent, bought),
        "together, hardly shrunk": chances(sent.sum(0), bought.sum(0), 0.1),
    }  # fmt: skip
    budget = SHARE * _planned(truth, truth, people, value, np.inf)[1]
    most = _planned(truth, truth, people, value, budget)[0]
    found = {name: _planned(p, truth, people, value, budget)[0] / most for name, p in said.items()}
    for other in ("additive", "each by itself"):
        found[f"together less {other}"] = found["together"] - found[other]
    return {**found, "pairs left out": float(np.isinf(strength))}


def _planned(
    believed: np.ndarray, truth: np.ndarray, people: np.ndarray, value: float, budget: float
) -> tuple[float, float]:
    """Return what a plan by these beliefs truly earns and costs, of 800 people."""
    offers = Offers(levels=LEVELS, margin=MARGIN, explore=0.0)
    group = np.repeat(np.arange(len(people)), np.round(people * 800).astype(int))
    shape = (len(people), -1)
    mine = worth(believed.reshape(-1, len(NAMES)), value, offers, NAMES)
    true = worth(truth.reshape(-1, len(NAMES)), value, offers, NAMES)
    # a subject and hour without an offer costs nothing: whoever gets none gets the best of these that is believed in
    bare = mine.profit[:, 0].reshape(shape).argmax(1)
    at = np.arange(len(people))

    def cells(of: np.ndarray) -> np.ndarray:
        table = of.reshape(len(people), -1, len(NAMES))
        found: np.ndarray = np.concatenate([table[at, bare, 0][:, None], table[:, :, 1:].reshape(shape)], 1)[group]
        return found

    cost, rows = cells(true.expected), np.arange(len(group))
    level = kept_plan(cells(mine.profit), cells(mine.expected), cost, budget)
    earned = cells(true.profit)[rows, level].sum()
    plain = true.profit[:, 0].reshape(shape).mean(1)[group].sum()
    return float(earned - plain), float(cost[rows, level].sum())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
