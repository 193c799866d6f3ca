"""Structured logs and traces of a real server, read as their readers do; and nothing of either where nobody asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from playbill.cli import main
from playbill.serving.figures.counts import Counts
from playbill.serving.journal import Journal
from playbill.serving.processes import wait_until
from playbill.serving.seen import Seen


class Plain:
    """A server of one process, whose standard output goes into a file."""

    def __init__(self, home: Path, port: int, output: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "playbill.serving.plain", f"home={home}", f"port={port}", *arguments]
        self.url, self.output, self.errors = f"http://127.0.0.1:{port}", output, output.with_suffix(".err")
        with output.open("wb") as out, self.errors.open("wb") as err:
            self.process = subprocess.Popen(command, env=os.environ, stdout=out, stderr=err)
        assert wait_until(lambda: self.ask("/v1/health")[0] == 200, 60)

    def ask(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            request = urllib.request.Request(self.url + path, data, headers or {})
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())
        except OSError:
            return 0, {}

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture
def own_home(sealed_home: Path, tmp_path: Path) -> Path:
    for name in ("bundles", "state"):
        shutil.copytree(sealed_home / name, tmp_path / "home" / name)
    return tmp_path / "home"


@pytest.fixture
def start(own_home: Path, tmp_path: Path, free_ports: Any) -> Iterator[Callable[..., Plain]]:
    servers: list[Plain] = []

    def begin(*arguments: str) -> Plain:
        servers.append(Plain(own_home, free_ports(1)[0], tmp_path / f"out{len(servers)}.txt", *arguments))
        return servers[-1]

    yield begin
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def test_each_request_is_a_line_that_names_nobody(
    start: Callable[..., Plain],
    own_home: Path,
    versions: list[str],
    send_marked: Callable[[Callable[[str, Any, dict[str, str]], int], dict[str, str]], list[int]],
    marks_in: Callable[..., list[str]],
) -> None:
    server = start("log=json")
    statuses = send_marked(lambda path, body, headers: server.ask(path, body, headers)[0], {})
    slate = server.ask("/v1/recommend", {"user_id": 196}, {"x-request-id": "mine"})[1]
    (own_home / "bundles" / "current").write_text("gone\n")  # whatever is logged is a line too
    assert wait_until(lambda: any(line["event"] == "log" for line in server.lines()), 20)
    (own_home / "bundles" / "current").write_text(versions[0] + "\n")
    assert wait_until(lambda: any(line.get("request_id") == "mine" for line in server.lines()), 10)
    server.stop()
    assert not marks_in(server.output, server.errors)
    lines = server.lines()
    asked = [line for line in lines if line["event"] == "request" and line["route"] != "/v1/health"]
    assert [line["status"] for line in asked] == [*statuses, 200]
    mine = asked[-1]
    assert mine["request_id"] == "mine" and mine["bundle"] == slate["bundle"] == versions[0]
    assert (mine["level"], mine["rung"], mine["surface"]) == ("info", "full", "slate")
    assert mine["state_version"] == slate["state_version"]
    assert {"decode", "engine", "encode", "retrieve", "rank"} <= set(mine["stages_ms"])
    assert 0 < mine["stages_ms"]["engine"] < mine["ms"]
    assert len({line["request_id"] for line in asked}) == len(asked)
    refused = [line for line in asked if line["status"] == 422]
    assert refused and all(line["cause"] == "invalid" and "rung" not in line for line in refused)
    assert {line["route"] for line in asked} <= {"/v1/recommend", "/v1/events", "/v1/creatives", "/v1/items",
                                                 "/v1/items/{item_id}", "unknown"}  # fmt: skip
    [told] = [line for line in lines if line["event"] == "log" and line["level"] == "error"]
    assert told["logger"] == "playbill.watcher" and "bundle gone could not be loaded" in told["message"]
    for line in lines:
        assert time.strptime(line["time"], "%Y-%m-%dT%H:%M:%S.%fZ") and line["process"].startswith("plain-")


def test_without_a_word_for_it_a_server_says_nothing_of_requests(start: Callable[..., Plain]) -> None:
    server = start()
    assert server.ask("/v1/recommend", {"user_id": 196})[0] == 200
    server.stop()
    assert server.output.read_bytes() == b""


def test_where_nobody_reads_lines_are_dropped_and_counted_and_answers_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "lines"
    os.mkfifo(pipe)
    monkeypatch.setenv("PLAYBILL_LINES", str(pipe))
    reader = os.open(pipe, os.O_RDWR)
    counts = Counts()
    journal = Journal("p", counts)
    for _ in range(5_000):
        journal.request(_seen())
    dropped = counts.so_far()[0]["log_lines_dropped", ()]
    held = os.read(reader, 1 << 24)
    journal.end()
    os.close(reader)
    whole = [json.loads(line) for line in held.decode().splitlines()]  # no line is torn
    assert dropped > 0 and len(whole) + dropped == 5_000


def _seen() -> Seen:
    return Seen(
        began_ns=time.time_ns(), request_id="r", traceparent="", method="POST", route="/v1/recommend", status=200,
        cause="", bundle="b", surface="slate", rung="full", state_version=3, late=[], times_ms={"total": 1.0},
    )  # fmt: skip


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    """A collector that takes OTLP over HTTP: its address, and the spans that came."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
    )

    spans: list[Any] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
            told = ExportTraceServiceRequest.FromString(body)
            for resource in told.resource_spans:
                of = {a.key: a.value.string_value for a in resource.resource.attributes}
                spans.extend((of, span) for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", spans
    server.shutdown()
    server.server_close()
    thread.join()


TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_request_is_a_trace_with_its_stages_below_the_callers_span(
    start: Callable[..., Plain], collector: tuple[str, list[Any]], versions: list[str]
) -> None:
    url, spans = collector
    server = start(f"traces={url}")
    began = time.time_ns()
    given = {"x-request-id": "traced", "traceparent": f"00-{TRACE}-{PARENT}-01"}
    assert server.ask("/v1/recommend", {"user_id": 196}, given)[0] == 200
    server.ask("/v1/recommend", {"user_id": 1}, {"traceparent": f"00-{'a' * 32}-{PARENT}-00"})  # not to be traced
    server.ask("/v1/recommend", {"user_id": "nobody's"}, {"traceparent": "nonsense"})
    server.stop()
    ended = time.time_ns()
    mine = {span.name: span for _, span in spans if span.trace_id.hex() == TRACE}
    root = mine.pop("POST /v1/recommend")
    assert root.parent_span_id.hex() == PARENT and began < root.start_time_unix_nano < root.end_time_unix_nano < ended
    of = {a.key: a.value.string_value or a.value.int_value for a in root.attributes}
    assert of["playbill.rung"] == "full" and of["playbill.bundle"] == versions[0]
    assert of["http.response.status_code"] == 200 and of["playbill.request_id"] == "traced"
    assert {of["service.name"] for of, _ in spans} == {"playbill"}
    assert {"decode", "engine", "encode", "profile", "tower and index", "retrieve", "rank"} <= set(mine)
    by_id = {span.span_id: span for span in [root, *mine.values()]}
    for name, span in mine.items():
        above = by_id[span.parent_span_id]
        assert above.name == ("engine" if name in ("profile", "tower and index", "retrieve", "rank",
                                                   "compose and explain", "creative") else root.name)  # fmt: skip
        assert above.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= above.end_time_unix_nano
    one_after_another = [mine[name] for name in ("decode", "engine", "encode")]
    assert all(
        a.end_time_unix_nano <= b.start_time_unix_nano
        for a, b in zip(one_after_another, one_after_another[1:], strict=False)
    )
    assert not [span for _, span in spans if span.trace_id.hex() == "a" * 32]
    [refused] = [
        span for _, span in spans
        if any(a.key == "error.type" and a.value.string_value == "invalid" for a in span.attributes)
    ]  # fmt: skip
    assert refused.parent_span_id == b"" and "nobody's" not in str(spans)


def test_a_collector_that_is_away_costs_no_answer(start: Callable[..., Plain], free_ports: Any) -> None:
    server = start(f"traces=http://127.0.0.1:{free_ports(1)[0]}/v1/traces")
    assert [server.ask("/v1/recommend", {"user_id": user})[0] for user in range(1, 20)] == [200] * 19


def test_nothing_is_loaded_for_traces_that_nobody_asked_for(own_home: Path) -> None:
    code = (
        "import sys; from playbill.serving.plain import make_api; "
        f"api = make_api({str(own_home)!r}); api.close(); "
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("argument", "what"),
    [
        ("watch.traces=collector", "expected an http"),
        ("watch.traces_share=2", "expected 0..1"),
        ("watch.log=xml", "xml"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(argument: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", argument]) == 2
    assert what in capsys.readouterr().err
