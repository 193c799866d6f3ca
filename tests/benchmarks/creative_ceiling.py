"""What the clicks of a log can tell at most about single artworks, whoever learns from them: the ceiling of a proof."""

from __future__ import annotations

from typing import Any

import numpy as np
from creative_world import Impressions, taste_read

from playbill.creative.choice import CreativePolicy, chances, draw
from playbill.world.build import World

_STEPS = 40


def learned_pulls(world: World, creative: np.ndarray, chance: np.ndarray, clicked: np.ndarray) -> np.ndarray:
    """Return [C] the pull of every artwork as somebody believes it who knows all else.

    Whoever learns so knows the truth of people, titles, places and hours, and how far pulls differ; of a pull, only the
    clicks. What is left is chance: a log of so many impressions cannot say more. Probabilities are small, so clicks are
    taken to be Poisson.

    Args:
        creative: [N] int64 rows of the world's artworks that were shown.
        chance: [N] true probability of a click.
        clicked: [N] 1 or 0.
    """
    size, pull = len(world.creatives.pull), world.creatives.pull.astype(np.float64)
    clicks = np.bincount(creative, clicked, size)
    without = np.bincount(creative, chance * np.exp(-pull[creative]), size)
    return _mode(np.zeros(size), clicks, without, _precision(world), _STEPS)


def live_ceiling(world: World, seen: Impressions, people: np.ndarray, late_days: int, spread: float) -> dict[str, Any]:
    """Return what somebody reaches live who has only pulls to learn: mean values by tenth, and regret by quarter.

    People are known as their profiles tell, by a reading fitted on the truth; all else but pulls is known from the
    first day. Pulls are learned every night from clicks of known people, 0 to `late_days` days late; Thompson sampling.

    Args:
        people: [V, P] profiles.
    """
    rng, decisions, n = np.random.default_rng(3), seen.decisions, len(seen)
    day = seen.day[decisions.moment]
    borders = np.searchsorted(day, np.arange(day.max() + 2))
    guess, precision, policy = taste_read(seen, people), _precision(world), CreativePolicy(spread=spread)
    clicks, without, believed = (np.zeros(len(world.creatives.pull)) for _ in range(3))
    base, value = world.click_base - world.creatives.pull, np.zeros(n)
    waiting: dict[int, list[np.ndarray]] = {}
    for today in range(len(borders) - 1):
        rows = np.arange(borders[today], borders[today + 1])
        artworks, there = np.maximum(decisions.eligible[rows], 1) - 1, seen.there[rows]
        mean = np.einsum("rd,red->re", guess[decisions.moment[rows]], world.click_vectors[artworks])
        sd = 1 / np.sqrt(precision + without * np.exp(believed))
        chance = chances(policy, (mean + (base + believed)[artworks]).astype(np.float64), sd[artworks], there)
        value[rows] = (chance * seen.click[rows]).sum(1) * seen.worth[rows]
        every, column = np.arange(len(rows)), draw(chance, rng.random(len(rows)))
        artwork, click, known = artworks[every, column], seen.click[rows, column], seen.known[rows]
        clicked = (rng.random(len(rows)) < click) & known
        late = rng.integers(0, late_days + 1, len(rows))
        for days in range(late_days + 1):
            waiting.setdefault(today + days, []).append(artwork[clicked & (late == days)])
        pull = world.creatives.pull[artwork].astype(np.float64)
        without += np.bincount(artwork[known], (click * np.exp(-pull))[known], len(without))
        clicks += np.bincount(np.concatenate(waiting.pop(today)), minlength=len(clicks))
        believed = _mode(believed, clicks, without, precision, 3)
    oracle = seen.click[np.arange(n), seen.oracle] * seen.worth
    return {"everybody": _told(value, oracle), "known_people": _told(value[seen.known], oracle[seen.known])}


def _told(value: np.ndarray, oracle: np.ndarray) -> dict[str, Any]:
    place = np.arange(len(value))
    tenth, quarter = place * 10 // len(value), place * 4 // len(value)
    lost = np.bincount(quarter, oracle - value) / np.bincount(quarter)
    return {
        "by_tenth": (np.bincount(tenth, value) / np.bincount(tenth)).tolist(),
        "last quarter's regret to oracle over the first's": float(lost[-1] / lost[0]),
    }


def _precision(world: World) -> float:
    return 1 / max(world.parameters.catalogue.pull_sd, 1e-6) ** 2


def _mode(start: np.ndarray, clicks: np.ndarray, without: np.ndarray, precision: float, steps: int) -> np.ndarray:
    """Return [C] pulls: Poisson clicks around `without * exp(pull)`, a normal prior; Newton's steps."""
    found = start
    for _ in range(steps):
        expected = without * np.exp(found)
        found = found + np.clip((clicks - expected - precision * found) / (expected + precision), -1, 1)
    return found
