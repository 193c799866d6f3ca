"""What may be shown of the items on some slates, and what their people were shown before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from playbill.creative.choice import CreativePolicy
from playbill.creative.eligibility import Shelf, eligible
from playbill.engine.catalogue import Catalogue
from playbill.engine.profile import Person
from playbill.engine.row import Row
from playbill.engine.types import Request, Slate
from playbill.state.decisions import Shown

LOCALE = "locale"  # of a request's context, else of a person's features

Memory = Mapping[int | str, Shown]


@dataclass(slots=True)
class Sets:
    """The creatives of K items on some slates, n of an item at most.

    Attributes:
        owner, position: [K] int64, request and place on its slate.
        item: [K] int64 item_index; `item_ids` [K].
        rows: [K, n] int64 of the shelf; `there` [K, n] bool, which of them may be shown.
        kept: [K] int64, place among the n that this session shows already; -1 where it shows none.
        before: [K] int64, place that another session of the person showed last; -1 where there is none.
        count: [K] int64, how many may be shown.
    """

    owner: np.ndarray
    position: np.ndarray
    item: np.ndarray
    item_ids: list[int | str]
    rows: np.ndarray
    there: np.ndarray
    kept: np.ndarray
    before: np.ndarray
    count: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.count = self.there.sum(-1)


def sets_of(
    shelf: Shelf,
    policy: CreativePolicy,
    mine: Sequence[int],
    rows: Sequence[Row],
    slates: Sequence[Slate],
    catalogue: Catalogue,
    memories: Sequence[Memory],
) -> Sets:
    """Return what may be shown of the items of some slates.

    Args:
        policy: of their surface.
        mine: places of these slates among `rows`, `slates` and `memories`.
        memories: by item id what each person was shown last.
    """
    found, owner, position, items = [], [], [], []
    item_ids: list[int | str] = []
    for b in mine:
        request, person = rows[b].request, rows[b].person
        ids = [item.item_id for item in slates[b].items]
        item = catalogue.indices(ids)
        found.append(
            eligible(shelf, item, slates[b].at, locale_of(request, person, policy), policy.of_kind, policy.channel)
        )
        owner.append(np.full(len(ids), b))
        position.append(np.arange(len(ids)))
        items.append(item)
        item_ids += ids
    sets = Sets(
        owner=np.concatenate(owner),
        position=np.concatenate(position),
        item=np.concatenate(items),
        item_ids=item_ids,
        rows=_wide([rows for rows, _ in found]),
        there=_wide([there for _, there in found]),
        kept=np.full(len(item_ids), -1),
        before=np.full(len(item_ids), -1),
    )
    remember(sets, shelf, memories, [row.request.session_id for row in rows])
    return sets


def sets_at(
    shelf: Shelf,
    policy: CreativePolicy,
    owner: np.ndarray,
    item: np.ndarray,
    item_ids: list[int | str],
    locales: Sequence[str],
    at: int,
) -> Sets:
    """Return what may be shown of K items at one moment, whoever is to see them.

    Args:
        owner: [K] int64, place in `locales` of the person who is to see each.
        item: [K] int64 item_index.
        locales: [B]; "" suits every creative.
        at: UTC microseconds.
    """
    named = sorted(set(locales))
    number = np.asarray([named.index(locale) for locale in locales], np.int64)[owner]
    of_each = [np.flatnonzero(number == n) for n in range(len(named))]
    found = [
        eligible(shelf, item[rows], at, locale, policy.of_kind, policy.channel)
        for locale, rows in zip(named, of_each, strict=True)
    ]
    back = np.argsort(np.concatenate([np.zeros(0, np.int64), *of_each]), kind="stable")
    nobody = np.full(len(item), -1)
    rows, there = (_wide([part[which] for part in found])[back] for which in (0, 1))
    return Sets(owner, np.zeros(len(item), np.int64), item, item_ids, rows, there, nobody, nobody.copy())


def locale_of(request: Request, person: Person, policy: CreativePolicy) -> str:
    """Return the locale that somebody is shown creatives of."""
    named = request.context.get(LOCALE) or person.profile.features.get(LOCALE)
    return named if isinstance(named, str) else policy.locale


def remember(sets: Sets, shelf: Shelf, memories: Sequence[Memory], sessions: Sequence[int | str | None]) -> None:
    """Note in sets what their people were shown before.

    Args:
        memories, sessions: [B], by owner.
    """
    if not any(memories):
        return
    for k, (b, item_id) in enumerate(zip(sets.owner.tolist(), sets.item_ids, strict=True)):
        last = memories[b].get(item_id)
        if last is None:
            continue
        places = np.flatnonzero(sets.there[k])
        ids = [shelf.ids[row] for row in sets.rows[k, places].tolist()]
        own = last.of_session(sessions[b])
        if own in ids:
            sets.kept[k] = places[ids.index(own)]
        elif last.creative_id in ids:
            sets.before[k] = places[ids.index(last.creative_id)]


def _wide(parts: list[np.ndarray]) -> np.ndarray:
    """Return the rows of several arrays [k, n] in one, filled up with 0 (`np.pad` takes as long as all else here)."""
    width = max(1, max(part.shape[1] for part in parts))
    if len(parts) == 1 and parts[0].shape[1] == width:
        return parts[0]
    out = np.zeros((sum(map(len, parts)), width), parts[0].dtype)
    low = 0
    for part in parts:
        out[low : low + len(part), : part.shape[1]] = part
        low += len(part)
    return out
