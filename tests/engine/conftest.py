"""A bundle of real people and films, with graphs small enough to compute by hand, and a store that knows them.

The item vectors are a singular value decomposition of the ratings; the query tower is their mean over the history,
newer films counting more; the ranker weighs cosine, popularity, the person's mean rating and the film's year.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import scipy.sparse.linalg
from rich.console import Console

from playbill.baselines.history import binary
from playbill.baselines.item_knn import fit_cooccurrence, fit_transitions
from playbill.baselines.neighbours import write_neighbours
from playbill.baselines.popularity import popularity, trending, write_scores
from playbill.bundle.manifest import Manifest
from playbill.bundle.onnx_file import read_onnx
from playbill.bundle.open import Bundle, open_bundle
from playbill.bundle.policy import Policy, write_policy
from playbill.bundle.rungs import Rung
from playbill.bundle.write import describe, stage
from playbill.dataset.dataset import Dataset, open_dataset
from playbill.dataset.settings import SplitSettings
from playbill.features.build import write_features
from playbill.features.settings import FeatureSettings
from playbill.index.build import build_index
from playbill.index.item_index import write_index
from playbill.index.settings import IndexSettings
from playbill.state.ingest import ingest
from playbill.state.settings import IngestSettings
from playbill.state.store import Store

WIDTH = 16
VERSION = "v1"

GRAPHS = {
    "query_tower": """
        <ir_version: 10, opset_import: ["": 20]>
        query_tower (int64[B, L] history_item, float[B, L] history_age) => (float[B, 16] query)
            <float[N, 16] table, float[1, 16] start> {
            zero = Constant <value = int64 {0}> ()
            axis = Constant <value = int64[1] {1}> ()
            last = Constant <value = int64[1] {-1}> ()
            known = Max (history_item, zero)
            rows = Gather (table, known)
            there = Greater (history_item, zero)
            mask = Cast <to = 1> (there)
            younger = Neg (history_age)
            decay = Exp (younger)
            weight = Mul (mask, decay)
            weights = Unsqueeze (weight, last)
            weighted = Mul (rows, weights)
            sum = ReduceSum <keepdims = 0> (weighted, axis)
            moved = Add (sum, start)
            query = LpNormalization <axis = 1, p = 2> (moved)
        }""",
    "item_tower": """
        <ir_version: 10, opset_import: ["": 20]>
        item_tower (int64[N] item_index) => (float[N, 16] embedding) <float[M, 16] table> {
            embedding = Gather (table, item_index)
        }""",
    "ranker": """
        <ir_version: 10, opset_import: ["": 20]>
        ranker (float[U, L] history_value, int64[N] cand_user, int64[N] item_index, float[N] item_release_year,
                float[N] retrieval_score)
            => (float[N] logit_interact, float[N] logit_like, float[N] p_interact, float[N] p_like) <float[M] bias> {
            axis = Constant <value = int64[1] {1}> ()
            four = Constant <value = float {4.0}> ()
            little = Constant <value = float {0.1}> ()
            near = Mul (retrieval_score, four)
            known = Gather (bias, item_index)
            logit_interact = Add (near, known)
            mean = ReduceMean <keepdims = 0> (history_value, axis)
            taste = Gather (mean, cand_user)
            year = Mul (item_release_year, little)
            liking = Add (taste, year)
            logit_like = Add (liking, near)
            p_interact = Sigmoid (logit_interact)
            p_like = Sigmoid (logit_like)
        }""",
}


def make_graph(name: str, **weights: np.ndarray) -> bytes:
    import onnx
    from onnx import numpy_helper

    model = onnx.parser.parse_model(GRAPHS[name])
    del model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in weights.items())
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def dataset(ml100k_tables: Path) -> Dataset:
    return open_dataset(ml100k_tables, FeatureSettings(), SplitSettings())


@pytest.fixture(scope="session")
def whole_bundle(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a staged bundle with every rung, made from the training part."""
    train = np.flatnonzero(dataset.split.part == 0)
    person, item, at = dataset.pool.person[train], dataset.pool.item[train], dataset.pool.at[train]
    num_items = dataset.spec.num_items
    ratings = binary(person, item, num_items)
    _, _, vectors = scipy.sparse.linalg.svds(ratings, k=WIDTH, random_state=0)
    table = np.ascontiguousarray(vectors.T, np.float32)
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-6)
    table[0] = 0
    counts = popularity(item, num_items)
    counts[0] = 0
    weights = {
        "query_tower": {"table": table, "start": table[1:2] * 1e-3},
        "item_tower": {"table": table},
        "ranker": {"bias": np.log1p(counts).astype(np.float32) - 6},
    }
    with stage(tmp_path_factory.mktemp("bundles"), VERSION) as folder:
        write_features(folder, dataset.spec, dataset.vocabularies)
        dataset.items.write_parquet(folder / "items.parquet")
        np.savez(folder / "item_arrays.npz", **dataset.item_arrays)
        (folder / "policy.json").write_bytes(write_policy(Policy()))
        write_scores(folder / "popularity.npy", popularity(item, num_items))
        write_scores(folder / "trending.npy", trending(item, at, num_items, int(at.max()) + 1))
        write_neighbours(folder / "neighbours.npz", fit_cooccurrence(person, item, num_items, decay=0.3))
        write_neighbours(folder / "transitions.npz", fit_transitions(person, item, num_items))
        np.save(folder / "item_embeddings.npy", table)
        index = build_index(table, np.arange(1, num_items + 1), IndexSettings(threads=1))
        write_index(index, folder / "items.faiss")
        signatures = {}
        for name, arrays in weights.items():
            (folder / f"{name}.onnx").write_bytes(make_graph(name, **arrays))
            signatures[name] = read_onnx(folder / f"{name}.onnx").signature
        carried = ["popularity", "item_knn", "towers", "ranker"]
        rungs = {name: Rung(carried=True, have=80_000, need=10_000) for name in carried}
        (folder / "rungs.json").write_bytes(msgspec.json.encode(rungs))
        describe(
            folder,
            Manifest(
                version=VERSION,
                created_at="2024-01-01T00:00:00Z",
                code_version="0.1.0",
                dataset_fingerprint=dataset.fingerprint,
                spec_hash=dataset.spec.hash(),
                rungs=carried,
                models=signatures,
            ),
        )
        path = folder.parent / VERSION
    return path


@pytest.fixture
def bundle(whole_bundle: Path) -> Bundle:
    return open_bundle(whole_bundle, require_sealed=False, verify=False)


@pytest.fixture
def bundle_without(whole_bundle: Path, tmp_path: Path) -> Callable[..., Bundle]:
    """A copy of the bundle from which files were lost after it was opened."""

    def make(*lost: str) -> Bundle:
        path = tmp_path / "bundles" / VERSION
        shutil.copytree(whole_bundle, path)
        opened = open_bundle(path, require_sealed=False, verify=False)
        for name in lost:
            (path / name).unlink()
        return opened

    return make


@pytest.fixture(scope="session")
def loaded_store(ml100k_tables: Path, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a store with everybody's events of the training part."""
    path = tmp_path_factory.mktemp("state") / "state"
    with Store.open(path) as store:
        ingest(ml100k_tables, store, IngestSettings(until=str(dataset.split.train_until_us)), Console(stderr=True))
    return path


@pytest.fixture
def store(loaded_store: Path, tmp_path: Path) -> Iterator[Store]:
    """A store of one's own to write into."""
    shutil.copytree(loaded_store, tmp_path / "state")
    with Store.open(tmp_path / "state") as opened:
        yield opened
