"""What is noted of each request beside its answer: figures now, and whatever else a server is asked to keep.

Called on the thread that answers, so everything here is cheap, and what is not goes to threads of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import Future
from typing import Any

from playbill.engine.budget import Budget
from playbill.engine.types import Page, Slate
from playbill.serving.figures.counts import Counts
from playbill.serving.figures.drift import Drift
from playbill.serving.seen import Seen
from playbill.serving.slatelog.content import Entry
from playbill.serving.slatelog.writer import SlateLog
from playbill.state.events import Event

LATE = "overloaded"  # cause of a refusal: the request had waited until there was no time left
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
_ANSWER, _CAUSE, _BUDGET = "playbill_answer", "playbill_cause", "playbill_budget"  # of a request, in its ASGI scope


class Watch:
    """Notes what the requests of one process come to.

    Attributes:
        counts: for Prometheus.
        drift: of the bundle that answers; None until there is one.
        in_progress: requests that are being entry.
        slate_log: where answers are logged; None: nowhere.
        tellers: told of each request once it has its answer; they must not make it wait.
    """

    def __init__(self) -> None:
        self.counts = Counts()
        self.drift: Drift | None = None
        self.in_progress = 0
        self.slate_log: SlateLog | None = None
        self.tellers: list[Callable[[Seen], None]] = []

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
            times_ms: by stage; `total` is all of it in this process, `wait` what it waited in front of it.
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
            if times_ms.get("wait", 0.0) + times_ms["total"] > budget.limit_ms:  # `wait` is before this process
                self.counts.count("deadline_misses", "answer")
        if self.tellers:
            seen = _seen(scope, route, status, times_ms, answer, cause or "", budget)
            for tell in self.tellers:
                tell(seen)


def _seen(
    scope: Mapping[str, Any],
    route: str,
    status: int,
    times_ms: Mapping[str, float],
    answer: Slate | Page | None,
    cause: str,
    budget: Budget | None,
) -> Seen:
    parents = [value for name, value in scope["headers"] if name == b"traceparent"]
    return Seen(
        began_ns=time.time_ns() - round(times_ms["total"] * 1e6),
        request_id=scope.get("request_id", ""),
        traceparent=parents[0].decode("latin-1") if parents else "",
        method=scope["method"] if scope["method"] in _METHODS else "other",
        route=route,
        status=status,
        cause=cause,
        bundle="" if answer is None else answer.bundle,
        surface="" if answer is None else answer.surface,
        rung="" if answer is None else answer.rung,
        state_version=-1 if answer is None else answer.state_version,
        late=[] if budget is None else budget.late,
        times_ms=times_ms,
    )
