"""The events of a folder of tables, folded: in memory here, through files in `stored`, to the same result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from playbill.dataset.counts import DataCounts, count
from playbill.dataset.settings import SplitKind, SplitSettings
from playbill.dataset.splits import Split, split_pool
from playbill.errors import ConfigError
from playbill.features.build import event_codes, facts_of, make_features, times
from playbill.features.encoder import Arrays, encode_fields
from playbill.features.fold import EventPool, fold_table, map_values
from playbill.features.people import People, number_people
from playbill.features.settings import FeatureSettings
from playbill.features.spec import Encoding, FeatureSpec, Field, Side
from playbill.features.vocabulary import Vocabulary
from playbill.tables.schema import TableFolder


@dataclass(slots=True)
class Folded:
    """What becomes of the events table; see `Dataset` for the parts."""

    spec: FeatureSpec
    vocabularies: dict[str, Vocabulary]
    pool: EventPool
    people: People
    context_arrays: Arrays
    split: Split
    counts: DataCounts


def fold_in_memory(
    folder: TableFolder, tables: Mapping[str, pa.Table], features: FeatureSettings, split: SplitSettings
) -> Folded:
    """Return the fold of tables that are in memory, users, items and events.

    Raises:
        FeatureError: the features asked for cannot be had.
        ConfigError: `order_column` is no numeric column of the events table.
    """
    events = tables["events"]
    people, person = number_people(tables.get("users"), events)
    order = None
    if split.order_column is not None:
        check_order(events.schema, split.order_column)
        order = np.asarray(events[split.order_column].cast(pa.float64()).fill_null(float("nan")))
        person = np.where(np.isnan(order), -1, person)
    items = Vocabulary(tables["items"]["item_id"])
    draft = draft_spec(folder, features)
    pool = fold_table(events, person, len(people), draft, items)
    if order is not None:
        pool = _take(pool, np.lexsort((order[pool.source_row], pool.person)))
    elif split.kind is SplitKind.leave_last_out:
        # The fold settles ties by event id, since a stream has no rows. Here a tie decides what is held out, and an id
        # may be made from the item's: "the highest item comes last" would be a pattern of the ids, not of the people.
        pool = _take(pool, np.lexsort((pool.source_row, pool.at, pool.person)))
    parts = split_pool(pool, split)
    if split.kind is SplitKind.global_time:
        known = (person >= 0) & (times(events) < parts.train_until_us)
    else:
        known = np.zeros(events.num_rows, bool)
        known[pool.source_row[parts.part == 0]] = True
    item = items.indices(events["item_id"])
    facts = facts_of(folder, tables, features, known, people, person, item)
    spec, vocabularies = make_features(folder, tables, events.schema, features, facts, items)
    if "value" in events.column_names:
        value = np.asarray(events["value"].cast(pa.float64()).fill_null(float("nan")))
        pool.value = map_values(value[pool.source_row], pool.code, spec)
    rows = pa.array(pool.source_row)
    context = {f.name: events[f.name].take(rows) for f in context_columns(spec)}
    eligible = (person >= 0) & np.asarray(events["item_id"].is_valid())
    eligible &= Vocabulary([e.name for e in draft.events]).indices(events["event"]) > 0
    counts = count(events.num_rows, int((person < 0).sum()), int(eligible.sum()), pool, parts, spec.num_items)
    return Folded(
        spec=spec,
        vocabularies=vocabularies,
        pool=pool,
        people=people,
        context_arrays=encode_fields(context, len(pool), spec.side(Side.CONTEXT), vocabularies),
        split=parts,
        counts=counts,
    )


def draft_spec(folder: TableFolder, features: FeatureSettings) -> FeatureSpec:
    """Return a spec that knows the codes of events alone.

    The split must be known before the spec, which learns from training time alone, and the fold needs the codes of the
    spec: so events are folded first, and their values mapped when the spec is there.
    """
    return FeatureSpec(
        user_id_type="",
        item_id_type="",
        history_length=features.history_length,
        events=event_codes(folder, None, features),
        fields=[],
        num_items=0,
        vocabularies={},
    )


def check_order(events: pa.Schema, name: str) -> None:
    """Raise ConfigError unless a column of the events table can order events."""
    if name not in events.names:
        raise ConfigError(f"order_column {name!r} is not in the events table; it has: {', '.join(events.names)}")
    kind = events.field(name).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise ConfigError(f"order_column {name!r} must be numeric, it is {kind}")


def context_columns(spec: FeatureSpec) -> list[Field]:
    """Return the context fields that are columns of the events table."""
    return [f for f in spec.side(Side.CONTEXT) if f.encoding is not Encoding.CYCLE]


def _take(pool: EventPool, rows: np.ndarray) -> EventPool:
    """Return the pool with the rows of each person in another order; the people's own order must not change."""
    return EventPool(
        item=pool.item[rows],
        code=pool.code[rows],
        value=pool.value[rows],
        at=pool.at[rows],
        person=pool.person[rows],
        offsets=pool.offsets,
        source_row=pool.source_row[rows],
    )
