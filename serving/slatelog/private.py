"""What of a request and its answer may not be kept.

Of somebody who does not allow personalisation nothing is used but what they ask for in so many words, and nothing is
kept under their id: neither the id, nor what they ask for, nor what their visit told. Of a visitor without any id
nothing was to be kept at all (see README): what they told of their visit goes, with the reasons that rest on it, and of
the context what no model reads, unless the operator wants it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from playbill.engine.types import Page, Reason, Request, Slate, SlateItem

Answer = Slate | Page


def kept(
    request: Request, *, remembered: bool, asks: bool, visits: bool, read: Collection[str]
) -> tuple[Request, Callable[[Answer], Answer] | None, list[str]]:
    """Return the request as it may be logged, what makes its answer so, and which fields were used and are missing.

    Args:
        remembered: whether what this person is shown may be kept under their id.
        asks: whether they ask for something under their id, which acts whatever they allow.
        visits: whether to keep what nameless visitors tell.
        read: columns of the context that the bundle's models read.
    Returns:
        None in the middle where the answer may be kept as it is.
    """
    if request.user_id is None and request.session_id is None:
        if visits:
            return request, None, []
        context = {name: value for name, value in request.context.items() if name in read}
        told = bool(request.recent)
        request = msgspec.structs.replace(request, context=context, recent=[])
        return request, _without_reasons if told else None, ["recent"] if told else []
    if remembered:
        return request, None, []
    # nothing else of theirs was used, so without it the answer is the same
    request = msgspec.structs.replace(request, user_id=None, recent=[])
    return (request, _without_person, ["wishes"]) if asks else (request, _without_id, [])


def _without_id(answer: Answer) -> Answer:
    return msgspec.structs.replace(answer, user_id=None)


def _without_person(answer: Answer) -> Answer:
    return _without_reasons(_without_id(answer))


def _without_reasons(answer: Answer) -> Answer:
    if isinstance(answer, Slate):
        return msgspec.structs.replace(answer, items=[_bare(item) for item in answer.items])
    shelves = [
        msgspec.structs.replace(shelf, title="", fact={}, items=[_bare(item) for item in shelf.items])
        for shelf in answer.shelves
    ]
    return msgspec.structs.replace(answer, shelves=shelves)


def _bare(item: SlateItem) -> SlateItem:
    return msgspec.structs.replace(item, reason=Reason(kind=item.reason.kind, text=""))
