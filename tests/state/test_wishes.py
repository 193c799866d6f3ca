"""What people ask for: kept under their id or their visit's, for good or until taken back; and events forgotten."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import polars as pl
import pytest

from playbill.cli import compose
from playbill.errors import RequestError, StateError
from playbill.features.fold import Profile
from playbill.state.decisions import people_keys
from playbill.state.events import Declared, Event
from playbill.state.settings import StoreSettings
from playbill.state.store import Store
from playbill.state.unload import run
from playbill.state.wishes import MAX_HIDDEN, MAX_LESS, Lean, Mark, Preference, Wish, Wishes
from playbill.tables.schema import EventKind

DECLARED = Declared(
    events=[EventKind(name="rate"), EventKind(name="view")], user_id_type="int64", item_id_type="string"
)
DAY_US = 86_400_000_000
DRAMA = Preference(kind=Lean.MORE, categories=["Drama"])


@pytest.fixture
def store(place: Path | str) -> Iterator[Store]:
    with Store.open(place, settings=StoreSettings(keep=4)) as opened:
        opened.declare(DECLARED)
        yield opened


def rate(event_id: int | str, item_id: str, at: int = 1_000, **who: int | str) -> Event:
    return Event(event_id=event_id, event="rate", item_id=item_id, at=at, **(who or {"user_id": 7}))  # type: ignore[arg-type]


def asked(store: Store, user: int | None = None, session: str | None = None) -> Wishes | None:
    with store.view([(user, session)]) as view:
        return view.wishes(user, session)


def hide(item: str, **more: object) -> Wish:
    return Wish(**{"user_id": 7, "mark": Mark.HIDDEN, "item_id": item, "at": 5, **more})  # type: ignore[arg-type]


def test_what_is_asked_for_is_kept_until_it_is_taken_back(store: Store, place: Path | str) -> None:
    before = store.version
    assert store.tell(hide("a")) and store.tell(hide("b", user_id="7"))
    assert store.tell(Wish(user_id=7, mark=Mark.LESS, item_id="c", at=9))
    assert store.tell(Wish(user_id=7, preferences=[DRAMA]))
    assert store.version == before + 4
    assert store.tell(hide("a")) is False and store.version == before + 4  # a second time says nothing new
    found = asked(store, 7)
    assert found is not None and found.user_id == 7 and found.session_id is None
    assert [m.item_id for m in found.hidden] == ["a", "b"] and [(m.item_id, m.at) for m in found.less] == [("c", 9)]
    assert found.preferences == [DRAMA] and asked(store, 8) is None and asked(store) is None
    assert store.tell(hide("a", taken_back=True)) and [m.item_id for m in asked(store, 7).hidden] == ["b"]
    assert store.tell(Wish(user_id=7, mark=Mark.LESS, item_id="c", at=20))  # as fresh as the last time
    assert asked(store, 7).less[0].at == 20
    assert store.tell(Wish(user_id=7, nothing=True)) and asked(store, 7) is None and list(store.every_wish()) == []
    assert store.tell(Wish(user_id=7, nothing=True)) is False


def test_a_visit_counts_beside_its_user_whose_preferences_stand_first(store: Store) -> None:
    store.tell(hide("a", user_id=None, session_id="s"))
    store.tell(Wish(session_id="s", preferences=[DRAMA]))
    store.tell(hide("b", session_id="s"))  # of the user alone, though the visit is named
    assert [m.item_id for m in asked(store, None, "s").hidden] == ["a"]
    both = asked(store, 7, "s")
    assert [m.item_id for m in both.hidden] == ["b", "a"] and both.preferences == [DRAMA]
    own = Preference(kind=Lean.NEVER, where="release_year < 1950")
    store.tell(Wish(user_id=7, preferences=[own]))
    assert asked(store, 7, "s").preferences == [own]


def test_wishes_of_nobody_and_ids_of_another_type_are_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="expected a user_id or a session_id, got neither"):
        store.tell(hide("a", user_id=None))
    with pytest.raises(RequestError, match="user_id: expected an int64 id"):
        store.tell(hide("a", user_id="jane"))
    with Store.open(tmp_path / "new") as empty, pytest.raises(StateError, match="knows no event names yet"):
        empty.tell(hide("a"))


def test_lists_are_bounded(store: Store) -> None:
    for n in range(MAX_LESS + 2):
        store.tell(Wish(user_id=7, mark=Mark.LESS, item_id=f"i{n}", at=n))
    assert [m.item_id for m in asked(store, 7).less] == [f"i{n}" for n in range(2, MAX_LESS + 2)]
    full = Wishes(user_id=8)
    full.hidden = [(f"i{n}", 1) for n in range(MAX_HIDDEN)]  # type: ignore[misc]
    store._tables.write(lambda txn: txn.put("wishes", people_keys(8, None)[0], msgspec.msgpack.encode(full)), {})
    with pytest.raises(RequestError, match="hides 10,000 items already"):
        store.tell(hide("more", user_id=8))
    assert store.tell(hide("i3", user_id=8)) is False and store.tell(hide("i3", user_id=8, taken_back=True))
    assert store.tell(hide("more", user_id=8))


def test_a_forgotten_event_leaves_log_and_profile_and_does_not_come_back(store: Store) -> None:
    store.append([rate(1, "a", 1_000), rate(2, "b", 2_000), rate(3, "a", 3_000), rate(4, "c", 4_000, user_id=8)])
    version, profile = store.version, store.profile(7)
    assert store.forget(7, None, 2)
    assert store.version == version + 1 and [e.event_id for _, _, e in store.events()] == [1, 3, 4]
    now = store.profile(7)
    assert [p.event_id for p in now.history] == [1, 3] and now.seen == ["a"] and now.num_events == 2
    assert now.version == profile.version + 1
    assert store.append([rate(2, "b", 2_000)]) == [False] and store.profile(7) == now  # a resend stays known
    assert store.forget(7, None, 2) is False and store.version == version + 1
    assert store.forget(7, None, 1) and store.profile(7).seen == ["a"]  # another event of it is there
    assert store.forget(7, None, 3)
    assert store.profile(7) == Profile(user_id=7, version=now.version + 2)
    assert [(f.event_id, f.sequence) for _, f in store.forgotten()] == [
        (2, version - 2),
        (1, version - 3),
        (3, version - 1),
    ]


def test_what_is_left_folds_to_what_it_would_have_been(store: Store, new_place) -> None:
    """The store keeps 4 events: forgetting one of them brings back the one that had made room."""
    events = [rate(n, f"i{n % 5}", 1_000 * n) for n in range(9)] + [rate("x", "i1", 500), rate("y", "z", user_id=8)]
    for event in events:
        store.append([event])
    for gone in (7, 5, "x", 8):
        assert store.forget(7, None, gone)
        events = [e for e in events if e.event_id != gone]
        with Store.open(new_place(), settings=StoreSettings(keep=4)) as other:
            other.declare(DECLARED)
            for event in events:
                other.append([event])
            mine, theirs = store.profile(7), other.profile(7)
            assert mine.history == theirs.history and mine.num_events == theirs.num_events
            assert set(mine.seen) == set(theirs.seen)
            assert [e for *_, e in store.events()] == [e for *_, e in other.events()]


def test_events_of_somebody_else_are_neither_forgotten_nor_told_of(store: Store) -> None:
    store.append(
        [rate(1, "a"), rate(2, "b", session_id="s"), Event(event_id=3, event="view", user_id=7, session_id="s")]
    )
    for user, session, event in ((8, None, 1), (7, None, 2), (None, "s", 3), (None, "t", 2), (7, None, "never")):
        with pytest.raises(RequestError, match=f"this person has no event {event!r}"):
            store.forget(user, session, event)
    assert store.forget(None, "s", 2) and store.session("s").history == []
    assert store.forget(7, "s", 3)  # without an item: the log alone held it
    assert [e.event_id for *_, e in store.events()] == [1]


def test_a_wrong_wish_does_not_spoil_the_commit_that_it_shares(store: Store) -> None:
    threads, failed = [], []

    def wrong() -> None:
        try:
            store.forget(8, None, 1)
        except RequestError:
            failed.append(1)

    store.append([rate(1, "a")])
    for n in range(20):
        threads += [
            threading.Thread(target=wrong),
            threading.Thread(target=store.append, args=([rate(f"n{n}", "b")],)),
            threading.Thread(target=store.tell, args=(hide(f"h{n}"),)),
        ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) == 20 and len(list(store.events())) == 21 and len(asked(store, 7).hidden) == 20


def test_files_of_the_log_forget_too(place: Path | str, tmp_path: Path) -> None:
    settings = compose("unload", [f"home={tmp_path}", f"state='{place}'", "by_day=true", "batch_rows=3"])
    days = [rate(n, f"i{n}", (n // 4) * DAY_US + n) for n in range(8)] + [rate("alone", "z", 9 * DAY_US)]

    def rows() -> set[int | str]:
        return set(pl.read_parquet(tmp_path / "days" / "events" / "**" / "*.parquet")["event_id"])

    with Store.open(place) as store:
        store.declare(DECLARED)
        store.append(days)
        store.forget(7, None, 0)
    run(settings)
    assert rows() == {*map(str, range(1, 8)), "alone"}
    untouched = {p: p.stat().st_ino for p in (tmp_path / "days").glob("events/day=1970-01-02/*.parquet")}
    with Store.open(place) as store:
        store.forget(7, None, 2)
        store.forget(7, None, "alone")  # the last one of the log: the folder still belongs to this store
        store.append([rate("next", "q", DAY_US)])
    run(settings)
    assert rows() == {*map(str, [1, *range(3, 8)]), "next"}
    assert not list((tmp_path / "days" / "events" / "day=1970-01-10").glob("*.parquet"))
    assert {p: p.stat().st_ino for p in untouched} == untouched
    with Store.open(place) as store:
        store.forget(7, None, "next")
        store.tell(Wish(user_id=7, preferences=[DRAMA, Preference(kind=Lean.NEVER, where="price > 5")]))
        store.tell(hide("a", user_id=None, session_id="s"))
    run(settings)
    assert "next" not in rows()
    run(compose("unload", [f"home={tmp_path}", f"state='{place}'"]))
    assert set(pl.read_parquet(tmp_path / "log" / "events.parquet")["event_id"]) == rows()
    wishes = pl.read_parquet(tmp_path / "log" / "wishes.parquet").sort("kind")
    assert wishes["kind"].to_list() == ["hidden item", "more", "never"]
    assert wishes["user_id"].to_list() == [None, 7, 7] and wishes["session_id"].to_list() == ["s", None, None]
    assert wishes["item_id"][0] == "a" and wishes["categories"].to_list()[1] == ["Drama"]
    assert wishes["where"][2] == "price > 5"
