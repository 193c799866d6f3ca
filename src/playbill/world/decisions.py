"""The decisions table: what was chosen, with which probability, and out of what.

`policy` is the name of the logging policy: `softmax` on the page, `mail:softmax` in a mail. A mail's hero picture is a
decision of kind `creative`, as a page's artwork is; the label tells them apart, and no question takes both for one:
`playbill measure question=off_policy question.kind=creative question.policy=epsilon-greedy` takes the page's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from playbill.tables.schema import DECISION_KINDS
from playbill.world.identifiers import SLOTS
from playbill.world.settings import PolicyKind
from playbill.world.writing import Writer

Array = np.ndarray[Any, Any]

MAIL_POLICY = "mail:"
"""Stands before the policy's name in every decision about a mail."""
_PAGE_POLICIES = [str(kind) for kind in PolicyKind]
_POLICIES = [*_PAGE_POLICIES, *(MAIL_POLICY + name for name in (*_PAGE_POLICIES, "holdout"))]


@dataclass(slots=True)
class Choices:
    """Decisions of one kind; arrays [n].

    Attributes:
        kind: item, creative, subject, send_hour, offer or hold.
        policy: name as it is written.
        slot: int64 within the request, or one number for all.
        chosen: Arrow strings.
        position: int64, or None for decisions outside of a slate.
        propensity: float64.
        eligible_count: int64, or one number for all.
        context: Arrow strings of json objects, or None.
    """

    kind: str
    policy: str
    person: Array
    session: bool
    request: Array
    slot: Array | int
    chosen: pa.Array
    at_us: Array
    position: Array | None
    propensity: Array
    eligible_count: Array | int
    context: pa.Array | None


def choices_table(choices: Choices, anonymous: Array, schema: pa.Schema) -> pa.Table:
    """Return the rows as a table of the decisions' schema.

    Args:
        anonymous: [P] bool, whose user_id is not written.
        schema: of the writer.
    """
    n = len(choices.person)
    nobody = anonymous[choices.person]
    arrays: dict[str, Any] = {
        "decision_id": pa.array(choices.request * SLOTS + choices.slot),
        "request_id": pa.array(choices.request),
        "kind": _word(choices.kind, DECISION_KINDS, n),
        "chosen": choices.chosen,
        "at": pa.array(choices.at_us).cast(pa.timestamp("us", tz="UTC")),
        "user_id": pa.array(choices.person + 1, mask=nobody),
        "session_id": pa.array(choices.request) if choices.session else pa.nulls(n, pa.int64()),
        "position": pa.nulls(n, pa.float64()) if choices.position is None else pa.array(choices.position * 1.0),
        "propensity": pa.array(choices.propensity),
        "policy": _word(choices.policy, _POLICIES, n),
        "eligible_count": pa.array(np.broadcast_to(np.asarray(choices.eligible_count, np.float64), (n,))),
        "context": pa.nulls(n, pa.string()) if choices.context is None else choices.context,
    }
    return pa.table([arrays[name] for name in schema.names], schema=schema)


def write_day(writer: Writer, tables: Sequence[pa.Table]) -> None:
    """Write one day's decisions in the order of time and id, whatever order they come in."""
    if not tables:
        return
    whole = pa.concat_tables(tables)
    ids, at = whole["decision_id"].to_numpy(), whole["at"].cast(pa.int64()).to_numpy()
    writer.write(whole.take(pa.array(np.lexsort((ids, at)))))


def context(parts: Mapping[str, pa.Array | str], eligible: Sequence[pa.Array] | str) -> pa.Array:
    """Return [n] json objects as text: `{"eligible": [...], name: value, ...}`.

    Args:
        parts: json values by name, as Arrow strings or as one text for all.
        eligible: the candidates, one Arrow array of json values for each place, null where there is none; or the
            inside of the list as one text for all.
    """
    pieces: list[Any] = ['{"eligible":[']
    if isinstance(eligible, str):
        pieces.append(eligible)
    else:
        pieces.append(pc.binary_join_element_wise(*eligible, ",", null_handling="skip"))
    pieces.append("]")
    for name, value in parts.items():
        pieces += [f',"{name}":', value]
    pieces.append("}")
    return pc.binary_join_element_wise(*pieces, "", null_handling="emit_null")


def texts(numbers: Array) -> pa.Array:
    """Return whole numbers as Arrow strings."""
    return pa.array(numbers).cast(pa.string())


def named(names: Sequence[str], index: Array) -> pa.Array:
    """Return names[index] as Arrow strings."""
    return pa.array(list(names), pa.string()).take(pa.array(index))


def _word(word: str, words: Sequence[str], n: int) -> pa.DictionaryArray:
    index = pa.array(np.full(n, list(words).index(word), np.int32))
    return pa.DictionaryArray.from_arrays(index, pa.array(list(words), pa.string()))
