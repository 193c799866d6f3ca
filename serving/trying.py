"""Two bundles in one process: who answers, and what is noted of both. See `trial` for when which is taken on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from playbill.bundle.open import Bundle
from playbill.engine.budget import Budget
from playbill.engine.engine import Engine
from playbill.engine.types import Page, Request, Slate
from playbill.errors import RequestError, trace
from playbill.release.trial import Mode, Tallies, Trial, overlap
from playbill.state.decisions import Decision

log = logging.getLogger("playbill.trial")

Answered = tuple[Sequence[Slate | Page], list[Decision]]
Decide = Callable[[Engine, list[Request], Budget | None], Answered]

_COMPARED_EVERY = 5  # canary: of the answers of the new bundle, one in so many is put to the one in use as well
_MOST_WAITING = 4  # comparisons; more are dropped, as answers come first


class Trying:
    """A trial as one process sees it.

    Attributes:
        tallies: of this process since the trial began.
    """

    def __init__(self, trial: Trial, bundle: Bundle, engine: Engine) -> None:
        self.trial, self.bundle, self.engine = trial, bundle, engine
        self.tallies = Tallies()
        self._lock = threading.Lock()
        self._others = ThreadPoolExecutor(1, "playbill-trial")
        self._waiting = 0

    def decide(self, used: Engine, asked: Request, budget: Budget | None, decide: Decide) -> tuple[Engine, Answered]:
        """Return who answered, and what: the new bundle where the trial says so and it can, else the one in use.

        Raises:
            RequestError: neither can understand the request.
        """
        who = asked.user_id if asked.user_id is not None else asked.session_id
        mine = self.trial.takes(str(asked.request_id if who is None or self.trial.mode is Mode.SHADOW else who))
        if mine and self.trial.mode is Mode.CANARY:
            try:
                return self.engine, self._ask(self.engine, "new", asked, budget, decide, used)
            except Exception as error:  # the one in use answers; what it cannot understand either is the caller's fault
                if budget is not None:
                    budget.late.clear()
                answered = self._ask(used, "used", asked, budget, decide)
                self._failed(error)
                return used, answered
        answered = self._ask(used, "used", asked, budget, decide)
        if mine:
            self._later(self.engine, "new", asked, decide, answered)
        return used, answered

    def arms(self, engine: Engine) -> dict[str, str]:
        """Return the part that an answer by this engine has in the trial; empty where people were not parted."""
        if self.trial.mode is not Mode.CANARY:
            return {}
        return {"trial": f"{'canary' if engine is self.engine else 'beside'}:{self.trial.version}"}

    def snapshot(self) -> Tallies:
        """Return the tallies at this moment."""
        with self._lock:
            return msgspec.convert(msgspec.to_builtins(self.tallies, str_keys=False), Tallies, strict=False)

    def close(self) -> None:
        self._others.shutdown(wait=False, cancel_futures=True)

    def _ask(
        self,
        engine: Engine,
        name: str,
        asked: Request,
        budget: Budget | None,
        decide: Decide,
        other: Engine | None = None,
    ) -> Answered:
        began = time.perf_counter()
        # a copy: an engine fills in what a request leaves open
        answers, decisions = decide(engine, [msgspec.structs.replace(asked)], budget)
        took_ms = (time.perf_counter() - began) * 1e3
        best = answers[0].rung == "full" or not answers[0].rung_reason
        with self._lock:
            tally = getattr(self.tallies, name)
            tally.answered(best, took_ms)
            again = other is not None and tally.answers % _COMPARED_EVERY == 1
        if again and other is not None:
            self._later(other, "used", asked, decide, (answers, decisions))
        return answers, decisions

    def _later(self, engine: Engine, name: str, asked: Request, decide: Decide, first: Answered) -> None:
        """Put a request to the other bundle in the background, and note what both answers have in common."""
        with self._lock:
            if self._waiting >= _MOST_WAITING:
                return
            self._waiting += 1
        try:
            self._others.submit(self._compare, engine, name, asked, decide, first)
        except RuntimeError:  # the trial ended a moment ago
            with self._lock:
                self._waiting -= 1

    def _compare(self, engine: Engine, name: str, asked: Request, decide: Decide, first: Answered) -> None:
        try:
            if name == "new":
                other = self._ask(engine, name, asked, None, decide)
            else:
                other = decide(engine, [msgspec.structs.replace(asked)], None)
            same = overlap(_items(first[0][0]), _items(other[0][0]))
            with self._lock:
                if same is not None:
                    self.tallies.new.compared += 1
                    self.tallies.new.shared += same
        except Exception as error:
            if name == "new":
                self._failed(error)
        finally:
            with self._lock:
                self._waiting -= 1

    def _failed(self, error: Exception) -> None:
        with self._lock:
            self.tallies.new.failed += 1
            first = self.tallies.new.failed == 1
        if first:
            told = str(error) if isinstance(error, RequestError) else trace(error)
            log.error("bundle %s on trial failed to answer\n%s", self.trial.version, told)


def _items(answer: Slate | Page) -> list[Any]:
    if isinstance(answer, Slate):
        return [item.item_id for item in answer.items]
    return [item.item_id for shelf in answer.shelves for item in shelf.items]
