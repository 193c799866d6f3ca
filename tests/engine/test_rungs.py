"""Each part taken away, before and while answering: what is left answers, says so, and is counted."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest

from playbill.bundle.open import Bundle
from playbill.bundle.policy import Policy
from playbill.bundle.rungs import Rung
from playbill.engine.engine import Engine
from playbill.engine.settings import EngineSettings, Provider
from playbill.engine.types import Request
from playbill.errors import ConfigError, ProviderError
from playbill.state.events import Event
from playbill.state.store import Store

from .conftest import make_graph

AT = 889_000_000_000_000
KNOWN = Request(user_id=196, request_id="r", at=AT)
UNKNOWN = Request(request_id="r", at=AT)


@pytest.mark.parametrize(
    ("lost", "rungs", "rung", "reason"),
    [
        ((), ["full", "retrieval", "item_knn", "popularity"], "full", ""),
        (("ranker.onnx",), ["retrieval", "item_knn", "popularity"], "retrieval", "ranker.onnx is not in bundle v1"),
        (("query_tower.onnx",), ["item_knn", "popularity"], "item_knn", "query_tower.onnx is not in bundle v1"),
        (("item_embeddings.npy",), ["item_knn", "popularity"], "item_knn", "item_embeddings.npy is not in bundle v1"),
        (
            ("items.faiss",),
            ["full", "retrieval", "item_knn", "popularity"],
            "full",
            "items.faiss is not in bundle v1: searched exactly",
        ),
        (("neighbours.npz",), ["full", "retrieval", "item_knn", "popularity"], "full", ""),
        (("query_tower.onnx", "neighbours.npz"), ["item_knn", "popularity"], "item_knn", "query_tower.onnx"),
        (
            ("query_tower.onnx", "neighbours.npz", "transitions.npz"),
            ["popularity"],
            "popularity",
            "query_tower.onnx is not in bundle v1; neighbours.npz is not in bundle v1; transitions.npz",
        ),
        (("popularity.npy", "trending.npy"), ["full", "retrieval", "item_knn", "popularity"], "full", ""),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else None,
)
def test_lost_files(
    bundle_without: Callable[..., Bundle],
    store: Store,
    lost: tuple[str, ...],
    rungs: list[str],
    rung: str,
    reason: str,
) -> None:
    engine = Engine.open(bundle_without(*lost), store)
    assert engine.rungs == rungs
    known, unknown = engine.recommend([KNOWN, UNKNOWN])
    assert known.rung == rung and known.rung_reason.startswith(reason) and bool(known.rung_reason) == bool(reason)
    assert unknown.rung == "popularity" and ("nobody known" in unknown.rung_reason or rungs == ["popularity"])
    for slate in (known, unknown):
        assert len(slate.items) == 20
        assert all(bool(item.probabilities) == (slate.rung == "full") for item in slate.items)
        scores = [item.score for item in slate.items]
        assert scores == sorted(scores, reverse=True)
    assert not engine.faults and engine.describe()["slates"] == {rung: 1 + (rung == "popularity")} | (
        {"popularity": 1} if rung != "popularity" else {}
    )


def test_exact_search_finds_what_the_index_finds(
    bundle_without: Callable[..., Bundle], bundle: Bundle, store: Store
) -> None:
    store.set_items({i: {"available": False} for i in range(1, 200)})  # through the filter as well
    with_index = Engine.open(bundle, store).recommend([KNOWN])[0]
    without = Engine.open(bundle_without("items.faiss"), store).recommend([KNOWN])[0]
    assert [i.item_id for i in with_index.items] == [i.item_id for i in without.items]


def test_what_the_data_do_not_carry_is_said_in_their_words(bundle_without: Callable[..., Bundle], store: Store) -> None:
    bundle = bundle_without("query_tower.onnx", "ranker.onnx")
    told = "2,000 more events: 8,000 of 10,000"
    bundle.sufficiency["towers"] = Rung(carried=False, have=8_000, need=10_000, missing=told)
    [slate] = Engine.open(bundle, store).recommend([KNOWN])
    assert slate.rung == "item_knn" and told in slate.rung_reason


def test_a_policy_may_leave_rungs_out(bundle: Bundle, store: Store) -> None:
    for fallbacks in (["retrieval", "popularity"], ["popularity"], ["item_knn", "popularity"]):
        engine = Engine.open(dataclasses.replace(bundle, policy=Policy(fallbacks=fallbacks)), store)
        [slate] = engine.recommend([KNOWN])
        assert engine.rungs == fallbacks and slate.rung == fallbacks[0] and slate.rung_reason == ""


def test_graphs_that_do_not_load_are_named(bundle_without: Callable[..., Bundle], store: Store) -> None:
    bundle = bundle_without()
    (bundle.path / "query_tower.onnx").write_bytes(b"\x08\x07 no graph")
    engine = Engine.open(bundle, store)
    [slate] = engine.recommend([KNOWN])
    assert slate.rung == "item_knn" and slate.rung_reason.startswith("query_tower.onnx does not load: ")


def test_a_ranker_that_fails_while_answering(bundle_without: Callable[..., Bundle], store: Store) -> None:
    """The graph is whole and answers for the first items; its table is too short for the others."""
    bundle = bundle_without()
    (bundle.path / "ranker.onnx").write_bytes(make_graph("ranker", bias=np.zeros(40, np.float32)))
    engine = Engine.open(bundle, store)
    assert engine.rungs[0] == "full"
    for count in (1, 2):
        slates = engine.recommend([KNOWN, UNKNOWN])
        assert [s.rung for s in slates] == ["retrieval", "popularity"]
        assert slates[0].rung_reason.startswith("the ranker failed: ") and len(slates[0].items) == 20
        assert not slates[0].items[0].probabilities
        assert engine.faults == {"ranker": count}
    # and a request that it can answer is on the best rung again
    [slate] = engine.recommend([msgspec.structs.replace(KNOWN, exclude=list(range(40, 1683)))])
    assert slate.rung == "full" and slate.rung_reason == ""


def test_a_tower_that_fails_while_answering(bundle_without: Callable[..., Bundle], store: Store) -> None:
    bundle = bundle_without()
    table = np.load(bundle.path / "item_embeddings.npy")[:5]
    (bundle.path / "query_tower.onnx").write_bytes(make_graph("query_tower", table=table, start=table[1:2]))
    engine = Engine.open(bundle, store)
    [slate] = engine.recommend([KNOWN])
    assert slate.rung == "item_knn" and slate.rung_reason.startswith("the query tower failed: ")
    assert len(slate.items) == 20 and engine.faults == {"query_tower": 1}
    assert {i.retriever for i in slate.items} <= {"item_knn", "transitions", "trending", "popularity"}
    assert all(i.reason.kind != "similar" for i in slate.items)


def test_graphs_that_answer_with_no_number(bundle_without: Callable[..., Bundle], store: Store) -> None:
    """An item whose weights are NaN spoils the answers that meet it, and those alone."""
    bundle = bundle_without()
    counts = np.load(bundle.path / "popularity.npy")
    bad = 50  # seen by 13, not by 196
    bias = np.log1p(np.maximum(counts, 0)).astype(np.float32) - 6
    bias[bad] = np.nan
    (bundle.path / "ranker.onnx").write_bytes(make_graph("ranker", bias=bias))
    seen = {u: 50 in store.profile(u).seen for u in (13, 196)}
    assert seen == {13: True, 196: False}
    engine = Engine.open(bundle, store)
    slates = engine.recommend([Request(user_id=13, request_id="r"), KNOWN])
    assert [s.rung for s in slates] == ["full", "retrieval"] and "not finite" in slates[1].rung_reason
    table = np.load(bundle.path / "item_embeddings.npy")
    table[bad] = np.nan
    (bundle.path / "query_tower.onnx").write_bytes(make_graph("query_tower", table=table, start=table[1:2]))
    engine = Engine.open(bundle, store)
    store.append([Event(event_id="now", event="rate", user_id=13, item_id=bad, value=5)])
    slates = engine.recommend([Request(user_id=13, request_id="r"), msgspec.structs.replace(KNOWN, exclude=[bad])])
    assert [s.rung for s in slates] == ["item_knn", "full"] and "not finite" in slates[0].rung_reason
    assert all(np.isfinite(i.score) for s in slates for i in s.items) and engine.faults == {"query_tower": 1}


_BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("onnxruntime", "torch", "lightning", "ray", "hydra"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
import json
from playbill.bundle.open import open_bundle
from playbill.engine.engine import Engine
from playbill.engine.settings import EngineSettings
from playbill.engine.types import Request
from playbill.errors import ProviderError
from playbill.state.store import Store
bundle = open_bundle(sys.argv[1], require_sealed=False, verify=False)
with Store.open(sys.argv[2]) as store:
    engine = Engine.open(bundle, store)
    [slate] = engine.recommend([Request(user_id=196, request_id="r")])
    try:
        Engine.open(bundle, store, EngineSettings(require_gpu=True))
    except ProviderError as error:
        refused = str(error)
    print(json.dumps([slate.rung, slate.rung_reason, len(slate.items), engine.describe(), refused]))
"""


