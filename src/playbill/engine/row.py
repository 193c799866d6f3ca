"""One request on its way through the steps."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from playbill.bundle.policy import Surface
from playbill.bundle.rules import Rule
from playbill.engine.fresh import Stock
from playbill.engine.profile import Person
from playbill.engine.retrieve import Candidates, no_candidates
from playbill.engine.shelves import Draft
from playbill.engine.types import Removal, Request
from playbill.engine.wishes import Asked
from playbill.features.encoder import Arrays
from playbill.features.fold import Past


@dataclass(slots=True)
class Row:
    """One request on its way through the steps.

    Attributes:
        rung: where it stands now; steps may lower it.
        why: reasons for not standing higher, in the order in which they came up.
        left_out: [S] int64 items seen or excluded; `blocked` [N + 1] bool those and what is not available.
        eligible: items that could be shown.
        history, events: what may be used of the past; see `profile.People.newest`.
        speaks: [H] bool, whether an item of the history may be what something is because of.
        newcomers: [n] int64 items that places are kept for; None where there are none.
        stock: the catalogue that this request draws from: what its filter and the rules that block leave.
        rules: those of the policy that act on this request; `removed` is what its blocks took.
        anchor: item_index of the item whose like is wanted, 0 for none.
        listed: [L] int64 item_index that the request wants in order, None where it names none.
        drafts: shelves of its page, none for a slate.
        query: [d] float32, the person's vector; None without a tower.
        encoded: arrays of the batch and this request's place in them; None where they could not be made.
        tries: items of the history, the newest first, that models are asked without, for reasons.
        asked: what the person asks for in so many words, None for nothing.
        probabilities: by task, for each candidate; empty below the best rung.
        unread_context: keys of its context that nothing reads.
    """

    request: Request
    person: Person
    surface: Surface
    rung: str
    why: list[str]
    left_out: np.ndarray
    blocked: np.ndarray
    eligible: int
    stock: Stock
    rules: list[Rule] = field(default_factory=list)
    removed: list[Removal] = field(default_factory=list)
    history: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    events: list[Past] = field(default_factory=list)
    speaks: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    candidates: Candidates = field(default_factory=no_candidates)
    newcomers: np.ndarray | None = None
    anchor: int = 0
    listed: np.ndarray | None = None
    drafts: list[Draft] = field(default_factory=list)
    query: np.ndarray | None = None
    encoded: tuple[Arrays, int] | None = None
    tries: int = 0
    asked: Asked | None = None
    probabilities: dict[str, np.ndarray] = field(default_factory=dict)
    unread_context: list[str] = field(default_factory=list)
