"""Sends requests at moments that were drawn before, whatever the server does: an open loop over keep-alive connections.

A closed loop asks again when it has its answer, so a server that stalls is asked less just then, and the stall counts
once. Here the requests of that second are due all the same, and each counts from the moment at which it was due.
"""

from __future__ import annotations

import asyncio
import gc
import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from playbill.serving.loading.connection import REFUSED, TIMEOUT, Connection
from playbill.serving.loading.timer import Timer

_KEEP_S = 2.0  # a server closes what is idle for five seconds or so: what is written then is lost, and no fault of its
_SWEEP_S = 0.05
_LEAD_S = 0.05  # between the start and the first moment that a request may have
_NAN = float("nan")

clock = time.perf_counter


@dataclass(slots=True)
class Sent:
    """What became of N requests. Moments are seconds of one clock; nan where it did not come to that.

    Attributes:
        due: when it was to be sent.
        taken: when the generator turned to it: what lies between is the generator's own lateness.
        written: when it left; where no connection was free that is later.
        done: when its answer was whole, or it was given up.
        status: of the answer, or one of `connection.WITHOUT_STATUS`.
        rung, late, timing: headers of the answer.
        most_open: connections that were open at once.
        cpu_s: processor seconds of this process.
        wall_s: seconds that all of it took.
    """

    due: array[float]
    taken: array[float]
    written: array[float]
    done: array[float]
    status: array[int]
    rung: list[bytes]
    late: list[bytes]
    timing: list[bytes]
    most_open: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0


def send_all(
    address: tuple[str, int],
    payloads: list[bytes],
    offsets: array[float],
    *,
    connections: int,
    timeout_s: float,
    progress: Callable[[int], None] | None = None,
) -> Sent:
    """Send requests at their moments and return what became of them, when the last is answered or given up.

    Args:
        address: IP address and port.
        payloads: N requests as they go over the wire.
        offsets: [N] seconds from the start at which each is due, ascending.
        connections: most that are open at once; a request for which none is free waits.
        timeout_s: after this time from its moment a request is given up.
        progress: called about once a second with the number of requests that are done.
    """
    began, cpu = clock(), time.process_time()
    collecting = gc.isenabled()
    gc.disable()  # a collection would stop the clock-work for milliseconds, and what is made here has no cycles
    try:
        sent = asyncio.run(_send_all(address, payloads, offsets, connections, timeout_s, progress))
    finally:
        if collecting:
            gc.enable()
    sent.cpu_s, sent.wall_s = time.process_time() - cpu, clock() - began
    return sent


async def _send_all(
    address: tuple[str, int],
    payloads: list[bytes],
    offsets: array[float],
    connections: int,
    timeout_s: float,
    progress: Callable[[int], None] | None,
) -> Sent:
    loop = _OpenLoop(address, payloads, offsets, connections, timeout_s, progress)
    try:
        await loop.finished
    finally:
        loop.close()
    await asyncio.sleep(0)  # connections say goodbye in the next turn
    return loop.sent


class _OpenLoop:
    """The requests of one step, and the connections that they go over; an `Owner` of connections."""

    def __init__(
        self,
        address: tuple[str, int],
        payloads: list[bytes],
        offsets: array[float],
        connections: int,
        timeout_s: float,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._address, self._payloads, self._most = address, payloads, connections
        self._timeout_s, self._progress = timeout_s, progress
        count, start = len(payloads), clock() + _LEAD_S
        blank = array("d", [_NAN]) * count
        self.sent = Sent(
            due=array("d", [start + offset for offset in offsets]),
            taken=blank[:], written=blank[:], done=blank[:], status=array("i", [0]) * count,
            rung=[b""] * count, late=[b""] * count, timing=[b""] * count,
        )  # fmt: skip
        self._next, self._left = 0, count
        self._waiting: deque[int] = deque()  # requests for which no connection was free
        self._idle: list[Connection] = []  # the one that was used last is at the end, and used first
        self._all: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self.finished: asyncio.Future[None] = self._loop.create_future()
        self._timer = Timer()
        self._loop.add_reader(self._timer.fd, self._ring)
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)
        self._said = start
        self._timer.set(self.sent.due[0])

    def close(self) -> None:
        """Drop everything."""
        self._loop.remove_reader(self._timer.fd)
        self._timer.close()
        self._sweeping.cancel()
        for task in self._opening:
            task.cancel()
        for connection in list(self._all):
            connection.abort()

    # what connections say

    def opened(self, connection: Connection) -> None:
        """Of `Owner`."""
        self._all.add(connection)
        self.sent.most_open = max(self.sent.most_open, len(self._all))
        self._free(connection)

    def answered(self, connection: Connection, status: int) -> None:
        """Of `Owner`."""
        number = connection.number
        connection.number = -1
        self.sent.rung[number], self.sent.late[number] = connection.rung, connection.late
        self.sent.timing[number] = connection.timing
        self._end(number, status)
        if not connection.closing:
            self._free(connection)

    def lost(self, connection: Connection, status: int) -> None:
        """Of `Owner`; for one connection it may be called twice."""
        if connection.number >= 0:
            self._end(connection.number, status)
            connection.number = -1
        if connection in self._all:
            self._all.remove(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._open_one()

    # requests

    def _ring(self) -> None:
        """Take up every request whose moment has come."""
        self._timer.quiet()
        due, taken, count = self.sent.due, self.sent.taken, len(self._payloads)
        number = self._next
        while number < count and due[number] <= (now := clock()):
            taken[number] = now
            connection = self._fresh(now)
            if connection is None:
                self._waiting.append(number)
                self._open_one()
            else:
                self._write(connection, number)
            number += 1
        self._next = number
        if number < count:
            self._timer.set(due[number])

    def _write(self, connection: Connection, number: int) -> None:
        self.sent.written[number] = clock()
        connection.write(number, self._payloads[number])

    def _end(self, number: int, status: int) -> None:
        self.sent.done[number], self.sent.status[number] = clock(), status
        self._left -= 1
        if not self._left and not self.finished.done():
            self.finished.set_result(None)

    def _sweep(self) -> None:
        """Give up what has waited too long."""
        now, due = clock(), self.sent.due
        expired = now - self._timeout_s
        for connection in list(self._all):
            if connection.number >= 0 and due[connection.number] < expired:
                self._end(connection.number, TIMEOUT)
                connection.number = -1
                connection.abort()
        while self._waiting and due[self._waiting[0]] < expired:
            self._end(self._waiting.popleft(), TIMEOUT)
        if self._progress is not None and now - self._said > 1:
            self._said = now
            self._progress(len(self._payloads) - self._left)
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)

    # connections

    def _fresh(self, now: float) -> Connection | None:
        """Return a connection that is free and sure to be open at the other end."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closing and now - connection.idle_since < _KEEP_S:
                return connection
            connection.abort()
        return None

    def _free(self, connection: Connection) -> None:
        if self._waiting:
            self._write(connection, self._waiting.popleft())
        else:
            connection.idle_since = clock()
            self._idle.append(connection)

    def _open_one(self) -> None:
        """Open a connection where requests wait and there may be one more."""
        if len(self._opening) < len(self._waiting) and len(self._all) + len(self._opening) < self._most:
            task = self._loop.create_task(self._open())
            self._opening.add(task)

    async def _open(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await self._loop.create_connection(lambda: Connection(self), *self._address)
        except OSError:
            if self._waiting:
                self._end(self._waiting.popleft(), REFUSED)
        finally:
            self._opening.discard(task)
        self._open_one()  # requests that wait without a connection must not wait for ever