def test_without_onnxruntime(whole_bundle: Path, store: Store) -> None:
    store.close()
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", _BLOCKED, str(whole_bundle), str(store.path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    rung, reason, length, described, refused = json.loads(ran.stdout)
    assert (rung, length) == ("item_knn", 20) and reason.startswith("onnxruntime cannot be imported")
    assert described["models"] == {} and described["rungs"] == ["item_knn", "popularity"]
    assert "onnxruntime cannot be imported" in refused and "GPU is required" in refused


def test_providers_are_what_the_sessions_say(bundle: Bundle, store: Store) -> None:
    engine = Engine.open(bundle, store)
    there = onnxruntime.get_available_providers()
    for name, where in engine.models().items():
        session = {m.name: m.session for m in engine.parts.models}[name]
        assert where["provider"] == session.get_providers()[0] in there
        assert where["device"] == ("gpu" if where["provider"].startswith("CUDA") else "cpu")
    assert set(engine.models()) == {"query_tower", "ranker"}
    on_cpu = Engine.open(bundle, store, EngineSettings(provider=Provider.cpu))
    assert {w["device"] for w in on_cpu.models().values()} == {"cpu"}
    described = engine.describe()
    assert described["models"] == engine.models() and described["index"] == "flat" and described["missing"] == {}


def test_a_required_gpu_that_is_not_there(bundle: Bundle, bundle_without: Callable[..., Bundle], store: Store) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime is built for CUDA")
    with pytest.raises(ProviderError, match=r"GPU is required.*CPUExecutionProvider"):
        Engine.open(bundle, store, EngineSettings(require_gpu=True))
    with pytest.raises(ProviderError, match=r"ranker.onnx is not in bundle"):
        Engine.open(bundle_without("ranker.onnx"), store, EngineSettings(require_gpu=True))
    with pytest.raises(ConfigError, match="cannot be had"):
        EngineSettings(require_gpu=True, provider=Provider.cpu)


@pytest.mark.gpu
def test_a_gpu_is_used_where_there_is_one(bundle: Bundle, store: Store) -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA")
    engine = Engine.open(bundle, store, EngineSettings(require_gpu=True))
    assert {w["device"] for w in engine.models().values()} == {"gpu"}
    on_cpu = Engine.open(bundle, store, EngineSettings(provider=Provider.cpu))
    mine, theirs = engine.recommend([KNOWN])[0], on_cpu.recommend([KNOWN])[0]
    np.testing.assert_allclose([i.score for i in mine.items], [i.score for i in theirs.items], atol=1e-4)
