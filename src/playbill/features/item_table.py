"""Fewer rows than items: which row, or rows, of the item table an item reads.

Every item keeps its own item_index, in vocabularies, indexes and slates. Frequent items have a row of their own in the
table that models learn; the others share rows by hashing, or have none and stand on their content alone. The map
follows from the spec, so training and the exported graph, which holds it, cannot differ.

Source: K. Weinberger et al., Feature Hashing for Large Scale Multitask Learning (2009), for shared rows; D. Svenstrup,
J. M. Hansen, O. Winther, Hash Embeddings for Efficient Word Representations (2017), for several rows an item, here
without importance weights: a vector is the mean of its rows.
"""

from __future__ import annotations

import zlib

import msgspec
import numpy as np

from playbill.chance import mix64
from playbill.features.settings import FeatureSettings


class ItemTable(msgspec.Struct, frozen=True, kw_only=True):
    """How items share the rows of the item table.

    Row 0 is the unknown item's, rows 1..A belong to the A items with a row of their own, in order of their index, and
    rows A+1.. are the buckets.

    Attributes:
        own: zlib of one bit an item, 1..N: has a row of its own. Two megabytes for ten million items at most.
        num_own: A.
        buckets: rows shared by the others; 0 leaves them the unknown item's row.
        hashes: rows that each of those reads, 1 or 2.
    """

    own: bytes
    num_own: int
    buckets: int
    hashes: int

    @property
    def num_rows(self) -> int:
        """Rows of the table."""
        return 1 + self.num_own + self.buckets


def make_item_table(counts: np.ndarray, settings: FeatureSettings) -> ItemTable | None:
    """Return how items share rows, or None where each has its own.

    Args:
        counts: [N + 1] int64 events of each item in training time, by item_index.
    """
    num_items = len(counts) - 1
    own = counts[1:] >= settings.min_item_events
    if settings.max_item_rows and own.sum() > settings.max_item_rows:
        # the most frequent; of equals the first in the catalogue, as in every list of ours
        order = np.argsort(np.where(own, -counts[1:], 1), kind="stable")
        own = np.zeros(num_items, bool)
        own[order[: settings.max_item_rows]] = True
    if own.all():
        return None
    return ItemTable(
        own=zlib.compress(np.packbits(own).tobytes(), 9),
        num_own=int(own.sum()),
        buckets=settings.item_buckets,
        hashes=settings.item_hashes if settings.item_buckets else 1,
    )


def item_rows(table: ItemTable, num_items: int) -> np.ndarray:
    """Return [N + 1, hashes] int64: the rows whose mean is each item's vector. An item of its own names its row twice.

    Raises:
        ValueError: the table was made for another number of items.
    """
    bits = np.frombuffer(zlib.decompress(table.own), np.uint8)
    if len(bits) != -(-num_items // 8):
        raise ValueError(f"an item table of {8 * len(bits)} items at most, the spec has {num_items}")
    own = np.unpackbits(bits, count=num_items).astype(bool)
    rows = np.zeros((num_items + 1, table.hashes), np.int64)
    rows[1:][own] = np.arange(1, table.num_own + 1)[:, None]
    if table.buckets:
        shared = np.flatnonzero(~own) + 1
        for number in range(table.hashes):
            rows[shared, number] = 1 + table.num_own + _hash(shared, number) % np.uint64(table.buckets)
    return rows


def _hash(index: np.ndarray, number: int) -> np.ndarray:
    """Return [n] uint64 of the splitmix64 generator; `number` picks the hash function."""
    return mix64(index.astype(np.uint64) + np.uint64((number + 1) * 0x9E3779B97F4A7C15 % 2**64))
