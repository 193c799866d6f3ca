"""Visitors without an id: answered by what their request tells, and nothing of them is kept, in no store and no log."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from playbill.engine.engine import Engine
from playbill.engine.types import Recent, Request
from playbill.serving import load
from playbill.serving.http import Api
from playbill.state.store import Store

FILMS = [50, 181, 172, 210, 174]  # adventures of the early eighties


@pytest.fixture
def own_home(sealed_home: Path, tmp_path: Path) -> Path:
    for name in ("bundles", "state"):
        shutil.copytree(sealed_home / name, tmp_path / "home" / name)
    return tmp_path / "home"


@pytest.fixture
def server(own_home: Path, free_ports: Any) -> Iterator[tuple[str, Store]]:
    store = Store.open(own_home / "state")
    api = Api(store)
    api.use(*load.open_engine(load.bundle_path(own_home, "current"), store))
    [port] = free_ports(1)
    # as `serving.plain` runs it
    server = uvicorn.Server(uvicorn.Config(api, port=port, access_log=False, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield f"http://127.0.0.1:{port}", store
    server.should_exit = True
    thread.join(10)
    store.close()


def post(url: str, path: str, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            found: dict[str, Any] = json.loads(response.read())
    except urllib.error.HTTPError as error:
        found = json.loads(error.read())
    return found


def scan(home: Path, marks: list[str]) -> set[str]:
    """Return the marks that stand in any file below a folder, as text, as utf-16, or as the bytes of a number."""
    found = set()
    for path in home.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            found |= {m for m in marks if m.encode() in data or m.encode("utf-16-le") in data}
    return found


def test_what_a_request_tells_is_used_and_nothing_of_it_is_kept(
    server: tuple[str, Store], own_home: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    url, store = server
    marks = [f"zebra{n}fish" for n in range(6)]
    before = store.version
    with caplog.at_level(logging.DEBUG):
        for n, film in enumerate(FILMS * 4):
            recent = [{"item_id": film, "event": "rate", "value": 5, "ago_s": 5}]
            body = {"recent": recent, "context": {"device": marks[0], "referrer": marks[1]}, "k": 5}
            headers = {"user-agent": marks[2], "x-forwarded-for": marks[3], "cookie": f"visitor={marks[4]}"}
            slate = post(url, "/v1/recommend", body, **headers)
            assert slate["user_id"] is None and slate["session_id"] is None and slate["rung"] == "full"
            post(url, "/v1/home", body, **headers)
            if not n % 5:  # mistakes are logged and answered: without what was wrong in them
                post(url, "/v1/recommend", {**body, "surface": "similar"}, **headers)
                post(url, "/v1/recommend", {**body, "nonsense": marks[5]}, **headers)
        assert store.version == before  # nothing was written
        told = "".join(capfd.readouterr()) + "".join(record.getMessage() for record in caplog.records)
        assert not scan(own_home, marks) and not [m for m in marks if m in told]
        # the scanner does find what is kept: a visit that gives an id is
        event = {"event": "rate", "session_id": marks[0], "item_id": 50, "value": 5}
        assert post(url, "/v1/events", event)["new"] == 1
    assert scan(own_home, marks) == {marks[0]}


def test_what_happened_in_a_visit_changes_the_answer_as_a_stored_session_would(own_home: Path) -> None:
    with Store.open(own_home / "state") as store:
        _, engine = load.open_engine(load.bundle_path(own_home, "current"), store)
        at = 893_000_000_000_000
        recent = [Recent(item_id=f, event="rate", value=5.0, ago_s=60.0 - n) for n, f in enumerate(FILMS)]
        told = Request(recent=recent, k=10, at=at, request_id="r")
        nobody, visitor = engine.recommend([Request(k=10, at=at, request_id="r"), told])
        assert not set(FILMS) & {i.item_id for i in visitor.items}
        assert len({i.item_id for i in visitor.items} - {i.item_id for i in nobody.items}) >= 2
        assert {i.reason.kind for i in visitor.items} & {"similar", "because"}
        assert visitor.profile_version == 0 and visitor.rung == "full" and nobody.rung == "popularity"
        stored = session_of(engine, store, at)
        assert [i.item_id for i in stored.items] == [i.item_id for i in visitor.items]
        # told in another order, it is put in that of time
        again = engine.recommend([Request(recent=recent[::-1], k=10, at=at, request_id="r")])[0]
        assert [i.item_id for i in again.items] == [i.item_id for i in visitor.items]


def session_of(engine: Engine, store: Store, at: int) -> Any:
    from playbill.state.events import Event

    store.append(
        [
            Event(event_id=f"v{n}", session_id="visit", event="rate", item_id=f, value=5.0,
                  at=at - round((60 - n) * 1e6))
            for n, f in enumerate(FILMS)
        ]
    )  # fmt: skip
    return engine.recommend([Request(session_id="visit", k=10, at=at, request_id="r")])[0]


def test_it_stands_behind_what_is_known_of_somebody(own_home: Path) -> None:
    with Store.open(own_home / "state") as store:
        _, engine = load.open_engine(load.bundle_path(own_home, "current"), store)
        known = Request(user_id=196, k=10, request_id="r")
        recent = [Recent(item_id=f, event="rate", value=5.0) for f in FILMS]
        before, after = engine.recommend([known, Request(user_id=196, k=10, request_id="r", recent=recent)])
        assert [i.item_id for i in before.items] != [i.item_id for i in after.items]
        assert not set(FILMS) & {i.item_id for i in after.items}
        assert after.profile_version == before.profile_version


@pytest.mark.parametrize(
    ("recent", "field", "reason"),
    [
        ([{"item_id": 1, "event": "adore"}], "recent[0].event", "expected one of rate, got 'adore'"),
        ([{"item_id": "x", "event": "rate"}], "recent[0].item_id", "expected an int64 id"),
        ([{"item_id": 1, "event": "rate", "ago_s": -1}], "recent[0].ago_s", "Expected `float` >= 0"),
        ([{"item_id": 1}], "recent[0].event", "missing required field"),
        ([{"item_id": 1, "event": "rate"}] * 201, "recent", "of length <= 200"),
    ],
)
def test_what_cannot_be_understood_is_named(
    server: tuple[str, Store], recent: list[dict[str, Any]], field: str, reason: str
) -> None:
    problem = post(server[0], "/v1/recommend", {"recent": recent})
    assert problem["field"] == field and reason in problem["reason"]
