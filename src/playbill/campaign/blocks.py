"""The items of a message: from the engine that answers online, one block after the other.

What stands in one block is left out of the next, with whatever the person did something with in the block's novelty
window, and what they bought lately. Blocks that follow each other on one surface with one window come out of one
retrieval and one ranking where the surface allows it (`engine.bulk`), for hundreds of people at once; everybody else's
are slates of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import msgspec
import numpy as np
import polars as pl

from playbill.bundle.open import Bundle, item_kinds
from playbill.bundle.pages import Form
from playbill.bundle.policy import BUILT_IN
from playbill.campaign.draws import digest
from playbill.campaign.restraint import TOO_FEW, TOO_LONG, Contact
from playbill.campaign.sensitive import apart, condition
from playbill.campaign.settings import Block, Campaign
from playbill.engine.bulk import Ask, Bulk, List, Lists
from playbill.engine.engine import Engine
from playbill.engine.profile import PURPOSE
from playbill.engine.suppression import suppressed
from playbill.engine.types import MAX_EXCLUDE, MAX_K, Request, Slate
from playbill.errors import ConfigError, FilterError, RequestError
from playbill.features.fold import Profile
from playbill.filters.check import parse
from playbill.tables.consent import allowed

COLUMNS = (
    "request_id", "items", "titles", "scores", "propensities", "eligible_count", "creatives", "creative_propensities",
    "creative_counts", "reasons", "rung",
)  # fmt: skip
STAMPS = ("bundle", "policy", "state_version")
TOGETHER = 1_024  # people in one call: more make a call's own cost no smaller
Id = int | str


@dataclass(frozen=True, slots=True)
class Blocks:
    """What n recipients get.

    Attributes:
        reason: [n], why one cannot be sent after all; "" for the others.
        columns: [n] rows, `<block>_<name of COLUMNS>` for each block, and STAMPS; null where nothing was asked.
    """

    reason: list[str]
    columns: pl.DataFrame


def make_blocks(
    campaign: Campaign,
    engine: Engine,
    users: pl.DataFrame,
    user_ids: Sequence[Id],
    profiles: Sequence[Profile],
    at: int,
    given: Sequence[list[Id]] | None = None,
) -> Blocks:
    """Return every block of n recipients.

    Args:
        users: [n], their rows of the users table.
        profiles: [n], what the store knows of them.
        at: UTC microseconds.
        given: [n], each one's own items, for blocks that put a list in order; None: nobody has any.
    Raises:
        RequestError: a block does not fit the bundle; names its field.
        ConfigError: see `sensitive.apart`.
    """
    reason = [""] * len(user_ids)
    rows, frames = [np.zeros(0, np.int64)], [pl.DataFrame(schema=block_schema(campaign, engine))]
    for theirs, places in apart(campaign, users, [profile.features for profile in profiles]):
        mine = places.tolist()
        own = [[] if given is None else given[place] for place in mine]
        made = _make(theirs, engine, [user_ids[place] for place in mine], [profiles[place] for place in mine], at, own)
        for place, why in zip(mine, made.reason, strict=True):
            reason[place] = why
        rows.append(places)
        frames.append(made.columns.select(frames[0].columns).cast(frames[0].schema))
    return Blocks(reason, pl.concat(frames)[np.argsort(np.concatenate(rows))])


def given_to(contact: Contact, user_ids: Sequence[Id]) -> list[list[Id]] | None:
    """Return the items that the audience gives each of n recipients; None where it gives nobody any."""
    if contact.given is None:
        return None
    lists = dict(contact.given.select("user_id", "items").iter_rows())
    return [lists.get(user, []) for user in user_ids]


def _make(
    campaign: Campaign,
    engine: Engine,
    user_ids: Sequence[Id],
    profiles: Sequence[Profile],
    at: int,
    given: Sequence[list[Id]],
) -> Blocks:
    """Return every block of n recipients from whom the same is kept."""
    bulk, size, schema = Bulk(engine), len(user_ids), block_schema(campaign, engine)
    reason = [""] * size
    shown: list[list[Id]] = [[] for _ in range(size)]
    frames: dict[str, list[pl.DataFrame]] = {block.name: [] for block in campaign.blocks}
    groups = [list(blocks) for _, blocks in groupby(campaign.blocks, key=lambda b: (b.surface, b.novelty_days))]
    for group in groups:
        hidden = _hidden(campaign, group[0], engine, profiles, at)
        left = [place for place in range(size) if not reason[place]]
        if not campaign.reasons and not bulk.unfit(group[0].surface):
            done: set[int] = set()
            for low in range(0, len(left), TOGETHER):
                some = left[low : low + TOGETHER]
                exclude = [[*shown[place], *hidden[place]] for place in some]
                for name, frame in _together(campaign, bulk, group, some, user_ids, profiles, exclude, at):
                    other: dict[str, Any] = {c: schema[c] for c, k in frame.schema.items() if schema.get(c, k) != k}
                    frames[name].append(frame.cast(other) if other else frame)  # type: ignore[arg-type]  # a schema
                    answered, items = frame["row"].to_list(), frame[f"{name}_items"].to_list()
                    for place, mine in zip(answered, items, strict=True):
                        shown[place] += mine
                    done.update(answered)
            left = [place for place in left if place not in done]
        for block in group:
            rows = _one_by_one(campaign, engine, block, left, user_ids, shown, hidden, reason, at, given)
            mine = {"row": pl.Int64, **{c: schema[c] for c in (*_names(block), *STAMPS)}}
            frames[block.name].append(pl.DataFrame(rows, mine, orient="row"))
            left = [place for place in left if not reason[place]]
    whole = pl.DataFrame({"row": pl.Series(range(size), dtype=pl.Int64)})
    for name, parts in frames.items():
        stamped = [c for c in STAMPS if c not in whole.columns]
        columns = ["row", *(f"{name}_{c}" for c in COLUMNS), *stamped]
        block_rows = pl.concat([part.select(columns) for part in parts]).sort("row")
        if len(block_rows) == size:  # nobody fell out before this block
            whole = whole.hstack(block_rows.drop("row"))
        else:
            whole = whole.join(block_rows, on="row", how="left", maintain_order="left")
    return Blocks(reason, whole.drop("row"))


def check_blocks(campaign: Campaign, bundle: Bundle) -> None:
    """Do nothing where a bundle can answer every block.

    Raises:
        ConfigError: names the block's field.
    """
    known = item_kinds(bundle.items)
    named = [(f"blocks[{at}].filter", block.filter) for at, block in enumerate(campaign.blocks)]
    kept = [(f"sensitive[{at}].filter", kind.filter) for at, kind in enumerate(campaign.sensitive)]
    for path, text in [*kept, *named]:
        try:
            _ = text is None or parse(text, known)
        except FilterError as error:
            raise ConfigError(f"campaign.{path}: {error}") from error
    for at, block in enumerate(campaign.blocks):
        if bundle.policy.known(block.surface) != block.surface:
            there = ", ".join(sorted({*bundle.policy.surfaces, *BUILT_IN}))
            raise ConfigError(f"campaign.blocks[{at}].surface: no surface {block.surface!r}; there are {there}")
        form = bundle.policy.surface(block.surface).answers
        if form not in (Form.SLATE, Form.TRENDING, Form.RERANK):
            raise ConfigError(
                f"campaign.blocks[{at}].surface: {block.surface!r} is of the form {form.value}; a block is a slate, "
                "what is trending, or a list that the audience gives, in order"
            )
        if form is Form.RERANK and campaign.audience.items is None:
            raise ConfigError(
                f"campaign.blocks[{at}].surface: {block.surface!r} puts a given list in order, and audience.items "
                "names no column that holds one"
            )


def block_schema(campaign: Campaign, engine: Engine) -> dict[str, Any]:
    """Return the type of every block's columns, and of STAMPS."""
    bundle = engine.bundle
    item = pl.String if bundle.spec.item_id_type == "string" else pl.Int64
    ids = [] if bundle.creatives is None else bundle.creatives.columns["creative_id"]
    creative = pl.String if ids and isinstance(ids[0], str) else pl.Int64  # a column is of one kind
    numbers = pl.List(pl.Float64)
    kinds = (pl.String, pl.List(item), pl.List(pl.String), numbers, numbers, pl.Int64, pl.List(creative), numbers,
             pl.List(pl.Int64), pl.List(pl.String), pl.String)  # fmt: skip
    found: dict[str, Any] = {}
    for block in campaign.blocks:
        found |= dict(zip(_names(block), kinds, strict=True))
    return found | dict(zip(STAMPS, (pl.String, pl.String, pl.Int64), strict=True))


