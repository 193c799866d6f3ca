"""A tiny bundle whose graphs really run: 5 items, width 4."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from playbill.bundle.manifest import Manifest
from playbill.bundle.onnx_file import read_onnx
from playbill.bundle.policy import Policy, write_policy
from playbill.bundle.rungs import Rung
from playbill.bundle.verify import LABEL_MODEL, LABEL_SPEC, LABEL_VERSION
from playbill.bundle.write import describe, stage
from playbill.features.spec import Encoding, EventCode, FeatureSpec, Field, Side, write_spec
from playbill.features.vocabulary import Vocabulary, write_vocabularies

NUM_ITEMS, WIDTH = 5, 4

GRAPHS = {
    "query_tower": """
        <ir_version: 10, opset_import: ["": 20]>
        query_tower (int64[B, L] history_item) => (float[B, 4] query) <float[6, 4] table> {
            zero = Constant <value = int64 {0}> ()
            axis = Constant <value = int64[1] {1}> ()
            known = Max (history_item, zero)
            rows = Gather (table, known)
            sum = ReduceSum <keepdims = 0> (rows, axis)
            query = LpNormalization <axis = 1, p = 2> (sum)
        }""",
    "item_tower": """
        <ir_version: 10, opset_import: ["": 20]>
        item_tower (int64[N] item_index) => (float[N, 4] embedding) <float[6, 4] table> {
            rows = Gather (table, item_index)
            embedding = LpNormalization <axis = 1, p = 2> (rows)
        }""",
    "ranker": """
        <ir_version: 10, opset_import: ["": 20]>
        ranker (float[N] retrieval_score, int64[N] item_index)
            => (float[N] logit_interact, float[N] p_interact) <float[6, 4] table> {
            axis = Constant <value = int64[1] {1}> ()
            rows = Gather (table, item_index)
            sum = ReduceSum <keepdims = 0> (rows, axis)
            logit_interact = Add (sum, retrieval_score)
            p_interact = Sigmoid (logit_interact)
        }""",
}


def make_graph(name: str, version: str, spec_hash: str, table: np.ndarray) -> bytes:
    import onnx
    from onnx import numpy_helper

    model = onnx.parser.parse_model(GRAPHS[name])
    del model.graph.initializer[:]
    model.graph.initializer.append(numpy_helper.from_array(table, "table"))
    onnx.helper.set_model_props(model, {LABEL_MODEL: name, LABEL_VERSION: version, LABEL_SPEC: spec_hash})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def inputs_of(name: str) -> dict[str, np.ndarray]:
    if name == "query_tower":
        return {"history_item": np.array([[1, 2, -1], [5, -1, -1]])}
    items = {"item_index": np.array([1, 3, 5, 0])}
    return items if name == "item_tower" else {**items, "retrieval_score": np.array([0.5, -0.5, 0, 1], np.float32)}


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Stage a bundle in tmp_path/bundles; `models=()` makes one of baselines alone."""

    def make(version: str = "v1", models: tuple[str, ...] = tuple(GRAPHS)) -> Path:
        import onnxruntime as ort

        rng = np.random.default_rng(0)
        items = Vocabulary([11, 12, 13, 14, 15])
        genres = Vocabulary(["comedy", "drama"])
        spec = FeatureSpec(
            user_id_type="int64",
            item_id_type="int64",
            history_length=3,
            events=[EventCode(name="rating", code=1)],
            fields=[Field(name="genre", side=Side.ITEM, encoding=Encoding.CATEGORY, size=3)],
            num_items=NUM_ITEMS,
            vocabularies={"item": items.hash(), "item_genre": genres.hash()},
        )
        table = rng.normal(size=(NUM_ITEMS + 1, WIDTH)).astype(np.float32)
        with stage(tmp_path / "bundles", version) as folder:
            (folder / "features.json").write_bytes(write_spec(spec))
            write_vocabularies({"item": items, "item_genre": genres}, folder / "vocab")
            pl.DataFrame({"item_index": range(1, 6), "item_id": items.values, "title": list("abcde")}).write_parquet(
                folder / "items.parquet"
            )
            np.savez(folder / "item_arrays.npz", item_genre=np.array([0, 1, 2, 1, 2, 0]))
            (folder / "policy.json").write_bytes(write_policy(Policy()))
            for name in ("popularity", "trending"):
                np.save(folder / f"{name}.npy", rng.random(NUM_ITEMS + 1).astype(np.float32))
            for name in ("neighbours", "transitions"):
                np.savez(folder / f"{name}.npz", indptr=np.zeros(7, np.int64))
            (folder / "report").mkdir()
            (folder / "report" / "parity.json").write_text("{}")
            sample: dict[str, np.ndarray] = {}
            signatures = {}
            for name in models:
                path = folder / f"{name}.onnx"
                path.write_bytes(make_graph(name, version, spec.hash(), table))
                signatures[name] = read_onnx(path).signature
                inputs = inputs_of(name)
                session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
                answers = zip(signatures[name].outputs, session.run(None, inputs), strict=True)
                sample |= {f"{name}/in/{i}": a for i, a in inputs.items()}
                sample |= {f"{name}/out/{o}": a for o, a in answers}
            carried = ["popularity", "item_knn"]
            if models:
                np.savez(folder / "parity.npz", **sample)
                np.save(folder / "item_embeddings.npy", table)
                (folder / "items.faiss").write_bytes(b"opened by the index room")
                carried += ["towers", "ranker"]
            rungs = {name: Rung(carried=True, have=20_000, need=10_000) for name in carried}
            rungs["uplift"] = Rung(carried=False, have=0, need=1_000, missing="1,000 decisions with propensities")
            (folder / "rungs.json").write_bytes(msgspec.json.encode(rungs))
            manifest = Manifest(
                version=version,
                created_at="2024-01-01T00:00:00Z",
                code_version="0.1.0",
                dataset_fingerprint="f" * 64,
                spec_hash=spec.hash(),
                rungs=carried,
                models=signatures,
            )
            describe(folder, manifest)
        return tmp_path / "bundles" / version

    return make
