"""Routes by which a server is told something: what people did, what became of items and of creatives."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from playbill.bundle.open import Bundle
from playbill.engine.approvals import note_approvals
from playbill.engine.item_now import item_now
from playbill.engine.items import ItemNote, note_items
from playbill.errors import RequestError
from playbill.serving.item_messages import ItemsNoted, decode_items
from playbill.serving.messages import Approval, Noted, Receipt, Refused, Stored, decode_approvals, decode_events
from playbill.serving.wire import answered_with, request_id
from playbill.state.events import Event, Id

if TYPE_CHECKING:
    from playbill.serving.http import Api

ITEM = "/v1/items/"


async def events(api: Api, request: Request, times: dict[str, float]) -> Response:
    """Store what people did."""
    given, single = decode_events(await api.body(request))
    began, arrived = time.perf_counter(), time.time()
    try:
        fresh, version = await api.aside(_append, api, given)
    except RequestError as error:
        if not single:
            raise
        raise RequestError(error.field.removeprefix("events[0]."), error.reason) from None
    times["append"] = (time.perf_counter() - began) * 1e3
    api.watch.taken_in(given, fresh, arrived, time.time())
    receipt = Receipt(
        request_id=request_id(request),
        new=sum(fresh),
        events=[Stored(event_id=e.event_id, new=n) for e, n in zip(given, fresh, strict=True)],
        state_version=version,
    )
    return answered_with(receipt)


async def items(api: Api, request: Request, times: dict[str, float]) -> Response:
    """Note what became of items."""
    given, single = decode_items(await api.body(request))
    began = time.perf_counter()
    try:
        noted, version = await api.aside(_tell, api, given)
    except RequestError as error:
        if not single:
            raise
        field = "body" if error.field == "items[0]" else error.field.removeprefix("items[0].")
        raise RequestError(field, error.reason) from None
    times["note"] = (time.perf_counter() - began) * 1e3
    return answered_with(ItemsNoted(request_id=request_id(request), items=noted, state_version=version))


async def item(api: Api, request: Request, times: dict[str, float]) -> Response:
    """Say what is known of an item."""
    item_id = request.scope["path"][len(ITEM) :]
    found = await api.aside(item_now, api.engine(), api.store, item_id)
    if found is None:
        raise Refused(404, "not_found", "item_id", f"neither the bundle nor the store has an item {item_id[:80]!r}")
    return answered_with(found)


async def creatives(api: Api, request: Request, times: dict[str, float]) -> Response:
    """Note which creatives are approved no more, or again."""
    approvals, single = decode_approvals(await api.body(request))
    began = time.perf_counter()
    bundle, _ = api.now()
    given = [(approval.creative_id, approval.withdrawn) for approval in approvals]
    try:
        ids, version = await api.aside(partial(_note, api, bundle, given))
    except RequestError as error:
        if not single:
            raise
        raise RequestError(error.field.removeprefix("creatives[0]."), error.reason) from None
    times["note"] = (time.perf_counter() - began) * 1e3
    noted = [Approval(creative_id=i, withdrawn=a.withdrawn) for i, a in zip(ids, approvals, strict=True)]
    return answered_with(Noted(request_id=request_id(request), creatives=noted, state_version=version))


def _append(api: Api, given: list[Event]) -> tuple[list[bool], int]:
    """Store events; return which were new and a version that knows them."""
    return api.store.append(given), api.store.version


def _tell(api: Api, given: Sequence[Any]) -> tuple[list[ItemNote], int]:
    noted = note_items(api.engine(), api.store, given)
    for engine in api.engines()[1:]:
        engine.stocking.take_in(api.store)
    return noted


def _note(api: Api, bundle: Bundle, given: list[tuple[Id, bool]]) -> tuple[list[Id], int]:
    return note_approvals(bundle, api.store, given), api.store.version
