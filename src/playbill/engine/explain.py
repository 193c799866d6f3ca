"""Step 5, explain: a sentence for each item on the slate, and the fact it rests on, which anybody can check.

kind        proposed by            the fact
because     whoever reads a        `item_id`: of the items in the history, the one without which the item's score would
            history                fall most, all that it is made of asked again (`falls`); `fall`: by how much
because     item_knn, transitions, where there was no time for that: `item_id`: the one without which the score of this
            ease, ials             retriever would fall most; `share`: by how much of it (of ease it may be more than
                                   1, where other items of the history speak against)
similar     tower                  where there was no time: `item_id`: of all items in the history, the one whose
                                   vector is nearest; `cosine`, above 0
similar     similar, because   `item_id`: the item that the request, or the shelf, is about; `cosine`, above 0
together    item_knn,          `item_id`: the item that the request is about; `share` of what the item that is chosen
            transitions        with it most has
taste       tower                  `cosine` of the person's vector and the item's, above 0; no single item of the
                                   history speaks for it
trending    trending               `share` of what the most trending item has
near        trending               `share` of what the most trending item has among people of the same `value` of
                                   `column`, on the shelf that is about them
popular     popularity, or nothing `place` by popularity in the whole catalogue, in its first tenth
            above speaks for it
catalogue   the same               the same, further down
continue,   again              the event that it rests on
again
declared    any                    the person asked for more of these `categories` of the item, or of what the
                                   condition `where` is true of
exploration any                    drawn by chance; `propensity` is the probability it had

Where a blend ordered the slate, "proposed by" is the member to which the item owes most of its place: off that member's
list its blended score would fall more than off any other's (`blending.blend_candidates`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from playbill.baselines.ials import FoldingIals
from playbill.baselines.neighbours import Neighbours
from playbill.bundle.rungs import PROPOSERS, RETRIEVERS
from playbill.engine.alike import cosines, together
from playbill.engine.catalogue import UNDATED, Catalogue
from playbill.engine.drops import drops, ials_drops
from playbill.engine.falls import Falls
from playbill.engine.retrieve import IALS, NEW, POPULARITY, TOWER, TRENDING, Candidates
from playbill.engine.types import Reason
from playbill.engine.wording import did, title_of
from playbill.features.fold import Past

_IMPERSONAL = {TRENDING, NEW, POPULARITY, PROPOSERS.index("similar"), PROPOSERS.index("again")}
SIMILAR, LIST, AGAIN = (PROPOSERS.index(name) for name in ("similar", "list", "again"))


def reasons(
    catalogue: Catalogue,
    candidates: Candidates,
    chosen: np.ndarray,
    drawn: np.ndarray,
    propensity: np.ndarray,
    history: np.ndarray,
    events: list[Past],
    speaks: np.ndarray,
    tables: dict[str, Neighbours],
    embeddings: Any,
    ials: FoldingIals | None = None,
    anchor: int = 0,
    fallen: Falls | None = None,
) -> list[Reason]:
    """Return the reason of each item on one slate.

    Args:
        chosen: [n] places among the candidates, in slate order.
        drawn, propensity: [n], see `compose.explore`.
        history: [H] int64 known items, newest first; `events` the event of each.
        speaks: [H] bool, items that a reason may name, see `verdicts`.
        tables: neighbours by retriever.
        embeddings: [N + 1, d] float32, where towers answered.
        ials: as it answered.
        anchor: item_index that the answer is the like of, 0 for none.
        fallen: of the chosen, see `falls`; None where nobody was asked.
    """
    item, retriever = candidates.item[chosen], candidates.retriever[chosen]
    found: list[Reason | None] = [None] * len(chosen)
    of_code: dict[int, list[int]] = {}
    for place, (code, by_chance) in enumerate(zip(retriever.tolist(), drawn.tolist(), strict=True)):
        if by_chance:
            fact = {"propensity": float(propensity[place])}
            found[place] = Reason(kind="exploration", text="Something different, picked by chance", fact=fact)
        else:
            of_code.setdefault(code, []).append(place)
    for code, mine in sorted(of_code.items()):
        places = np.asarray(mine)
        if code == TRENDING:
            made = [
                Reason(kind="trending", text="Popular now", fact={"share": share})
                for share in catalogue.trending[item[places]].tolist()
            ]
        elif code == NEW:
            made = [_new(catalogue, index) for index in item[places].tolist()]
        elif code == POPULARITY:
            made = [_popular(catalogue, place) for place in catalogue.place[item[places]].tolist()]
        elif code == SIMILAR and embeddings is not None:
            near = cosines(anchor, item[places], embeddings).tolist()
            named = {"item_id": catalogue.ids[anchor]}
            text = f"Similar to {title_of(catalogue, anchor)}"
            made = [
                Reason(kind="similar", text=text, fact={**named, "cosine": cosine})
                if cosine > 0
                else _popular(catalogue, int(catalogue.place[index]))
                for index, cosine in zip(item[places].tolist(), near, strict=True)
            ]
        elif code == SIMILAR:
            score = together(anchor, tables, catalogue.num_items)
            most = max(float(score.max(initial=0)), 1e-12)
            made = [_together(catalogue, anchor, part) for part in (score[item[places]] / most).tolist()]
        elif fallen is not None and code not in _IMPERSONAL:
            cosine = candidates.scores["tower"][chosen[places]] if "tower" in candidates.scores else None
            made = _named_by_falls(
                catalogue, fallen.fall[:, places], fallen.place, item[places], history, events, speaks, cosine
            )
        elif code == LIST or (code == TOWER and embeddings is not None):
            if "tower" not in candidates.scores or embeddings is None:
                made = [_popular(catalogue, place) for place in catalogue.place[item[places]].tolist()]
            else:
                cosine = candidates.scores["tower"][chosen[places]]
                made = _similar(catalogue, embeddings, item[places], cosine, history, events, speaks)
        elif anchor and RETRIEVERS[code] in tables:
            share = candidates.scores[RETRIEVERS[code]][chosen[places]].tolist()
            made = [_together(catalogue, anchor, part) for part in share]
        elif code == AGAIN:  # the page says what they rest on
            made = [_popular(catalogue, place) for place in catalogue.place[item[places]].tolist()]
        elif code == IALS and ials is not None:
            made = _because(catalogue, ials_drops(ials, history, item[places]), item[places], history, events, speaks)
        else:
            name = RETRIEVERS[code]
            dropped = drops(candidates.evidence[name], tables[name].decay, item[places], catalogue.num_items)
            made = _because(catalogue, dropped, item[places], history, events, speaks)
        for place, reason in zip(mine, made, strict=True):
            found[place] = reason
    return [reason for reason in found if reason is not None]


def _new(catalogue: Catalogue, item: int) -> Reason:
    date = int(catalogue.published[item])
    fact = {"published_at": date} if date > UNDATED else {"events": float(catalogue.events[item])}
    return Reason(kind="new", text="New here", fact=fact)


def _because(
    catalogue: Catalogue,
    dropped: tuple[np.ndarray, np.ndarray],
    items: np.ndarray,
    history: np.ndarray,
    events: list[Past],
    speaks: np.ndarray,
) -> list[Reason]:
    drop, score = dropped
    # an item that comes back is no reason for itself (`Surface.suppression`)
    no = (history[: len(drop), None] == items) | ~speaks[: len(drop), None]
    drop = np.where(no, -np.inf, drop)
    best, past = drop.argmax(0), history.tolist()
    made = []
    for i, (row, whole) in enumerate(zip(best.tolist(), score.tolist(), strict=True)):
        if drop[row, i] <= 0:  # nothing else is known of the person, or nothing good
            made.append(_popular(catalogue, int(catalogue.place[items[i]])))
            continue
        title = title_of(catalogue, past[row])
        fact = {**_named(catalogue, past[row], events[row]), "share": float(drop[row, i] / whole)}
        made.append(Reason(kind="because", text=f"Because you {did(events[row])} {title}", fact=fact))
    return made


def _named_by_falls(
    catalogue: Catalogue,
    fall: np.ndarray,
    place: np.ndarray,
    items: np.ndarray,
    history: np.ndarray,
    events: list[Past],
    speaks: np.ndarray,
    cosines: np.ndarray | None,
) -> list[Reason]:
    fall = np.where((history[place, None] == items) | ~speaks[place, None], -np.inf, fall)
    best, most, past = place[fall.argmax(0)].tolist(), fall.max(0).tolist(), history.tolist()
    because = {row: f"Because you {did(events[row])} {title_of(catalogue, past[row])}" for row in set(best)}
    made = []
    for i, (row, by) in enumerate(zip(best, most, strict=True)):
        if by > 0:
            fact = {**_named(catalogue, past[row], events[row]), "fall": by}
            made.append(Reason(kind="because", text=because[row], fact=fact))
        else:
            made.append(_taste(catalogue, items[i], 0.0 if cosines is None else float(cosines[i])))
    return made


def _similar(
    catalogue: Catalogue,
    embeddings: Any,
    items: np.ndarray,
    cosines: np.ndarray,
    history: np.ndarray,
    events: list[Past],
    speaks: np.ndarray,
) -> list[Reason]:
    if not len(history):
        return [_taste(catalogue, item, cosine) for item, cosine in zip(items, cosines.tolist(), strict=True)]
    likeness = embeddings[items] @ embeddings[history].T
    likeness[(items[:, None] == history) | ~speaks] = -np.inf  # an item that comes back is like itself
    best, most, past = likeness.argmax(1).tolist(), likeness.max(1).tolist(), history.tolist()
    made = []
    for item, row, near, cosine in zip(items, best, most, cosines.tolist(), strict=True):
        if near <= 0:
            made.append(_taste(catalogue, item, cosine))
            continue
        fact = {**_named(catalogue, past[row], events[row]), "cosine": near}
        text = f"Similar to {title_of(catalogue, past[row])}, which you {did(events[row])}"
        made.append(Reason(kind="similar", text=text, fact=fact))
    return made


def _together(catalogue: Catalogue, anchor: int, share: float) -> Reason:
    fact = {"item_id": catalogue.ids[anchor], "share": share}
    return Reason(kind="together", text=f"Often chosen with {title_of(catalogue, anchor)}", fact=fact)


def _taste(catalogue: Catalogue, item: int, cosine: float) -> Reason:
    if cosine <= 0:  # a list that the caller gives, or a narrow filter, may hold nothing that is near
        return _popular(catalogue, int(catalogue.place[item]))
    return Reason(kind="taste", text="Close to what you have chosen so far", fact={"cosine": cosine})


def _popular(catalogue: Catalogue, place: int) -> Reason:
    if place <= max(1, catalogue.num_items // 10):
        return Reason(kind="popular", text="Many people choose this", fact={"place": place})
    return Reason(kind="catalogue", text="From the rest of the catalogue", fact={"place": place})


def _named(catalogue: Catalogue, row: int, event: Past) -> dict[str, object]:
    return {"item_id": catalogue.ids[row], "event": event.event, "event_id": event.event_id}
