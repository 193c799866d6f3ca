"""`playbill campaign copy` from the command line: who proposes, who approves, and what may be sent after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from playbill.campaign.copy_file import read_copy, sendable
from playbill.cli import main

GOOD, OTHER = "Half price until Sunday", "Sunday, half price"


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = str(tmp_path / "autumn.json")
    rules = "rules={length: [10, 40], banned: [free]}"
    assert main(["campaign", "copy", path, f'facts=["{GOOD}"]', rules, f'texts=["{GOOD}"]', "by=ada"]) == 0
    return path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    told = capsys.readouterr()
    return " ".join((told.out + told.err).split())


def test_what_is_proposed_is_sent_once_somebody_approves_it(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["campaign", "copy", file]) == 0
    assert sendable(read_copy(Path(file))) == ([], []) and "0 of 1 may be sent" in said(capsys)
    assert main(["campaign", "copy", file, "approve=[v1]", "by=grace"]) == 0
    [variant], _ = sendable(read_copy(Path(file)))
    assert (variant.text, variant.proposed_by, variant.approved_by) == (GOOD, "ada", "grace")
    assert "1 of 1 may be sent" in said(capsys)
    Path(file).write_text(Path(file).read_text().replace("until Sunday", "until Monday"))
    assert main(["campaign", "copy", file]) == 0
    assert "0 of 1 may be sent" in (told := said(capsys)) and "decide again" in told
    assert main(["campaign", "copy", file, "reject=[v1]", "by=grace"]) == 0
    [rejected] = read_copy(Path(file)).variants
    assert (rejected.state, rejected.rejected_by, rejected.approved_by) == ("rejected", "grace", "")


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (['texts=["Beer is free today"]', "by=ada"], 1, "says 'free'"),
        (['texts=["Half price until Sunday."]'], 2, "by: expected the name of whoever"),
        (["approve=[v9]", "by=ada"], 2, "no variant 'v9'; there are v1"),
        (["approve=[v1,v9]", "by=ada", f'texts=["{OTHER}"]'], 2, "no variant 'v9'; there are v1, v2"),
        (["wanted=3"], 2, "writer.url: expected the endpoint"),
        (["facts=[more]"], 2, "is there and has its own"),
        (["approve=[v1]", "reject=[v1]", "by=ada"], 2, "v1 are to be rejected too"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    file: str, given: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path(file).read_bytes()
    assert main(["campaign", "copy", file, *given]) == code
    assert words in said(capsys) and Path(file).read_bytes() == before
    assert main(["campaign", "copy", "/nowhere/there.json"]) == 2


def test_a_model_proposes_and_nobody_is_sent_it_before_it_is_approved(
    file: str, chat_model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    chat_model.say = lambda asked: f"1. {OTHER}\n2. Free for all on Sunday\n"
    host, port = chat_model.server_address
    writer = [f"writer.url=http://{host}:{port}/v1", "writer.model=m1"]
    assert main(["campaign", "copy", file, "wanted=2", *writer]) == 1
    assert "says 'free'" in said(capsys)
    [_, proposed] = read_copy(Path(file)).variants
    assert (proposed.text, proposed.proposed_by, proposed.state) == (OTHER, "model m1", "proposed")
    assert sendable(read_copy(Path(file))) == ([], [])
    assert GOOD in str(chat_model.asked)
    chat_model.say = lambda asked: 500
    before = Path(file).read_bytes()
    assert main(["campaign", "copy", file, "wanted=2", *writer]) == 1
    assert Path(file).read_bytes() == before


def test_heads_of_a_message_have_a_picture_each(file: str) -> None:
    both = ['texts=["Half price until Sunday","Sunday, half price"]', "images=[a.png,b.png]", "by=ada"]
    assert main(["campaign", "copy", file, *both]) == 0
    assert [v.image for v in read_copy(Path(file)).variants] == ["", "a.png", "b.png"]
    assert main(["campaign", "copy", file, "approve=[v2]", "by=ada"]) == 0
    Path(file).write_text(Path(file).read_text().replace("a.png", "c.png"))
    assert sendable(read_copy(Path(file)))[0] == []
