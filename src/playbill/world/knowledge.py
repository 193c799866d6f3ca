"""What the shop has learned up to yesterday: counts, and nothing of the truth.

Counts are whole numbers that are added up over a day and taken over at its end, so that they do not depend on who was
worked on first. A response counts on the day on which it came, not on which it was provoked. The past fades by MEMORY
a day. A machine's opening counts like a person's: the shop cannot tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from playbill.world.build import World

Array = np.ndarray[Any, Any]

MEMORY = 0.97
"""Weight that yesterday keeps: half is forgotten in 23 days."""
_ITEM_PRIOR, _CREATIVE_PRIOR, _GROUP_PRIOR, _MAIL_PRIOR = 50.0, 50.0, 200.0, 50.0  # trials' worth of the wider rate


class Tally:
    """Trials and successes of many cells, with successes that come on later days.

    Args:
        cells: how many.
        latest: successes come at most this many days after the trial's.
    """

    def __init__(self, cells: int, latest: int = 0) -> None:
        self.trials: Array = np.zeros(cells)
        self.successes: Array = np.zeros(cells)
        self._tried: Array = np.zeros(cells, np.int64)
        self._coming: Array = np.zeros((latest + 1, cells), np.int64)

    def tried(self, cells: Array) -> None:
        """Count trials of today, [n] cells."""
        self._tried += np.bincount(cells, minlength=len(self._tried))

    def succeeded(self, cells: Array, days_later: Array) -> None:
        """Count successes, [n] cells, that come `days_later` days from today (later than the latest: on that day)."""
        latest, size = self._coming.shape
        flat = np.minimum(days_later, latest - 1) * size + cells
        self._coming += np.bincount(flat, minlength=latest * size).reshape(latest, size)

    def close_day(self) -> None:
        """Take over what came today."""
        self.trials = self.trials * MEMORY + self._tried
        self.successes = self.successes * MEMORY + self._coming[0]
        self._tried[:] = 0
        self._coming = np.vstack([self._coming[1:], np.zeros_like(self._coming[:1])])

    def rate(self, prior: float, toward: Array | float | None = None) -> Array:
        """Return [cells] success rates, drawn towards a wider rate by `prior` trials; None: towards the common rate."""
        common = (self.successes.sum() + 1) / (self.trials.sum() + 20) if toward is None else toward
        smoothed: Array = (self.successes + prior * common) / (self.trials + prior)
        return smoothed


@dataclass(slots=True)
class Knowledge:
    """Counts of one shop. A segment is a declared one; the last, `segments`, is people without an account.

    Attributes:
        segments, categories: S and how many categories.
        item: impressions and clicks, [I].
        group: impressions and clicks, cell segment * categories + category.
        creative: impressions and clicks, [C].
        subject, hour: mails and openings, cell segment * n + which.
        hero: mails and clicks in them; offer: mails and purchases after them.
    """

    segments: int
    categories: int
    item: Tally
    group: Tally
    creative: Tally
    subject: Tally
    hero: Tally
    hour: Tally
    offer: Tally

    def close_day(self) -> None:
        """Let today become yesterday."""
        for name in ("item", "group", "creative", "subject", "hero", "hour", "offer"):
            getattr(self, name).close_day()


@dataclass(slots=True)
class Beliefs:
    """What a shop's policies act on during one day; values are standardised logs of rates, counts are successes.

    Attributes:
        item_value: [S + 1, I]; item_count: [I].
        creative_value, creative_count: [C].
        mail_value, mail_count: [S + 1, n] by "subject", "hero", "send_hour", "offer".
    """

    item_value: Array
    item_count: Array
    creative_value: Array
    creative_count: Array
    mail_value: dict[str, Array]
    mail_count: dict[str, Array]


def nothing_known(world: World) -> Knowledge:
    """Return the knowledge of a shop on its first day."""
    parameters = world.parameters
    segments, categories = parameters.population.segments, parameters.catalogue.categories
    rows = segments + 1
    late = int(np.ceil(parameters.delays.most_h / 24)) + 1
    return Knowledge(
        segments=segments,
        categories=categories,
        item=Tally(len(world.items.price), 1),
        group=Tally(rows * categories, 1),
        creative=Tally(len(world.creatives.item), 1),
        subject=Tally(rows * len(world.subjects.pull), late),
        hero=Tally(rows * len(world.heroes.pull), late),
        hour=Tally(rows * len(parameters.messages.send_hours), late),
        offer=Tally(rows * len(parameters.messages.offers), late),
    )


def beliefs(world: World, known: Knowledge) -> Beliefs:
    """Return what policies may act on today."""
    rows = known.segments + 1
    item_rate = known.item.rate(_ITEM_PRIOR)
    group_rate = known.group.rate(_GROUP_PRIOR).reshape(rows, known.categories)
    # how much more a segment clicks a category than it clicks at all
    trials = known.group.trials.reshape(rows, -1).sum(1) + 20
    level = (known.group.successes.reshape(rows, -1).sum(1) + 1) / trials
    affinity = np.log(group_rate / level[:, None])
    item_value = np.log(item_rate)[None, :] + affinity[:, np.asarray(world.items.category, np.int64)]
    of_item = np.asarray(world.creatives.item, np.int64)
    creative_rate = known.creative.rate(_CREATIVE_PRIOR, item_rate[of_item])
    mail = {"subject": known.subject, "hero": known.hero, "send_hour": known.hour, "offer": known.offer}
    return Beliefs(
        item_value=_standardised(item_value),
        item_count=known.item.successes,
        creative_value=_standardised(np.log(creative_rate / item_rate[of_item])),
        creative_count=known.creative.successes,
        mail_value={name: _standardised(_mail_value(tally, rows)) for name, tally in mail.items()},
        mail_count={name: tally.successes.reshape(rows, -1) for name, tally in mail.items()},
    )


def _mail_value(tally: Tally, rows: int) -> Array:
    """Return [rows, n] logs of rates by segment, each drawn towards the rate over all segments."""
    trials, successes = tally.trials.reshape(rows, -1).sum(0), tally.successes.reshape(rows, -1).sum(0)
    common = (successes.sum() + 1) / (trials.sum() + 20)
    overall = (successes + _MAIL_PRIOR * common) / (trials + _MAIL_PRIOR)
    value: Array = np.log(tally.rate(_MAIL_PRIOR, np.tile(overall, rows))).reshape(rows, -1)
    return value


def _standardised(values: Array) -> Array:
    """Return values with mean 0 and deviation 1 along the last axis; all 0 where they are equal."""
    centred = values - values.mean(-1, keepdims=True)
    spread = centred.std(-1, keepdims=True)
    scaled: Array = np.where(spread > 1e-9, centred / np.maximum(spread, 1e-9), 0.0)
    return scaled
