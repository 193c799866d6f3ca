"""What the creative heads read at each step, and everything that one training holds in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from playbill.features.encoder import Arrays
from playbill.features.spec import PAD, Field
from playbill.training.batches import order
from playbill.training.creative.decisions import Decisions


@dataclass(slots=True)
class CreativeData:
    """One training.

    Attributes:
        fields: content of a creative.
        arrays: of the unknown creative and all others, [C + 1, ...] each, creative_index among them.
        people: [V, D] float32 the tower's vectors of the moments, which the title reads.
        items: [N + 1, D] float32 the tower's vectors of the catalogue.
        profiles: [V, P] float32 what people had chosen by then, which the heads read, see `profile.profiles`.
        contents: [N + 1, P] float32 what items stand for in profiles.
        places: by array name, see `places.places`.
        train, valid: decisions before and within validation time.
        neutral: [P] float64 of unit length, where the mean profile points. What the heads say of artworks does not
            depend on it: what the mean person answers is said of artworks alone, and holds for unknown people too.
    """

    fields: list[Field]
    arrays: Arrays
    people: np.ndarray
    items: np.ndarray
    profiles: np.ndarray
    contents: np.ndarray
    places: dict[str, np.ndarray]
    train: Decisions
    valid: Decisions
    neutral: np.ndarray | None = None


@dataclass(slots=True)
class CreativeBatch:
    """B decisions of one process, E creatives at most to choose from.

    Attributes:
        person: [B, D] float32. profile: [B, P] float32. item, position, shown: [B] int64. clicked: [B] float32.
        eligible: [B, E] int64 creative_index, PAD behind.
        counted: [B] float32, 0 for rows that only keep the processes in step.
    """

    person: Tensor
    profile: Tensor
    item: Tensor
    position: Tensor
    shown: Tensor
    clicked: Tensor
    eligible: Tensor
    counted: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> CreativeBatch:
        return CreativeBatch(*(getattr(self, f.name).to(device, non_blocking=non_blocking) for f in fields(self)))


def make_batch(data: CreativeData, decisions: Decisions, rows: np.ndarray, counted: np.ndarray) -> CreativeBatch:
    """Return the batch of some decisions ([B] int64 rows); counted [B] bool."""
    return CreativeBatch(
        person=torch.from_numpy(data.people[decisions.moment[rows]]),
        profile=torch.from_numpy(data.profiles[decisions.moment[rows]]),
        item=torch.from_numpy(decisions.item[rows]),
        position=torch.from_numpy(decisions.position[rows]),
        shown=torch.from_numpy(decisions.shown[rows]),
        clicked=torch.from_numpy(decisions.clicked[rows]),
        eligible=torch.from_numpy(decisions.eligible[rows].astype(np.int64)),
        counted=torch.from_numpy(counted.astype(np.float32)),
    )


def training_batches(
    data: CreativeData, size: int, seed: int, epoch: int, first_step: int, process: int, processes: int
) -> Iterator[CreativeBatch]:
    """Yield one process's batches of an epoch, from a step of it on. Args: size, rows of all processes together."""
    total = len(data.train)
    for step in range(first_step, total // size):
        rows = order.step_rows(total, size, seed, epoch, step)[process::processes]
        yield make_batch(data, data.train, rows, np.ones(len(rows), np.bool_))


def validation_batches(data: CreativeData, size: int, process: int, processes: int) -> Iterator[CreativeBatch]:
    """Yield one process's validation batches; every process has as many."""
    total = len(data.valid)
    for low in range(0, total, size * processes):
        rows = low + process * size + np.arange(min(size, total))
        yield make_batch(data, data.valid, np.minimum(rows, total - 1), rows < total)


def creative_inputs(arrays: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    """Return the creatives' arrays for [M] int64 creative_index; padding reads the unknown creative."""
    known = index.clamp(min=0)
    return {name: array[known] for name, array in arrays.items()}


def is_there(eligible: Tensor) -> Tensor:
    """Return [B, E] bool."""
    return eligible != PAD
