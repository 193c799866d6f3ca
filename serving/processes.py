"""The processes of a Ray that we started: marked from the start, so that they can be found and ended in any case.

A Ray cluster is a dozen processes, and HAProxy another; when their owner is killed some of them live on. All of them
inherit one environment variable, and Linux shows a process's environment under /proc.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playbill.errors import PlaybillError

_MARK = "PLAYBILL_OWNER"


def mark() -> str:
    """Mark every process that this one starts from now on; return the mark."""
    value = secrets.token_hex(8)
    os.environ[_MARK] = value
    os.environ["SPT_NOENV"] = "1"  # Ray's workers give themselves titles, and would write them over their environment
    return value


def marked(value: str) -> list[int]:
    """Return the ids of living processes that carry a mark, this one left out."""
    entry = f"{_MARK}={value}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if entry in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:  # another user's, or gone already
                continue
    return found


def end(value: str, patience_s: float = 5.0) -> int:
    """End every process that carries a mark: waited for, then asked, then killed. Return how many had to be ended."""
    if wait_until(lambda: not marked(value), patience_s):
        return 0
    left = marked(value)
    for sent in (signal.SIGTERM, signal.SIGKILL):
        for process in marked(value):
            try:
                os.kill(process, sent)
            except ProcessLookupError:
                continue
        # a killed process is gone when the kernel has cleared it away, whatever our patience
        if wait_until(lambda: not marked(value), patience_s if sent is signal.SIGTERM else 10.0):
            return len(left)
    raise PlaybillError(f"processes {marked(value)} could not be ended; end them by hand")


def lives(process: int) -> bool:
    """Return whether a process is there and has not ended."""
    try:
        # the state follows the name, which stands in parentheses and may hold anything
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def began_at(pid: int) -> str:
    """Return when the kernel started a process, in its own ticks; empty where there is none."""
    try:
        # the fields follow the name, which stands in parentheses and may hold anything
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def wait_until(done: Callable[[], object], timeout_s: float, every_s: float = 0.1) -> bool:
    """Return whether `done()` became true within the time."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


@contextmanager
def exclusive(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[bool]:
    """Hold a lock file for the time of the block; yield False when another process holds it. A crash gives it back.

    Args:
        waiting: called when another process holds it, which is then waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is None:
                yield False
                return
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield True
        else:
            yield True
    finally:
        os.close(descriptor)


def port_is_free(host: str, port: int) -> bool:
    """Return whether one could listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ports that are only closing down count as free
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
