"""The HTTP interface: decode, validate, call, encode. Knows Starlette, and neither Ray nor a server.

Whatever a caller sends, the answer is json, and a mistake of the caller's is a 4xx that names the field.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as Connection

from playbill.bundle.open import Bundle
from playbill.engine.engine import Engine
from playbill.errors import RequestError, StateError, trace
from playbill.serving import deciding, standing, telling, wishing
from playbill.serving.deciding import ARRIVED, AT_A_TIME
from playbill.serving.following import Following
from playbill.serving.guard import Guard
from playbill.serving.keys import Scope
from playbill.serving.messages import Refused
from playbill.serving.openapi import document
from playbill.serving.telling import ITEM
from playbill.serving.trying import Trying
from playbill.serving.watch import Watch
from playbill.serving.websockets import refuse
from playbill.serving.wire import ENCODER, JSON, problem_of, read_body, request_id, server_timing
from playbill.serving.wording import Wording
from playbill.state.store import Store
from playbill.words.settings import EndpointSettings

log = logging.getLogger("playbill.http")

_TIMED = (b"x-playbill-timing", b"1")  # a request with this header is told what its stages took
_ONE_ITEM = ITEM + "{item_id}"  # what its route is called, in figures too

_Answer = Callable[[Request, dict[str, float]], Awaitable[Response]]
_T = TypeVar("_T")


class Api:
    """Answers HTTP requests from one engine; an ASGI application.

    Attributes:
        failed_bundle: why the bundle that was asked for last could not be loaded; the one before it answers on.
        deadline_ms: time for a slate or page where its request does not set one; 0: as long as it takes.
        guard: who may in; None: everybody.
        replica, started: name of this process, and since when it is there, seconds since 1970.
        watch: notes what requests come to.
        deciders: threads in which slates are made; None: in the event loop.
        wording: phrases reasons; None: nobody does.
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
        self._following = Following(self.engines)
        self._store = store
        self.guard = guard
        # threads that append at the same time share one flush of the disk (see Store)
        self._writers = ThreadPoolExecutor(16, "playbill-events")
        self.deciders = ThreadPoolExecutor(threads, "playbill-engine") if threads else None
        self.turns = asyncio.Semaphore(AT_A_TIME)
        self._max_body_bytes, self.deadline_ms = max_body_bytes, deadline_ms
        self.replica = replica or str(os.getpid())
        self.watch = watch or Watch()
        self.wording: Wording | None = None
        self.started = time.time()
        self._document = ENCODER.encode(document())
        self.failed_bundle: str | None = None
        self._trying: Trying | None = None
        self.closing: list[Callable[[], None]] = []  # called before the store may be closed
        # by path and method: what a key must be allowed to do, and who answers
        self._routes: dict[str, dict[str, tuple[Scope | None, _Answer]]] = {
            "/v1/recommend": {"POST": (Scope.recommend, partial(deciding.recommend, self))},
            "/v1/home": {"POST": (Scope.recommend, partial(deciding.home, self))},
            "/v1/events": {"POST": (Scope.events, partial(telling.events, self))},
            "/v1/feedback": {"POST": (Scope.events, partial(wishing.feedback, self))},
            "/v1/preferences": {
                "GET": (Scope.events, partial(wishing.kept, self)),
                "PUT": (Scope.events, partial(wishing.prefer, self)),
                "DELETE": (Scope.events, partial(wishing.drop, self)),
            },
            "/v1/items": {"POST": (Scope.items, partial(telling.items, self))},
            _ONE_ITEM: {"GET": (Scope.items, partial(telling.item, self))},
            "/v1/creatives": {"POST": (Scope.items, partial(telling.creatives, self))},
            "/v1/health": {"GET": (None, partial(standing.health, self))},
            "/v1/bundle": {"GET": (Scope.admin, partial(standing.bundle, self))},
            "/v1/openapi.json": {"GET": (None, self._openapi)},
        }

    def use(self, bundle: Bundle, engine: Engine) -> None:
        """Answer from this engine from now on: one assignment, so no request sees half of two bundles."""
        self._serving = (bundle, engine)
        self.failed_bundle = None
        self._following.start()

    def engines(self) -> list[Engine]:
        """Return the engine that answers and the one that is tried beside it, as far as there are any."""
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

    def word(self, settings: EndpointSettings) -> None:
        """Let a model phrase reasons from now on, where the settings name one.

        Raises:
            ConfigError: its key is not there.
        """
        if settings.url is not None:
            self.wording = Wording(settings, self.watch.counts)
            self.closing.append(self.wording.close)

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
            response.raw_headers.append((b"x-request-id", request_id(request).encode()))  # as Ray Serve does
            await response(scope, receive, send)
        else:
            await refuse(scope, receive, send)

    async def handle(self, request: Request) -> Response:
        """Return the answer to one HTTP request; never raises for what a caller sent."""
        began = request.scope[ARRIVED] = time.perf_counter()
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
            log.error("%s: %s (request %s)", path, error, request_id(request))
            # what it says names where the store is, which is for whoever reads the log
            response = self._problem(request, Refused(503, "state", None, _STORE, {"retry-after": "1"}))
        except ClientDisconnect:
            response = self._problem(request, Refused(400, "incomplete", "body", "the connection closed early"))
        except Exception as error:
            log.error("%s failed (request %s)\n%s", path, request_id(request), trace(error))
            response = self._problem(request, Refused(500, "internal", None, "the server failed; see its log"))
        times["total"] = (time.perf_counter() - began) * 1e3
        if _TIMED in request.scope["headers"]:
            response.raw_headers.append((b"server-timing", server_timing(times)))
        if self.watch.tellers:
            request_id(request)  # which stands in the scope from now on
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
        if self.deciders is not None:
            self.deciders.shutdown(wait=True)
        self._writers.shutdown(wait=True)

    def _route(self, path: str, request: Request) -> _Answer:
        """Return who answers, where there is such a route and the sender may use it; the body was not looked at."""
        route = self._routes.get(_name(path))
        if route is None:
            raise Refused(404, "not_found", None, f"no {path[:200]!r}; there are {', '.join(self._routes)}")
        found = route.get("GET" if request.method == "HEAD" else request.method)
        if found is None:
            allowed = ", ".join(route)
            raise Refused(405, "method_not_allowed", None, f"{path} takes {allowed}, got {request.method[:20]}",
                          {"allow": allowed})  # fmt: skip
        scope, call = found
        if scope is not None and self.guard is not None:
            self.guard.admit(request.headers, scope)
        return call

    async def _openapi(self, request: Request, times: dict[str, float]) -> Response:
        return Response(self._document, media_type=JSON)

    @property
    def store(self) -> Store:
        """Where events go."""
        return self._store

    def engine(self) -> Engine:
        """Return the engine that answers; `ready` says whether there is one."""
        return self.now()[1]

    def now(self) -> tuple[Bundle, Engine]:
        """Return the bundle that answers, and its engine.

        Raises:
            Refused: there is none yet.
        """
        if self._serving is None:
            raise Refused(503, "starting", None, "no bundle is loaded yet; try again", {"retry-after": "1"})
        return self._serving

    async def body(self, request: Request) -> bytes:
        """Return the body, never holding more of it than the limit."""
        return await read_body(request, self._max_body_bytes)

    async def aside(self, call: Callable[..., _T], *arguments: Any) -> _T:
        """Return what a call gives that waits for the disk, or for Redis: in a thread, of a few that share a sync."""
        return await asyncio.get_running_loop().run_in_executor(self._writers, call, *arguments)

    def _problem(self, request: Request, refused: Refused) -> Response:
        self.watch.refused(request.scope, refused.error)
        return problem_of(refused, request_id(request))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                self.close()
                return


_STORE = (
    "the store cannot be read or written now; try again, events with the event_id that they had: what was stored is "
    "not stored twice. The server's log says what was wrong, by this request_id"
)


def _name(path: str) -> str:
    return _ONE_ITEM if path.startswith(ITEM) and len(path) > len(ITEM) else path
