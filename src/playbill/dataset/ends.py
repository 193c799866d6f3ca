"""Where what a person may be learned from ends: what a trainer of sequences needs to know of a split."""

from __future__ import annotations

import numpy as np

from playbill.dataset.arrays import read_blocks
from playbill.dataset.dataset import Dataset
from playbill.dataset.splits import part_number


def learning_ends(dataset: Dataset, before: str = "valid") -> np.ndarray:
    """Return [P] int64, one past the last pool row of each person that a model to be asked about a part may learn from.

    A person's training events come first in the pool, then those of validation, whatever the split: it goes by time, or
    holds the last ones out. Read in blocks.

    Args:
        before: valid (training events) or test (training and validation events).
    """
    number = part_number(before)
    counts = np.zeros(len(dataset.people), np.int64)
    for person, part in zip(read_blocks(dataset.pool.person), read_blocks(dataset.split.part), strict=True):
        mine = person[part < number]
        if len(mine):
            more = np.bincount(mine - mine[0])  # people ascend in a pool
            counts[mine[0] : mine[0] + len(more)] += more
    return dataset.pool.offsets[:-1] + counts
