"""Websockets are refused with words of our own. Where Ray Serve's Python proxy stands in front, that is done there, for
it fails on them before a replica is asked."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from playbill.serving.ingress import NO_WEBSOCKETS
from playbill.serving.messages import Refused
from playbill.serving.wire import problem_of, request_id


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 400 to the handshake of a websocket."""
    name = request_id(HTTPConnection(scope))
    headers = {"cache-control": "no-store", "x-request-id": name}
    response = problem_of(Refused(400, "malformed", None, NO_WEBSOCKETS, headers), name)
    await response(scope, receive, send)


class NoWebsockets:
    """Refuses websockets, and lets all else through."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the ASGI protocol."""
        await (refuse if scope["type"] == "websocket" else self.app)(scope, receive, send)


def middlewares() -> list[Middleware]:
    """Return what Ray Serve puts in front of its Python proxy."""
    return [Middleware(NoWebsockets)]
