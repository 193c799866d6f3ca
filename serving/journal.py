"""Structured logs: one line of json for each request and each message of the log, on standard output.

    {"time": "2024-05-01T18:30:00.123456Z", "level": "info", "event": "request", "request_id": "...", "route":
     "/v1/recommend", "status": 200, "rung": "full", "bundle": "...", "ms": 1.5, "stages_ms": {"retrieve": 0.4, ...}}
    {"time": "...", "level": "warning", "event": "log", "logger": "playbill.watcher", "message": "bundle 2 answers"}

A line holds what the server says and nothing that a caller sent, but for the request id of the header. Lines go into a
pipe, whose other end the process that owns the server copies to its standard output; where nobody reads as fast as they
come, lines are dropped and counted, and answers go on.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from playbill.serving.figures.counts import Counts
from playbill.serving.seen import Seen

PIPE = "PLAYBILL_LINES"  # environment: the named pipe of this server, where the owner made one
_WHOLE = 4096  # bytes that a pipe takes at once or not at all
_PIPE_BYTES = 1 << 20
_encode = msgspec.json.Encoder().encode


class RequestLine(msgspec.Struct, kw_only=True, omit_defaults=True, tag="request", tag_field="event"):
    """A request. Attributes: as of `Seen`; `stages_ms` in the order in which they ended."""

    time: str
    level: str
    process: str
    request_id: str
    route: str
    status: int
    ms: float
    cause: str = ""
    rung: str = ""
    surface: str = ""
    bundle: str = ""
    state_version: int = -1
    late: list[str] = []
    stages_ms: dict[str, float] = {}


class Journal(logging.Handler):
    """Writes lines, and takes what Python's logging says as lines too."""

    def __init__(self, process: str, counts: Counts) -> None:
        """Begin: into the pipe that the environment names, else to standard output by a thread of this process.

        Args:
            process: name of this process, which stands in each line.
            counts: told of lines that were dropped.
        """
        super().__init__(logging.INFO)
        self._process, self._counts = process, counts
        named = os.environ.get(PIPE)
        if named:
            self._pipe = os.open(named, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        else:
            out, self._pipe = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._pipe, False)
            copy_out(out)
        logging.getLogger("playbill").addHandler(self)

    def request(self, seen: Seen) -> None:
        """Write the line of a request."""
        level = "error" if seen.status >= 500 else "info"
        line = RequestLine(
            time=_moment(seen.began_ns * 1e-9),
            level=level,
            process=self._process,
            request_id=seen.request_id,
            route=seen.route,
            status=seen.status,
            ms=round(seen.times_ms["total"], 3),
            cause=seen.cause,
            rung=seen.rung,
            surface=seen.surface,
            bundle=seen.bundle,
            state_version=seen.state_version,
            late=seen.late,
            stages_ms={stage: round(ms, 3) for stage, ms in seen.times_ms.items() if stage != "total"},
        )
        self._put(_encode(line))

    def emit(self, record: logging.LogRecord) -> None:
        """Write what was logged, its end cut off where it is too long for one line."""
        told = {
            "time": _moment(record.created),
            "level": record.levelname.lower(),
            "event": "log",
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage()[: _WHOLE // 2],
        }
        line = _encode(told)
        while len(line) >= _WHOLE:  # what json needs several bytes for
            told["message"] = told["message"][: len(told["message"]) // 2]
            line = _encode(told)
        self._put(line)

    def end(self) -> None:
        """Write no more. (`close` is called by whoever configures Python's logging, as uvicorn does.)"""
        logging.getLogger("playbill").removeHandler(self)
        with suppress(OSError):
            os.close(self._pipe)

    def _put(self, line: bytes) -> None:
        try:
            os.write(self._pipe, line + b"\n")
        except OSError:  # full, or nobody reads any more
            self._counts.count("log_lines_dropped")


def open_pipe(path: Path) -> None:
    """Make the named pipe of a server, and copy what comes through it to standard output while this process lives."""
    os.mkfifo(path, 0o600)
    # read and write, so that it stays open when the last replica has gone
    copy_out(os.open(path, os.O_RDWR | os.O_CLOEXEC))


def copy_out(pipe: int) -> None:
    """Copy a pipe to standard output, in a thread."""
    with suppress(OSError):  # of a system that allows less: lines are dropped earlier
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    threading.Thread(target=_copy, args=(pipe,), name="playbill-lines", daemon=True).start()


def _copy(pipe: int) -> None:
    while data := os.read(pipe, _PIPE_BYTES):
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(1, view) :]
            except OSError:  # whoever read standard output has gone
                break


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
