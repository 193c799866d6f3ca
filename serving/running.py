"""A server that runs from a home: where it is, how it stands, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import msgspec

from playbill.errors import PlaybillError
from playbill.serving import processes
from playbill.serving.settings import ServeSettings
from playbill.tables.files import write_atomic


class Running(msgspec.Struct, kw_only=True):
    """`serve.json`: a server that answers.

    Attributes:
        pid: of the process that owns it.
        mark: that every process of the server carries, see `processes`.
        scratch: folder of HAProxy's configuration and sockets.
        settings: that it was started with.
        key: with which it lets itself be asked how it stands; nobody but the file's owner may read it.
    """

    pid: int
    mark: str
    scratch: str
    settings: ServeSettings
    key: str


def record(home: Path) -> Path:
    """Return the path of `serve.json`."""
    return home / "serve.json"


def wanted(home: Path) -> Path:
    """Return the path of the file that names the bundle to swap to; SIGUSR1 tells the owner to look."""
    return home / "serve.want"


def read(home: Path) -> Running | None:
    """Return what `serve.json` says; None when it is not there, or not readable."""
    try:
        return msgspec.json.decode(record(home).read_bytes(), type=Running)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def url(settings: ServeSettings) -> str:
    """Return the address that a client on this machine uses."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def health(settings: ServeSettings, key: str, timeout_s: float = 5.0) -> dict[str, Any] | None:
    """Return what one replica says about itself over a new connection; None when it does not answer 200."""
    connection = http.client.HTTPConnection(url(settings).removeprefix("http://"), timeout=timeout_s)
    try:
        connection.request("GET", "/v1/health", headers={"x-api-key": key})
        response = connection.getresponse()
        body = response.read()
        return json.loads(body) if response.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def await_bundle(settings: ServeSettings, version: str, key: str) -> dict[str, Any]:
    """Return one replica's health when every replica answers from this bundle.

    Args:
        key: the owner's, see `Running`.
    Raises:
        PlaybillError: a replica could not load it, or the time is up.
    """
    deadline = time.monotonic() + settings.start_timeout_s
    on_it: dict[str, int] = {}
    while time.monotonic() < deadline:
        answer = health(settings, key)
        if answer is None:
            time.sleep(0.2)
            continue
        if answer["failed_bundle"] and answer["failed_bundle"].startswith(f"{version}:"):
            raise PlaybillError(f"{answer['failed_bundle']}; {answer['bundle']} answers on")
        if answer["bundle"] != version:
            on_it.clear()
            time.sleep(0.1)
            continue
        on_it[answer["replica"]] = on_it.get(answer["replica"], 0) + 1
        if len(on_it) >= settings.replicas:
            return answer
        # the ingress picks the replica, and may pick the same one for long when it is alone in being ready
        time.sleep(0.02)
    raise PlaybillError(
        f"after {settings.start_timeout_s:g} s {len(on_it)} of {settings.replicas} replicas answer from {version}; "
        f"see the logs under /tmp/ray/session_latest/logs/serve"
    )


def swap(home: Path, found: Running, version: str, pinned: bool) -> dict[str, Any]:
    """Let a server answer from another bundle; return one replica's health when all of them do.

    Args:
        pinned: whether it stays with this one whatever is published later.

    Raises:
        PlaybillError: a replica could not load it, or the time is up; the bundle before it answers on.
    """
    before = health(found.settings, found.key)
    _tell(home, found, version, pinned)
    try:
        return await_bundle(found.settings, version, found.key)
    except PlaybillError:
        if before is not None:
            _tell(home, found, before["bundle"], True)  # else a replica that starts anew would have to load the bad one
        raise


def _tell(home: Path, found: Running, version: str, pinned: bool) -> None:
    write_atomic(wanted(home), f"{version}{' pinned' if pinned else ''}".encode())
    os.kill(found.pid, signal.SIGUSR1)


def stop(home: Path) -> None:
    """End the server that runs from a home and return when nothing of it is left.

    Raises:
        PlaybillError: it does not end.
    """
    found = read(home)
    if found is None:
        raise PlaybillError(f"a server from {home} is starting or stopping; try again in a few seconds")
    try:
        os.kill(found.pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
    patience_s = found.settings.drain_s + 60
    if not processes.wait_until(lambda: _unlocked(home) and not processes.lives(found.pid), patience_s):
        os.kill(found.pid, signal.SIGKILL)
    sweep(home)


def sweep(home: Path) -> None:
    """Remove what a server left that did not end by itself: processes that carry its mark, its files."""
    found = read(home)
    if found is not None:
        processes.end(found.mark, patience_s=2)
        shutil.rmtree(found.scratch, ignore_errors=True)
        record(home).unlink(missing_ok=True)


def _unlocked(home: Path) -> bool:
    with processes.exclusive(home / "serve.lock") as mine:
        return mine
