"""Which creatives of an item may be shown: approved, not expired, of the person's locale; else the item's default.

Where the creatives table has a column `status`, only `approved` allows; where it has none, the project asks for no
approval. A creative without a locale suits everybody; `de` suits somebody of `de-AT`, and `de-AT` does not suit `de`.

An item's default is the creative that its flag `is_default` names, else its first; it comes first among the item's
creatives. Where none suits the locale, the default is shown, or the next that is approved and has not expired. Where
none is, the item is shown without a creative.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from playbill.errors import CreativeError

APPROVED = "approved"
FOREVER = np.iinfo(np.int64).max
_SHOWN = 5  # ids named in a message


@dataclass(slots=True)
class Shelf:
    """All creatives of items at one moment, C rows: those of item i are rows first[i] .. first[i + 1], default first.

    Attributes:
        ids: [C].
        source: [C] int64 row of the columns that it was made from.
        first: [N + 2] int64, by item_index 0..N.
        approved: [C] bool.
        until_us: [C] int64, UTC microseconds from which it is expired.
        locale: [C] int64 place in `locales`; `locales[0]` is "", of creatives without one.
        kind, channel: [C] text, "" where there is none.
    """

    ids: list[int | str]
    source: np.ndarray
    first: np.ndarray
    approved: np.ndarray
    until_us: np.ndarray
    locale: np.ndarray
    locales: list[str]
    kind: np.ndarray
    channel: np.ndarray


def make_shelf(columns: Mapping[str, Sequence[Any]], item: np.ndarray, num_items: int) -> Shelf:
    """Return the shelf of C rows of a creatives table, those that belong to no item left out.

    Args:
        columns: by name, [C] each; creative_id is needed, approved_until is UTC microseconds.
        item: [C] int64 item_index, 0 where a creative belongs to none that is known.
        num_items: N.
    """
    size = len(item)
    default = np.asarray([value is True for value in columns.get("is_default", [None] * size)], bool)
    kept = np.flatnonzero(item > 0)
    order = kept[np.lexsort((kept, ~default[kept], item[kept]))]
    status = columns.get("status")
    approved = np.ones(size, bool) if status is None else np.asarray([s == APPROVED for s in status], bool)
    # an end that cannot be read is one that has come
    until = [
        FOREVER if u is None else u if type(u) is int and u < FOREVER else 0
        for u in columns.get("approved_until", [None] * size)
    ]
    tags = [_tag(value) for value in columns.get("locale", [None] * size)]
    locales = ["", *sorted(set(tags) - {""})]
    places = {tag: place for place, tag in enumerate(locales)}
    ids = columns["creative_id"]
    return Shelf(
        ids=[ids[row] for row in order.tolist()],
        source=order,
        first=np.searchsorted(item[order], np.arange(num_items + 2)),
        approved=approved[order],
        until_us=np.asarray(until, np.int64)[order],
        locale=np.asarray([places[tag] for tag in tags], np.int64)[order],
        locales=locales,
        kind=_texts(columns.get("kind"), size)[order],
        channel=_texts(columns.get("channel"), size)[order],
    )


def check_shelf(columns: Mapping[str, Sequence[Any]], item: np.ndarray, item_ids: Sequence[Any]) -> None:
    """Do nothing where every item that has creatives has a default that may be shown.

    Args:
        columns, item: see `make_shelf`.
        item_ids: [N + 1] by item_index.
    Raises:
        CreativeError: a creative of an item that is not in the catalogue, an item with two defaults or with none where
            defaults are flagged, items whose creatives, or whose defaults, are all unapproved; names them.
    """
    ids, named = columns["creative_id"], columns.get("item_id", [None] * len(item))
    strange = [ids[row] for row in np.flatnonzero(item == 0).tolist() if named[row] is not None]
    if strange:
        raise CreativeError(
            f"creatives {_some(strange)} belong to items that the catalogue does not have; add the items, or take the "
            "creatives out"
        )
    shelf = make_shelf(columns, item, len(item_ids) - 1)
    counts = np.diff(shelf.first)
    owned = np.flatnonzero(counts > 0)
    approved = np.add.reduceat(shelf.approved, shelf.first[owned]) if len(owned) else np.zeros(0, np.int64)
    if (approved == 0).any():
        bad = [item_ids[i] for i in owned[approved == 0].tolist()]
        raise CreativeError(
            f"items {_some(bad)} have creatives, and none of them is approved; approve one, or take the creatives out"
        )
    if "is_default" in columns:
        flagged = np.asarray([value is True for value in columns["is_default"]], bool)[shelf.source]
        number = np.add.reduceat(flagged, shelf.first[owned]) if len(owned) else approved
        for wrong, what in ((number == 0, "without a default creative"), (number > 1, "with several defaults")):
            if wrong.any():
                bad = [item_ids[i] for i in owned[wrong].tolist()]
                raise CreativeError(f"items {_some(bad)} are {what}; set is_default for one creative of each")
        hidden = owned[~shelf.approved[shelf.first[owned]]]
        if len(hidden):
            bad = [item_ids[i] for i in hidden.tolist()]
            raise CreativeError(f"the default creatives of items {_some(bad)} are not approved; approve them")


def eligible(
    shelf: Shelf, item: np.ndarray, at_us: int, locale: str, of_kind: str = "", channel: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Return the creatives of k items and which of them may be shown: rows [k, n] int64, there [k, n] bool.

    Rows that are not there are 0 where the item has fewer; a set without any has nothing that may be shown.

    Args:
        item: [k] int64 item_index.
        at_us: UTC microseconds of the moment.
        locale: such as `de-AT`; empty suits every creative.
        of_kind, channel: see `choice.CreativePolicy`.
    """
    counts = shelf.first[item + 1] - shelf.first[item]
    place = np.arange(int(counts.max(initial=0)))
    there = place < counts[:, None]
    rows = np.where(there, shelf.first[item][:, None] + place, 0)
    if not rows.size:
        return rows, there
    there &= shelf.approved[rows] & (shelf.until_us[rows] > at_us)
    if of_kind:
        there &= shelf.kind[rows] == of_kind
    if channel:
        there &= (shelf.channel[rows] == channel) | (shelf.channel[rows] == "")
    if locale:
        suits = np.asarray([_suits(tag, _tag(locale)) for tag in shelf.locales])
        local = there & suits[shelf.locale[rows]]
        none = ~local.any(-1)
        # the default, or the next that may be shown at all
        local[none] = there[none] & (np.cumsum(there[none], axis=-1) == 1)
        there = local
    return rows, there


def _suits(tag: str, locale: str) -> bool:
    return not tag or locale == tag or locale.startswith(f"{tag}-")


def _tag(value: Any) -> str:
    return value.strip().replace("_", "-").lower() if isinstance(value, str) else ""


def _texts(values: Sequence[Any] | None, size: int) -> np.ndarray:
    return np.asarray(["" if v is None else str(v) for v in values] if values is not None else [""] * size, object)


def _some(ids: Sequence[Any]) -> str:
    shown = ", ".join(repr(i) for i in ids[:_SHOWN])
    return f"{shown} and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else shown
