"""Connections to a Redis server: made, checked, kept and given up, with errors that say what to do.

One exchange is one packet there and its replies back. redis-py's own client would add several times a local round trip
to each, and ask again by itself after a broken EXEC, of which nobody can know whether it was done.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from playbill.errors import StateError
from playbill.state.settings import StoreSettings

PASSWORD = "PLAYBILL_REDIS_PASSWORD"  # name of the variable, so that it need not stand in settings or a process list
_PREFIX = re.compile(r"[A-Za-z0-9_.:{}-]{1,64}")
_KEPT = 32  # connections that wait for the next caller
_QUIET_S = 1.0  # after a failed read nobody waits for the server so long: answers go out without it

# what acknowledged events need: setting, its only safe value, and why
_SAFE = (
    ("appendonly", "yes", "events are in memory alone"),
    ("appendfsync", "always", "events are acknowledged before they are on the disk"),
    ("no-appendfsync-on-rewrite", "no", "events are not synced while the log is rewritten"),
)

log = logging.getLogger("playbill.state")

Command = tuple[Any, ...]


class Server:
    """One Redis server, as one process reaches it; threads may ask at the same time.

    Attributes:
        place: the URL without its password.
        prefix: of all keys, so that several stores share a server.
    """

    def __init__(self, url: str, readonly: bool, settings: StoreSettings) -> None:
        """Note where the server is; the first exchange connects.

        Raises:
            StateError: the redis package is missing, or the URL is not one.
        """
        try:
            import redis
        except ImportError:
            raise StateError(
                f"a store at {_shown(url)} needs the package redis: pip install 'playbill[redis]'"
            ) from None
        self._redis = redis
        self.place, self._readonly, self._settings = _shown(url), readonly, settings
        self.prefix, self._kind, self._options = _parse(redis, url, self.place)
        self._kept: dict[bool, list[Any]] = {True: [], False: []}  # by whether they are quick
        self._away: tuple[float, StateError] | None = None
        self._warned = False

    def close(self) -> None:
        """Close what is not in use."""
        for lines in self._kept.values():
            while lines:
                lines.pop().disconnect()

    def ask(self, commands: Sequence[Command], *, quick: bool = False) -> list[Any]:
        """Return the replies to commands that only read.

        Args:
            quick: answers wait for it: give up early, and at once where the server was away a moment ago.
        Raises:
            StateError: the server is away or refuses.
        """
        if quick and self._away is not None and time.monotonic() < self._away[0]:
            raise StateError(str(self._away[1]))
        line, replies = self.begin(commands, quick=quick)
        self.keep(line, quick=quick)
        self.check(replies)
        return replies

    def begin(self, commands: Sequence[Command], *, quick: bool = False) -> tuple[Any, list[Any]]:
        """Return a connection and the replies to commands that change nothing, errors among them.

        A kept connection that turns out to be dead, as after a restart of the server, is replaced by a new one. Where
        the server was away a moment ago a patient call first looks whether it answers at all: one that hangs would keep
        every writer, and with them the places of those who want answers, for as long as their patience.
        """
        if not quick and self._away is not None:
            line, _ = self.begin([("PING",)], quick=True)
            self.keep(line, quick=True)
        while True:
            fresh = not self._kept[quick]
            try:
                line = self._connect(quick) if fresh else self._kept[quick].pop()
            except IndexError:  # another thread took the last one
                continue
            try:
                replies = self.exchange(line, commands)
            except self._redis.ConnectionError as error:
                line.disconnect()
                if fresh:
                    raise self.lost(error) from error
                self.close()  # the others died with it
            except self._redis.TimeoutError as error:
                line.disconnect()
                raise self.lost(error) from error
            except BaseException:
                line.disconnect()
                raise
            else:
                self._away = None
                return line, replies

    def more(self, line: Any, commands: Sequence[Command]) -> list[Any]:
        """Return the replies to further commands that only read, on a connection that `begin` gave."""
        try:
            replies = self.exchange(line, commands)
        except self._redis.RedisError as error:
            raise self.lost(error) from error
        self.check(replies)
        return replies

    def commit(self, line: Any, commands: Sequence[Command]) -> list[Any]:
        """Return the replies to a transaction that writes, and take the connection back.

        Raises:
            StateError: refused; or the connection broke, and nobody knows whether it was stored.
        """
        try:
            replies = self.exchange(line, commands)
        except self._redis.RedisError as error:
            line.disconnect()
            self.lost(error)
            raise StateError(
                f"{self.place} was lost while it committed ({error}): what was sent may be stored or not, so send it "
                "again; an event that is there is known by its id"
            ) from error
        except BaseException:
            line.disconnect()
            raise
        self.keep(line)
        self.check(replies)
        if isinstance(replies[-1], list):
            self.check(replies[-1])
        return replies

    def exchange(self, line: Any, commands: Sequence[Command]) -> list[Any]:
        """Return the replies to commands on a connection, errors among them. Raises redis' own errors."""
        line.send_packed_command(line.pack_commands(commands), check_health=False)
        replies: list[Any] = []
        for _ in commands:
            try:
                replies.append(line.read_response(disable_decoding=True))
            except self._redis.ResponseError as error:
                replies.append(error)
        return replies

    def keep(self, line: Any, *, quick: bool = False) -> None:
        """Take back a connection on which nothing is under way."""
        if len(self._kept[quick]) < _KEPT:
            self._kept[quick].append(line)
        else:
            line.disconnect()

    def check(self, replies: Sequence[Any]) -> None:
        """Raise StateError for the first reply that is an error."""
        for reply in replies:
            if isinstance(reply, self._redis.ResponseError):
                raise self._refused(reply)

    def _connect(self, quick: bool) -> Any:
        wait = self._settings.redis_read_timeout_s if quick else self._settings.redis_timeout_s
        try:
            line = self._kind(**self._options, socket_timeout=wait, socket_connect_timeout=wait)
        except TypeError as error:
            raise StateError(f"{self.place}: an option of the URL is not known: {error}") from error
        try:
            line.connect()
            self._check_server(line)
        except self._redis.RedisError as error:
            line.disconnect()
            raise self.lost(error) from error
        except BaseException:
            line.disconnect()
            raise
        return line

    def _check_server(self, line: Any) -> None:
        """Refuse a server that would lose what was acknowledged; asked at every connection, for servers change."""
        names = [*(name for name, _, _ in _SAFE), "maxmemory-policy"]
        *found, role = self.exchange(line, [*(("CONFIG", "GET", name) for name in names), ("ROLE",)])
        replica = isinstance(role, list) and role[0] in (b"slave", "slave")
        if replica and not self._readonly:
            raise StateError(f"{self.place} is a replica, which takes no writes; give the address of its master")
        if any(isinstance(reply, Exception) or not reply for reply in found):
            self._warn(
                f"{self.place} does not tell its configuration ({found[0]}): make sure that it syncs every write "
                "(appendonly yes, appendfsync always) and evicts nothing, or acknowledged events may be lost"
            )
            return
        values = {name: reply[1].decode() for name, reply in zip(names, found, strict=True)}
        faults = [f"{n} is {values[n]}: {why}; set it to {safe}" for n, safe, why in _SAFE if values[n] != safe]
        if values["maxmemory-policy"].startswith("allkeys"):
            faults.append(f"maxmemory-policy is {values['maxmemory-policy']}: events are evicted; set it to noeviction")
        if not faults or self._readonly:
            return
        if not self._settings.redis_unsafe:
            raise StateError(
                f"{self.place} would lose acknowledged events. {'. '.join(faults)}; or say that this may happen: "
                "store.redis_unsafe=true"
            )
        self._warn(f"{self.place} may lose acknowledged events. {'. '.join(faults)}")

    def _warn(self, text: str) -> None:
        if not self._warned:
            log.warning("%s", text)
        self._warned = True

    def lost(self, error: Exception) -> StateError:
        """Return what a broken connection means, and note that the server is away."""
        known = self._redis
        if isinstance(error, known.AuthenticationError | known.exceptions.NoPermissionError):
            lost = StateError(f"{self.place} refuses to let us in ({error}); set {PASSWORD}, or name user and password")
        elif isinstance(error, known.TimeoutError):
            lost = StateError(f"{self.place} does not answer in time ({error}); see store.redis_timeout_s")
        elif isinstance(error, known.BusyLoadingError):
            lost = StateError(f"{self.place} has just started and is still loading; try again")
        else:
            lost = StateError(f"{self.place} cannot be reached: {error}")
        self._away = (time.monotonic() + _QUIET_S, lost)
        return lost

    def _refused(self, error: Exception) -> StateError:
        """Return what an error reply means."""
        known, text = self._redis.exceptions, str(error)
        if isinstance(error, known.OutOfMemoryError):
            return StateError(f"{self.place} is full ({text}); raise its maxmemory: nothing of this was stored")
        if isinstance(error, known.ReadOnlyError):
            return StateError(f"{self.place} has become a replica and takes no writes: nothing of this was stored")
        if "MISCONF" in text:
            return StateError(f"{self.place} cannot write its disk ({text}): nothing of this was stored")
        if "WRONGTYPE" in text:
            return StateError(f"{self.place} holds something else under {self.prefix!r}: give ?prefix= another name")
        if isinstance(error, known.NoPermissionError):
            return StateError(f"{self.place} does not let its user do what a store needs: {text}")
        return StateError(f"{self.place} refuses: {text}")


