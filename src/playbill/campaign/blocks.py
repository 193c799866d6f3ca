"""The items of a message: slates of the engine that answers online, one block after the other.

What stands in one block is excluded from the next, with whatever the person did something with in the block's novelty
window, and what they bought lately.
"""

from __future__ import annotations

from typing import Any

import msgspec

from playbill.campaign.draws import digest
from playbill.campaign.restraint import TOO_FEW, TOO_LONG
from playbill.campaign.settings import Block, Campaign
from playbill.engine.engine import Engine
from playbill.engine.profile import PURPOSE
from playbill.engine.suppression import suppressed
from playbill.engine.types import MAX_EXCLUDE, Request, Slate
from playbill.errors import RequestError
from playbill.features.fold import Profile
from playbill.state.decisions import Decision
from playbill.tables.consent import allowed

COLUMNS = (
    "request_id", "items", "titles", "scores", "propensities", "creatives", "creative_propensities", "reasons", "rung",
)  # fmt: skip
Id = int | str


def put_blocks(
    campaign: Campaign, engine: Engine, rows: list[dict[str, Any]], profiles: list[Profile], at: int
) -> list[Decision]:
    """Put every block's columns into the rows of n recipients; return the choices of creatives of whoever keeps theirs.

    A row whose `reason` is not empty afterwards is not sent.

    Args:
        rows: with `user_id` and an empty `reason`.
        profiles: [n], what the store knows of them.
        at: UTC microseconds.
    Raises:
        RequestError: a block does not fit the bundle; names its field.
    """
    shown: list[list[Id]] = [[] for _ in rows]
    decisions: list[Decision] = []
    for number, block in enumerate(campaign.blocks):
        requests, asked = [], []
        for place, (row, profile) in enumerate(zip(rows, profiles, strict=True)):
            exclude = list(dict.fromkeys([*shown[place], *_hidden(campaign, block, engine, profile, at)]))
            if len(exclude) > MAX_EXCLUDE:
                row["reason"] = row["reason"] or TOO_LONG
            if not row["reason"]:
                asked.append(place)
                requests.append(_request(campaign, block, row["user_id"], exclude, at))
        try:
            slates, chosen = engine.decide(requests)
        except RequestError as error:
            raise RequestError(f"blocks[{number}].{error.field}", error.reason) from None
        decisions += chosen
        for place, slate in zip(asked, slates, strict=True):
            _put_slate(block, rows[place], slate)
            shown[place] += [item.item_id for item in slate.items]
    held = {row.get(f"{block.name}_request_id") for row in rows if row["reason"] for block in campaign.blocks}
    return [decision for decision in decisions if decision.request_id not in held]


def _request(campaign: Campaign, block: Block, user_id: Id, exclude: list[Id], at: int) -> Request:
    name = digest(campaign, f"block {block.name}", user_id).hex()
    return Request(
        user_id=user_id, request_id=name, k=block.k, surface=block.surface, exclude=exclude, filter=block.filter, at=at
    )


def _hidden(campaign: Campaign, block: Block, engine: Engine, profile: Profile, at: int) -> list[Id]:
    """Return what a block does not show of what the person did; of whom nothing may be known, nothing is."""
    spec = engine.bundle.spec
    if not allowed(profile.features, PURPOSE, spec.purposes):
        return []
    days: dict[str, float | None] = {event.name: block.novelty_days for event in spec.events}
    for event in campaign.bought_events:
        days[event] = max(block.novelty_days, campaign.bought_days)
    return suppressed(days, profile.history, profile.seen, profile.num_events, at)


def _put_slate(block: Block, row: dict[str, Any], slate: Slate) -> None:
    items = slate.items
    if len(items) < block.least:
        row["reason"] = TOO_FEW
    values: tuple[Any, ...] = (
        slate.request_id,
        [item.item_id for item in items],
        [item.title for item in items],
        [item.score for item in items],
        [item.propensity for item in items],
        [item.creative_id for item in items],
        [None if isinstance(i.creative_propensity, msgspec.UnsetType) else i.creative_propensity for i in items],
        [item.reason.text for item in items],
        slate.rung,
    )
    row.update({f"{block.name}_{name}": value for name, value in zip(COLUMNS, values, strict=True)})
    row["bundle"], row["policy"], row["state_version"] = slate.bundle, slate.policy, slate.state_version
