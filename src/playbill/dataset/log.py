"""The events table as a stream: read batch by batch, and parted by person into files small enough to be sorted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from playbill.dataset import arrays
from playbill.errors import TableError

_SMALLEST_PART = 1 << 20  # rows: below it sorting gains nothing
_MOST_PARTS = 256  # files open at once
_READ_BYTES = 1 << 20


def read_log(tables_path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the events table in file order, at most arrays.BLOCK rows at a time.

    Raises:
        TableError: the file cannot be read.
    """
    file = tables_path / "events.parquet"
    try:
        # buffered: a row group may be larger than what is to be in memory
        with pq.ParquetFile(file, buffer_size=_READ_BYTES, pre_buffer=False) as log:
            for batch in log.iter_batches(arrays.BLOCK, columns=list(columns)):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{file} cannot be read ({error}); run `playbill prepare force=true`") from error


def log_schema(tables_path: Path) -> pa.Schema:
    """Return the columns of the events table.

    Raises:
        TableError: the file cannot be read.
    """
    file = tables_path / "events.parquet"
    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{file} cannot be read ({error}); run `playbill prepare force=true`") from error


class Parts:
    """Rows parted by person into files, each of which holds a range of people and fits in memory.

    Args:
        folder: an empty one.
        rows_of_person: [P] int64, about how many rows each person has; somebody with more than a part gets one alone.
    """

    def __init__(self, folder: Path, rows_of_person: np.ndarray) -> None:
        self.folder = folder
        up_to = np.cumsum(rows_of_person)
        size = max(_SMALLEST_PART, -(-int(up_to[-1]) // _MOST_PARTS)) if len(up_to) else _SMALLEST_PART
        # a person's part is that of their first row, so parts are ranges of people and nobody is cut
        number = (up_to - rows_of_person) // size
        self.starts = np.flatnonzero(np.diff(number, prepend=-1))
        self.number = np.searchsorted(self.starts, np.arange(len(up_to)), side="right").astype(np.int16) - 1
        self.writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}

    def __len__(self) -> int:
        return len(self.starts)

    def add(self, rows: pa.Table, person: np.ndarray) -> None:
        """Write rows ([n], with `person` [n] int64 >= 0) to their parts, which keep the order of arrival."""
        part = self.number[person]
        order = np.argsort(part, kind="stable")
        rows = rows.take(pa.array(order)).combine_chunks()
        cuts = np.searchsorted(part[order], np.arange(len(self) + 1))
        for number in np.flatnonzero(np.diff(cuts)).tolist():
            if number not in self.writers:
                self.writers[number] = pa.ipc.new_stream(pa.OSFile(str(self._path(number)), "wb"), rows.schema)
            self.writers[number].write_table(rows.slice(cuts[number], cuts[number + 1] - cuts[number]))

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()

    def read(self) -> Iterator[pa.Table]:
        """Yield the rows of each part that has any, in order of people; what was read is removed."""
        for number in sorted(self.writers):
            path = self._path(number)
            with pa.OSFile(str(path), "rb") as file, pa.ipc.open_stream(file) as stream:
                yield stream.read_all()
            path.unlink()

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:04d}.arrow"
