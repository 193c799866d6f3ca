"""Which rows a step reads. Everything here follows from (seed, epoch, step), never from what was drawn before."""

from __future__ import annotations

import numpy as np

from playbill.errors import ConfigError

# what a generator is for; keeps streams of one step apart
ORDER, UNKNOWN, NEGATIVES, CUTS = range(4)


def generator(seed: int, epoch: int, step: int, purpose: int) -> np.random.Generator:
    """Return the generator of one purpose at one step; the same for every number of processes."""
    return np.random.Generator(np.random.Philox(key=[seed, (epoch << 34) + (step << 4) + purpose]))


def batch_rows(num_rows: int, batch_size: int, processes: int) -> int:
    """Return the rows of a step, all processes together: `batch_size`, or fewer where there are not so many rows.

    Raises:
        ConfigError: the batch cannot be cut in equal parts, or there are fewer rows than processes.
    """
    if batch_size % processes:
        raise ConfigError(f"model.batch_size must be a multiple of the {processes} processes, got {batch_size}")
    rows = min(batch_size, num_rows // processes * processes)
    if rows == 0:
        raise ConfigError(f"{num_rows} training rows are too few for {processes} process(es)")
    return rows


def step_rows(num_rows: int, rows_per_step: int, seed: int, epoch: int, step: int) -> np.ndarray:
    """Return the [rows_per_step] int64 rows that all processes together read at one step of an epoch."""
    order = _permutation(num_rows, seed, epoch)
    return order[step * rows_per_step : (step + 1) * rows_per_step]


_LAST: dict[tuple[int, int, int], np.ndarray] = {}


def _permutation(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    key = (num_rows, seed, epoch)
    if key not in _LAST:
        _LAST.clear()  # one epoch is needed at a time
        _LAST[key] = generator(seed, epoch, 0, ORDER).permutation(num_rows)
    return _LAST[key]
