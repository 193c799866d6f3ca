"""Writing so that a reader, a crash or a second process never sees half a file or half a folder.

Everything is written beside its place under a temporary name, flushed to the disk, and moved there in one step. A
process that was killed leaves at most a temporary sibling, which the next writer removes.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # linux/fs.h: both names exist at every moment, they only change places


def write_atomic(path: Path | str, data: bytes, mode: int = 0o666) -> None:
    """Put `data` at `path`: after a crash at any moment the file holds all of the old bytes or all of the new ones.

    Args:
        mode: permissions of the new file, less what the process' umask takes away; there from its first byte on.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    temporary = _temporary(path)
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends without an exception it takes the place of `path`.

    A folder that stood at `path` changes places with the new one in a single step (Linux `renameat2`) and is then
    removed, so a reader that opens `path` finds the old folder or the new one, never a mixture and never nothing. Files
    opened before the change stay readable. After an exception `path` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        sync_tree(temporary)
        if path.exists():
            _exchange(temporary, path)
        else:
            os.rename(temporary, path)
        sync_folder(path.parent)
    finally:
        # holds the unfinished folder after an exception and the replaced one after a success
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def alone(path: Path | str) -> Iterator[None]:
    """Hold the lock of a folder that need not exist yet: whoever else asks for it waits until the block has ended."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back by the kernel when the process dies
        yield


def sha256_file(path: Path | str) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(path: Path) -> None:
    """Flush a folder's own entries (names, renames) to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Flush every file and folder under `path` to the disk."""
    for folder, _, names in os.walk(path):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(folder))


def _temporary(path: Path) -> Path:
    # the process id lets _sweep tell a dead writer's leavings from a living one's work
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def _sweep(path: Path) -> None:
    """Remove what writers of `path` that are no longer alive left behind."""
    pattern = re.compile(re.escape(f".{path.name}.") + r"(\d+)\.[0-9a-f]{8}\.tmp")
    for name in os.listdir(path.parent):
        match = pattern.fullmatch(name)
        if match is None or _alive(int(match[1])):
            continue
        left = path.with_name(name)
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _exchange(new: Path, old: Path) -> None:
    """Let two folders change places."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        if rename(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), str(old))
    # a file system or a kernel without the exchange: two renames, with an instant in between at which `old` is absent
    aside = _temporary(old)
    os.rename(old, aside)
    os.rename(new, old)
    os.rename(aside, new)
