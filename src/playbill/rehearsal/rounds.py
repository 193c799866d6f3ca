"""What one round did to people: true utility, regret, coverage and diversity, from the truth and not from clicks.

Utility and regret are expectations under the world's response model, so no luck of single clicks is in them; the
intervals are over people, whose visits belong together. Two differences are told:

    regret   what the oracle gave at the same visits in its own copy of the world, less what the policy gave
    missed   what the best slate for this very visit would have given, less what the policy gave: the best one among
             what this person may still be shown by this policy, with the best artworks

The oracle takes what is best now and saves nothing for later. Since nobody is shown again what they clicked, it runs
short of good items while a weak policy keeps them: `missed` grows with what is left, `regret` does not.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import msgspec
import numpy as np

from playbill.measure.bootstrap import resampled_means
from playbill.measure.ranking import NO_ITEM
from playbill.measure.spread import diversity, gini
from playbill.tables.files import write_atomic
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
        regret, missed: see the top of this file; both a visit.
        clicks: of a visit, as drawn.
        coverage: share of the items there were that stood on a slate.
        diversity: mean over visits of 1 - mean cosine between the aspects of a slate's items.
        gini: of the exposures over the items there were; 0 is equal, 1 is one item alone.
        exposures: times each item was shown, [I].
        out_of_place: places that held an item twice, one not published yet, or one clicked before.
        bundle: version that answered; empty for all but the engine.
    """

    policy: str
    round: int
    visits: int
    people: int
    utility: Figure
    regret: Figure
    missed: Figure
    clicks: float
    coverage: float
    diversity: float
    gini: float
    exposures: list[int]
    out_of_place: int = 0
    bundle: str = ""


@dataclass(slots=True)
class Served:
    """All visits that a policy served on some days, in the order of `world.visits`.

    Attributes:
        person: [n] int64 rows.
        got: [n] float64, expected utility of the slate.
        best: [n] float64, of the best slate for the same visit and history.
        clicks: [n] int64, as drawn.
        item: [n, k] int64 rows, -1 for an empty place.
        out_of_place: [n] int64, see `Round`.
        bundle: [] text.
    """

    person: np.ndarray
    got: np.ndarray
    best: np.ndarray
    clicks: np.ndarray
    item: np.ndarray
    out_of_place: np.ndarray
    bundle: np.ndarray

    @classmethod
    def joined(cls, days: Sequence[Served]) -> Served:
        """Return the days as one; the bundle is that of the last."""
        names = [f.name for f in fields(cls) if f.name != "bundle"]
        return cls(**{n: np.concatenate([getattr(d, n) for d in days]) for n in names}, bundle=days[-1].bundle)

    def write(self, path: Path) -> None:
        """Write as .npz, whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{f.name: getattr(self, f.name) for f in fields(self)})
        write_atomic(path, buffer.getvalue())

    @classmethod
    def read(cls, path: Path) -> Served:
        """Return what `write` wrote."""
        # numpy leaves a file open that it cannot read
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as found:
            return cls(**{f.name: found[f.name] for f in fields(cls)})


def round_of(
    name: str,
    number: int,
    served: Served,
    oracle: Served,
    world: World,
    there: np.ndarray,
    resamples: int,
    level: float,
) -> Round:
    """Return what a round amounts to.

    Args:
        served, oracle: the same visits in the same order.
        there: [I] bool, items published by the round's end.
        resamples, level: of the intervals.
    """
    shown = np.bincount(served.item[served.item >= 0], minlength=len(there))
    columns = np.stack([served.got, oracle.got - served.got, served.best - served.got], axis=1)
    found = _over_people(served.person, columns, resamples, level)
    return Round(
        policy=name,
        round=number,
        visits=len(served.person),
        people=len(np.unique(served.person)),
        utility=found[0],
        regret=found[1],
        missed=found[2],
        clicks=float(served.clicks.mean()) if len(served.clicks) else 0.0,
        coverage=float((shown[there] > 0).mean()),
        diversity=_diversity(world.items.aspects, served.item),
        gini=gini(shown[there]),
        exposures=shown.tolist(),
        out_of_place=int(served.out_of_place.sum()),
        bundle=str(served.bundle),
    )


def out_of_place(item: np.ndarray, open_to: np.ndarray) -> np.ndarray:
    """Return [n] int64: places of a slate with an item that may not stand there, or that stands there a second time.

    Args:
        item: [n, k] rows, -1 for an empty place.
        open_to: [n, I] bool, what each visit may be shown.
    """
    there = item >= 0
    wrong = there & ~np.take_along_axis(open_to, np.maximum(item, 0), 1)
    ordered = np.sort(item, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    counted: np.ndarray = wrong.sum(1) + twice.sum(1)
    return counted


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
    total: np.ndarray = np.where(item >= 0, worth, 0.0).sum(1, dtype=np.float64)
    return total


def best_slate(
    world: World, person: np.ndarray, hour: np.ndarray, device: np.ndarray, day: int, k: int, open_to: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the oracle's items and creatives, both [n, k]; `open_to` [n, I] bool says what each may be shown."""
    items, creatives = [np.zeros((0, k), np.int64)], [np.zeros((0, k), np.int64)]
    step = max(1, _AT_ONCE // open_to.shape[1])
    for low in range(0, len(person), step):
        cut = slice(low, low + step)
        # where nobody here may be shown k items, the places left over stay empty
        most = min(k, int(open_to[cut].any(0).sum()))
        empty = np.full((len(person[cut]), k - most), NO_ITEM, np.int64)
        item, creative = empty[:, :0], empty[:, :0]
        if most:
            item, creative = oracle_slate(world, person[cut], hour[cut], device[cut], day, most, open_to[cut])
        items.append(np.concatenate([item, empty], axis=1))
        creatives.append(np.concatenate([creative, empty], axis=1))
    return np.concatenate(items), np.concatenate(creatives)


def _over_people(person: np.ndarray, columns: np.ndarray, resamples: int, level: float) -> list[Figure]:
    """Return the mean over visits of each column [n, M], people resampled with all their visits."""
    if not len(person):
        return [Figure(value=0.0, low=0.0, high=0.0)] * columns.shape[1]
    _, row = np.unique(person, return_inverse=True)
    sums = np.stack([np.bincount(row), *(np.bincount(row, column) for column in columns.T)], axis=1)
    means = resampled_means(sums, resamples, 0)
    low, high = np.quantile(means[:, 1:] / means[:, :1], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [
        Figure(value=float(value), low=float(a), high=float(b))
        for value, a, b in zip(columns.mean(0), low, high, strict=True)
    ]


def _diversity(aspects: np.ndarray, item: np.ndarray) -> float:
    """Return the mean over slates of two items or more; 0 without any."""
    each = diversity(np.where(item >= 0, item + 1, NO_ITEM), item.shape[1], aspects) if item.size else np.zeros(0)
    each = each[~np.isnan(each)]
    return float(each.mean()) if len(each) else 0.0
