"""The rules that rows are held to: their names, what breaking one does, and how each is checked on a batch."""

from __future__ import annotations

import json
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from playbill.errors import ConfigError
from playbill.tables.ids import Bools, IdSet, valid
from playbill.tables.schema import DECISION_KINDS, Column, EventKind, Kind
from playbill.tables.settings import Action, ValidationSettings


class Rule(msgspec.Struct, frozen=True):
    """One rule: `action` unless the settings say otherwise; `mildest` is as far as they may go.

    A rule whose breach would leave a row that no later room can read may not be turned into a warning.
    """

    name: str
    action: Action
    mildest: Action
    about: str


_R, _Q, _W = Action.reject, Action.quarantine, Action.warn

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        # of a whole file or table
        Rule("missing_table", _R, _R, "the source has no such table, and the contract needs it"),
        Rule("unreadable_file", _R, _R, "a file is empty, truncated or no parquet"),
        Rule("missing_column", _R, _R, "a column that is needed or mapped is not in the file"),
        Rule("impossible_type", _R, _R, "no cell of a column's type can become what the contract asks for"),
        Rule("empty_table", _R, _W, "a table has no row, or none is left after quarantine"),
        Rule("mostly_quarantined", _R, _W, "more of a table is in quarantine than validation.max_quarantined_share"),
        # of a row
        Rule("null_value", _Q, _Q, "nothing in a column that is needed"),
        Rule("wrong_type", _Q, _W, "a cell cannot be read as its column's kind; as a warning it becomes null"),
        Rule("bad_utf8", _Q, _W, "a text is not UTF-8; as a warning it becomes null"),
        Rule("not_finite", _Q, _W, "NaN or infinite in a number; as a warning it becomes null"),
        Rule("nan_feature", _W, _W, "NaN in a feature column, NaN or infinity in a vector: read as null"),
        Rule("too_long", _Q, _W, "a text is longer than validation.max_text_chars, an id than max_id_bytes"),
        Rule("empty_category", _W, _W, "a null among a row's categories: left out of the list"),
        Rule("duplicate_id", _Q, _Q, "an earlier row that was kept has the same id"),
        Rule("no_person", _Q, _W, "an event with neither user_id nor session_id"),
        Rule("unknown_user", _W, _W, "a user_id that is not in users"),
        Rule("unknown_item", _W, _W, "an item_id that is not in items"),
        Rule("unknown_creative", _W, _W, "a creative_id that is not in creatives"),
        Rule("creative_without_item", _Q, _W, "a creative of an item that is not in items"),
        Rule("undeclared_event", _Q, _Q, "an event name that the source does not declare"),
        Rule("value_out_of_range", _Q, _W, "a value outside the range that its event declares"),
        Rule("time_out_of_range", _Q, _W, "before 1970, or further ahead than validation.future_slack_s"),
        Rule("propensity_out_of_range", _Q, _W, "a propensity outside (0, 1]"),
        Rule("bad_position", _Q, _W, "a position that is negative or not whole"),
        Rule("unknown_decision_kind", _Q, _W, f"a decision kind other than {', '.join(DECISION_KINDS)}"),
        Rule("negative_price", _W, _W, "a price below 0"),
        Rule("unknown_timezone", _W, _W, "a timezone that is no IANA name such as Europe/Berlin"),
        Rule("bad_context", _W, _W, "a decision's context that is no JSON object"),
    )
}

_STRENGTH = {_W: 0, _Q: 1, _R: 2}


def actions(settings: ValidationSettings) -> dict[str, Action]:
    """Return the action of every rule.

    Raises:
        ConfigError: an unknown rule name, or an action milder than the rule allows; every such entry is listed.
    """
    wrong = []
    for name, action in settings.actions.items():
        if name not in RULES:
            wrong.append(f"validation.actions.{name}: no such rule; rules: {', '.join(RULES)}")
        elif _STRENGTH[action] < _STRENGTH[RULES[name].mildest]:
            wrong.append(
                f"validation.actions.{name}={action}: the mildest possible is {RULES[name].mildest}, "
                f"for a breach is: {RULES[name].about}"
            )
    if wrong:
        raise ConfigError("\n".join(wrong))
    return {name: settings.actions.get(name, rule.action) for name, rule in RULES.items()}


@dataclass(slots=True)
class Known:
    """What rows are compared with: ids kept so far by table, and the declared events."""

    events: Sequence[EventKind]
    settings: ValidationSettings
    now_us: int
    ids: dict[str, IdSet] = field(default_factory=dict)  # by table; a table that the source lacks is not compared with


Breach = tuple[str, str, str, Bools]  # rule, column, detail, [n] which rows

OWN_ID = {
    "users": "user_id",
    "items": "item_id",
    "creatives": "creative_id",
    "events": "event_id",
    "decisions": "decision_id",
}


