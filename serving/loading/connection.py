"""One keep-alive connection of the load generator: writes a request, says when the answer is whole."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

import httptools

# in place of a status, where there is none
TIMEOUT, CLOSED, REFUSED, MALFORMED = -1, -2, -3, -4
WITHOUT_STATUS = {TIMEOUT: "timeout", CLOSED: "closed", REFUSED: "refused", MALFORMED: "malformed"}


class Owner(Protocol):
    """Who hands out the requests."""

    def opened(self, connection: Connection) -> None:
        """It can take a request."""

    def answered(self, connection: Connection, status: int) -> None:
        """The answer to its request is there as a whole; `rung`, `late` and `timing` are of it."""

    def lost(self, connection: Connection, status: int) -> None:
        """It is gone; `status` is for the request that was under way on it, if one was."""


class Connection(asyncio.Protocol):
    """HTTP/1.1 over one TCP connection, one request at a time. Bodies of answers are read and dropped.

    Attributes:
        number: of the request under way, -1 while there is none.
        idle_since: moment of `time.perf_counter` at which it was given back.
        rung, late, timing: headers `x-playbill-rung`, `x-playbill-late` and `server-timing` of the last answer, empty
            where it had none.
    """

    __slots__ = ("_owner", "_parser", "_transport", "idle_since", "late", "number", "rung", "timing")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._parser = httptools.HttpResponseParser(self)
        self.number, self.idle_since = -1, 0.0
        self.rung = self.late = self.timing = b""

    def write(self, number: int, payload: bytes) -> None:
        """Send a request."""
        self.number = number
        self._transport.write(payload)

    def abort(self) -> None:
        """Drop the connection without a word; `lost` follows."""
        self._transport.abort()

    @property
    def closing(self) -> bool:
        """Whether it is on its way out already."""
        return self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # a fault of ours
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._owner.lost(self, MALFORMED)
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Of asyncio."""
        self._owner.lost(self, CLOSED)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of httptools."""
        length = len(name)
        if length == 15 and name.lower() == b"x-playbill-rung":
            self.rung = value
        elif length == 15 and name.lower() == b"x-playbill-late":
            self.late = value
        elif length == 13 and name.lower() == b"server-timing":
            self.timing = value

    def on_message_complete(self) -> None:
        """Of httptools."""
        status = self._parser.get_status_code()
        if self.number < 0:  # an answer to nothing, such as a 408 on an idle connection
            self.abort()
            return
        if not self._parser.should_keep_alive():
            self._transport.close()
        self._owner.answered(self, status)
        self.rung = self.late = self.timing = b""
