"""Batches of questions: consecutive rows of one person share the answers before them, each masked to what it may know.

A block is some successive rows of a person. Its keys are the pool rows that any of them may know. So a person's whole
history costs one pass, not one for each row, and every row still sees its own past alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from playbill.dataset.dataset import Dataset, Examples, field_arrays
from playbill.features.encoder import DAY_US, Arrays
from playbill.features.person_tallies import Tastes, pair_numbers, person_numbers, person_sums
from playbill.features.tallies import TallySpec
from playbill.training.batches.rows import take

_NOBODY = -1  # a place of the padding
_JITTER = 24  # rows: blocks of like length stand together, in another company in every epoch


@dataclass(slots=True)
class Block:
    """One batch: B blocks of at most Q rows, with at most K keys.

    Attributes:
        rows: [B, Q] int64 positions in the examples, -1 where padded.
        key_item: [B, K] int64. key_value: [B, K] float32.
        there: [B, Q, K] bool. hours, places: [B, Q, K] float32, see `ResponseNet.forward`.
        item: [B, Q] int64 asked about.
        fields: encoded fields of people and moments, [B * Q, ...] each.
        tallies: [B, Q, F] float32: of item, person and pair, as they are.
    """

    rows: np.ndarray
    key_item: Tensor
    key_value: Tensor
    there: Tensor
    hours: Tensor
    places: Tensor
    item: Tensor
    fields: dict[str, Tensor]
    tallies: Tensor


@dataclass(slots=True)
class Source:
    """What blocks are cut from.

    Attributes:
        dataset: folded events.
        spec, tastes: of the tallies.
        length: newest events that a row may know.
    """

    dataset: Dataset
    spec: TallySpec
    tastes: Tastes
    length: int


def cut(rows: Examples, length: int) -> list[np.ndarray]:
    """Return the positions of each block: successive rows of one person, at most `length`. Args: rows in pool order."""
    edges = np.flatnonzero(np.diff(rows.person, prepend=_NOBODY))
    blocks: list[np.ndarray] = []
    for low, high in zip(edges, np.append(edges, len(rows))[1:], strict=True):
        pieces = -(-(high - low) // length)
        blocks += np.array_split(np.arange(low, high), pieces)
    return blocks


def batched(blocks: list[np.ndarray], tokens: int, draw: np.random.Generator | None) -> Iterator[list[np.ndarray]]:
    """Yield blocks of like length, at most `tokens` padded rows at once.

    Args:
        draw: shuffles the batches, and which blocks meet; None keeps them short to long.
    """
    sizes = np.asarray([len(b) for b in blocks])
    order = np.argsort(sizes + (0 if draw is None else draw.random(len(sizes)) * _JITTER), kind="stable")
    batches, low = [], 0
    while low < len(order):
        high, widest = low, 0
        while high < len(order) and (high == low or max(widest, sizes[order[high]]) * (high - low + 1) <= tokens):
            widest = max(widest, sizes[order[high]])
            high += 1
        batches.append(order[low:high])
        low = high
    if draw is not None:
        draw.shuffle(batches)
    for batch in batches:
        yield [blocks[i] for i in batch]


def to_block(source: Source, rows: Examples, item_numbers: np.ndarray, blocks: list[np.ndarray]) -> Block:
    """Return one batch.

    Args:
        rows: R examples; `end` says what each may know. item_numbers: [R, K] tallies of their items.
        blocks: positions in `rows`.
    """
    pool = source.dataset.pool
    place = _padded(blocks)
    asked = np.maximum(place, 0)
    end, start = rows.end[asked], rows.start[asked]
    begin = np.maximum(start, end - source.length)
    inside = place >= 0
    low = np.where(inside, begin, np.iinfo(np.int64).max).min(1)
    high = np.maximum(np.where(inside, end, 0).max(1), low)
    key = low[:, None] + np.arange(max(1, int((high - low).max())))
    real = key < high[:, None]
    key = np.where(real, key, 0)
    there = real[:, None] & (key[:, None] >= begin[..., None]) & (key[:, None] < end[..., None])
    newest = np.maximum(end - 1, 0)
    days = np.maximum(pool.at[newest][..., None] - pool.at[key][:, None], 0) / DAY_US
    places = np.maximum(newest[..., None] - key[:, None], 0)
    flat = take(rows, asked.reshape(-1))
    target = pool.item[flat.target_row]
    sums = person_sums(source.spec, source.tastes, pool, flat.start, flat.end, source.length)
    tallies = np.concatenate(
        [
            item_numbers[asked.reshape(-1)],
            person_numbers(source.spec, sums),
            pair_numbers(sums, np.arange(len(flat)), target, source.tastes),
        ],
        1,
    )
    return Block(
        rows=place,
        key_item=torch.from_numpy(np.where(real, pool.item[key], 0)),
        key_value=torch.from_numpy(np.where(real, pool.value[key], 0).astype(np.float32)),
        there=torch.from_numpy(there),
        hours=torch.from_numpy(np.log1p(24 * days).astype(np.float32)),
        places=torch.from_numpy(np.log1p(places).astype(np.float32)),
        item=torch.from_numpy(target.reshape(place.shape)),
        fields=_tensors(field_arrays(source.dataset, flat.person, flat.now, flat.target_row)),
        tallies=torch.from_numpy(tallies.reshape(*place.shape, -1)),
    )


def _padded(blocks: list[np.ndarray]) -> np.ndarray:
    place = np.full((len(blocks), max(len(b) for b in blocks)), _NOBODY, np.int64)
    for i, block in enumerate(blocks):
        place[i, : len(block)] = block
    return place


def _tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
