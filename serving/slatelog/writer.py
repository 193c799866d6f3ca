"""Writes answers into the slate log, in a thread of its own: what waits is bounded, and an answer waits for nothing."""

from __future__ import annotations

import logging
import os
import queue
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

import playbill
from playbill.errors import trace
from playbill.serving.figures.counts import Counts
from playbill.serving.slatelog import files
from playbill.serving.slatelog.content import Content, Entry
from playbill.serving.slatelog.lines import File, encode
from playbill.serving.slatelog.settings import SlateLogSettings

log = logging.getLogger("playbill.slates")

_GROUP = 256  # answers in one write
_PAUSE_S = 0.05  # between two groups: so old is what a killed process loses
_ROOM_EVERY_S = 5.0


class SlateLog:
    """The slate log of one process.

    Attributes:
        settings: that it was made with.
    """

    def __init__(self, home: Path | str, process: str, settings: SlateLogSettings, counts: Counts) -> None:
        """Make one that begins with `start`.

        Args:
            process: name of this process, for those who read the files.
            counts: told what becomes of each answer: written, dropped.
        """
        self.settings = settings
        self._folder, self._process, self._counts = files.folder_of(home), process, counts
        self._waiting: queue.Queue[Entry] = queue.Queue(settings.queue)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="playbill-slates", daemon=True)
        self._number = 0
        self._path: Path | None = None
        self._file: int | None = None
        self._began = self._size = 0.0
        self._content = Content(settings.visits)
        self._looked, self._room = 0.0, True
        self._said: set[str] = set()

    def start(self) -> None:
        """Begin to write, after what killed processes left was closed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, and close the file."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(30)

    @property
    def waiting(self) -> int:
        """Answers that are still to be written."""
        return self._waiting.qsize()

    @property
    def size_bytes(self) -> int:
        """Bytes of all files of this home, open and closed."""
        return sum(path.stat().st_size for path in self._folder.glob("*.jsonl.*") if path.exists())

    def note(self, entry: Entry) -> None:
        """Take in an answer; it is dropped, and counted, where too many wait."""
        try:
            self._waiting.put_nowait(entry)
        except queue.Full:
            self._dropped([entry], "too many answers wait for the disk")

    def _run(self) -> None:
        try:
            files.recover(self._folder, 2 * self.settings.file_minutes * 60 + 600)
        except Exception as error:  # new answers are logged all the same
            log.error("what a killed process left in %s is not closed\n%s", self._folder, trace(error))
        while True:
            last = self._stopped.is_set()
            group = self._next()
            if group:
                self._write(group)
            try:
                if self._path is not None and (last and self._waiting.empty() or self._is_full()):
                    self._close()
            except Exception as error:
                self._say(f"a file could not be closed: {trace(error)}")
                self._file = self._path = None  # left open: whoever starts next closes it
            if last and self._waiting.empty():
                return

    def _next(self) -> list[Entry]:
        """Wait a moment for answers, and return those that came."""
        try:
            group = [self._waiting.get(timeout=_PAUSE_S)]
        except queue.Empty:
            return []
        if not self.settings.durable:
            self._stopped.wait(_PAUSE_S)  # so that many go in one write
        while len(group) < _GROUP:
            try:
                group.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        return group

    def _write(self, group: list[Entry]) -> None:
        try:
            if not self._has_room():
                self._dropped(group, f"the disk of {self._folder} has less than {self.settings.leave_gb:g} GB left")
                return
            if self._file is None:
                self._open()
            lines = []
            for entry in group:
                lines += self._content.lines(entry)
                time.sleep(0)  # an answer that wants to run need not wait for more than this one
            self._put(lines)
        except Exception as error:
            self._leave()
            self._dropped(group, trace(error))
            return
        self._counts.count("slate_log_slates", "written", by=len(group))
        for entry in group:
            if entry.written is not None:
                entry.written.set_result(True)

    def _open(self) -> None:
        self._number += 1
        self._path = files.new_file(self._folder, self._number)
        # for the owner's eyes: what is known of people stands in it
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._began, self._size, self._content = time.monotonic(), 0.0, Content(self.settings.visits)
        self._content.lines_so_far = 1
        at = time.time_ns() // 1000
        self._put([encode(File(playbill=playbill.__version__, process=self._process, at=at))])

    def _put(self, lines: list[bytes]) -> None:
        assert self._file is not None
        data = b"".join(lines)
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        if self.settings.durable:
            os.fdatasync(self._file)
        self._content.digest.update(data)
        self._size += len(data)

    def _leave(self) -> None:
        """Write no more into a file that took half a line, perhaps: it ends there, and closing leaves the half out."""
        if self._file is None or self._path is None:
            return
        os.close(self._file)
        path, self._file, self._path = self._path, None, None
        with suppress(OSError):  # a full disk: whoever starts next closes it
            files.close(path)

    def _is_full(self) -> bool:
        settings = self.settings
        return self._size >= settings.file_mb * 1e6 or time.monotonic() - self._began >= settings.file_minutes * 60

    def _close(self) -> None:
        assert self._file is not None and self._path is not None
        os.fsync(self._file)
        os.close(self._file)
        path, self._file, self._path = self._path, None, None
        files.close(path, self._content.end())
        gone = files.forget(self._folder, self.settings.keep_days, self.settings.keep_gb * 1e9)
        if gone:
            log.warning("%d files of slates were removed from %s, as watch.slates.keep_* says", len(gone), self._folder)

    def _has_room(self) -> bool:
        now = time.monotonic()
        if now - self._looked >= _ROOM_EVERY_S:
            self._looked = now
            self._room = shutil.disk_usage(self._folder).free >= self.settings.leave_gb * 1e9
        return self._room

    def _dropped(self, group: list[Entry], why: str) -> None:
        self._counts.count("slate_log_slates", "dropped", by=len(group))
        self._say(f"answers are not logged: {why}")
        for entry in group:
            if entry.written is not None:
                entry.written.set_result(False)

    def _say(self, what: str) -> None:
        if what not in self._said:  # once a process: it is counted each time
            self._said.add(what)
            log.error("%s", what)
