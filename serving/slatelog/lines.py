"""The lines of a slate log: json objects, each with a checksum of its own as the last key.

file        first: what wrote the file
row         a row of the store as an answer read it, where it is another than the last one of that key above
catalogue   what the store notes of items, or what changed of that since the last such line; `creatives` likewise
slate       a request and its answer; what the answer read is in the lines above
end         last: how many lines, and the checksum of all of them
"""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from playbill.engine.types import Page, PageRequest, Request, Slate
from playbill.errors import TableError
from playbill.state.events import Id

FORMAT = 1
_CRC = b',"crc":"'
_TAIL = len(_CRC) + 8 + 2  # eight digits, a quote, a brace


class File(msgspec.Struct, kw_only=True, tag="file", tag_field="kind"):
    """What wrote a file. `at`: UTC microseconds of its first line."""

    format: int = FORMAT
    playbill: str
    process: str
    at: int


class Row(msgspec.Struct, kw_only=True, tag="row", tag_field="kind"):
    """A row of the store; `value` is None where there was none."""

    table: str
    key: bytes
    value: bytes | None


class Catalogue(msgspec.Struct, kw_only=True, tag="catalogue", tag_field="kind"):
    """What the store notes of items.

    Attributes:
        version: of the store.
        whole: or only what is other than in the last such line.
        rows: (item id, what is noted of it); `gone` are those of which nothing is noted any more.
    """

    version: int
    whole: bool
    rows: list[tuple[Id, dict[str, Any]]]
    gone: list[Id] = []


class Creatives(Catalogue, kw_only=True, tag="creatives", tag_field="kind"):
    """What the store notes of creatives; see `Catalogue`."""


class Logged(msgspec.Struct, kw_only=True, omit_defaults=True, tag="slate", tag_field="kind"):
    """A request and its answer.

    Attributes:
        at: UTC microseconds that the answer was made for.
        page: the answer is a page.
        request: as it was asked, less what may not be kept.
        answer: as it was sent, less the same; a Slate or Page in json.
        late: steps that were passed over for want of time.
        faulty: a part failed meanwhile, which nobody can make happen again.
        stateless: the store could not be read.
        arms: experiments that the answer was part of, such as `{"trial": "canary:<version>"}`.
        withheld: fields of the request that were used and may not be kept; without them it cannot be answered again.
    """

    at: int
    page: bool = False
    request: Request
    answer: msgspec.Raw
    late: list[str] = []
    faulty: bool = False
    stateless: bool = False
    arms: dict[str, str] = {}
    withheld: list[str] = []


class End(msgspec.Struct, kw_only=True, tag="end", tag_field="kind"):
    """The last line of a closed file.

    Attributes:
        lines: before this one; `slates` of them are slates.
        sha256: of all bytes before this line.
        first, last: UTC microseconds of the first and last slate; 0 without any.
        lost: bytes behind the last whole line of a process that was killed.
        erased: people and visits whose lines were taken out.
    """

    lines: int
    slates: int
    sha256: str
    first: int = 0
    last: int = 0
    lost: int = 0
    erased: int = 0


Line = File | Row | Catalogue | Creatives | Logged | End

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode


class Damaged(TableError):
    """A line, or a file, is not what was written."""


def encode(line: Line) -> bytes:
    """Return a line with its checksum, and its end."""
    body = _encode(line)
    return b'%b%b%08x"}\n' % (body[:-1], _CRC, zlib.crc32(body))


def decode(raw: bytes, where: str) -> Line:
    """Return the line in some bytes, its end left out.

    Args:
        where: file and line, for messages.
    Raises:
        Damaged: the checksum is another, or it is no such line.
    """
    body, tail = raw[:-_TAIL] + b"}", raw[-_TAIL:]
    if not tail.startswith(_CRC) or tail[len(_CRC) :] != b'%08x"}' % zlib.crc32(body):
        raise Damaged(f"{where}: a byte was changed, or lost: the line's checksum is not that of the line")
    try:
        line = _decode(body)
    except msgspec.MsgspecError as error:
        raise Damaged(f"{where}: not a line of a slate log: {error}") from None
    if isinstance(line, File) and line.format > FORMAT:
        raise Damaged(f"{where}: format {line.format}, this Playbill reads {FORMAT}; upgrade Playbill")
    return line


def request_of(line: Logged) -> Request:
    """Return the request of a line, of the kind that was asked."""
    return PageRequest(**msgspec.structs.asdict(line.request)) if line.page else line.request


def answer_of(line: Logged, where: str) -> Slate | Page:
    """Return the answer of a line.

    Args:
        where: file and line, for messages.
    Raises:
        Damaged: it is of another version of Playbill.
    """
    try:
        if line.page:
            return msgspec.json.decode(line.answer, type=Page)
        return msgspec.json.decode(line.answer, type=Slate)
    except msgspec.ValidationError as error:
        raise Damaged(f"{where}: no {'page' if line.page else 'slate'}: {error}") from None
