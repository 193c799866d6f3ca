"""Bundles taken up, tried, taken on and sent back while requests go on: no request fails, whatever is published."""

from __future__ import annotations

import json
import shutil
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvicorn

from playbill.bundle.write import current, publish
from playbill.cli import main
from playbill.release.publication import RECORD, Publication
from playbill.serving import load
from playbill.serving.http import Api
from playbill.serving.watcher import Watcher
from playbill.state.store import Store


class Load:
    """Clients that ask one after the other until they are stopped."""

    def __init__(self, url: str) -> None:
        self.url, self.statuses, self.bundles = url, Counter[int](), Counter[str]()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(2)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(20)

    def _ask(self, first: int) -> None:
        user = first
        while not self._stopped.is_set():
            user = user % 900 + 2
            body = json.dumps({"user_id": user, "k": 10}).encode()
            try:
                with urllib.request.urlopen(f"{self.url}/v1/recommend", body, timeout=20) as response:
                    self.statuses[response.status] += 1
                    self.bundles[json.loads(response.read())["bundle"]] += 1
            except Exception as error:
                self.statuses[getattr(error, "code", 0)] += 1


@pytest.fixture
def server(sealed_home: Path, versions: list[str], tmp_path: Path, free_ports: Any) -> Iterator[tuple[Path, str, Api]]:
    """A server of one process and its home; it looks for bundles twenty times a second."""
    home = tmp_path / "home"
    for name in ("bundles", "state"):
        shutil.copytree(sealed_home / name, home / name)
    store = Store.open(Path(home) / "state")
    api = Api(store)
    api.use(*load.open_engine(load.bundle_path(home, "current"), store))
    watcher = Watcher(api, store, str(home), "one", every_s=0.05)
    watcher.start()
    [port] = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(api, port=port, access_log=False, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield home, f"http://127.0.0.1:{port}", api
    server.should_exit = True
    thread.join(10)
    watcher.stop()
    store.close()


def wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def said(home: Path) -> list[Publication]:
    lines = (home / "bundles" / RECORD).read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Publication) for line in lines]


def ask_for_trial(home: Path, version: str, mode: str, *settings: str) -> None:
    given = [f"home={home}", f"bundle={version}", f"trial={mode}", "share=0.5", "least=60", "agree=0", "slower=50"]
    assert main(["publish", "force=true", "reason=a test", *given, *settings]) == 0


def test_what_is_published_answers_within_a_moment_and_a_broken_bundle_never(
    server: tuple[Path, str, Api], versions: list[str]
) -> None:
    home, url, api = server
    bundles = home / "bundles"
    shutil.copytree(bundles / versions[1], bundles / "broken")
    (bundles / "broken" / "items.parquet").write_bytes(b"no parquet")
    with Load(url) as load_of:
        for version in (versions[1], versions[0]):
            publish(bundles, version)
            wait_for(lambda version=version: api.version == version)  # type: ignore[misc]
        (bundles / "current").write_text("broken\n")  # past every check of `playbill publish`
        wait_for(lambda: bool(api.failed_bundle))
        asked = sum(load_of.statuses.values())
        wait_for(lambda: sum(load_of.statuses.values()) > asked + 20)
        assert api.version == versions[0] and str(api.failed_bundle).startswith("broken: ")
        publish(bundles, versions[1])
        wait_for(lambda: api.version == versions[1])
    assert set(load_of.statuses) == {200} and set(load_of.bundles) == set(versions)


def test_a_canary_that_stands_lower_is_sent_back_and_one_that_stands_higher_is_taken_on(
    server: tuple[Path, str, Api], versions: list[str]
) -> None:
    home, url, api = server
    whole, poor = versions
    with Load(url) as load_of:
        ask_for_trial(home, poor, "canary")
        wait_for(lambda: (home / "bundles" / RECORD).exists())
        wait_for(lambda: api.trying is None)
        assert api.version == current(home / "bundles") == whole
        answered = dict(load_of.bundles)
        assert answered[poor] > 10  # some were asked of it
        publish(home / "bundles", poor)
        wait_for(lambda: api.version == poor)
        ask_for_trial(home, whole, "canary")
        wait_for(lambda: api.version == whole)
    assert set(load_of.statuses) == {200}
    back, on = said(home)
    assert back.bundle == poor and "sent back" in back.trial and "stood on a lower rung" in back.trial
    assert on.bundle == whole and "canary: taken on" in on.trial and not on.gate_passed and on.forced == "a test"
    assert current(home / "bundles") == whole and api.failed_bundle is None
    assert not (home / "bundles" / "trial.json").exists()


def test_a_shadow_answers_nobody(server: tuple[Path, str, Api], versions: list[str]) -> None:
    home, url, api = server
    whole, poor = versions
    publish(home / "bundles", poor)
    wait_for(lambda: api.version == poor)
    with Load(url) as load_of:
        ask_for_trial(home, whole, "shadow")
        wait_for(lambda: api.trying is not None)
        before = load_of.bundles[whole]
        wait_for(lambda: api.trying is None)
        assert before == 0 and "shadow: taken on" in said(home)[-1].trial
        wait_for(lambda: load_of.bundles[whole] > 5)
        ask_for_trial(home, poor, "shadow", "agree=1")  # never the same lists
        wait_for(lambda: len(said(home)) == 2 and api.trying is None)
    assert set(load_of.statuses) == {200} and api.version == whole
    assert "sent back" in said(home)[-1].trial


def test_a_trial_of_a_bundle_that_does_not_load_is_over_at_once(
    server: tuple[Path, str, Api], versions: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    home, url, api = server
    path = home / "bundles" / versions[1]
    ask_for_trial(home, versions[1], "canary")
    assert "is to be tried beside" in " ".join(capsys.readouterr().out.split())
    wait_for(lambda: api.trying is not None)
    trial = home / "bundles" / "trial.json"
    asked = trial.read_bytes()
    trial.unlink()  # taken back
    wait_for(lambda: api.trying is None)
    (path / "items.parquet").write_bytes(b"no parquet")
    trial.write_bytes(asked)  # past every check of `playbill publish`
    wait_for(lambda: bool(api.failed_bundle))
    assert str(api.failed_bundle).startswith(f"{versions[1]}: ") and api.version == versions[0]
    wait_for(lambda: not trial.exists())
    assert api.trying is None and "could not be loaded" in said(home)[-1].trial
    # and one that does not verify is not tried
    assert main(["publish", f"home={home}", f"bundle={versions[1]}", "trial=canary", "force=true", "reason=x"]) == 1
    assert "items.parquet" in capsys.readouterr().err and not (home / "bundles" / "trial.json").exists()


@pytest.mark.parametrize(
    ("setting", "reason"),
    [("trial=half", "canary or shadow"), ("share=0", "share above 0"), ("slower=0.5", "slower >= 1")],
)
def test_settings_of_a_trial_are_checked(setting: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", setting]) == 2
    assert reason in capsys.readouterr().err
