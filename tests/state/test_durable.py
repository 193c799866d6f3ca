"""Durability and several processes: what was acknowledged is on the disk, whoever is killed and whenever."""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from playbill.state.events import Declared, Event
from playbill.state.store import Store
from playbill.tables.schema import EventKind

_WRITER = """
import os, sys
from playbill.state.events import Event
from playbill.state.store import Store
store = Store.open(sys.argv[1])
name, count = sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
for i in range(count):
    [new] = store.append([Event(event_id=f"{name}-{i}", event="view", user_id=name, item_id=f"i{i % 50}", at=i + 1)])
    os.write(1, f"{i} {new}\\n".encode())  # the acknowledgement
"""


@pytest.fixture
def path(place: Path | str) -> Path | str:
    return _declared(place)


def _declared(place: Path | str) -> Path | str:
    with Store.open(place) as store:
        store.declare(Declared(events=[EventKind(name="view")], user_id_type="string", item_id_type="string"))
    return place


def _writer(path: Path | str, name: str, count: int, *before: str) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-c", _WRITER, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_every_append_is_synced_before_it_is_acknowledged(tmp_path: Path) -> None:
    path = _declared(tmp_path / "state")
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: apt-get install strace")
    trace = tmp_path / "trace"
    calls = "trace=openat,fdatasync,fsync,msync,pwrite64,write"
    writer = _writer(path, "w", 25, "strace", "-f", "-e", calls, "-o", str(trace))
    out, err = writer.communicate(timeout=120)
    if writer.returncode and "ptrace" in err:
        pytest.skip(f"strace may not trace here: {err.strip()[:200]}")
    assert writer.returncode == 0, err
    assert len(re.findall(r"^\d+ True$", out, re.M)) == 25
    text = trace.read_text()
    opened = re.search(r'openat\(.*data\.mdb", O_WRONLY\|O_DSYNC.*= (\d+)', text)
    assert opened, "LMDB no longer opens its file O_DSYNC for the root page: look at what it does instead"
    # one commit: pages are synced, then the root page goes through a descriptor whose writes wait for the disk
    kinds = {r"(fdatasync|fsync|msync)\(.*= 0": "S", rf"pwrite64\({opened[1]},": "R", r'write\(1, "\d+ True': "A"}
    story = "".join(
        letter for line in text.splitlines() for pattern, letter in kinds.items() if re.search(pattern, line)
    )
    assert re.fullmatch(r"[SR]*?(S+R+A){25}", story), story  # opening may sync as well


def test_killed_writers_lose_nothing_acknowledged_and_store_nothing_twice(path: Path | str) -> None:
    seed = 20_240_501
    dice = random.Random(seed)
    acknowledged: dict[str, int] = {}
    for round_ in range(6):
        name = f"w{round_ % 2}"  # the same person again: a restarted sender delivers from the start
        writer = _writer(path, name, 100_000)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(dice.uniform(0.05, 0.5))
        writer.send_signal(signal.SIGKILL)
        said = re.findall(r"^(\d+) (True|False)$", writer.communicate(timeout=30)[0], re.M)
        assert said, f"nothing was acknowledged in round {round_}, seed {seed}"
        acknowledged[name] = max(acknowledged.get(name, 0), int(said[-1][0]) + 1)
    with Store.open(path) as store:
        log = [(s, e) for s, _, e in store.events()]
        assert [s for s, _ in log] == list(range(1, len(log) + 1)) and store.version == len(log)
        for name, count in acknowledged.items():
            ids = [e.event_id for _, e in log if e.user_id == name]
            assert len(ids) == len(set(ids))
            # at most one more than was acknowledged: the commit whose acknowledgement was killed
            assert ids == [f"{name}-{i}" for i in range(len(ids))] and count <= len(ids) <= count + 1
            assert store.profile(name).num_events == len(ids)
            assert store.profile(name).seen == [f"i{i}" for i in range(min(50, len(ids)))]


def test_writers_take_turns_and_a_reader_sees_each_commit(path: Path | str) -> None:
    writers = [_writer(path, f"w{i}", 60) for i in range(3)]
    with Store.open(path, readonly=True) as reader:
        seen = 0
        while any(w.poll() is None for w in writers):
            with reader.view([(f"w{i}", None) for i in range(3)]) as view:
                version = view.version
                profiles = [view.profile(f"w{i}") for i in range(3)]
            assert sum(p.num_events for p in profiles if p) == version >= seen  # one moment, whole transactions
            seen = version
            time.sleep(0.002)
        for writer in writers:
            out, err = writer.communicate()
            assert writer.returncode == 0, err
            assert len(re.findall(r"^\d+ True$", out, re.M)) == 60
        assert reader.version == 180
        assert [s for s, _, _ in reader.events()] == list(range(1, 181))


def test_two_processes_given_the_same_event_store_it_once(path: Path | str) -> None:
    writers = [_writer(path, "same", 80) for _ in range(2)]
    out = "".join(w.communicate(timeout=120)[0] for w in writers)
    assert len(re.findall(r"True$", out, re.M)) == 80 == len(re.findall(r"False$", out, re.M))
    with Store.open(path) as store:
        assert store.profile("same").num_events == 80
        assert store.append([Event(event_id="same-3", event="view", user_id="same", item_id="x")]) == [False]
