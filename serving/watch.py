"""What is noted of each request beside its answer: figures now, and whatever else a server is asked to keep.

Called on the thread that answers, so everything here is cheap, and what is not goes to threads of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from concurrent.futures import Future
from typing import Any

from playbill.engine.budget import Budget
from playbill.engine.types import Page, Slate
from playbill.serving.figures.counts import Counts
from playbill.serving.figures.drift import Drift
from playbill.serving.slatelog.content import Entry
from playbill.serving.slatelog.writer import SlateLog
from playbill.state.events import Event

LATE = "overloaded"  # cause of a refusal: the request had waited until there was no time left
_ANSWER, _CAUSE, _BUDGET = "playbill_answer", "playbill_cause", "playbill_budget"  # of a request, in its ASGI scope


class Watch:
    """Notes what the requests of one process come to.

    Attributes:
        counts: for Prometheus.
        drift: of the bundle that answers; None until there is one.
        in_progress: requests that are being entry.
        slate_log: where answers are logged; None: nowhere.
    """

    def __init__(self) -> None:
        self.counts = Counts()
        self.drift: Drift | None = None
        self.in_progress = 0
        self.slate_log: SlateLog | None = None

    def began(self) -> None:
        """A request arrived."""
        self.in_progress += 1

    def refused(self, scope: MutableMapping[str, Any], cause: str) -> None:
        """A request is not answered as it asked.

        Args:
            scope: the request's ASGI scope.
            cause: one word, of a few: the `error` of the answer.
        """
        scope[_CAUSE] = cause

    def answered(self, scope: MutableMapping[str, Any], answer: Slate | Page, budget: Budget | None) -> None:
        """A slate or page was made.

        Args:
            budget: that it was made within.
        """
        scope[_ANSWER], scope[_BUDGET] = answer, budget
        self.counts.count("answers", answer.surface, answer.rung)
        if self.drift is not None and isinstance(answer, Slate):
            self.drift.note(answer)

    def keep(self, entry: Entry) -> Future[bool] | None:
        """Log an answer; return what to wait for before it goes out, None where there is no need to."""
        if self.slate_log is None:
            return None
        if self.slate_log.settings.durable:
            entry.written = Future()
        self.slate_log.note(entry)
        return entry.written

    def taken_in(self, events: Sequence[Event], new: Sequence[bool], began: float, ended: float) -> None:
        """Events are in the store, and requests see them.

        Args:
            events: as they were given; one without a moment counts from its arrival.
            began, ended: seconds since 1970 of their arrival and of the end of the commit.
        """
        fresh = sum(new)
        self.counts.count("events", "new", by=fresh)
        self.counts.count("events", "known", by=len(new) - fresh)
        lags = [
            max(0.0, ended - (began if event.at is None else event.at * 1e-6))
            for event, is_new in zip(events, new, strict=True)
            if is_new
        ]
        self.counts.observe("event_lag_seconds", lags)

    def finished(self, scope: Mapping[str, Any], route: str, status: int, times_ms: Mapping[str, float]) -> None:
        """A request has its answer, which is about to go out.

        Args:
            times_ms: by stage; `total` is all of it.
        """
        self.in_progress -= 1
        answer, cause = scope.get(_ANSWER), scope.get(_CAUSE)
        self.counts.request(route, status, "" if answer is None else answer.rung, times_ms)
        if cause is not None:
            self.counts.count("refusals", route, cause)
            if cause == LATE:
                self.counts.count("deadline_misses", "queue")
        budget: Budget | None = scope.get(_BUDGET)
        if budget is not None:
            for stage in budget.late:
                self.counts.count("deadline_misses", stage)
            if times_ms["total"] > budget.limit_ms:
                self.counts.count("deadline_misses", "answer")
