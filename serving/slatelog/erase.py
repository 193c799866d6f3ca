"""Takes a person out of the slate log: every line of theirs, and every row of the store that is theirs.

A closed file is written anew without them and takes the old one's place in one step; no other line changes, and what is
left replays as before, since no answer reads another person's rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from playbill.serving.slatelog import files
from playbill.serving.slatelog.lines import End, Line, Logged, Row, encode
from playbill.state.events import Id
from playbill.state.keys import id_key
from playbill.tables.files import alone, write_atomic

_NOBODYS = ("meta", "learned")  # tables whose keys are no one's ids


@dataclass(frozen=True)
class Whom:
    """A person, by their id, and visits. Ids are compared as text: 196 is "196"."""

    user_id: str | None
    session_ids: frozenset[str]

    def has(self, line: Line) -> bool:
        """Return whether a line is theirs."""
        if isinstance(line, Logged):
            request = line.request
            mine = self.user_id is not None and str(request.user_id) == self.user_id and request.user_id is not None
            return mine or (request.session_id is not None and str(request.session_id) in self.session_ids)
        return isinstance(line, Row) and self._owns(line.table, line.key)

    @cached_property
    def _users(self) -> set[bytes]:
        return _keys([] if self.user_id is None else [self.user_id])

    @cached_property
    def _visits(self) -> set[bytes]:
        return _keys(self.session_ids)

    def _owns(self, table: str, key: bytes) -> bool:
        if table in _NOBODYS:
            return False
        users, visits = self._users, self._visits
        match table:
            case "profiles":
                return key in users
            case "sessions":
                return key in visits
        # elsewhere people and visits may share a table, each with a letter before the id
        return key in users | visits | {b"u" + k for k in users} | {b"s" + k for k in visits}


def erase(folder: Path, whom: Whom) -> tuple[int, int, list[Path]]:
    """Take somebody out of all closed files.

    Returns:
        how many lines went, of how many files, and the open files that hold lines of theirs still.

    Raises:
        Damaged: a byte of a file is another than was written; the files before it are done.
    """
    lines = changed = 0
    with alone(folder / "closing"):
        for path in files.closed(folder):
            gone = _erase_one(path, whom)
            lines, changed = lines + gone, changed + bool(gone)
        still = [path for path in sorted(folder.glob(f"*{files.OPEN}")) if _is_in(path, whom)]
    return lines, changed, still


def _erase_one(path: Path, whom: Whom) -> int:
    digest, parts, lines, slates, gone = hashlib.sha256(), [], 0, 0, 0
    at: list[int] = []
    for _, line in files.read(path):
        if whom.has(line):
            gone += 1
        elif isinstance(line, End):
            end = msgspec.structs.replace(
                line, lines=lines, slates=slates, sha256=digest.hexdigest(), first=min(at, default=0),
                last=max(at, default=0), erased=line.erased + 1,
            )  # fmt: skip
            parts.append(encode(end))
        else:
            raw = encode(line)
            digest.update(raw)
            parts.append(raw)
            lines += 1
            if isinstance(line, Logged):
                slates += 1
                at.append(line.at)
    if gone:
        write_atomic(path, files.compressed(b"".join(parts)), mode=0o600)
    return gone


def _is_in(path: Path, whom: Whom) -> bool:
    try:
        return any(whom.has(line) for _, line in files.read(path))
    except FileNotFoundError:  # closed a moment ago: it is looked at the next time
        return True


def _keys(ids: Collection[str]) -> set[bytes]:
    found: set[bytes] = set()
    for text in ids:
        forms: list[Id] = [text]
        if text.lstrip("-").isdecimal() and -(2**63) <= int(text) < 2**63:
            forms.append(int(text))
        found |= {id_key(form) for form in forms}
    return found
