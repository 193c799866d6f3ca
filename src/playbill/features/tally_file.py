"""Tallies on disk: what a model that reads them needs beside its graph, in training, batch and serving alike.

tallies.json    what is counted, and the length of the histories that tallies of people look back over
tallies.npz     sums of each item up to a moment, their usual values, their categories
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from playbill.errors import FeatureError
from playbill.features.encoder import Arrays
from playbill.features.fold import EventPool
from playbill.features.person_tallies import Tastes, pair_numbers, person_numbers, person_sums
from playbill.features.spec import UNKNOWN
from playbill.features.tallies import ItemTallies, TallySpec
from playbill.tables.files import write_atomic

FORMAT = 2  # 2 says until when items were counted; files of format 1 are read as they are
TALLIES_JSON, TALLIES_NPZ = "tallies.json", "tallies.npz"


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """tallies.json."""

    format: int = FORMAT
    length: int
    until_us: int = 0
    spec: TallySpec


@dataclass(slots=True)
class TallyBook:
    """All that tallies are made from.

    Attributes:
        items: sums of each item; frozen as written, or running on by `items.add`.
        tastes: fixed with the model.
        length: newest events of a history that tallies of people look at.
        until_us: UTC microseconds; what came earlier is in the sums of items. 0 where a file of format 1 does not say.
    """

    items: ItemTallies
    tastes: Tastes
    length: int
    until_us: int

    def arrays(
        self,
        pool: EventPool,
        start: np.ndarray,
        end: np.ndarray,
        cand_user: np.ndarray,
        item: np.ndarray,
    ) -> Arrays:
        """Return what graphs read of people: person_tallies [U, K'] and pair_tallies [N, 6], float32.

        Args:
            pool, start, end: histories of U people, as in `encoder.encode_history`.
            cand_user, item: [N] int64 row of the person, and item_index; an item that came later is unknown here.
        """
        item = np.where(item < len(self.tastes.base), item, UNKNOWN)
        sums = person_sums(self.items.spec, self.tastes, pool, start, end, self.length)
        return {
            "person_tallies": person_numbers(self.items.spec, sums),
            "pair_tallies": pair_numbers(sums, cand_user, item, self.tastes),
        }

    def frozen(self) -> np.ndarray:
        """Return [N + 1, K] float32 tallies of every item as they stood at `until_us`."""
        every = np.arange(len(self.items.sums))
        return self.items.numbers(every, np.full(len(every), self.until_us))


def write_tallies(folder: Path, book: TallyBook) -> None:
    """Write both files; the json last, since it vouches for the other."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, allow_pickle=False, sums=book.items.sums, base=book.tastes.base, categories=book.tastes.categories
    )
    write_atomic(folder / TALLIES_NPZ, buffer.getvalue())
    head = _Head(length=book.length, until_us=book.until_us, spec=book.items.spec)
    write_atomic(folder / TALLIES_JSON, msgspec.json.format(msgspec.json.encode(head), indent=1))


def read_tallies(folder: Path) -> TallyBook:
    """Return what `write_tallies` wrote.

    Raises:
        FeatureError: a file is missing or broken, was written by a newer Playbill, or the two do not fit.
    """
    try:
        head = msgspec.json.decode((folder / TALLIES_JSON).read_bytes(), type=_Head)
        with np.load(folder / TALLIES_NPZ, allow_pickle=False) as saved:
            sums, base, categories = (saved[name] for name in ("sums", "base", "categories"))
    except (OSError, ValueError, KeyError, msgspec.MsgspecError) as error:
        raise FeatureError(f"no tallies can be read in {folder}: {error}; train the model again") from error
    if head.format > FORMAT:
        raise FeatureError(
            f"{folder / TALLIES_JSON} has format {head.format}, this Playbill reads up to {FORMAT}; upgrade"
        )
    width = 4 + 3 * len(head.spec.half_lives_days)
    if sums.shape != (len(base), width) or len(categories) != len(base):
        raise FeatureError(
            f"{folder / TALLIES_NPZ} holds sums {sums.shape}, base {base.shape} and categories {categories.shape}; "
            f"expected {width} sums of each item and as many rows in all three; train the model again"
        )
    return TallyBook(ItemTallies(head.spec, sums), Tastes(base, categories), head.length, head.until_us)
