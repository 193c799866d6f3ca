"""Distances between worlds and real logs, beside the distance of a real log from itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from playbill.world.fitting.distances import DISTANCES, noise_floor
from playbill.world.fitting.found import Found


@dataclass(slots=True, kw_only=True)
class Comparison:
    """One aggregate of one real log, and how far each world is from it.

    Attributes:
        name: of the aggregate.
        data: folder of the log.
        distance: name of the distance.
        about: what a unit is.
        floor: mean distance of two random halves of the log.
        worlds: world -> distance.
    """

    name: str
    data: str
    distance: str
    about: str
    floor: float
    worlds: dict[str, float]


def compare(found: dict[str, Found], worlds: dict[str, dict[str, np.ndarray]], seed: int) -> list[Comparison]:
    """Return a comparison for every sample of a real log that the worlds show too.

    Args:
        found: folder of the log -> what it gave.
        worlds: world -> its samples by name.
        seed: of the halves.
    """
    result = []
    for data, log in found.items():
        for name, sample in log.samples.items():
            measure = DISTANCES[sample.distance]
            result.append(
                Comparison(
                    name=name,
                    data=data,
                    distance=sample.distance,
                    about=sample.about,
                    floor=noise_floor(sample, seed),
                    worlds={world: measure(sample.values, shown[name]) for world, shown in worlds.items()},
                )
            )
    return result
