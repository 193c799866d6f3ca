"""`playbill ask` against a real server on a socket."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from playbill.cli import main
from playbill.serving.plain import make_api


@pytest.fixture(scope="module")
def url(home: Path, free_ports: Any) -> Iterator[str]:
    with serving(home, free_ports) as address:
        yield address


@contextmanager
def serving(home: Path, free_ports: Any) -> Iterator[str]:
    api = make_api(str(home))
    [port] = free_ports(1)
    # the websocket protocols' libraries warn of their own past; there are no websockets here
    server = uvicorn.Server(uvicorn.Config(api, port=port, access_log=False, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)
    api._store.close()


def test_it_prints_titles_reasons_and_what_answered(url: str, capsys: pytest.CaptureFixture[str], versions: list[str],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["ask", "user_id=196", "k=3", f"url={url}", "request_id=shown"]) == 0
    text = capsys.readouterr().out
    assert "For user 196" in text and "p(like)" in text and f"bundle {versions[0]}" in text and "rung full" in text
    assert main(["ask", "user_id=196", "k=3", f"url={url}", "request_id=shown", "as_json=true"]) == 0
    slate = json.loads(capsys.readouterr().out)
    assert len(slate["items"]) == 3
    for item in slate["items"]:
        assert item["title"] in text


def test_it_prints_creatives_and_what_was_left_to_chance(
    creative_home: Path, free_ports: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", "250")
    shutil.copytree(creative_home, tmp_path / "home")
    with serving(tmp_path / "home", free_ports) as url:
        texts = []
        for request in ("first", "second"):
            assert main(["ask", "user_id=196", "session_id=v", "k=3", f"url={url}", f"request_id={request}"]) == 0
            texts.append(capsys.readouterr().out)
        assert main(["ask", "user_id=196", "session_id=v", "k=3", f"url={url}", "as_json=true"]) == 0
        slate = json.loads(capsys.readouterr().out)
    for text, chance in zip(texts, (r"0\.\d+", "1"), strict=True):  # drawn once, and then kept within the session
        assert "p(creative)" in text and "p(place)" not in text
        for item in slate["items"]:
            row = next(line for line in text.splitlines() if item["title"] in line)
            assert re.search(rf"\b{item['creative_id']} +│? *{chance} ", row), row


def test_exploration_is_asked_for(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["ask", "user_id=196", "k=20", f"url={url}", "request_id=e"]
    assert main([*asked, "exploration=0.9", "as_json=true"]) == 0
    slate = json.loads(capsys.readouterr().out)
    assert main([*asked, "exploration=0.9"]) == 0
    assert "p(place)" in capsys.readouterr().out and any(i["propensity"] != 1 for i in slate["items"])
    assert main([*asked, "exploration=1.5"]) == 2
    assert "exploration: expected a probability in 0..1" in capsys.readouterr().err


def test_it_prints_a_page_and_the_like_of_an_item(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "user_id=196", "k=3", "surface=home", f"url={url}"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Picked for you" in text and "Because you rated" in text
    assert main(["ask", "surface=similar", "item_id=50", "k=3", f"url={url}"]) == 0
    assert "Star Wars" in capsys.readouterr().out
    assert main(["ask", "surface=rerank", "items=[50,181]", f"url={url}"]) == 0
    assert "Return of the Jedi" in " ".join(capsys.readouterr().out.split())


def test_a_visitor_asks_without_an_id(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", f"url={url}"]) == 0
    assert "an anonymous visitor" in capsys.readouterr().out


def test_a_refusal_is_told_with_its_field(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "user_id=nobody", f"url={url}"]) == 1
    assert "422, user_id: expected an int64 id, got 'nobody'" in capsys.readouterr().err


def test_nobody_there_is_told_with_the_fix(free_ports: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", f"url=http://127.0.0.1:{free_ports(1)[0]}"]) == 1
    error = capsys.readouterr().err
    assert "nobody answers" in error and "playbill serve" in error


def test_asking_needs_no_ray() -> None:
    code = "import playbill.ask, sys; sys.exit(bool({'ray', 'torch', 'starlette', 'polars'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_it_says_what_somebody_wants_before_it_asks(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["ask", "user_id=92", "k=10", f"url={url}", "request_id=same"]
    assert main([*asked, "as_json=true"]) == 0
    first = json.loads(capsys.readouterr().out)["items"][0]["item_id"]
    assert main([*asked, f"hide={first}", "more_of=[Western]", "never=[Comedy,Drama]", "as_json=true"]) == 0
    slate = json.loads(capsys.readouterr().out)
    assert first not in [item["item_id"] for item in slate["items"]]
    assert any(item["reason"]["text"] == "Because you asked for more Western" for item in slate["items"])
    assert main([*asked, "more_of=[]"]) == 0  # takes what was declared back; the item stays hidden
    text = " ".join(capsys.readouterr().out.split())
    assert "asked: not this item: 1 left out" in text and "never" not in text
    assert main([*asked, "forget=nothing"]) == 1
    assert "event_id: this person has no event 'nothing'" in " ".join(capsys.readouterr().err.split())
