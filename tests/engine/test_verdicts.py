"""What a person said was bad is nothing to recommend by: no shelf and no reason is because of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from playbill.bundle.open import Bundle
from playbill.bundle.pages import Form, ShelfKind, ShelfPlan
from playbill.bundle.policy import Policy, Surface
from playbill.engine.engine import Engine
from playbill.engine.types import Request
from playbill.engine.verdicts import against
from playbill.features.fold import Past
from playbill.state.events import Event
from playbill.state.store import Store
from playbill.tables.schema import EventKind

AT = 889_000_000_000_000
KINDS = [
    EventKind(name="rate", unit="stars", low=1, high=5),
    EventKind(name="buy", utility=5),
    EventKind(name="look", utility=0),
    EventKind(name="return", utility=-3),
    EventKind(name="pay", unit="EUR", low=0),
]


@pytest.mark.parametrize(
    ("events", "speaks"),
    [
        ([("rate", 1.0)], False),
        ([("rate", 2.0)], False),
        ([("rate", 3.0)], True),
        ([("rate", 5.0), ("rate", 1.0)], False),  # the newest counts
        ([("rate", 1.0), ("rate", 5.0)], True),
        ([("rate", 1.0), ("look", None)], False),
        ([("rate", None)], True),
        ([("look", None)], False),
        ([("look", None), ("buy", None)], True),
        ([("buy", None), ("return", None)], False),
        ([("pay", 0.5)], True),  # a range that is open says nothing of what is much
        ([("whatever", 0.0)], True),
    ],
)
def test_what_speaks_for_an_item(events: list[tuple[str, float | None]], speaks: bool) -> None:
    history = [Past(n, 7, name, AT + n, value) for n, (name, value) in enumerate(events)]
    assert (against(history, KINDS) == frozenset()) is speaks
    assert against(history, []) == frozenset()


def disliking(store: Store, user: int, bad: list[int], good: list[int]) -> None:
    rated = [*((item, 5.0) for item in good), *((item, 1.0) for item in bad)]
    store.append(
        [
            Event(event_id=f"v{n}", event="rate", user_id=user, item_id=item, value=value, at=AT - 1_000_000 * (50 - n))
            for n, (item, value) in enumerate(rated)
        ]
    )


def test_no_shelf_and_no_reason_stands_on_what_was_disliked(bundle: Bundle, store: Store) -> None:
    engine, bad, good = Engine.open(bundle, store), [1, 50, 56], [172, 181]
    disliking(store, 70_001, bad, good)
    page = engine.pages([Request(user_id=70_001, request_id="p", at=AT, surface="home", k=8)])[0][0]
    because = [shelf for shelf in page.shelves if shelf.kind == "because"]
    assert because and {shelf.fact["item_id"] for shelf in because} <= set(good)
    slate = engine.recommend([Request(user_id=70_001, request_id="s", at=AT, k=40)])[0]
    named = [i.reason.fact["item_id"] for i in slate.items if i.reason.kind in ("because", "similar")]
    named += [i.reason.fact["item_id"] for s in page.shelves for i in s.items if i.reason.kind == "because"]
    assert named and set(named) <= set(good)


def test_who_disliked_all_of_it_is_told_of_none_of_it(bundle: Bundle, store: Store) -> None:
    engine = Engine.open(bundle, store)
    disliking(store, 70_002, [1, 50, 56], [])
    page = engine.pages([Request(user_id=70_002, request_id="p", at=AT, surface="home", k=8)])[0][0]
    assert page.shelves and "because" not in [shelf.kind for shelf in page.shelves]
    slate = engine.recommend([Request(user_id=70_002, request_id="s", at=AT, k=20)])[0]
    assert len(slate.items) == 20 and not {i.reason.kind for i in slate.items} & {"because", "similar"}


def test_a_shelf_that_is_worth_nothing_is_not_shown(bundle: Bundle, store: Store) -> None:
    plans = [ShelfPlan(kind=ShelfKind.POPULAR), ShelfPlan(kind=ShelfKind.CATEGORY, most=5)]
    # an objective that nothing here gives anything to: every item is worth the same, and that is nothing
    surface = Surface(form=Form.HOME, shelves=plans, most_shelves=6, weights={"ials": 1.0})
    silent = dataclasses.replace(bundle, policy=Policy(surfaces={"slate": Surface(), "home": surface}))
    page = Engine.open(silent, store).pages([Request(user_id=196, request_id="p", at=AT, surface="home", k=8)])[0][0]
    worth = np.asarray([shelf.expected_utility for shelf in page.shelves])
    assert len(worth) == 1 or (worth > 0).all()
