"""What the clicks of a log can tell at most about single artworks, whoever learns from them: the ceiling of a proof."""

from __future__ import annotations

import numpy as np

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
    precision = 1 / max(world.parameters.catalogue.pull_sd, 1e-6) ** 2
    found = np.zeros(size)
    for _ in range(_STEPS):
        expected = without * np.exp(found)
        found += np.clip((clicks - expected - precision * found) / (expected + precision), -1, 1)
    return found
