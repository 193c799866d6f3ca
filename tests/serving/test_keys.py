"""API keys: the file that holds them, the command that makes them, and how often one may be used."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbill.cli import main
from playbill.errors import ConfigError
from playbill.serving.guard import Bucket, Guard, check_exposure
from playbill.serving.keys import Scope, add_key, id_of, keys_path, make_key, read_keys, revoke_key
from playbill.serving.messages import Refused


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return keys_path(tmp_path)


def test_a_key_is_shown_once_and_its_hash_is_kept(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"home={path.parent}", "name=shop", "scopes=[recommend,events]", "rate=50", "burst=80"]
    assert main(["keys", "add", *arguments]) == 0
    said = capsys.readouterr()
    text = said.out.strip()
    assert re.fullmatch(r"pb_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", text) and said.out.count("\n") == 1
    assert "it is the first" in said.err
    assert text not in path.read_text() and text[16:] not in path.read_text()
    [key] = read_keys(path) or []
    assert key.sha256 == hashlib.sha256(text.encode()).hexdigest() and key.id == id_of(text)
    assert (key.name, key.scopes, key.rate, key.burst) == ("shop", [Scope.recommend, Scope.events], 50.0, 80)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert main(["keys", f"home={path.parent}"]) == 0
    listed = capsys.readouterr().out
    assert "shop" in listed and key.id in listed and text[16:] not in listed and key.sha256 not in listed


def test_the_file_stays_private_whatever_the_umask_and_when_it_is_replaced(path: Path) -> None:
    before = os.umask(0)
    try:
        add_key(path, "one", [Scope.admin], None, None)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        revoke_key(path, "one")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_name_belongs_to_one_living_key(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, _ = add_key(path, "shop", [Scope.events], None, None)
    with pytest.raises(ConfigError, match="there is a key 'shop' already"):
        add_key(path, "shop", [Scope.events], None, None)
    assert main(["keys", "revoke", "name=shop", f"home={path.parent}"]) == 0
    second, _ = add_key(path, "shop", [Scope.events], None, None)
    keys = read_keys(path) or []
    assert [(k.id, k.revoked_at is None) for k in keys] == [(first.id, False), (second.id, True)]
    assert main(["keys", "revoke", "name=other", f"home={path.parent}"]) == 2
    assert "no key 'other' to revoke; there are: shop" in capsys.readouterr().err


def test_keys_made_at_the_same_time_are_all_kept(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from playbill.serving.keys import *\n"
        "for n in range(8): add_key(Path(sys.argv[1]), f'{sys.argv[2]}-{n}', [Scope.events], None, None)"
    )
    makers = [subprocess.Popen([sys.executable, "-c", code, path, name]) for name in "abc"]
    assert [m.wait(60) for m in makers] == [0, 0, 0]
    assert {k.name for k in read_keys(path) or []} == {f"{name}-{n}" for name in "abc" for n in range(8)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "scopes=[events]"], "name: expected the name"),
        (["add", "name=x"], "scopes: expected at least one of [recommend,events,items,admin]"),
        (["add", "name=x", "scopes=[root]"], "expected one of [recommend, events, items, admin]"),
        (["add", "name=../x", "scopes=[events]"], "key '../x'"),
        (["add", "name=x", "scopes=[events]", "rate=0"], "rate: expected"),
        (["add", "name=x", "scopes=[events]", "rate=nan"], "rate: expected"),
        (["add", "name=x", "scopes=[events]", "burst=3"], "burst: has a meaning beside a rate alone"),
        (["add", "name=x", "scopes=[events]", "rate=1", "burst=0"], "burst: expected 1 to"),
        (["revoke"], "name: expected the name"),
        (["revoke", "name=x", "scopes=[events]"], "scopes: a revoked key has none"),
        (["name=x"], "did you mean `playbill keys add`?"),
        (["remove"], "expected one of [list, add, revoke]"),
    ],
)
def test_a_bad_command_says_why_and_writes_nothing(
    tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", *arguments, f"home={tmp_path}"]) == 2
    assert said in capsys.readouterr().err
    assert not keys_path(tmp_path).exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: f.write_text("{"), "put back what `playbill keys` wrote"),
        (lambda f: f.write_bytes(b"\xff"), "put back"),
        (lambda f: f.write_text(f.read_text().replace('"events"', '"everything"')), "everything"),
        (lambda f: f.write_text(f.read_text().replace('"scopes"', '"scope"')), "scope"),
        (lambda f: f.write_text(re.sub(r'"scopes": \[[^]]*\]', '"scopes": []', f.read_text())), "length"),
        (lambda f: f.write_text(re.sub(r'"sha256": "..', '"sha256": "', f.read_text())), "sha256"),
        (lambda f: f.write_text(f.read_text().replace('"format_version": 1', '"format_version": 2')), "upgrade"),
        (lambda f: f.chmod(0o620), "chmod 600"),
        (lambda f: f.chmod(0o602), "chmod 600"),
    ],
)
def test_a_spoilt_file_is_refused_and_opens_nothing(path: Path, spoil: object, said: str) -> None:
    _, text = add_key(path, "shop", [Scope.events], None, None)
    now = [0.0]
    guard = Guard(path, clock=lambda: now[0])
    guard.admit({"x-api-key": text}, Scope.events)
    good = path.read_bytes()
    spoil(path)  # type: ignore[operator]
    with pytest.raises(ConfigError, match=said):
        read_keys(path)
    now[0] += 1
    for headers in ({"x-api-key": text}, {}):
        with pytest.raises(Refused) as refused:
            guard.admit(headers, Scope.events)
        assert refused.value.status == 503 and "its log" in refused.value.reason
    path.write_bytes(good)
    path.chmod(0o600)
    now[0] += 1
    guard.admit({"x-api-key": text}, Scope.events)


def test_a_file_that_is_gone_opens_nothing(path: Path) -> None:
    now = [0.0]
    guard = Guard(path, clock=lambda: now[0])
    guard.admit({}, Scope.events)  # there is none yet
    _, text = add_key(path, "shop", [Scope.events], None, None)
    now[0] += 1
    with pytest.raises(Refused, match="expected an API key"):
        guard.admit({}, Scope.events)
    path.unlink()
    now[0] += 1
    for headers in ({}, {"x-api-key": text}):
        with pytest.raises(Refused) as refused:
            guard.admit(headers, Scope.events)
        assert refused.value.status == 503
    with pytest.raises(Refused) as refused:  # and so for a process that starts anew, told that keys were there
        Guard(path, required=True).admit({}, Scope.events)
    assert refused.value.status == 401


def test_the_owner_needs_no_file(path: Path) -> None:
    owner, text = make_key("owner", [Scope.admin])
    guard = Guard(path, required=True, owner=owner)
    assert guard.scopes({"x-api-key": text}) == {Scope.admin}
    with pytest.raises(Refused) as refused:
        guard.admit({"x-api-key": text}, Scope.recommend)
    assert refused.value.status == 403


def test_a_key_used_too_often_waits_for_as_long_as_it_is_told(path: Path) -> None:
    """rate 4 and burst 6 of two replicas: each lets through 3 at once, then 2 a second."""
    _, text = add_key(path, "shop", [Scope.events], 4, 6)
    _, other = add_key(path, "other", [Scope.events], 4, 6)
    now = [100.0]
    guard = Guard(path, replicas=2, clock=lambda: now[0])

    def use(key: str = text) -> str:
        try:
            guard.admit({"authorization": f"bearer {key}"}, Scope.events)
        except Refused as refused:
            assert refused.status == 429 and refused.headers is not None
            return refused.headers["retry-after"]
        return ""

    assert [use() for _ in range(5)] == ["", "", "", "1", "1"]
    assert use(other) == ""
    now[0] += 0.49
    assert use() == "1"
    now[0] += 0.02
    assert [use(), use()] == ["", "1"]
    now[0] += 3600
    assert [use() for _ in range(4)] == ["", "", "", "1"]
    revoke_key(path, "other")  # the file is read again: what was used stays used
    now[0] += 0.3
    assert use() == "1"


def test_retry_after_of_a_slow_key_is_when_it_may(path: Path) -> None:
    _, text = add_key(path, "slow", [Scope.events], 0.1, None)
    now = [0.0]
    guard = Guard(path, clock=lambda: now[0])
    guard.admit({"x-api-key": text}, Scope.events)
    with pytest.raises(Refused) as refused:
        guard.admit({"x-api-key": text}, Scope.events)
    assert refused.value.headers == {"retry-after": "10"}
    now[0] += 10
    guard.admit({"x-api-key": text}, Scope.events)


@given(
    rate=st.floats(0.01, 1000),
    burst=st.floats(1, 100),
    steps=st.lists(st.floats(0, 10), max_size=60),
)
def test_never_more_than_burst_and_rate_allow(rate: float, burst: float, steps: list[float]) -> None:
    bucket, now, taken = Bucket(burst, 0.0), 0.0, 0
    for step in steps:
        now += step
        wait_s = bucket.take(rate, burst, now)
        taken += wait_s == 0
        assert taken <= (burst + rate * now) * (1 + 1e-9)
        assert wait_s == 0 or 0 < wait_s <= 1 / rate


KEYED = ["none", "living", "revoked"]


@pytest.mark.parametrize("keys", KEYED)
@pytest.mark.parametrize("insecure", [False, True])
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "0.0.0.0", "::", "10.0.0.5", "shop.example"]
)
def test_a_server_that_can_be_reached_has_keys_or_says_that_it_has_none(
    path: Path, host: str, insecure: bool, keys: str
) -> None:
    if keys != "none":
        add_key(path, "shop", [Scope.events], None, None)
    if keys == "revoked":
        revoke_key(path, "shop")
    outside = host not in ("127.0.0.1", "127.8.8.8", "::1", "localhost")
    if outside and (keys == "revoked" or keys == "none" and not insecure):
        with pytest.raises(ConfigError, match="holds no API key") as refused:
            check_exposure(path.parent, host, insecure)
        assert ("insecure=true" in str(refused.value)) == (keys == "none")
        return
    required, remark = check_exposure(path.parent, host, insecure)
    assert required == (keys != "none")
    assert bool(remark) == insecure
    assert ("no effect" in remark) == (insecure and not (outside and keys == "none"))


def test_a_refusal_quotes_no_key(path: Path) -> None:
    _, text = add_key(path, "shop", [Scope.events], None, None)
    guard = Guard(path)
    wrong = text[:-1] + ("A" if text[-1] != "A" else "B")
    for headers in ({"x-api-key": wrong}, {"authorization": f"Basic {text}"}, {"x-api-key": "\xff" * 9000}):
        with pytest.raises(Refused) as refused:
            guard.admit(headers, Scope.events)
        assert refused.value.status == 401
        assert text[16:40] not in json.dumps([refused.value.reason, refused.value.headers])
