"""What of a request and its answer may not be kept.

Of somebody who does not allow personalisation nothing is used but what they ask for in so many words, and nothing is
kept under their id: neither the ids of person and visit, nor what they ask for, nor what their visit told. Of a visitor
without any id nothing was to be kept at all: what they told of their visit goes, with the reasons that rest
on it, unless the operator wants it. Of both, a context stays as far as it is in the bundle's own words (`engine.told`).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from playbill.engine.told import Told
from playbill.engine.types import Page, Reason, Request, Slate, SlateItem

Answer = Slate | Page


def kept(
    request: Request, *, remembered: bool, asks: bool, shown: bool, visits: bool, told: Told
) -> tuple[Request, Callable[[Answer], Answer] | None, list[str]]:
    """Return the request as it may be logged, what makes its answer so, and which fields were used and are missing.

    Args:
        remembered: whether what this person is shown may be kept under their id.
        asks: whether they ask for something under an id, which acts whatever they allow.
        shown: whether what their visit was shown before acted.
        visits: whether to keep what nameless visitors tell.
        told: see `engine.told.told_by`.
    Returns:
        None in the middle where the answer may be kept as it is.
    """
    nameless = request.user_id is None and request.session_id is None
    if visits if nameless else remembered:
        return request, None, []
    context, acted = told(request.context)
    asked, recent = request.context, bool(request.recent)
    request = msgspec.structs.replace(request, user_id=None, session_id=None, context=context, recent=[])
    if nameless:
        withheld = (["recent"] if recent else []) + (["context"] if acted else [])
        bare = _without_reasons if recent else _without_ids if len(context) < len(asked) else None
        return request, bare, withheld
    # nothing else of theirs was used, so without it the answer is the same
    withheld = [name for name, used in (("wishes", asks), ("shown", shown), ("context", acted)) if used]
    return request, _without_reasons if asks else _without_ids, withheld


def _without_ids(answer: Answer) -> Answer:
    # the names of what is not read in a context are the caller's words too
    return msgspec.structs.replace(answer, user_id=None, session_id=None, unread_context=msgspec.UNSET)


def _without_reasons(answer: Answer) -> Answer:
    answer = _without_ids(answer)
    if isinstance(answer, Slate):
        return msgspec.structs.replace(answer, items=[_bare(item) for item in answer.items])
    shelves = [
        msgspec.structs.replace(shelf, title="", fact={}, items=[_bare(item) for item in shelf.items])
        for shelf in answer.shelves
    ]
    return msgspec.structs.replace(answer, shelves=shelves)


def _bare(item: SlateItem) -> SlateItem:
    return msgspec.structs.replace(item, reason=Reason(kind=item.reason.kind, text=""))
