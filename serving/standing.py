"""Routes that say how a replica stands, and what it answers from."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from playbill.errors import StateError
from playbill.serving.keys import Scope
from playbill.serving.messages import Alive, Health, summarise
from playbill.serving.wire import answered_with

if TYPE_CHECKING:
    from playbill.serving.http import Api


async def health(api: Api, request: Request, times: dict[str, float]) -> Response:
    """Say how the replica stands; to whom it is no business, only that it answers."""
    full = api.guard is None or Scope.admin in api.guard.scopes(request.headers)
    serving, engine = api.now()
    if not full:
        return answered_with(Alive(status="ok"))
    try:
        version: int | None = await api.aside(lambda: api.store.version)
    except StateError as error:  # answers go on without it
        status, version = f"no state: {error}", None
    else:
        status = "ok"
    return answered_with(
        Health(
            status=status,
            bundle=serving.version,
            failed_bundle=api.failed_bundle,
            trial=None if api.trying is None else api.trying.trial.version,
            state_version=version,
            models=engine.models(),
            rungs=engine.rungs,
            missing=await api.aside(engine.missing),
            faults=dict(engine.faults),
            shared_lists=engine.depths.shared(),
            replica=api.replica,
            uptime_s=round(time.time() - api.started, 1),
        )
    )


async def bundle(api: Api, request: Request, times: dict[str, float]) -> Response:
    """Say what answers."""
    return answered_with(summarise(api.now()[0]))
