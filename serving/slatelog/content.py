"""What the slate log says of an answer: itself, and of what it stood on all that the file does not say yet."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import msgspec

from playbill.bundle.open import Bundle
from playbill.engine.held import Changes, Held
from playbill.engine.told import Told, told_by
from playbill.engine.types import Page, Request, Slate
from playbill.serving.slatelog.lines import Catalogue, Creatives, End, Line, Logged, Row, encode
from playbill.serving.slatelog.private import kept
from playbill.state.decisions import LEARNED_VERSION, people_keys
from playbill.state.keys import sequence_key
from playbill.state.reads import Reads

_KEYS = 100_000  # rows of which is remembered what the file says last

_slate = msgspec.json.Decoder(Slate).decode
_json = msgspec.json.Encoder().encode
_msgpack = msgspec.msgpack.Encoder().encode


@dataclass(slots=True)
class Entry:
    """One answer, as it went out.

    Attributes:
        request: as it was asked, its id filled in.
        page: the answer is a page; `at`: UTC microseconds that it was made for.
        body: the answer in json. The objects that it was made of are not held on to: a hundred structs an answer, kept
            for a moment, cost the garbage collector more than all of the log.
        reads: what it read in the store; None where there was nothing to be read.
        late: steps that were passed over.
        written: told when the line is on the disk, and whether; None where nobody waits for that.
    """

    request: Request
    page: bool
    at: int
    body: bytes
    bundle: Bundle
    reads: Reads | None
    late: list[str]
    faulty: bool
    arms: dict[str, str]
    written: Future[bool] | None = None


class Content:
    """What one file says so far.

    Attributes:
        digest: of all that was written; whoever writes it feeds it.
        lines_so_far: lines that were made, and any others that were written before them.
    """

    def __init__(self, visits: bool) -> None:
        """Make that of a file that says nothing yet. Args: `private.kept`."""
        self._visits = visits
        self._told: dict[str, Told] = {}  # by bundle
        self._rows: dict[tuple[str, bytes], int] = {}  # by key, the hash of what the file says last
        self._tables: dict[str, tuple[int, Changes]] = {}
        self.digest, self.lines_so_far = hashlib.sha256(), 0
        self._slates, self._first, self._last = 0, 0, 0

    def end(self) -> End:
        """Return the end of the file."""
        return End(
            lines=self.lines_so_far, slates=self._slates, sha256=self.digest.hexdigest(), first=self._first,
            last=self._last,
        )  # fmt: skip

    def lines(self, entry: Entry) -> list[bytes]:
        """Return the lines of an answer: what it read that is not in the file yet, and itself."""
        found = [encode(line) for line in self._lines(entry)]
        at = entry.at
        self.lines_so_far, self._slates = self.lines_so_far + len(found), self._slates + 1
        self._first, self._last = min(self._first or at, at), max(self._last, at)
        return found

    def _lines(self, entry: Entry) -> list[Line]:
        held: Held | None = None if entry.reads is None else entry.reads.held
        request, bundle = entry.request, entry.bundle
        remembered, acts = held is not None and held.remembered, set[str]()
        if entry.reads is not None and not remembered:
            mine = {"wishes": people_keys(request.user_id, request.session_id)}
            mine["shown"] = people_keys(None, request.session_id)  # what a person was shown is not looked at
            acts = {table for (table, key), value in entry.reads.rows.items() if value and key in mine.get(table, ())}
        if bundle.version not in self._told:
            self._told[bundle.version] = told_by(bundle)
        request, bare, withheld = kept(
            request,
            remembered=remembered,
            asks="wishes" in acts,
            shown="shown" in acts,
            visits=self._visits,
            told=self._told[bundle.version],
        )
        lines: list[Line] = []
        if entry.reads is not None and held is not None:
            lines += self._new_rows(_rows_of(entry.reads, held))
            lines += self._changes(Catalogue, "catalogue", held.catalogue_version, held.catalogue)
            lines += self._changes(Creatives, "creatives", held.creatives_version, held.creatives)
        logged = Logged(
            at=entry.at,
            page=entry.page,
            request=request,
            answer=msgspec.Raw(entry.body if bare is None else _json(bare(_answer(entry)))),
            late=entry.late,
            faulty=entry.faulty,
            stateless=held is None,
            arms=entry.arms,
            withheld=withheld,
        )
        return [*lines, logged]

    def _new_rows(self, rows: Mapping[tuple[str, bytes], bytes | None]) -> list[Line]:
        found: list[Line] = []
        if len(self._rows) > _KEYS:
            self._rows = {}
        for key, value in rows.items():
            if self._rows.get(key) != (digest := hash(value)):
                self._rows[key] = digest
                found.append(Row(table=key[0], key=key[1], value=value))
        return found

    def _changes(self, kind: type[Catalogue], table: str, version: int, now: Changes) -> list[Line]:
        """Return what is other in a table than it was when it was last written, nothing where it is not."""
        before = self._tables.get(table)
        if before is not None and before[0] == version:
            return []
        self._tables[table] = version, now
        if before is None:
            return [kind(version=version, whole=True, rows=[(i, dict(row)) for i, row in now.items()])]
        rows = [(i, dict(row)) for i, row in now.items() if before[1].get(i) != row]
        return [kind(version=version, whole=False, rows=rows, gone=[i for i in before[1] if i not in now])]


def _answer(entry: Entry) -> Slate | Page:
    return msgspec.json.decode(entry.body, type=Page) if entry.page else _slate(entry.body)


def _rows_of(reads: Reads, held: Held) -> dict[tuple[str, bytes], bytes | None]:
    """Return the rows that an answer stands on, those of a person left out who is not to be kept.

    Versions are those that the engine held, which may be a moment older than what the store said.
    """
    rows: dict[tuple[str, bytes], Any] = dict(reads.rows)
    if not held.remembered:
        rows = {key: value for key, value in rows.items() if key[0] == "meta"}
    rows["meta", b"catalogue_version"] = sequence_key(held.catalogue_version)
    rows["meta", b"creatives_version"] = sequence_key(held.creatives_version)
    rows["meta", LEARNED_VERSION] = sequence_key(held.learned_version)
    if held.head:
        rows["learned", held.head.encode()] = None if held.learned is None else _msgpack(held.learned)
    return rows