def _shown(url: str) -> str:
    """Return a URL without user and password."""
    return _rebuilt(url, secret=False, without=("username", "password"))


def _rebuilt(url: str, *, secret: bool, without: tuple[str, ...]) -> str:
    """Return a URL less some of what its query says, and less user and password unless `secret`."""
    parts = urlsplit(url)  # its own urlunsplit would make unix:/socket of unix:///socket
    netloc = parts.netloc if secret else parts.netloc.rpartition("@")[2]
    query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name not in without])
    return f"{parts.scheme}://{netloc}{parts.path}" + (f"?{query}" if query else "")


def _parse(redis: Any, url: str, shown: str) -> tuple[str, Any, dict[str, Any]]:
    """Return prefix, class of connection and its arguments."""
    parts = urlsplit(url)
    prefix = dict(parse_qsl(parts.query)).get("prefix", "playbill")
    if not _PREFIX.fullmatch(prefix):
        raise StateError(f"{shown}: expected a prefix of letters, digits and _.:-{{}}, got {prefix!r}")
    if parts.scheme != "unix" and not re.fullmatch(r"/?\d*", parts.path):
        raise StateError(f"{shown}: expected the number of a database behind the /, got {parts.path[1:]!r}")
    try:
        options = redis.connection.parse_url(_rebuilt(url, secret=True, without=("prefix",)))
    except ValueError as error:
        raise StateError(f"{shown} is no URL of a server: {error}") from error
    options = {"password": os.environ.get(PASSWORD), "protocol": 2, **options}
    return prefix, options.pop("connection_class", redis.Connection), options
