"""Matrices of few sizes.

A CPU's products are compiled for each size they meet, which takes longer than a product of a training step. What has a
row for each event of a step would have another size in every step, so it is made longer, up to a multiple of 256 rows.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

_STEP = 256


def full_rows(x: Tensor) -> Tensor:
    """Return x [T, ...] with rows of zeros behind it, up to the next multiple of 256."""
    if not -len(x) % _STEP:
        return x
    return functional.pad(x, (*(0, 0) * (x.dim() - 1), 0, -len(x) % _STEP))
