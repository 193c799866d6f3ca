"""Routes that answer with slates and pages."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from playbill.engine.budget import Budget
from playbill.engine.engine import Engine
from playbill.engine.types import Page, PageRequest, decode, decode_request
from playbill.engine.types import Request as Asked
from playbill.errors import RequestError, StateError
from playbill.serving.messages import Refused
from playbill.serving.slatelog.content import Entry
from playbill.serving.trying import Answered, Decide
from playbill.serving.waiting import WAIT_SHARE, waited_ms
from playbill.serving.watch import LATE
from playbill.serving.wire import answered_with, request_id
from playbill.state.reads import Reads

if TYPE_CHECKING:
    from playbill.serving.http import Api

log = logging.getLogger("playbill.http")

ARRIVED = "playbill_arrived"
AT_A_TIME = 2  # slates in the works: of one the choices go to the disk meanwhile
_DEADLINE = "x-playbill-deadline-ms"
_AHEAD_DAYS = (
    366  # what is prepared for a later day lies within a year; clocks and units that are wrong lie far outside
)


async def recommend(api: Api, request: Request, times: dict[str, float]) -> Response:
    """Return one person's slate."""
    body = await api.body(request)
    began = time.perf_counter()
    return await _in_turn(api, request, times, began, decode_request(body), Engine.decide)


async def home(api: Api, request: Request, times: dict[str, float]) -> Response:
    """Return one person's page."""
    body = await api.body(request)
    began = time.perf_counter()
    return await _in_turn(api, request, times, began, decode(body, PageRequest), Engine.pages)


async def _in_turn(
    api: Api, request: Request, times: dict[str, float], began: float, asked: Asked, decide: Decide
) -> Response:
    """Answer when it is a request's turn: one is worked on while another's choices go to the disk.

    More at a time would be answered no sooner: each that was made would wait behind all that came since, after its
    deadline was looked at. Where answers are made in threads, which wait for other processes, they take turns there.
    """
    _check_moment(asked.at)
    decoded = time.perf_counter()
    times["decode"] = (decoded - began) * 1e3
    if api.deciders is not None:
        return await _decide(api, request, times, asked, decide)
    await _turn(api, request)
    try:
        times["turn"] = (time.perf_counter() - decoded) * 1e3
        return await _decide(api, request, times, asked, decide)
    finally:
        api.turns.release()


async def _turn(api: Api, request: Request) -> None:
    """Wait until it is a request's turn.

    Raises:
        Refused: it did not come in time: those who have theirs may wait for a store that hangs.
    """
    if not api.turns.locked():
        await api.turns.acquire()  # at once
        return
    limit = _limit(api, request)
    left_s = max(limit * WAIT_SHARE - _spent(request), 0) / 1e3 if limit else None
    try:
        async with asyncio.timeout(left_s):
            await api.turns.acquire()
    except TimeoutError:
        raise _late(_spent(request), limit) from None


async def _decide(api: Api, request: Request, times: dict[str, float], asked: Asked, decide: Decide) -> Response:
    if asked.request_id is None:
        asked.request_id = request_id(request)
    ready = time.perf_counter()
    _, engine = api.now()
    budget, trying = _budget(api, request, engine), api.trying
    waited = waited_ms(request.headers)
    if waited:
        times["wait"] = max(0.0, waited - (time.perf_counter() - request.scope[ARRIVED]) * 1e3)
    faults = _faults(api)

    def answers() -> tuple[Engine, Answered, dict[str, float], Reads | None]:
        if trying is None:
            return engine, decide(engine, [asked], budget), engine.stage_ms, api.store.noted()
        who, what = trying.decide(engine, asked, budget, decide)
        return who, what, who.stage_ms, api.store.noted()

    if api.deciders is None:
        engine, (made, decisions), stages, reads = answers()
    else:
        loop = asyncio.get_running_loop()
        engine, (made, decisions), stages, reads = await loop.run_in_executor(api.deciders, answers)
    [answer] = made
    answered = time.perf_counter()
    if decisions:
        # durable before the slate goes out: a click that comes back must find its choice
        try:
            await api.aside(api.store.record, decisions)
        except StateError as error:  # a slate is worth more than the record of it
            engine.faults["decisions"] += 1
            log.error("choices of creatives are not recorded: %s", error)
        times["record"] = (time.perf_counter() - answered) * 1e3
    headers = {"x-playbill-rung": answer.rung}
    if budget is not None and budget.late:  # it would have been better with more time
        headers["x-playbill-late"] = ", ".join(budget.late)
    response = answered_with(answer, headers)
    api.watch.answered(request.scope, answer, budget)
    if api.watch.slate_log is not None:
        written = api.watch.keep(
            Entry(
                request=asked,
                page=isinstance(answer, Page),
                at=answer.at,
                body=bytes(response.body),
                bundle=engine.bundle,
                reads=reads,
                late=[] if budget is None else budget.late,
                faulty=_faults(api) != faults,
                arms={} if trying is None else trying.arms(engine),
            )
        )
        if written is not None:
            await asyncio.wrap_future(written)
    # behind the log, which keeps the engine's own words: what a narrator says is nothing that a replay can give again
    if api.wording is not None and api.wording.phrase(answer, engine.stock.catalogue):
        response = answered_with(answer, headers)
    times.update(stages)
    times.update(
        engine=(answered - ready) * 1e3,
        encode=(time.perf_counter() - answered) * 1e3 - times.get("record", 0.0),
    )
    return response


def _check_moment(at: int | None) -> None:
    """Do nothing where an answer may be asked for a moment: any of the past, and a year ahead.

    Raises:
        RequestError: later; as if nothing were new any more, and every wish had faded.
    """
    if at is not None and at > time.time_ns() // 1000 + _AHEAD_DAYS * 86_400_000_000:
        raise RequestError("at", f"expected UTC microseconds, at most {_AHEAD_DAYS} days from now, got {at}")


def _faults(api: Api) -> int:
    """Return how often a part failed in what answers."""
    return sum(engine.faults.total() for engine in api.engines())


def _budget(api: Api, request: Request, engine: Engine) -> Budget | None:
    """Return the time that is left for an answer.

    Raises:
        Refused: it waited until too little was left: whoever asked has gone, or asks again.
    """
    limit = _limit(api, request)
    if not limit:
        return None
    spent = _spent(request)
    if spent >= limit * WAIT_SHARE:
        raise _late(spent, limit)
    return Budget(limit, engine.pace, spent)


def _limit(api: Api, request: Request) -> float:
    """Return the milliseconds that an answer may take; 0: as long as it takes."""
    limit, given = api.deadline_ms, request.headers.get(_DEADLINE)
    if given is None:
        return limit
    if not given.isdecimal() or not 1 <= int(given[:6]) <= 60_000:
        raise Refused(422, "invalid", _DEADLINE, f"expected milliseconds, 1 to 60000, got {given[:20]!r}")
    return min(limit or math.inf, int(given))


def _spent(request: Request) -> float:
    """Return milliseconds since a request came: what waited in front of us counts from there on."""
    return max((time.perf_counter() - request.scope[ARRIVED]) * 1e3, waited_ms(request.headers))


def _late(spent: float, limit: float) -> Refused:
    reason = f"the request waited {spent:.0f} ms of the {limit:g} that it may take"
    return Refused(503, LATE, None, reason, {"retry-after": "1"})
