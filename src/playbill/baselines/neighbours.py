"""A table of neighbours: the nearest items of every item, and how it scores a history. Both item-kNNs and EASE are one.

A query's score for item j, its history being h_0 (newest), h_1, ..., each item counted at its newest place:

    score(j) = sum_i (1 + i) ** -decay * weight[h_i, j]
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from playbill.baselines.history import newest_distinct
from playbill.errors import FeatureError
from playbill.tables.files import write_atomic

LENGTH = 50  # newest items of a history that count, where nothing else is said


@dataclass(slots=True)
class Neighbours:
    """The nearest items of every item, best first; those of item i are rows indptr[i] .. indptr[i + 1].

    Attributes:
        indptr: [N + 2] int64; item 0 (unknown) has none.
        item: [nnz] int32 item_index.
        weight: [nnz] float32, descending within an item; not 0, and below 0 only where EASE says so.
        decay: power by which older items of a history count less; 0 counts all alike.
        length: newest distinct items of a history that count.
    """

    indptr: np.ndarray
    item: np.ndarray
    weight: np.ndarray
    decay: float
    length: int = LENGTH

    @property
    def num_items(self) -> int:
        return len(self.indptr) - 2


def score_neighbours(
    neighbours: Neighbours,
    history_items: np.ndarray,
    num_items: int,
    decay: float | None = None,
    length: int | None = None,
) -> np.ndarray:
    """Return [N + 1] float32 scores of one history, higher is better: 0 without evidence, row 0 (unknown) -inf.

    Args:
        neighbours: fitted.
        history_items: [H] int64 item_index, newest first; unknown items (0 and below) are passed over.
        num_items: N.
        decay, length: in place of those stored with the neighbours.
    """
    known = history_items[history_items > 0]
    _, first = np.unique(known, return_index=True)
    evidence = gather_evidence(neighbours, known[np.sort(first)[: neighbours.length if length is None else length]])
    return score_evidence(evidence, neighbours.decay if decay is None else decay, num_items)


@dataclass(slots=True)
class Evidence:
    """The neighbours of a history's items, one item after the other.

    Attributes:
        lengths: [H] int64, neighbours of each item of the history.
        item: [R] int32 item_index of the neighbours, R the sum of lengths.
        weight: [R] float32.
    """

    lengths: np.ndarray
    item: np.ndarray
    weight: np.ndarray


def gather_evidence(neighbours: Neighbours, items: np.ndarray) -> Evidence:
    """Return what a history has to say.

    Args:
        items: [H] int64 known items, each once.
    """
    starts, ends = neighbours.indptr[items], neighbours.indptr[items + 1]
    if not len(items):
        return Evidence(ends - starts, neighbours.item[:0], neighbours.weight[:0])
    # slices and not one index of R rows: a history of 50 items is copied in a quarter of the time
    cuts = [slice(low, high) for low, high in zip(starts.tolist(), ends.tolist(), strict=True)]
    return Evidence(
        lengths=ends - starts,
        item=np.concatenate([neighbours.item[cut] for cut in cuts]),
        weight=np.concatenate([neighbours.weight[cut] for cut in cuts]),
    )


def score_evidence(evidence: Evidence, decay: float, num_items: int) -> np.ndarray:
    """Return [N + 1] float32 scores, see `score_neighbours`; the history is newest first."""
    weight = (1.0 + np.arange(len(evidence.lengths))) ** -decay
    total = np.bincount(evidence.item, np.repeat(weight, evidence.lengths) * evidence.weight, minlength=num_items + 1)
    scores: np.ndarray = total.astype(np.float32)
    scores[0] = -np.inf
    return scores


def score_histories(
    neighbours: Neighbours,
    indptr: np.ndarray,
    item: np.ndarray,
    decay: float | None = None,
    length: int | None = None,
) -> np.ndarray:
    """Return [B, N + 1] float32, each row as `score_neighbours` gives it.

    Args:
        indptr, item: B histories, CSR, oldest first.
    """
    size = neighbours.num_items + 1
    row, known, place = newest_distinct(indptr, item, neighbours.length if length is None else length)
    weight = (1.0 + place) ** -(neighbours.decay if decay is None else decay)
    history = sp.csr_array((weight, (row, known)), shape=(len(indptr) - 1, size))
    table = sp.csr_array((neighbours.weight.astype(np.float64), neighbours.item, neighbours.indptr), shape=(size, size))
    scores: np.ndarray = (history @ table).toarray().astype(np.float32)
    scores[:, 0] = -np.inf
    return scores


def write_neighbours(path: Path | str, neighbours: Neighbours) -> None:
    """Write neighbours as .npz."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        indptr=neighbours.indptr,
        item=neighbours.item,
        weight=neighbours.weight,
        decay=np.float64(neighbours.decay),
        length=np.int64(neighbours.length),
    )
    write_atomic(path, buffer.getvalue())


