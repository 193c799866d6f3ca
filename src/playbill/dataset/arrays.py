"""Arrays larger than memory: written row by row into .npy files, read in blocks, or mapped."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

BLOCK = 1 << 20  # rows read or computed at a time


class ArrayWriter:
    """A .npy file that grows; its header says the true length once the writer is closed.

    Args:
        path: the file, `<name>.npy`.
        dtype: of the array.
        width: columns of a two-dimensional array, None for one dimension.
    """

    def __init__(self, path: Path, dtype: Any, width: int | None = None) -> None:
        self.dtype, self.shape = np.dtype(dtype), () if width is None else (width,)
        self.rows = 0
        self.file = path.open("wb")
        self._header()

    def append(self, rows: np.ndarray) -> None:
        """Write more rows, cast to the array's dtype."""
        assert rows.shape[1:] == self.shape, (rows.shape, self.shape)
        np.ascontiguousarray(rows, self.dtype).tofile(self.file)
        self.rows += len(rows)

    def close(self) -> None:
        self.file.seek(0)
        self._header()
        self.file.close()

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _header(self) -> None:
        # numpy leaves room in every header for the first length to grow, so the second header is as long as the first
        about = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.rows, *self.shape),
        }
        np.lib.format.write_array_header_1_0(self.file, about)


def map_array(path: Path) -> np.ndarray:
    """Return the array in a .npy file, read from the disk where it is touched; changes to it stay in memory."""
    # copy on write and not read-only: torch warns of every array that it may not write
    return np.load(path, mmap_mode="c").view(np.ndarray)  # type: ignore[no-any-return]  # numpy's stub


def blocks(length: int) -> Iterator[slice]:
    """Yield slices of at most BLOCK that cover 0..length in order."""
    for start in range(0, length, BLOCK):
        yield slice(start, min(start + BLOCK, length))


def read_blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield an array's blocks in order, and let go of the memory behind each one of a mapped array."""
    for part in blocks(len(array)):
        yield array[part]
        release(array)


def release(array: np.ndarray) -> None:
    """Let go of the memory behind a mapped array; an ordinary one is left alone.

    The pages of a mapped file count as this process's memory until the system wants them back; a pass over a large
    array would look as if it had all been loaded.
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)
