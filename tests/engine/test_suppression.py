"""How long what a person did keeps an item from being shown again."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbill.bundle.open import Bundle
from playbill.bundle.policy import Policy, Surface, check_policy, read_policy
from playbill.engine.engine import Engine
from playbill.engine.suppression import suppressed
from playbill.engine.types import Request
from playbill.errors import BundleError
from playbill.features.fold import Past
from playbill.state.events import Event
from playbill.state.store import Store
from playbill.state.write import keep_newest
from playbill.tables.schema import EventKind

DAY = 86_400_000_000
AT = 900_000_000_000_000


def past(*events: tuple[str, int, float]) -> list[Past]:
    """Return events by name, item and days before AT."""
    rows = sorted(events, key=lambda event: -event[2])
    return [Past(i, item, name, round(AT - days * DAY)) for i, (name, item, days) in enumerate(rows)]


def test_each_event_hides_for_its_time_by_hand() -> None:
    days = {"purchase": 30.0, "dismiss": 7.0, "hide": None, "view": 0.0}
    events = past(
        ("purchase", 1, 29.9), ("purchase", 2, 30.0), ("dismiss", 3, 6), ("dismiss", 4, 8), ("hide", 5, 900),
        ("view", 6, 0), ("like", 7, 0), ("purchase", 8, 40), ("dismiss", 8, 1), ("dismiss", 9, -1),
    )  # fmt: skip
    seen = list(range(1, 10))
    # the last lies ahead of the request's moment, as events of a replayed moment may
    assert sorted(suppressed(days, events, seen, len(events), AT)) == [1, 3, 5, 8, 9]
    assert suppressed({}, events, seen, len(events), AT) == []


EVENTS = st.lists(
    st.tuples(st.sampled_from(["purchase", "dismiss", "view"]), st.integers(1, 12), st.floats(0, 60)), max_size=40
)
DAYS = st.dictionaries(st.sampled_from(["purchase", "dismiss"]), st.none() | st.floats(0, 40), max_size=2)


@settings(max_examples=300, deadline=None, database=None)
@given(events=EVENTS, days=DAYS, keep=st.integers(1, 8))
def test_what_the_store_dropped_never_lets_an_item_through_too_early(events: list, days: dict, keep: int) -> None:
    every = past(*events)
    seen = list(dict.fromkeys(event.item_id for event in every))
    exact = set(suppressed(days, every, seen, len(every), AT))
    told = {
        e.item_id for e in every
        if e.event in days and days[e.event] != 0
        and (days[e.event] is None or e.at > AT - round(days[e.event] * DAY))
    }  # fmt: skip
    assert exact == told
    kept = keep_newest(every, keep)
    assert exact <= set(suppressed(days, kept, seen, len(every), AT))


@pytest.fixture
def engine(bundle: Bundle, store: Store) -> Engine:
    surfaces = {
        "slate": Surface(),
        "shop": Surface(suppression={"purchase": 30.0, "dismiss": 7.0}),
        "all": Surface(suppression={}),
    }
    policy = check_policy(Policy(surfaces=surfaces))
    declared = store.declared
    assert declared is not None
    names = [*declared.events, *(EventKind(name=n) for n in ("purchase", "dismiss"))]
    store.declare(msgspec.structs.replace(declared, events=names))
    return Engine.open(dataclasses.replace(bundle, policy=policy), store)


def test_items_come_back_when_their_time_has_passed(engine: Engine, store: Store) -> None:
    person = 100_000_001

    def shown(surface: str, at: int = AT) -> set[int]:
        [slate] = engine.recommend([Request(user_id=person, k=1000, surface=surface, at=at)])
        [more] = engine.recommend([Request(user_id=person, k=1000, surface=surface, at=at, exclude=[
            item.item_id for item in slate.items])])  # fmt: skip
        return {item.item_id for item in (*slate.items, *more.items)}

    num_items = engine.catalogue.num_items
    assert len(shown("shop")) == num_items
    events = [("rate", 50, 1), ("purchase", 181, 20), ("dismiss", 100, 6), ("purchase", 258, 31)]
    store.append(
        [
            Event(event_id=f"e{i}", event=name, user_id=person, item_id=item, at=AT - days * DAY)
            for i, (name, item, days) in enumerate(events)
        ]
    )
    everything = shown("all")
    assert len(everything) == num_items
    assert everything - shown("slate") == {50, 181, 100, 258}  # whatever was seen, for ever
    assert everything - shown("shop") == {181, 100}
    assert everything - shown("shop", AT + 2 * DAY) == {181}
    assert everything - shown("shop", AT + 10 * DAY) == set()
    # and the very next answer knows
    store.append([Event(event_id="now", event="dismiss", user_id=person, item_id=1, at=AT)])
    assert everything - shown("shop") == {181, 100, 1}


def test_an_item_that_comes_back_is_no_reason_for_itself(engine: Engine, store: Store) -> None:
    slates = engine.recommend([Request(user_id=u, k=50, surface="all", at=AT) for u in (1, 13, 83, 196, 405)])
    again = 0
    for slate in slates:
        seen = set(store.profile(slate.user_id).seen)
        again += sum(item.item_id in seen for item in slate.items)
        assert all(item.reason.fact.get("item_id") != item.item_id for item in slate.items)
    assert again > 20


def test_what_a_policy_may_say_of_suppression() -> None:
    assert read_policy(b'{"surfaces": {"slate": {"suppression": {"hide": null}}}}').surface("slate").suppression == {
        "hide": None
    }
    with pytest.raises(BundleError, match=r"surfaces\.slate\.suppression\.purchase must be days >= 0"):
        check_policy(Policy(surfaces={"slate": Surface(suppression={"purchase": -1.0})}))
