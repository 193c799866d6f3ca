"""The HTTP interface: decode, validate, call, encode. Knows Starlette, and neither Ray nor a server.

Whatever a caller sends, the answer is json, and a mistake of the caller's is a 4xx that names the field.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as Connection

from playbill.bundle.open import Bundle
from playbill.engine.approvals import note_approvals
from playbill.engine.budget import Budget
from playbill.engine.engine import Engine
from playbill.engine.item_now import item_now
from playbill.engine.items import ItemNote, note_items
from playbill.engine.types import Page, PageRequest, decode, decode_request
from playbill.engine.types import Request as Asked
from playbill.errors import RequestError, StateError, trace
from playbill.serving.following import Following
from playbill.serving.guard import Guard
from playbill.serving.item_messages import ItemsNoted, decode_items
from playbill.serving.keys import Scope
from playbill.serving.messages import (
    Alive,
    Approval,
    BundleSummary,
    Health,
    Noted,
    Problem,
    Receipt,
    Refused,
    Stored,
    decode_approvals,
    decode_events,
    summarise,
)
from playbill.serving.openapi import document
from playbill.serving.slatelog.content import Entry
from playbill.serving.trying import Answered, Decide, Trying
from playbill.serving.waiting import waited_ms
from playbill.serving.watch import LATE, Watch
from playbill.state.events import Event, Id
from playbill.state.reads import Reads
from playbill.state.store import Store

log = logging.getLogger("playbill.http")

_ENCODER = msgspec.json.Encoder()
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_JSON = "application/json"
_DEADLINE = "x-playbill-deadline-ms"
_ARRIVED = "playbill_arrived"
_TIMED = (b"x-playbill-timing", b"1")  # a request with this header is told what its stages took
_ITEM = "/v1/items/"
_ONE_ITEM = _ITEM + "{item_id}"  # what its route is called, in figures too


_Answer = Callable[[Request, dict[str, float]], Awaitable[Response]]


class Api:
    """Answers HTTP requests from one engine; an ASGI application.

    Attributes:
        failed_bundle: why the bundle that was asked for last could not be loaded; the one before it answers on.
    """

    def __init__(
        self,
        store: Store,
        *,
        guard: Guard | None = None,
        max_body_bytes: int = 256 * 1024,
        deadline_ms: float = 0.0,
        replica: str = "",
        watch: Watch | None = None,
        threads: int = 0,
    ) -> None:
        """Make an interface that has no engine yet; `use` gives it one.

        Args:
            store: where events go.
            guard: who may in; None: everybody.
            max_body_bytes: larger bodies are refused.
            deadline_ms: time for a slate or page from the arrival of its request on, where that does not set one; 0:
                as long as it takes.
            replica: name of this process in health; its process id where empty.
            watch: notes what requests come to; None: one of its own.
            threads: in which slates are made, for engines that wait for other processes; 0: in the event loop itself,
                which is quicker for those that do not.
        """
        self._serving: tuple[Bundle, Engine] | None = None
        self._following = Following(self._engines)
        self._store = store
        self._guard = guard
        # threads that append at the same time share one flush of the disk (see Store)
        self._writers = ThreadPoolExecutor(16, "playbill-events")
        self._deciders = ThreadPoolExecutor(threads, "playbill-engine") if threads else None
        self._max_body_bytes, self._deadline_ms = max_body_bytes, deadline_ms
        self._replica = replica or str(os.getpid())
        self.watch = watch or Watch()
        self._started = time.time()
        self._document = _ENCODER.encode(document())
        self.failed_bundle: str | None = None
        self._trying: Trying | None = None
        self.closing: list[Callable[[], None]] = []  # called before the store may be closed
        # method, what a key must be allowed to do, and who answers
        self._routes: dict[str, tuple[str, Scope | None, _Answer]] = {
            "/v1/recommend": ("POST", Scope.recommend, self._recommend),
            "/v1/home": ("POST", Scope.recommend, self._home),
            "/v1/events": ("POST", Scope.events, self._events),
            "/v1/items": ("POST", Scope.items, self._items),
            _ONE_ITEM: ("GET", Scope.items, self._item),
            "/v1/creatives": ("POST", Scope.items, self._creatives),
            "/v1/health": ("GET", None, self._health),
            "/v1/bundle": ("GET", Scope.admin, self._bundle),
            "/v1/openapi.json": ("GET", None, self._openapi),
        }

    def use(self, bundle: Bundle, engine: Engine) -> None:
        """Answer from this engine from now on: one assignment, so no request sees half of two bundles."""
        self._serving = (bundle, engine)
        self.failed_bundle = None
        self._following.start()

    def _engines(self) -> list[Engine]:
        found = [] if self._serving is None else [self._serving[1]]
        return found if self._trying is None else [*found, self._trying.engine]

    @property
    def serving(self) -> tuple[Bundle, Engine] | None:
        """The bundle that answers, and its engine."""
        return self._serving

    @property
    def waiting(self) -> int:
        """Calls that wait for a thread that writes."""
        return self._writers._work_queue.qsize()

    @property
    def trying(self) -> Trying | None:
        """The bundle that is tried beside the one that answers."""
        return self._trying

    def try_out(self, trying: Trying | None) -> None:
        """Begin to try a bundle, or end it."""
        before, self._trying = self._trying, trying
        if before is not None:
            before.close()

    @property
    def ready(self) -> bool:
        """Whether there is an engine."""
        return self._serving is not None

    @property
    def version(self) -> str | None:
        """Version of the bundle that answers."""
        return None if self._serving is None else self._serving[0].version

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Answer one request as an ASGI application."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            request = Request(scope, receive)
            response = await self.handle(request)
            response.raw_headers.append((b"x-request-id", _request_id(request).encode()))  # as Ray Serve does
            await response(scope, receive, send)
        else:  # a websocket: refuse the handshake
            await send({"type": "websocket.close", "code": 1000})

    async def handle(self, request: Request) -> Response:
        """Return the answer to one HTTP request; never raises for what a caller sent."""
        began = request.scope[_ARRIVED] = time.perf_counter()
        self.watch.began()
        path = request.scope["path"]
        times: dict[str, float] = {}
        try:
            response = await self._route(path, request)(request, times)
        except Refused as refused:
            response = self._problem(request, refused)
        except RequestError as error:
            # a body that is no json at all is 400, one that says something else than was asked for is 422
            malformed = error.__cause__ is not None and not isinstance(error.__cause__, msgspec.ValidationError)
            status, name = (400, "malformed") if malformed else (422, "invalid")
            response = self._problem(request, Refused(status, name, error.field, error.reason))
        except StateError as error:
            log.error("%s: %s (request %s)", path, error, _request_id(request))
            response = self._problem(request, Refused(503, "state", None, str(error)))
        except ClientDisconnect:
            response = self._problem(request, Refused(400, "incomplete", "body", "the connection closed early"))
        except Exception as error:
            log.error("%s failed (request %s)\n%s", path, _request_id(request), trace(error))
            response = self._problem(request, Refused(500, "internal", None, "the server failed; see its log"))
        times["total"] = (time.perf_counter() - began) * 1e3
        if _TIMED in request.scope["headers"]:
            response.raw_headers.append((b"server-timing", _server_timing(times)))
        if self.watch.tellers:
            _request_id(request)  # which stands in the scope from now on
        name = _name(path)
        route = name if name in self._routes else "unknown"  # a caller must not make new time series
        self.watch.finished(request.scope, route, response.status_code, times)
        return response

    def close(self) -> None:
        """Wait for the events that are being written, and look at the store no more."""
        for call in self.closing:
            call()
        self._following.stop()
        self.try_out(None)
        if self._deciders is not None:
            self._deciders.shutdown(wait=True)
        self._writers.shutdown(wait=True)

    def _route(self, path: str, request: Request) -> _Answer:
        """Return who answers, where there is such a route and the sender may use it; the body was not looked at."""
        route = self._routes.get(_name(path))
        if route is None:
            raise Refused(404, "not_found", None, f"no {path[:200]!r}; there are {', '.join(self._routes)}")
        allowed, scope, call = route
        if request.method != allowed and not (request.method == "HEAD" and allowed == "GET"):
            raise Refused(405, "method_not_allowed", None, f"{path} takes {allowed}, got {request.method[:20]}",
                          {"allow": allowed})  # fmt: skip
        if scope is not None and self._guard is not None:
            self._guard.admit(request.headers, scope)
        return call

    async def _recommend(self, request: Request, times: dict[str, float]) -> Response:
        body = await self._body(request)
        began = time.perf_counter()
        return await self._decide(request, times, began, decode_request(body), Engine.decide)

    async def _home(self, request: Request, times: dict[str, float]) -> Response:
        body = await self._body(request)
        began = time.perf_counter()
        return await self._decide(request, times, began, decode(body, PageRequest), Engine.pages)

    async def _decide(
        self, request: Request, times: dict[str, float], began: float, asked: Asked, decide: Decide
    ) -> Response:
        if asked.request_id is None:
            asked.request_id = _request_id(request)
        decoded = time.perf_counter()
        _, engine = self._now()
        budget, trying = self._budget(request, engine), self._trying
        waited = waited_ms(request.headers)
        if waited:
            times["wait"] = max(0.0, waited - (time.perf_counter() - request.scope[_ARRIVED]) * 1e3)
        faults = self._faults()

        def answers() -> tuple[Engine, Answered, dict[str, float], Reads | None]:
            if trying is None:
                return engine, decide(engine, [asked], budget), engine.stage_ms, self._store.noted()
            who, what = trying.decide(engine, asked, budget, decide)
            return who, what, who.stage_ms, self._store.noted()

        if self._deciders is None:
            engine, (made, decisions), stages, reads = answers()
        else:
            loop = asyncio.get_running_loop()
            engine, (made, decisions), stages, reads = await loop.run_in_executor(self._deciders, answers)
        [answer] = made
        answered = time.perf_counter()
        if decisions:
            # durable before the slate goes out: a click that comes back must find its choice
            try:
                await asyncio.get_running_loop().run_in_executor(self._writers, self._store.record, decisions)
            except StateError as error:  # a slate is worth more than the record of it
                engine.faults["decisions"] += 1
                log.error("choices of creatives are not recorded: %s", error)
            times["record"] = (time.perf_counter() - answered) * 1e3
        response = _answer(answer, {"x-playbill-rung": answer.rung})
        self.watch.answered(request.scope, answer, budget)
        if self.watch.slate_log is not None:
            written = self.watch.keep(
                Entry(
                    request=asked,
                    page=isinstance(answer, Page),
                    at=answer.at,
                    body=bytes(response.body),
                    bundle=engine.bundle,
                    reads=reads,
                    late=[] if budget is None else budget.late,
                    faulty=self._faults() != faults,
                    arms={} if trying is None else trying.arms(engine),
                )
            )
            if written is not None:
                await asyncio.wrap_future(written)
        times.update(stages)
        times.update(
            decode=(decoded - began) * 1e3,
            engine=(answered - decoded) * 1e3,
            encode=(time.perf_counter() - answered) * 1e3 - times.get("record", 0.0),
        )
        return response

    def _faults(self) -> int:
        """Return how often a part failed in what answers."""
        return sum(engine.faults.total() for engine in self._engines())

    def _budget(self, request: Request, engine: Engine) -> Budget | None:
        """Return the time that is left for an answer.

        Raises:
            Refused: it waited until there was none: whoever asked has gone, or asks again.
        """
        limit, given = self._deadline_ms, request.headers.get(_DEADLINE)
        if given is not None:
            if not given.isdecimal() or not 1 <= int(given[:6]) <= 60_000:
                raise Refused(422, "invalid", _DEADLINE, f"expected milliseconds, 1 to 60000, got {given[:20]!r}")
            limit = min(limit or math.inf, int(given))
        if not limit:
            return None
        spent = (time.perf_counter() - request.scope[_ARRIVED]) * 1e3 + waited_ms(request.headers)
        if spent >= limit:
            reason = f"the request waited {spent:.0f} ms of the {limit:g} that it may take"
            raise Refused(503, LATE, None, reason, {"retry-after": "1"})
        return Budget(limit, engine.pace, spent)

    async def _events(self, request: Request, times: dict[str, float]) -> Response:
        events, single = decode_events(await self._body(request))
        began, arrived = time.perf_counter(), time.time()
        try:
            fresh, version = await asyncio.get_running_loop().run_in_executor(self._writers, self._append, events)
        except RequestError as error:
            if not single:
                raise
            raise RequestError(error.field.removeprefix("events[0]."), error.reason) from None
        times["append"] = (time.perf_counter() - began) * 1e3
        self.watch.taken_in(events, fresh, arrived, time.time())
        receipt = Receipt(
            request_id=_request_id(request),
            new=sum(fresh),
            events=[Stored(event_id=e.event_id, new=n) for e, n in zip(events, fresh, strict=True)],
            state_version=version,
        )
        return _answer(receipt)

    def _append(self, events: list[Event]) -> tuple[list[bool], int]:
        """Store events; return which were new and a version that knows them. In a thread: it may wait for Redis."""
        return self._store.append(events), self._store.version

    async def _items(self, request: Request, times: dict[str, float]) -> Response:
        given, single = decode_items(await self._body(request))
        began = time.perf_counter()
        try:
            noted, version = await asyncio.get_running_loop().run_in_executor(self._writers, self._tell, given)
        except RequestError as error:
            if not single:
                raise
            field = "body" if error.field == "items[0]" else error.field.removeprefix("items[0].")
            raise RequestError(field, error.reason) from None
        times["note"] = (time.perf_counter() - began) * 1e3
        return _answer(ItemsNoted(request_id=_request_id(request), items=noted, state_version=version))

    def _tell(self, given: Sequence[Any]) -> tuple[list[ItemNote], int]:
        noted = note_items(self.engine(), self._store, given)
        for engine in self._engines()[1:]:
            engine.stocking.take_in(self._store)
        return noted

    async def _item(self, request: Request, times: dict[str, float]) -> Response:
        item_id = request.scope["path"][len(_ITEM) :]
        look = partial(item_now, self.engine(), self._store, item_id)
        found = await asyncio.get_running_loop().run_in_executor(self._writers, look)
        if found is None:
            raise Refused(404, "not_found", "item_id", f"neither the bundle nor the store has an item {item_id[:80]!r}")
        return _answer(found)

    async def _creatives(self, request: Request, times: dict[str, float]) -> Response:
        approvals, single = decode_approvals(await self._body(request))
        began = time.perf_counter()
        bundle, _ = self._now()
        given = [(approval.creative_id, approval.withdrawn) for approval in approvals]
        note = partial(self._note, bundle, given)
        try:
            ids, version = await asyncio.get_running_loop().run_in_executor(self._writers, note)
        except RequestError as error:
            if not single:
                raise
            raise RequestError(error.field.removeprefix("creatives[0]."), error.reason) from None
        times["note"] = (time.perf_counter() - began) * 1e3
        noted = [Approval(creative_id=i, withdrawn=a.withdrawn) for i, a in zip(ids, approvals, strict=True)]
        return _answer(Noted(request_id=_request_id(request), creatives=noted, state_version=version))

    def _note(self, bundle: Bundle, given: list[tuple[Id, bool]]) -> tuple[list[Id], int]:
        return note_approvals(bundle, self._store, given), self._store.version

    async def _health(self, request: Request, times: dict[str, float]) -> Response:
        full = self._guard is None or Scope.admin in self._guard.scopes(request.headers)
        bundle, engine = self._now()
        if not full:
            return _answer(Alive(status="ok"))
        try:
            version = await asyncio.get_running_loop().run_in_executor(self._writers, lambda: self._store.version)
        except StateError as error:  # answers go on without it
            status, version = f"no state: {error}", None
        else:
            status = "ok"
        return _answer(
            Health(
                status=status,
                bundle=bundle.version,
                failed_bundle=self.failed_bundle,
                trial=None if self._trying is None else self._trying.trial.version,
                state_version=version,
                models=engine.models(),
                rungs=engine.rungs,
                missing=await asyncio.get_running_loop().run_in_executor(self._writers, engine.missing),
                faults=dict(engine.faults),
                shared_lists=engine.depths.shared(),
                replica=self._replica,
                uptime_s=round(time.time() - self._started, 1),
            )
        )

    async def _bundle(self, request: Request, times: dict[str, float]) -> Response:
        bundle, _ = self._now()
        summary: BundleSummary = summarise(bundle)
        return _answer(summary)

    async def _openapi(self, request: Request, times: dict[str, float]) -> Response:
        return Response(self._document, media_type=_JSON)

    def engine(self) -> Engine:
        """Return the engine that answers; `ready` says whether there is one."""
        return self._now()[1]

    def _now(self) -> tuple[Bundle, Engine]:
        if self._serving is None:
            raise Refused(503, "starting", None, "no bundle is loaded yet; try again", {"retry-after": "1"})
        return self._serving

    async def _body(self, request: Request) -> bytes:
        """Return the body, never holding more of it than the limit."""
        limit = self._max_body_bytes
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refused(415, "unsupported_encoding", "content-encoding", "expected a body that is not compressed")
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared[:20]) > limit:
            raise _too_large(limit)
        chunks: list[bytes] = []
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _problem(self, request: Request, refused: Refused) -> Response:
        self.watch.refused(request.scope, refused.error)
        problem = Problem(
            error=refused.error, field=refused.field, reason=refused.reason, request_id=_request_id(request)
        )
        return Response(_ENCODER.encode(problem), refused.status, refused.headers, _JSON)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                self.close()
                return


def _name(path: str) -> str:
    return _ONE_ITEM if path.startswith(_ITEM) and len(path) > len(_ITEM) else path


def _answer(value: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(_ENCODER.encode(value), 200, headers, _JSON)


def _server_timing(times: Mapping[str, float]) -> bytes:
    """Return the value of the `Server-Timing` header: milliseconds by stage."""
    return ", ".join([f"{stage};dur={ms:.3f}" for stage, ms in times.items()]).encode()


def _too_large(limit: int) -> Refused:
    return Refused(413, "too_large", "body", f"expected at most {limit} bytes, got more")


def _request_id(request: Request) -> str:
    """Return the id that the caller gave, else a new one; the same whenever this request is asked."""
    found: str | None = request.scope.get("request_id")
    if found is None:
        given = request.headers.get("x-request-id", "")
        found = request.scope["request_id"] = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    return found
