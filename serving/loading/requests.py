"""Who asks for what: requests as bytes, made before a step begins, so that none is made while time is taken."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from playbill.errors import ConfigError
from playbill.serving.audience import read_audience
from playbill.serving.loading.settings import LoadSettings
from playbill.tables.folder import read_folder, read_table
from playbill.tables.schema import EventKind

_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_STRANGERS = 2**61  # ids from here on, of people of whom nobody has heard


class Crowd:
    """Those who ask, and what for.

    Attributes:
        people: ids of the audience.
    """

    def __init__(self, settings: LoadSettings, host: str) -> None:
        """Read the audience, and what an event may say where events are sent.

        Args:
            host: for the header, with its port.
        Raises:
            ConfigError: an event that the tables do not declare, or a key that cannot stand in a header.
            TableError: no tables, or nobody in them.
        """
        self._settings = settings
        self.people: list[Any] = read_audience(settings.home, settings.tables, settings.audience).to_pylist()
        self._text_ids = isinstance(self.people[0], str)
        self._kind: EventKind | None = None
        self._items: list[Any] = []
        if settings.events_share:
            self._kind, self._items = _event(settings)
        self._heads = {path: _head(path, host) for path in ("/v1/recommend", "/v1/events")}

    def body(self, who: dict[str, Any]) -> dict[str, Any]:
        """Return the question for a slate, for someone."""
        asked = {**who, "k": self._settings.k, "surface": self._settings.surface}
        return asked if self._settings.filter is None else {**asked, "filter": self._settings.filter}

    def draw(self, count: int, draws: np.random.Generator) -> tuple[list[bytes], np.ndarray]:
        """Return requests in the order in which they are sent.

        Returns:
            payloads [count], and is_event [count] bool.
        """
        settings = self._settings
        kind = draws.random(count)
        stranger, nobody = kind < settings.unknown, kind >= 1 - settings.anonymous
        person = draws.integers(len(self.people), size=count)
        number = draws.integers(_STRANGERS, 2 * _STRANGERS, size=count)
        is_event = draws.random(count) < settings.events_share
        payloads = []
        asked: dict[Any, bytes] = {}  # a person asks the same each time: one copy, and a long step needs little memory
        for i in range(count):
            who: dict[str, Any] = {}
            if stranger[i]:
                who = {"user_id": f"load-{number[i]}" if self._text_ids else int(number[i])}
            elif not nobody[i]:
                who = {"user_id": self.people[person[i]]}
            if is_event[i]:
                payloads.append(self._payload("/v1/events", self._event_of(who, int(number[i]), draws)))
                continue
            key = who.get("user_id")
            if key not in asked:
                asked[key] = self._payload("/v1/recommend", self.body(who))
            payloads.append(asked[key])
        return payloads, is_event

    def _event_of(self, who: dict[str, Any], number: int, draws: np.random.Generator) -> dict[str, Any]:
        assert self._kind is not None
        event = {**(who or {"session_id": f"load-{number}"}), "event": self._kind.name}
        event["item_id"] = self._items[int(draws.integers(len(self._items)))]
        low, high = self._kind.low, self._kind.high
        if self._kind.unit and low is not None and high is not None:
            event["value"] = float(np.clip(np.rint(draws.uniform(low, high)), low, high))
        return event

    def _payload(self, path: str, body: dict[str, Any]) -> bytes:
        data = msgspec.json.encode(body)
        return b"%scontent-length: %d\r\n\r\n%s" % (self._heads[path], len(data), data)


def api_key() -> str:
    """Return the key of PLAYBILL_KEY; empty where there is none.

    Raises:
        ConfigError: it cannot stand in a header.
    """
    key = os.environ.get("PLAYBILL_KEY", "").strip()
    if key and not _PRINTABLE.fullmatch(key):
        raise ConfigError("PLAYBILL_KEY: expected an API key of `playbill keys add`, got something with spaces in it")
    return key


def _head(path: str, host: str) -> bytes:
    key = api_key()
    # an answer to a request with this header says what its stages took
    lines = [f"POST {path} HTTP/1.1", f"host: {host}", "content-type: application/json", "x-playbill-timing: 1"]
    return "".join(f"{line}\r\n" for line in [*lines, *([f"authorization: Bearer {key}"] if key else [])]).encode()


def _event(settings: LoadSettings) -> tuple[EventKind, list[Any]]:
    """Return the event that is sent, and the items it may be about."""
    where = Path(settings.home) / "tables" / settings.tables
    declared = {kind.name: kind for kind in read_folder(where).events}
    name = settings.event or next(iter(declared), None)
    if name is None or name not in declared:
        raise ConfigError(f"event: expected one that {where} declares ({', '.join(declared) or 'none'}), got {name!r}")
    items: pa.Array = read_table(where, "items", ["item_id"])["item_id"]
    return declared[name], items.to_pylist()
