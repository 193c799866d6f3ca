"""How much the named item of a history moves a score, beside the others: the real engine asked again without each.

Histories are told with the request (`recent`), which counts like a stored one and needs no store. The share of the
other items whose removal moves the score less is what a comparison with one drawn at random comes to on average.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from playbill.engine.engine import Engine
from playbill.engine.types import MAX_RECENT, Recent, Request, Slate, SlateItem
from playbill.features.fold import Past

Ask = Callable[[Request], tuple[Slate, Slate]]

MOST = 1000  # items of a slate that is looked through for others' scores


@dataclass(slots=True)
class Moved:
    """What was found, a case each: an item that names one of the history.

    Attributes:
        person: whose.
        beats: share of the other items of the history whose removal moves the score less, 0..1.
        falls: whether the score falls without the named one.
        retriever: of the item.
        said: reasons by kind, of all items that were shown.
    """

    person: list[int] = field(default_factory=list)
    beats: list[float] = field(default_factory=list)
    falls: list[bool] = field(default_factory=list)
    retriever: list[str] = field(default_factory=list)
    said: Counter[str] = field(default_factory=Counter)

    def rate(self) -> float:
        return float(np.mean(self.beats))


def request_of(past: Sequence[Past], at: int, **fields: object) -> Request:
    """Return the request of somebody who tells of these events, the newest 200 of them, oldest first."""
    recent = [
        Recent(item_id=p.item_id, event=p.event, value=p.value, ago_s=max(0, at - p.at) / 1e6)
        for p in past[-MAX_RECENT:]
    ]
    return Request(request_id="r", recent=recent, at=at, **fields)  # type: ignore[arg-type]


def measure(engine: Engine, pasts: Sequence[Sequence[Past]], k: int, read: int, listed: bool) -> Moved:
    """Return how the items named in people's slates compare with the others of their histories.

    Args:
        engine: without exploration and without a store.
        pasts: events of each person, oldest first.
        k: length of the slates.
        read: newest items of a history that the scores read.
        listed: ask for the scores of the shown items as a list to put in order (`rerank`), which is quicker; a blend
            scores slates alone.
    """
    found = Moved()
    for person, past in enumerate(pasts):
        at = past[-1].at + 1_000_000
        history = list(dict.fromkeys(event.item_id for event in reversed(past[-MAX_RECENT:])))[:read]
        if len(history) < 3:
            continue
        [slate] = engine.recommend([request_of(past, at, k=k)])
        found.said.update(item.reason.kind for item in slate.items)
        named = [item for item in slate.items if item.reason.fact.get("item_id") in history]
        if not named:
            continue
        ids = [item.item_id for item in slate.items]
        asked = []
        for gone in (None, *history):
            left = [event for event in past if event.item_id != gone]
            kind = {"surface": "rerank", "items": ids} if listed else {"k": MOST, "exclude": [gone] if gone else []}
            asked.append(request_of(left, at, **kind))
        scores = [_scores(answer, named) for answer in engine.recommend(asked)]
        fall = scores[0] - np.stack(scores[1:])
        for n, item in enumerate(named):
            row = history.index(item.reason.fact["item_id"])
            moved = np.abs(fall[:, n])
            found.person.append(person)
            found.beats.append(float((np.delete(moved, row) < moved[row]).mean()))
            found.falls.append(bool(fall[row, n] > 0))
            found.retriever.append(item.retriever)
    return found


def declared(pasts: Sequence[Sequence[Past]], ask: Ask, k: int, read: int) -> Moved:
    """Return how what people asked for compares with the items of their histories, where a reason names it.

    Args:
        ask: called with a request, gives its slate with the wish and its slate without.
    """
    found = Moved()
    for person, past in enumerate(pasts):
        at = past[-1].at + 1_000_000
        history = list(dict.fromkeys(event.item_id for event in reversed(past[-MAX_RECENT:])))[:read]
        slate, _ = ask(request_of(past, at, k=k))
        ids = [item.item_id for item in slate.items]
        found.said.update(item.reason.kind for item in slate.items)
        named = [item for item in slate.items if item.reason.kind == "declared"]
        if not named or len(history) < 2:
            continue
        again = [request_of([e for e in past if e.item_id != gone], at, surface="rerank", items=ids)
                 for gone in (None, *history)]  # fmt: skip
        pairs = [ask(request) for request in again]
        now, without = _scores(pairs[0][0], named), _scores(pairs[0][1], named)
        others = np.abs(now - np.stack([_scores(pair[0], named) for pair in pairs[1:]]))
        for n, item in enumerate(named):
            found.person.append(person)
            found.beats.append(float((others[:, n] < abs(now[n] - without[n])).mean()))
            found.falls.append(bool(now[n] > without[n]))
            found.retriever.append(item.retriever)
    return found


def _scores(slate: Slate, items: Sequence[SlateItem]) -> np.ndarray:
    """Return the scores of some items on a slate; the lowest there for one that it no longer holds."""
    known = {item.item_id: item.score for item in slate.items}
    lowest = min(known.values(), default=0.0)
    return np.asarray([known.get(item.item_id, lowest) for item in items])


def cut(pasts: Sequence[Sequence[Past]], rng: np.random.Generator, least: int) -> Iterator[Sequence[Past]]:
    """Yield each past up to a moment drawn at random, at least so many events after its beginning."""
    for past in pasts:
        if len(past) >= least:
            yield past[: int(rng.integers(least, len(past) + 1))]
