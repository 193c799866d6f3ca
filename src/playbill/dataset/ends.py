"""Where each person's training events end: what a trainer of sequences needs to know of a split."""

from __future__ import annotations

import numpy as np

from playbill.dataset.arrays import read_blocks
from playbill.dataset.dataset import Dataset
from playbill.dataset.splits import PARTS


def training_ends(dataset: Dataset) -> np.ndarray:
    """Return [P] int64, one past the last pool row of each person's training part; read in blocks.

    A person's training events come first in the pool, whatever the split: it goes by time, or holds the last ones out.
    """
    counts = np.zeros(len(dataset.people), np.int64)
    for person, part in zip(read_blocks(dataset.pool.person), read_blocks(dataset.split.part), strict=True):
        mine = person[part == PARTS["train"]]
        if len(mine):
            more = np.bincount(mine - mine[0])  # people ascend in a pool
            counts[mine[0] : mine[0] + len(more)] += more
    return dataset.pool.offsets[:-1] + counts
