"""How long a new item takes, from the store's answer that it is safe to the slate that shows it.

A real bundle on a catalogue of 100,000, an engine that has answered, a person with a past; new items are known ones of
the bundle under new ids, so that their content is real. Measured by `proof_index.py`.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from playbill.bundle.open import open_bundle
from playbill.bundle.policy import Policy, Surface
from playbill.engine.engine import Engine
from playbill.engine.types import Request
from playbill.features.spec import Side
from playbill.index.live import search_live
from playbill.state.events import Event
from playbill.state.store import Store

COUNTS = (1, 100, 1_000, 1)


def fresh_items(bundle: Path) -> list[dict[str, Any]]:
    """Return, for each number of items that come at once, milliseconds until stored, and until shown after that."""
    opened = open_bundle(bundle, require_sealed=False, verify=False)
    surface = Surface(weights={"tower": 1.0}, quotas={"tower": 1_000})
    opened = dataclasses.replace(opened, policy=Policy(surfaces={"slate": surface}))
    kind = int if opened.spec.user_id_type == "int64" else str
    item_kind = int if opened.spec.item_id_type == "int64" else str
    names = ["title", *(f.name for f in opened.spec.side(Side.ITEM))]
    rng, found, number = np.random.default_rng(0), [], 10**9
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "state") as store:
        engine = Engine.open(opened, store)
        past = [engine.catalogue.ids[i] for i in engine.catalogue.popular_order[:30:3]]
        name = opened.spec.events[0].name
        store.append([Event(event_id=str(i), event=name, user_id=kind(1), item_id=x) for i, x in enumerate(past)])
        store.set_features({kind(1): {f"consent_{purpose}": True for purpose in opened.spec.purposes}})
        request = Request(user_id=kind(1), request_id="r", k=1_000)
        [slate] = engine.recommend([request])
        assert slate.rung in ("full", "retrieval"), slate.rung_reason
        # contents of items that this person is shown; whether their like is shown as well, the item tower decides
        near = [engine.catalogue.index(item.item_id) - 1 for item in slate.items if item.retriever == "tower"]
        for count in COUNTS:
            rows = opened.items.select(names)[rng.choice(near, count).tolist()].to_dicts()
            new = {item_kind(number + i): row for i, row in enumerate(rows)}
            number += count
            began = time.perf_counter()
            store.set_items(new)
            stored = time.perf_counter()
            [slate] = engine.recommend([request])
            shown = time.perf_counter()
            [again] = engine.recommend([request])
            settled = time.perf_counter()
            there = [item.item_id for item in slate.items if item.item_id in new]
            stock = engine._stock
            late = np.asarray([stock.catalogue.late[item_id] for item_id in new])
            assert stock.index is not None and stock.embeddings is not None
            vectors = stock.embeddings[late]
            [best, _] = search_live(stock.index, vectors, 1)
            nearest = np.concatenate(best) >= (vectors**2).sum(1) - 1e-5
            assert nearest.all(), "an item is its own nearest, or as near as one of equal content"
            found.append(
                {
                    "items": count,
                    "stored_ms": round((stored - began) * 1e3, 2),
                    "first_slate_ms": round((shown - stored) * 1e3, 2),
                    "next_slate_ms": round((settled - shown) * 1e3, 2),
                    "found_by_their_own_vector": int(nearest.sum()),
                    "shown_among_1000": len(there),
                    "fresh_in_the_engine": engine.describe()["fresh_items"],
                }
            )
            assert [i.item_id for i in again.items] == [i.item_id for i in slate.items]
    return found
