"""An order of people for a pass over a pool that does not fit in memory."""

from __future__ import annotations

import numpy as np

_MIXED = 16  # blocks whose people are shuffled among each other


def epoch_order(offsets: np.ndarray, seed: int, epoch: int, block: int = 1 << 16, mixed: int = _MIXED) -> np.ndarray:
    """Return the people of a pool in the order of one epoch: random at large, and kind to the disk.

    People stand in blocks of about `block` events, as they follow each other in the pool. Blocks come in random order,
    and the people of `mixed` successive ones are shuffled among each other: whoever reads on needs the pages of
    `mixed` blocks at a time and no others. A pool of at most `block` times `mixed` events is shuffled whole.

    Args:
        offsets: [P + 1] int64 of the pool.
        seed, epoch: the order follows from these and the offsets alone.
        block: events of a block; a person is never cut.
        mixed: 1 reads the people of each block one after another.
    Returns:
        [Q] int64, everybody who has an event, once.
    """
    draw = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    people = np.flatnonzero(np.diff(offsets) > 0)
    of_person = offsets[people] // block
    starts = np.flatnonzero(np.diff(of_person, prepend=-1))
    sizes = np.diff(starts, append=len(people))
    shuffled = draw.permutation(len(starts))
    first = np.repeat(starts[shuffled] - np.cumsum(sizes[shuffled]) + sizes[shuffled], sizes[shuffled])
    order = first + np.arange(len(people))
    if mixed > 1:
        group = np.repeat(np.arange(len(starts)) // mixed, sizes[shuffled])
        order = order[np.lexsort((draw.random(len(people)), group))]
    return people[order]
