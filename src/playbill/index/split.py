"""An index in parts: who holds which item, under which number, and how answers of parts become one.

Item i is held by part (i - 1) mod S, under the number (i - 1) div S + 1 of its own: no table says so, parts are of one
size whatever is clustered in the order of items, and items that come later have their place already. A part is an
`ItemIndex` like any other, and its numbers ascend as the items do, so equal scores keep their order.

A part of an index of lists keeps the lists, codes and route of the whole, each list shorter. It looks into the same
lists and brings the best of them, as many as were wanted, so all parts together find at least what the whole finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import faiss
import msgspec
import numpy as np

from playbill.errors import SearchError
from playbill.index.build import build_index
from playbill.index.item_index import ItemIndex, routed, set_threads
from playbill.index.search import Found
from playbill.index.settings import IndexSettings, Kind

_ADDED = 65_536  # vectors encoded at once


def part_of(items: np.ndarray, parts: int) -> np.ndarray:
    """Return [M] int64, the part that holds each of these items, 0..parts - 1."""
    return (np.asarray(items, np.int64) - 1) % parts


def number_in_part(items: np.ndarray, parts: int) -> np.ndarray:
    """Return [M] int64, the numbers that these items have in their parts, from 1 on."""
    return (np.asarray(items, np.int64) - 1) // parts + 1


def item_of(numbers: np.ndarray, part: int, parts: int) -> np.ndarray:
    """Return [M] int64 item_index of numbers in a part."""
    return (np.asarray(numbers, np.int64) - 1) * parts + part + 1


def rows_of(rows: np.ndarray, part: int, parts: int) -> np.ndarray:
    """Return what a part holds of an array by item_index, [N + 1, ...]: [n + 1, ...] by number, row 0 as it is."""
    return np.concatenate([rows[:1], rows[1 + part :: parts]])


def split(index: ItemIndex, part: int, parts: int, threads: int = 1) -> ItemIndex:
    """Return one part of an index, with its route; its vectors are copied, so the whole can be closed.

    Args:
        index: with the embeddings that it was built from, memory-mapped for all that this needs.
        part: 0..parts - 1.
        threads: of what is built anew, the graph of hnsw and the codes of ivf_pq.
    Raises:
        SearchError: no such part, or one that would hold nothing.
    """
    if not 0 <= part < parts:
        raise SearchError(f"no part {part} of {parts}; parts are numbered from 0")
    ids = index.ids()
    mine = ids[part_of(ids, parts) == part]
    if not len(mine):
        raise SearchError(f"part {part} of {parts} would hold none of {len(index)} items; take fewer parts")
    numbers = number_in_part(mine, parts)
    vectors = np.ascontiguousarray(rows_of(index.embeddings, part, parts), np.float32)
    hot = np.asarray(index.route.hot, np.int64)
    hot = number_in_part(hot[part_of(hot, parts) == part], parts)
    if index.kind in (Kind.flat, Kind.hnsw):
        built = build_index(vectors, numbers, IndexSettings(kind=index.kind, links=_links(index), threads=threads))
    else:
        set_threads(threads)
        held = None if len(numbers) == len(vectors) - 1 else numbers
        built = ItemIndex(_lists_of(index, mine, numbers, part, parts, vectors), vectors, index.kind, held)
    return replace(routed(built, msgspec.structs.replace(index.route, hot=hot.tolist())), parts=parts)


def merge(found: Sequence[Found], k: int) -> Found:
    """Return the best k of what parts found for the same queries, best first; equal scores keep the lower item first.

    Args:
        found: of each part, scores and item_index, B arrays each.
    """
    scores: list[np.ndarray] = []
    items: list[np.ndarray] = []
    for score, item in zip(
        zip(*(s for s, _ in found), strict=True), zip(*(i for _, i in found), strict=True), strict=True
    ):
        best, ids = np.concatenate(score), np.concatenate(item)
        if len(best) > 2 * k > 0:  # of many parts most is not among the best, and need not be sorted
            keep = best >= np.partition(best, len(best) - k)[len(best) - k]
            best, ids = best[keep], ids[keep]
        order = np.lexsort((ids, -best))[:k]
        scores.append(best[order])
        items.append(ids[order])
    return scores, items


def _lists_of(
    index: ItemIndex, mine: np.ndarray, numbers: np.ndarray, part: int, parts: int, vectors: np.ndarray
) -> Any:
    """Return the FAISS index of a part: lists and codebook of the whole, what the part holds in them."""
    # a clone of a mapped index is a view of the file, and FAISS ends the process when such is emptied
    found = faiss.deserialize_index(faiss.serialize_index(index.faiss_index))
    found.reset()
    if index.kind is Kind.ivf_pq:  # its codes stand in blocks that FAISS copies wrongly, item by item: made again
        for low in range(0, len(mine), _ADDED):
            some = numbers[low : low + _ADDED]
            found.add_with_ids(vectors[some], some)
        return found
    modulo = faiss.InvertedLists.SUBSET_TYPE_ID_MOD
    found.ntotal = index.faiss_index.invlists.copy_subset_to(found.invlists, modulo, parts, (part + 1) % parts)
    lists = found.invlists
    for place in range(found.nlist):
        size = lists.list_size(place)
        if size:
            ids = faiss.rev_swig_ptr(lists.get_ids(place), size)
            ids[:] = number_in_part(ids, parts)
    return found


def _links(index: ItemIndex) -> int:
    """Return the links of an item in the graph of an index that has one."""
    if index.kind is not Kind.hnsw:
        return IndexSettings().links
    return int(faiss.downcast_index(index.faiss_index.index).hnsw.nb_neighbors(1))
