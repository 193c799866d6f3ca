"""Words for what people did and what items are called."""

from __future__ import annotations

from collections.abc import Sequence

from playbill.engine.catalogue import Catalogue
from playbill.features.fold import Past

# what a person did, for events that are named as one would say them
_DID = {
    "rate": "rated",
    "rating": "rated",
    "view": "looked at",
    "click": "looked at",
    "watch": "watched",
    "play": "played",
    "read": "read",
    "listen": "listened to",
    "like": "liked",
    "buy": "bought",
    "purchase": "bought",
    "order": "ordered",
    "save": "saved",
}


def did(event: Past) -> str:
    """Return what a person did, as one would say it: watched, bought, ..."""
    return did_in(event.event)


def did_in(event: str) -> str:
    """Return the same of an event's name."""
    return _DID.get(event, "chose")


def listed(names: Sequence[str], last: str) -> str:
    """Return names as one would say them: `Drama, Comedy and War` where `last` is "and"."""
    return f" {last} ".join([*filter(None, [", ".join(names[:-1])]), *names[-1:]])


def title_of(catalogue: Catalogue, row: int) -> str:
    """Return what an item is called: its title, else its id."""
    return catalogue.titles[row] or str(catalogue.ids[row])
