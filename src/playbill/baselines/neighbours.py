"""Item-kNN in two forms, by what people had in common and by what they did next; one table of neighbours for both.

A query's score for item j, its history being h_0 (newest), h_1, ..., each item counted at its newest place:

    score(j) = sum_i (1 + i) ** -decay * weight[h_i, j]

`fit_cooccurrence`  weight[i, j] = c_ij / (sqrt(n_i n_j) + shrink), c_ij people who had both, n_i people who had i
`fit_transitions`   weight[i, j] = t_ij / (n_i ** source_power * n_j ** target_power)
                    t_ij = sum over pairs in which j came d = 1..window places after i of d ** -distance_power,
                    n_i events of i

Source: B. Sarwar et al. (2001), Item-based collaborative filtering, for the first; for the second the idea of S-kNN and
sequential rules in M. Ludewig and D. Jannach (2018), Evaluation of session-based recommendation algorithms, here with a
power on either popularity.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from playbill.errors import FeatureError
from playbill.tables.files import write_atomic

_BLOCK = 4_000_000  # pairs held at once while fitting; about 200 MB


@dataclass(slots=True)
class Neighbours:
    """The nearest items of every item, best first; those of item i are rows indptr[i] .. indptr[i + 1].

    Attributes:
        indptr: [N + 2] int64; item 0 (unknown) has none.
        item: [nnz] int32 item_index.
        weight: [nnz] float32, above 0, descending within an item.
        decay: power by which older items of a history count less; 0 counts all alike.
    """

    indptr: np.ndarray
    item: np.ndarray
    weight: np.ndarray
    decay: float

    @property
    def num_items(self) -> int:
        return len(self.indptr) - 2


def fit_cooccurrence(
    person: np.ndarray, item: np.ndarray, num_items: int, shrink: float = 20.0, most: int = 200, decay: float = 0.0
) -> Neighbours:
    """Return the neighbours by people in common: cosine with shrinkage.

    Args:
        person, item: [E] int64, who had which item_index, in any order; item 0 is ignored.
        num_items: N.
        shrink: added to the denominator, in people; pulls pairs with little evidence towards 0.
        most: neighbours kept of each item.
        decay: see `Neighbours`.
    """
    had = binary(person, item, num_items)
    count = np.asarray(had.sum(axis=0)).ravel()
    by_item = had.T.tocsr()
    work = by_item @ np.asarray(had.sum(axis=1)).ravel()  # pairs that each item meets
    parts = []
    for low, high in _blocks(work):
        common = (by_item[low:high] @ had).tocoo()
        source, target = common.row.astype(np.int64) + low, common.col.astype(np.int64)
        weight = common.data / (np.sqrt(count[source] * count[target]) + shrink)
        parts.append(_nearest(source, target, weight, most))
    return _join(parts, num_items, decay)


def fit_transitions(
    person: np.ndarray,
    item: np.ndarray,
    num_items: int,
    window: int = 20,
    distance_power: float = 1.0,
    source_power: float = 0.7,
    target_power: float = 0.3,
    most: int = 200,
    decay: float = 1.0,
) -> Neighbours:
    """Return the neighbours by what came next: distance-decayed transitions, normalised by popularity.

    Args:
        person, item: [E] int64, in each person's order, one person after the other; item 0 is ignored.
        num_items: N.
        window: places that are looked ahead.
        distance_power: decay with the distance, see the top of this file.
        source_power, target_power: 0 leaves counts as they are, 0.5 and 0.5 is a cosine, 1 and 0 a probability.
        most: neighbours kept of each item.
        decay: see `Neighbours`.
    """
    kept = item > 0
    person, item = person[kept], item[kept]
    count = np.maximum(np.bincount(item, minlength=num_items + 1), 1).astype(np.float64)
    by_item = np.argsort(item, kind="stable")
    starts = np.searchsorted(item[by_item], np.arange(num_items + 2))
    parts = []
    for low, high in _blocks(np.diff(starts) * float(window)):
        rows = by_item[starts[low] : starts[high]]
        ahead = rows[:, None] + np.arange(1, window + 1)
        there = ahead < len(item)
        ahead = np.where(there, ahead, 0)
        there &= person[ahead] == person[rows][:, None]
        place, distance = np.nonzero(there)
        pair = item[rows[place]] * (num_items + 1) + item[ahead[place, distance]]
        pair, at = np.unique(pair, return_inverse=True)
        weight = np.bincount(at, (1.0 + distance) ** -distance_power, minlength=len(pair))
        source, target = np.divmod(pair, num_items + 1)
        norm = count[source] ** source_power * count[target] ** target_power
        parts.append(_nearest(source, target, weight / norm, most))
    return _join(parts, num_items, decay)


def score_neighbours(
    neighbours: Neighbours, history_items: np.ndarray, num_items: int, decay: float | None = None, length: int = 50
) -> np.ndarray:
    """Return [N + 1] float32 scores of one history, higher is better: 0 without evidence, row 0 (unknown) -inf.

    Args:
        neighbours: fitted.
        history_items: [H] int64 item_index, newest first; unknown items (0 and below) are passed over.
        num_items: N.
        decay: in place of the one stored with the neighbours.
        length: newest distinct known items that count.
    """
    known = history_items[history_items > 0]
    _, first = np.unique(known, return_index=True)
    evidence = gather_evidence(neighbours, known[np.sort(first)[:length]])
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
    neighbours: Neighbours, indptr: np.ndarray, item: np.ndarray, decay: float | None = None, length: int = 50
) -> np.ndarray:
    """Return [B, N + 1] float32, each row as `score_neighbours` gives it.

    Args:
        indptr, item: B histories, CSR, oldest first.
    """
    num_items = neighbours.num_items
    scores = np.empty((len(indptr) - 1, num_items + 1), np.float32)
    for row, (low, high) in enumerate(zip(indptr[:-1], indptr[1:], strict=True)):
        scores[row] = score_neighbours(neighbours, item[low:high][::-1], num_items, decay, length)
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
            read = Neighbours(file["indptr"], file["item"], file["weight"], float(file["decay"]))
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise FeatureError(f"{path} holds no neighbours: {error}") from error
    indptr, item = read.indptr, read.item
    fits = len(indptr) >= 2 and indptr[0] == 0 and indptr[-1] == len(item) == len(read.weight)
    if not fits or (np.diff(indptr) < 0).any() or (len(item) and not 0 < item.min() <= item.max() < len(indptr) - 1):
        raise FeatureError(f"{path} holds no neighbours: offsets and items do not fit each other")
    return read


def binary(person: np.ndarray, item: np.ndarray, num_items: int) -> sp.csr_array:
    """Return [P, N + 1] float64 of 1 where a person had an item, however often; column 0 is empty."""
    kept = item > 0
    _, rows = np.unique(person[kept], return_inverse=True)
    num_people = int(rows.max()) + 1 if len(rows) else 0
    matrix = sp.coo_array((np.ones(len(rows)), (rows, item[kept])), shape=(num_people, num_items + 1)).tocsr()
    matrix.data[:] = 1
    return matrix


def _blocks(work: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield ranges of items with about _BLOCK pairs each."""
    total = np.cumsum(work)
    low = 0
    while low < len(work):
        done = total[low - 1] if low else 0
        high = max(int(np.searchsorted(total, done + _BLOCK, "right")), low + 1)
        yield low, high
        low = high


def _nearest(
    source: np.ndarray, target: np.ndarray, weight: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the triples of each source's `most` heaviest targets, equal weights by lower index first."""
    kept = (source != target) & (weight > 0)
    source, target, weight = source[kept], target[kept], weight[kept].astype(np.float32)
    order = np.lexsort((target, -weight, source))
    source = source[order]
    place = np.arange(len(source)) - np.searchsorted(source, source)
    best = order[place < most]
    return source[place < most], target[best], weight[best]


def _join(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], num_items: int, decay: float) -> Neighbours:
    source = np.concatenate([p[0] for p in parts])
    return Neighbours(
        indptr=np.searchsorted(source, np.arange(num_items + 2)).astype(np.int64),
        item=np.concatenate([p[1] for p in parts]).astype(np.int32),
        weight=np.concatenate([p[2] for p in parts]),
        decay=decay,
    )
