"""Team-draft interleaving: two rankers make one list in turn, as captains choose teams, and clicks tell whose is liked.

In each round a coin decides who places first; then each places its best item that is not in the list yet. A person
sees one list and compares the two on the same visit, so what differs from person to person cancels: fewer people tell
what an A/B test needs more for. It says which is preferred, not by how much clicks or sales would grow.

Source:
    Radlinski, Kurup, Joachims 2008, "How Does Clickthrough Data Reflect Retrieval Quality?" (CIKM), algorithm 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from playbill.errors import MeasureError
from playbill.measure.assignment import GOLDEN, hash_id, key_of, mix64

OURS, THEIRS, NOBODY = 0, 1, -1


class Interleaved(msgspec.Struct, frozen=True, kw_only=True):
    """One list made of two.

    Attributes:
        items: in the order shown, each once.
        teams: who placed each: OURS, THEIRS, or NOBODY once one of the two had nothing left to place: from there on a
            click would say nothing about who is preferred.
    """

    items: list[int | str]
    teams: list[int]


def interleave(
    ours: Sequence[int | str], theirs: Sequence[int | str], k: int, *, seed: int, request_id: int | str
) -> Interleaved:
    """Return one list of up to k items; the same request always gets the same one, and a shorter one is its beginning.

    Args:
        ours, theirs: item_ids, best first.
        k: places of the list.
        seed: of the experiment.
        request_id: of this list; with the seed it keys the coin.
    Raises:
        MeasureError: k < 1, or both lists are empty.
    """
    if k < 1 or not (ours or theirs):
        raise MeasureError(
            f"k must be >= 1 and one list must hold items, got k={k}, {len(ours)} and {len(theirs)} items"
        )
    rankers = (list(dict.fromkeys(ours)), list(dict.fromkeys(theirs)))
    shown: dict[int | str, int] = {}
    place = 0
    while len(shown) < k:
        # both have placed equally often at each even place; the one who lost the coin comes second
        first = coin(seed, request_id, place // 2)
        team = first if place % 2 == 0 else 1 - first
        best = [next((item for item in ranker if item not in shown), None) for ranker in rankers]
        chosen = best[team]
        if chosen is None or best[1 - team] is None:
            break
        shown[chosen] = team
        place += 1
    for ranker in rankers:
        for item in ranker:
            if len(shown) < k and item not in shown:
                shown[item] = NOBODY
    return Interleaved(items=list(shown), teams=list(shown.values()))


def coin(seed: int, request_id: int | str, turn: int) -> int:
    """Return who places first in a round, OURS or THEIRS; a fair coin for every request and round."""
    a, b = key_of(f"interleaving/{seed}")
    return mix64(mix64(hash_id(request_id) ^ a) + b + turn * GOLDEN) >> 63


def winners(credit_ours: np.ndarray, credit_theirs: np.ndarray) -> np.ndarray:
    """Return [N] int64 by list: 1 where ours earned more credit, -1 where theirs did, 0 for a tie."""
    return np.sign(np.asarray(credit_ours, np.int64) - np.asarray(credit_theirs, np.int64))


class Preference(msgspec.Struct, frozen=True, kw_only=True):
    """Whom people prefer.

    Attributes:
        delta: (lists won + half of the ties) / lists - 1/2; 0 where both are equal, within -1/2..1/2.
        low, high: bootstrap interval over people.
        people, lists: counted.
        won, lost, tied: lists.
        people_ours, people_theirs: people who prefer ours or theirs over all of their lists.
        share: people_ours of those with a preference; NaN where nobody has one.
        share_low, share_high: exact binomial interval of it (Clopper and Pearson 1934).
        p_value: of the sign test over people, two-sided and exact; lists of one person are not independent.
    """

    delta: float
    low: float
    high: float
    people: int
    lists: int
    won: int
    lost: int
    tied: int
    people_ours: int
    people_theirs: int
    share: float
    share_low: float
    share_high: float
    p_value: float


def preference(
    person: np.ndarray, winner: np.ndarray, *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Preference:
    """Return whom people prefer, from who won each list.

    Args:
        person: [N] int64, whose list it is, 0..P-1, each with a list.
        winner: [N] int64, from `winners`.
        resamples: draws of people.
        seed: of the draws.
        level: of the intervals.
    Raises:
        MeasureError: no lists.
    """
    from scipy.stats import binomtest

    from playbill.measure.bootstrap import resampled_means

    if not len(winner):
        raise MeasureError("no lists, so nobody preferred anything")
    balance, lists = np.bincount(person, weights=winner), np.bincount(person)
    means = resampled_means(np.stack([balance, lists], axis=1), resamples, seed)
    low, high = np.quantile(means[:, 0] / means[:, 1] / 2, [(1 - level) / 2, (1 + level) / 2])
    ours, theirs = int((balance > 0).sum()), int((balance < 0).sum())
    test = binomtest(ours, ours + theirs) if ours + theirs else None
    share = test.proportion_ci(level) if test else None
    return Preference(
        delta=float(balance.sum() / lists.sum() / 2),
        low=float(low),
        high=float(high),
        people=len(lists),
        lists=len(winner),
        won=int((winner > 0).sum()),
        lost=int((winner < 0).sum()),
        tied=int((winner == 0).sum()),
        people_ours=ours,
        people_theirs=theirs,
        share=ours / (ours + theirs) if test else float("nan"),
        share_low=float(share.low) if share else float("nan"),
        share_high=float(share.high) if share else float("nan"),
        p_value=float(test.pvalue) if test else 1.0,
    )
