"""Saved scores of one member: what a blend is fitted on. Any model can join, ours or a peer's, by writing this folder.

    <folder>/member.json     what it is and, for each part asked about, what it had learned from
    <folder>/valid.parquet   its best items for the people asked about the validation part
    <folder>/test.parquet    likewise for the test part; optional

Columns of the parquet files, one row an item of a person's list, in any order:

    user_id      as in the tables; null for a session that belongs to nobody known
    session_id   only where the tables have such sessions; null otherwise
    item_id      as in the tables; null in a single row of a person to whom it has nothing to say
    score        number, higher is better; any scale, the same for a person's whole list

Everybody who is asked about the part must have a row, others may. Items that a person had before the part are passed
over. What is not listed counts as standing right below the list, so 200 to 500 items a person are plenty.

member.json: {"name": ..., "tables_fingerprint": ..., "split": {...}, "learned": {"valid": {"parts": ["train"]}, "test":
{"parts": ["train", "valid"]}}}; the first two fields that tell one log from another are printed by `playbill blend`
when they are wrong. In place of `parts` stands `until_us`, the first moment (UTC microseconds) that was not learned
from, where the split is one moment for everybody.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from playbill.blend.lists import Lists
from playbill.errors import BlendError, FeatureError
from playbill.features.vocabulary import Vocabulary
from playbill.tables.files import atomic_folder

FORMAT_VERSION = 1
PARTS = ("train", "valid", "test")


class Learned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a member had learned from when it gave its scores for one part.

    Attributes:
        parts: of train, valid, test.
        until_us: first moment (UTC microseconds) that it had not learned from, instead of or beside `parts`.
        chosen_on: parts by which its settings were picked or its training was stopped; told in the report.
    """

    parts: list[str] = []
    until_us: int | None = None
    chosen_on: list[str] = []


class Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`member.json`.

    Attributes:
        name: by which blends know it; one of the engine's retrievers (`tower`, `item_knn`, ...), or any other name,
            whose blend can be measured but not served.
        about: what it is, for the report.
        tables_fingerprint: of the tables, as `tables.json` has it.
        split: as in the settings of a training: kind, train, valid, order_column.
        learned: by part asked about.
        made_of: for members that Playbill scored itself: a hash of all that the scores follow from.
    """

    format_version: int = FORMAT_VERSION
    name: str
    about: str = ""
    tables_fingerprint: str
    split: dict[str, Any]
    learned: dict[str, Learned]
    made_of: str = ""


@dataclass(slots=True)
class Who:
    """The people asked about one part.

    Attributes:
        user_ids, session_ids: [U], one of the two is None for each.
        had_indptr, had_item: CSR of the items that each had before.
    """

    user_ids: list[Any]
    session_ids: list[Any]
    had_indptr: np.ndarray
    had_item: np.ndarray

    def __len__(self) -> int:
        return len(self.user_ids)

    def names(self) -> list[str]:
        """Return [U], how to speak of each."""
        both = zip(self.user_ids, self.session_ids, strict=True)
        return [f"user {user!r}" if user is not None else f"session {visit!r}" for user, visit in both]


def write_member(
    path: Path | str, member: Member, lists: Mapping[str, Lists], asked: Mapping[str, Who], items: Vocabulary
) -> None:
    """Write a member's folder, whole or not at all.

    Args:
        lists: by part; those of the people in `asked`, in order.
        items: item ids by item_index.
    """
    with atomic_folder(path) as folder:
        (folder / "member.json").write_bytes(msgspec.json.format(msgspec.json.encode(member), indent=1) + b"\n")
        for part, found in lists.items():
            pq.write_table(_table(found, asked[part], items), folder / f"{part}.parquet", compression="zstd")


def read_member(path: Path | str) -> Member:
    """Return what a folder of scores says of itself.

    Raises:
        BlendError: no such folder, or its member.json is damaged or lacks a field; names file and field.
    """
    file = Path(path) / "member.json"
    try:
        member = msgspec.json.decode(file.read_bytes(), type=Member)
    except FileNotFoundError:
        raise BlendError(f"{file} is missing: a folder of scores says in it what the member learned from") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, OSError) as error:
        raise BlendError(f"{file}: {error}; its fields are described in src/playbill/blend/scores.py") from None
    if member.format_version > FORMAT_VERSION:
        raise BlendError(f"{file}: format {member.format_version}, this Playbill reads {FORMAT_VERSION}; upgrade it")
    if not member.name.replace("_", "").replace("-", "").replace(".", "").isalnum():
        raise BlendError(f"{file}: name must be of letters, digits, '_', '-' and '.', got {member.name!r}")
    for part, learned in member.learned.items():
        odd = sorted({part, *learned.parts, *learned.chosen_on} - set(PARTS))
        if odd:
            raise BlendError(f"{file}: learned.{part} names {odd[0]!r}; parts are {', '.join(PARTS)}")
    return member


def check_member(
    member: Member, path: Path | str, part: str, tables_fingerprint: str, split: Mapping[str, Any], began_us: int | None
) -> None:
    """Refuse a member of another log, or one that has seen the part that it is asked about.

    Args:
        path: its folder, for the message.
        part: valid or test.
        tables_fingerprint, split: of the log on which the blend is fitted.
        began_us: first moment of the part where it is one for everybody, else None.
    Raises:
        BlendError: names member, part and reason.
    """
    where = f"member {member.name} ({path})"
    if member.tables_fingerprint != tables_fingerprint:
        raise BlendError(
            f"{where} was scored on tables with fingerprint {member.tables_fingerprint[:12]}, these are "
            f"{tables_fingerprint}; score it again on these tables"
        )
    if {k: v for k, v in member.split.items() if v is not None} != {k: v for k, v in split.items() if v is not None}:
        raise BlendError(f"{where} was scored with split {member.split}, the blend is fitted with {dict(split)}")
    refuse_seen(where, member.learned.get(part), part, began_us)


def refuse_seen(where: str, learned: Learned | None, part: str, began_us: int | None) -> None:
    """Refuse a member that has seen the part that it is asked about, or does not say what it has seen.

    Args:
        where: the member, for the message.
        began_us: see `check_member`.
    Raises:
        BlendError: names member, part and reason.
    """
    if learned is None or (not learned.parts and learned.until_us is None):
        raise BlendError(
            f"{where} does not say what it had learned from when it was asked about {part}; write learned.{part} in "
            "its member.json"
        )
    seen = [p for p in learned.parts if PARTS.index(p) >= PARTS.index(part)]
    if seen:
        raise BlendError(
            f"{where} learned from {', '.join(learned.parts)}: it has seen {seen[0]}, and is asked about {part}; a "
            f"blend would trust it too much. Score it as it was trained without {part}"
        )
    if learned.until_us is None:
        return
    if began_us is None and not learned.parts:
        raise BlendError(
            f"{where} says until when it learned, and this split has no one moment at which {part} begins; name the "
            f"parts in learned.{part}.parts"
        )
    if began_us is not None and learned.until_us > began_us:
        raise BlendError(
            f"{where} learned from events until {learned.until_us} (UTC microseconds) and {part} begins at {began_us}, "
            "so it has seen what it is asked about"
        )


def read_lists(path: Path | str, part: str, who: Who, items: Vocabulary, depth: int) -> Lists:
    """Return a member's lists for the people asked about a part, best first; of equal scores the lower index first.

    Args:
        who: the people, in the order in which the lists are wanted.
        depth: items kept of each list.
    Raises:
        BlendError: a file, column or person is missing, or a row has a score that is no number, an item that is not in
            the tables, or an item that its list has already; names file and row (0-based).
    """
    file = Path(path) / f"{part}.parquet"
    table = _read(file)
    person = _people(table, who, file)
    there = np.asarray(table["item_id"].is_valid())
    try:
        item = items.indices(table["item_id"].combine_chunks())
        score = np.asarray(table["score"].cast(pa.float64()).fill_null(float("nan")))
    except (FeatureError, pa.ArrowException) as error:
        raise BlendError(f"{file}: {error}; ids must be as in the tables ({items.id_type}), scores numbers") from None
    asked = person >= 0
    _refuse(asked & there & ~np.isfinite(score), file, lambda row: f"score is {score[row]}, expected a finite number")
    ids = table["item_id"]
    _refuse(asked & there & (item == 0), file, lambda row: f"item_id {ids[row].as_py()!r} is not in the items table")
    missing = np.flatnonzero(np.bincount(person[asked], minlength=len(who)) == 0)
    if len(missing):
        raise BlendError(
            f"{file}: {who.names()[missing[0]]} is asked about {part} and has no row ({len(missing)} of {len(who)} "
            "people); write a row with a null item_id for somebody to whom it has nothing to say"
        )
    rows = np.flatnonzero(asked & there)
    width = len(items) + 1
    key = person[rows] * width + item[rows]
    by_key = np.argsort(key, kind="stable")
    twice = np.flatnonzero(key[by_key][1:] == key[by_key][:-1])
    if len(twice):
        row = int(rows[by_key[twice + 1]].min())
        raise BlendError(f"{file}, row {row}: item_id {ids[row].as_py()!r} stands twice in the list of one person")
    owner = np.repeat(np.arange(len(who)), np.diff(who.had_indptr))
    rows = rows[~np.isin(key, owner * width + who.had_item)]
    rows = rows[np.lexsort((item[rows], -score[rows], person[rows]))]
    indptr = np.searchsorted(person[rows], np.arange(len(who) + 1)).astype(np.int64)
    return Lists(indptr, item[rows], score[rows]).first(depth)


def _table(lists: Lists, who: Who, items: Vocabulary) -> pa.Table:
    if len(lists) != len(who):
        raise BlendError(f"{len(lists)} lists for {len(who)} people; give one list each, empty ones too")
    # a person without items keeps one row, so that nobody is taken for forgotten
    rows = np.maximum(lists.lengths(), 1)
    owner = np.repeat(np.arange(len(who)), rows)
    silent = np.repeat(lists.lengths() == 0, rows)
    item, score = np.zeros(len(owner), np.int64), np.zeros(len(owner))
    item[~silent], score[~silent] = lists.item, lists.score
    ids = pa.array([None, *items.values], pa.int64() if items.id_type == "int64" else pa.string())
    columns = {"user_id": pa.array(who.user_ids).take(pa.array(owner))}
    if any(visit is not None for visit in who.session_ids):
        columns["session_id"] = pa.array(who.session_ids).take(pa.array(owner))
    columns["item_id"] = ids.take(pa.array(item))
    columns["score"] = pa.array(score, mask=silent)
    return pa.table(columns)


def _read(file: Path) -> pa.Table:
    try:
        # from memory: a damaged file stays open in Arrow otherwise
        table = pq.ParquetFile(io.BytesIO(file.read_bytes())).read()
    except FileNotFoundError:
        raise BlendError(f"{file} is missing: the member has no scores for the part {file.stem}") from None
    except (pa.ArrowException, OSError) as error:
        raise BlendError(f"{file} cannot be read: {error}") from None
    needed = ["item_id", "score"]
    missing = [c for c in needed if c not in table.column_names]
    if missing or not {"user_id", "session_id"} & set(table.column_names):
        lacking = missing[0] if missing else "user_id"
        raise BlendError(f"{file} has no column {lacking}; it has: {', '.join(table.column_names)}")
    return table


def _people(table: pa.Table, who: Who, file: Path) -> np.ndarray:
    """Return [R] int64 place of each row's person in `who`, -1 for people who are not asked."""
    found = np.full(table.num_rows, -1, np.int64)
    for name, ids in (("session_id", who.session_ids), ("user_id", who.user_ids)):
        known = [i for i in ids if i is not None]
        if name not in table.column_names or not known:
            continue
        places = np.asarray([p for p, i in enumerate(ids) if i is not None])
        try:
            row = Vocabulary(known).indices(table[name].combine_chunks())
        except FeatureError as error:
            raise BlendError(f"{file}: {name}: {error}; ids must be as in the tables") from None
        found = np.where(row > 0, places[np.maximum(row, 1) - 1], found)
    return found


def _refuse(bad: np.ndarray, file: Path, why: Any) -> None:
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise BlendError(f"{file}, row {row}: {why(row)} ({int(bad.sum())} such rows)")
