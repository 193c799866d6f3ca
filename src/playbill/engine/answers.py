"""Step 3, beside the ranker: how likely a person enjoys a candidate if they try it, where the bundle has such a model.

It reads a person's answers as the store holds them now, and tallies of items as they stood when the bundle was made.
`ask_people` is what protocols and evaluations ask too, so the model that their figures speak of is the one that serves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from playbill.bundle.answers import NAME, read_answers
from playbill.bundle.open import Bundle
from playbill.engine.profile import Person, encode_profiles
from playbill.engine.runtime import Model, open_model
from playbill.engine.settings import EngineSettings
from playbill.engine.types import Request
from playbill.features.encoder import Arrays
from playbill.features.fold import EventPool
from playbill.features.spec import UNKNOWN, FeatureSpec
from playbill.features.tally_file import TallyBook
from playbill.features.vocabulary import Vocabulary


@dataclass(slots=True)
class Answers:
    """The model of answers of a bundle.

    Attributes:
        spec, vocabularies: that it reads people with.
        items: [N + 1, K] float32 tallies of items, as of the bundle.
    """

    graph: Model
    spec: FeatureSpec
    vocabularies: Mapping[str, Vocabulary]
    book: TallyBook
    items: np.ndarray

    def of_items(self, item: np.ndarray) -> np.ndarray:
        """Return [n, K] tallies; of items that came later those of an item that nobody tried."""
        rows: np.ndarray = self.items[np.where(item < len(self.items), item, UNKNOWN)]
        return rows


def open_answers(bundle: Bundle, settings: EngineSettings) -> Answers:
    """Return the model of a bundle that carries one.

    Raises:
        FeatureError: what stands beside the graph is missing, broken, or of other items.
        NoRuntime, ProviderError: see `open_model`.
    """
    spec, vocabularies, book = read_answers(bundle.path, bundle.spec)
    return Answers(open_model(bundle.file(f"{NAME}.onnx"), settings), spec, vocabularies, book, book.frozen())


def enjoyment(
    answers: Answers,
    people: Sequence[Person],
    requests: Sequence[Request],
    items: Sequence[np.ndarray],
    item_arrays: Mapping[str, Any],
) -> list[np.ndarray]:
    """Return for each of U people [M] float32 probabilities that they enjoy their candidates.

    Args:
        people, requests: U each, `at` of the latter filled in.
        items: U arrays [M] of item_index.
        item_arrays: as of `rank.rank`.
    Raises:
        ValueError: a probability is not finite.
    """
    profiles = [msgspec.structs.replace(p.profile, history=p.past) for p in people]
    now = np.asarray([r.at for r in requests], np.int64)
    pool, queries = encode_profiles(profiles, requests, now, answers.spec, answers.vocabularies)
    tallies = [answers.of_items(item) for item in items]
    start, end = pool.offsets[:-1], pool.offsets[1:]
    found = ask_people(answers.graph, answers.book, pool, start, end, queries, items, tallies, item_arrays)
    if not all(np.isfinite(p).all() for p in found):
        raise ValueError("a probability is not finite")
    return found


def ask_people(
    graph: Model,
    book: TallyBook,
    pool: EventPool,
    start: np.ndarray,
    end: np.ndarray,
    queries: Arrays,
    items: Sequence[np.ndarray],
    tallies: Sequence[np.ndarray],
    item_arrays: Mapping[str, Any],
) -> list[np.ndarray]:
    """Return for each of U people [M] float32 probabilities of a like: one run of the graph a person.

    Args:
        pool, start, end: their histories, as in `encoder.encode_history`.
        queries: query-side arrays [U, ...].
        items, tallies: U arrays [M] of item_index, and [M, K] the tallies of these items.
        item_arrays: [N + 1, ...] by name; `item_index` among them where the graph knows fewer items.
    """
    lengths = [len(item) for item in items]
    item = np.concatenate(items)
    of_people = book.arrays(pool, start, end, np.repeat(np.arange(len(items)), lengths), item)
    queries = queries | {"person_tallies": of_people["person_tallies"]}
    asked = {"item_index": item, "item_tallies": np.concatenate(tallies), "pair_tallies": of_people["pair_tallies"]}
    asked |= {name: item_arrays[name][item] for name in graph.inputs if name in item_arrays}
    ends = np.cumsum(lengths).tolist()
    found = []
    for u, (low, high) in enumerate(zip([0, *ends], ends, strict=False)):
        arrays = {n: queries[n][u : u + 1] if n in queries else asked[n][low:high] for n in graph.inputs}
        found.append(graph.run(arrays, ["p_like"])[0])
    return found
