"""Withdrawing the approval of creatives while requests are answered, and taking that back.

A note in the store beside what feeds say of a creative: taken back, its status is again what the bundle or a feed says,
so nothing is approved this way that was not approved before.
"""

from __future__ import annotations

from collections.abc import Sequence

from playbill.bundle.open import Bundle
from playbill.engine.catalogue import WITHDRAWN
from playbill.errors import RequestError
from playbill.state.events import Id, coerce_id
from playbill.state.store import Store


def note_approvals(bundle: Bundle, store: Store, creatives: Sequence[tuple[Id, bool]]) -> list[Id]:
    """Note of creatives whether their approval is withdrawn; return their ids in the type of their table.

    Durable when this returns; every engine over the store knows it at its next request. All are noted, or none.

    Args:
        creatives: id, and True to withdraw or False to take that back.
    Raises:
        RequestError: neither the bundle nor a feed knows a creative; names it.
        StateError: the store cannot be read or written.
    """
    built = [] if bundle.creatives is None else bundle.creatives.columns["creative_id"]
    if not built:
        raise RequestError("creatives", f"bundle {bundle.version}, which answers, has no creatives")
    kind = "int64" if isinstance(built[0], int) else "string"
    with store.view() as view:
        noted = view.creatives()
    known = {*built, *(creative_id for creative_id, change in noted.items() if change.get("item_id") is not None)}
    ids = []
    for place, (given, _) in enumerate(creatives):
        name = f"creatives[{place}].creative_id"
        ids.append(coerce_id(given, kind, name))
        if ids[-1] not in known:
            raise RequestError(name, f"neither bundle {bundle.version} nor the store has a creative {given!r}")
    store.set_creatives({i: {WITHDRAWN: withdrawn} for i, (_, withdrawn) in zip(ids, creatives, strict=True)})
    return ids
