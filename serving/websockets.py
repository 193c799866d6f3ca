"""Websockets where Ray Serve's Python proxy stands in front: refused there, since Serve fails on them before a replica
is asked."""

from __future__ import annotations

import json
import uuid

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from playbill.serving.ingress import NO_WEBSOCKETS


class NoWebsockets:
    """Answers 400 to whoever asks for a websocket, and lets all else through."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the ASGI protocol."""
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return
        await receive()  # websocket.connect
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close"})  # which is a 403
            return
        name = str(uuid.uuid4())
        problem = {"error": "malformed", "field": None, "reason": NO_WEBSOCKETS, "request_id": name}
        headers = [
            (b"content-type", b"application/json"),
            (b"cache-control", b"no-store"),
            (b"x-request-id", name.encode()),
        ]
        await send({"type": "websocket.http.response.start", "status": 400, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": json.dumps(problem).encode()})


def middlewares() -> list[Middleware]:
    """Return what Ray Serve puts in front of its Python proxy."""
    return [Middleware(NoWebsockets)]
