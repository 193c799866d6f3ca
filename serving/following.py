"""Keeps what answers up with the store's catalogue, in a thread, so that no request has to wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from playbill.engine.engine import Engine
from playbill.errors import StateError

POLL_S = 0.05  # far below stocking.TRUST_S, after which requests look for themselves


class Following:
    """Looks at the store every `POLL_S` from the first `start` on, until `stop`."""

    def __init__(self, engines: Callable[[], Sequence[Engine]]) -> None:
        """Make one that does nothing yet.

        Args:
            engines: returns those that answer at that moment.
        """
        self._engines, self._stopped = engines, threading.Event()
        self._thread = threading.Thread(target=self._run, name="playbill-catalogue", daemon=True)

    def start(self) -> None:
        """Begin, unless that was done."""
        if not self._thread.is_alive() and not self._stopped.is_set():
            self._thread.start()

    def stop(self) -> None:
        """End, and wait for it."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(POLL_S):
            for engine in self._engines():
                if engine.store is not None:
                    with suppress(StateError):  # requests meet it themselves, and say so
                        engine.stocking.follow(engine.store)