def breaches(
    table: str, columns: Sequence[Column], cells: Mapping[str, pa.Array], faulty: Mapping[str, Bools], known: Known
) -> Iterator[Breach]:
    """Yield every rule that rows of a batch break, duplicates excepted (they depend on which rows are kept).

    Args:
        cells: converted columns by name, each [n].
        faulty: [n] by column: cells that conversion found faulty; they are null now and not blamed again for it.
    """
    for column in columns:
        array, bad = cells[column.name], faulty[column.name]
        if column.needed:
            yield "null_value", column.name, "", ~valid(array) & ~bad
        if column.kind is Kind.TEXT:
            limit = known.settings.max_text_chars
            yield "too_long", column.name, f"longer than {limit} characters", _above(pc.utf8_length(array), limit)
        elif column.kind is Kind.ID and pa.types.is_string(array.type):
            limit = known.settings.max_id_bytes
            yield "too_long", column.name, f"longer than {limit} bytes", _above(pc.binary_length(array), limit)
    if table in ("events", "decisions"):
        yield "time_out_of_range", "at", "", _strange_time(cells["at"], known)
    yield from _references(table, cells, known)
    yield from _CHECKS[table](cells, faulty, known)


def _above(lengths: pa.Array, limit: int) -> Bools:
    return _true(pc.greater(lengths, limit))


def _true(array: pa.Array) -> Bools:
    """Return [n] bool of an Arrow boolean array, null as false."""
    result: Bools = pc.fill_null(array, False).to_numpy(zero_copy_only=False).astype(np.bool_)
    return result


def _strange_time(at: pa.Array, known: Known) -> Bools:
    micro = at.cast(pa.int64())
    late = known.now_us + int(known.settings.future_slack_s * 1_000_000)
    return _true(pc.or_(pc.less(micro, 0), pc.greater(micro, late)))


def _references(table: str, cells: Mapping[str, pa.Array], known: Known) -> Iterator[Breach]:
    for other, column, rule in (
        ("users", "user_id", "unknown_user"),
        ("items", "item_id", "creative_without_item" if table == "creatives" else "unknown_item"),
        ("creatives", "creative_id", "unknown_creative"),
    ):
        if other != table and column in cells and other in known.ids:
            ids = cells[column]
            yield rule, column, f"not in {other}", valid(ids) & ~known.ids[other].contains(ids)


def _users(cells: Mapping[str, pa.Array], faulty: Mapping[str, Bools], known: Known) -> Iterator[Breach]:
    if "timezone" in cells and _zones():  # a slim image may lack the database of zones
        zones = pa.array(sorted(_zones()), pa.string())
        strange = ~_true(pc.is_in(cells["timezone"], zones)) & valid(cells["timezone"])
        yield "unknown_timezone", "timezone", "", strange


@cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def _items(cells: Mapping[str, pa.Array], faulty: Mapping[str, Bools], known: Known) -> Iterator[Breach]:
    if "price" in cells:
        yield "negative_price", "price", "", _true(pc.less(cells["price"], 0.0))


def _creatives(cells: Mapping[str, pa.Array], faulty: Mapping[str, Bools], known: Known) -> Iterator[Breach]:
    return iter(())


def _events(cells: Mapping[str, pa.Array], faulty: Mapping[str, Bools], known: Known) -> Iterator[Breach]:
    persons = [name for name in ("user_id", "session_id") if name in cells]
    if persons:
        nobody = np.all([~valid(cells[name]) & ~faulty[name] for name in persons], axis=0)
        yield "no_person", persons[0], "neither user_id nor session_id", nobody
    names = cells["event"]
    declared = pa.array([event.name for event in known.events], pa.string())
    strange = valid(names) & ~_true(pc.is_in(names, declared))
    listed = ", ".join(event.name for event in known.events)
    yield "undeclared_event", "event", f"declared: {listed}", strange
    if "value" not in cells:
        return
    for event in known.events:
        this = pc.equal(names, event.name)
        for bound, outside in ((event.low, pc.less), (event.high, pc.greater)):
            if bound is not None:
                low, high = ("" if b is None else f"{b:g}" for b in (event.low, event.high))
                mask = _true(pc.and_(this, outside(cells["value"], bound)))
                yield "value_out_of_range", "value", f"{event.name} declares {low or '-inf'}..{high or 'inf'}", mask


def _decisions(cells: Mapping[str, pa.Array], faulty: Mapping[str, Bools], known: Known) -> Iterator[Breach]:
    kinds = cells["kind"]
    strange = valid(kinds) & ~_true(pc.is_in(kinds, pa.array(DECISION_KINDS, pa.string())))
    yield "unknown_decision_kind", "kind", f"expected one of {', '.join(DECISION_KINDS)}", strange
    if "propensity" in cells:
        p = cells["propensity"]
        yield "propensity_out_of_range", "propensity", "", _true(pc.or_(pc.less_equal(p, 0.0), pc.greater(p, 1.0)))
    if "position" in cells:
        position = cells["position"]
        yield (
            "bad_position",
            "position",
            "expected 0, 1, 2, ...",
            _true(pc.or_(pc.less(position, 0.0), pc.not_equal(pc.floor(position), position))),
        )
    if "context" in cells:
        yield (
            "bad_context",
            "context",
            "",
            np.array([not _json_object(t) for t in cells["context"].to_pylist()], np.bool_),
        )


def _json_object(text: str | None) -> bool:
    if text is None:
        return True
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


_CHECKS = {"users": _users, "items": _items, "creatives": _creatives, "events": _events, "decisions": _decisions}
