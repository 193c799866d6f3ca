"""Assignments of many people: dealt with numpy as `assignment.py` deals them one by one, and as rows of `decisions`.

An assignment is a decision of kind `experiment_arm`: request_id is the experiment, chosen the arm, propensity the share
of the experiment's people planned for that arm. `experiments.assignment.read_assignment` reads and checks such rows.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from playbill.chance import mix64
from playbill.errors import MeasureError
from playbill.measure.assignment import (
    BUCKETS,
    GOLDEN,
    Experiment,
    Layer,
    Plan,
    held_out,
    key_of,
    layer_salt,
)

KIND = "experiment_arm"
_AT_ONCE = 1 << 16  # ids mixed at a time: the working arrays stay in the cache


def hash_ids(ids: np.ndarray | pa.Array | Sequence[int] | Sequence[str]) -> np.ndarray:
    """Return [N] uint64, the hash of each id, equal to `assignment.hash_id`.

    Args:
        ids: [N] int64 or str.
    Raises:
        MeasureError: ids of another kind, or ids that are missing.
    """
    array = _arrow(ids)
    if array.null_count:
        rows = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))
        raise MeasureError(f"user_id: {len(rows):,} of {len(array):,} are missing, first in rows {rows[:5].tolist()}")
    if pa.types.is_integer(array.type) and array.type != pa.uint64():
        return mix64(array.to_numpy().astype(np.int64).view(np.uint64) + np.uint64(GOLDEN))
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        raise MeasureError(f"ids must be int64 or strings, got {array.type}")
    digests = b"".join(hashlib.blake2b(i.encode(), digest_size=8).digest() for i in array.to_pylist())
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def buckets(hashes: np.ndarray, salt: str) -> np.ndarray:
    """Return [N] int32, the bucket 0..999,999 of each hash under a salt, equal to `assignment.bucket_of`."""
    a, b = (np.uint64(half) for half in key_of(salt))
    out = np.empty(len(hashes), np.int32)
    for low in range(0, len(hashes), _AT_ONCE):
        part = slice(low, low + _AT_ONCE)
        mixed = mix64(mix64(hashes[part] ^ a) + b)
        mixed >>= np.uint64(32)
        mixed *= np.uint64(BUCKETS)
        mixed >>= np.uint64(32)
        out[part] = mixed
    return out


def arms_of(plan: Plan, experiment: str, hashes: np.ndarray) -> np.ndarray:
    """Return [N] int16: row of the arm in `arm_names(plan, experiment)`, -1 for whoever is not in the experiment.

    Raises:
        MeasureError: the plan has no such experiment.
    """
    part, found = _find(plan, experiment)
    inside = buckets(hashes, plan.holdout_salt) >= held_out(plan)
    traffic = [(s.low, s.high) for s in part.traffic if s.name == experiment]
    if traffic != [(0, BUCKETS)]:
        inside &= _owned(buckets(hashes, layer_salt(part)), traffic)
    drawn = buckets(hashes, found.salt or found.name)
    arm = np.full(len(hashes), -1, np.int16)
    for row, name in enumerate(arm_names(plan, experiment)):
        arm[inside & _owned(drawn, [(s.low, s.high) for s in found.arms if s.name == name])] = row
    return arm


def arm_names(plan: Plan, experiment: str) -> list[str]:
    """Return the arms of an experiment in the order in which `arms_of` counts them: that of their first buckets."""
    return list(dict.fromkeys(s.name for s in _find(plan, experiment)[1].arms))


def planned_shares(plan: Plan, experiment: str) -> list[float]:
    """Return the share of the experiment's people planned for each of `arm_names`."""
    arms = _find(plan, experiment)[1].arms
    width = {name: sum(s.high - s.low for s in arms if s.name == name) for name in arm_names(plan, experiment)}
    return [w / sum(width.values()) for w in width.values()]


def decision_rows(plan: Plan, experiment: str, user_ids: np.ndarray | pa.Array, at: np.ndarray) -> pa.Table:
    """Return the `decisions` rows of everybody who is in an experiment.

    Args:
        user_ids: [N] int64 or str; each person once.
        at: [N] (or one) datetime64 or int64 microseconds since 1970 UTC: when the person was first decided upon.
    Returns:
        Columns decision_id, request_id, kind, chosen, at, user_id, propensity, policy; decision_id is
        "experiment/user", the same whenever it is written.
    Raises:
        MeasureError: no such experiment, or a person given twice.
    """
    ids = _arrow(user_ids)
    arm = arms_of(plan, experiment, hash_ids(ids))
    inside = arm >= 0
    who = ids.filter(pa.array(inside))
    _refuse_repeated(who)
    names, shares = arm_names(plan, experiment), planned_shares(plan, experiment)
    when = np.broadcast_to(np.asarray(at), len(ids))[inside]
    when_us = when.astype("datetime64[us]") if when.dtype.kind == "M" else when.astype(np.int64).view("datetime64[us]")
    text = who.cast(pa.string())
    return pa.table(
        {
            "decision_id": pc.binary_join_element_wise(pa.scalar(experiment), text, "/"),
            "request_id": pa.repeat(experiment, len(who)),
            "kind": pa.repeat(KIND, len(who)),
            "chosen": pa.array(np.array(names, object)[arm[inside]], pa.string()),
            "at": pa.array(when_us, pa.timestamp("us", tz="UTC")),
            "user_id": who,
            "propensity": pa.array(np.array(shares)[arm[inside]]),
            "policy": pa.repeat("assignment", len(who)),
        }
    )


def _find(plan: Plan, experiment: str) -> tuple[Layer, Experiment]:
    for part in plan.layers:
        for found in part.experiments:
            if found.name == experiment:
                return part, found
    there = [e.name for part in plan.layers for e in part.experiments]
    near = (
        f"nearest is {difflib.get_close_matches(experiment, there, n=1, cutoff=0.0)[0]!r}" if there else "it has none"
    )
    raise MeasureError(f"the plan has no experiment {experiment!r}; {near}")


def _owned(drawn: np.ndarray, ranges: Sequence[tuple[int, int]]) -> np.ndarray:
    mine = np.zeros(len(drawn), bool)
    for low, high in ranges:
        mine |= (drawn >= low) & (drawn < high)
    return mine


def _arrow(ids: Any) -> pa.Array:
    if isinstance(ids, pa.ChunkedArray):
        return ids.combine_chunks()
    try:
        return ids if isinstance(ids, pa.Array) else pa.array(ids)
    except (pa.ArrowException, OverflowError) as error:
        raise MeasureError(f"ids must all be int64 or all strings: {error}") from error


def _refuse_repeated(ids: pa.Array) -> None:
    counted = ids.value_counts()
    often = counted.field("counts").to_numpy() > 1
    if often.any():
        some = ", ".join(map(repr, counted.field("values").filter(pa.array(often)).to_pylist()[:5]))
        raise MeasureError(
            f"user_id: {often.sum():,} people stand in the list more than once, first {some}; give each once"
        )
