"""A real home: MovieLens-100K, everybody's events in the state, and two sealed bundles of its baselines.

The published one has towers and a ranker besides: graphs small enough to be written here, over item vectors that are a
singular value decomposition of the item-to-item weights.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

from playbill.baselines.neighbours import read_neighbours
from playbill.bundle.manifest import State
from playbill.bundle.onnx_file import read_onnx
from playbill.bundle.open import open_bundle
from playbill.bundle.rungs import Rung
from playbill.bundle.verify import LABEL_MODEL, LABEL_SPEC, LABEL_VERSION
from playbill.bundle.write import current, describe, publish, seal, set_state
from playbill.cli import compose
from playbill.engine.engine import Engine
from playbill.engine.types import Request
from playbill.index.build import build_index
from playbill.index.item_index import write_index
from playbill.index.settings import IndexSettings
from playbill.release.scores import reference_of
from playbill.state.store import Store
from playbill.tables.files import write_atomic

WIDTH = 16
GRAPHS = {
    "query_tower": """
        <ir_version: 10, opset_import: ["": 20]>
        query_tower (int64[B, L] history_item) => (float[B, 16] query) <float[N, 16] table, float[1, 16] start> {
            zero = Constant <value = int64 {0}> ()
            axis = Constant <value = int64[1] {1}> ()
            known = Max (history_item, zero)
            rows = Gather (table, known)
            sum = ReduceSum <keepdims = 0> (rows, axis)
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
        ranker (float[U, L] history_value, int64[N] cand_user, int64[N] item_index, float[N] retrieval_score)
            => (float[N] logit_interact, float[N] logit_like, float[N] p_interact, float[N] p_like) <float[M] bias> {
            axis = Constant <value = int64[1] {1}> ()
            four = Constant <value = float {4.0}> ()
            near = Mul (retrieval_score, four)
            known = Gather (bias, item_index)
            logit_interact = Add (near, known)
            mean = ReduceMean <keepdims = 0> (history_value, axis)
            taste = Gather (mean, cand_user)
            logit_like = Add (taste, near)
            p_interact = Sigmoid (logit_interact)
            p_like = Sigmoid (logit_like)
        }""",
}


def add_graphs(folder: Path) -> None:
    """Give a staged bundle of baselines its towers, ranker and index."""
    import onnx
    import onnxruntime as ort

    bundle = open_bundle(folder, require_sealed=False)
    neighbours = read_neighbours(folder / "neighbours.npz")
    shape = (bundle.spec.num_items + 1,) * 2
    weights = csr_array((neighbours.weight.astype(np.float64), neighbours.item, neighbours.indptr), shape)
    table = np.ascontiguousarray(svds(weights, k=WIDTH, rng=0)[2].T, np.float32)
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-6)
    table[0] = 0
    np.save(folder / "item_embeddings.npy", table)
    write_index(build_index(table, np.arange(1, len(table)), IndexSettings(threads=1)), folder / "items.faiss")
    counts = np.nan_to_num(np.load(folder / "popularity.npy"), neginf=0)
    constants = {
        "query_tower": {"table": table, "start": table[1:2] * 1e-3},
        "item_tower": {"table": table},
        "ranker": {"bias": np.log1p(counts).astype(np.float32)},
    }
    history = bundle.spec.history_length
    inputs: dict[str, dict[str, np.ndarray]] = {
        "query_tower": {"history_item": np.tile(np.arange(history), (2, 1))},
        "item_tower": {"item_index": np.arange(4)},
        "ranker": {
            "history_value": np.ones((2, history), np.float32),
            "cand_user": np.array([0, 1, 1]),
            "item_index": np.arange(3),
            "retrieval_score": np.zeros(3, np.float32),
        },
    }
    sample: dict[str, np.ndarray] = {}
    for name, text in GRAPHS.items():
        model = onnx.parser.parse_model(text)
        del model.graph.initializer[:]
        model.graph.initializer.extend(onnx.numpy_helper.from_array(a, key) for key, a in constants[name].items())
        labels = {LABEL_MODEL: name, LABEL_VERSION: folder.name, LABEL_SPEC: bundle.spec.hash()}
        onnx.helper.set_model_props(model, labels)
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
        answers = ort.InferenceSession(model.SerializeToString()).run(None, inputs[name])
        sample |= {f"{name}/in/{key}": value for key, value in inputs[name].items()}
        sample |= {f"{name}/out/{o.name}": a for o, a in zip(model.graph.output, answers, strict=True)}
    np.savez(folder / "parity.npz", **sample)
    rungs = {**bundle.sufficiency, **{r: Rung(carried=True, have=1, need=1) for r in ("towers", "ranker")}}
    (folder / "rungs.json").write_bytes(msgspec.json.encode(rungs))
    carried = [name for name, rung in rungs.items() if rung.carried]
    models = {name: read_onnx(folder / f"{name}.onnx").signature for name in GRAPHS}
    describe(folder, msgspec.structs.replace(bundle.manifest, models=models, rungs=carried))


def add_scores(folder: Path, state: Path) -> None:
    """Note in a staged bundle which scores it shows, as its evaluation does."""
    shown: dict[str, list[float]] = {}
    with Store.open(state, readonly=True) as store:
        engine = Engine.open(open_bundle(folder, require_sealed=False), store)
        for slate in engine.recommend([Request(user_id=user, k=10) for user in range(1, 200)]):
            shown.setdefault(slate.rung, []).extend(item.score for item in slate.items)
    write_atomic(folder / "report" / "scores.json", msgspec.json.encode(reference_of(shown)))


@pytest.fixture(scope="session")
def sealed_home(tmp_path_factory: pytest.TempPathFactory, ml100k_tables: Path) -> Path:
    """Never changed: `home` is a copy."""
    from playbill.state.ingest import run as ingest
    from playbill.training.export import run as export

    home = tmp_path_factory.mktemp("sealed")
    shutil.copytree(ml100k_tables, home / "tables" / "ml-100k")
    ingest(compose("ingest", [f"home={home}"]))
    for days, whole in ((30, False), (7, True)):
        path = export(compose("export", [f"home={home}", f"half_life_days={days}"]))
        if whole:
            add_graphs(path)
            add_scores(path, home / "state")
        for state in (State.EVALUATED, State.GATED):
            set_state(path, state)
        seal(path)
        publish(home / "bundles", path.name)
    return home


@pytest.fixture(scope="session")
def versions(sealed_home: Path) -> list[str]:
    """The published bundle's version, which carries every rung, and that of the one that carries baselines alone."""
    published = current(sealed_home / "bundles")
    assert published is not None
    others = [p.name for p in (sealed_home / "bundles").iterdir() if p.is_dir() and p.name != published]
    return [published, *others]


@pytest.fixture(scope="session")
def creative_home(
    sealed_home: Path, add_creatives: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A home whose published bundle has a creative head: the sealed one of the others, taken apart and sealed again.

    Never changed, as `sealed_home`.
    """
    path = tmp_path_factory.mktemp("creative") / "home"
    shutil.copytree(sealed_home, path)
    version = current(path / "bundles")
    assert version is not None
    folder = path / "bundles" / version
    manifest = open_bundle(folder, verify=False).manifest
    (folder / "manifest.json").unlink()
    describe(folder, manifest)
    add_creatives(folder, reward="rate")
    for state in (State.EVALUATED, State.GATED):
        set_state(folder, state)
    seal(folder)
    publish(path / "bundles", version)
    return path


@pytest.fixture(scope="module")
def home(sealed_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose state a module may change."""
    path = tmp_path_factory.mktemp("home")
    shutil.copytree(sealed_home, path, dirs_exist_ok=True)
    return path


@pytest.fixture(scope="session")
def free_ports() -> Callable[[int], list[int]]:
    """Returns that many ports that nobody listens on now, and none that the system gives to whoever asks for any.

    Each worker has ports of its own and gives none twice, and they are drawn by the system: a training seeds the
    generators of Python, and two workers that draw alike would let one test's server answer in another's place.
    """
    first = 10_000 + 10_000 * _place() // _workers()
    given = random.SystemRandom().sample(range(first, first + 10_000 // _workers()), 10_000 // _workers())

    def find(count: int) -> list[int]:
        ports: list[int] = []
        while len(ports) < count:
            port = given.pop()
            with socket.socket() as probe, suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
        return ports

    return find


@pytest.fixture(scope="session")
def replica_ports() -> Callable[[], int]:
    """Returns the first of a hundred ports that no other worker's replicas listen on."""
    first = 20_000 + 9_000 * _place() // _workers() // 100 * 100
    blocks = range(first, first + 9_000 // _workers() // 100 * 100, 100)
    given = random.SystemRandom().sample(blocks, len(blocks))
    return given.pop


def _place() -> int:
    """Which of pytest's workers this is, from 0."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def _workers() -> int:
    return int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


@pytest.fixture(scope="session")
def doors() -> Callable[[list[int]], tuple[set[str], list[str]]]:
    """Returns the addresses that processes listen on, as the kernel writes them, and which of them are not loopback."""

    def find(pids: list[int]) -> tuple[set[str], list[str]]:
        inodes = set()
        for pid in pids:
            with suppress(OSError):  # ended meanwhile
                for link in Path(f"/proc/{pid}/fd").iterdir():
                    with suppress(OSError):  # closed meanwhile
                        inodes.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
        names = ("tcp", "tcp6")
        rows = [line.split() for name in names for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
        listening = {row[1] for row in rows if row[3] == "0A" and row[9] in inodes}
        # addresses are written in hex, the last byte first; an IPv6 socket may be bound to a loopback address of IPv4
        loopback = re.compile(
            "(0000000000000000FFFF0000)?0100007F:[0-9A-F]{4}|00000000000000000000000001000000:[0-9A-F]{4}"
        )
        return listening, [address for address in listening if not loopback.fullmatch(address)]

    return find


MARK, NUMBER = "jane.roe@example.org", 918273645546372


@pytest.fixture(scope="session")
def send_marked() -> Callable[[Callable[[str, Any, dict[str, str]], int], dict[str, str]], list[int]]:
    """Sends requests that name a person in every place where one can be named; returns their statuses."""

    def send(ask: Callable[[str, Any, dict[str, str]], int], headers: dict[str, str]) -> list[int]:
        person = {"session_id": MARK, "context": {"device": MARK, MARK: 1}}
        event = {"event": "rate", "user_id": NUMBER, "session_id": MARK, "event_id": MARK, "item_id": 1, "value": 4,
                 "device": MARK, "context": {MARK: MARK}}  # fmt: skip
        sent: list[tuple[str, Any, dict[str, str]]] = [
            ("/v1/recommend", person, {}),
            ("/v1/recommend", {"user_id": NUMBER, "exclude": [NUMBER], "request_id": MARK}, {}),
            ("/v1/recommend", {"user_id": MARK}, {}),
            ("/v1/recommend", {"surface": MARK, "k": 0}, {}),
            ("/v1/recommend", {MARK: 1}, {}),
            ("/v1/recommend", f'{{"user_id": "{MARK}'.encode(), {}),
            ("/v1/events", event, {}),
            ("/v1/events", {**event, "event_id": 1, "event": MARK}, {}),
            ("/v1/events", {**event, "event_id": 2, "item_id": MARK}, {}),
            ("/v1/creatives", {"creative_id": MARK, "withdrawn": True}, {}),
            ("/v1/items", {"item_id": MARK, "title": MARK}, {}),
            ("/v1/items", {"item_id": 1, "title": [MARK], MARK: MARK}, {}),
            (f"/v1/items/{MARK}", None, {}),
            (f"/v1/{MARK}", {}, {}),
            (f"/v1/recommend?user_id={NUMBER}&mail={MARK}", {}, {}),
            ("/v1/recommend", {}, {"user-agent": MARK, "cookie": MARK, "referer": f"https://{MARK}/", "from": MARK}),
            ("/v1/recommend", {}, {"authorization": f"Bearer {MARK}", "x-api-key": MARK}),
            ("/v1/recommend", {}, {"content-encoding": MARK}),
        ]
        return [ask(path, body, {**headers, **more}) for path, body, more in sent]

    return send


@pytest.fixture(scope="session")
def marks_in() -> Callable[..., list[str]]:
    """Returns where what `send_marked` sent, or a secret, stands in files or in whole folders."""

    def find(*places: Path, secrets: Sequence[str] = ()) -> list[str]:
        wanted = [mark.encode() for mark in (MARK, str(NUMBER), *secrets)]
        files = [f for p in places for f in ([p] if p.is_file() else p.rglob("*")) if f.is_file()]
        return [f"{mark.decode()} in {f}" for f in files for mark in wanted if mark in f.read_bytes()]

    return find
