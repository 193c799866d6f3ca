"""Many numbers folded into few: a truncated singular value decomposition, fitted once and kept."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from playbill.errors import ConfigError, TableError
from playbill.tables.files import write_atomic

_FIT_ROWS = 100_000  # vectors that the fold is fitted on; more of them change nothing that can be seen


def fold(rows: np.ndarray, width: int, kept: Path, anew: bool) -> tuple[np.ndarray, float]:
    """Return ([n, width] float32, the share of the squares that is left), rows of unit length as far as they were.

    The fold is fitted on these rows where `kept` does not hold one, and taken from there where it does: an item that
    comes later must be folded as those that a model was trained on.

    Args:
        rows: [n, W] float32.
        kept: .npy file of the fold, [W, width] float32.
    Raises:
        ConfigError: the rows have fewer numbers than `width`, or there are fewer rows.
        TableError: the kept fold cannot be read or has another shape.
    """
    if not 0 < width <= min(rows.shape):
        raise ConfigError(
            f"width={width}: {len(rows)} texts of {rows.shape[1]} numbers can be folded to 1..{min(rows.shape)}"
        )
    if kept.is_file() and not anew:
        try:
            axes = np.load(kept, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise TableError(f"{kept} cannot be read ({error}); run again with force=true") from error
        if axes.shape != (rows.shape[1], width):
            raise TableError(f"{kept} folds {axes.shape}, expected ({rows.shape[1]}, {width}); run with force=true")
    else:
        step = max(-(-len(rows) // _FIT_ROWS), 1)
        some = rows[::step].astype(np.float64)
        # the few columns make W x W squares cheap, however many rows there are
        _, axes = np.linalg.eigh(some.T @ some)
        axes = axes[:, ::-1][:, :width]
        largest = axes[np.abs(axes).argmax(0), np.arange(width)]
        axes = (axes * np.where(largest < 0, -1.0, 1.0)).astype(np.float32)
        sink = io.BytesIO()
        np.save(sink, axes, allow_pickle=False)
        write_atomic(kept, sink.getvalue())
    folded = rows @ axes
    left = float(np.square(folded, dtype=np.float64).sum() / max(np.square(rows, dtype=np.float64).sum(), 1e-30))
    length = np.linalg.norm(folded, axis=1, keepdims=True)
    return np.divide(folded, length, out=np.zeros_like(folded), where=length > 0), left