def read_neighbours(path: Path | str) -> Neighbours:
    """Return what `write_neighbours` wrote.

    Raises:
        FeatureError: not a file of neighbours, or one whose arrays do not fit each other.
    """
    try:
        # from memory: numpy leaves a file open when it turns out to be broken
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
            length = int(file["length"]) if "length" in file.files else LENGTH  # older files do not say
            read = Neighbours(file["indptr"], file["item"], file["weight"], float(file["decay"]), length)
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise FeatureError(f"{path} holds no neighbours: {error}") from error
    indptr, item = read.indptr, read.item
    fits = len(indptr) >= 2 and indptr[0] == 0 and indptr[-1] == len(item) == len(read.weight)
    if not fits or (np.diff(indptr) < 0).any() or (len(item) and not 0 < item.min() <= item.max() < len(indptr) - 1):
        raise FeatureError(f"{path} holds no neighbours: offsets and items do not fit each other")
    if not (np.isfinite(read.weight).all() and np.isfinite(read.decay) and read.length >= 1):
        raise FeatureError(f"{path} holds neighbours with a weight or decay that is not finite, or a length below 1")
    return read


def nearest(rows: sp.csr_array, low: int, most: int, signed: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (source, target, weight) of each row's `most` heaviest entries, equal weights by lower index first.

    Args:
        rows: [R, N + 1] weights of the items low .. low + R; what an item weighs for itself is left out.
        signed: keep by size, below 0 as well; otherwise only what is above 0.
    """
    lengths = np.diff(rows.indptr)
    source = np.repeat(np.arange(low, low + len(lengths)), lengths)
    weight = rows.data.astype(np.float32)
    size = np.abs(weight) if signed else weight
    kept = (source != rows.indices) & (size > 0)
    for row in np.flatnonzero(lengths > most + 1):  # cut the long ones down before all is sorted
        mine = slice(rows.indptr[row], rows.indptr[row + 1])
        kept[mine] &= size[mine] >= np.partition(size[mine], -most - 1)[-most - 1]
    source, target, weight, size = source[kept], rows.indices[kept], weight[kept], size[kept]
    order = np.lexsort((target, -size, source))
    place = np.arange(len(order)) - np.searchsorted(source, source)  # kept entries stand by row already
    best = order[place < most]
    if signed:  # chosen by size, listed by weight
        best = best[np.lexsort((target[best], -weight[best], source[best]))]
    return source[best], target[best], weight[best]


def join_rows(
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], num_items: int, decay: float, length: int = LENGTH
) -> Neighbours:
    """Return the neighbours in what `nearest` gave for one block of items after the other."""
    source = np.concatenate([p[0] for p in parts])
    return Neighbours(
        indptr=np.searchsorted(source, np.arange(num_items + 2)).astype(np.int64),
        item=np.concatenate([p[1] for p in parts]).astype(np.int32),
        weight=np.concatenate([p[2] for p in parts]),
        decay=decay,
        length=length,
    )