def _names(block: Block) -> list[str]:
    return [f"{block.name}_{name}" for name in COLUMNS]


def _together(
    campaign: Campaign,
    bulk: Bulk,
    group: Sequence[Block],
    places: Sequence[int],
    user_ids: Sequence[Id],
    profiles: Sequence[Profile],
    exclude: Sequence[list[Id]],
    at: int,
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield each block's name and the rows of those who could be answered together."""
    keys = [[digest(campaign, f"block {block.name}", user_ids[p]).hex() for p in places] for block in group]
    requests = [
        Request(user_id=user_ids[place], request_id=key, surface=group[0].surface, exclude=mine, at=at)
        for place, key, mine in zip(places, keys[0], exclude, strict=True)
    ]
    asked = [
        Ask(k=block.k, request_ids=mine, filter=condition(campaign, block))
        for block, mine in zip(group, keys, strict=True)
    ]
    try:
        found = bulk.lists_of(requests, asked, [profiles[place] for place in places])
    except RequestError as error:
        raise _of_block(campaign, group[0], error) from None
    done = np.flatnonzero(found.done)
    if not len(done):
        return
    for block, made, mine in zip(group, found.lists, keys, strict=True):
        columns = {
            "row": np.asarray(places)[done],
            **dict(zip(_names(block), _columns(made, found, done, [mine[i] for i in done.tolist()]), strict=True)),
            "bundle": [bulk.engine.bundle.version] * len(done),
            "policy": [bulk.engine.policy_name] * len(done),
            "state_version": [found.state_version] * len(done),
        }
        yield block.name, pl.DataFrame(columns)


def _columns(made: List, found: Lists, done: np.ndarray, request_ids: list[str]) -> tuple[Any, ...]:
    """Return the columns of one block, in the order of COLUMNS."""
    catalogue, shape = found.stock.catalogue, made.item[done].shape
    item, creative = made.item[done].ravel().tolist(), made.creative[done].ravel().tolist()

    def wide(values: Any, kind: Any = None) -> pl.Series:
        series = values if isinstance(values, pl.Series) else pl.Series(values, dtype=kind)
        return series.reshape(shape).arr.to_list()

    chances = made.creative_propensity[done].ravel()
    return (
        request_ids,
        wide([catalogue.ids[index] for index in item]),
        wide([catalogue.titles[index] for index in item], pl.String),
        wide(made.score[done].ravel()),
        wide(made.propensity[done].ravel()),
        made.eligible[done],
        wide([None if row < 0 else found.creative_ids[row] for row in creative]),
        wide(pl.Series(chances, nan_to_null=True)),
        wide(made.creatives[done].ravel()),
        [None] * len(done),
        [found.rung[i] for i in done.tolist()],
    )


def _one_by_one(
    campaign: Campaign,
    engine: Engine,
    block: Block,
    places: Sequence[int],
    user_ids: Sequence[Id],
    shown: list[list[Id]],
    hidden: Sequence[list[Id]],
    reason: list[str],
    at: int,
    given: Sequence[list[Id]],
) -> list[dict[str, Any]]:
    """Return a block's rows of some people, each a slate of its own; note what is shown, and who cannot be sent."""
    asked, requests, rows = [], [], list[dict[str, Any]]()
    ordered = engine.bundle.policy.surface(block.surface).answers is Form.RERANK
    for place in places:
        # of a long list the first, which the audience puts there as the latest
        own = list(dict.fromkeys(given[place]))[:MAX_K] if ordered else []
        if ordered and not own:
            if block.least:
                reason[place] = TOO_FEW
            rows.append(_no_items(block, place, engine))
            continue
        exclude = list(dict.fromkeys([*shown[place], *hidden[place]]))
        if len(exclude) > MAX_EXCLUDE:
            reason[place] = TOO_LONG
            continue
        asked.append(place)
        requests.append(
            Request(
                user_id=user_ids[place],
                request_id=digest(campaign, f"block {block.name}", user_ids[place]).hex(),
                k=block.k,
                surface=block.surface,
                exclude=exclude,
                items=own,
                filter=condition(campaign, block),
                at=at,
            )
        )
    try:
        slates, decisions = engine.decide(requests)
    except RequestError as error:
        raise _of_block(campaign, block, error) from None
    counts = {(d.request_id, d.position): len(d.eligible) for d in decisions}
    for place, slate in zip(asked, slates, strict=True):
        slate.items = slate.items[: block.k]  # a list that is put in order comes back whole
        if len(slate.items) < block.least:
            reason[place] = TOO_FEW
        shown[place] += [item.item_id for item in slate.items]
        rows.append(_row(block, place, slate, counts, campaign.reasons))
    return rows


def _row(
    block: Block, place: int, slate: Slate, counts: Mapping[tuple[str, int], int], reasons: bool
) -> dict[str, Any]:
    """Return one row; `counts` are of creatives that might have been shown, by request and position."""
    items = slate.items
    known = [not isinstance(item.creative_propensity, msgspec.UnsetType) for item in items]
    values: tuple[Any, ...] = (
        slate.request_id,
        [item.item_id for item in items],
        [item.title for item in items],
        [item.score for item in items],
        [item.propensity for item in items],
        slate.eligible_count,
        [item.creative_id if there else None for item, there in zip(items, known, strict=True)],
        [item.creative_propensity if there else None for item, there in zip(items, known, strict=True)],
        [counts.get((slate.request_id, item.position), 0) for item in items],
        [item.reason.text for item in items] if reasons else None,
        slate.rung,
    )
    stamps = (slate.bundle, slate.policy, slate.state_version)
    return {"row": place, **dict(zip((*_names(block), *STAMPS), (*values, *stamps), strict=True))}


def _no_items(block: Block, place: int, engine: Engine) -> dict[str, Any]:
    """Return the row of somebody whom the audience gives none."""
    values: tuple[Any, ...] = (None, [], [], [], [], 0, [], [], [], None, None)
    stamps = (engine.bundle.version, engine.policy_name, None)
    return {"row": place, **dict(zip((*_names(block), *STAMPS), (*values, *stamps), strict=True))}


def _of_block(campaign: Campaign, block: Block, error: RequestError) -> RequestError:
    return RequestError(f"blocks[{campaign.blocks.index(block)}].{error.field}", error.reason)


def _hidden(campaign: Campaign, block: Block, engine: Engine, profiles: Sequence[Profile], at: int) -> list[list[Id]]:
    """Return what a block does not show of what each person did; of whom nothing may be known, nothing is."""
    spec = engine.bundle.spec
    days: dict[str, float | None] = {event.name: block.novelty_days for event in spec.events}
    for event in campaign.bought_events:
        days[event] = max(block.novelty_days, campaign.bought_days)
    purposes = list(spec.purposes)
    return [
        suppressed(days, profile.history, profile.seen, profile.num_events, at)
        if allowed(profile.features, PURPOSE, purposes)
        else []
        for profile in profiles
    ]
