"""Locks, ports, and ending processes by the mark that they inherit."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from playbill.serving import processes


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PLAYBILL_OWNER", "set back afterwards")
    return processes.mark()


def test_children_of_children_are_found_and_ended(mark: str) -> None:
    # the middle process dies, as a killed owner does; its child ignores the polite signal
    inner = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    outer = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {inner!r}]); p.wait()"
    middle = subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE)
    assert middle.stdout is not None and middle.stdout.readline() == b"up\n"
    assert len(processes.marked(mark)) == 2
    middle.kill()
    middle.wait()
    middle.stdout.close()
    assert len(processes.marked(mark)) == 1
    assert processes.end(mark, patience_s=0.3) == 1
    assert processes.marked(mark) == []


def test_other_processes_are_left_alone(mark: str) -> None:
    other = subprocess.Popen(["sleep", "60"], env={**os.environ, "PLAYBILL_OWNER": "somebody else"})
    try:
        assert processes.end(mark, patience_s=0.1) == 0
        assert other.poll() is None and processes.lives(other.pid)
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert not processes.lives(other.pid)


def test_a_lock_is_held_by_one_and_given_back_by_a_crash(tmp_path: Path) -> None:
    lock = tmp_path / "deep" / "x.lock"
    code = f"from playbill.serving.processes import exclusive\nfrom pathlib import Path\nimport time\nwith exclusive(Path({str(lock)!r})) as mine:\n    print(mine, flush=True)\n    time.sleep(60)"  # fmt: skip  # noqa: E501 (one line of code for another process)
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "True\n"
    with processes.exclusive(lock) as mine:
        assert not mine
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with processes.exclusive(lock) as mine:
        assert mine


def test_a_taken_port_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not processes.port_is_free("127.0.0.1", port)
    assert processes.port_is_free("127.0.0.1", port)
