"""Sentences for reasons, asked for in the background: no request waits for one.

A reason whose facts were never met goes out in the engine's own words, and they are asked about; the next one with the
same facts goes out in one of the sentences that came back and were held up. There are about a hundred different facts
(`Facts`), so all sentences fit in memory, and soon nobody is asked any more.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import zlib
from collections.abc import Callable

from playbill.errors import EndpointError, trace
from playbill.words.facts import Facts, filled
from playbill.words.narrator import Narrator
from playbill.words.supported import supported

log = logging.getLogger("playbill.words")

MOST_FACTS = 1000  # beyond any number that there can be: a bound all the same, whoever makes the facts
MOST_SENTENCES = 32  # of one answer that are looked at
RETRY_S = (10.0, 600.0)  # to the next try after one that brought no sentence; doubled each time, up to the second


class Phrasing:
    """The sentences of one process."""

    def __init__(
        self, narrator: Narrator, count: Callable[[str, str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin, asking nobody yet.

        Args:
            count: told of each outcome: ("calls", "answered" or "failed"), and ("sentences", "kept" or why one was
                dropped, see `supported`).
            clock: seconds.
        """
        self._narrator, self._count, self._clock = narrator, count, clock
        self._forms: dict[Facts, list[str]] = {}
        self._again: dict[Facts, tuple[float, float]] = {}  # when the facts may be asked about again, and the wait
        self._wanted: queue.SimpleQueue[Facts | None] = queue.SimpleQueue()
        self._lock, self._stopped = threading.Lock(), False
        self._thread = threading.Thread(target=self._run, name="playbill-words", daemon=True)
        self._thread.start()

    def sentence(self, facts: Facts, named: str, of: object) -> str | None:
        """Return a sentence; None where there is none yet, and then it is asked for.

        Args:
            named: what the facts name.
            of: whatever tells one reason from another, such as an item's id: the same gets the same sentence.
        """
        forms = self._forms.get(facts)
        if not forms:
            self._want(facts)
            return None
        return filled(forms[zlib.crc32(str(of).encode(errors="replace")) % len(forms)], named)

    def close(self) -> None:
        """Ask no more; an answer that is being waited for is not waited for any longer."""
        self._stopped = True
        self._wanted.put(None)

    def _want(self, facts: Facts) -> None:
        with self._lock:
            until, wait_s = self._again.get(facts, (0.0, RETRY_S[0] / 2))
            if self._clock() < until or (facts not in self._again and len(self._again) >= MOST_FACTS):
                return
            # asked about from here on: nobody else does until it is answered, or the wait is over
            self._again[facts] = float("inf"), min(2 * wait_s, RETRY_S[1])
        self._wanted.put(facts)

    def _run(self) -> None:
        while (facts := self._wanted.get()) is not None and not self._stopped:
            try:
                self._ask(facts)
            except EndpointError as error:
                log.warning("no sentences for reasons: %s", error)
                self._count("calls", "failed")
            except Exception as error:  # a narrator may be anybody's; answers go on in the engine's words
                log.error("a narrator failed\n%s", trace(error))
                self._count("calls", "failed")
            with self._lock:
                wait_s = self._again[facts][1]
                self._again[facts] = self._clock() + wait_s, wait_s

    def _ask(self, facts: Facts) -> None:
        kept: list[str] = []
        said = self._narrator.sentences(facts)
        self._count("calls", "answered")
        for sentence in said[:MOST_SENTENCES]:
            why = supported(sentence, facts)
            self._count("sentences", why or "kept")
            if not why and sentence not in kept:
                kept.append(sentence)
        if kept:
            self._forms[facts] = kept
