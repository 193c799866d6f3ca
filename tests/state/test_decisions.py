"""Choices of creatives in the store: durable, remembered, and learned from once, in whatever order things arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from playbill.creative.posterior import Posterior, combined, updated
from playbill.errors import StateError
from playbill.state.decisions import Decision, Lesson
from playbill.state.events import Declared, Event
from playbill.state.settings import StoreSettings
from playbill.state.store import Store
from playbill.state.txn import FORMAT, LATER
from playbill.tables.schema import EventKind

AT = 1_000_000_000
WIDTH = 3
HOUR_US = 3_600_000_000


@pytest.fixture
def store(place: Path | str) -> Iterator[Store]:
    opened = Store.open(place, settings=StoreSettings(map_size_gb=0.1))
    kinds = [EventKind(name=name) for name in ("click", "seen", "rate")]
    opened.declare(Declared(events=kinds, user_id_type="int64", item_id_type="int64"))
    yield opened
    opened.close()


def decision(number: int, phi: np.ndarray, *, seen: str = "", half_life_us: int = 0, at: int = AT) -> Decision:
    """A choice among two, as the engine would have made it from a prior of mean 0."""
    lesson = Lesson(
        head="head", phi=phi.astype(np.float32).tobytes(), chance=0.2, score=0.0, reward="click", seen=seen,
        until=at + 72 * HOUR_US, half_life_us=half_life_us,
    )  # fmt: skip
    return Decision(
        decision_id=f"d{number}", request_id=f"r{number}", item_id=number % 7, chosen=100 + number, propensity=0.5,
        eligible=[100 + number, 1], propensities=[0.5, 0.5], at=at, position=0, policy="p", bundle="b",
        user_id=number % 3, session_id=f"s{number % 5}", lesson=lesson,
    )  # fmt: skip


def click(number: int, event: str = "click", name: str = "", at: int = AT + 1) -> Event:
    return Event(
        event_id=name or f"{event}{number}", event=event, user_id=1, at=at, decision_id=f"d{number}",
        creative_id=100 + number,
    )  # fmt: skip


def belief(store: Store) -> Posterior:
    with store.view() as view:
        learned = view.learned("head")
    assert learned is not None
    return combined(Posterior(np.zeros(WIDTH), np.eye(WIDTH)), *learned.sums())


def test_what_is_learned_is_one_newton_step_on_the_whole(store: Store) -> None:
    rng = np.random.default_rng(0)
    phi = rng.normal(size=(40, WIDTH)).astype(np.float32)
    clicked = np.flatnonzero(rng.random(40) < 0.3).tolist()
    store.record([decision(n, phi[n]) for n in range(40)])
    for n in clicked:
        store.append([click(n)])
    base = float(np.log(0.2 / 0.8))
    assert expit(base) == pytest.approx(0.2)
    reward = np.isin(np.arange(40), clicked).astype(float)
    start = Posterior(np.zeros(WIDTH), np.eye(WIDTH))
    expected = updated(start, phi.astype(float), reward, offset=base, steps=1)
    got = belief(store)
    np.testing.assert_allclose(got.mean, expected.mean, atol=1e-9)
    np.testing.assert_allclose(got.precision, expected.precision, atol=1e-9)
    with store.view() as view:
        learned = view.learned("head")
        assert (learned.impressions, learned.rewards) == (40, len(clicked))
        assert learned.version == view.learned_version <= view.version


@given(order=st.permutations(range(12)), half_life=st.sampled_from([0, HOUR_US]))
@settings(max_examples=8, deadline=None)
def test_any_order_of_decisions_and_clicks_teaches_the_same(
    new_place: Callable[[], Path | str], order: list[int], half_life: int
) -> None:
    """Six decisions at different hours and a click on each; that a click follows its decision is all that holds."""
    rng = np.random.default_rng(1)
    phi = rng.normal(size=(6, WIDTH))
    decisions = [decision(n, phi[n], half_life_us=half_life, at=AT + n * HOUR_US) for n in range(6)]
    found = []
    for steps in (list(range(12)), order):
        with Store.open(new_place(), settings=StoreSettings(map_size_gb=0.05)) as store:
            store.declare(Declared(events=[EventKind(name="click")], user_id_type="int64", item_id_type="int64"))
            done: set[int] = set()
            for step in steps:
                number = step % 6
                if number not in done:
                    done.add(number)
                    store.record([decisions[number]])
                else:
                    store.append([click(number, at=AT + (60 + step) * HOUR_US)])
            found.append(belief(store))
    np.testing.assert_allclose(found[0].mean, found[1].mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[0].precision, found[1].precision, rtol=1e-9, atol=1e-12)


def test_a_decision_teaches_once(store: Store) -> None:
    phi = np.array([1.0, 0, 0])
    store.record([decision(0, phi)])
    store.record([decision(0, -phi)])  # the same id again: the first one stands
    store.append([click(0), click(0, name="again")])
    store.append([click(0, name="and again"), click(0)])
    once = belief(store)
    with store.view() as view:
        assert (view.learned("head").impressions, view.learned("head").rewards) == (1, 1)
    assert once.mean[0] == pytest.approx((1 - 0.2) / (1 + 0.2 * 0.8))
    assert len(list(store.decisions())) == 1


def test_what_counts_as_a_reward(store: Store) -> None:
    phi = np.array([1.0, 0, 0])
    store.record([decision(n, phi) for n in range(4)])
    before = belief(store).mean[0]
    assert before < 0  # four were shown, nobody clicked yet
    late = click(0, at=AT + 72 * HOUR_US + 1)
    other = msgspec.structs.replace(click(1), creative_id=5)
    store.append([late, other, click(2, event="rate"), Event(event_id="x", event="click", user_id=1, decision_id="?")])
    assert belief(store).mean[0] == before
    store.append([msgspec.structs.replace(click(3), creative_id="103")])  # an id as text is the same id
    assert belief(store).mean[0] > before


def test_where_seeing_is_logged_only_what_was_seen_is_an_impression(store: Store) -> None:
    phi = np.array([1.0, 0, 0])
    store.record([decision(n, phi, seen="seen") for n in range(3)])
    with store.view() as view:
        assert view.learned("head") is None
    store.append([click(0, event="seen")])
    store.append([click(1)])  # who clicks has seen
    store.append([click(1, event="seen"), click(0, event="seen", name="twice")])
    with store.view() as view:
        assert (view.learned("head").impressions, view.learned("head").rewards) == (2, 1)


def test_what_is_older_weighs_less(store: Store) -> None:
    phi = np.array([1.0, 0, 0])
    store.record([decision(0, phi, half_life_us=HOUR_US)])
    store.record([decision(1, np.array([0, 1.0, 0]), half_life_us=HOUR_US, at=AT + 2 * HOUR_US)])
    precision = belief(store).precision - np.eye(WIDTH)
    np.testing.assert_allclose(np.diag(precision), [0.16 / 4, 0.16, 0])


def test_people_and_visitors_are_remembered_apart(store: Store) -> None:
    phi = np.zeros(WIDTH)
    store.record([decision(1, phi), decision(8, phi)])  # the same item, people 1 and 2
    nobody = msgspec.structs.replace(decision(9, phi), user_id=None)
    store.record([nobody])
    with store.view() as view:
        assert view.shown(1, None)[1].creative_id == 101 and view.shown(2, "s1")[1].creative_id == 108
        assert view.shown(None, "s4")[2].creative_id == 109 and view.shown(None, "s1") == {} == view.shown(None, None)
        assert view.shown(1, None)[1].session_id == "s1"


def test_each_session_of_a_person_is_remembered_as_far_as_there_is_room(store: Store) -> None:
    def show(chosen: int, session: str | None, item: int = 1, user: int | None = 1) -> None:
        again = decision(chosen, np.zeros(WIDTH), at=AT + chosen)
        store.record([msgspec.structs.replace(again, user_id=user, session_id=session, item_id=item, chosen=chosen)])

    def shown(session: str | None, item: int = 1) -> list[int | None]:
        with store.view([(1, session)]) as view:
            last = view.shown(1, session)[item]
        return [last.creative_id, last.of_session(session)]

    show(10, "a")
    show(11, "b")
    assert shown("a") == [11, 10] and shown("b") == [11, 11] and shown("c") == [11, None] == shown(None)
    show(12, "a")  # what a showed was withdrawn: its newest counts
    assert shown("a") == [12, 12] and shown("b") == [12, 11]
    show(13, None)
    assert shown("a") == [13, 12] and shown("b") == [13, 11] and shown(None) == [13, None]
    for n, session in enumerate("cde"):
        show(20 + n, session)
    assert [shown(s)[1] for s in "abcde"] == [12, None, 20, 21, 22]  # the last one and three more
    # of a visitor, and then it is said who they are
    show(30, "v", item=2, user=None)
    show(31, "v", item=1, user=None)
    assert shown("v", item=2) == [30, 30] and shown("v") == [22, 31]
    with store.view() as view:
        assert view.shown(None, "a") == {} == view.shown(2, "a")  # a person's sessions stand in their own row alone
        assert view.shown(2, "v")[1].of_session("v") == 31
    for item in range(600):
        show(1000 + item, "f", item=item)
    with store.view() as view:
        assert len(view.shown(1, "f")) == 500 and 99 not in view.shown(1, "f")


def test_decisions_outlive_the_process_and_come_back_in_order(store: Store) -> None:
    made = [decision(n, np.ones(WIDTH)) for n in range(5)]
    store.record(made)
    version, mean = store.version, belief(store).mean
    store.close()
    with Store.open(store.path, readonly=True) as again:
        found = [d for _, d in again.decisions()]
        assert [msgspec.structs.replace(d, lesson=None) for d in found] == [
            msgspec.structs.replace(d, lesson=None) for d in made
        ]
        assert all(d.lesson.counted for d in found) and again.version == version
        np.testing.assert_array_equal(belief(again).mean, mean)
        assert [d.decision_id for _, d in again.decisions(after=next(iter(again.decisions()))[0])] == [
            "d1",
            "d2",
            "d3",
            "d4",
        ]
        with pytest.raises(StateError, match="read-only"):
            again.record(made)


def test_creatives_of_a_store_change_by_name(store: Store) -> None:
    store.set_creatives({7: {"status": "withdrawn"}, "x": {"item_id": 3}})
    store.set_creatives({7: {"locale": "de"}})
    with store.view() as view:
        assert view.creatives() == {7: {"status": "withdrawn", "locale": "de"}, "x": {"item_id": 3}}
        assert view.creatives_version == view.version and view.catalogue_version == 0


def test_a_store_of_format_1_is_read_and_grows(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state", settings=StoreSettings(map_size_gb=0.1))
    store.declare(Declared(events=[EventKind(name="rate")], user_id_type="int64", item_id_type="int64"))
    store.append([Event(event_id=1, event="rate", user_id=1, item_id=1, at=AT)])
    store.close()
    later = [name.encode() for name in LATER]
    with lmdb.open(str(tmp_path / "state"), max_dbs=16) as env:  # as it was before there were creatives
        with env.begin(write=True) as txn:
            for name in later:
                txn.drop(env.open_db(name, txn=txn))
            txn.put(b"format", (1).to_bytes(8, "big"), db=env.open_db(b"meta", txn=txn))
    with Store.open(tmp_path / "state", readonly=True) as old, old.view() as view:
        assert view.creatives() == {} == view.shown(1, None) and view.learned("head") is None
        assert list(old.decisions()) == [] and old.profile(1) is not None
    with Store.open(tmp_path / "state") as grown:
        grown.record([decision(1, np.ones(WIDTH))])
        assert grown.profile(1) is not None and len(list(grown.decisions())) == 1
        assert int.from_bytes(grown.meta(b"format"), "big") == FORMAT == 3


def test_one_head_has_one_width(store: Store) -> None:
    store.record([decision(1, np.ones(WIDTH))])
    with pytest.raises(StateError, match="has learned 3 numbers, a decision brings 4"):
        store.record([decision(2, np.ones(4))])
    assert len(list(store.decisions())) == 1  # nothing of it was stored
