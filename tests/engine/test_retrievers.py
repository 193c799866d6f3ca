"""EASE and iALS in the engine, on real people: what the baselines answer is what is served, and reasons are true."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from playbill.baselines.ease import ease_neighbours, fit_ease
from playbill.baselines.ials import Ials, fit_ials, score_ials, write_ials
from playbill.baselines.neighbours import Neighbours, read_neighbours, score_neighbours, write_neighbours
from playbill.bundle.manifest import decode_draft
from playbill.bundle.open import Bundle, open_bundle
from playbill.bundle.policy import Policy, Surface
from playbill.bundle.rungs import RETRIEVER_FILES
from playbill.bundle.write import describe
from playbill.dataset.dataset import Dataset
from playbill.engine.engine import Engine
from playbill.engine.types import Request
from playbill.state.store import Store

USERS = [1, 13, 92, 196, 405, 655]
LENGTH = 120  # more than the towers of this bundle read
RETRIEVERS = RETRIEVER_FILES | {"ease": "ease.npz", "ials": "ials.npz"}


@pytest.fixture(scope="module")
def fitted(dataset: Dataset) -> tuple[Neighbours, Ials]:
    train = np.flatnonzero(dataset.split.part == 0)
    person, item, n = dataset.pool.person[train], dataset.pool.item[train], dataset.spec.num_items
    ease = ease_neighbours(fit_ease(person, item, n, l2=500), most=300, length=LENGTH)
    return ease, fit_ials(person, item, n, factors=16, alpha=1.0, l2=0.003, rounds=6)


@pytest.fixture(scope="module")
def folder(whole_bundle: Path, fitted: tuple[Neighbours, Ials], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("with-ease") / whole_bundle.name
    shutil.copytree(whole_bundle, path)
    write_neighbours(path / "ease.npz", fitted[0])
    write_ials(path / "ials.npz", fitted[1], LENGTH)
    manifest = decode_draft((path / "state.json").read_bytes()).manifest
    describe(path, msgspec.structs.replace(manifest, retrievers=RETRIEVERS))
    return path


def _engine(folder: Path, store: Store, surface: Surface, *lost: str) -> Engine:
    bundle = open_bundle(folder, require_sealed=False, verify=False)
    policy = Policy(surfaces={"slate": surface}, fallbacks=["item_knn", "popularity"])
    return Engine.open(dataclasses.replace(bundle, policy=policy), store)


def _history(engine: Engine, store: Store, user: int) -> np.ndarray:
    ids = [past.item_id for past in reversed(store.profile(user).history)]
    return engine.catalogue.vocabulary.indices(ids)


def _expected(engine: Engine, store: Store, user: int, scores: np.ndarray, k: int) -> list[int]:
    seen = engine.catalogue.vocabulary.indices(list(store.profile(user).seen))
    scores = scores.astype(np.float64)
    scores[seen], scores[0] = -np.inf, -np.inf
    return np.argsort(-scores, kind="stable")[:k].tolist()


def test_each_proposes_what_its_baseline_ranks_first(
    folder: Path, store: Store, fitted: tuple[Neighbours, Ials]
) -> None:
    ease, ials = fitted
    for name in ("ease", "ials"):
        engine = _engine(folder, store, Surface(quotas={name: 25}))
        assert name in engine.bundle.manifest.retrievers and not engine.parts.missing
        long = 0
        for user in USERS:
            history = _history(engine, store, user)
            long += len(history) > 50
            if name == "ease":
                scores = score_neighbours(ease, history, engine.catalogue.num_items)
            else:
                scores = score_ials(ials, np.asarray([0, len(history)]), history[::-1], LENGTH)[0]
            [slate] = engine.recommend([Request(user_id=user, k=25)])
            index = engine.catalogue.vocabulary.index
            assert {index(i.item_id) for i in slate.items} == set(_expected(engine, store, user, scores, 25))
            assert {i.retriever for i in slate.items} == {name}
        assert long >= 3  # histories beyond what the towers read were read


def test_every_candidate_has_every_score_that_was_asked_for(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import playbill.engine.proposing as module

    kept = []
    real = module.candidates_of
    monkeypatch.setattr(module, "candidates_of", lambda *given: kept.append(real(*given)) or kept[-1])
    quotas = {"item_knn": 10, "transitions": 10, "ease": 10, "ials": 10, "popularity": 10}
    _engine(folder, store, Surface(quotas=quotas)).recommend([Request(user_id=196, k=50)])
    found = kept[-1]
    assert set(found.scores) == {"item_knn", "transitions", "ease", "ials", "trending", "popularity"}
    assert all(len(v) == len(found) and np.isfinite(v).all() for v in found.scores.values())
    assert np.bincount(found.retriever, minlength=8).tolist() == [0, 10, 10, 10, 10, 0, 0, 10]
    # who asks for neither does not pay for them; who weighs one without a quota gets its score and none of its items
    _engine(folder, store, Surface()).recommend([Request(user_id=196)])
    assert not {"ease", "ials"} & set(kept[-1].scores) and "ease" not in kept[-1].evidence
    _engine(folder, store, Surface(weights={"interact": 1.0, "ials": 0.1})).recommend([Request(user_id=196)])
    assert "ials" in kept[-1].scores and "ease" not in kept[-1].scores and 4 not in kept[-1].retriever


def test_reasons_name_what_carries_the_score(folder: Path, store: Store, fitted: tuple[Neighbours, Ials]) -> None:
    """Of a surface that weighs one retriever alone: the item whose removal takes the most of the share of the best."""
    ease, ials = fitted
    bundle = open_bundle(folder, require_sealed=False, verify=False)
    for name in ("ease", "ials"):
        surface = Surface(weights={name: 1.0}, quotas={name: 20})
        policy = Policy(surfaces={"slate": surface})
        engine = Engine.open(dataclasses.replace(bundle, policy=policy), store)
        index, n, checked = engine.catalogue.vocabulary.index, engine.catalogue.num_items, 0

        def shares(history: np.ndarray, name: str = name, n: int = n) -> np.ndarray:
            if name == "ease":
                scores = score_neighbours(ease, history, n)
            else:
                scores = score_ials(ials, np.asarray([0, len(history)]), history[::-1], LENGTH)[0]
            return scores / scores.max()

        for user in USERS[:2]:
            history = _history(engine, store, user)[:LENGTH]
            [slate] = engine.recommend([Request(user_id=user, k=20)])
            stars = {past.item_id: past.value for past in store.profile(user).history}
            speaks = np.asarray([stars[engine.catalogue.ids[row]] >= 3 for row in history])
            whole = shares(history)
            without = np.stack([shares(np.delete(history, row)) for row in range(len(history))])
            for item in slate.items:
                row, fact = index(item.item_id), item.reason.fact
                falls = np.where(speaks, whole[row] - without[:, row], -1)
                if item.reason.kind == "taste":
                    assert falls.max() < 1e-3
                    continue
                named = int(np.flatnonzero(history == index(fact["item_id"]))[0])
                assert item.reason.kind == "because" and falls[named] > 0.9 * falls.max()
                assert fact["fall"] == pytest.approx(falls[named], abs=2e-3)
                checked += 1
        assert checked > 30


def test_files_that_cannot_be_used_are_left_out_with_their_reason(folder: Path, store: Store, tmp_path: Path) -> None:
    path = tmp_path / folder.name
    shutil.copytree(folder, path)
    table = read_neighbours(path / "ease.npz")
    table.weight[3] = np.nan
    write_neighbours(path / "ease.npz", table)
    (path / "ials.npz").write_bytes(b"PK\x03\x04 half")
    quotas = {"transitions": 5, "ease": 10, "ials": 10}
    engine = _engine(path, store, Surface(quotas=quotas))
    missing = engine.describe()["missing"]
    assert "not finite" in missing["ease"] and "holds no factors of iALS" in missing["ials"]
    [slate] = engine.recommend([Request(user_id=196, k=20)])
    assert len(slate.items) == 20 and slate.rung == "item_knn"
    assert {i.retriever for i in slate.items} == {"transitions", "popularity"}
    (path / "ials.npz").unlink()
    assert "ials.npz: not in bundle v1" in _engine(path, store, Surface()).describe()["missing"]["ials"]
    # one that nothing names is not looked for, and nothing is said to be missing
    engine = Engine.open(open_bundle(folder.parent / folder.name, require_sealed=False, verify=False), store)
    assert not engine.parts.missing


def test_an_older_bundle_has_neither(bundle: Bundle, store: Store) -> None:
    engine = Engine.open(bundle, store)
    assert set(engine.parts.tables) == {"item_knn", "transitions"} and engine.parts.ials is None
    assert not engine.parts.missing
