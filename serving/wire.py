"""What every route does with a request and its answer: the body within its limit, the id, the json."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from playbill.serving.messages import Problem, Refused

ENCODER = msgspec.json.Encoder()
JSON = "application/json"
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body, never holding more of it than `limit` bytes.

    Raises:
        Refused: it is longer, or compressed.
    """
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


def request_id(request: HTTPConnection) -> str:
    """Return the id that the caller gave, else a new one; the same whenever this request is asked."""
    found: str | None = request.scope.get("request_id")
    if found is None:
        given = request.headers.get("x-request-id", "")
        found = request.scope["request_id"] = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    return found


def answered_with(value: Any, headers: dict[str, str] | None = None) -> Response:
    """Return a struct as the answer."""
    return Response(ENCODER.encode(value), 200, headers, JSON)


def problem_of(refused: Refused, name: str) -> Response:
    """Return a refusal as the answer to the request of an id."""
    problem = Problem(error=refused.error, field=refused.field, reason=refused.reason, request_id=name)
    return Response(ENCODER.encode(problem), refused.status, refused.headers, JSON)


def server_timing(times: Mapping[str, float]) -> bytes:
    """Return the value of the `Server-Timing` header: milliseconds by stage."""
    return ", ".join([f"{stage};dur={ms:.3f}" for stage, ms in times.items()]).encode()


def _too_large(limit: int) -> Refused:
    return Refused(413, "too_large", "body", f"expected at most {limit} bytes, got more")
