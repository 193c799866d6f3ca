"""Who may in: the key of a request, its scope, its rate. The same lines under Ray Serve and under bare uvicorn."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from playbill.errors import ConfigError
from playbill.serving.keys import Key, Scope, digest, id_of, keys_path, read_keys
from playbill.serving.messages import Refused

log = logging.getLogger("playbill.guard")

POLL_S = 0.25  # how old what a replica knows of the keys may be: a revoked key opens nothing after that
EVERYTHING = frozenset(Scope)
_NOTHING = digest("")  # compared with where no key has the id, so that the answer takes as long
_HOW = "give it as `Authorization: Bearer <key>` or `X-API-Key: <key>`"


@dataclass(slots=True)
class Bucket:
    """Tokens of one key in one replica: each request takes one, and time brings them back.

    Attributes:
        tokens: that are there, at most the burst.
        at: seconds of the monotonic clock at which they were counted.
    """

    tokens: float
    at: float

    def take(self, rate: float, burst: float, now: float) -> float:
        """Take a token and return 0, or leave it and return the seconds after which there will be one."""
        self.tokens = min(burst, self.tokens + (now - self.at) * rate)
        self.at = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) / rate


class Guard:
    """Lets requests in by the keys of one file, which it looks at again every quarter of a second.

    Without a file everybody may in, unless keys are `required`. A file that was there and is gone, or cannot be read,
    lets nobody in: a mistake of the operator's must not open the server.
    """

    def __init__(
        self,
        path: Path,
        *,
        required: bool = False,
        owner: Key | None = None,
        replicas: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a guard that has not looked yet.

        Args:
            path: of the keys' file.
            required: let nobody in while there is no file.
            owner: a key that is in no file: the one with which the process that started us asks how we are.
            replicas: who share a key's rate: each lets through its part, and no replica knows of the others.
            clock: seconds, for tests.
        """
        self._path, self._required, self._owner, self._replicas, self._clock = path, required, owner, replicas, clock
        self._keys: dict[str, Key] | None = None
        self._closed = ""
        self._stamp: tuple[int, int, int] | None = None
        self._looked = -math.inf
        self._buckets: dict[str, Bucket] = {}

    def scopes(self, headers: Mapping[str, str]) -> frozenset[Scope]:
        """Return what the sender of these headers may do, without counting the request: nothing where there is no key.

        Raises:
            Refused: 401 where there is a key, and it is none of ours; 503 where the keys cannot be read.
        """
        if self._open():
            return EVERYTHING
        text = _sent(headers)
        return frozenset() if text is None else frozenset(self._known(text).scopes)

    def admit(self, headers: Mapping[str, str], scope: Scope) -> None:
        """Return where the sender of these headers may do this now.

        Raises:
            Refused: 401 no key or none of ours, 403 not this, 429 not so often, 503 the keys cannot be read.
        """
        if self._open():
            return
        text = _sent(headers)
        if text is None:
            raise _unknown(f"expected an API key; {_HOW}")
        key = self._known(text)
        if scope not in key.scopes:
            may = ", ".join(s.value for s in key.scopes)
            raise Refused(403, "forbidden", None, f"this needs the scope {scope.value}; key {key.name!r} has {may}")
        if key.rate is not None:
            self._count(key, key.rate)

    def _count(self, key: Key, rate: float) -> None:
        now = self._clock()
        burst = max(1.0, (rate if key.burst is None else key.burst) / self._replicas)
        bucket = self._buckets.setdefault(key.id, Bucket(burst, now))
        wait_s = bucket.take(rate / self._replicas, burst, now)
        if wait_s > 0:
            why = f"key {key.name!r} may send {rate:g} requests a second; try again later"
            raise Refused(429, "too_many_requests", None, why, {"retry-after": str(math.ceil(wait_s))})

    def _open(self) -> bool:
        """Return whether everybody may in, by the keys as they are now."""
        now = self._clock()
        if now - self._looked >= POLL_S:
            self._looked = now
            self._look()
        if self._closed:
            raise Refused(503, "keys", None, "the server cannot read its keys; see its log", {"retry-after": "1"})
        return self._keys is None and not self._required

    def _look(self) -> None:
        """Read the file if it is another than before. What cannot be read is tried again at the next look."""
        try:
            there = os.stat(self._path)
            stamp = (there.st_mtime_ns, there.st_ino, there.st_mode)
            if stamp == self._stamp:
                return
            found = read_keys(self._path)
            if found is None:
                raise FileNotFoundError
        except FileNotFoundError:
            self._close(f"{self._path} is gone; nobody is let in until it is back" if self._keys is not None else "")
        except (OSError, ConfigError) as error:
            self._close(f"nobody is let in: {error}")
        else:
            self._stamp, self._closed = stamp, ""
            self._keys = {key.id: key for key in found}
            self._buckets = {i: b for i, b in self._buckets.items() if i in self._keys}

    def _close(self, why: str) -> None:
        if why and why != self._closed:
            log.error("%s", why)
        self._stamp, self._closed = None, why

    def _known(self, text: str) -> Key:
        """Return the key of this text.

        Raises:
            Refused: 401.
        """
        found = id_of(text)
        key = None if found is None else (self._keys or {}).get(found)
        if key is None and self._owner is not None and found == self._owner.id:
            key = self._owner
        # also where there is no such key, so that the time taken tells nothing
        same = hmac.compare_digest(digest(text), _NOTHING if key is None else key.sha256)
        if key is None or not same:
            raise _unknown("no such API key")
        if key.revoked_at is not None:
            raise _unknown(f"key {key.name!r} was revoked at {key.revoked_at}")
        return key


def check_exposure(home: Path | str, host: str, insecure: bool) -> tuple[bool, str]:
    """Return whether the server must ask for keys from the start on, and what to tell whoever starts it.

    Raises:
        ConfigError: `host` is reachable from outside, there is no living key, and nobody said `insecure`; or the keys
            cannot be read.
    """
    path = keys_path(home)
    keys = read_keys(path)
    living = [key for key in keys or [] if key.revoked_at is None]
    outside = not is_loopback(host)
    if outside and not living and not (insecure and keys is None):
        raise ConfigError(
            f"host={host} can be reached from outside, and {path} holds no API key that was not revoked: make one with "
            f"`playbill keys add name=shop scopes=[recommend,events] home={home}`"
            + (", or say insecure=true to let everybody in" if keys is None else "")
        )
    if outside and keys is None:
        return False, f"insecure=true: whoever reaches {host} may ask about anybody and write events for anybody"
    if insecure:
        why = f"{host} is loopback" if keys is None else f"{path} asks for keys"
        return keys is not None, f"insecure=true has no effect: {why}"
    return keys is not None, ""


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _sent(headers: Mapping[str, str]) -> str | None:
    """Return the key in these headers, None where there is none.

    `X-API-Key` goes first: a gateway in front may use `Authorization` for something of its own.
    """
    own = headers.get("x-api-key")
    if own is not None:
        return own.strip()
    given = headers.get("authorization")
    if given is None:
        return None
    scheme, _, text = given.strip().partition(" ")
    if scheme.lower() != "bearer":
        raise _unknown(f"expected the scheme Bearer; {_HOW}")
    return text.strip()


def _unknown(reason: str) -> Refused:
    return Refused(401, "unauthorized", "authorization", reason, {"www-authenticate": 'Bearer realm="playbill"'})
