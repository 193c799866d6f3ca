"""Routes by which people say what they want: not this, less like it, forget that, more of this kind."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from playbill.engine.kept import Kept, kept_of, note_item, note_preferences
from playbill.engine.types import decode
from playbill.errors import RequestError
from playbill.serving.messages import Refused
from playbill.serving.wire import answered_with, request_id
from playbill.serving.wish_messages import Feedback, FeedbackNoted, Preferences, Said, decode_feedback
from playbill.state.events import Id
from playbill.state.wishes import Mark, Wish

if TYPE_CHECKING:
    from playbill.serving.http import Api

_MARKS = {Said.LESS_LIKE_THIS: Mark.LESS, Said.NOT_THIS_ITEM: Mark.HIDDEN}


async def feedback(api: Api, request: Request, times: dict[str, float]) -> Response:
    """Note what somebody says of an item, or forget an event."""
    said = decode_feedback(await api.body(request))
    began = time.perf_counter()
    new, version = await api.aside(_note, api, said)
    times["note"] = (time.perf_counter() - began) * 1e3
    return answered_with(FeedbackNoted(request_id=request_id(request), kind=said.kind, new=new, state_version=version))


async def prefer(api: Api, request: Request, times: dict[str, float]) -> Response:
    """Put what somebody declares in place of what they declared before."""
    given = decode(await api.body(request), Preferences)
    began = time.perf_counter()
    kept = await api.aside(_prefer, api, given)
    times["note"] = (time.perf_counter() - began) * 1e3
    return answered_with(kept)


async def kept(api: Api, request: Request, times: dict[str, float]) -> Response:
    """Say what is kept of somebody."""
    user, session = _named(request)
    return answered_with(await api.aside(_kept, api, user, session))


async def drop(api: Api, request: Request, times: dict[str, float]) -> Response:
    """Keep nothing more of what somebody asked for."""
    user, session = _named(request)
    return answered_with(await api.aside(_drop, api, user, session))


def _note(api: Api, said: Feedback) -> tuple[bool, int]:
    if said.kind is Said.FORGET_EVENT and said.event_id is not None:
        new = api.store.forget(said.user_id, said.session_id, said.event_id)
    else:
        wish = Wish(
            user_id=said.user_id,
            session_id=said.session_id,
            mark=_MARKS[said.kind],
            item_id=said.item_id,
            at=_now(),
            taken_back=said.take_back,
        )
        new = note_item(api.engine(), api.store, wish)
    return new, api.store.version


def _prefer(api: Api, given: Preferences) -> Kept:
    engine, user = api.engine(), given.user_id
    note_preferences(engine, api.store, user, given.session_id, given.preferences)
    return kept_of(engine, api.store, user, given.session_id if user is None else None, _now())


def _kept(api: Api, user: str | None, session: str | None) -> Kept:
    return kept_of(api.engine(), api.store, user, _session(api, session), _now())


def _drop(api: Api, user: str | None, session: str | None) -> Kept:
    visit = _session(api, session)
    if user is None or visit is not None:
        api.store.tell(Wish(session_id=visit, nothing=True))
    if user is not None:
        api.store.tell(Wish(user_id=user, nothing=True))
    return kept_of(api.engine(), api.store, user, visit, _now())


def _session(api: Api, given: str | None) -> Id | None:
    """Return the id of a session as it was when something was asked for: an address does not tell 7 from "7"."""
    if given is None or str(_number(given)) != given:
        return given
    with api.store.view([(None, given), (None, _number(given))]) as view:
        return given if view.wishes(None, given) is not None else _number(given)


def _number(text: str) -> int:
    return int(text) if text.lstrip("-").isdecimal() and len(text) < 19 else 0


def _named(request: Request) -> tuple[str | None, str | None]:
    """Return the ids that an address names: `?user_id=196`, `?session_id=...`."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in ("user_id", "session_id"):
            raise RequestError(name[:80], "no such parameter; there are user_id and session_id")
        if name in found or not 1 <= len(value) <= 256:
            raise RequestError(name, "expected one id of 1 to 256 characters")
        found[name] = value
    if not found:
        raise Refused(422, "invalid", "user_id", "expected a user_id or a session_id in the address, got neither")
    return found.get("user_id"), found.get("session_id")


def _now() -> int:
    return time.time_ns() // 1000
