"""What a bundle carries, asked the same questions as the baselines: the tower alone, and the whole road as served."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from playbill.bundle.open import Bundle
from playbill.dataset.dataset import Dataset, query_arrays
from playbill.engine.engine import Engine
from playbill.engine.runtime import Model, open_model
from playbill.engine.settings import EngineSettings, Provider
from playbill.engine.types import Request
from playbill.measure.ranking import NO_ITEM
from playbill.release.protocol import Asked, batches, best_unseen
from playbill.release.report import Road
from playbill.release.scores import PLACES
from playbill.state.events import Declared, Event
from playbill.state.store import Store
from playbill.tables.folder import read_folder, read_table

_ASKED_AT_ONCE = 256

# figures must not depend on whether the machine that measures has a GPU
CPU = EngineSettings(provider=Provider.cpu)


def tower_road(bundle: Bundle, dataset: Dataset, asked: Asked, k: int) -> Road:
    """Return the nearest unseen items of each person's query, searched exactly; without a history, popularity.

    Args:
        bundle: carries towers, with the features of `dataset`.
    """
    tower = open_model(bundle.file("query_tower.onnx"), CPU)
    items = np.asarray(bundle.array("item_embeddings"), np.float32)
    counted = np.asarray(bundle.array("popularity"))
    parts = [np.zeros((0, k), np.int64)]
    for low, high in batches(len(asked), bundle.spec.num_items):
        scores = query_vectors(tower, dataset, asked, low, high) @ items.T
        indptr, item = asked.histories(low, high)
        scores = np.where((np.diff(indptr) == 0)[:, None], counted, scores)
        parts.append(best_unseen(scores, indptr, item, k))
    about = f"cosine of query and item tower, {items.shape[1]} wide, exact search"
    return Road("tower", "tower", False, about, np.concatenate(parts), {})


def query_vectors(tower: Model, dataset: Dataset, asked: Asked, low: int, high: int) -> np.ndarray:
    """Return [high - low, d] float32, the query vectors of people low..high."""
    rows, queries = asked.rows[low:high], asked.queries
    vectors = []
    for first in range(0, len(rows), _ASKED_AT_ONCE):
        few = rows[first : first + _ASKED_AT_ONCE]
        arrays = query_arrays(dataset, queries.person[few], queries.start[few], queries.end[few], queries.now[few])
        vectors.append(tower.run(arrays, tower.outputs[:1])[0])
    return np.concatenate(vectors)


def engine_road(
    bundle: Bundle,
    tables: Path,
    dataset: Dataset,
    asked: Asked,
    k: int,
    name: str,
    label: str,
    progress: Callable[[int, int], None],
) -> Road:
    """Return what the engine answers to each person, whose profile is filled with what came before the boundary.

    Args:
        bundle: opened; its item ids are looked up in the dataset's vocabulary, so it may be of an earlier catalogue.
        tables: folder of the tables that the dataset was opened from.
        dataset, asked: who is asked, and when.
        k: length of the lists.
        name, label: of the road.
        progress: told how many of how many people were asked.
    """
    items = dataset.vocabularies["item"]
    lists = np.full((len(asked), k), NO_ITEM, np.int64)
    rungs: Counter[str] = Counter()
    scores: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="playbill-evaluate-") as folder,
        Store.open(Path(folder) / "state") as store,
    ):
        fill(store, tables, dataset, asked)
        engine = Engine.open(bundle, store, CPU)
        for low in range(0, len(asked), _ASKED_AT_ONCE):
            progress(low, len(asked))
            requests = [request_of(dataset, asked, row, k) for row in range(low, min(low + _ASKED_AT_ONCE, len(asked)))]
            for row, slate in enumerate(engine.recommend(requests), low):
                rungs[slate.rung] += 1
                scores.setdefault(slate.rung, []).extend(item.score for item in slate.items[:PLACES])
                found = items.indices([item.item_id for item in slate.items])
                found = found[found > 0]  # a bundle of an earlier catalogue may offer what is gone
                lists[row, : len(found)] = found
    progress(len(asked), len(asked))
    parts = ", ".join(f"{rung} {count}" for rung, count in rungs.most_common())
    about = f"the engine on bundle {bundle.version}, policy {bundle.policy.name}; answers by rung: {parts}"
    return Road(name, label, False, about, lists, dict(rungs.most_common()), scores)


def fill(store: Store, tables: Path, dataset: Dataset, asked: Asked) -> None:
    """Put what each person had done before they are asked, and what is declared of them, into an empty store."""
    queries = asked.queries
    fill_people(store, tables, dataset, asked.person, queries.start[asked.rows], queries.end[asked.rows])


def fill_people(
    store: Store, tables: Path, dataset: Dataset, person: np.ndarray, start: np.ndarray, end: np.ndarray
) -> None:
    """Put what some people had done, and what is declared of them, into an empty store.

    Args:
        tables: folder that the dataset was opened from.
        person: [P] int64, each once.
        start, end: [P] int64 pool rows of what they had done.
    """
    spec, pool = dataset.spec, dataset.pool
    store.declare(
        Declared(
            events=read_folder(tables).events,
            user_id_type=spec.user_id_type,
            item_id_type=spec.item_id_type,
            purposes=spec.purposes,
        )
    )
    users = dataset.user_columns.items()
    # all of them, as `playbill ingest` does: a model of answers may read others than the towers
    columns = {n: c for n, c in users if n != "user_id" and not pa.types.is_timestamp(c.array.type)}
    ids = dataset.user_ids
    store.set_features({ids[p]: {n: c[p] for n, c in columns.items()} for p in person.tolist() if ids[p] is not None})
    rows = [np.arange(low, high) for low, high in zip(start.tolist(), end.tolist(), strict=True)]
    there = np.concatenate([np.zeros(0, np.int64), *rows])
    names = ["event_id", "user_id", "session_id", "event", "at", "item_id", "value"]
    events = read_table(tables, "events")
    events = events.select([n for n in names if n in events.column_names]).take(pa.array(pool.source_row[there]))
    plain: dict[str, Any] = {n: events[n].to_pylist() for n in events.column_names if n != "at"}
    plain["at"] = pool.at[there].tolist()
    store.import_events([Event(**dict(zip(plain, row, strict=True))) for row in zip(*plain.values(), strict=True)], {})


def request_of(dataset: Dataset, asked: Asked, row: int, k: int) -> Request:
    """Return the request for `k` items of one of the people asked."""
    person = int(asked.person[row])
    return Request(
        user_id=dataset.people.user_ids[person],
        session_id=dataset.people.session_ids[person],
        request_id=f"evaluate-{row}",  # exploration draws by it: the same run gives the same lists
        k=k,
        at=int(asked.now[row]),
    )
