"""What goes into the engine and what comes out: msgspec structs, checked while they are decoded."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import msgspec
import msgspec.inspect

from playbill.errors import RequestError
from playbill.filters.read import MAX_LENGTH
from playbill.state.events import Event, Id, Moment, Scalar, coerce_id

__all__ = [
    "Event",
    "Answer",
    "Events",
    "Page",
    "PageRequest",
    "PageShelf",
    "Reason",
    "Recent",
    "Removal",
    "Request",
    "Slate",
    "SlateItem",
    "decode",
    "decode_events",
    "decode_request",
    "validate",
]

MAX_K = 1000
MAX_EXCLUDE = 10_000
MAX_RECENT = 200
MAX_EVENTS = 1000


class Recent(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Something that happened in this visit, told with the request and stored nowhere.

    Attributes:
        event: name of it, one that the bundle reads.
        value: with its event, such as stars.
        ago_s: seconds before the moment of the request.
    """

    item_id: Id
    event: str
    value: float | None = None
    ago_s: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0


class Request(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A question for one slate.

    Attributes:
        user_id: the person; None for an anonymous visitor.
        session_id: the visit; its own profile is used where the person is unknown.
        request_id: keys every random choice; the engine makes one where it is missing.
        k: items wanted.
        surface: where the slate is shown; names a part of the bundle's policy. `similar`, `rerank`, `trending` and
            `home` are there in any case (`bundle.pages.Form`).
        item_id: the item that a surface of the form `similar` shows the like of.
        items: what a surface of the form `rerank` puts in order; `k` does not cut them.
        context: columns of the moment (device, ...) by name; answers name those that nothing reads.
        recent: what happened in this visit, oldest first: for visitors who give no id, and of whom nothing is kept.
            It stands behind what the store knows.
        exclude: item ids that must not be shown.
        filter: condition over columns of the items table that every item shown meets, such as
            `price < 20 and categories contains 'drama'`; the language is in `filters.read`.
        exploration: probability that an exploration slot is drawn by chance, in place of the surface's; never below the
            floor of the bundle's policy.
        exact_reasons: look for what to name among all of the history that models read, and not the newest few of it:
            takes several times as long.
        at: UTC microseconds of the moment; None means now. It sets the clock (hour, weekday), it does not turn back
            the state: the profile is always the one the store holds. A server takes any of the past, and up to 366
            days ahead.
    """

    user_id: Id | None = None
    session_id: Id | None = None
    request_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    k: Annotated[int, msgspec.Meta(ge=1, le=MAX_K)] = 20
    surface: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "slate"
    item_id: Id | None = None
    items: Annotated[list[Id], msgspec.Meta(max_length=MAX_K)] = []
    context: dict[str, Scalar] = {}
    recent: Annotated[list[Recent], msgspec.Meta(max_length=MAX_RECENT)] = []
    exclude: Annotated[list[Id], msgspec.Meta(max_length=MAX_EXCLUDE)] = []
    filter: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_LENGTH)] | None = None
    exploration: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    exact_reasons: bool = False
    at: Moment | None = None


class PageRequest(Request, kw_only=True, forbid_unknown_fields=True):
    """A question for a page of shelves; `k` is the items of one shelf."""

    surface: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "home"


class Reason(msgspec.Struct, kw_only=True):
    """Why an item stands on the slate.

    Attributes:
        kind: because | similar | together | taste | declared | trending | near | new | continue | again | popular |
            catalogue | exploration.
        text: one sentence for the person.
        fact: what the sentence rests on, in a form that can be checked against history and bundle.
        phrased: true where somebody else than the engine put the same fact into words; left out otherwise.
    """

    kind: str
    text: str
    fact: dict[str, Any] = {}
    phrased: bool | msgspec.UnsetType = msgspec.UNSET


class SlateItem(msgspec.Struct, kw_only=True):
    """One place of a slate.

    Attributes:
        position: 0-based.
        score: higher is better; comparable within one slate only.
        probabilities: by task, where a ranker answered.
        retriever: which retriever proposed the item first; where a blend ordered the slate, the one whose list the
            item owes most of its place to.
        propensity: probability that the logging policy shows this item at this position, given the request and the
            state. 1.0 where the policy does not explore, and where a rule of the policy put or keeps the item.
        creative_id: how the item is shown; None where it has no creative that may be shown.
        creative_propensity: probability that the logging policy shows this creative of the item; left out where there
            is none. 1.0 where it is the only one, the default, or what this session shows already.
        decision_id: names the choice of the creative; an event that follows from it should carry it, so that the
            choice is learned from.
    """

    position: int
    item_id: int | str
    title: str | None
    score: float
    probabilities: dict[str, float]
    retriever: str
    reason: Reason
    propensity: float
    creative_id: int | str | None = None
    creative_propensity: float | msgspec.UnsetType = msgspec.UNSET
    decision_id: str | msgspec.UnsetType = msgspec.UNSET
    rules: list[str] | msgspec.UnsetType = msgspec.UNSET


class Removal(msgspec.Struct, kw_only=True):
    """What a rule of the policy, or what the person asks for, took from a slate.

    Attributes:
        rule: its name; of what the person asks for, in words that begin with `asked: `, such as `asked: never Horror`.
        items: how many: of a block, a `never` and a `not this item`, of all that could have been shown otherwise; of a
            cap, candidates that stood higher than the last one shown, or were left over; of what was to be less, those
            that would stand in the first k places.
    """

    rule: str
    items: int


class Answer(msgspec.Struct, kw_only=True):
    """What stands over a slate and over a page.

    Attributes:
        bundle: version of the bundle that answered.
        state_version: sequence of the last change in the store when the profile was read.
        profile_version: of the profile used; 0 where none was.
        policy: name and hash of the policy.
        surface: whose settings of the policy were used: the request's, or `slate` where the models alone know it.
        objective: what the scores are the sum of, by name its weight: tasks of the ranker or scores of retrievers, and
            `blend`. On a lower rung it is what that rung has.
        rung: full | retrieval | item_knn | popularity, best first.
        rung_reason: why not the best rung; empty for "full", and where the surface asks for no more.
        eligible_count: items that could have been shown.
        latency_ms: the engine's own time for the batch of requests that this one was part of.
        at: UTC microseconds that the answer was made for.
    """

    request_id: str
    user_id: int | str | None
    session_id: int | str | None = None
    bundle: str
    state_version: int
    profile_version: int
    policy: str
    surface: str = "slate"
    objective: dict[str, float] = {}
    rung: str
    rung_reason: str
    eligible_count: int
    latency_ms: float
    at: int


class Slate(Answer, kw_only=True):
    """The answer to one request.

    Attributes:
        items: best first.
        removed: what rules of the policy, and what the person asks for, took from it; left out where that is nothing.
        not_ordered: of the items that a request wants in order, those that may not be shown, that a cap leaves over
            or that nobody knows, as they came; left out where there are none.
        unread_context: keys of the request's context that nothing in this bundle reads, such as misspelt ones; left out
            where there are none.
    """

    items: list[SlateItem]
    removed: list[Removal] | msgspec.UnsetType = msgspec.UNSET
    unread_context: list[str] | msgspec.UnsetType = msgspec.UNSET
    not_ordered: list[int | str] | msgspec.UnsetType = msgspec.UNSET


class PageShelf(msgspec.Struct, kw_only=True):
    """One shelf of a page.

    Attributes:
        position: 0-based, from the top.
        kind: see `bundle.pages.ShelfKind`.
        title: one line for the person.
        fact: what the title rests on, in a form that can be checked against history and bundle.
        expected_utility: the surface's objective summed over the items, each by the chance that its place is looked at
            (1 / log2(2 + place)), times the shelf's weight; comparable within one page only.
    """

    position: int
    kind: str
    title: str
    fact: dict[str, Any] = {}
    expected_utility: float
    items: list[SlateItem]


class Page(Answer, kw_only=True):
    """The answer to one request for a page: no item stands on two shelves.

    Attributes:
        shelves: by expected utility, of what those above leave.
        removed, unread_context: see `Slate`.
    """

    shelves: list[PageShelf]
    removed: list[Removal] | msgspec.UnsetType = msgspec.UNSET
    unread_context: list[str] | msgspec.UnsetType = msgspec.UNSET


class Events(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of a delivery of events."""

    events: Annotated[list[Event], msgspec.Meta(min_length=1, max_length=MAX_EVENTS)]


_T = TypeVar("_T")
_PATH = re.compile(r"^(?P<reason>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)
_FIELD = re.compile(r"unknown field `(?P<name>[^`]*)`|missing required field `(?P<required>[^`]*)`")


def decode(body: bytes, kind: type[_T]) -> _T:
    """Return the struct that a json body describes.

    Raises:
        RequestError: not json, or a field is missing, unknown, of a wrong type or out of range; names the field.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        refused = _request_error(str(error))
        if refused.reason.startswith("Invalid enum value"):
            refused = RequestError(refused.field, refused.reason + _instead(kind, refused.field))
        raise refused from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError("body", f"expected a json object, got something else: {error}") from error


def decode_request(body: bytes) -> Request:
    """Return the request in a json body; see `decode`."""
    return decode(body, Request)


def decode_events(body: bytes) -> list[Event]:
    """Return the events in a json body `{"events": [...]}`; see `decode`."""
    return decode(body, Events).events


def validate(request: Request, user_id_type: str, item_id_type: str) -> Request:
    """Return the request with ids in the bundle's types. Also holds for requests that were never decoded from json.

    Args:
        user_id_type, item_id_type: "int64" or "string", as in the feature spec.
    Raises:
        RequestError: a field is of a wrong type or out of range, or an id cannot be of the bundle's type.
    """
    try:
        checked = msgspec.convert(msgspec.structs.asdict(request), Request)
    except msgspec.ValidationError as error:
        raise _request_error(str(error)) from error
    if checked.user_id is not None:
        checked.user_id = coerce_id(checked.user_id, user_id_type, "user_id")
    if checked.item_id is not None:
        checked.item_id = coerce_id(checked.item_id, item_id_type, "item_id")
    checked.items = [coerce_id(e, item_id_type, f"items[{i}]") for i, e in enumerate(checked.items)]
    for place, recent in enumerate(checked.recent):
        recent.item_id = coerce_id(recent.item_id, item_id_type, f"recent[{place}].item_id")
    checked.exclude = [coerce_id(e, item_id_type, f"exclude[{i}]") for i, e in enumerate(checked.exclude)]
    return checked


def _instead(kind: type, field: str) -> str:
    """Return what may stand in a field, such as `preferences[0].kind`, as the end of a reason; else nothing."""
    found = msgspec.inspect.type_info(kind)
    for name, place in re.findall(r"(\w+)((?:\[[^]]*\])*)", field):
        fields = {f.encode_name: f.type for f in found.fields} if isinstance(found, msgspec.inspect.StructType) else {}
        if name not in fields:
            return ""
        found = fields[name]
        if place and isinstance(found, msgspec.inspect.ListType):
            found = found.item_type
    if not isinstance(found, msgspec.inspect.EnumType):
        return ""
    return ": expected one of " + ", ".join(str(member.value) for member in found.cls)


def _request_error(message: str) -> RequestError:
    found = _PATH.match(message)
    reason, path = (found["reason"], found["path"] or "") if found else (message, "")
    named = _FIELD.search(reason)
    if named:
        path += "." + (named["required"] or named["name"] or "")  # json allows a field without a name
    return RequestError(path.lstrip(".") or "body", reason)
