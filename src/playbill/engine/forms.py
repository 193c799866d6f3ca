"""What a surface asks of a request, by its form; and on which rungs such an answer can stand."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from playbill.bundle.open import Bundle
from playbill.bundle.pages import Form
from playbill.bundle.policy import BUILT_IN, Surface
from playbill.engine.types import Request
from playbill.errors import RequestError
from playbill.features.spec import Side

_ALL = ("full", "retrieval", "item_knn", "popularity")


def check_surface(name: str, bundle: Bundle) -> None:
    """Do nothing where a bundle has a surface, or its models know one of this name, which `slate` answers for.

    Raises:
        RequestError: it has none.
    """
    if name in bundle.policy.surfaces or name in BUILT_IN:
        return
    learned = bundle.vocabularies.get(f"{Side.CONTEXT}_surface")
    if learned is not None and learned.index(name):
        return
    there = sorted({*bundle.policy.surfaces, *BUILT_IN})
    near = difflib.get_close_matches(name, there, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise RequestError("surface", f"no surface {name!r}; {hint}there are: {', '.join(there)}")


def check_form(request: Request, surface: Surface, page: bool) -> None:
    """Do nothing where a request says what the form of its surface needs, and nothing that only another form takes.

    Args:
        page: whether a page was asked for, and not a slate.
    Raises:
        RequestError: names the field.
    """
    form, name = surface.answers, request.surface
    if page and form is not Form.HOME:
        raise RequestError("surface", f"expected one whose form is home, got {name!r} ({form.value}): it is no page")
    if not page and form is Form.HOME:
        raise RequestError("surface", f"{name!r} is a page of shelves: POST /v1/home")
    if form is Form.SIMILAR and request.item_id is None:
        raise RequestError("item_id", f"surface {name!r} shows what is like an item: expected its id, got none")
    if form is not Form.SIMILAR and request.item_id is not None:
        raise RequestError("item_id", f"surface {name!r} takes none; `similar` shows what is like an item")
    if form is Form.RERANK and not request.items:
        raise RequestError("items", f"surface {name!r} puts your items in order: expected their ids, got none")
    if form is not Form.RERANK and request.items:
        raise RequestError("items", f"surface {name!r} takes none; `rerank` puts yours in order")
    first: dict[int | str, int] = {}
    for place, item_id in enumerate(request.items):
        if first.setdefault(item_id, place) != place:
            raise RequestError(
                f"items[{place}]", f"expected each id once, got {item_id!r} as in items[{first[item_id]}]"
            )


def check_recent(request: Request, events: Collection[str]) -> None:
    """Do nothing where the bundle reads every event that a request tells of.

    Raises:
        RequestError: it does not; names those that it reads.
    """
    for place, recent in enumerate(request.recent):
        if recent.event not in events:
            known = ", ".join(events)
            raise RequestError(f"recent[{place}].event", f"expected one of {known}, got {recent.event[:64]!r}")


def rungs_of(surface: Surface, tasks: Collection[str]) -> tuple[Collection[str], Collection[str]]:
    """Return the rungs that an answer of this surface can stand on, and those of them for which nobody need be known.

    Args:
        tasks: for which there are probabilities.
    """
    form = surface.answers
    if form is Form.TRENDING:
        return ("popularity",), ("popularity",)
    if form is Form.SIMILAR:
        # the ranker is asked where the objective weighs what it says, and of somebody known
        wanted = _ALL if any(name in surface.weights for name in tasks) else _ALL[1:]
        return wanted, _ALL[1:]
    return _ALL, ("popularity",)
