"""What one round did to people: true utility, regret, coverage and diversity, from the truth and not from clicks.

Utility and regret are expectations under the world's response model, so no luck of single clicks is in them; the
intervals are over people, whose visits belong together.
"""

from __future__ import annotations

import msgspec
import numpy as np

from playbill.measure.bootstrap import resampled_means
from playbill.measure.ranking import NO_ITEM
from playbill.measure.spread import diversity, gini
from playbill.world.build import World
from playbill.world.oracle import oracle_slate
from playbill.world.respond import utility

_AT_ONCE = 4_000_000  # (visit, item) cells held in memory while the oracle answers


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over visits, with a bootstrap interval over people."""

    value: float
    low: float
    high: float


class Round(msgspec.Struct, kw_only=True):
    """One policy in one round.

    Attributes:
        utility: expected completed items a visit, the sum over the slate.
        regret: what the best slate for the same visits, under the same "nothing twice", would have given more.
        clicks: of a visit, as drawn.
        coverage: share of the items there were that stood on a slate.
        diversity: mean over visits of 1 - mean cosine between the aspects of a slate's items.
        gini: of the exposures over the items there were; 0 is equal, 1 is one item alone.
        exposures: times each item was shown, [I].
        bundle: version that answered; empty for all but the engine.
    """

    policy: str
    round: int
    visits: int
    people: int
    utility: Figure
    regret: Figure
    clicks: float
    coverage: float
    diversity: float
    gini: float
    exposures: list[int]
    bundle: str = ""


class Tally:
    """Gathers a policy's visits of a round, day by day."""

    def __init__(self) -> None:
        self.person: list[np.ndarray] = []
        self.utility: list[np.ndarray] = []
        self.regret: list[np.ndarray] = []
        self.clicks: list[np.ndarray] = []
        self.item: list[np.ndarray] = []

    def add(self, person: np.ndarray, got: np.ndarray, best: np.ndarray, clicks: np.ndarray, item: np.ndarray) -> None:
        """Take one day's visits: [n] person, utility reached, utility of the best slate, clicks; [n, k] items."""
        self.person.append(person)
        self.utility.append(got)
        self.regret.append(best - got)
        self.clicks.append(clicks)
        self.item.append(item)

    def close(
        self, policy: str, number: int, world: World, there: np.ndarray, resamples: int, level: float, bundle: str
    ) -> Round:
        """Return the round. `there` [I] bool: items published by its end."""
        person, item = np.concatenate(self.person), np.concatenate(self.item)
        got, regret = np.concatenate(self.utility), np.concatenate(self.regret)
        shown = np.bincount(item[item >= 0], minlength=len(there))
        return Round(
            policy=policy,
            round=number,
            visits=len(person),
            people=len(np.unique(person)),
            utility=_over_people(person, got, resamples, level),
            regret=_over_people(person, regret, resamples, level),
            clicks=float(np.concatenate(self.clicks).mean()) if len(person) else 0.0,
            coverage=float((shown[there] > 0).mean()),
            diversity=_diversity(world.items.aspects, item),
            gini=gini(shown[there]),
            exposures=shown.tolist(),
            bundle=bundle,
        )


def slate_utility(
    world: World,
    person: np.ndarray,
    item: np.ndarray,
    creative: np.ndarray,
    hour: np.ndarray,
    device: np.ndarray,
    day: int,
) -> np.ndarray:
    """Return [n] float64: the expected true utility of each visit's slate ([n, k] items and creatives, -1 is empty)."""
    position = np.arange(item.shape[1])[None, :]
    column = (slice(None), None)
    worth = utility(
        world,
        person[column],
        np.maximum(item, 0),
        np.maximum(creative, 0),
        position,
        hour[column],
        device[column],
        np.full((1, 1), day),
    )
    total: np.ndarray = np.where(item >= 0, worth, 0.0).sum(1)
    return total


def best_slate(
    world: World, person: np.ndarray, hour: np.ndarray, device: np.ndarray, day: int, k: int, open_to: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the oracle's items and creatives, both [n, k]; `open_to` [n, I] bool says what each may be shown."""
    items, creatives = [np.zeros((0, k), np.int64)], [np.zeros((0, k), np.int64)]
    step = max(1, _AT_ONCE // open_to.shape[1])
    for low in range(0, len(person), step):
        cut = slice(low, low + step)
        item, creative = oracle_slate(world, person[cut], hour[cut], device[cut], day, k, open_to[cut])
        items.append(item)
        creatives.append(creative)
    return np.concatenate(items), np.concatenate(creatives)


def _over_people(person: np.ndarray, value: np.ndarray, resamples: int, level: float) -> Figure:
    if not len(person):
        return Figure(value=0.0, low=0.0, high=0.0)
    _, row = np.unique(person, return_inverse=True)
    sums = np.stack([np.bincount(row, value), np.bincount(row)], axis=1)
    means = resampled_means(sums, resamples, 0)
    low, high = np.quantile(means[:, 0] / means[:, 1], [(1 - level) / 2, (1 + level) / 2])
    return Figure(value=float(value.mean()), low=float(low), high=float(high))


def _diversity(aspects: np.ndarray, item: np.ndarray) -> float:
    """Return the mean over slates of two items or more; 0 without any."""
    each = diversity(np.where(item >= 0, item + 1, NO_ITEM), item.shape[1], aspects) if item.size else np.zeros(0)
    each = each[~np.isnan(each)]
    return float(each.mean()) if len(each) else 0.0
