"""The slate log of a real server: answered again equal, damage named, people erased, read by `measure`."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import zip_longest
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import polars as pl
import pytest

from playbill.bundle.write import publish
from playbill.cli import compose, main
from playbill.engine.engine import Engine
from playbill.engine.types import Recent, Request
from playbill.measure.off_policy.read import run as value
from playbill.measure.off_policy.settings import OffPolicyQuestion
from playbill.measure.settings import MeasureSettings
from playbill.serving import load
from playbill.serving.figures.counts import Counts
from playbill.serving.http import Api
from playbill.serving.processes import wait_until
from playbill.serving.slatelog import files
from playbill.serving.slatelog.content import Entry
from playbill.serving.slatelog.lines import Catalogue, Damaged, End, Logged, Row, encode
from playbill.serving.slatelog.replay import replay
from playbill.serving.slatelog.settings import SlateLogSettings
from playbill.serving.slatelog.writer import SlateLog
from playbill.serving.watch_settings import WatchSettings
from playbill.serving.watching import begin_watching
from playbill.state.ingest import run as ingest
from playbill.state.keys import id_key
from playbill.state.store import Store
from playbill.state.wishes import Mark, Wish


class Plain:
    """A server of one process that logs its slates."""

    def __init__(self, home: Path, port: int) -> None:
        command = [sys.executable, "-m", "playbill.serving.plain", f"home={home}", f"port={port}", "slates=true"]
        self.home, self.url, self.process = home, f"http://127.0.0.1:{port}", subprocess.Popen(command, env=os.environ)
        assert wait_until(lambda: self._answers() or self.process.poll() is not None, 60)
        assert self.process.poll() is None, "it ended, and another process answers on its port"

    def post(self, path: str, body: Any, **headers: str) -> dict[str, Any]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), given)
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found

    def stop(self) -> list[Path]:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        return files.closed(self.home / "slates")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + "/v1/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@pytest.fixture
def start(free_ports: Any) -> Iterator[Callable[[Path], Plain]]:
    servers: list[Plain] = []

    def begin(home: Path) -> Plain:
        servers.append(Plain(home, free_ports(1)[0]))
        return servers[-1]

    yield begin
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@pytest.fixture
def own_home(creative_home: Path, tmp_path: Path) -> Path:
    shutil.copytree(creative_home, tmp_path / "home", ignore=shutil.ignore_patterns("tables", "runs"))
    return tmp_path / "home"


def mixed(server: Plain, rounds: int, seed: int) -> int:
    """Send requests of every kind, with events and changes of the catalogue in between; return how many were slates."""
    rng = np.random.default_rng(seed)
    films = [int(f) for f in rng.choice(np.arange(1, 1600), 200, replace=False)]
    asked = 0
    for n in range(rounds):
        user, film = int(rng.integers(1, 900)), films[n % 200]
        recent = [{"item_id": films[k], "event": "rate", "value": 5, "ago_s": 60 - k} for k in range(3)]
        bodies: list[dict[str, Any]] = [
            {"user_id": user, "k": 12},
            {"user_id": user, "session_id": f"visit-{n % 7}", "exploration": 0.4},
            {"session_id": f"visit-{n % 7}", "k": 8},
            {"k": 5},
            {"user_id": 10_000_000 + n},
            {"user_id": user, "filter": "release_year < 1995", "exclude": films[:20]},
            {"user_id": user, "surface": "similar", "item_id": film},
            {"user_id": user, "surface": "rerank", "items": films[:30]},
            {"surface": "trending", "k": 6, "at": 893_000_000_000_000},
            {"user_id": user, "recent": recent, "context": {"device": "tv"}},
        ]
        body = bodies[n % len(bodies)]
        late = {"x_playbill_deadline_ms": "1"} if n % 9 == 4 else {}
        try:
            slate = server.post("/v1/recommend", body, **late)
        except urllib.error.HTTPError as error:
            assert late and error.code == 503  # it waited longer than it may take
            slate = server.post("/v1/recommend", body)
        server.post("/v1/home", {"user_id": user, "k": 4})
        asked += 2
        shown = slate["items"][0]
        event = {"event": "rate", "item_id": shown["item_id"], "value": int(rng.integers(1, 6)),
                 **({"user_id": user} if "user_id" in body else {"session_id": f"visit-{n % 7}"}),
                 **({"decision_id": shown["decision_id"], "creative_id": shown["creative_id"]}
                    if "decision_id" in shown else {})}  # fmt: skip
        server.post("/v1/events", event)
        if n % 8 == 3:
            server.post("/v1/items", {"item_id": film, "available": False})
        if n % 16 == 5:
            server.post("/v1/items", {"item_id": 50_000 + n, "title": f"New {n}", "categories": ["Drama"]})
            server.post("/v1/recommend", {"user_id": user, "filter": "item_id >= 50000"})
            asked += 1
        if n % 6 == 1:
            who = {"user_id": user} if "user_id" in body else {"session_id": f"visit-{n % 7}"}
            kind = ("less_like_this", "not_this_item")[n % 12 == 1]
            server.post("/v1/feedback", {**who, "item_id": film, "kind": kind})
            server.post("/v1/recommend", {**who, "k": 6})
            asked += 1
        if n % 12 == 7 and shown.get("creative_id") is not None:
            server.post("/v1/creatives", {"creative_id": shown["creative_id"], "withdrawn": True})
    return asked


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def test_what_a_server_answered_is_answered_again_through_events_swaps_and_a_new_catalogue(
    own_home: Path, versions: list[str], start: Callable[[Path], Plain], capsys: pytest.CaptureFixture[str]
) -> None:
    server = start(own_home)
    asked = mixed(server, 60, seed=1)
    publish(own_home / "bundles", versions[1])
    assert wait_until(lambda: server.post("/v1/recommend", {"k": 1})["bundle"] == versions[1], 30)
    asked += mixed(server, 20, seed=2)
    publish(own_home / "bundles", versions[0])
    assert wait_until(lambda: server.post("/v1/recommend", {"k": 1})["bundle"] == versions[0], 30)
    asked += mixed(server, 20, seed=3)
    assert asked >= 200
    [path] = server.stop()
    assert not list((own_home / "slates").glob("*.open"))
    lines = [line for _, line in files.read(path)]
    slates = [line for line in lines if isinstance(line, Logged)]
    assert {True, False} == {line.page for line in slates} and any(line.late for line in slates)
    assert {json.loads(bytes(line.answer))["bundle"] for line in slates} == set(versions)
    assert sum(isinstance(line, Catalogue) for line in lines) > 5 and isinstance(lines[-1], End)
    # and answers that were given after all this, by the state as it is now, would be others
    assert main(["replay", str(path), f"home={own_home}", "tolerance=0"]) == 0, said(capsys)
    told = said(capsys)
    assert f"{len(slates)} slates, {len(slates)} equal byte for byte" in told and "DIFFER" not in told
    assert main(["replay", f"home={own_home}"]) == 0
    # a log in which a score was changed with care for every checksum is found out by answering again
    where = lines.index(slates[40])
    lines[where] = raise_score(slates[40])
    forged = own_home / "forged.jsonl.zst"
    write(forged, lines[:-1], lines[-1])
    capsys.readouterr()
    assert main(["replay", str(forged), f"home={own_home}"]) == 1
    told = said(capsys)
    assert f"line {where + 1}, request {slates[40].request.request_id}: " in told and ".score: logged" in told


def raise_score(line: Logged) -> Logged:
    answer = json.loads(bytes(line.answer))
    items = answer["items"] if "items" in answer else answer["shelves"][0]["items"]
    items[0]["score"] += 0.01
    return msgspec.structs.replace(line, answer=msgspec.Raw(json.dumps(answer).encode()))


def write(path: Path, lines: list[Any], end: End) -> None:
    """Write a closed file of these lines, with an end that speaks of them."""
    data = b"".join(encode(line) for line in lines)
    slates = sum(isinstance(line, Logged) for line in lines)
    end = msgspec.structs.replace(end, lines=len(lines), slates=slates, sha256=hashlib.sha256(data).hexdigest())
    path.write_bytes(files.compressed(data + encode(end)))


@pytest.fixture(scope="module")
def logged(creative_home: Path, tmp_path_factory: pytest.TempPathFactory, free_ports: Any) -> tuple[Path, Path]:
    """A home and the closed file of a server that answered there. Copied before anything is done to it."""
    home = tmp_path_factory.mktemp("logged") / "home"
    shutil.copytree(creative_home, home, ignore=shutil.ignore_patterns("tables", "runs"))
    server = Plain(home, free_ports(1)[0])
    try:
        mixed(server, 30, seed=4)
    finally:
        closed = server.stop()
    [path] = closed
    return home, path


@pytest.fixture
def copy(logged: tuple[Path, Path], tmp_path: Path) -> Path:
    """The closed file, in a folder of slates of its own."""
    (tmp_path / "slates").mkdir()
    return Path(shutil.copy(logged[1], tmp_path / "slates"))


def test_a_changed_byte_is_found_and_named(
    logged: tuple[Path, Path], copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, path = logged
    raw = b"".join(encode(line) for _, line in files.read(path))
    lines = raw.split(b"\n")[:-1]
    number = next(n for n, line in enumerate(lines, 1) if line.startswith(b'{"kind":"slate"'))
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(lines[number - 1]), 20):  # anywhere in it, its checksum included
        start = len(b"\n".join(lines[: number - 1])) + (number > 1)
        one = bytearray(raw)
        one[start + place] ^= 1
        copy.write_bytes(files.compressed(bytes(one)))
        with pytest.raises(Damaged, match=f"line {number}: |behind line"):
            list(files.read(copy))
    assert main(["replay", str(copy), f"home={home}"]) == 1
    assert f"{copy} line {number}: a byte was changed" in said(capsys)
    # bytes of the compressed file, and a file that was cut off, between lines or within one
    data = path.read_bytes()
    found = 0
    for place in rng.integers(0, len(data), 20):
        copy.write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
        try:
            assert b"".join(encode(line) for _, line in files.read(copy)) == raw  # a bit that zstd does not need
        except Damaged as error:
            assert "line" in str(error)
            found += 1
    assert found > 10
    for cut in (raw[: raw.rfind(b"\n", 0, -1) + 1], raw[:-200]):
        copy.write_bytes(files.compressed(cut))
        with pytest.raises(Damaged, match="cut off"):
            list(files.read(copy))
    # a line that is missing, with the lines around it whole
    copy.write_bytes(files.compressed(b"\n".join([*lines[:number], *lines[number + 1 :]]) + b"\n"))
    with pytest.raises(Damaged, match="the end speaks of"):
        list(files.read(copy))


def test_what_a_killed_server_left_is_closed_by_the_next_one(
    own_home: Path, start: Callable[[Path], Plain], capsys: pytest.CaptureFixture[str]
) -> None:
    server = start(own_home)
    for user in range(1, 31):
        server.post("/v1/recommend", {"user_id": user})
    folder = own_home / "slates"

    def slates(path: Path) -> int:
        return sum(isinstance(line, Logged) for _, line in files.read(path))

    [left] = folder.glob("*.open")
    assert wait_until(lambda: slates(left) == 30, 10)
    server.process.kill()
    server.process.wait()
    with left.open("ab") as file:
        file.write(b'{"kind":"slate","half a line')  # as a kill in the middle of a write leaves it
    second = start(own_home)
    assert wait_until(lambda: len(files.closed(folder)) == 1, 10)
    [path] = files.closed(folder)
    assert path.name.startswith(left.name.removesuffix(".jsonl.open")) and not left.exists()
    assert slates(path) == 30 and files.end_of(path).lost == 28
    assert main(["slates", f"home={own_home}"]) == 0
    assert "30 slates" in (told := said(capsys)) and "28 bytes lost" in told
    second.stop()
    assert main(["replay", f"home={own_home}", "tolerance=0"]) == 0
    assert "30 equal byte for byte" in said(capsys)


def test_a_person_is_taken_out_and_the_others_replay(
    logged: tuple[Path, Path], copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, path = logged
    shutil.copytree(home / "bundles", tmp_path / "bundles")
    lines = [line for _, line in files.read(path)]
    people = [line.request.user_id for line in lines if isinstance(line, Logged) and line.request.user_id is not None]
    user = next(u for u in people if isinstance(u, int) and u < 1000)
    visit = "visit-1"
    mine = [
        line for line in lines
        if isinstance(line, Logged) and (line.request.user_id == user or line.request.session_id == visit)
    ]  # fmt: skip
    assert main(["slates", "erase", f"home={tmp_path}", f"user_id={user}", f"session_ids=[{visit}]"]) == 0
    left = [line for _, line in files.read(copy)]
    rows = sum(isinstance(line, Row) for line in lines) - sum(isinstance(line, Row) for line in left)
    assert f"{len(mine) + rows} lines erased from 1 files" in said(capsys) and rows >= 2
    raw = b"".join(encode(line) for line in left)
    assert visit.encode() not in raw and f'"user_id":{user},'.encode() not in raw
    assert not any(isinstance(line, Row) and line.key.endswith(id_key(user)) for line in left)
    assert files.end_of(copy).erased == 1
    assert main(["replay", f"home={tmp_path}", "tolerance=0"]) == 0
    slates = sum(isinstance(line, Logged) for line in lines) - len(mine)
    assert f"{slates} slates, " in (told := said(capsys)) and "DIFFER" not in told
    # what a server writes still is named, not passed over
    shutil.copy(copy, aside := copy.with_name(copy.name.replace(".zst", ".open")))
    aside.write_bytes(b"".join(encode(line) for line in lines[:-1]))
    assert main(["slates", "erase", f"home={tmp_path}", f"user_id={user}"]) == 1
    assert "still hold lines of theirs" in said(capsys)


def test_it_is_a_decisions_table_that_measure_reads(
    logged: tuple[Path, Path], copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, path = logged
    assert main(["slates", "export", f"home={tmp_path}"]) == 0
    assert main(["unload", f"home={home}"]) == 0
    tables = tmp_path / "slates" / "decisions"
    decisions = pl.read_parquet(tables / "decisions.parquet")
    answers = [json.loads(bytes(line.answer)) for _, line in files.read(path) if isinstance(line, Logged)]
    shown = [i for a in answers for part in (a.get("shelves") or [a]) for i in part["items"]]
    assert len(decisions) == len(shown) == decisions["decision_id"].n_unique()
    assert decisions["chosen"].to_list() == [str(i["item_id"]) for i in shown]
    assert decisions["propensity"].to_list() == [i["propensity"] for i in shown]
    assert 0 < decisions["propensity"].min() < 1  # some were explored
    assert decisions["user_id"].null_count() == sum(
        len(part["items"]) for a in answers if a["user_id"] is None for part in (a.get("shelves") or [a])
    )
    context = json.loads(decisions["context"][0])
    assert context["score"] == shown[0]["score"] and context["reason"] == shown[0]["reason"]["kind"]
    # events name the decision of an item's creative, which stands at the same request and position
    assert main(["slates", "export", f"home={tmp_path}", "creatives=true"]) == 0
    capsys.readouterr()
    both = pl.read_parquet(tables / "decisions.parquet")
    assert set(both["kind"]) == {"item", "creative"} and both["decision_id"].is_unique().all()
    made = {d["decision_id"]: d for d in pl.read_parquet(home / "log" / "decisions.parquet").iter_rows(named=True)}
    mine = both.filter(kind="creative")
    assert len(mine) == len(made) and all(
        (d["chosen"], d["propensity"]) == (made[d["decision_id"]]["chosen"], made[d["decision_id"]]["propensity"])
        for d in mine.iter_rows(named=True)
    )
    shutil.copy(home / "log" / "events.parquet", tables)
    slates = both.filter(~pl.col("request_id").is_in([a["request_id"] for a in answers if "shelves" in a]))
    slates.write_parquet(tables / "decisions.parquet")
    target = tmp_path / "same.parquet"
    items = slates.filter(kind="item")
    items.select("decision_id", probability="propensity").write_parquet(target)
    question = OffPolicyQuestion(
        kind="item", target=str(target), reward_event="rate", within_h=0, resamples=200, least_effective=1
    )
    found = {s.name: s.estimate for s in value(question, tables, MeasureSettings()).statements}
    rated = pl.read_parquet(tables / "events.parquet")["decision_id"].drop_nulls().n_unique() / len(items)
    assert found["value of same, IPS"] == pytest.approx(found["value of the logging policy"]) == pytest.approx(rated)


def answered(store: Store, engine: Engine, request: Request) -> Entry:
    [slate], _ = engine.decide([request])
    return Entry(request, False, slate.at, msgspec.json.encode(slate), engine.bundle, store.noted(), [], False, {})


@pytest.fixture
def engine(own_home: Path) -> Iterator[Engine]:
    with Store.open(own_home / "state") as store:
        store.noting = True
        yield load.open_engine(load.bundle_path(own_home, "current"), store)[1]


def test_answers_made_in_threads_stand_on_what_each_of_them_read(own_home: Path, tmp_path: Path) -> None:
    with Store.open(own_home / "state") as store:
        api = Api(store, threads=4)
        api.use(*load.open_engine(load.bundle_path(own_home, "current"), store))
        begin_watching(api, store, own_home, "threads", WatchSettings(), None)

        async def every() -> list[int]:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
                asked = [client.post("/v1/recommend", json={"user_id": n % 60 + 1, "k": 8}) for n in range(120)]
                told = [
                    client.post("/v1/events", json={"event": "rate", "user_id": n + 1, "item_id": n + 1, "value": 4})
                    for n in range(60)
                ]
                items = [client.post("/v1/items", json={"item_id": n + 100, "available": False}) for n in range(20)] + [
                    client.post("/v1/items", json={"item_id": 60_000 + n, "title": f"New {n}"}) for n in range(5)
                ]
                every = [call for calls in zip_longest(asked, told, items) for call in calls if call is not None]
                return [response.status_code for response in await asyncio.gather(*every)]

        assert set(asyncio.run(every())) == {200}
        api.close()
    [path] = files.closed(own_home / "slates")
    found = replay(path, own_home, 0)
    assert (found.exact, found.slates) == (120, 120), found.first


def test_what_was_read_on_redis_is_logged_and_replays_without_it(
    sealed_home: Path, start_redis: Callable[..., Any], tmp_path: Path
) -> None:
    state = start_redis().url("shop")
    ingest(compose("ingest", [f"home={sealed_home}", f"state='{state}'"]))
    shutil.copytree(sealed_home / "bundles", tmp_path / "bundles")
    for noted in (False, True):  # without notes of it, a store on Redis answers as ever
        with Store.open(state) as store:
            api = Api(store)
            api.use(*load.open_engine(load.bundle_path(tmp_path, "current"), store, without_state=True))
            begin_watching(api, store, tmp_path, "far", WatchSettings(slates=SlateLogSettings(on=noted)), None)

            async def every(api: Api = api) -> set[tuple[int, str]]:
                async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
                    found = [await client.post("/v1/recommend", json={"user_id": n}) for n in range(1, 21)]
                    return {(response.status_code, response.json()["rung"]) for response in found}

            assert asyncio.run(every()) == {(200, "full")}
            api.close()
    [path] = files.closed(tmp_path / "slates")
    found = replay(path, tmp_path, 0)
    assert (found.exact, found.slates) == (20, 20), found.first


def test_what_another_machine_left_is_closed_once_nobody_could_write_it(engine: Engine, tmp_path: Path) -> None:
    assert engine.store is not None
    folder = tmp_path / "slates"
    log = SlateLog(tmp_path, "p", SlateLogSettings(), Counts())
    log.start()
    log.note(answered(engine.store, engine, Request(user_id=1, request_id="r")))
    assert wait_until(lambda: any(file.stat().st_size > 1000 for file in folder.glob("*.open")), 10)
    [left] = folder.glob("*.open")
    data = left.read_bytes()
    log.stop()
    files.closed(folder)[0].unlink()
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for name in ("20240501T183000Z-pod_7-12-345-000001", f"{now}-pod_8-12-345-000001"):
        (folder / f"{name}.jsonl.open").write_bytes(data)
    files.recover(folder, oldest_s=3600)
    assert [path.name for path in files.closed(folder)] == ["20240501T183000Z-pod_7-12-345-000001.jsonl.zst"]
    assert len(list(folder.glob("*.open"))) == 1


def test_answers_never_wait_and_what_is_dropped_is_counted(engine: Engine, tmp_path: Path) -> None:
    assert engine.store is not None
    counts = Counts()
    slow = SlateLog(tmp_path, "p", SlateLogSettings(queue=3), counts)  # whose thread does not come round to it
    for n in range(10):
        slow.note(answered(engine.store, engine, Request(user_id=n + 1, request_id=str(n))))
    assert slow.waiting == 3 and counts.so_far()[0]["slate_log_slates", ("dropped",)] == 7
    slow.start()
    slow.stop()
    [path] = files.closed(tmp_path / "slates")
    assert [line.request.request_id for _, line in files.read(path) if isinstance(line, Logged)] == ["0", "1", "2"]
    full = SlateLog(tmp_path / "full", "p", SlateLogSettings(leave_gb=1e9, durable=True), counts)
    full.start()
    one = answered(engine.store, engine, Request(user_id=1, request_id="r"))
    one.written = Future()
    full.note(one)
    assert one.written.result(10) is False and not files.closed(tmp_path / "full" / "slates")
    full.stop()
    assert counts.so_far()[0]["slate_log_slates", ("dropped",)] == 8


def test_a_durable_log_has_the_line_before_the_answer_goes_out(engine: Engine, tmp_path: Path) -> None:
    assert engine.store is not None
    log = SlateLog(tmp_path, "p", SlateLogSettings(durable=True), Counts())
    log.start()
    for n in range(5):
        one = answered(engine.store, engine, Request(user_id=n + 1, request_id=str(n)))
        one.written = Future()
        log.note(one)
        assert one.written.result(10) is True
        [path] = (tmp_path / "slates").glob("*.open")
        assert sum(isinstance(line, Logged) for _, line in files.read(path)) == n + 1
    log.stop()


def test_files_are_rotated_by_size_and_age_and_forgotten_by_size_and_age(engine: Engine, tmp_path: Path) -> None:
    assert engine.store is not None
    log = SlateLog(tmp_path, "p", SlateLogSettings(file_mb=0.05), Counts())
    log.start()
    for n in range(120):
        log.note(answered(engine.store, engine, Request(user_id=n % 40 + 1, request_id=str(n))))
        if n % 10 == 9:
            assert wait_until(lambda: log.waiting == 0, 10, every_s=0.01)
    log.stop()
    folder = tmp_path / "slates"
    there = files.closed(folder)
    ids = [line.request.request_id for path in there for _, line in files.read(path) if isinstance(line, Logged)]
    assert len(there) > 3 and ids == [str(n) for n in range(120)]
    for path in there:  # each stands for itself
        assert replay(path, tmp_path.parent / tmp_path.name / "home", 0).exact == files.end_of(path).slates
    os.utime(there[0], (1, 1))
    assert files.forget(folder, keep_days=1, keep_bytes=0) == [there[0]]
    newest = there[-1].stat().st_size + there[-2].stat().st_size
    assert files.forget(folder, keep_days=0, keep_bytes=newest) == there[-3:0:-1]
    assert files.closed(folder) == there[-2:]
    aged = SlateLog(tmp_path / "aged", "p", SlateLogSettings(file_minutes=0.001), Counts())
    aged.start()
    aged.note(answered(engine.store, engine, Request(user_id=1, request_id="r")))
    assert wait_until(lambda: len(files.closed(tmp_path / "aged" / "slates")) == 1, 10)
    aged.stop()


def test_nothing_is_kept_under_the_id_of_somebody_who_does_not_allow_it(engine: Engine, tmp_path: Path) -> None:
    store = engine.store
    assert store is not None
    spec = msgspec.structs.replace(engine.bundle.spec, purposes=["personalisation"])
    engine = Engine.open(dataclasses.replace(engine.bundle, spec=spec), store)
    store.set_features({21: {"consent_personalisation": True}, 987_654: {"consent_personalisation": False}})
    log = SlateLog(tmp_path, "p", SlateLogSettings(), Counts())
    store.tell(Wish(user_id=987_653, item_id=181, mark=Mark.LESS))
    store.set_features({987_653: {"consent_personalisation": False}})
    recent = [Recent(item_id=50, event="rate", value=5.0)]
    context: dict[str, Any] = {"device": "zebra0fish", "hour": "zebra1fish", "zebra2fish": 1, "locale": "zebra3fish"}
    for user in (21, 987_654, 987_653):
        named = {} if user == 21 else context
        asked = Request(
            user_id=user, session_id=f"v{user}", request_id=f"r{user}", context=named, recent=recent, exclude=[181], k=5
        )
        log.note(answered(store, engine, asked))
    log.start()
    log.stop()
    [path] = files.closed(tmp_path / "slates")
    lines = [line for _, line in files.read(path)]
    raw = b"".join(encode(line) for line in lines)
    assert b'"user_id":987654' not in raw and b'"user_id":21' in raw
    yes, no, wishing = [line for line in lines if isinstance(line, Logged)]
    assert no.withheld == ["context"] and wishing.withheld == ["wishes", "context"]  # of a locale
    assert b'"user_id":987653' not in raw and b"zebra" not in raw and b"v98765" not in raw and b"v21" in raw
    assert no.request.exclude == [181] and no.request.session_id is None
    assert yes.request.user_id == 21 and yes.request.recent and no.request.user_id is None and not no.request.recent
    assert json.loads(bytes(no.answer))["user_id"] is None
    keys = {(line.table, line.key) for line in lines if isinstance(line, Row)}
    assert ("profiles", id_key(21)) in keys and ("profiles", id_key(987_654)) not in keys
    assert not any(id_key(987_654) in key or id_key("v987654") == key for _, key in keys)


def test_of_visitors_without_an_id_the_log_keeps_nothing_they_told(
    own_home: Path, start: Callable[[Path], Plain], capsys: pytest.CaptureFixture[str]
) -> None:
    server = start(own_home)
    marks = [f"zebra{n}fish" for n in range(5)]
    titles = set()
    for film in (50, 181, 172):
        recent = [{"item_id": film, "event": "rate", "value": 5, "ago_s": 5}]
        context = {"device": marks[0], "hour": marks[1], "weekday": marks[1], marks[1]: 3}
        body = {"recent": recent, "context": context, "k": 5}
        headers = {"user_agent": marks[2], "x_forwarded_for": marks[3], "cookie": f"visitor={marks[4]}"}
        slate = server.post("/v1/recommend", body, **headers)
        server.post("/v1/home", body, **headers)
        titles |= {i["reason"]["text"] for i in slate["items"] if i["reason"]["kind"] in ("similar", "because")}
    assert titles  # answers rest on what was told, and say so
    server.post("/v1/recommend", {"context": context, "k": 5})  # which is answered as if nothing was told
    server.post("/v1/recommend", {"session_id": "zebra9fish", "k": 3})
    [path] = server.stop()
    raw = b"".join(encode(line) for _, line in files.read(path))
    assert not [m for m in [*marks, *titles] if m.encode() in raw] and b'"recent":[{' not in raw
    assert b"zebra9fish" in raw  # what is kept would be found
    everything = b"".join(p.read_bytes() for p in own_home.rglob("*") if p.is_file())
    assert not [m for m in marks if m.encode() in everything]
    assert main(["replay", f"home={own_home}"]) == 0
    assert "6 left out: what a nameless visitor told is not kept" in said(capsys)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["replay", "file=nowhere.zst"], "no file nowhere.zst"),
        (["replay", "tolerance=2"], "tolerance: expected"),
        (["slates", "erase"], "whom to erase"),
        (["slates", "export", "user_id=1"], "have a meaning with"),
        (["slates"], "no server logged slates"),
        (["serve", "watch.slates.queue=0"], "watch.slates.queue is 0"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, f"home={tmp_path}"]) in (1, 2)
    assert what in said(capsys)
