"""Downloads against a real server on this machine: checked, continued, and honest about every mirror."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from playbill.errors import SourceError
from playbill.sources import fetch
from playbill.sources.settings import Archive, Wheel

DATA = os.urandom(1_000_000)
SHA = hashlib.sha256(DATA).hexdigest()


class _Server(ThreadingHTTPServer):
    """Serves one file; `cuts` says after how many bytes each answer in turn is cut off."""

    daemon_threads = True
    data = DATA
    ranges = True
    status = 200
    cuts: list[int]
    asked: list[str | None]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        if start >= len(self.server.data) > 0 and start:
            self.send_error(416)
            return
        body = self.server.data[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(body)
        self.wfile.write(body[:cut])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.cuts, server.asked = [], []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url(server: _Server, name: str = "data.bin") -> str:
    return f"http://127.0.0.1:{server.server_port}/{name}"


def test_a_whole_download(server: _Server, tmp_path: Path) -> None:
    fetch.download(url(server), tmp_path / "d", sha256=SHA)
    assert (tmp_path / "d").read_bytes() == DATA
    assert os.listdir(tmp_path) == ["d"]
    assert server.asked == [None]


def test_a_cut_download_goes_on_where_it_was(server: _Server, tmp_path: Path) -> None:
    server.cuts = [300_000, 100_000]
    fetch.download(url(server), tmp_path / "d", sha256=SHA)
    assert (tmp_path / "d").read_bytes() == DATA
    assert server.asked == [None, "bytes=300000-", "bytes=400000-"]


def test_the_next_run_goes_on_too(server: _Server, tmp_path: Path) -> None:
    server.cuts = [100_000, 100_000, 100_000]
    with pytest.raises(fetch.MirrorFailed, match="stopped after 300,000 of 1,000,000 bytes, 3 times; run again"):
        fetch.download(url(server), tmp_path / "d", sha256=SHA)
    assert not (tmp_path / "d").exists()
    server.asked.clear()
    fetch.download(url(server), tmp_path / "d", sha256=SHA)
    assert (tmp_path / "d").read_bytes() == DATA
    assert server.asked == ["bytes=300000-"]


def test_a_server_without_ranges_sends_all_again(server: _Server, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [100_000]
    fetch.download(url(server), tmp_path / "d", sha256=SHA)
    assert (tmp_path / "d").read_bytes() == DATA


def test_a_part_that_is_whole_already_is_taken(server: _Server, tmp_path: Path) -> None:
    (tmp_path / "d.part").write_bytes(DATA)
    fetch.download(url(server), tmp_path / "d", sha256=SHA)
    assert (tmp_path / "d").read_bytes() == DATA
    assert server.asked == ["bytes=1000000-"]


def test_a_wrong_part_is_found_out_and_removed(server: _Server, tmp_path: Path) -> None:
    (tmp_path / "d.part").write_bytes(b"x" * 500)
    with pytest.raises(fetch.MirrorFailed, match=f"sha256 is [0-9a-f]+, expected {SHA}; the download was removed"):
        fetch.download(url(server), tmp_path / "d", sha256=SHA)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_other_bytes_are_refused(server: _Server, tmp_path: Path, kind: str) -> None:
    with pytest.raises(fetch.MirrorFailed, match=f"{kind} is "):
        fetch.download(url(server), tmp_path / "d", **{kind: "0" * 32})
    assert os.listdir(tmp_path) == []


def test_an_error_answer_names_its_code(server: _Server, tmp_path: Path) -> None:
    server.status = 503
    with pytest.raises(fetch.MirrorFailed, match="answered 503"):
        fetch.download(url(server), tmp_path / "d")


def _zip(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name, data in members.items():
            bundle.writestr(name.replace("__", "/"), data)
    return buffer.getvalue()


def test_an_archive_is_unpacked_by_name_and_cached(server: _Server, tmp_path: Path) -> None:
    server.data = _zip(ml__a=b"one", ml__b=b"two", ml__c=b"not asked for")
    archive = Archive(url=url(server, "ml.zip"), md5=hashlib.md5(server.data).hexdigest(), folder="ml")
    wanted = {"a": hashlib.sha256(b"one").hexdigest(), "b": ""}
    for _ in range(2):
        fetch.from_archive(archive, wanted, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "ml.zip"]
    assert (tmp_path / "a").read_bytes() == b"one"
    assert server.asked == [None]


def test_an_archive_with_another_file_inside_is_refused(server: _Server, tmp_path: Path) -> None:
    server.data = _zip(ml__a=b"altered")
    with pytest.raises(fetch.MirrorFailed, match="a has sha256"):
        fetch.from_archive(Archive(url=url(server, "ml.zip"), folder="ml"), {"a": SHA}, tmp_path)
    assert not (tmp_path / "a").exists()
    with pytest.raises(fetch.MirrorFailed, match="no item named 'ml/b'"):
        fetch.from_archive(Archive(url=url(server, "ml.zip"), folder="ml"), {"b": ""}, tmp_path)


def test_a_page_instead_of_an_archive_is_refused(server: _Server, tmp_path: Path) -> None:
    server.data = b"<html>please log in</html>"
    with pytest.raises(fetch.MirrorFailed, match="File is not a zip file"):
        fetch.from_archive(Archive(url=url(server, "ml.zip")), {"a": ""}, tmp_path)


def test_pip_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: _Server) -> None:
    server.status = 404
    monkeypatch.setenv("PIP_INDEX_URL", url(server, "simple"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(fetch.MirrorFailed, match="pip: ERROR: No matching distribution found for recbole==1.2.1"):
        fetch.from_wheel(Wheel(requirement="recbole==1.2.1", folder="x"), {"a": ""}, tmp_path)


def test_a_broken_wheel_is_removed_so_that_it_is_fetched_again(tmp_path: Path) -> None:
    wheel = tmp_path / "recbole-1.2.1-py3-none-any.whl"
    wheel.write_bytes(b"PK but no more")
    with pytest.raises(fetch.MirrorFailed, match="File is not a zip file"):
        fetch.from_wheel(Wheel(requirement="recbole==1.2.1", folder="x"), {"a": ""}, tmp_path)
    assert not wheel.exists()


def test_when_every_mirror_fails_all_reasons_are_listed() -> None:
    def broken(why: str) -> None:
        raise fetch.MirrorFailed(why)

    mirrors = [("the publisher", lambda: broken("no route")), ("the index", lambda: broken("pip: no wheel"))]
    with pytest.raises(SourceError) as caught:
        fetch.from_mirrors(mirrors, "Give a folder.", Console(quiet=True))
    assert str(caught.value) == (
        "no mirror delivered the data. Tried:\n  the publisher: no route\n  the index: pip: no wheel\nGive a folder."
    )


def test_the_first_mirror_that_delivers_ends_the_search() -> None:
    def broken() -> None:
        raise fetch.MirrorFailed("no route")

    order: list[str] = []
    mirrors = [("a", broken), ("b", lambda: order.append("b")), ("c", lambda: order.append("c"))]
    assert fetch.from_mirrors(mirrors, "", Console(quiet=True)) == "b"
    assert order == ["b"]
