"""Subjects that a model proposes: held against the brand's rules, and sent once somebody approved them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbill.campaign.brand import BrandRules, faults
from playbill.campaign.copy_file import Copy, decide, propose, read_copy, sendable, write_copy
from playbill.campaign.copy_job import run
from playbill.campaign.copy_settings import CampaignCopySettings
from playbill.errors import ConfigError, EndpointError, PlaybillError
from playbill.words.settings import EndpointSettings

RULES = BrandRules(length=(10, 60), banned=("guaranteed", "act now"), claims=("free", "%", "best"),
                   tokens=("first_name", "city"), required=("first_name",))  # fmt: skip
FACTS = ["Free delivery until 30 November", "The autumn menu is here"]
GOOD = "{first_name}, free delivery until 30 November"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_copy(tmp_path / "subjects.json", Copy(facts=FACTS, rules=RULES))
    return tmp_path / "subjects.json"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{first_name}!", "length: expected 10 to 60 characters, got 13"),
        ("{first_name}, " + "x" * 60, "length"),
        ("{first_name}, GUARANTEED to arrive", "banned: says 'guaranteed'"),
        ("{first_name}, act  now for our menu", "banned: says 'act now'"),
        ("{first_name}, \uff47uaranteed by us", "banned"),  # a wide g
        ("{first_name}, guaran\u200bteed by us", "characters: U+200B"),
        ("{first_name}, the best menu yet", "claims: says 'best'"),
        ("{first_name}, 20% off everything", "claims: says '%'"),
        ("{first_name}, free for 20 days", "claims: the number 20"),
        ("{first_name} {surname}, the menu", "tokens: {surname}"),
        ("{first_name}, {{city}} has a menu", "tokens: a brace"),
        ("Free delivery until 30 November", "required: {first_name} is missing"),
    ],
)
def test_each_rule_names_the_variant_and_itself(text: str, said: str) -> None:
    if text == "{first_name}!":
        rules = BrandRules(length=(14, 60), tokens=("first_name",))
        assert faults("a", text, rules, []) == ["variant 'a': length: expected 14 to 60 characters, got 13"]
        return
    found = faults("a", text, RULES, FACTS)
    assert any(said in fault for fault in found) and all(fault.startswith("variant 'a': ") for fault in found)


def test_what_keeps_the_rules_has_no_fault_and_whole_words_count() -> None:
    assert faults("a", GOOD, RULES, FACTS) == []
    assert faults("a", "{first_name}, freedom and bestowed gifts", RULES, FACTS) == []


@given(st.text(max_size=80))
def test_any_text_gets_an_answer_and_none_hides_a_banned_word(text: str) -> None:
    assert faults("a", text, RULES, FACTS)  # none of these names the reader
    assert any("banned" in fault for fault in faults("a", f"{text} guaranteed {text}", RULES, FACTS))


@pytest.mark.parametrize(
    ("given", "said"),
    [({"length": (5, 2)}, "length"), ({"banned": (" ",)}, "banned"), ({"required": ("x",)}, "required")],
)
def test_rules_that_nothing_can_keep_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        BrandRules(**given)


def test_nothing_is_sendable_before_it_is_approved_nor_after_it_was_changed(path: Path) -> None:
    assert propose(path, [GOOD, "{first_name}, the best menu"], "ada") != []
    assert [v.text for v in read_copy(path).variants] == [GOOD] and sendable(read_copy(path)) == ([], [])
    decide(path, "v1", "grace", approve=True)
    [variant], none = sendable(read_copy(path))
    assert (variant.text, variant.approved_by, none) == (GOOD, "grace", [])
    approved = json.loads(path.read_bytes())

    def edited(**changes: Any) -> tuple[list[Any], list[str]]:
        told = json.loads(json.dumps(approved))
        told["variants"][0].update({k: v for k, v in changes.items() if k not in told})
        told.update({k: v for k, v in changes.items() if k in told})
        path.write_text(json.dumps(told))
        return sendable(read_copy(path))

    for changes in ({"text": GOOD + "!"}, {"facts": [*FACTS, "more"]}, {"sha256": ""}, {"approved_by": "eve"},
                    {"rules": {**approved["rules"], "banned": []}}):  # fmt: skip
        may, why = edited(**changes)
        assert may == [] and "decide again" in why[-1]
    assert edited(state="proposed") == ([], [])
    path.write_text(json.dumps(approved))
    decide(path, "v1", "grace", approve=False)
    assert sendable(read_copy(path)) == ([], [])


def test_somebody_approves_what_is_there_and_keeps_the_rules(path: Path) -> None:
    propose(path, [GOOD], "ada")
    before = path.read_bytes()
    for name, by, said in (("v9", "grace", "no variant"), ("v1", " ", "whoever decides")):
        with pytest.raises(ConfigError, match=said):
            decide(path, name, by, approve=True)
    told = json.loads(before)
    told["variants"][0]["text"] = "{first_name}, the best menu"
    path.write_text(json.dumps(told))
    with pytest.raises(ConfigError, match="variant 'v1': claims"):
        decide(path, "v1", "grace", approve=True)


@pytest.mark.parametrize("content", ["", "{}", '{"format": 2, "facts": [], "rules": {}}', '{"facts": [], "ruels": {}}'])
def test_a_file_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    for name in ("x.json", "none.json"):
        with pytest.raises(ConfigError, match=name):
            read_copy(tmp_path / name)


def test_a_model_proposes_and_its_faults_are_told(path: Path, chat_model: Any) -> None:
    model = model_of(
        chat_model,
        lambda _: f"1. {GOOD}\n2. {{first_name}}, guaranteed joy\n3. {{first_name}}, the autumn menu is here",
    )
    asked = CampaignCopySettings(file=str(path), wanted=5, writer=EndpointSettings(url=model.url, model="m"))
    with pytest.raises(PlaybillError, match="banned") as told:
        run(asked)
    found = str(told.value)
    assert "guaranteed joy" in found
    assert [(v.name, v.state, v.proposed_by) for v in read_copy(path).variants] == [
        ("v1", "proposed", "model m"), ("v3", "proposed", "model m"),
    ]  # fmt: skip
    assert b"Free delivery until 30 November" in model.asked[0][2]
    with pytest.raises(PlaybillError, match="banned"):
        run(asked)
    assert len(read_copy(path).variants) == 2  # what is there is not proposed again


def test_a_model_that_is_away_leaves_the_file_as_it_is(path: Path, chat_model: Any) -> None:
    before = path.read_bytes()
    with pytest.raises(EndpointError):
        writer = EndpointSettings(url=model_of(chat_model, lambda _: 503).url, model="m")
        run(CampaignCopySettings(file=str(path), wanted=5, writer=writer))
    assert path.read_bytes() == before


def model_of(chat_model: Any, reply: Callable[[str], str | bytes | int]) -> SimpleNamespace:
    """Let the model answer with words, a whole body, or a status; return where it is and what it was asked."""

    def say(wanted: str) -> Any:
        said = reply(wanted)
        return (said, b"{}") if isinstance(said, int) else (200, said) if isinstance(said, bytes) else said

    chat_model.say = say
    return SimpleNamespace(url=f"http://127.0.0.1:{chat_model.server_port}/v1", asked=chat_model.asked)
