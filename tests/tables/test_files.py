"""Files and folders are there whole or not at all, whoever dies in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from playbill.tables import files
from playbill.tables.files import atomic_folder, sha256_file, write_atomic


def test_write_atomic_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.json"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["state.json"]


def test_write_atomic_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "text, not bytes")  # type: ignore[arg-type]  # the wrong type is the point
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["state.json"]


def test_atomic_folder_keeps_the_old_folder_on_an_exception(tmp_path: Path) -> None:
    path = tmp_path / "tables"
    with atomic_folder(path) as out:
        (out / "a").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(path) as out:
        (out / "a").write_text("half")
        raise RuntimeError
    assert (path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["tables"]


def test_atomic_folder_without_the_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel or file system that cannot exchange two names still gets the new folder."""
    monkeypatch.setattr(files.ctypes, "CDLL", lambda *args, **kwargs: object())
    path = tmp_path / "tables"
    for text in ("old", "new"):
        with atomic_folder(path) as out:
            (out / "a").write_text(text)
    assert (path / "a").read_text() == "new"
    assert os.listdir(tmp_path) == ["tables"]


def test_a_reader_never_finds_the_folder_absent_or_mixed(tmp_path: Path) -> None:
    path = tmp_path / "tables"

    def write(number: int) -> None:
        with atomic_folder(path) as out:
            for name in "ab":
                (out / name).write_text(str(number))

    write(0)
    seen: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            folder = os.open(path, os.O_RDONLY)  # one folder, held open: what a reader opens stays what it was
            try:
                first, second = (Path(f"/proc/self/fd/{folder}/{name}").read_text() for name in "ab")
                if first != second:
                    seen.append(f"mixed {first} {second}")
            except FileNotFoundError:
                pass  # removed after the exchange: this reader opens anew
            finally:
                os.close(folder)
            if not path.exists():
                seen.append("absent")

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 60):
        write(number)
    stop.set()
    reader.join()
    assert seen == []


def test_a_killed_writer_leaves_the_old_folder_and_the_next_one_sweeps(tmp_path: Path) -> None:
    path = tmp_path / "tables"
    with atomic_folder(path) as out:
        (out / "a").write_text("old")
    program = (
        "import sys, time\nfrom playbill.tables.files import atomic_folder\n"
        "with atomic_folder(sys.argv[1]) as out:\n"
        "    (out / 'a').write_text('half'); print('ready', flush=True); time.sleep(60)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert (path / "a").read_text() == "old"
    assert len(os.listdir(tmp_path)) == 2  # the folder, and what the dead writer left
    with atomic_folder(path) as out:
        (out / "a").write_text("new")
    assert os.listdir(tmp_path) == ["tables"]


def test_a_living_writers_work_is_not_swept(tmp_path: Path) -> None:
    path = tmp_path / "tables"
    with atomic_folder(path) as first:
        (first / "a").write_text("first")
        with atomic_folder(path) as second:
            (second / "a").write_text("second")
        assert (path / "a").read_text() == "second"
    assert (path / "a").read_text() == "first"


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_file(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_an_old_temporary_of_a_dead_process_is_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = tmp_path / f".state.json.{dead.pid}.0123abcd.tmp"
    left.write_bytes(b"half")
    other = tmp_path / f".other.json.{dead.pid}.0123abcd.tmp"
    other.write_bytes(b"not ours to judge")
    write_atomic(tmp_path / "state.json", b"new")
    assert not left.exists() and other.exists()
