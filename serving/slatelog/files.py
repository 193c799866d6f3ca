"""The files of a slate log: which there are, how one is closed, how one is read, and which may go.

    <home>/slates/20240501T183000Z-<machine>-<pid>-<began>-<n>.jsonl.open    lines, as a process writes them
                  20240501T183000Z-<machine>-<pid>-<began>-<n>.jsonl.zst     closed: compressed, with its end; never
                                                                             changed, but by erasure, as a whole

What a killed process left open is closed by the next one to start on its machine; where that never comes back, as a
pod, by the next one elsewhere that shares the folder, once no living process could still write it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from playbill.serving.processes import began_at
from playbill.serving.slatelog.lines import Damaged, End, Line, Logged, decode, encode
from playbill.tables.files import alone, sync_folder, write_atomic

log = logging.getLogger("playbill.slates")

OPEN, CLOSED = ".jsonl.open", ".jsonl.zst"
_NAME = re.compile(r"\d{8}T\d{6}Z-(?P<machine>[\w.]+)-(?P<pid>\d+)-(?P<began>\d+)-\d+")
_FRAME = 1 << 20  # bytes compressed at a time


def folder_of(home: Path | str) -> Path:
    return Path(home) / "slates"


def machine() -> str:
    """Return this machine's name, as files have it."""
    return re.sub(r"[^\w.]", "_", platform.node()) or "machine"


def new_file(folder: Path, number: int) -> Path:
    """Return where a process begins its next file."""
    now, pid = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()), os.getpid()
    return folder / f"{now}-{machine()}-{pid}-{began_at(pid)}-{number:06}{OPEN}"


def closed(folder: Path) -> list[Path]:
    """Return the closed files, oldest first."""
    return sorted(folder.glob(f"*{CLOSED}"))


def close(path: Path, end: End | None = None) -> Path:
    """Close an open file that nobody writes any more: compress it and note its end. Return the closed one.

    Args:
        end: of the file, by whoever wrote it; None: it is read for that. A half line behind the last whole one, of a
            process that was killed, is left out then, and counted.
    Raises:
        Damaged: a line is not what was written.
    """
    end = _end(path) if end is None else end
    size = path.stat().st_size - end.lost
    with path.open("rb") as file:  # a frame at a time: files are large, and the process answers meanwhile
        frames = [compressed(file.read(min(_FRAME, size - low))) for low in range(0, size, _FRAME)]
    there = path.with_name(path.name.removesuffix(OPEN) + CLOSED)
    write_atomic(there, b"".join([*frames, compressed(encode(end))]), mode=0o600)
    path.unlink()
    sync_folder(path.parent)
    return there


def _end(path: Path) -> End:
    digest, count, at, size = hashlib.sha256(), 0, [], 0
    for count, raw in enumerate(_raw(path), 1):
        digest.update(raw)
        size += len(raw)
        line = decode(raw[:-1], f"{path} line {count}")
        if isinstance(line, Logged):
            at.append(line.at)
    return End(
        lines=count,
        slates=len(at),
        sha256=digest.hexdigest(),
        first=min(at, default=0),
        last=max(at, default=0),
        lost=path.stat().st_size - size,
    )


def recover(folder: Path, oldest_s: float) -> None:
    """Close what processes left open that are no more.

    Args:
        oldest_s: age in seconds that no file reaches which is still written; those of other machines go by it.
    """
    for path in sorted(folder.glob(f"*{OPEN}")):
        found = _NAME.match(path.name)
        if found is None:
            continue
        mine = found["machine"] == machine()
        lives = began_at(int(found["pid"])) == found["began"] if mine else time.time() - _begun(path) < oldest_s
        if lives:
            continue
        with alone(folder / "closing"), suppress(FileNotFoundError):  # another process may have done so
            try:
                close(path)
            except Damaged as error:
                log.error("%s cannot be closed and stays as it is: %s", path, error)


def forget(folder: Path, keep_days: float, keep_bytes: float) -> list[Path]:
    """Remove the closed files that are too old or too many; return them. Args: 0 keeps all."""
    gone, total = [], 0.0
    oldest = time.time() - keep_days * 86_400
    with alone(folder / "closing"):
        for path in reversed(closed(folder)):
            size = path.stat().st_size
            too_old = keep_days and path.stat().st_mtime < oldest
            if too_old or (keep_bytes and total + size > keep_bytes):
                path.unlink()
                gone.append(path)
            else:
                total += size
    return gone


def read(path: Path) -> Iterator[tuple[int, Line]]:
    """Yield the lines of a file by number, from 1; of a closed one the end as well.

    An open file ends with its last whole line.

    Raises:
        Damaged: a byte is another than was written; names the line.
    """
    digest, last, number, slates = hashlib.sha256(), b"", 0, 0
    for number, raw in enumerate(_raw(path), 1):
        line = decode(raw[:-1], f"{path} line {number}")
        if isinstance(line, End):
            if (line.lines, line.slates, line.sha256) != (number - 1, slates, digest.hexdigest()):
                raise Damaged(f"{path} line {number}: the end speaks of {line.lines} lines, there are {number - 1}")
        else:
            digest.update(raw)
            slates += isinstance(line, Logged)
        last = raw
        yield number, line
    if path.name.endswith(CLOSED) and b'"kind":"end"' not in last[:20]:
        raise Damaged(f"{path}: the end is missing behind line {number}; the file was cut off")


def end_of(path: Path) -> End:
    """Return the end of a closed file. Raises: Damaged."""
    last: Line | None = None
    for raw in _raw(path):
        if raw.startswith(b'{"kind":"end"'):
            last = decode(raw[:-1], f"{path}, its end")
    if not isinstance(last, End):
        raise Damaged(f"{path}: the end is missing; the file was cut off")
    return last


def compressed(data: bytes) -> bytes:
    """Return zstd frames, which `zstd -d` reads as one."""
    frames = []
    for low in range(0, len(data), _FRAME):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(data[low : low + _FRAME])
        frames.append(sink.getvalue().to_pybytes())
    return b"".join(frames)


def _begun(path: Path) -> float:
    """Return when a file was begun, seconds since 1970, by its name."""
    return datetime.strptime(path.name[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _raw(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file as bytes, each with its end."""
    with path.open("rb") as file:
        if not path.name.endswith(CLOSED):
            for raw in file:
                if raw.endswith(b"\n"):
                    yield raw
            return
        number, rest = 0, b""
        try:
            with pa.CompressedInputStream(file, "zstd") as stream:
                while chunk := stream.read(_FRAME):
                    *whole, rest = (rest + chunk).split(b"\n")
                    for raw in whole:
                        number += 1
                        yield raw + b"\n"
        except OSError as error:  # what Arrow raises for bytes that are no zstd
            raise Damaged(f"{path}, behind line {number}: a byte was changed, or lost ({error})") from None
        if rest:
            raise Damaged(f"{path}, behind line {number}: half a line; the file was cut off")
