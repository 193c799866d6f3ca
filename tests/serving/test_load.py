"""`playbill load` against a real server in a process of its own, and the open loop against servers that misbehave."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from playbill.cli import compose, main
from playbill.errors import ConfigError
from playbill.serving import processes
from playbill.serving.keys import Scope, add_key, keys_path
from playbill.serving.loading import job
from playbill.serving.loading.histogram import Histogram
from playbill.serving.loading.open_loop import Sent, send_all
from playbill.serving.loading.requests import Crowd
from playbill.serving.loading.search import find_rate
from playbill.serving.loading.settings import LoadSettings
from playbill.serving.loading.step import Step, figures

QUICK = ["duration_s=0.8", "warmup_s=0.2", "timeout_s=60"]
HEADERS = b"Content-Length: 2\r\nX-Playbill-Rung: full\r\nServer-Timing: engine;dur=1.5, total;dur=2\r\n"
OK = b"HTTP/1.1 200 OK\r\n" + HEADERS + b"\r\n{}"


# a real server


@contextmanager
def serving(home: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "playbill.serving.plain", f"home={home}", f"port={port}"]
    with (home / "plain.log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        assert processes.wait_until(lambda: answers(port) or process.poll() is not None, 120)
        assert process.poll() is None, (home / "plain.log").read_text()
        yield process
    finally:
        process.kill()
        process.wait(20)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/health", timeout=10):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def keys(home: Path) -> dict[str, str]:
    path = keys_path(home)
    scopes = [Scope.recommend, Scope.events]
    return {
        "shop": add_key(path, "shop", scopes, None, None)[1],
        "slow": add_key(path, "slow", scopes, 1, 5)[1],
    }


@pytest.fixture(scope="module")
def url(home: Path, keys: dict[str, str], free_ports: Callable[[int], list[int]]) -> Iterator[str]:
    [port] = free_ports(1)
    with serving(home, port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def load(
    home: Path, url: str, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Runs the job with the shop's key, as a user does; returns its exit code and its report."""
    monkeypatch.setenv("PLAYBILL_KEY", keys["shop"])
    monkeypatch.setenv("COLUMNS", "200")

    def run(name: str, *given: str) -> tuple[int, dict[str, Any]]:
        code = main(["load", f"home={home}", f"url={url}", f"name={name}", *QUICK, *given])
        return code, json.loads((home / "load" / name / "report.json").read_bytes())

    return run


