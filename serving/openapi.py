"""The OpenAPI document, built from the structs that decode and encode, so that it says what the code does."""

from __future__ import annotations

from typing import Any

import msgspec

import playbill
from playbill.engine.item_now import ItemNow
from playbill.engine.kept import Kept
from playbill.engine.types import Page, PageRequest, Request, Slate
from playbill.serving.item_messages import ItemsNoted, ToldItem, ToldItems
from playbill.serving.keys import Scope
from playbill.serving.messages import (
    Alive,
    Approval,
    Approvals,
    BundleSummary,
    Health,
    Noted,
    Problem,
    Receipt,
    SentEvent,
    SentEvents,
)
from playbill.serving.wish_messages import Feedback, FeedbackNoted, Preferences

_SPEECH: dict[int, str] = {
    400: "The body is no json.",
    401: "There is no API key, or it is not known, or it was revoked.",
    403: "The API key may do other things than this.",
    404: "There is no such path, or no such item.",
    405: "The path takes another method.",
    408: "The request took longer than the server allows.",
    413: "The body is larger than the server allows.",
    415: "The body is compressed.",
    422: "A field is missing, unknown, of a wrong type or out of range.",
    429: "The API key is used more often than it may be; Retry-After says after how many seconds to try again.",
    503: "More requests wait than the server allows, or it is still starting.",
}
_BODY_FAULTS = (400, 408, 413, 415, 422)
_DEADLINE = {
    "name": "x-playbill-deadline-ms",
    "in": "header",
    "required": False,
    "description": "Time for the answer from its arrival on, where that is less than the server gives; a step that "
    "would come too late is passed over for a cheaper rung.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 60000},
}
_ID = {"type": "string", "minLength": 1, "maxLength": 256}
_RETRY = {"Retry-After": {"description": "Seconds after which to try again.", "schema": {"type": "integer"}}}


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document as plain values."""
    structs = (
        Request, Slate, PageRequest, Page, SentEvent, SentEvents, Receipt, ToldItem, ToldItems, ItemsNoted, ItemNow,
        Feedback, FeedbackNoted, Preferences, Kept, Approval, Approvals, Noted, Alive, Health, BundleSummary, Problem,
    )  # fmt: skip
    schemas, components = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    schema = dict(zip(structs, schemas, strict=True))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Playbill",
            "version": playbill.__version__,
            "description": "Every person their own programme. A server without API keys, on loopback, asks for none.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/v1/recommend": {
                "post": _operation(
                    "recommend",
                    "Return one person's slate; an anonymous visitor's where user_id is missing. The surface `similar` "
                    "shows the like of `item_id`, `rerank` puts `items` in order, `trending` what is chosen most.",
                    schema[Slate],
                    schema[Problem],
                    schema[Request],
                    scope=Scope.recommend,
                    deadline=True,
                )
            },
            "/v1/home": {
                "post": _operation(
                    "home",
                    "Return one person's page: shelves by expected utility, no item on two of them.",
                    schema[Page],
                    schema[Problem],
                    schema[PageRequest],
                    scope=Scope.recommend,
                    deadline=True,
                )
            },
            "/v1/events": {
                "post": _operation(
                    "events",
                    "Store what a person did. It is durable when the answer comes, and the next slate knows it.",
                    schema[Receipt],
                    schema[Problem],
                    {"oneOf": [schema[SentEvent], schema[SentEvents]]},
                    scope=Scope.events,
                )
            },
            "/v1/feedback": {
                "post": _operation(
                    "feedback",
                    "Note what a person says: less like this item, not this item, forget that event. It is durable "
                    "when the answer comes, and the next answer of every replica knows it.",
                    schema[FeedbackNoted],
                    schema[Problem],
                    schema[Feedback],
                    scope=Scope.events,
                )
            },
            "/v1/preferences": {
                "get": _operation(
                    "preferences",
                    "Say what is kept of what a person asks for: what they declared, and what they said of items.",
                    schema[Kept],
                    schema[Problem],
                    scope=Scope.events,
                    query=("user_id", "session_id"),
                ),
                "put": _operation(
                    "prefer",
                    "Put what a person declares in place of what they declared before; an empty list takes it back. It "
                    "is durable when the answer comes, and the next answer of every replica knows it.",
                    schema[Kept],
                    schema[Problem],
                    schema[Preferences],
                    scope=Scope.events,
                ),
                "delete": _operation(
                    "drop",
                    "Keep nothing more of what a person asked for, items included.",
                    schema[Kept],
                    schema[Problem],
                    scope=Scope.events,
                    query=("user_id", "session_id"),
                ),
            },
            "/v1/items": {
                "post": _operation(
                    "items",
                    "Add items, change columns of them, or withdraw them. It is durable when the answer comes; this "
                    "replica's next slate knows it, the others' within a second.",
                    schema[ItemsNoted],
                    schema[Problem],
                    {"oneOf": [schema[ToldItem], schema[ToldItems]]},
                    scope=Scope.items,
                )
            },
            "/v1/items/{item_id}": {
                "get": _operation(
                    "item",
                    "Say what is known of an item: the bundle's columns and what was told since, and whether it may be "
                    "shown.",
                    schema[ItemNow],
                    schema[Problem],
                    scope=Scope.items,
                    path="item_id",
                )
            },
            "/v1/creatives": {
                "post": _operation(
                    "creatives",
                    "Withdraw the approval of creatives, or take that back. It is durable when the answer comes, and "
                    "the next slate of every replica knows it.",
                    schema[Noted],
                    schema[Problem],
                    {"oneOf": [schema[Approval], schema[Approvals]]},
                    scope=Scope.items,
                )
            },
            "/v1/health": {
                "get": _operation(
                    "health",
                    "Say how the replica stands; without a key that may see it (admin), only that it answers.",
                    {"anyOf": [schema[Health], schema[Alive]]},
                    schema[Problem],
                    scope=Scope.admin,
                    optional=True,
                )
            },
            "/v1/bundle": {
                "get": _operation(
                    "bundle", "Say what answers.", schema[BundleSummary], schema[Problem], scope=Scope.admin
                )
            },
            "/v1/openapi.json": {
                "get": _operation("openapi", "Return this document.", {"type": "object"}, schema[Problem])
            },
        },
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key of `playbill keys add`."},
                "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
            },
        },
    }


def _operation(
    name: str,
    summary: str,
    answer: dict[str, Any],
    problem: dict[str, Any],
    body: dict[str, Any] | None = None,
    scope: Scope | None = None,
    optional: bool = False,
    deadline: bool = False,
    path: str = "",
    query: tuple[str, ...] = (),
) -> dict[str, Any]:
    refusals = () if scope is None else (401,) if optional else (401, 403, 429)
    faults = sorted(
        [*refusals, *(_BODY_FAULTS if body else ()), *((404, 422) if path else ()), *((422,) if query else ()), 503]
    )
    keys = [] if scope is None else [{scheme: [scope.value]} for scheme in ("bearer", "api_key")]
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "security": [{}, *keys] if optional else keys,
        "parameters": [
            {
                "name": "x-request-id",
                "in": "header",
                "required": False,
                "description": "Comes back as request_id; the server makes one where it is missing.",
                "schema": {"type": "string", "maxLength": 128},
            },
            *([_DEADLINE] if deadline else []),
            *([{"name": path, "in": "path", "required": True, "schema": {"type": "string"}}] if path else []),
            *({"name": name, "in": "query", "required": False, "schema": _ID} for name in query),
        ],
        "responses": {
            "200": {"description": "The answer.", "content": _json(answer)},
            **{
                str(status): {
                    "description": _SPEECH[status],
                    **({"headers": _RETRY} if status in (429, 503) else {}),
                    "content": _json(problem),
                }
                for status in faults
            },
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": _json(body)}
    return operation


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
