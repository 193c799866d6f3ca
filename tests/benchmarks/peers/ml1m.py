"""MovieLens-1M as the peers read it, and the figures of their lists. Numpy and pyarrow alone, for every venv."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Rows = dict[str, np.ndarray]  # columns user_id, item_id, at (unix seconds), part


def arguments(given: list[str], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return `defaults` with name=value pairs put in, each as the default's type; an unknown name ends the program."""
    found = dict(defaults)
    for name, _, value in (one.partition("=") for one in given):
        if name not in defaults:
            raise SystemExit(f"no setting {name!r}; settings: {', '.join(defaults)}")
        found[name] = type(defaults[name])(value)
    return found


def leave_last_out(data: str, people: int = 0) -> Rows:
    """Return all rows by person and `sasrec_pos`; part is test for a person's last row, valid for the one before.

    The times never run against that order, which is asserted, since RecTools sorts by time (stable).
    """
    table = pq.read_table(Path(data) / "ml-1m" / "interactions.parquet")
    column = {name: table[name].to_numpy() for name in ("user_id", "item_id", "timestamp", "sasrec_pos")}
    wanted = ~np.isnan(column["sasrec_pos"])
    if people:
        wanted &= column["user_id"] <= np.unique(column["user_id"])[people - 1]
    known = np.flatnonzero(wanted)
    order = known[np.lexsort((column["sasrec_pos"][known], column["user_id"][known]))]
    user, at = column["user_id"][order], column["timestamp"][order]
    next_is_same = np.append(user[1:] == user[:-1], False)
    assert (np.diff(at)[next_is_same[:-1]] >= 0).all()
    last = ~next_is_same
    before = np.append(last[1:], False) & next_is_same
    part = np.where(last, "test", np.where(before, "valid", "train"))
    return {"user_id": user, "item_id": column["item_id"][order], "at": at, "part": part}


def global_split(data: str) -> Rows:
    """Return all rows with their part of the global time split: the earliest 80, next 10 and last 10 % of all time."""
    table = pq.read_table(Path(data) / "ml-1m" / "interactions.parquet")
    names = {"user_id": "user_id", "item_id": "item_id", "at": "timestamp", "part": "split_global"}
    return {ours: np.asarray(table[theirs].to_pylist()) for ours, theirs in names.items()}


def parts(rows: Rows, *names: str) -> Rows:
    """Return the rows of some parts, in their order."""
    kept = np.isin(rows["part"], names)
    return {name: column[kept] for name, column in rows.items()}


def figures(lists: dict[int, list[int]], targets: Rows, k: int) -> dict[str, float]:
    """Return means over all persons with a target; a person without a list scores 0.

    Recall is the share of a person's targets in the first k, hit rate 1 with any of them; NDCG has gains of 1 and is
    divided by that of the best list, min(k, targets) hits on top.
    """
    wanted: dict[int, set[int]] = {}
    for user, item in zip(targets["user_id"].tolist(), targets["item_id"].tolist(), strict=True):
        wanted.setdefault(user, set()).add(item)
    discount = 1 / np.log2(np.arange(2, k + 2))
    recall, ndcg, hit = (np.zeros(len(wanted)) for _ in range(3))
    for row, (user, items) in enumerate(wanted.items()):
        found = np.array([item in items for item in lists.get(user, [])[:k]], dtype=float)
        recall[row], hit[row] = found.sum() / len(items), found.any()
        ndcg[row] = found @ discount[: len(found)] / discount[: len(items)].sum()
    means = {f"recall_at_{k}": recall, f"hit_rate_at_{k}": hit, f"ndcg_at_{k}": ndcg}
    return {name: round(float(values.mean()), 5) for name, values in means.items()} | {"users": len(wanted)}


def write_lists(path: Path, lists: dict[int, list[int]]) -> None:
    """Write one row for each place of each list: user_id, position (0-based), item_id; for paired intervals."""
    user = [user for user, items in lists.items() for _ in items]
    position = [place for items in lists.values() for place in range(len(items))]
    item = [item for items in lists.values() for item in items]
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"user_id": user, "position": pa.array(position, pa.int32()), "item_id": item})
    beside = path.with_suffix(".tmp")
    pq.write_table(table, beside)
    os.replace(beside, path)


def finished(path: Path, settings: dict[str, Any]) -> bool:
    """Return whether `path` holds the result of these very settings, and print it then."""
    if not path.is_file():
        return False
    there = json.loads(path.read_text())
    if there["settings"] == settings:
        print(json.dumps(there | {"up_to_date": True}), flush=True)
    return bool(there["settings"] == settings)


def write_result(path: Path | None, result: dict[str, Any]) -> None:
    """Print a result as one line of json, and write it where a path is given."""
    result = result | {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    print(json.dumps(result), flush=True)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".tmp")
        beside.write_text(json.dumps(result, indent=1) + "\n")
        os.replace(beside, path)


def peak_mib() -> int:
    """Return the most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