def test_a_sweep_reports_latencies_rungs_and_stages(load: Any, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = load("sweep", "rates=[30,60]", "anonymous=0.3", "unknown=0.1", 'filter="release_year < 1997"')
    assert code == 0
    assert [step["rate"] for step in report["steps"]] == [30, 60]
    for step in report["steps"]:
        assert step["statuses"] == {"200": step["requests"]} and step["requests"] > 10
        assert sum(step["rungs"].values()) == step["requests"]
        assert step["rungs"]["full"] > 0 and step["rungs"]["popularity"] > 0
        ordered = [step["latency"][name] for name in ("p50_ms", "p90_ms", "p99_ms", "p99.9_ms", "max_ms")]
        assert ordered == sorted(ordered) and ordered[0] > 0
        assert sum(step["latency"]["buckets"]["count"]) == step["requests"]
        # a request's stage is a part of what the server took, that of what the wire took, and that of what counts
        assert {"decode", "engine", "encode", "retrieve", "total"} <= set(step["stages"])
        parts = [step["stages"]["engine"], step["stages"]["total"], step["service"], step["latency"]]
        medians = [part["p50_ms"] for part in parts]
        assert medians == sorted(medians)
        assert step["events"] is None and step["cpu_us"] > 0
    assert report["bundle"] and report["people"] == 943 and report["settings"]["anonymous"] == 0.3
    text = capsys.readouterr().out
    assert "stages of the server" in text and "rungs: full" in text and "their p99 is the word of a few" in text
    files = {path.name for path in (home / "load" / "sweep").iterdir()}
    assert files == {"report.json", "latency.png", "30.hgrm", "60.hgrm"}
    assert (home / "load" / "sweep" / "latency.png").read_bytes().startswith(b"\x89PNG")
    assert f"Total count    = {report['steps'][0]['requests']:12d}" in (home / "load/sweep/30.hgrm").read_text()


def test_events_are_sent_and_stored(load: Any, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from playbill.state.store import Store

    with Store.open(home / "state", readonly=True) as store:
        before = store.version
    code, report = load("events", "rates=[40]", "events_share=0.5", "anonymous=0.2")
    [step] = report["steps"]
    assert code == 0 and set(step["statuses"]) == {"200"}
    assert step["events"]["p50_ms"] > 0 and 0 < step["latency"]["asked"] < step["requests"]
    assert "events at 40 a second" in capsys.readouterr().out and (home / "load/events/40-events.hgrm").is_file()
    with Store.open(home / "state", readonly=True) as store:
        assert store.version > before


def test_refusals_are_counted_by_status(load: Any, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYBILL_KEY", keys["slow"])
    code, report = load("limited", "rates=[60]")
    [step] = report["steps"]
    assert code == 0 and set(step["statuses"]) == {"200", "429"} and step["statuses"]["429"] > 10
    assert sum(step["latency"]["buckets"]["count"]) == step["statuses"]["200"]


def test_a_search_that_finds_no_rate_says_so(load: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = load("search", "rates=[30]", "find=p50_ms:0.001", "duration_s=0.4", "warmup_s=0")
    found = report["found"]  # on a busy machine the generator's own lateness ends the search
    assert code == 0 and found["rate"] is None and (found["generator"] or found["too_high"] == 1.875)
    assert "no rate kept p50_ms:0.001" in capsys.readouterr().out


def test_what_the_server_refuses_is_told_before_anything_is_measured(
    url: str, home: Path, capsys: pytest.CaptureFixture[str], keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["load", f"home={home}", f"url={url}"]) == 1
    assert "401" in capsys.readouterr().err
    monkeypatch.setenv("PLAYBILL_KEY", keys["shop"])
    for given, said in (('filter="price <"', "422, filter"),
                        ("tables=nothing", "no table"), ("audience=nothere.parquet", "nothere")):  # fmt: skip
        assert main(["load", f"home={home}", f"url={url}", given]) == 1
        error = capsys.readouterr().err
        assert said in error and "Traceback" not in error, error
    assert main(["load", f"home={home}", f"url={url}", "events_share=0.1", "event=bought"]) == 2
    assert "declares (rate), got 'bought'" in capsys.readouterr().err


def test_a_server_that_dies_is_counted_and_said(
    home: Path, free_ports: Any, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("PLAYBILL_KEY", keys["shop"])
    [port] = free_ports(1)
    given = [f"home={home}", f"url=http://127.0.0.1:{port}", "rates=[40,41,42]", "name=died", *QUICK[1:]]
    with serving(home, port) as process:
        measure = job.measure

        def killing(settings: LoadSettings, address: Any, crowd: Crowd, rate: float, number: int, _: Any) -> Any:
            # about a second after the step began, when some are answered
            return measure(settings, address, crowd, rate, number, lambda done, whole: process.kill())

        monkeypatch.setattr(job, "measure", killing)
        assert main(["load", *given, "duration_s=3"]) == 1
    shown = capsys.readouterr()
    first, second = json.loads((home / "load/died/report.json").read_bytes())["steps"]
    assert first["statuses"]["200"] > 0 and first["statuses"]["refused"] > 0
    assert set(first["statuses"]) <= {"200", "closed", "refused"}
    assert sum(first["statuses"].values()) == first["requests"]
    assert second["statuses"] == {"refused": second["requests"]} and second["latency"]["p50_ms"] is None
    assert "42 a second left out" in shown.out and "refused" in shown.out
    assert "the server went away: nobody answered at 41" in shown.err and "Traceback" not in shown.err + shown.out
    assert main(["load", *given]) == 1
    assert "nobody answers at" in capsys.readouterr().err


# servers that misbehave


class Tiny(asyncio.Protocol):
    """Answers every request with the same bytes; stalls the whole server before some of them."""

    def __init__(self, answer: bytes, stall_at: int, stall_s: float, seen: list[bytes]) -> None:
        self._answer, self._stall_at, self._stall_s, self._seen = answer, stall_at, stall_s, seen

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._seen.append(data)
        if len(self._seen) == self._stall_at:
            time.sleep(self._stall_s)
        self._transport.write(self._answer)
        if not self._answer or b"close" in self._answer:
            self._transport.close()


@contextmanager
def tiny(answer: bytes = OK, stall_at: int = 0, stall_s: float = 0.0) -> Iterator[tuple[tuple[str, int], list[bytes]]]:
    """Yield the address of a server in a thread of its own, and the list of what it was sent."""
    seen: list[bytes] = []
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: Tiny(answer, stall_at, stall_s, seen), "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[:2], seen
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.call_later, 0.05, loop.stop)  # connections say goodbye first
        thread.join(10)
        loop.close()


def send(address: tuple[str, int], count: int, seconds: float, **given: Any) -> Sent:
    offsets = np.sort(np.random.default_rng(0).uniform(0, seconds, count))
    request = b"POST /v1/recommend HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
    return send_all(address, [request] * count, array("d", offsets), **{"connections": 64, "timeout_s": 60.0, **given})


def step_of(sent: Sent, rate: float = 100.0, seconds: float = 1.0) -> Step:
    count = len(sent.due)
    return figures(sent, rate, np.ones(count, bool), np.zeros(count, bool), seconds)[0]


def test_a_stall_counts_for_every_request_that_was_due_in_it() -> None:
    with tiny(stall_at=100, stall_s=1.0) as (address, seen):
        step = step_of(send(address, 400, 2.0, connections=1), 200.0, 2.0)
    assert step.statuses == {"200": 400} and len(seen) == 400 and step.rungs == {"full": 400}
    # one request in 400 met the stall on the wire: a closed loop's p99 knows nothing of it
    assert step.latency["p99_ms"] > 5 * step.service["p99_ms"]
    assert step.latency["p90_ms"] > 5 * step.service["p90_ms"]
    assert step.latency["max_ms"] >= step.service["max_ms"] >= 1000
    assert step.waited > 50 and step.most_open == 1
    assert step.stages["engine"]["p50_ms"] == pytest.approx(1.5, rel=1e-3)


def test_answers_that_had_no_time_for_all_steps_are_not_within_any_limit() -> None:
    hurried = OK.replace(b"X-Playbill-Rung: full", b"X-Playbill-Rung: popularity\r\nX-Playbill-Late: rank, reasons")
    with tiny() as (address, _):
        whole = step_of(send(address, 40, 0.4))
    with tiny(hurried) as (address, _):
        step = step_of(send(address, 40, 0.4))
    assert whole.share_within(60_000) == 1 and not whole.late
    assert step.statuses == {"200": 40} and step.late == {"rank, reasons": 40} and step.share_within(60_000) == 0
    assert sum(step.latency["buckets"]["count"]) == 40


def test_an_answer_that_never_comes_is_given_up_and_counts_with_its_time() -> None:
    with tiny(stall_at=1, stall_s=1.5) as (address, _):
        sent = send(address, 20, 0.0, connections=2, timeout_s=0.5)
        step = step_of(sent)
    assert step.statuses == {"timeout": 20} and step.latency["p50_ms"] >= 500 and not step.answered
    assert np.isnan(np.asarray(sent.written)).sum() == 18  # they waited for one of two connections


@pytest.mark.parametrize(
    ("answer", "ended"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}", "200"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "200"),
        (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "503"),
        (b"hello\r\n", "malformed"),
        (b"", "closed"),
    ],
)
def test_every_end_of_a_request_has_its_name(answer: bytes, ended: str) -> None:
    with tiny(answer) as (address, _):
        step = step_of(send(address, 40, 0.4, connections=4))
    assert step.statuses == {ended: 40}
    assert step.answered == (ended in ("200", "503")) and step.most_open <= 4
    assert sum(step.latency["buckets"]["count"]) == (40 if ended == "200" else 0)


def test_nobody_at_the_port_is_refused_each_time(free_ports: Any) -> None:
    step = step_of(send(("127.0.0.1", free_ports(1)[0]), 40, 0.2))
    assert step.statuses == {"refused": 40} and step.share_within(1e6) == 0


# what is counted, asked and looked for


def test_buckets_keep_three_digits_and_are_those_of_hdrhistogram() -> None:
    seconds = np.random.default_rng(1).lognormal(-6, 2, 20_000)
    counted = Histogram()
    counted.record(seconds[:5000])
    counted.record(seconds[5000:])
    assert counted.total == 20_000
    for percentile in (1, 50, 90, 99, 99.9, 100):
        exact = np.sort(seconds)[round(percentile * 200) - 1] * 1e3
        assert counted.percentile_ms(percentile) == pytest.approx(exact, rel=1e-3, abs=1e-3)
    assert Histogram().percentile_ms(99) is None and Histogram().summary()["max_ms"] is None
    squares = Histogram()
    squares.record(np.arange(1, 5001) ** 2 / 1e6)
    # HdrHistogram's own figures for the same 5000 values (the package hdrhistogram 0.10.8, 3 digits)
    theirs = {10: 250.111, 50: 6250.495, 90: 20250.623, 99: 24510.463, 99.9: 24952.831, 100: 25001.983}
    assert {p: squares.percentile_ms(p) for p in theirs} == theirs
    lines = squares.hgrm().splitlines()
    assert lines[2:5] == [
        "       0.001 0.000000000000          1           1.00",
        "     250.111 0.100000000000        500           1.11",
        "    1000.447 0.200000000000       1000           1.25",
    ]
    assert "    6250.495 0.500000000000       2500           2.00" in lines
    assert lines[-4] == "   25001.983 1.000000000000       5000"
    assert lines[-3] == "#[Mean    =     8335.953, StdDeviation   =     7455.043]"
    assert lines[-2] == "#[Max     =    25001.983, Total count    =         5000]"


def test_the_same_seed_asks_the_same_and_shares_are_kept(home: Path) -> None:
    settings = compose("load", [f"home={home}", "unknown=0.2", "anonymous=0.3", "events_share=0.1", "k=7"])
    crowd = Crowd(settings, "there:80")
    payloads, is_event = crowd.draw(4000, np.random.default_rng([0, 0]))
    again, _ = crowd.draw(4000, np.random.default_rng([0, 0]))
    assert payloads == again and payloads != crowd.draw(4000, np.random.default_rng([0, 1]))[0]
    bodies = [json.loads(payload.partition(b"\r\n\r\n")[2]) for payload in payloads]
    assert all(b"POST /v1/events " in p for p, e in zip(payloads, is_event, strict=True) if e)
    assert all(body["k"] == 7 for body, e in zip(bodies, is_event, strict=True) if not e)
    events = [body for body, e in zip(bodies, is_event, strict=True) if e]
    assert all(body["event"] == "rate" and 1 <= body["value"] <= 5 for body in events)
    assert all("user_id" in body or "session_id" in body for body in events)
    people = set(crowd.people)
    kinds = [0 if "user_id" not in body else 1 if body["user_id"] in people else 2 for body in bodies]
    shares = np.bincount(kinds) / 4000
    assert np.allclose(shares, [0.3, 0.5, 0.2], atol=4 * 0.5 / 4000**0.5)
    assert np.mean(is_event) == pytest.approx(0.1, abs=4 * 0.3 / 4000**0.5)


def paced(capacity: float, tried: list[float], behind_from: float = np.inf) -> Callable[[float], Step]:
    """Return a step's figures as they are of a server that answers in 2 ms up to a rate, and in 50 ms above."""

    def step(rate: float) -> Step:
        tried.append(rate)
        due = np.arange(1000) / rate
        took = 0.002 if rate <= capacity else 0.05
        late = 0.04 if rate >= behind_from else 0.0
        sent = Sent(
            due=array("d", due), taken=array("d", due + late), written=array("d", due), done=array("d", due + took),
            status=array("i", [200] * 990 + [503] * 10), rung=[b""] * 1000, late=[b""] * 1000,
            timing=[b""] * 1000, wall_s=1.0,
        )  # fmt: skip
        return step_of(sent, rate)

    return step


def test_a_search_closes_in_on_the_highest_rate() -> None:
    for first in (10.0, 137.0, 3000.0):
        tried: list[float] = []
        found = find_rate(paced(137.0, tried), first, 99.0, 20.0, 0.05)
        assert found.rate is not None and found.too_high is not None and not found.generator
        assert found.rate <= 137 < found.too_high <= found.rate * 1.05 and len(tried) < 15
    # one in a hundred was refused: the 99.5th percentile is never within any limit
    assert find_rate(paced(137.0, []), 10.0, 99.5, 20.0, 0.05).rate is None
    stopped = find_rate(paced(137.0, [], behind_from=100.0), 10.0, 99.0, 20.0, 0.05)
    assert stopped.rate == 80 and stopped.too_high is None and stopped.generator


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("rates=[]", "rates: expected at least one"),
        ("rates=[0]", "rates: expected requests a second above 0"),
        ("rates=[nan]", "rates: expected requests a second above 0"),
        ("rates=[0.5]", "rates: expected at least ten requests"),
        ("duration_s=0", "duration_s: expected a number above 0"),
        ("duration_s=inf", "duration_s: expected a number above 0"),
        ("warmup_s=-1", "warmup_s: expected at least 0"),
        ("timeout_s=nan", "timeout_s: expected"),
        ("connections=0", "connections: expected at least 1"),
        ("unknown=1.5", "unknown: expected a share"),
        ("anonymous=0.97", "unknown and anonymous: expected at most 1 together"),
        ("events_share=nan", "events_share: expected a share"),
        ("k=0", "k: expected at least 1"),
        ("k=5000", "k: expected at most 1000"),
        ("url=https://there", "url: expected http://"),
        ("url=http://there/v1", "url: expected http://host"),
        ("url=http://there:port", "url: "),
        ("name=../escape", "name: expected the name of a folder"),
        ("find=p99:20", "find: expected a percentile and milliseconds"),
        ("find=p100_ms:20", "find: expected a percentile and milliseconds"),
        ("find=p99_ms:0", "find: expected a percentile and milliseconds"),
        ("find=p99_ms:20000", "find: expected less than timeout_s"),
        ("seed=-1", "seed: expected at least 0"),
    ],
)
def test_bad_settings_are_refused(given: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load", given]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1, error


def test_a_key_with_spaces_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYBILL_KEY", "two words")
    with pytest.raises(ConfigError, match="PLAYBILL_KEY"):
        Crowd(LoadSettings(home=str(home)), "there")
